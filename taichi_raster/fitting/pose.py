"""The pose of an object in a photo, from its mask."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from taichi_raster import checks
from taichi_raster.fitting.pose_problem import Problem
from taichi_raster.scene.camera import Camera
from taichi_raster.scene.mesh import Mesh
from taichi_raster.scene.pose import Pose

FITS = 0.05
"""The mismatch up to which a silhouette fits."""


@dataclass(frozen=True, eq=False)
class PoseFit:
    """The result of `fit_pose`.

    Attributes:
        pose: object to camera; it converts to the frames of OpenCV, OpenGL and BOP.
        covariance: (6, 6) of small turns about the object's centre, in radians, and of the centre's
            shift, in the object's units; both in OpenCV's axes. It takes the errors of the mask's
            pixels as independent, and the mesh and the lens as exact: a lower bound.
        converged: whether the silhouette fits, the last step was small, and the fit is a minimum in
            all six directions.
        mismatch: the area that drawing and mask do not share, over that of both, in [0, 1].
        others: (K,) the mismatches of the other starts that were followed to the end.
    """

    pose: Pose
    covariance: Float[Tensor, "6 6"]
    converged: bool
    mismatch: float
    others: Float[Tensor, " K"]


def fit_pose(
    mesh: Mesh,
    camera: Camera,
    mask: Float[Tensor, "H W"],
    start: Pose | None = None,
    starts: int | None = None,
    seed: int = 0,
    done: Callable[[str], None] | None = None,
) -> PoseFit:
    """Find where an object stands before a camera, from its mask.

    A few Gauss-Newton steps on the outline (`outline_step`), of many starts side by side, coarse to
    fine: no softness, no learning rate, and no overlap at the start is needed.

    Args:
        mesh: the object, in its own frame and units.
        camera: its lens and intrinsics; its view does not count.
        mask: (H, W) in [0, 1], 1 where the photo shows the object; the whole of it.
        start: a guess; other starts are turns of it. None to begin with turns in all directions,
            at the distance at which the mesh is as large as the mask.
        starts: how many; by default 1 with a guess, and then 24 more if that does not fit; 32
            without.
        seed: of the starts.
        done: called with a line of text as parts are done.

    Raises:
        TypeError, ValueError: naming the argument; for a mask that is empty or touches the whole
            border, too.

    Example:
        >>> camera = tr.load_camera("calibration.yml")
        >>> fit = tr.fit_pose(tr.load_mesh("box.ply"), camera, mask)
        >>> fit.pose.opencv, fit.converged
    """
    checks.instance("mesh", mesh, Mesh)
    checks.instance("camera", camera, Camera)
    _check_mask(mask)
    if starts is not None:
        checks.count("starts", starts)
    if start is not None and len(checks.instance("start", start, Pose)) != 1:
        raise ValueError(f"start: expected one pose, got {len(start)}")
    say = done or (lambda text: None)
    problem = Problem.of(mesh, camera, mask)
    guess = problem.before_the_mask() if start is None else _double(start)
    count = starts or (32 if start is None else 1)
    poses = problem.turned(guess, count, seed, math.pi if start is None else 0.8)
    found = problem.followed(poses, say)
    if start is not None and starts is None and found[0].mismatch > FITS:
        say("the guess does not fit: other starts")
        more = problem.turned(guess, 25, seed, math.pi)
        found = sorted([*found, *problem.followed(more, say)], key=lambda one: one.mismatch)
    best, covariance, minimum = problem.polished(found[0])
    say(f"to the end: mismatch {best.mismatch:.4f}")
    return PoseFit(
        best.pose,
        covariance,
        best.mismatch <= FITS and best.motion < 0.1 and minimum,
        best.mismatch,
        torch.tensor([one.mismatch for one in found[1:]]),
    )


def _double(pose: Pose) -> Pose:
    return Pose(pose.rotation.detach().double(), pose.translation.detach().double())


def _check_mask(mask: Tensor) -> None:
    checks.floats("mask", mask)
    if mask.ndim != 2 or min(mask.shape) < 16:
        raise ValueError(f"mask: must be (H, W), 16 or more each, got {tuple(mask.shape)}")
    inside = mask > 0.5
    if not bool(torch.isfinite(mask).all()):
        raise ValueError("mask: must be finite")
    if int(inside.sum()) < 9:
        raise ValueError("mask: is empty; it must be 1 where the photo shows the object")
    border = torch.cat([inside[0], inside[-1], inside[:, 0], inside[:, -1]])
    if float(border.float().mean()) > 0.9:
        raise ValueError("mask: is 1 along the border; it may be inverted")
