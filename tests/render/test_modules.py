"""Renderers and softnesses behave as torch users expect of modules."""

import copy
import io
import pickle

import pytest
import torch
from torch import Tensor, nn

import taichi_raster as tr
from meta import Adam, Method
from taichi_raster.softness.schedule import as_progress

pytestmark = pytest.mark.runs_on(arch="cpu", precision="f32")


def learned(seed: int = 0) -> tr.SoftRasterizer:
    """A renderer with something to learn in every part."""
    edge = tr.MLPSoftness((2, 2), scale=tr.Knots([0.2, 0.05]), progress=True, seed=seed)
    with torch.no_grad():
        for name, value in edge.named_parameters():
            if "weights" in name:
                g = torch.Generator().manual_seed(seed + len(name))
                value.add_(0.3 * torch.randn(value.shape, generator=g, dtype=value.dtype))
    gamma = tr.Knots([0.1 * (seed + 1), 0.02])
    alpha = tr.TConorm("yager", tr.Knots([1.5 + seed]))
    background = nn.Parameter(torch.tensor([0.1 + 0.2 * seed]))
    return tr.SoftRasterizer(12, edge, tr.SoftmaxDepth(gamma), alpha, background)


def fixed() -> tr.SoftRasterizer:
    """A renderer of plain numbers, and one parameter."""
    scale = nn.Parameter(torch.tensor(0.1))
    return tr.SoftRasterizer(12, tr.Distribution("logistic", scale), alpha=tr.TConorm("yager", 1.5))


def image(renderer: nn.Module, progress: float = 0.3) -> Tensor:
    g = torch.Generator().manual_seed(3)
    xy, colours = torch.rand(1, 4, 3, 2, generator=g) * 2 - 1, torch.rand(1, 4, 3, 1, generator=g)
    faces = tr.lift_triangles(xy, torch.tensor([1.0, 2.0, 3.0, 4.0]))
    return renderer(faces, colours, progress=progress).detach()


def test_everything_that_holds_numbers_is_a_module() -> None:
    parts: list[object] = [
        *learned().children(),
        tr.SharpRasterizer(),
        tr.HardDepth(),
        tr.MLPDepth(),
        tr.OverDepth(),
        tr.DistributionDepth("logistic"),
        tr.tabulate(tr.MLPSoftness((2, 2))),
        tr.Constant(1.0),
        tr.Geometric(0.1, 0.01),
        tr.Knots([1.0]),
        tr.Softening(tr.Distribution("logistic")),
        tr.LaplacianLoss(torch.tensor([[0, 1, 2]]), 3),
        Method(learned(), Adam(), tr.Constant(0.1), 2),
    ]
    assert all(isinstance(part, nn.Module) for part in parts)


def test_a_state_dict_carries_all_that_is_learnable() -> None:
    one, other = learned(0), learned(1)
    expected = image(one)
    assert float((image(other) - expected).abs().max()) > 0.01
    state = one.state_dict()
    assert {name for name, _ in one.named_parameters()} <= set(state)
    file = io.BytesIO()
    torch.save(state, file)
    file.seek(0)
    other.load_state_dict(torch.load(file, weights_only=True))
    assert torch.equal(image(other), expected)
    assert torch.equal(image(other, 0.9), image(one, 0.9))


def test_numbers_that_are_not_learnable_are_arguments_and_not_state() -> None:
    scale = torch.tensor(0.1, requires_grad=True) * 1  # somebody else's, in a graph
    edge = tr.Distribution("logistic", scale)
    assert not tr.SoftRasterizer(8, edge, background=(0.1, 0.2)).state_dict()
    assert edge.scale(as_progress(None, 1)) is scale


@pytest.mark.parametrize("make", [learned, fixed])
def test_copies_and_pickles_render_the_same_and_share_nothing(make) -> None:
    original = make()
    expected = image(original)
    whole = io.BytesIO()
    torch.save(original, whole)
    whole.seek(0)
    copies = (
        copy.deepcopy(original),
        pickle.loads(pickle.dumps(original)),
        torch.load(whole, weights_only=False),
    )
    for twin in copies:
        assert torch.equal(image(twin), expected)
        with torch.no_grad():
            for parameter in twin.parameters():
                parameter.mul_(1.5)
        assert not torch.equal(image(twin), expected)
    assert torch.equal(image(original), expected)


@pytest.mark.parametrize(
    "softness",
    [
        tr.tabulate(tr.MLPSoftness((2, 2), scale=0.1)),
        tr.Distribution("gamma", 0.1, shape=2.0),
        tr.MLPSoftness((2, 2), progress=True),
    ],
    ids=["table", "distribution", "network"],
)
def test_softnesses_alone_are_copied_and_pickled(softness: tr.EdgeSoftness) -> None:
    u = torch.tensor(0.3, dtype=torch.float64)
    state = softness.at(u, 1e-6)
    for twin in (copy.deepcopy(softness), pickle.loads(pickle.dumps(softness))):
        found = twin.at(u, 1e-6)
        assert found.reach == state.reach and torch.equal(found.scale, state.scale)
        assert torch.equal(found.shape, state.shape)
        assert (found.weights is None) == (state.weights is None)
        if state.weights is not None and found.weights is not None:
            assert torch.equal(found.weights, state.weights)
        assert twin.state_dict().keys() == softness.state_dict().keys()


@pytest.mark.parametrize("dtype", [torch.float16, torch.float32, torch.float64])
def test_modules_go_to_another_precision_and_images_stay_in_that_of_init(dtype) -> None:
    renderer = learned()
    expected = image(renderer)
    moved = copy.deepcopy(renderer).to(dtype)
    assert {p.dtype for p in moved.parameters()} == {dtype}
    found = image(moved)
    assert found.dtype == torch.float32
    assert float((found - expected).abs().max()) < (0.02 if dtype == torch.float16 else 1e-5)


def test_a_method_round_trips() -> None:
    one = Method(learned(0), Adam(), tr.Knots([0.1, 0.01]), 3)
    other = pickle.loads(pickle.dumps(Method(learned(1), Adam(), tr.Knots([0.2, 0.02]), 3)))
    other.load_state_dict(one.state_dict())
    assert all(torch.equal(other.state_dict()[k], v) for k, v in one.state_dict().items())
    assert other.steps == 3 and other.rule == one.rule
