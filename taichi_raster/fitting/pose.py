"""The pose of an object in a photo, from its mask, its texture or a depth map."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, replace

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from taichi_raster import checks
from taichi_raster.fitting import inputs, pose_inputs
from taichi_raster.fitting.photometric import SIZES, aligned
from taichi_raster.fitting.pose_problem import FINE, Problem
from taichi_raster.fitting.pose_scene import PoseScene
from taichi_raster.fitting.pose_settle import settled
from taichi_raster.fitting.pose_terms import DepthTerm, MaskTerm, PhotoTerm
from taichi_raster.scene.camera import Camera
from taichi_raster.scene.mesh import Mesh
from taichi_raster.scene.pose import Pose
from taichi_raster.scene.resampling import area_average

FITS = 0.05
"""The mismatch up to which a silhouette fits."""

AGREES = 0.8
"""The correlation from which colours agree."""

NEAR = 0.05
"""Of the object's size: the error up to which distances agree, for half of the pixels or more."""


@dataclass(frozen=True, eq=False)
class PoseFit:
    """The result of `fit_pose`.

    Attributes:
        pose: object to camera; it converts to the frames of OpenCV, OpenGL and BOP.
        covariance: (6, 6) of small turns about the object's centre, in radians, and of the centre's
            shift, in the object's units; both in OpenCV's axes. The noise of pixels, and how far
            that of neighbours is alike, is measured in what is left of their errors. It takes
            mesh and lens as exact.
        converged: whether what was given fits, all six unknowns are held by it, costs rise on both
            sides where they rise least, and the next step would be smaller than the pose's own
            standard error. Of a mask, noise in every pixel may be left.
        mismatch: the area that drawing and mask do not share, over that of both, in [0, 1]; NaN
            without a mask.
        others: (K,) the mismatches of the other starts that were followed to the end.
        correlation: of the texture's colours with the photo's, in [-1, 1]; NaN without a photo.
        depth_error: the scale of the errors of distances, in the object's units, by their median;
            NaN without a depth map.
    """

    pose: Pose
    covariance: Float[Tensor, "6 6"]
    converged: bool
    mismatch: float
    others: Float[Tensor, " K"]
    correlation: float = math.nan
    depth_error: float = math.nan


def fit_pose(
    mesh: Mesh,
    camera: Camera,
    mask: Float[Tensor, "H W"] | None = None,
    start: Pose | None = None,
    starts: int | None = None,
    seed: int = 0,
    photo: Float[Tensor, "H W 3"] | None = None,
    done: Callable[[str], None] | None = None,
    depth: Float[Tensor, "H W"] | None = None,
    unknown: Bool[Tensor, "H W"] | None = None,
) -> PoseFit:
    """Find where an object stands before a camera, from its mask, texture, depth, or all of them.

    **By the mask**: a few Gauss-Newton steps on the outline (`outline_step`), of many starts side
    by side, coarse to fine: no softness, no learning rate, and no overlap at the start is needed.

    **By the texture**, if a photo is given: Gauss-Newton steps on colours, coarse to fine, from
    `start`, or from what the mask has found. The photo may differ from the texture in exposure, and
    parts of the object may be hidden. It is the more exact of the two, but reaches less far: the
    start has to be within a few hundredths of the picture.

    **By depth**, from `start` or from what the mask has found: Gauss-Newton steps on distances,
    from each pixel to the surface's plane. What is far off does not count.

    In the end all that was given is fitted together. Each part counts by its own noise, which is
    measured in its errors, so that there are no weights to choose.

    Args:
        mesh: the object, in its own frame and units.
        camera: its lens and intrinsics; its view does not count.
        mask: (H, W) in [0, 1], 1 where the photo shows the object; the whole of it, but for what is
            `unknown`. None to go by texture or depth alone, from `start`.
        start: a guess; other starts are turns of it. None to begin with turns in all directions,
            at the distance at which the mesh is as large as the mask.
        starts: how many; by default 1 with a guess, and then 24 more if that does not fit; 32
            without.
        seed: of the starts.
        photo: (H, W, 3) in [0, 1], for a mesh with a texture or colours.
        done: called with a line of text as parts are done.
        depth: (H, W), distances along the optical axis in the object's units; 0 or NaN where there
            is none.
        unknown: (H, W) of bool, True where something else may stand before the object: nothing
            there counts, neither mask nor photo nor depth.

    Raises:
        TypeError, ValueError: naming the argument; for a mask that is empty or touches the whole
            border, too.

    Example:
        >>> camera = tr.load_camera("calibration.yml")
        >>> fit = tr.fit_pose(tr.load_mesh("box.ply"), camera, mask)
        >>> fit.pose.opencv, fit.converged
    """
    mesh = inputs.mesh("mesh", mesh)
    camera = inputs.detached(checks.instance("camera", camera, Camera))
    inputs.seed(seed)
    if mask is None and ((photo is None and depth is None) or start is None):
        raise ValueError("mask: give one, or a start and a photo or a depth map")
    size = pose_inputs.check(mask, photo, depth, unknown, [mesh])
    if starts is not None:
        checks.count("starts", starts)
    if start is not None:
        pose_inputs.check_start(start, mesh)
    say = done or (lambda text: None)
    known = torch.ones(size, dtype=torch.bool) if unknown is None else ~unknown.detach().cpu()
    given = torch.ones(size) if mask is None else mask.detach().cpu()
    problem = Problem.of(mesh, camera, given, known)
    found = _Ends(mesh, problem, mask is not None, photo, depth)
    if mask is None:
        assert start is not None
        return found.fitted(_double(start), torch.zeros(0), say)
    guess = problem.before_the_mask() if start is None else _double(start)
    count = starts or (32 if start is None else 1)
    poses = problem.turned(guess, count, seed, math.pi if start is None else 0.8)
    followed = problem.followed(poses, say)
    if start is not None and starts is None and followed[0].mismatch > FITS:
        say("the guess does not fit: other starts")
        more = problem.turned(guess, 25, seed, math.pi)
        followed = sorted([*followed, *problem.followed(more, say)], key=lambda one: one.mismatch)
    best = problem.polished(followed[0])
    say(f"to the end: mismatch {best.mismatch:.4f}")
    others = torch.tensor([one.mismatch for one in followed[1:]])
    by_mask = found.fitted(best.pose, others, say)
    if photo is None and depth is None:
        return by_mask
    also = [one.pose for one in followed[1:] if one.mismatch < 2 * FITS]
    fits = [by_mask, *(found.fitted(pose, others, say) for pose in also)]
    if photo is not None:
        return max(fits, key=lambda fit: fit.correlation)
    return min(fits, key=lambda fit: fit.depth_error)


