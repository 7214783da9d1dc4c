"""`OverDepth`: what a fragment weighs behind others, and how little a near shape grows."""

from __future__ import annotations

import copy
import dataclasses
import pickle
import warnings
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

import taichi_raster as tr
from scenes import random_faces
from taichi_raster.engine import composite, soft_order
from taichi_raster.engine.fragment_lists import FragmentList, fragment_list
from taichi_raster.render import packing, soft
from taichi_raster.scene import gather
from taichi_raster.softness.archive import Entry
from taichi_raster.softness.edge import EdgeState

DEPTHS = tr.OverDepth(), tr.OverDepth(union="product"), tr.OverDepth(0.1)
NAMES = ["largest two", "product", "soft order"]
UNIONS = pytest.mark.parametrize("union", ["largest_two", "product"])
F64 = pytest.mark.runs_on(arch="cpu", precision="f64")
COVER = [[-1e3, -1e3], [1e3, -1e3], [0.0, 1e3]]  # every pixel lies deep inside
NEAR, FAR = 0.5, 10.5


def sheets(z: list[float], colours: list[float], dtype: torch.dtype) -> tuple[Tensor, Tensor]:
    """Level faces that fill the picture."""
    xy = torch.tensor(COVER, dtype=dtype)
    faces = [torch.cat([xy, torch.full((3, 1), depth, dtype=dtype)], 1) for depth in z]
    shades = torch.tensor(colours, dtype=dtype)[None, :, None, None].expand(1, -1, 3, 1)
    return torch.stack(faces)[None], shades


def seen(cover: float, z: list[float], colours: list[float], gamma: float | None) -> float:
    """The colour of a pixel that all faces cover alike, by the product."""
    dtype = tr.runtime().dtype
    far_inside = tr.Distribution("uniform", 1e9, shift=2 * cover - 1)
    depth = tr.OverDepth(gamma, union="product")
    renderer = tr.SoftRasterizer(1, far_inside, depth, near=NEAR, far=FAR)
    return float(renderer(*sheets(z, colours, dtype))[0, 0, 0, 0])


@F64
def test_in_order_each_sees_through_those_before_it() -> None:
    a = 0.6
    found = seen(a, [3.0, 1.0, 2.0], [0.3, 0.9, 0.5], None)
    assert found == pytest.approx(a * (0.9 + (1 - a) * (0.5 + (1 - a) * 0.3)), rel=1e-6)


def shares(covers: list[float], union: str) -> Tensor:
    """What faces of these coverages of one pixel, nearest first, weigh in its mean colour."""
    edges = [[[1 - 2 * a, -1e3], [1e3, 0.0], [1 - 2 * a, 1e3]] for a in covers]
    xy = torch.tensor([edges], dtype=torch.float64)
    z = torch.linspace(1, 2, len(covers), dtype=torch.float64)[None]
    shades = torch.eye(len(covers), dtype=torch.float64)[None, :, None].expand(1, -1, 3, -1)
    wide = tr.Distribution("uniform", 1.0)  # at a distance of 2 a - 1 it covers a
    renderer = tr.SoftRasterizer(1, wide, tr.OverDepth(union=union), near=NEAR, far=FAR)
    image = renderer(tr.lift_triangles(xy, z), shades)[0, 0, 0]
    return image[:-1] / image[-1]


@F64
def test_each_weighs_what_it_adds_to_the_two_largest_before_it() -> None:
    found = shares([0.2, 0.5, 0.4, 0.3, 0.9, 0.7], "largest_two")
    # Sums of the two largest: 0.2, 0.7, 0.9, 0.9, and 1 from then on.
    expected = torch.tensor([0.2, 0.5, 0.2, 0.0, 0.1, 0.0], dtype=torch.float64)
    torch.testing.assert_close(found, expected, rtol=0, atol=1e-12)
    part = shares([0.2, 0.1, 0.3], "largest_two")
    torch.testing.assert_close(part * 0.5, torch.tensor([0.2, 0.1, 0.2]).double())


