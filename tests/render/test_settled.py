"""A softness of plain numbers is looked up, and yet never another one than the renderer's."""

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor

import taichi_raster as tr
from scenes import random_faces
from taichi_raster.render import settled

# What is looked up depends on neither the precision nor the backend.
pytestmark = pytest.mark.runs_on(arch="cpu", precision="f32")

Change = Callable[[tr.SoftRasterizer], Any]


def made(scale: float | tr.Schedule = 0.05, **more: Any) -> tr.SoftRasterizer:
    given: dict[str, Any] = {"depth": tr.SoftmaxDepth(0.1), **more}
    return tr.SoftRasterizer(12, tr.Distribution("logistic", scale), **given)


def drawn(renderer: tr.SoftRasterizer) -> Tensor:
    vertices, colours = random_faces(seed=5)
    return renderer(vertices.to(tr.runtime().dtype), colours.to(tr.runtime().dtype))


def filled(module: torch.nn.Module, value: float) -> None:
    for tensor in (*module.parameters(), *module.buffers()):
        tensor.data.fill_(value)


CHANGES: dict[str, tuple[Change, Callable[[], tr.SoftRasterizer]]] = {
    "a number in place": (lambda r: filled(r.edge.scale, 0.1), lambda: made(0.1)),
    "a schedule": (
        lambda r: setattr(r.edge, "scale", tr.Geometric(0.3, 0.1)),
        lambda: made(tr.Geometric(0.3, 0.1)),
    ),
    "the edge": (
        lambda r: setattr(r, "edge", tr.Distribution("gaussian", 0.05)),
        lambda: tr.SoftRasterizer(12, tr.Distribution("gaussian", 0.05), tr.SoftmaxDepth(0.1)),
    ),
    "gamma": (
        lambda r: filled(r.depth.gamma, 0.3),
        lambda: made(depth=tr.SoftmaxDepth(0.3)),
    ),
    "the background's depth": (
        lambda r: r.depth.background_z.fill_(0.9),
        lambda: made(depth=tr.SoftmaxDepth(0.1, background_z=0.9)),
    ),
    "the T-conorm": (
        lambda r: setattr(r, "alpha", tr.TConorm("yager", 2.0)),
        lambda: made(alpha=tr.TConorm("yager", 2.0)),
    ),
    "the threshold": (lambda r: setattr(r, "threshold", 0.2), lambda: made(threshold=0.2)),
    "the cutoff": (lambda r: setattr(r, "cutoff", 0.01), lambda: made(cutoff=0.01)),
    "the depth": (
        lambda r: setattr(r, "depth", tr.OverDepth()),
        lambda: made(depth=tr.OverDepth()),
    ),
}


@pytest.mark.parametrize("name", CHANGES)
def test_what_changes_between_renders_counts(name: str) -> None:
    change, expected = CHANGES[name]
    renderer = made()
    before = drawn(renderer)
    change(renderer)
    after = drawn(renderer)
    assert torch.equal(after, drawn(expected()))
    assert not torch.equal(after, before)
    assert torch.equal(drawn(made()), before)  # what is kept for another renderer stays


def test_a_hidden_fraction_counts() -> None:
    first, second = (made(depth=tr.OverDepth(hidden=hidden)) for hidden in (0.0, 0.5))
    assert not torch.equal(drawn(first), drawn(second))


def test_only_numbers_without_derivatives_are_looked_up() -> None:
    class Wider(tr.Distribution):
        def at(self, u: Tensor, threshold: float) -> Any:
            return super().at(u, threshold)

    like = torch.zeros(2, 1, 3, 3, dtype=tr.runtime().dtype)

    def key(edge: tr.EdgeSoftness, depth: tr.DepthSoftness | None = None) -> Any:
        depth = tr.SoftmaxDepth() if depth is None else depth
        return settled.key_of(edge, depth, tr.TConorm(), like, (1e-6, None))

    plain = tr.Distribution("logistic", 0.1)
    assert key(plain) is not None and key(plain) == key(tr.Distribution("logistic", 0.1))
    assert key(plain) != key(plain, tr.OverDepth())
    moving = torch.tensor(0.1, requires_grad=True)
    for edge in (
        Wider("logistic", 0.1),
        tr.Distribution("logistic", moving),
        tr.Distribution("logistic", torch.tensor([0.1, 0.2])),
        tr.Distribution("logistic", tr.Geometric(0.2, 0.1)),
    ):
        assert key(edge) is None, edge
    assert key(plain, tr.SoftmaxDepth(moving)) is None
    with torch.inference_mode():
        assert key(plain) is None


def test_a_bad_number_is_named_each_time() -> None:
    renderer = made()
    filled(renderer.edge.scale, -1.0)
    for _ in range(2):
        with pytest.raises(ValueError, match=r"edge.scale: expected positive finite values"):
            drawn(renderer)
