"""How often the host would wait for a GPU: whenever it looks at a value there, or copies to it."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

import taichi_raster as tr
from fake_gpu import AWAY
from scenes import random_faces
from taichi_raster import checks
from taichi_raster.runtime import extremes as extremes_module
from taichi_raster.runtime import transfer
from taichi_raster.runtime.extremes import Extremes, extremes
from taichi_raster.runtime.layout import Dim
from taichi_raster.softness import parameters

pytestmark = pytest.mark.runs_on(arch="cpu", precision="f64")

_aten = torch.ops.aten


class Looks(TorchDispatchMode):
    """Counts how often a value is fetched that was computed from those of `scene`."""

    def __init__(self, *scene: Tensor) -> None:
        super().__init__()
        self.count = 0
        for x in scene:
            self._mark(x)

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        of_scene = any(self._marked(x) for x in tree_leaves((args, kwargs)))
        self.count += of_scene and func is _aten._local_scalar_dense.default
        found = func(*args, **(kwargs or {}))
        for x in tree_leaves(found):
            if of_scene and isinstance(x, Tensor):
                self._mark(x)
        return found

    def _mark(self, x: Tensor) -> None:
        x.untyped_storage().of_scene = True  # type: ignore[attr-defined]

    def _marked(self, x: Any) -> bool:
        return isinstance(x, Tensor) and hasattr(x.untyped_storage(), "of_scene")


@pytest.fixture
def fetched(monkeypatch: pytest.MonkeyPatch) -> list[tuple[int, ...]]:
    """The shapes of what is taken to the host as a list, which is one wait each."""
    shapes: list[tuple[int, ...]] = []
    tolist = Tensor.tolist

    def noting(x: Tensor) -> Any:
        if hasattr(x.untyped_storage(), "of_scene"):
            shapes.append(tuple(x.shape))
        return tolist(x)

    monkeypatch.setattr(Tensor, "tolist", noting)
    return shapes


@pytest.fixture
def as_on_a_gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    """Checks treat tensors of the CPU, whose values are at hand, as a GPU's."""
    for module in (checks, extremes_module):
        monkeypatch.setattr(module, "waits", lambda _: True)


RENDERERS = {
    "softmax": lambda: tr.SoftRasterizer(16, depth=tr.SoftmaxDepth(), background=(0.1, 0.2, 0.3)),
    "in order": lambda: tr.SoftRasterizer(16, depth=tr.OverDepth()),
    "softly in order": lambda: tr.SoftRasterizer(16, depth=tr.OverDepth(0.1)),
    "sharp": lambda: tr.SharpRasterizer(16),
}


@pytest.mark.usefixtures("as_on_a_gpu")
@pytest.mark.parametrize("name", RENDERERS)
def test_a_render_and_its_gradient_look_at_the_scene_once(
    name: str, fetched: list[tuple[int, ...]]
) -> None:
    vertices, colours = random_faces(seed=3)
    renderer = RENDERERS[name]()
    vertices.requires_grad_()
    with Looks(vertices, colours) as looks:
        renderer(vertices, colours).sum().backward()
    assert fetched == [(6,)]  # the extremes of vertices, depths and colours
    assert looks.count == 0


@pytest.mark.usefixtures("as_on_a_gpu")
def test_hard_buffers_look_once(fetched: list[tuple[int, ...]]) -> None:
    vertices, _ = random_faces(seed=3)
    with Looks(vertices) as looks:
        tr.hard_buffers(vertices, 16)
    assert fetched == [(4,)] and looks.count == 0


def test_extremes_are_checked_in_order_after_one_fetch(fetched: list[tuple[int, ...]]) -> None:
    first, second = torch.tensor([3.0, -1.0]), torch.tensor([float("nan"), 2.0])
    seen: list[tuple[float, float]] = []
    later = Extremes()
    with Looks(first, second):
        for values in (first, second, first.double()):
            later.of(values, lambda *found: seen.append(found))
        assert not seen and not fetched
        later.fetch()
    assert seen[0] == seen[2] == (-1.0, 3.0) and all(map(torch.isnan, torch.tensor(seen[1])))
    assert fetched == [(6,)]
    later.fetch()  # nothing is left
    assert len(seen) == 3
    assert extremes(first) == (-1.0, 3.0)


class Copies(TorchDispatchMode):
    """Refuses to copy from the CPU to another device."""

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        found = func(*args, **(kwargs or {}))
        sources = [x for x in tree_leaves(args) if isinstance(x, Tensor) and x.device != AWAY]
        if func in (_aten._to_copy.default, _aten.copy_.default) and sources:
            assert tree_leaves(found)[0].device != AWAY, f"copied: {sources}"
        return found


@pytest.mark.parametrize("value", [torch.tensor(0.3).double(), torch.tensor([0.1, 1.0, 0.3])])
def test_a_few_numbers_are_written_where_they_are_wanted(value: Tensor) -> None:
    like = torch.empty(2, 3, device=AWAY)
    with Copies():
        found = parameters.to_like(value, like)
    assert (found.shape, found.dtype, found.device) == (value.shape, like.dtype, AWAY)
    with Copies(), pytest.raises(AssertionError, match="copied"):
        parameters.to_like(torch.zeros(100), like)
    assert parameters.to_like(value, torch.zeros(2).double()).tolist() == value.double().tolist()


def test_numbers_that_move_keep_their_derivative() -> None:
    value = torch.tensor(0.3, requires_grad=True)
    assert parameters.to_like(value, torch.empty(2, device=AWAY)).requires_grad
    assert parameters.to_like(value, torch.zeros(2)).requires_grad


@pytest.mark.parametrize("numbers", [[0.5, 1.0, 0.0], [2.0]])
def test_filled_is_the_numbers(numbers: list[float]) -> None:
    class There(SimpleNamespace):
        """A tensor of the CPU that says that it is elsewhere."""

        def detach(self) -> There:
            return self

    there: Any = There(device=AWAY, new_ones=torch.ones)
    assert parameters._filled(numbers, there).tolist() == numbers
    assert parameters._filled(numbers, torch.zeros(())).tolist() == numbers


def test_parameters_that_are_numbers_are_not_fetched_back() -> None:
    given = {"edge.scale": torch.tensor(0.1), "alpha.p": torch.tensor(1.0)}
    with Copies():
        found = parameters.stack(given, torch.empty(3, 2, device=AWAY))
    assert found.shape == (3, 2) and found.device == AWAY
    with pytest.raises(ValueError, match=r"edge.scale: expected positive finite values, got -0.5"):
        parameters.stack({"edge.scale": torch.tensor(-0.5)}, torch.empty(3, 2, device=AWAY))


def test_kernels_get_a_calls_sizes_as_arguments(monkeypatch: pytest.MonkeyPatch) -> None:
    """As tensors of the CPU they would be copied to a GPU and back."""
    taken: list[Any] = []
    monkeypatch.setattr(transfer, "_place", lambda *arguments: taken.extend(arguments))
    scratch: Any = SimpleNamespace(views={}, x=None, dims=None, limits=None)
    sizes, limits = torch.arange(Dim.COUNT, dtype=torch.int32), torch.rand(5)
    x, background = torch.empty(7, device=AWAY), torch.empty(2, device=AWAY)
    transfer.place(scratch, x, sizes, limits, background)
    assert {value.device for value in taken if isinstance(value, Tensor)} == {AWAY}
    assert [*taken[7], *taken[8]] == sizes.tolist() and taken[9:-1] == limits.tolist()
