"""One softening for problems that nobody has tuned: its units, and that it finds its way."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

import taichi_raster as tr

pytestmark = pytest.mark.runs_on(arch="cpu", precision="f64")


def square(left: int, size: int = 64) -> Tensor:
    mask = torch.zeros(1, size, size)
    mask[:, 8:24, left : left + 16] = 1.0
    return mask


def at(schedule: tr.Schedule | None, progress: float) -> Tensor:
    assert schedule is not None
    return schedule(torch.tensor(progress, dtype=torch.float64))


def test_scales_are_in_units_of_the_distance_and_of_pixels() -> None:
    drawn = square(8).expand(3, -1, -1)
    target = torch.cat([square(8 + shift) for shift in (0, 8, 32)])  # by 0, 1/4 and 1 NDC
    start = tr.untuned_softening(drawn, target)
    scale = start.edge.scale
    torch.testing.assert_close(
        at(scale, 0.0), torch.tensor([1 / 32, 0.3 / 4, 0.12], dtype=torch.float64)
    )
    torch.testing.assert_close(at(scale, 1.0), torch.full((3,), 0.15 / 32, dtype=torch.float64))
    larger = tr.untuned_softening(square(8, 128), square(16, 128))  # half as far, of half a pixel
    torch.testing.assert_close(
        at(larger.edge.scale, 0.0), torch.tensor([0.3 / 8], dtype=torch.float64)
    )
    torch.testing.assert_close(
        at(larger.edge.scale, 1.0), torch.tensor([0.15 / 64], dtype=torch.float64)
    )


def test_a_step_is_as_long_as_the_scale_and_shrinks_at_the_end() -> None:
    start = tr.untuned_softening(square(8), square(20))
    for progress, share in ((0.0, 1.0), (0.5, 1.0), (0.85, 1.0), (0.925, 0.1**0.5), (1.0, 0.1)):
        torch.testing.assert_close(
            at(start.lr, progress), share * at(start.edge.scale, progress), rtol=1e-6, atol=0
        )


def test_views_of_one_scene_have_one_softening() -> None:
    drawn, target = square(8).expand(4, -1, -1), torch.cat([square(8 + k) for k in (4, 8, 4, 12)])
    start = tr.untuned_softening(drawn, target, views=2)
    expected = 0.3 * torch.tensor([6 / 32, 8 / 32], dtype=torch.float64)
    torch.testing.assert_close(at(start.edge.scale, 0.0), expected)


@pytest.mark.parametrize("unit", [1.0, 1000.0])
def test_it_places_spheres_in_whatever_unit_they_are(unit: float) -> None:
    camera = tr.PerspectiveCamera(tr.look_at((0.0, 0.0, 3.0)), 40.0)
    sphere = tr.icosphere(1, 0.4, torch.float64)

    def seen(place: Tensor) -> Tensor:
        points = sphere.vertices + place[:, None] / unit
        return tr.gather_faces(camera.project(points), sphere.faces)

    sharp = tr.SharpRasterizer(32, cull_backfaces=True)
    goal = unit * torch.tensor([[0.05, 0.0, 0.3], [-0.5, 0.3, 0.0]], dtype=torch.float64)
    target = sharp(seen(goal), None)[..., -1]
    place = torch.zeros_like(goal).requires_grad_()
    start = tr.untuned_softening(sharp(seen(place), None)[..., -1].detach(), target)
    soft = start.renderer(32, cull_backfaces=True, threshold=1e-3)
    for step in tr.Descent(tr.ImageSteps([place], seen, start.lr), 40):
        image = soft.silhouette(seen(place), progress=step.progress)
        step.descend(tr.coverage_iou_loss(image, target))
    off = (seen(place) - seen(goal))[..., :2].detach().flatten(1, 2).norm(dim=-1).mean(dim=1)
    assert bool((off < 0.25 / 16).all())  # a quarter of a pixel


def test_an_outline_that_belongs_to_two_faces_is_not_drawn_twice_as_wide() -> None:
    sphere = tr.icosphere(2, 0.5, torch.float64)
    camera = tr.PerspectiveCamera(tr.look_at((0.0, 0.0, 3.0)), 40.0)
    corners = tr.gather_faces(camera.project(sphere.vertices[None]), sphere.faces)
    true = float(tr.SharpRasterizer(64)(corners, None)[..., -1].sum())

    def excess(backs: bool, cull: bool) -> float:
        start = tr.untuned_softening(square(8), square(20), backs=backs)
        soft = start.renderer(64, cull_backfaces=cull)
        return float(soft.silhouette(corners, progress=0.5).sum()) / true - 1

    assert excess(True, cull=False) < 0.75 * excess(False, cull=False)
    assert excess(True, cull=False) > 0


def test_bad_masks_are_refused_by_name() -> None:
    with pytest.raises(ValueError, match=r"^target: must have the shape of drawn"):
        tr.untuned_softening(square(8), square(8, 32))
    with pytest.raises(ValueError, match=r"^views: "):
        tr.untuned_softening(square(8), square(8), views=2)
    with pytest.raises(TypeError, match=r"^backs: "):
        tr.untuned_softening(square(8), square(8), backs=1)  # type: ignore[arg-type]
