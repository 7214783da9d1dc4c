"""The visual hull of balls whose masks are known exactly; and why there may be none."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image, ImageDraw
from torch import Tensor

import taichi_raster as tr
from paths import ROOT
from taichi_raster.scene.resampling import pixel_centres

pytestmark = pytest.mark.runs_on(arch="cpu", precision="f64")
F64 = torch.float64
CENTRE, RADIUS = torch.tensor([0.3, 0.4, 0.2], dtype=F64), 0.5
SIZE = (96, 128)
DINO = ROOT.parent / "shared" / "data" / "dino"
Balls = list[tuple[Tensor, float]]


def mask(camera: tr.PinholeCamera, balls: Balls) -> Tensor:
    """Which pixels' rays meet a ball."""
    rays = camera.from_image(pixel_centres(*SIZE, torch.zeros((), dtype=F64)))[0]
    found = torch.zeros(len(rays), dtype=torch.bool)
    for centre, radius in balls:
        place = camera.to_camera(centre[None, None])[0]
        across = torch.linalg.cross(rays, place.expand_as(rays)).norm(dim=-1)
        found |= across / rays.norm(dim=-1) < radius
    return found.reshape(SIZE).float()


def capture(balls: Balls | None = None, lens: tr.Lens | None = None, count: int = 16) -> tr.Capture:
    """Photos from all around, by Fibonacci's spiral."""
    photos = []
    for i in range(count):
        height = 1 - (2 * i + 1) / count
        view = tr.orbit(4.0, math.degrees(math.asin(height)), 137.5 * i).double()
        camera = tr.PinholeCamera(view, (2.4, 2.5), (0.1, 0.05), lens=lens)
        shown = mask(camera, balls or [(CENTRE, RADIUS)])
        photos.append(tr.Photo(f"{i:02d}", camera, SIZE, None, shown))
    return tr.Capture(tuple(photos))


def volume(mesh: tr.Mesh) -> float:
    return float(tr.volume(mesh.vertices[None], mesh.faces))


BALL = 4 / 3 * math.pi * RADIUS**3


@pytest.mark.parametrize("lens", [None, tr.BrownConradyLens((-0.15, 0.02)), tr.KannalaBrandtLens()])
def test_the_hull_of_a_ball_holds_it_and_little_more(lens: tr.Lens | None) -> None:
    hull = tr.visual_hull(capture(lens=lens), 32, slack=0.0, dtype=F64)
    distance = (hull.vertices - CENTRE).norm(dim=-1)
    pixel = 4.5 / 2.4 * 2 / 96
    assert distance.min() > RADIUS - 1.2 * pixel and distance.max() < 1.25 * RADIUS
    # Sixteen cones around a ball: within a tenth of its volume, outwards.
    assert 0.95 * BALL < volume(hull) < 1.12 * BALL
    edges = torch.cat([hull.faces[:, [0, 1]], hull.faces[:, [1, 2]], hull.faces[:, [2, 0]]])
    turned = edges.flip(1).unique(dim=0)
    assert torch.equal(edges.unique(dim=0), turned) and len(turned) == len(edges)  # closed


def requiring_grad(given: tr.Capture) -> tr.Capture:
    photos = []
    for photo in given:
        lens = tr.BrownConradyLens(torch.zeros(1, 2, dtype=F64, requires_grad=True))
        camera = replace(
            photo.camera,
            view=photo.camera.view.clone().requires_grad_(),
            focal=torch.tensor(photo.camera.focal, dtype=F64, requires_grad=True),
            principal=torch.tensor(photo.camera.principal, dtype=F64, requires_grad=True),
            lens=lens,
        )
        assert isinstance(photo.silhouette, Tensor)
        silhouette = photo.silhouette.clone().requires_grad_()
        photos.append(replace(photo, camera=camera, silhouette=silhouette))
    return replace(given, photos=tuple(photos))


def test_cameras_and_masks_may_require_grad() -> None:
    plain, hull = (tr.visual_hull(c, 16) for c in (capture(), requiring_grad(capture())))
    assert not hull.vertices.requires_grad
    torch.testing.assert_close(hull.vertices, plain.vertices)
    given = requiring_grad(capture())
    turned = [replace(p, silhouette=p.mask().flip(0)) for p in given]
    with pytest.raises(ValueError, match="masks seem to be upside down"):
        tr.visual_hull(replace(given, photos=tuple(turned)), 16)


