"""The poses of one object in several photos, or of several objects in one or more."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from taichi_raster import checks
from taichi_raster.fitting import inputs
from taichi_raster.fitting.drawing import drawn as draw_with
from taichi_raster.fitting.outline import outline_step, signed_distance
from taichi_raster.fitting.pose import AGREES, FITS, NEAR, fit_pose
from taichi_raster.fitting.pose_problem import COARSE, FINE, smaller
from taichi_raster.fitting.pose_scene import PoseScene
from taichi_raster.fitting.pose_settle import settled
from taichi_raster.fitting.poses_given import Given
from taichi_raster.render.sharp import SharpRasterizer
from taichi_raster.runtime.precision import product
from taichi_raster.scene.camera import Camera
from taichi_raster.scene.faces import gather_faces
from taichi_raster.scene.mesh import Mesh
from taichi_raster.scene.pose import Pose

STEPS = (12, 6)
"""Of outlines, at most, at each of two sizes."""


@dataclass(frozen=True, eq=False)
class PosesFit:
    """The result of `fit_poses`, for K objects and P photos.

    Attributes:
        poses: K poses, object to world.
        covariance: (6 K, 6 K): of each object, a small turn about its centre in radians, and the
            shift of its centre in the objects' units, both in the world's axes.
        converged: as of `PoseFit`.
        mismatches: (P,) as of `PoseFit`; the largest of its objects, if a mask tells them apart.
            NaN without a mask.
        correlations: (P,) of colours; NaN without a photo.
        depth_errors: (P,) in the objects' units; NaN without a depth map.
    """

    poses: Pose
    covariance: Float[Tensor, "n n"]
    converged: bool
    mismatches: Float[Tensor, " P"]
    correlations: Float[Tensor, " P"]
    depth_errors: Float[Tensor, " P"]


def fit_poses(
    meshes: Mesh | Sequence[Mesh],
    cameras: Camera | Sequence[Camera],
    masks: Sequence[Tensor | None] | None = None,
    start: Pose | None = None,
    photos: Sequence[Float[Tensor, "H W 3"] | None] | None = None,
    depths: Sequence[Float[Tensor, "H W"] | None] | None = None,
    unknown: Sequence[Bool[Tensor, "H W"] | None] | None = None,
    seed: int = 0,
    done: Callable[[str], None] | None = None,
) -> PosesFit:
    """Find where objects stand in the world, from all photos of them together.

    As `fit_pose`, for several photos whose cameras are known, and for several objects, of which
    each may hide parts of the others.

    Args:
        meshes: K objects, or one.
        cameras: P cameras in one world, or one; each of one view.
        masks: for each photo one, or None: (H, W) floats in [0, 1], 1 where any object is; or
            (H, W) int64 labels, 0 for none and k for the k-th mesh, counted from 1, where that is
            seen.
        start: K poses, object to *world*. None to look for each in the first photo, which then
            needs a mask: with labels, if there are several objects.
        photos, depths, unknown: as for `fit_pose`, for each photo one, or None.
        seed: of the starts.
        done: called with a line of text as parts are done.

    Raises:
        TypeError, ValueError: naming the argument and the photo, counted from 0.

    Example:
        >>> fit = tr.fit_poses([cup, plate], camera, [labels])
        >>> fit.poses.opencv  # (2, 4, 4), object to world
    """
    inputs.seed(seed)
    objects = _listed("meshes", meshes, Mesh)
    views = _listed("cameras", cameras, Camera)
    given = Given.of(objects, views, masks, photos, depths, unknown)
    say = done or (lambda text: None)
    if start is not None and len(checks.instance("start", start, Pose)) != len(objects):
        raise ValueError(f"start: expected {len(objects)} poses, got {len(start)}")
    scene = PoseScene.of(given.meshes, given.cameras)
    if start is None:
        start = _first(given, scene, seed, say)
    local = scene.local(Pose(start.rotation.detach().double(), start.translation.detach().double()))
    local = _by_outlines(given, scene, local, say)
    size = given.sizes[0]
    for terms, steps in ((given.depth_terms, 30), (given.photo_terms, 12), (given.terms, 12)):
        if terms:
            ended = settled(scene, terms, local, size, steps)
            local = local if ended is None else ended.local
    say("to the end")
    both = torch.tensor([given.mismatch(scene, local, p) for p in range(len(views))])
    mismatches, beyond = both.unbind(1)
    alike, off = torch.full_like(mismatches, math.nan), torch.full_like(mismatches, math.nan)
    for photo in given.photo_terms:
        alike[photo.photo] = photo.correlation(scene, local)
    shares = []
    for depth in given.depth_terms:
        off[depth.photo], share = depth.share(scene, local)
        shares.append(share)
    if ended is None:
        n = scene.unknowns
        return PosesFit(
            scene.world(local), torch.full((n, n), math.inf), False, mismatches, alike, off
        )
    fits = ended.converged
    if given.photo_terms:
        fits = fits and float(alike.nan_to_num(1.0).min()) > AGREES
    if given.depth_terms:
        close = float(off.nan_to_num(0.0).max()) < NEAR * scene.unit
        fits = fits and close and min(shares) > 0.5
    if not given.photo_terms and not given.depth_terms:
        fits = fits and float(beyond.nan_to_num(0.0).max()) <= FITS
    covariance = scene.in_given_units(ended.covariance, local)
    return PosesFit(scene.world(local), covariance, fits, mismatches, alike, off)


def _listed(name: str, given: Any, kind: type[Any]) -> list[Any]:
    """One, or several in a sequence."""
    if isinstance(given, kind):
        return [given]
    if not isinstance(given, Sequence):
        raise TypeError(
            f"{name}: expected a {kind.__name__} or several, got {type(given).__name__}"
        )
    return list(given)


def _first(given: Given, scene: PoseScene, seed: int, say: Callable[[str], None]) -> Pose:
    """Each object by itself in the first photo, to the world."""
    if given.masks[0] is None:
        raise ValueError("start: give one, or a mask of the first photo")
    if len(given.meshes) > 1 and not given.labelled(0):
        raise ValueError("start: give one, or labels that tell the objects apart")
    shown = given.coverage(0)
    poses = []
    for k, mesh in enumerate(given.meshes):
        hidden = ~given.known[0]
        for other in (one for j, one in enumerate(shown) if j != k):
            hidden = hidden | (other > 0.5)
        say(f"object {k}")
        poses.append(fit_pose(mesh, given.cameras[0], shown[k], seed=seed, unknown=hidden).pose)
    opencv = torch.cat([pose.opencv for pose in poses]).double()
    view = product(torch.diag(torch.tensor([1.0, -1.0, 1.0, 1.0])).double(), scene.first)
    return Pose.from_opencv(product(torch.linalg.inv(view), opencv))


def _by_outlines(given: Given, scene: PoseScene, local: Pose, say: Callable[[str], None]) -> Pose:
    """Steps of outlines in all photos that have a mask; objects that labels tell apart, alone."""
    photos = [i for i, mask in enumerate(given.masks) if mask is not None]
    if not photos:
        return local
    if len({given.sizes[i] for i in photos}) > 1:
        raise ValueError("masks: must be of one size")
    apart = all(given.labelled(i) for i in photos)
    groups = [[k] for k in range(len(given.meshes))] if apart else [list(range(len(given.meshes)))]
    for size, most in zip((COARSE, FINE), STEPS, strict=True):
        for group in groups:
            local = _group_steps(given, scene, local, photos, group, size, most)
        say(f"outlines, {size} pixels")
    return local


def _group_steps(
    given: Given,
    scene: PoseScene,
    local: Pose,
    photos: list[int],
    group: list[int],
    size: int,
    most: int,
) -> Pose:
    targets, told = [], []
    for i in photos:
        shown = given.coverage(i)
        known, own = given.known[i], shown[group[0]] if len(shown) > 1 else shown[0]
        for other in (one for j, one in enumerate(shown) if j not in group):
            if len(shown) > 1:
                known = known & (other < 0.5)
        target, seen = smaller(own, known, size)
        targets.append(target)
        told.append(seen)
    target, known = torch.cat(targets), torch.cat(told)
    distance = signed_distance(target, known)
    faces, owners = scene.faces, scene.owners
    faces = faces[torch.isin(owners, torch.tensor(group))]
    columns = torch.cat([torch.arange(6 * k, 6 * k + 6) for k in group])
    depths = [scene.depths(local, i) for i in photos]
    draw = SharpRasterizer(
        (target.shape[1], target.shape[2]),
        near=min(near for near, _ in depths),
        far=max(far for _, far in depths),
    )

    def drawn(points: Tensor) -> Tensor:
        return draw_with(draw, gather_faces(points, faces))[..., 0]

    for _ in range(most):
        here = local

        def points(unknowns: Tensor, here: Pose = here) -> Tensor:
            spread = torch.zeros(scene.unknowns, len(columns), dtype=torch.float64)
            spread[columns, torch.arange(len(columns))] = 1.0
            whole = (unknowns.double()[:, None] * spread).sum(-1)
            seen = torch.stack([scene.points(here, i, whole) for i in photos], dim=1)
            return seen.flatten(0, 1).float()

        zero = torch.zeros(1, len(columns))
        found = outline_step(points, zero, drawn, target, distance, known=known)
        step = torch.zeros(scene.unknowns, dtype=torch.float64)
        step[columns] = found.step[0].double().clamp(-1, 1)
        local = scene.moved(local, step)
        if float(found.motion[0]) * size / 2 < 0.05:
            break
    return local
