"""Outline steps: distances, one step of a shift, poses from afar, and units that do not matter."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor

import taichi_raster as tr

pytestmark = pytest.mark.runs_on(arch="cpu")

CAMERA = tr.PerspectiveCamera(tr.look_at((0.0, 0.0, 4.0)), fov=40.0)
SIDE = tr.PerspectiveCamera(tr.look_at((4.0, 0.0, 0.0)), fov=40.0)


def turned(vectors: Tensor) -> Tensor:
    """(N, 3, 3), about axes by their lengths."""
    zero = torch.zeros_like(vectors[:, 0])
    x, y, z = vectors.unbind(1)
    cross = torch.stack([zero, -z, y, z, zero, -x, -y, x, zero], dim=1).view(-1, 3, 3)
    return torch.linalg.matrix_exp(cross)


class Scene:
    """A mesh to be turned and shifted, seen by one camera or several."""

    def __init__(self, mesh: tr.Mesh, size: int, *cameras: tr.PerspectiveCamera) -> None:
        dtype = tr.runtime().dtype
        self.vertices, self.faces = mesh.vertices.to(dtype), mesh.faces
        self.cameras = cameras or (CAMERA,)
        self.sharp = tr.SharpRasterizer(size, cull_backfaces=True)

    def points(self, poses: Tensor) -> Tensor:
        world = self.vertices @ turned(poses[:, :3]).mT + poses[:, None, 3:]
        return torch.stack([c.project(world) for c in self.cameras], dim=1).flatten(0, 1)

    def draw(self, points: Tensor) -> Tensor:
        return self.sharp(tr.gather_faces(points, self.faces), None)[..., 0]

    def picture(self, poses: Tensor) -> Tensor:
        return self.draw(self.points(poses)).detach()

    def fitted(self, poses: Tensor, target: Tensor, steps: int) -> tuple[Tensor, tr.OutlineStep]:
        distance = tr.signed_distance(target)
        for _ in range(steps):
            found = tr.outline_step(self.points, poses, self.draw, target, distance)
            poses = poses + found.step
        return poses, found


@pytest.fixture
def body() -> tr.Mesh:
    return tr.blob(seed=1, subdivisions=2)


# Distances ----------------------------------------------------------------------------------------


def test_the_distance_from_a_disc_is_that_of_a_disc() -> None:
    size, radius = 65, 0.5
    grid = (2 * torch.arange(size, dtype=torch.float64) + 1 - size) / size
    away = (grid[:, None].square() + grid.square()).sqrt()
    found = tr.signed_distance((away < radius).double()[None])[0]
    assert (found - (radius - away)).abs().max() < 2 / size  # a pixel
    assert bool(((found > 0) == (away < radius)).all())


def test_distances_of_masks_without_an_outline_are_the_diagonal() -> None:
    masks = torch.stack([torch.zeros(4, 6), torch.ones(4, 6)])
    expected = math.hypot(4, 6) * 2 / 4
    found = tr.signed_distance(masks)
    torch.testing.assert_close(found[0], torch.full((4, 6), -expected))
    torch.testing.assert_close(found[1], torch.full((4, 6), expected))


# One step -----------------------------------------------------------------------------------------


def square(shift: Tensor) -> Tensor:
    """(N, V, 3): a square of 8 points on each side, in NDC at depth 1, moved by (N, 2)."""
    side = torch.linspace(-0.41, 0.41, 9).to(shift)  # no edge lies between two pixels
    x, y = torch.meshgrid(side, side, indexing="xy")
    flat = torch.stack([x, y, torch.ones_like(x)], dim=-1).view(1, -1, 3)
    return flat + torch.cat([shift, torch.zeros_like(shift[:, :1])], dim=1)[:, None]


def faces_of_square() -> Tensor:
    i = torch.arange(81).view(9, 9)
    a, b, c, d = (x.flatten() for x in (i[:-1, :-1], i[:-1, 1:], i[1:, :-1], i[1:, 1:]))
    return torch.cat([torch.stack([a, b, d], 1), torch.stack([a, d, c], 1)])


def drawn_square(points: Tensor) -> Tensor:
    faces = tr.gather_faces(points, faces_of_square())
    return tr.SharpRasterizer(40)(faces, None)[..., 0]


def test_one_step_goes_most_of_the_way_and_a_few_all_of_it(dtype: torch.dtype) -> None:
    truth = torch.tensor([[0.21, -0.13]], dtype=dtype)
    target = drawn_square(square(truth))
    distance = tr.signed_distance(target)
    place = torch.zeros_like(truth)
    for k in range(8):
        found = tr.outline_step(square, place, drawn_square, target, distance)
        if k == 0:  # corners turn the outline's normal, so that it is not exact
            torch.testing.assert_close(found.step, truth, atol=0.06, rtol=0)
            moved = float(found.step.norm())
            assert float(found.motion) == pytest.approx(moved, rel=1e-4)
        place = place + found.step
    torch.testing.assert_close(place, truth, atol=2e-3, rtol=0)
    assert float(found.mismatch) < 0.01


def test_units_of_the_unknowns_do_not_matter(body: tr.Mesh, dtype: torch.dtype) -> None:
    scene = Scene(body, 32)
    poses = torch.zeros(1, 6, dtype=dtype)
    target = scene.picture(torch.tensor([[0.3, 0.1, -0.2, 0.1, 0.1, 0.0]], dtype=dtype))
    distance = tr.signed_distance(target)
    units = torch.tensor([1e3, 1.0, 1e-3, 1e2, 1.0, 1e-4], dtype=dtype)
    plain = tr.outline_step(scene.points, poses, scene.draw, target, distance)
    other = tr.outline_step(lambda u: scene.points(u * units), poses, scene.draw, target, distance)
    torch.testing.assert_close(other.step * units, plain.step, rtol=1e-2, atol=1e-4)
    torch.testing.assert_close(other.motion, plain.motion, rtol=1e-3, atol=0)


def test_an_unknown_that_moves_nothing_stays(dtype: torch.dtype) -> None:
    target = drawn_square(square(torch.tensor([[0.1, 0.0]], dtype=dtype)))

    def points(u: Tensor) -> Tensor:
        return square(u[:, :2]) + 0 * u[:, 2:, None]

    found = tr.outline_step(
        points, torch.zeros(1, 3, dtype=dtype), drawn_square, target, tr.signed_distance(target)
    )
    assert float(found.step[0, 2]) == 0 and float(found.step[0, 0]) > 0.03


def test_without_a_target_nothing_moves(dtype: torch.dtype) -> None:
    empty = torch.zeros(1, 40, 40, dtype=dtype)
    away = torch.full((1, 2), 5.0, dtype=dtype)  # nothing is drawn, either
    found = tr.outline_step(square, away, drawn_square, empty, tr.signed_distance(empty))
    assert not found.step.any() and not found.motion.any() and not found.mismatch.any()


# Fits ---------------------------------------------------------------------------------------------


def degrees(a: Tensor, b: Tensor) -> Tensor:
    chord = (turned(a) - turned(b)).flatten(1).norm(dim=1) / math.sqrt(8)
    return torch.rad2deg(2 * chord.clamp(max=1).asin())


def test_a_pose_is_found_from_twenty_degrees(body: tr.Mesh, dtype: torch.dtype) -> None:
    scene = Scene(body, 64)
    truth = torch.tensor([[0.2, 0.25, -0.1, 0.05, -0.1, 0.2]], dtype=dtype)
    found, last = scene.fitted(torch.zeros_like(truth), scene.picture(truth), 12)
    assert float(degrees(found[:, :3], truth[:, :3])) < 0.2
    assert float(last.motion) < 0.02 / 64 and float(last.mismatch) < 1e-3


def test_starts_side_by_side_are_fitted_as_if_alone(body: tr.Mesh, dtype: torch.dtype) -> None:
    scene = Scene(body, 32)
    target = scene.picture(torch.tensor([[0.2, 0.2, -0.1, 0.1, 0.0, 0.0]], dtype=dtype))
    rng = torch.Generator().manual_seed(0)
    starts = 0.2 * torch.randn(3, 6, generator=rng, dtype=torch.float64).to(dtype)
    together, _ = scene.fitted(starts, target, 2)
    alone = torch.cat([scene.fitted(one[None], target, 2)[0] for one in starts])
    torch.testing.assert_close(together, alone, rtol=1e-3, atol=1e-4)


def test_a_start_that_shows_no_common_pixel_is_found(body: tr.Mesh, dtype: torch.dtype) -> None:
    small = tr.Mesh(0.35 * body.vertices, body.faces)
    scene = Scene(small, 64)
    truth = torch.tensor([[0.2, 0.25, -0.1, 0.9, 0.6, 0.0]], dtype=dtype)
    start = torch.tensor([[0.0, 0.0, 0.0, -0.8, -0.7, 0.3]], dtype=dtype)
    target = scene.picture(truth)
    assert not bool((target * scene.picture(start)).any())
    found, last = scene.fitted(start, target, 20)
    assert float((found[:, 3:] - truth[:, 3:]).norm()) < 0.01
    assert float(last.mismatch) < 0.01


def test_a_start_outside_the_picture_is_brought_into_it(body: tr.Mesh, dtype: torch.dtype) -> None:
    scene = Scene(tr.Mesh(0.35 * body.vertices, body.faces), 32)
    target = scene.picture(torch.zeros(1, 6, dtype=dtype))
    start = torch.tensor([[0.0, 0.0, 0.0, 3.0, 0.0, 0.0]], dtype=dtype)
    assert not bool(scene.picture(start).any())
    _, last = scene.fitted(start, target, 20)
    assert float(last.mismatch) < 0.03


def test_two_views_find_depth_that_one_hardly_sees(body: tr.Mesh, dtype: torch.dtype) -> None:
    scene = Scene(body, 48, CAMERA, SIDE)
    truth = torch.tensor([[0.1, -0.2, 0.1, 0.1, -0.1, 0.3]], dtype=dtype)
    target = scene.picture(truth)
    assert target.shape == (2, 48, 48)
    found, last = scene.fitted(torch.zeros_like(truth), target, 10)
    torch.testing.assert_close(found[:, 3:], truth[:, 3:], atol=2e-3, rtol=0)
    assert last.mismatch.shape == (1,)


# Errors -------------------------------------------------------------------------------------------

GOOD: dict[str, Any] = {
    "geometry": square,
    "unknowns": torch.zeros(1, 2),
    "draw": lambda points: points.sum().expand(1, 4, 4),
    "target": torch.zeros(1, 4, 4),
    "distance": torch.ones(1, 4, 4),
}
BAD: dict[str, tuple[Any, str]] = {
    "unknowns": (torch.zeros(3), "unknowns: must be"),
    "target": (torch.zeros(4, 4), "target: must be"),
    "distance": (torch.zeros(1, 3, 4), "distance: must be"),
    "geometry": (lambda u: u, "geometry: must return points"),
    "draw": (lambda points: points.sum().expand(1, 5, 4), "draw: must return coverage"),
    "damping": (0.0, "damping: "),
}


@pytest.mark.parametrize("name", BAD)
def test_a_bad_argument_is_refused_by_name(name: str) -> None:
    value, message = BAD[name]
    with pytest.raises(ValueError, match=f"^{message}"):
        tr.outline_step(**{**GOOD, name: value})


def test_targets_that_do_not_go_with_the_rows_are_refused() -> None:
    pictures = torch.zeros(2, 4, 4)
    with pytest.raises(ValueError, match=r"^target: 2 rows"):
        tr.outline_step(**{**GOOD, "target": pictures, "distance": pictures})


def test_a_geometry_that_no_unknown_moves_is_refused() -> None:
    still: Callable[[Tensor], Tensor] = lambda u: torch.ones(len(u), 3, 3)  # noqa: E731
    with pytest.raises(ValueError, match=r"^geometry: does not depend"):
        tr.outline_step(**{**GOOD, "geometry": still})


@pytest.mark.parametrize("mask", [torch.zeros(4, 4), torch.full((1, 4, 4), math.nan)])
def test_masks_without_distances_are_refused(mask: Tensor) -> None:
    with pytest.raises(ValueError, match=r"mask"):
        tr.signed_distance(mask)