def test_behind_an_edge_that_two_faces_share_nothing_shows(dtype: torch.dtype) -> None:
    """A black square of two triangles hides a white sheet; by the product a quarter of it shows."""
    corners = torch.tensor([[-9.0, -9.0], [9.0, -9.0], [9.0, 9.0], [-9.0, 9.0]])
    xy = torch.stack([corners[[0, 1, 2]], corners[[0, 2, 3]], torch.tensor(COVER)])
    vertices = tr.lift_triangles(xy[None], torch.tensor([[1.0, 1.0, 2.0]])).to(dtype)
    shades = torch.tensor([0.0, 0.0, 1.0], dtype=dtype)[None, :, None, None].expand(1, 3, 3, 1)
    edge = tr.Distribution("logistic", 0.05)
    default, product = (
        float(tr.SoftRasterizer(15, edge, depth)(vertices, shades)[..., 0].max())
        for depth in (tr.OverDepth(), tr.OverDepth(union="product"))
    )
    assert default < 1e-6 and product == pytest.approx(0.25, abs=1e-5)


@F64
def test_of_two_a_soft_order_gives_each_its_share() -> None:
    a, gamma = 0.6, 0.1  # a depth range of 10, so that 1 apart is one temperature
    nearer = 1 / (1 + torch.exp(torch.tensor(-1.0))).item()
    first, second = a * (1 - a * (1 - nearer)), a * (1 - a * nearer)
    assert first + second == pytest.approx(1 - (1 - a) ** 2)  # so that alpha is met exactly
    found = seen(a, [2.0, 3.0], [0.9, 0.2], gamma)
    assert found == pytest.approx(0.9 * first + 0.2 * second, rel=1e-6)
    assert seen(a, [2.0, 2.0], [0.9, 0.2], gamma) == pytest.approx(0.55 * (1 - (1 - a) ** 2))


@F64
def test_a_cold_soft_order_is_the_hard_one() -> None:
    for cover in (0.3, 0.7, 1.0):
        cold, hard = (
            seen(cover, [3.0, 1.0, 2.0], [0.3, 0.9, 0.5], gamma) for gamma in (1e-3, None)
        )
        assert cold == pytest.approx(hard, abs=1e-9)


def scene(seed: int, faces: int = 6) -> tuple[Tensor, Tensor]:
    g = torch.Generator().manual_seed(seed)
    dtype = tr.runtime().dtype
    xy = torch.rand(2, faces, 3, 2, generator=g, dtype=torch.float64) * 2 - 1
    z = 1 + 3 * torch.rand(2, faces, generator=g, dtype=torch.float64)
    colours = torch.rand(2, faces, 3, 3, generator=g, dtype=torch.float64)
    return tr.lift_triangles(xy.to(dtype), z.to(dtype)), colours.to(dtype)


@pytest.mark.parametrize("depth", DEPTHS, ids=NAMES)
def test_the_order_that_faces_are_given_in_is_nothing(depth: tr.OverDepth) -> None:
    vertices, colours = scene(0)
    renderer = tr.SoftRasterizer(12, tr.Distribution("logistic", 0.05), depth)
    turned = torch.tensor([4, 2, 0, 5, 1, 3])
    torch.testing.assert_close(
        renderer(vertices[:, turned], colours[:, turned]),
        renderer(vertices, colours),
        rtol=1e-5,
        atol=1e-5,
    )


@UNIONS
@pytest.mark.parametrize("hidden", [1e-2, 1e-3])
def test_what_hardly_shows_changes_colours_by_no_more_than_it_may(
    hidden: float, union: str
) -> None:
    """The colours lie between 0 and 1, so that they differ by no more than 1."""
    vertices, colours = scene(1, 40)
    every, most = (
        tr.SoftRasterizer(16, tr.Distribution("gaussian", 0.1), tr.OverDepth(None, least, union))
        for least in (0.0, hidden)
    )
    error = (most(vertices, colours) - every(vertices, colours)).abs().max()
    assert hidden / 100 < float(error) <= hidden


@F64
def test_what_is_hidden_has_no_gradient() -> None:
    """Of three sheets, each of which lets through 2%, the last is behind 0.04%."""
    vertices, colours = sheets([1.0, 3.0, 2.0], [0.2, 0.4, 0.6], torch.float64)
    colours = colours.clone().requires_grad_()
    edge = tr.Distribution("uniform", 1e9, shift=0.96)
    renderer = tr.SoftRasterizer(8, edge, tr.OverDepth(), near=NEAR, far=FAR)
    (slope,) = torch.autograd.grad(renderer(vertices, colours).sum(), colours)
    reached = slope[0].abs().sum((1, 2)) > 0
    assert reached.tolist() == [True, False, True]