@dataclass(frozen=True, eq=False)
class _Ends:
    """From a pose nearby to the end, by all that was given."""

    mesh: Mesh
    problem: Problem
    masked: bool
    photo: Tensor | None
    depth: Tensor | None

    def fitted(self, start: Pose, others: Tensor, say: Callable[[str], None]) -> PoseFit:
        """By distances, by the texture, and by all together."""
        problem = self.problem
        opencv = torch.diag(torch.tensor([1.0, -1.0, 1.0, 1.0]))[None].to(problem.camera.view)
        scene = PoseScene.of([self.mesh], [replace(problem.camera, view=opencv)])
        size = problem.mask.shape[0], problem.mask.shape[1]
        local, small, fits = scene.local(start), size, True
        mask, photo, depth = self._terms()
        if depth is not None:
            say("by distances")
            ended = settled(scene, [depth], local, size, 30)
            local = local if ended is None else ended.local
        if photo is not None:
            say("by the texture")
            assert self.photo is not None
            own = replace(self.mesh, vertices=problem.mesh.vertices)
            small = photo.image.shape[0], photo.image.shape[1]
            coarser = [side for side in SIZES if side < min(small)] or [min(small)]
            image = self.photo.detach().cpu().float()
            local = aligned(problem, own, image, local, problem.known, coarser).pose
        terms = [term for term in (mask, photo, depth) if term is not None]
        ended = settled(scene, terms, local, small)
        if ended is None:
            free = torch.full((6, 6), torch.inf, dtype=torch.float64)
            covariance, fits = free, False
        else:
            local, fits = ended.local, ended.converged
            covariance = scene.in_given_units(ended.covariance, local)
        mismatch, beyond = problem.mismatch(local) if self.masked else (math.nan, math.nan)
        correlation, error = math.nan, math.nan
        if photo is not None:
            correlation = photo.correlation(scene, local)
            fits = fits and correlation > AGREES
        if depth is not None:
            error, share = depth.share(scene, local)
            fits = fits and error < NEAR * problem.size and share > 0.5
        if photo is None and depth is None:
            fits = fits and beyond <= FITS
        pose = scene.world(local)
        return PoseFit(pose, covariance, fits, mismatch, others, correlation, error)

    def _terms(self) -> tuple[MaskTerm | None, PhotoTerm | None, DepthTerm | None]:
        problem, known = self.problem, self.problem.known
        mask = photo = depth = None
        if self.masked:
            target, told = problem.target(FINE)
            mask = MaskTerm(0, target, told[0])
        if self.photo is not None:
            photo = photo_term(0, self.photo, known)
        if self.depth is not None:
            depth = DepthTerm(0, self.depth.detach().cpu().nan_to_num(0.0), known)
        return mask, photo, depth


def photo_term(index: int, photo: Tensor, known: Tensor) -> PhotoTerm:
    """Of the size at which colours are compared last."""
    short = min(photo.shape[:2])
    shrink = min(1.0, SIZES[-1] / short)
    shape = round(photo.shape[0] * shrink), round(photo.shape[1] * shrink)
    image = area_average(photo.detach().cpu().float()[None], shape)[0]
    told = area_average(known[None].float(), shape)[0] > 0.99
    return PhotoTerm(index, image, told)


def _double(pose: Pose) -> Pose:
    return Pose(pose.rotation.detach().double(), pose.translation.detach().double())
