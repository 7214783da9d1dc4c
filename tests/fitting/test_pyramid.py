"""Coarse to fine: sizes that follow a softness, exact averages, renderers of any size, proxies."""

from __future__ import annotations

import math
from fractions import Fraction
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

import taichi_raster as tr
from tasks.pose_meshes import is_closed

pytestmark = pytest.mark.runs_on(arch="cpu", precision="f64")
F64 = torch.float64


def noise(*shape: int, seed: int = 0) -> Tensor:
    return torch.rand(*shape, dtype=F64, generator=torch.Generator().manual_seed(seed))


# Sizes --------------------------------------------------------------------------------------------


@given(
    st.tuples(st.integers(1, 2000), st.integers(1, 2000)),
    st.floats(1e-4, 2.0),
    st.floats(0.3, 8.0),
    st.integers(1, 40),
)
@settings(max_examples=100)
def test_a_scale_spans_few_pixels_in_the_largest_size_for_which_it_does(
    full: tuple[int, int], scale: float, pixels: float, smallest: int
) -> None:
    size = tr.coarse_size(full, scale, pixels=pixels, smallest=smallest)
    short = min(size)
    assert min(smallest, *full) <= short <= min(full)
    assert short <= smallest or scale * short / 2 <= pixels * (1 + 1e-6)
    assert short == min(full) or scale * (short + 1) / 2 > pixels * (1 - 1e-6)
    assert all(abs(n - m * short / min(full)) <= 0.5 for n, m in zip(size, full, strict=True))


def test_a_size_follows_a_schedule_and_the_sharpest_of_a_batch() -> None:
    scale = tr.Geometric(0.2, 0.25 / 128)
    sizes = [min(tr.coarse_size((480, 640), scale, i / 10)) for i in range(11)]
    assert sizes == sorted(sizes) and sizes[0] == 16 and sizes[-1] == 480
    assert tr.coarse_size((480, 640), scale) == (480, 640)  # at the end
    assert tr.coarse_size(256, torch.tensor([0.1, 0.05])) == tr.coarse_size(256, 0.05) == (40, 40)
    both = tr.Geometric(torch.tensor([0.2, 0.1]), torch.tensor([0.01, 0.01]))
    assert tr.coarse_size(256, both, torch.tensor([0.0, 0.0])) == (20, 20)


# Averages -----------------------------------------------------------------------------------------


def parts(size: int, full: int, k: int) -> list[Fraction]:
    """How much of each of `full` pixels the k-th of `size` covers."""
    low, high = Fraction(k * full, size), Fraction((k + 1) * full, size)
    pixels = [Fraction(at) for at in range(full)]
    return [max(Fraction(0), min(high, at + 1) - max(low, at)) for at in pixels]


def by_definition(picture: Tensor, size: tuple[int, int]) -> Tensor:
    """Each pixel from the parts that it covers, by fractions."""
    height, width = picture.shape
    made = torch.zeros(size, dtype=F64)
    for i in range(size[0]):
        for j in range(size[1]):
            rows, columns = parts(size[0], height, i), parts(size[1], width, j)
            shares = torch.tensor([[float(a * b) for b in columns] for a in rows], dtype=F64)
            made[i, j] = (shares * picture).sum() * size[0] * size[1] / (height * width)
    return made


@pytest.mark.parametrize("size", [(3, 4), (2, 5), (1, 1), (6, 7), (4, 7)])
def test_averages_are_those_of_the_definition(size: tuple[int, int]) -> None:
    pictures = noise(2, 6, 7, 3)
    found = tr.area_average(pictures, size)
    for b in range(2):
        for c in range(3):
            torch.testing.assert_close(found[b, ..., c], by_definition(pictures[b, ..., c], size))
    torch.testing.assert_close(tr.area_average(pictures[..., 1], size), found[..., 1])
    torch.testing.assert_close(found.mean((1, 2)), pictures.mean((1, 2)))
    assert found.shape == (2, *size, 3) and found.dtype == F64