def crowd(faces: int) -> list[Tensor]:
    """Faces all over the picture, some of them as deep as the scene, and their colours."""
    g = torch.Generator().manual_seed(11)
    xy = torch.rand(1, faces, 3, 2, generator=g, dtype=torch.float64) * 2 - 1
    z = 1 + 3 * torch.rand(1, faces, 1, generator=g, dtype=torch.float64)
    z = z + 3 * torch.rand(1, faces, 3, generator=g, dtype=torch.float64) ** 8
    colours = torch.rand(1, faces, 3, 2, generator=g, dtype=torch.float64)
    leaves = [torch.cat([xy, z[..., None]], -1), colours]
    return [leaf.to(tr.runtime().dtype).requires_grad_() for leaf in leaves]


@F64
@pytest.mark.parametrize(("orthographic", "union"), [(False, "product"), (True, "largest_two")])
def test_many_faces_at_all_depths_are_composed_in_order(orthographic: bool, union: str) -> None:
    """More than are composed at a time: the same as by lists, but for rounding."""
    leaves = crowd(600)
    edge = tr.Distribution("uniform", 0.1, shift=-0.98)  # covers a hundredth at most
    depth = tr.OverDepth(hidden=0.0, union=union)
    renderer = tr.SoftRasterizer((9, 13), edge, depth, orthographic=orthographic)
    found = []
    for method in ("closed_forms", "autodiff"):
        with tr.derivatives_by(method):
            image = renderer(*leaves)
            slopes = torch.autograd.grad(image.square().sum(), leaves)
            found.append([image.detach(), *slopes])
    for one, other in zip(*found, strict=True):
        size = float(other.abs().max())
        torch.testing.assert_close(one, other, rtol=0, atol=1e-11 * size)


@UNIONS
@pytest.mark.parametrize("scale", [0.02, 0.3])
def test_of_many_faces_the_faintest_change_colours_by_no_more_than_they_may(
    scale: float, union: str
) -> None:
    leaves = [leaf.detach() for leaf in crowd(400)]
    leaves[0][..., :2] *= 0.3  # half of the picture sees them from afar
    edge = tr.Distribution("logistic", scale)
    every, most = (
        tr.SoftRasterizer(16, edge, tr.OverDepth(hidden=least, union=union))(*leaves)
        for least in (0.0, 1e-2)
    )
    assert 1e-5 < float((most - every).abs().max()) <= 2e-2


def test_a_near_shape_does_not_grow() -> None:
    """Before a dark sheet, half of the picture is bright: no more, as it is under a softmax."""
    dtype = tr.runtime().dtype
    half = [[-1e3, 0.0], [0.0, -1e3], [0.0, 1e3]]
    xy = torch.tensor([[half, COVER]], dtype=dtype)
    vertices = tr.lift_triangles(xy, torch.tensor([[1.0, 2.0]], dtype=dtype))
    shades = torch.tensor([1.0, 0.0], dtype=dtype)[None, :, None, None].expand(1, 2, 3, 1)
    bright = []
    for depth in (tr.OverDepth(), tr.SoftmaxDepth(0.01)):
        renderer = tr.SoftRasterizer(
            64, tr.Distribution("logistic", 0.01), depth, near=0.5, far=3.0
        )
        bright.append(float(renderer(vertices, shades)[0, 32, :, 0].mean()))
    assert bright[0] == pytest.approx(0.5, abs=1e-3) and bright[1] > 0.56


@F64
def test_depths_have_gradients_where_their_order_is_soft() -> None:
    vertices, colours = scene(2)
    for gamma, expected in ((None, False), (0.1, True)):
        level = torch.full((2, 6), 0.0, dtype=torch.float64, requires_grad=True)
        moved = vertices + torch.nn.functional.pad(level[:, :, None, None], (2, 0))
        renderer = tr.SoftRasterizer(12, tr.Distribution("logistic", 0.05), tr.OverDepth(gamma))
        (slope,) = torch.autograd.grad(renderer(moved, colours).square().sum(), level)
        assert (float(slope.abs().max()) > 1e-3) == expected


