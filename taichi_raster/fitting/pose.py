"""The pose of an object in a photo, from its mask."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, replace

import torch
from jaxtyping import Float
from torch import Tensor

from taichi_raster import checks
from taichi_raster.fitting.photometric import aligned
from taichi_raster.fitting.pose_problem import Problem
from taichi_raster.runtime.precision import product
from taichi_raster.scene.camera import Camera
from taichi_raster.scene.mesh import Mesh
from taichi_raster.scene.pose import Pose

FITS = 0.05
"""The mismatch up to which a silhouette fits."""

AGREES = 0.8
"""The correlation from which colours agree."""


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
        mismatch: the area that drawing and mask do not share, over that of both, in [0, 1]; NaN
            without a mask.
        others: (K,) the mismatches of the other starts that were followed to the end.
        correlation: of the texture's colours with the photo's, in [-1, 1]; NaN without a photo.
    """

    pose: Pose
    covariance: Float[Tensor, "6 6"]
    converged: bool
    mismatch: float
    others: Float[Tensor, " K"]
    correlation: float = math.nan


def fit_pose(
    mesh: Mesh,
    camera: Camera,
    mask: Float[Tensor, "H W"] | None = None,
    start: Pose | None = None,
    starts: int | None = None,
    seed: int = 0,
    photo: Float[Tensor, "H W 3"] | None = None,
    done: Callable[[str], None] | None = None,
) -> PoseFit:
    """Find where an object stands before a camera, from its mask, from its texture, or both.

    **By the mask**: a few Gauss-Newton steps on the outline (`outline_step`), of many starts side
    by side, coarse to fine: no softness, no learning rate, and no overlap at the start is needed.

    **By the texture**, if a photo is given: Gauss-Newton steps on colours, coarse to fine, from
    `start`, or from what the mask has found. The photo may differ from the texture in exposure, and
    parts of the object may be hidden. It is the more exact of the two, but reaches less far: the
    start has to be within a few hundredths of the picture.

    Args:
        mesh: the object, in its own frame and units.
        camera: its lens and intrinsics; its view does not count.
        mask: (H, W) in [0, 1], 1 where the photo shows the object; the whole of it. None to go by
            the texture alone, from `start`.
        start: a guess; other starts are turns of it. None to begin with turns in all directions,
            at the distance at which the mesh is as large as the mask.
        starts: how many; by default 1 with a guess, and then 24 more if that does not fit; 32
            without.
        seed: of the starts.
        photo: (H, W, 3) in [0, 1], for a mesh with a texture or colours.
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
    if mask is None and (photo is None or start is None):
        raise ValueError("mask: give one, or a photo and a start")
    if photo is not None:
        _check_photo(photo, mesh, mask)
    if mask is not None:
        _check_mask(mask)
    if starts is not None:
        checks.count("starts", starts)
    if start is not None and len(checks.instance("start", start, Pose)) != 1:
        raise ValueError(f"start: expected one pose, got {len(start)}")
    say = done or (lambda text: None)
    if mask is None:
        assert photo is not None and start is not None
        problem = Problem.of(mesh, camera, torch.ones(photo.shape[:2]))
        return _by_texture(problem, mesh, photo, _double(start), None)
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
    by_mask = PoseFit(
        best.pose,
        covariance,
        best.mismatch <= FITS and best.motion < 0.1 and minimum,
        best.mismatch,
        torch.tensor([one.mismatch for one in found[1:]]),
    )
    if photo is None:
        return by_mask
    say("by the texture")
    candidates = [best.pose, *(one.pose for one in found[1:] if one.mismatch < 2 * FITS)]
    fits = [_by_texture(problem, mesh, photo, pose, by_mask) for pose in candidates]
    return max(fits, key=lambda fit: fit.correlation)


def _by_texture(
    problem: Problem, mesh: Mesh, photo: Tensor, start: Pose, before: PoseFit | None
) -> PoseFit:
    """Align the texture with the photo; as if only that were known."""
    local_mesh = replace(mesh, vertices=problem.mesh.vertices)
    found = aligned(problem, local_mesh, photo.detach().float(), problem.local(start))
    given = problem.given(found.pose)
    values, vectors = torch.linalg.eigh(found.hessian)
    inverse = product(vectors / values.clamp(min=1e-9), vectors.mT)
    fits = found.correlation > AGREES and bool((values > 0).all())
    return PoseFit(
        Pose(given.rotation, given.translation),
        problem.in_given_units(found.variance * inverse, found.pose),
        fits and found.motion < 0.2,
        math.nan if before is None else before.mismatch,
        torch.zeros(0) if before is None else before.others,
        found.correlation,
    )


def _double(pose: Pose) -> Pose:
    return Pose(pose.rotation.detach().double(), pose.translation.detach().double())


def _check_photo(photo: Tensor, mesh: Mesh, mask: Tensor | None) -> None:
    checks.floats("photo", photo)
    if photo.ndim != 3 or photo.shape[2] != 3 or min(photo.shape[:2]) < 24:
        raise ValueError(f"photo: must be (H, W, 3), 24 or more each, got {tuple(photo.shape)}")
    if not bool(torch.isfinite(photo).all()):
        raise ValueError("photo: must be finite")
    if mask is not None and mask.shape != photo.shape[:2]:
        raise ValueError(
            f"mask: must be as large as the photo, {tuple(photo.shape[:2])}, "
            f"got {tuple(mask.shape)}"
        )
    if mesh.colours is None and (mesh.texture is None or mesh.uv is None):
        raise ValueError("photo: needs a mesh with a texture or colours")


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