def test_more_photos_come_closer() -> None:
    found = [volume(tr.visual_hull(capture(count=n), 24, slack=0.0)) / BALL for n in (4, 8, 32)]
    assert found[0] > found[1] > found[2]
    assert found[0] > 1.05 and abs(found[2] - 1) < 0.06  # a fifth of a pixel too small


def test_slack_widens_the_hull_by_pixels() -> None:
    plain, wide = (tr.visual_hull(capture(), 32, slack, F64) for slack in (0.0, 2.0))
    pixel = 4.0 / 2.4 * 2 / 96  # at the ball
    grown = (volume(wide) / volume(plain)) ** (1 / 3) - 1
    assert grown * RADIUS == pytest.approx(2 * pixel, rel=0.2)


@pytest.mark.parametrize(("unit", "shift"), [(1e-3, 0.0), (1e3, 5e5)])
def test_units_and_origin_of_the_world_do_not_matter(unit: float, shift: float) -> None:
    given = capture(count=6)
    plain = tr.visual_hull(given, 16, dtype=F64)
    photos = []
    for photo in given:
        pose = photo.pose
        moved = unit * pose.translation - shift * pose.rotation.sum(-1)
        camera = replace(photo.camera, view=tr.Pose(pose.rotation, moved).view)
        photos.append(replace(photo, camera=camera))
    other = tr.visual_hull(tr.Capture(tuple(photos)), 16, dtype=F64)
    assert volume(replace(other, vertices=(other.vertices - shift) / unit)) == pytest.approx(
        volume(plain), rel=1e-3
    )


def test_parts_are_kept_and_specks_are_not() -> None:
    second = (torch.tensor([-0.5, -0.4, -0.3], dtype=F64), 0.3)
    both = tr.visual_hull(capture([(CENTRE, RADIUS), second], count=24), 32, slack=0.0)
    expected = BALL * (1 + 0.6**3)
    assert volume(both) == pytest.approx(expected, rel=0.12)
    speck = (second[0], 0.06)
    one = tr.visual_hull(capture([(CENTRE, RADIUS), speck], count=24), 32, slack=0.0)
    assert (one.vertices.double() - CENTRE).norm(dim=-1).max() < 1.3 * RADIUS


def test_a_ball_that_one_photos_frame_cuts_off_is_not_cut_off_itself() -> None:
    given = list(capture(count=12))
    x, *_ = given[0].camera.project(CENTRE[None, None])[0, 0].tolist()
    camera = replace(given[0].camera, principal=(-1.3 - x, 0.05))
    given[0] = replace(given[0], camera=camera, silhouette=mask(camera, [(CENTRE, RADIUS)]))
    assert given[0].mask()[:, 0].any()
    assert volume(tr.visual_hull(tr.Capture(tuple(given)), 32)) > 0.95 * BALL


def test_where_every_photo_cuts_the_object_off_the_frames_bound_it() -> None:
    photos = []
    for photo in capture(count=8):
        _, y, _ = photo.camera.project(CENTRE[None, None])[0, 0].tolist()
        camera = replace(photo.camera, principal=(0.1, 0.05 - 0.85 - y))
        shown = mask(camera, [(CENTRE, RADIUS)])
        assert shown[-1].any() and not shown[0].any()
        photos.append(replace(photo, camera=camera, silhouette=shown))
    assert volume(tr.visual_hull(tr.Capture(tuple(photos)), 24)) > 0.3 * BALL


# No hull ------------------------------------------------------------------------------------------


BALLS: Balls = [
    (torch.tensor([0.2, 0.6, 0.1], dtype=F64), 0.35),
    (torch.tensor([-0.5, -0.3, 0.4], dtype=F64), 0.2),
    (torch.tensor([0.1, 0.0, -0.6], dtype=F64), 0.3),
]


def every(change: Callable[[tr.Photo], tr.Photo], only: int | None = None) -> tr.Capture:
    photos = enumerate(capture(BALLS, count=12))
    return tr.Capture(tuple(change(p) if only in (None, i) else p for i, p in photos))


def upside_down(photo: tr.Photo) -> tr.Photo:
    return replace(photo, silhouette=photo.mask().flip(0))


