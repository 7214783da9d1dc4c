"""A start measured from the picture: distances of outlines, and what follows from them."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

import taichi_raster as tr

pytestmark = pytest.mark.runs_on(arch="cpu", precision="f64")


def rectangle(top: int, left: int, height: int, width: int, size: tuple[int, int]) -> Tensor:
    mask = torch.zeros(1, *size)
    mask[:, top : top + height, left : left + width] = 1.0
    return mask


def by_all_pairs(a: Tensor, b: Tensor) -> float:
    """In pixels, by the definition: outlines pixel by pixel, and all distances between them."""

    def outline(mask: Tensor) -> Tensor:
        height, width = mask.shape
        found = []
        for i in range(height):
            for j in range(width):
                near = [(i - 1, j), (i + 1, j), (i, j - 1), (i, j + 1)]
                inside = [(k, m) for k, m in near if 0 <= k < height and 0 <= m < width]
                if mask[i, j] >= 0.5 and any(mask[k, m] < 0.5 for k, m in inside):
                    found.append([i, j])
        return torch.tensor(found, dtype=torch.float64)

    apart = torch.cdist(outline(a), outline(b))
    return max(float(apart.amin(k).quantile(0.95)) for k in (0, 1))


@given(seed=st.integers(0, 10_000))
@settings(max_examples=10)
def test_distances_are_those_of_all_pairs_of_outline_pixels(seed: int) -> None:
    g = torch.Generator().manual_seed(seed)
    noise = torch.rand(2, 1, 4, 5, generator=g)
    masks = torch.nn.functional.interpolate(noise, (12, 15), mode="bilinear")[:, 0]
    masks[:, 3, 3], masks[:, 9, 9] = 0.0, 1.0  # none is empty or full
    found = tr.outline_distance(masks[:1], masks[1:])
    assert float(found) == pytest.approx(by_all_pairs(*masks) * 2 / 12, rel=1e-6)
    assert torch.equal(found, tr.outline_distance(masks[1:], masks[:1]))


@pytest.mark.parametrize("shift", [0, 1, 4])
@pytest.mark.parametrize("size", [(32, 32), (32, 48), (48, 32)])
def test_a_shift_is_as_far_as_it_is(shift: int, size: tuple[int, int]) -> None:
    a, b = rectangle(8, 8, 12, 12, size), rectangle(8, 8 + shift, 12, 12, size)
    torch.testing.assert_close(tr.outline_distance(a, b), torch.tensor([shift * 2 / 32]))
    # A soft rim does not matter, nor that somebody differentiates.
    soft = (0.8 * a + 0.1).requires_grad_()
    assert torch.equal(tr.outline_distance(soft, b), tr.outline_distance(a, b))


def test_the_border_of_the_picture_is_no_edge_and_what_is_empty_is_far() -> None:
    left, wider = rectangle(0, 0, 16, 4, (16, 16)), rectangle(0, 0, 16, 7, (16, 16))
    torch.testing.assert_close(tr.outline_distance(left, wider), torch.tensor([3 * 2 / 16]))
    empty, full = torch.zeros(1, 16, 16), torch.ones(1, 16, 16)
    assert float(tr.outline_distance(empty, empty)) == 0
    assert float(tr.outline_distance(full, full)) == 0
    for a, b in ((empty, left), (left, empty), (full, left)):
        assert float(tr.outline_distance(a, b)) == pytest.approx(2 * 2**0.5)


def test_items_do_not_depend_on_one_another() -> None:
    a = torch.cat([rectangle(8, 8, 8, 8, (32, 32)), torch.zeros(1, 32, 32)])
    b = torch.cat([rectangle(9, 11, 8, 8, (32, 32)), rectangle(0, 0, 4, 4, (32, 32))])
    found = tr.outline_distance(a, b)
    assert found.shape == (2,) and found.dtype == a.dtype
    for i in range(2):
        assert torch.equal(found[i : i + 1], tr.outline_distance(a[i : i + 1], b[i : i + 1]))


def test_scale_and_eta_are_in_proportion_to_the_distance() -> None:
    size = (64, 64)
    a = rectangle(8, 8, 24, 24, size).expand(3, -1, -1)
    b = torch.cat([rectangle(8, 8 + shift, 24, 24, size) for shift in (0, 8, 20)])
    start = tr.picture_start(a, b, steps=100)
    torch.testing.assert_close(start.distance, torch.tensor([0.0, 8 / 32, 20 / 32]))
    begin, end = (torch.tensor(u, dtype=torch.float64) for u in (0.0, 1.0))
    torch.testing.assert_close(start.scale(begin), torch.tensor([1 / 32, 0.35 * 8 / 32, 0.15]))
    torch.testing.assert_close(start.scale(end), torch.full((3,), 0.25 / 32))
    torch.testing.assert_close(start.eta(begin), torch.tensor([0.1 / 32, 0.01, 0.025]))
    torch.testing.assert_close(start.eta(begin + 0.85), start.eta(begin))
    torch.testing.assert_close(start.eta(end), 0.1 * start.eta(begin))
    assert float(tr.picture_start(a, b, steps=1).eta(begin).max()) == pytest.approx(0.04)
    scene = tr.picture_start(a, b, 100, views=3)
    torch.testing.assert_close(scene.distance, start.distance.mean()[None])


def test_a_start_finds_its_way_into_a_fit() -> None:
    camera = tr.PerspectiveCamera(tr.look_at((0.0, 0.0, 3.0)), 40.0)
    sphere = tr.icosphere(1, 0.4, torch.float64)

    def seen(place: Tensor) -> Tensor:
        return tr.gather_faces(camera.project(sphere.vertices + place[:, None]), sphere.faces)

    sharp = tr.SharpRasterizer(32, cull_backfaces=True)
    goal = torch.tensor([[0.05, 0.0, 0.0], [-0.4, 0.3, 0.0]], dtype=torch.float64)
    target = sharp(seen(goal), None)[..., -1]
    place = torch.zeros_like(goal).requires_grad_()
    start = tr.picture_start(sharp(seen(place), None)[..., -1].detach(), target, steps=40)
    assert float(start.distance[0]) < 0.3 * float(start.distance[1])
    soft = tr.SoftRasterizer(
        32,
        tr.Distribution("gaussian", start.scale),
        alpha=tr.TConorm("yager", 1.0),
        cull_backfaces=True,
        threshold=1e-3,
    )
    steps = tr.ImageSteps(torch.optim.Adam([place], betas=(0.5, 0.9)), seen, start.eta)
    for i in range(40):
        steps.zero_grad()
        image = soft.silhouette(seen(place), progress=i / 40)
        tr.silhouette_iou_loss(image, target).sum().backward()
        steps.step(i / 40)
    assert bool(((place.detach() - goal)[:, :2].norm(dim=1) < 0.02).all())


MASK = torch.ones(2, 8, 8)


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        ((MASK.numpy(), MASK, 5), TypeError, r"^drawn: expected a torch.Tensor"),
        ((MASK > 0, MASK, 5), TypeError, r"^drawn: expected float32 or float64"),
        ((MASK, MASK[..., None], 5), ValueError, r"^target: must be \(B, H, W\)"),
        ((MASK, MASK[:1], 5), ValueError, r"^target: must have the shape of drawn"),
        ((MASK, MASK / 0 * 0, 5), ValueError, r"^target: holds an infinite or NaN"),
        ((MASK, MASK, 0), ValueError, r"^steps: "),
        ((MASK, MASK, 1.5), TypeError, r"^steps: "),
        ((MASK, MASK, 5, 3), ValueError, r"^views: 2 batch items"),
    ],
)
def test_bad_arguments_are_refused_by_name(arguments, error, message) -> None:
    with pytest.raises(error, match=message):
        tr.picture_start(*arguments)