@F64
def test_items_and_views_have_parameters_of_their_own() -> None:
    vertices, colours = scene(3)
    scales, gammas = ([0.03, 0.1], [0.05, 0.3])
    alone = [
        tr.SoftRasterizer(8, tr.Distribution("gaussian", s), tr.OverDepth(g))(v[None], c[None])
        for s, g, v, c in zip(scales, gammas, vertices, colours, strict=True)
    ]
    edge = tr.Distribution("gaussian", torch.tensor(scales, dtype=torch.float64))
    depth = tr.OverDepth(torch.tensor(gammas, dtype=torch.float64))
    renderer = tr.SoftRasterizer(8, edge, depth)
    torch.testing.assert_close(renderer(vertices, colours), torch.cat(alone))
    twice = [tensor.repeat_interleave(2, dim=0) for tensor in (vertices, colours)]
    seen_twice = renderer(*twice, views=2)
    torch.testing.assert_close(seen_twice[::2], torch.cat(alone))
    renderer.edge = tr.Distribution("gaussian", 0.1)
    with pytest.raises(ValueError, match=r"^depth\.gamma: .*\(3,\)"):
        renderer(*(tensor.repeat(2, 1, 1, 1)[:3] for tensor in (vertices, colours)))


@F64
@pytest.mark.parametrize("batched", [False, True])
def test_each_network_looks_at_its_own_item(batched: bool) -> None:
    vertices, colours = scene(4)
    nets = [tr.MLPSoftness((3, 3), scale=0.05, init=name) for name in ("gaussian", "logistic")]
    alone = [
        tr.SoftRasterizer(8, net, tr.OverDepth())(v[None], c[None])
        for net, v, c in zip(nets if batched else nets[:1] * 2, vertices, colours, strict=True)
    ]
    for edge in (nets[0], tr.tabulate(nets[0], octaves=8, subdivision=6)):
        renderer = tr.SoftRasterizer(8, edge, tr.OverDepth())
        name = "edge.weights" if edge is nets[0] else "edge.edge.weights"
        stacked = torch.stack([net.weights for net in nets])
        given = {name: stacked} if batched else {}
        together = torch.func.functional_call(renderer, given, (vertices, colours))
        torch.testing.assert_close(together, torch.cat(alone), rtol=1e-4, atol=1e-4)


@F64
def test_where_nothing_is_the_background_shows() -> None:
    vertices, colours = scene(5)
    renderer = tr.SoftRasterizer(
        8, tr.Distribution("uniform", 0.01), tr.OverDepth(0.1), background=(0.1, 0.2, 0.3)
    )
    away = vertices + torch.tensor([5.0, 0.0, 0.0], dtype=torch.float64)
    away.requires_grad_()
    image = renderer(away, colours)
    expected = torch.tensor([0.1, 0.2, 0.3, 0.0], dtype=torch.float64).expand_as(image)
    torch.testing.assert_close(image, expected)
    (slope,) = torch.autograd.grad(image.sum(), away)
    assert torch.equal(slope, torch.zeros_like(slope))


@F64
@pytest.mark.parametrize("depth", [*DEPTHS, tr.OverDepth(tr.Knots([0.5, 0.02]))])
def test_it_survives_files_and_copies(depth: tr.OverDepth, tmp_path: Path) -> None:
    vertices, colours = scene(6)
    path = tmp_path / "over.safetensors"
    tr.save_softening(path, tr.Softening(tr.Distribution("logistic", 0.05), depth))
    loaded = tr.load_softening(path).depth
    expected = tr.SoftRasterizer(8, depth=depth)(vertices, colours, progress=0.3)
    for other in (loaded, copy.deepcopy(depth), pickle.loads(pickle.dumps(depth))):
        assert torch.equal(
            tr.SoftRasterizer(8, depth=other)(vertices, colours, progress=0.3), expected
        )


@F64
def test_what_was_stored_before_there_was_a_choice_goes_by_the_product() -> None:
    description = {"gamma": None, "hidden": 1e-3}
    assert tr.OverDepth.built(Entry("depth", description, "", {}, frozenset())).union == "product"
    old = tr.OverDepth()
    del old.union
    assert pickle.loads(pickle.dumps(old)).union == "product"


@F64
def test_bad_settings_are_refused() -> None:
    with pytest.raises(ValueError, match=r"^gamma: .*positive"):
        tr.OverDepth(0.0)
    with pytest.raises(ValueError, match=r"^union: .*largest_two.*product"):
        tr.OverDepth(union="sum")
    with pytest.raises(ValueError, match=r"^union: .*gamma.*product"):
        tr.OverDepth(0.1, union="largest_two")
    with pytest.raises(ValueError, match=r"^barycentrics: .*nearest"):
        tr.SoftRasterizer(8, depth=tr.OverDepth(), barycentrics="clipped")
    with pytest.raises(ValueError, match=r"^unclipped_alpha: .*OverDepth"):
        tr.SoftRasterizer(8, depth=tr.OverDepth(), unclipped_alpha=True)
    for option in ({"barycentrics": "clipped"}, {"unclipped_alpha": True}):
        renderer = tr.SoftRasterizer(8, depth=tr.SoftmaxDepth(), **option)
        renderer.depth = tr.OverDepth()
        with pytest.raises(ValueError, match=f"^{next(iter(option))}: "):
            renderer(*scene(0))