def test_an_average_over_whole_pixels_is_that_of_pooling_and_has_its_gradient() -> None:
    pictures = noise(2, 8, 12, 2).requires_grad_()
    expected = torch.nn.functional.avg_pool2d(pictures.movedim(-1, 1), (4, 3)).movedim(1, -1)
    found = tr.area_average(pictures, (2, 4))
    torch.testing.assert_close(found, expected)
    weights = noise(*found.shape, seed=1)
    ours, theirs = (
        torch.autograd.grad((weights * p).sum(), pictures)[0] for p in (found, expected)
    )
    torch.testing.assert_close(ours, theirs)


# Renderers ----------------------------------------------------------------------------------------

FACES = tr.lift_triangles(
    torch.tensor([[[[-0.7, -0.6], [0.8, -0.4], [0.1, 0.75]]]], dtype=F64), torch.ones(1)
)
RED = torch.tensor([1.0, 0.2, 0.1], dtype=F64).expand(1, 1, 3, 3)


@pytest.mark.parametrize(
    ("full", "size"), [((60, 60), (20, 20)), ((47, 64), (23, 31)), ((64, 47), (31, 23))]
)
def test_a_smaller_picture_is_the_average_of_the_larger(
    full: tuple[int, int], size: tuple[int, int]
) -> None:
    """Off the aspect, one that is not squeezed is twice as far from it."""
    behind = noise(*full, 3)
    edge = tr.Distribution("gaussian", 4 / min(size))
    faces = FACES * torch.tensor([full[1], full[0], min(full)], dtype=F64) / min(full)
    renderer = tr.SoftRasterizer(full, edge, depth=tr.OverDepth(), background=behind)
    small = tr.at_size(renderer, size)
    wanted = tr.area_average(renderer(faces, RED), size)
    assert float((small(faces, RED) - wanted).abs().mean((0, 1, 2)).max()) < 2.5e-3
    assert float((small(faces, RED) - wanted)[..., 3].abs().mean()) < 2e-3
    assert torch.equal(small.silhouette(face_vertices=faces), small(faces, None)[..., 0])
    assert renderer.image_size == full and renderer.background.shape == behind.shape
    assert tr.at_size(renderer, full) is renderer
    again = tr.at_size(small, (size[0] // 2, size[1] // 2))  # from a copy, as from the whole
    direct = tr.at_size(renderer, (size[0] // 2, size[1] // 2))
    torch.testing.assert_close(again(faces, None), direct(faces, None))


def test_a_copy_shares_what_is_learned() -> None:
    behind = torch.nn.Parameter(noise(1, 24, 24, 3))
    edge = tr.Distribution("logistic", tr.Knots([0.2, 0.1]))
    renderer = tr.SoftRasterizer(24, edge, background=behind)
    assert dict(renderer.named_parameters()).keys() == {"background", "edge.scale.log_values"}
    small = tr.at_size(renderer, (12, 8))
    small(FACES, RED, 0.5).sum().backward()
    assert behind.grad is not None and bool((behind.grad != 0).all())
    assert edge.scale.log_values.grad is not None
    assert small.edge is edge and renderer.background is behind
    sharp = tr.SharpRasterizer(24)
    assert tr.at_size(sharp, 8)(FACES, RED).shape == (1, 8, 8, 4)


# Proxies ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("cell", [0.1, 0.3])
def test_a_proxy_is_near_closed_and_smaller(cell: float) -> None:
    sphere = tr.icosphere(4, 1.0, F64)
    proxy = tr.proxy_mesh(sphere, cell)
    assert len(proxy.faces) < 0.6 * len(sphere.faces) and is_closed(proxy)
    radius = proxy.vertices.norm(dim=1)
    assert float(radius.min()) > 1 - cell and float(radius.max()) < 1 + 1e-12
    share = float(tr.volume(proxy.vertices[None], proxy.faces)) / (4 / 3 * math.pi)
    assert 1 - cell < share < 1
    assert tr.proxy_mesh(sphere, 1e-3) is sphere


def test_a_proxy_has_the_colours_that_the_mesh_shows() -> None:
    sphere = tr.uv_sphere(24, 12)
    uv = sphere.uv if sphere.uv is not None else sphere.vertices[:, :2] / 2 + 0.5
    stripes = torch.tensor([[[1.0, 0.0, 0.5], [0.0, 1.0, 0.5]]])  # (1, 2, 3)
    for mesh in (
        tr.Mesh(sphere.vertices, sphere.faces, uv, sphere.uv_faces, texture=stripes),
        tr.Mesh(sphere.vertices, sphere.faces, colours=(sphere.vertices + 1) / 2),
    ):
        proxy = tr.proxy_mesh(mesh, 0.4)
        assert proxy.colours is not None and proxy.colours.shape == (len(proxy.vertices), 3)
        if mesh.texture is None:  # colours are places here, and stay so
            shift = (proxy.colours - (proxy.vertices + 1) / 2).abs().max()
            assert float(shift) < 0.05
        else:
            torch.testing.assert_close(proxy.colours[:, :2].sum(1), torch.ones(len(proxy.colours)))
            assert float(proxy.colours[:, 0].max()) > 0.9 > 0.1 > float(proxy.colours[:, 0].min())


# Errors -------------------------------------------------------------------------------------------

PICTURE = torch.ones(1, 8, 8)
BAD: Any = {"text": "wide", "function": abs, "half": 1.5, "mesh": PICTURE}


@pytest.mark.parametrize(
    ("call", "error", "message"),
    [
        (lambda: tr.coarse_size(0, 0.1), ValueError, "^image_size: "),
        (lambda: tr.coarse_size(8, 0.0), ValueError, "^scale: "),
        (lambda: tr.coarse_size(8, BAD["text"]), TypeError, "^scale: "),
        (lambda: tr.coarse_size(8, 0.1, 2.0), ValueError, "^progress: "),
        (lambda: tr.coarse_size(8, 0.1, pixels=-1), ValueError, "^pixels: "),
        (lambda: tr.coarse_size(8, 0.1, smallest=0), ValueError, "^smallest: "),
        (lambda: tr.area_average(PICTURE > 0, 4), TypeError, "^pictures: .*bool"),
        (lambda: tr.area_average(PICTURE[0], 4), ValueError, r"^pictures: must be \(B, H, W\)"),
        (lambda: tr.area_average(PICTURE, (4, 9)), ValueError, r"^image_size: must be at most"),
        (lambda: tr.at_size(tr.Distribution("logistic"), 4), TypeError, "^renderer: .*image_size"),
        (lambda: tr.at_size(BAD["function"], 4), TypeError, "^renderer: expected a Module"),
        (lambda: tr.at_size(tr.SharpRasterizer(8), BAD["half"]), TypeError, "^image_size: "),
        (lambda: tr.proxy_mesh(tr.icosphere(1), 9.0), ValueError, "^cell: no face"),
        (lambda: tr.proxy_mesh(tr.icosphere(1), 0), ValueError, "^cell: must be positive"),
        (lambda: tr.proxy_mesh(BAD["mesh"], 0.1), TypeError, "^mesh: "),
    ],
)
def test_bad_arguments_are_refused_by_name(call, error, message) -> None:
    with pytest.raises(error, match=message):
        call()


def test_what_a_renderer_is_not_given_is_its_own_error() -> None:
    small = tr.at_size(tr.SoftRasterizer((31, 47)), (11, 17))
    with pytest.raises(TypeError, match=r"^face_vertices: expected a torch.Tensor"):
        small(None, None)
    with pytest.raises(ValueError, match=r"^image_size: must be at most"):
        tr.at_size(tr.SoftRasterizer(16, background=noise(8, 8, 3)), 12)
