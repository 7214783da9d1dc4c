"""How points of an object move in the picture with its pose."""

from __future__ import annotations

from collections.abc import Callable

import torch
import torch.autograd.forward_ad as forward_ad
from jaxtyping import Float
from torch import Tensor

from taichi_raster.runtime.precision import product
from taichi_raster.scene.camera import Camera
from taichi_raster.scene.pose import Pose

FLIP = (1.0, -1.0, 1.0)  # between OpenCV's axes and the cameras'

DIFFERENCE = 1e-5  # of central differences, in double precision


def point_motions(
    camera: Camera, view: Callable[[Tensor], Tensor], points: Float[Tensor, "n 3"], unknowns: int
) -> Float[Tensor, "k n 3"]:
    """The motion of points in NDC and z by each unknown, of float64.

    Args:
        camera: its lens; its own view does not count.
        view: from rows of unknowns (R, k) to matrices (R, 4, 4), from the object's frame to the
            camera's.
        points: of the object.
        unknowns: k, which are 0 here.
    """
    points = points.detach().double()
    with torch.no_grad(), forward_ad.dual_level():
        zero, each = torch.zeros(unknowns, unknowns).double(), torch.eye(unknowns).double()
        there = forward_ad.unpack_dual(view(forward_ad.make_dual(zero, each)))
        matrix, change = there.primal[0].clone(), there.tangent.clone()

    def placed(matrices: Tensor) -> Tensor:
        return product(points, matrices[..., :3, :3].mT) + matrices[..., None, :3, 3]

    motion = placed(change)
    if len(points) == 0:
        return motion
    with torch.enable_grad():
        at = placed(matrix).requires_grad_()
        seen = camera.to_image(at[None])[0]
        across, down = (
            torch.autograd.grad(seen[:, axis].sum(), at, retain_graph=axis == 0)[0]
            for axis in (0, 1)
        )
    return torch.stack([(motion * across).sum(-1), (motion * down).sum(-1), motion[..., 2]], -1)


def projected(
    camera: Camera, poses: Pose, points: Float[Tensor, "*B n 3"]
) -> Float[Tensor, "B n 3"]:
    """Points in NDC and z, by the camera's lens; its own view does not count."""
    at = product(points, poses.rotation.mT) + poses.translation[:, None]
    found: Tensor = camera.to_image(at * at.new_tensor(FLIP))
    return found


def pose_motions(
    camera: Camera, pose: Pose, points: Float[Tensor, "n 3"]
) -> Float[Tensor, "6 n 2"]:
    """The motion of points in NDC by each unknown of `Pose.moved`, of one pose, by differences."""
    steps = DIFFERENCE * torch.eye(6, dtype=torch.float64)
    many = Pose(pose.rotation.expand(12, 3, 3), pose.translation.expand(12, 3))
    ends = projected(camera, many.moved(torch.cat([steps, -steps])), points)
    return (ends[:6] - ends[6:])[..., :2] / (2 * DIFFERENCE)