@F64
def test_sorted_gradients_are_those_of_indexing(monkeypatch: pytest.MonkeyPatch) -> None:
    g = torch.Generator().manual_seed(0)
    values = torch.rand(2, 4, 3, generator=g, dtype=torch.float64, requires_grad=True)
    index = torch.tensor([[0], [1]]), torch.tensor([[3, 1, 3], [0, 3, 3]])  # some not at all
    weights = torch.rand(2, 3, 3, generator=g, dtype=torch.float64)
    tangent = torch.rand(2, 4, 3, generator=g, dtype=torch.float64)
    asked = dataclasses.replace(tr.runtime(), deterministic=True)
    monkeypatch.setattr(gather, "runtime", lambda: asked)

    def take(x: Tensor) -> Tensor:
        return gather.at(x, *index)

    ours, usual = take(values).grad_fn, values[index].grad_fn
    assert ours is not None and usual is not None and ours.name() != usual.name()  # another way
    assert torch.equal(take(values), values[index])
    found, expected = (
        torch.autograd.grad((f(values) ** 3 * weights).sum(), values)[0]
        for f in (take, lambda x: x[index])
    )
    torch.testing.assert_close(found, expected, rtol=1e-14, atol=0)
    assert torch.autograd.gradgradcheck(lambda x: take(x) ** 3, values)
    with torch.autograd.forward_ad.dual_level():
        dual = torch.autograd.forward_ad.make_dual(values.detach(), tangent)
        moved = torch.autograd.forward_ad.unpack_dual(take(dual)).tangent
    assert torch.equal(moved, tangent[index])


@F64
def test_an_edge_softness_of_the_users_own_is_fine() -> None:
    inner = tr.MLPSoftness((3, 3), scale=0.05, init="gaussian")

    class Own(tr.EdgeSoftness):
        variant, scale = inner.variant, inner.scale

        def at(self, u: Tensor, threshold: float) -> EdgeState:
            return inner.at(u, threshold)

    own, usual = (tr.SoftRasterizer(8, edge, tr.OverDepth()) for edge in (Own(), inner))
    assert torch.equal(own(*scene(0)), usual(*scene(0)))


@pytest.mark.parametrize("depth", DEPTHS, ids=NAMES)
def test_closed_forms_and_autodiff_agree(depth: tr.OverDepth) -> None:
    vertices, colours = scene(7)
    leaves = [t.requires_grad_() for t in (vertices, colours)]
    renderer = tr.SoftRasterizer(12, tr.Distribution("gaussian", 0.1), depth)
    found = {}
    for method in ("closed_forms", "autodiff"):
        with tr.derivatives_by(method):
            first = torch.autograd.grad(renderer(*leaves).square().sum(), leaves, create_graph=True)
            second = torch.autograd.grad(first[0].sin().sum() + first[1].sin().sum(), leaves)
        found[method] = [t.detach() for t in (*first, *second)]
    tight = vertices.dtype == torch.float64
    for one, other in zip(*found.values(), strict=True):
        assert float(other.abs().max()) > 1e-2
        size = float(other.abs().max())
        torch.testing.assert_close(one, other, rtol=0, atol=size * (1e-10 if tight else 1e-4))


@F64
def test_without_a_threshold_second_derivatives_are_finite() -> None:
    vertices, colours = scene(8)
    leaves = [t.requires_grad_() for t in (vertices, colours)]
    for depth in DEPTHS:
        renderer = tr.SoftRasterizer(16, tr.Distribution("gaussian", 0.05), depth, threshold=0.0)
        first = torch.autograd.grad(renderer(*leaves).square().sum(), leaves, create_graph=True)
        second = torch.autograd.grad(first[0].sum() + first[1].sum(), leaves)
        assert all(bool(torch.isfinite(t).all()) for t in (*first, *second))


