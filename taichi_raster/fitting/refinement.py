"""Cameras that are nearly right, made right: by features, or by a coarse shape in turn."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from taichi_raster import checks
from taichi_raster.capture.capture import Capture, Photo
from taichi_raster.capture.hull import visual_hull
from taichi_raster.fitting import inputs
from taichi_raster.fitting.bundle import Bundle, Given
from taichi_raster.fitting.feature_bundle import FeatureBundle
from taichi_raster.fitting.features import Features
from taichi_raster.fitting.photo_level import Level
from taichi_raster.fitting.silhouette_fit import LocalMesh, fitted_to, silhouettes
from taichi_raster.fitting.simplification import simplified
from taichi_raster.runtime.precision import product
from taichi_raster.scene.camera import Camera
from taichi_raster.scene.mesh import Mesh
from taichi_raster.scene.pose import Pose


@dataclass(frozen=True)
class Round:
    """How the poses are found once, of a shape that was found of the last ones.

    Attributes:
        extent: the object's longer side in the photos, in pixels.
        steps: of the poses.
        slack: by which masks are widened for the hull, of the object's longer side.
        outline: pixels, the standard deviation that outlines are taken to have. They bring cameras
            near that are off; but the surface has been fitted to them, so that colours say more.
        patch: pixels that a patch has.
    """

    extent: int
    steps: int
    slack: float
    outline: float
    patch: float


ROUNDS = (
    Round(extent=120, steps=3, slack=0.02, outline=3.0, patch=60.0),
    Round(extent=120, steps=2, slack=0.01, outline=3.0, patch=60.0),
    Round(extent=240, steps=3, slack=0.005, outline=6.0, patch=25.0),
    Round(extent=300, steps=2, slack=0.004, outline=6.0, patch=16.0),
)

SHIFT = 0.03
"""How uncertain places are for each degree of uncertainty, in units of the object's size."""

FEW = 30
"""Places that each photo has to share with two others, for features to decide."""

BANDS = (1.7, 4.0)
"""How far matches may be off: first, standard deviations of the shift; then, pixels."""

FEATURE_STEPS, STILL = 6, 0.005
"""Of the poses by one set of matches, at most; degrees below which they are at rest."""

CELLS, FACES, SHAPE_STEPS, SHAPE_SIZE = 64, 3000, 30, 200
"""Of the coarse shapes."""


def refine_cameras(
    capture: Capture,
    uncertainty: float = 1.0,
    seed: int = 0,
    done: Callable[[str], None] | None = None,
) -> Capture:
    """The same photos, with poses for which they agree on one surface.

    For cameras that are off by a degree or so. Features of the photos are matched, and poses are
    those by which each feature is seen at one place: bundle adjustment. Where an object has too
    little texture for that, it is a coarse shape of the masks, and Gauss-Newton steps of all poses
    together, by colours and outlines; four times, finer and finer. Some texture it needs in any
    case, and neighbouring photos have to be within about 30 degrees. The world stays the
    photographer's: turn, shift and scale of all cameras together are taken out. Lenses stay.

    What photos hardly show, as the height from which a turntable was seen, stays as given. Without
    features, cameras that are right to a few tenths of a degree do not get better: surface and
    light are not exact.

    Args:
        capture: photos with masks; three or more.
        uncertainty: by how many degrees the poses that were given are off, about. Places then are
            off by about 3% of the object's size for each degree.
        seed: of the points at which photos are compared.
        done: called with a line of text as parts are done.

    Raises:
        ImportError: if scikit-image or fast-simplification is not installed.
        TypeError, ValueError: naming the argument; see `visual_hull` for what masks and cameras
            that do not fit together give.

    Example:
        >>> better = tr.refine_cameras(tr.load_capture("toy"))
        >>> fit = tr.fit_mesh(better)
    """
    degrees = checks.positive("uncertainty", uncertainty)
    inputs.seed(seed)
    if len(checks.instance("capture", capture, Capture)) < 3:
        raise ValueError("capture: cameras are refined together; it takes three photos or more")
    capture = inputs.capture(capture, pictures=True)
    say = done or (lambda text: None)
    given = [photo.pose for photo in capture]
    found = _by_features(capture, degrees, say)
    if found is not None:
        return replace(capture, photos=_posed(capture.photos, in_given_world(found, given)))
    say("cameras: the photos share too few features; by colours and outlines")
    for each in ROUNDS:
        say(f"cameras: a coarse shape for photos of {each.extent} pixels")
        local = LocalMesh.of(_coarse(capture, each.slack, seed), [p.camera for p in capture])
        levels = [Level.of(photo, each.extent) for photo in capture]
        near = Given.within([_local(pose, local) for pose in given], degrees, SHIFT * degrees)
        bundle = Bundle.of(local.mesh, local.cameras, levels, each.outline, each.patch, near, seed)
        poses = [_local(photo.pose, local) for photo in capture]
        for step in range(each.steps):
            bundle, moved = bundle.stepped(poses)
            turns = [float(a.angle_to(b)) for a, b in zip(poses, moved, strict=True)]
            say(
                f"cameras, {each.extent} pixels, step {step + 1} of {each.steps}: "
                f"{max(turns):.3f} degrees"
            )
            poses = moved
        world = in_given_world([_given(pose, local) for pose in poses], given)
        capture = replace(capture, photos=_posed(capture.photos, world))
    return capture


