"""Triangles that cross the near plane: what is left of them, and what becomes of the picture."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

import taichi_raster as tr

pytestmark = pytest.mark.runs_on(arch="cpu", precision="f64")
F64 = torch.float64
NEAR = 0.5


def corners(*z: float) -> Tensor:
    """(1,1,3,3): a counter-clockwise triangle with these depths."""
    xy = torch.tensor([[-1.0, -0.8], [1.2, -0.5], [0.1, 1.0]], dtype=F64)
    return torch.cat([xy, torch.tensor(z, dtype=F64)[:, None]], dim=1)[None, None]


def area(triangles: Tensor) -> Tensor:
    e1, e2 = (triangles[..., i, :] - triangles[..., 0, :] for i in (1, 2))
    return torch.linalg.cross(e1, e2) / 2


def test_what_does_not_cross_comes_back_unchanged() -> None:
    given = corners(1.0, 2.0, 3.0)
    clipped = tr.clip_near(given, NEAR)
    assert clipped.corners is given
    assert clipped.source.tolist() == [[0]]


@pytest.mark.parametrize(
    ("z", "pieces"),
    [
        ((1.0, 2.0, -1.0), 2), ((1.0, -2.0, 1.5), 2), ((-1.0, 2.0, 1.0), 2),
        ((1.0, -2.0, -1.0), 1), ((-1.0, -2.0, 1.5), 1), ((-1.0, 2.0, -1.0), 1),
        ((0.5, 0.5, -1.0), 2), ((-1.0, -2.0, -0.5), 0),
    ],
)  # fmt: skip
def test_the_visible_part_is_left_with_its_winding(z: tuple[float, ...], pieces: int) -> None:
    given = corners(*z)
    clipped = tr.clip_near(given, NEAR, given[..., :2] * 3)
    real = clipped.source[0] >= 0
    assert int(real.sum()) == pieces
    left = clipped.corners[0, real]
    assert bool((left[..., 2] >= NEAR).all())
    normal = area(given)[0, 0]
    # The visible share of the area, from the definition: by dense sampling of the triangle.
    if pieces:
        areas = area(left)
        assert bool((areas @ normal >= 0).all())
        n = 1200
        i, j = torch.meshgrid(torch.arange(n), torch.arange(n), indexing="ij")
        u, v = (i.flatten() + 0.5) / n, (j.flatten() + 0.5) / n
        inside = u + v < 1
        u, v = u[inside].double(), v[inside].double()
        depth = z[0] + u * (z[1] - z[0]) + v * (z[2] - z[0])
        share = float((depth >= NEAR).double().mean())
        assert abs(float(areas.norm(dim=-1).sum() / normal.norm()) - share) < 2e-3
        # Attributes that are linear in the corners stay so.
        torch.testing.assert_close(clipped.attributes[0][0, real], left[..., :2] * 3)


def test_batches_are_padded_with_faces_that_are_not_drawn() -> None:
    faces = torch.cat([corners(1.0, 2.0, 3.0), corners(-1.0, -1.0, -1.0)], dim=1)
    crossing = torch.cat([corners(1.0, 2.0, -1.0), corners(1.0, 2.0, 3.0)], dim=1)
    clipped = tr.clip_near(torch.cat([faces, crossing]), NEAR)
    assert clipped.source.tolist() == [[0, -1, -1], [0, 0, 1]]
    assert float(clipped.corners[0, 1:].abs().max()) == 0.0


def test_clipping_has_first_and_second_derivatives() -> None:
    given = torch.cat([corners(1.0, 2.0, -1.0), corners(1.0, -0.7, -1.0)], dim=1).requires_grad_()
    colours = torch.rand(1, 2, 3, 2, generator=torch.Generator().manual_seed(0), dtype=F64)

    def function(v: Tensor, c: Tensor) -> Tensor:
        clipped = tr.clip_near(v, NEAR, c)
        return torch.cat([clipped.corners, *clipped.attributes], dim=-1)

    inputs = (given, colours.requires_grad_())
    assert torch.autograd.gradcheck(function, inputs)
    assert torch.autograd.gradgradcheck(function, inputs)


def test_a_floor_that_runs_under_the_eye_is_drawn_to_the_images_bottom() -> None:
    floor = torch.tensor([[-50.0, -1, 50], [50, -1, 50], [0, -1, -100.0]], dtype=F64)
    camera = tr.PerspectiveCamera(tr.look_at([0.0, 0.0, 0.0], [0.0, 0.0, 1.0]).double(), 90.0)
    near = 0.1
    faces = camera.project_faces(floor[None], torch.tensor([[0, 2, 1]]), near=near)
    renderer = tr.SoftRasterizer(
        16, tr.Distribution("uniform", 0.01), near=near * (1 - 1e-9), far=200.0
    )
    alpha = renderer.silhouette(faces.vertices)[0]
    # At 90 degrees row y of the image meets the floor at depth 1 / |y|: all rows below the horizon.
    assert float(alpha[9:].min()) > 0.999
    assert float(alpha[:7].max()) < 1e-6
    # Without the cut, the face would be dropped.
    whole = tr.gather_faces(camera.project(floor[None]), torch.tensor([[0, 2, 1]]))
    with pytest.raises(ValueError, match="every face lies outside"):
        renderer.silhouette(whole)


@pytest.mark.parametrize(
    ("call", "name"),
    [
        (lambda: tr.clip_near(torch.zeros(2, 3, 3), 0.1), "corners"),
        (lambda: tr.clip_near(corners(1, 1, 1), 0.0), "near"),
        (lambda: tr.clip_near(corners(1, 1, 1), 0.1, torch.zeros(1, 2, 3, 1)), "attributes"),
    ],
)
def test_bad_input_is_refused_by_name(call, name) -> None:
    with pytest.raises(ValueError, match=name):
        call()