def posed(change: Callable[[tr.Pose], tr.Pose]) -> Callable[[tr.Photo], tr.Photo]:
    def changed(photo: tr.Photo) -> tr.Photo:
        return replace(photo, camera=replace(photo.camera, view=change(photo.pose).view))

    return changed


def inverse(pose: tr.Pose) -> tr.Pose:
    return tr.Pose.from_opencv(torch.linalg.inv(pose.opencv))


def elsewhere(pose: tr.Pose) -> tr.Pose:
    return tr.Pose(pose.rotation, pose.translation + torch.tensor([2.0, 0.0, 0.0]))


def opposite(capture: tr.Capture) -> tr.Capture:
    photos = capture.photos[4:]  # all of the spiral would come to a turn of the world
    turned = zip(photos, photos[::-1], strict=True)
    return tr.Capture(tuple(replace(p, camera=other.camera) for p, other in turned))


@pytest.mark.parametrize(
    ("made", "cause"),
    [
        (lambda: every(upside_down), "the masks seem to be upside down"),
        (
            lambda: every(posed(lambda p: tr.Pose.from_opengl(p.opencv))),
            "y and z turned round: they are of OpenGL's cameras",
        ),
        (lambda: every(posed(inverse)), "the poses seem to be inverted: they take camera to world"),
        (
            lambda: every(posed(lambda p: inverse(tr.Pose.from_opengl(p.opencv)))),
            "the poses seem to be inverted, and to have the camera's y and z turned",
        ),
        (lambda: opposite(capture(BALLS, count=16)), "photos and the poses .* in opposite orders"),
        (lambda: every(upside_down, 3), "these photos seem to be upside down: 03"),
        (
            lambda: every(posed(elsewhere), 5),
            "these photos contradict all others, .*: 05; .*without.*5",
        ),
    ],
    ids=["masks", "axes", "inverted", "both", "order", "one mask", "one pose"],
)
def test_an_empty_hull_names_the_likely_cause(made: Callable[[], tr.Capture], cause: str) -> None:
    with pytest.raises(
        ValueError,
        match=f"^capture: the masks of its photos have next to nothing in common: .*{cause}",
    ):
        tr.visual_hull(made(), 24)


def test_one_photo_does_not_enclose_anything() -> None:
    with pytest.raises(ValueError, match=r"^capture: its photos do not enclose a region"):
        tr.visual_hull(capture(count=1), 16)
    plain = capture(count=3)
    bare = tr.Capture((*plain.photos[:2], replace(plain[2], silhouette=None)))
    with pytest.raises(ValueError, match=r"^02: has no mask"):
        tr.visual_hull(bare, 16)
    with pytest.raises(ValueError, match=r"^cells: must be at least 8"):
        tr.visual_hull(plain, 4)
    with pytest.raises(TypeError, match=r"^capture: expected a Capture"):
        tr.visual_hull(Path("here"))  # type: ignore[arg-type]


def drawn(corners: Tensor) -> Tensor:
    """The outline of faces (F, 3, 2) in NDC, by Pillow, in 288 x 360 pixels."""
    picture = Image.new("1", (360, 288))
    pen = ImageDraw.Draw(picture)
    x, y = corners.unbind(-1)
    places = torch.stack([(x * 288 + 359) / 2, (287 - y * 288) / 2], dim=-1)
    for face in places.flatten(1).tolist():
        pen.polygon(face, fill=1)
    return torch.tensor(np.asarray(picture)).float()


def test_the_hull_of_the_dinosaur_covers_its_masks() -> None:
    if not DINO.exists():
        pytest.skip(f"{DINO} is not there")
    given = tr.load_capture(DINO)
    hull = tr.visual_hull(given.only(range(0, 36, 3)), 64)
    for photo in given.only([0, 9, 22]):
        seen = drawn(photo.camera.project(hull.vertices[None].double())[0, :, :2][hull.faces])
        mask = photo.mask((288, 360))
        both = (seen * mask).sum()
        assert both / (seen + mask - seen * mask).sum() > 0.9
    # In the left-handed world of the file, the toy's other side is where its cameras are.
    assert torch.equal(given.given_world(hull).vertices[:, 2], -hull.vertices[:, 2])