@UNIONS
def test_lists_are_as_deep_as_they_need_to_be(monkeypatch: pytest.MonkeyPatch, union: str) -> None:
    """Also after a picture that needed deeper ones than the first guess."""
    depths: list[int] = []

    def recorded(*arguments: Any) -> FragmentList:
        found = fragment_list(*arguments)
        depths.append(found.depth)
        return found

    monkeypatch.setattr(soft, "fragment_list", recorded)
    edge = tr.Distribution("uniform", scale=1 / 8)
    renderer = tr.SoftRasterizer(8, edge, tr.OverDepth(union=union), near=NEAR, far=FAR)
    speck = torch.tensor([[-0.01, -0.01], [0.01, -0.01], [0.0, 0.01]])
    speck += torch.tensor([0.01, 0.125])  # a tenth of the nearest pixel: nine do not hide others
    # Each a little nearer to the pixel, so that it covers more than those before it.
    nearing = speck + torch.linspace(0, 0.01, 9)[:, None, None]
    z = torch.linspace(1, 2, 9)[None]
    few, many = (
        tr.lift_triangles(shape.expand(1, 9, 3, 2), z).to(tr.runtime().dtype)
        for shape in (torch.tensor(COVER), nearing)
    )
    with tr.derivatives_by("autodiff"):  # which goes by lists
        for faces in (few, many, few):
            renderer(faces, torch.ones_like(faces))
    assert depths == [1, 9, 1]


@pytest.mark.runs_on(arch="vulkan")
@UNIONS
def test_a_fixed_order_gives_equal_bits_where_a_thread_takes_a_pair(
    monkeypatch: pytest.MonkeyPatch, union: str
) -> None:
    asked = dataclasses.replace(tr.runtime(), deterministic=True)
    monkeypatch.setattr(packing, "runtime", lambda: asked)
    vertices, colours = scene(9, 60)
    leaves = [t.requires_grad_() for t in (vertices, colours)]
    renderer = tr.SoftRasterizer(
        128, tr.Distribution("logistic", 0.1), tr.OverDepth(union=union), threshold=1e-3
    )
    found = [torch.autograd.grad(renderer(*leaves).square().sum(), leaves) for _ in range(3)]
    for other in found[1:]:
        assert all(torch.equal(a, b) for a, b in zip(found[0], other, strict=True))


@F64
@pytest.mark.parametrize("depth", [tr.OverDepth(), tr.SoftmaxDepth(0.1)])
def test_autodiff_says_what_it_cannot_follow(depth: tr.DepthSoftness) -> None:
    vertices, colours = scene(10)
    edges = {
        "table's look-up": tr.tabulate(tr.MLPSoftness(scale=0.05)),
        "gamma distributions' loops": tr.Distribution("gamma", 0.05, shape=2.0),
    }
    for said, edge in edges.items():
        image = tr.SoftRasterizer(8, edge, depth)(vertices.requires_grad_(), colours)
        with tr.derivatives_by("autodiff"), pytest.raises(NotImplementedError, match=said):
            image.square().sum().backward()


@F64
def test_a_soft_order_says_what_it_will_cost(monkeypatch: pytest.MonkeyPatch) -> None:
    """Four sheets in 64 pixels: 256 fragments, each compared with 4."""
    level = sheets([1.0, 2.0, 3.0, 4.0], [0.5] * 4, torch.float64)
    renderer = tr.SoftRasterizer(8, depth=tr.OverDepth(0.1), near=NEAR, far=FAR)
    monkeypatch.setattr(soft_order, "MANY_PAIRS", 1025)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        renderer(*level)
    monkeypatch.setattr(soft_order, "MANY_PAIRS", 1024)
    with pytest.warns(UserWarning, match=r"256 fragments, up to 4 in a pixel.*1\.0e\+03.*cutoff"):
        renderer(*level)
    # A hundred sheets in one plane are compared with the few nodes of one polynomial.
    many = sheets([2.0] * 100, [0.5] * 100, torch.float64)
    monkeypatch.setattr(soft_order, "MANY_PAIRS", 64 * 100 * 40)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        renderer(*many)