def _by_features(capture: Capture, degrees: float, say: Callable[[str], None]) -> list[Pose] | None:
    """The poses by bundle adjustment, in their own world; None where features are too few."""
    cameras: list[Camera] = [photo.camera for photo in capture]
    # First, as it tells at once if masks and cameras do not fit together.
    local = LocalMesh.of(visual_hull(capture, CELLS, _slack(capture, ROUNDS[0].slack)), cameras)
    features = []
    for i, photo in enumerate(capture):
        say(f"cameras: features of photo {i + 1} of {len(capture)}")
        features.append(Features.of(photo))
    poses = [_local(photo.pose, local) for photo in capture]
    given = Given.within(poses, degrees, SHIFT * degrees)
    sizes = [  # pixels that the object's size takes
        float(each.per_radian / pose.translation[0].norm())
        for each, pose in zip(features, poses, strict=True)
    ]
    first = max(BANDS[1], BANDS[0] * SHIFT * degrees * sum(sizes) / len(sizes))
    for band in (first, BANDS[1]):
        say("cameras: features are matched")
        bundle = FeatureBundle.of(cameras, features, poses, band, given)
        if int(bundle.tracks.per_photo(len(poses)).min()) < FEW:
            return None
        for step in range(FEATURE_STEPS):
            bundle, moved = bundle.stepped(poses)
            turns = [float(a.angle_to(b)) for a, b in zip(poses, moved, strict=True)]
            poses = moved
            say(f"cameras, by features, step {step + 1}: {max(turns):.3f} degrees")
            if max(turns) < STILL:
                break
    return [_given(pose, local) for pose in poses]


def in_given_world(poses: Sequence[Pose], given: Sequence[Pose]) -> list[Pose]:
    """The poses, their world turned, moved and scaled so that cameras are where given on the whole.

    A surface and all of its cameras can move together without a change in any photo. Orientations
    decide about the turn, the places of the cameras about the rest.
    """
    turn = sum(product(b.rotation[0].mT, a.rotation[0]) for a, b in zip(poses, given, strict=True))
    assert isinstance(turn, Tensor)
    left, _, right = torch.linalg.svd(turn)
    sign = torch.linalg.det(product(left, right)).sign()
    turn = product(left * torch.stack([sign.new_ones(()), sign.new_ones(()), sign]), right)
    eyes, wanted = _eyes(poses), _eyes(given)
    eyes = product(eyes, turn.mT)
    off, goal = eyes - eyes.mean(0), wanted - wanted.mean(0)
    scale = (off * goal).sum() / off.square().sum().clamp(min=1e-30)
    shift = wanted.mean(0) - scale * eyes.mean(0)
    found = []
    for pose in poses:
        rotation = product(pose.rotation, turn.mT)
        place = product(rotation, shift[None, :, None])[..., 0]
        found.append(Pose(rotation, scale * pose.translation - place))
    return found


def _eyes(poses: Sequence[Pose]) -> Tensor:
    return torch.cat([-product(p.rotation.mT, p.translation[..., None])[..., 0] for p in poses])


def _coarse(capture: Capture, slack: float, seed: int) -> Mesh:
    mesh = simplified(visual_hull(capture, CELLS, _slack(capture, slack)), FACES)
    local = LocalMesh.of(mesh, [photo.camera for photo in capture])
    return fitted_to(local, silhouettes(capture, SHAPE_SIZE), SHAPE_STEPS, seed, None)[0]


def _slack(capture: Capture, share: float) -> float:
    """Pixels that are so much of the object's longer side in the median photo."""
    extents = []
    for photo in capture:
        rows, columns = (photo.mask() > 0.5).nonzero().unbind(-1)
        extents.append(int(max(rows.max() - rows.min(), columns.max() - columns.min())) + 1)
    return max(0.5, share * sorted(extents)[len(extents) // 2])


def _local(pose: Pose, mesh: LocalMesh) -> Pose:
    turned = product(pose.rotation, mesh.centre[None, :, None])[..., 0]
    return Pose(pose.rotation, (pose.translation + turned) / mesh.size)


def _given(pose: Pose, mesh: LocalMesh) -> Pose:
    turned = product(pose.rotation, mesh.centre[None, :, None])[..., 0]
    return Pose(pose.rotation, mesh.size * pose.translation - turned)


def _posed(photos: Sequence[Photo], poses: Sequence[Pose]) -> tuple[Photo, ...]:
    return tuple(
        replace(photo, camera=replace(photo.camera, view=pose.view.to(photo.camera.view)))
        for photo, pose in zip(photos, poses, strict=True)
    )