def test_at_a_silhouette_the_front_is_before_the_back(dtype: torch.dtype) -> None:
    """Beside an edge that a front and a back share, both have one depth but for rounding."""
    generator = torch.Generator().manual_seed(0)
    z = 1.5 + 2 * torch.rand(20, 4, generator=generator, dtype=torch.float64)
    angle = 2 * torch.pi * torch.rand(20, 4, generator=generator, dtype=torch.float64)
    corners = 0.4 * torch.stack([angle.cos(), angle.sin()], -1)
    a, b = corners[:, 0], corners[:, 1]
    beside = torch.stack([(b - a)[:, 1], -(b - a)[:, 0]], -1)  # to the right of a -> b
    places = torch.stack([a, b, a + 0.6 * beside, a + 0.9 * beside + 0.1 * (b - a)], 1)
    p = torch.cat([places, z[..., None]], -1)
    front, back = p[:, [0, 2, 1]], p[:, [1, 3, 0]]
    pairs = [
        torch.stack([front.roll(i, 1), back.roll(j, 1)], 1) for i in range(3) for j in range(3)
    ]
    faces = torch.cat(pairs).to(dtype)
    edge = tr.Distribution("logistic", 0.05)
    renderer = tr.SoftRasterizer(12, edge, tr.OverDepth(union="product"))
    shades = torch.tensor([0.0, 1.0], dtype=dtype)[None, :, None, None].expand(180, 2, 3, 1)
    given, swapped = renderer(faces, shades), renderer(faces.flip(1), shades.flip(1))
    # Beyond the edge a -> b, and between its ends.
    at = torch.arange(12, dtype=torch.float64)
    x, y = torch.meshgrid((2 * at - 11) / 12, (11 - 2 * at) / 12, indexing="xy")
    offset = torch.stack([x, y], -1) - a[:, None, None]
    along = b - a
    left = along[:, None, None, 0] * offset[..., 1] - along[:, None, None, 1] * offset[..., 0]
    t = (offset * along[:, None, None]).sum(-1) / along.square().sum(-1)[:, None, None]
    beyond = ((left > 1e-3) & (t > 0.01) & (t < 0.99)).repeat(9, 1, 1)
    assert beyond.sum() > 2000
    for image in (given, swapped):
        # Both cover alike: a and (1 - a) a of alpha = 1 - (1 - a)^2 if the front comes first.
        through = (1 - image[..., 1]).clamp(min=0).sqrt()
        expected = image[..., 1] * through / (1 + through)
        assert (image[..., 0] - expected)[beyond].abs().max() < 1e-4
    assert (given - swapped)[beyond].abs().max() < 1e-6


@F64
def test_a_rotation_by_rounding_changes_a_closed_surface_by_as_little() -> None:
    mesh = tr.box(dtype=torch.float64)
    renderer = tr.SoftRasterizer(32, tr.Distribution("logistic", 0.02), tr.OverDepth())

    def image(degrees: Tensor) -> Tensor:
        camera = tr.PerspectiveCamera(tr.orbit(3.0, 23.0, degrees), 40.0)
        faces = tr.gather_faces(camera.project(mesh.vertices[None]), mesh.faces)
        edge, diagonal = (faces[..., i, :2] - faces[..., 0, :2] for i in (1, 2))
        front = edge[..., 0] * diagonal[..., 1] - edge[..., 1] * diagonal[..., 0] > 0
        shades = front.double()[..., None, None].expand(1, len(mesh.faces), 3, 1)
        return renderer(faces, shades)

    still = torch.tensor(31.0, dtype=torch.float64)
    for degrees in torch.linspace(0, 1e-8, 7, dtype=torch.float64)[1:]:
        assert (image(still + degrees) - image(still)).abs().max() < 1e-7
    step = 1e-5
    slope = (image(still + step) - image(still - step)).sum() / (2 * step)
    turned = still.clone().requires_grad_()
    (exact,) = torch.autograd.grad(image(turned).sum(), turned)
    assert float(slope) == pytest.approx(float(exact), rel=1e-3)


@pytest.mark.runs_on(arch="cpu")
def test_faces_that_one_thread_sorts_have_the_order_of_others(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Also where some are equally near, of which the lower index comes first."""
    vertices, colours = random_faces(seed=11, faces=20)
    vertices[:, 10:] = vertices[:, :10]  # each twice
    given = [x.to(tr.runtime().dtype) for x in (vertices, colours)]

    def found() -> list[Tensor]:
        leaves = [x.clone().requires_grad_() for x in given]
        image = tr.SoftRasterizer(20, tr.Distribution("logistic", 0.1))(*leaves)
        return [image.detach(), *torch.autograd.grad(image.square().sum(), leaves)]

    by_one = found()
    monkeypatch.setattr(composite, "FEW", 0)
    assert all(map(torch.equal, found(), by_one))
