"""The kernels' stream and the caller's, with a torch.cuda that notes what it is asked."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import pytest
import torch

import taichi_raster as tr
from scenes import random_faces
from taichi_raster.engine import engine
from taichi_raster.engine.kernel_cache import KernelCache
from taichi_raster.runtime import streams, transfer
from taichi_raster.softness.distributions.formulas import formulas_at

pytestmark = pytest.mark.runs_on(arch="cpu", precision="f64")


@dataclass
class Cuda:
    """torch.cuda, of which each thread has its current stream."""

    events: list[str] = field(default_factory=list)
    local: Any = field(default_factory=threading.local)

    def is_initialized(self) -> bool:
        return True

    def current_stream(self, device: torch.device) -> Stream:
        return getattr(self.local, "stream", self.default_stream(device))

    def default_stream(self, device: torch.device) -> Stream:
        return Stream("default", self)

    @contextmanager
    def stream(self, stream: Stream) -> Iterator[None]:
        before = self.current_stream(torch.device("cuda", 0))
        self.local.stream = stream
        self.events.append(f"on {stream.name}")
        try:
            yield
        finally:
            self.local.stream = before
            self.events.append(f"back on {before.name}")


@dataclass(frozen=True)
class Stream:
    name: str
    cuda: Cuda = field(compare=False)

    def wait_stream(self, other: Stream) -> None:
        self.cuda.events.append(f"{self.name} waits for {other.name}")


@dataclass
class OnGPU:
    """As much of a CUDA tensor as is asked for."""

    cuda: Cuda
    name: str = "x"
    is_cuda = True
    device = torch.device("cuda", 0)

    def record_stream(self, stream: Stream) -> None:
        self.cuda.events.append(f"{self.name} is in use on {stream.name}")


def on_gpu(cuda: Cuda, name: str = "x") -> Any:
    return OnGPU(cuda, name)


@pytest.fixture
def cuda(monkeypatch: pytest.MonkeyPatch) -> Cuda:
    found = Cuda()
    monkeypatch.setattr(torch, "cuda", found)
    return found


def test_each_stream_waits_for_the_other(cuda: Cuda) -> None:
    side, found = Stream("side", cuda), on_gpu(cuda, "found")
    with cuda.stream(side):
        cuda.events.clear()
        with streams.ordered(None, torch.zeros(2), on_gpu(cuda)) as order:
            assert cuda.current_stream(OnGPU.device).name == "default"
            cuda.events.append("work")
            order.outputs(found, None, torch.zeros(2))
        assert cuda.current_stream(OnGPU.device) == side
        assert cuda.events == [
            "default waits for side",
            "on default",
            "work",
            "found is in use on side",
            "back on side",
            "side waits for default",
        ]


def test_work_may_be_done_in_another_thread(cuda: Cuda) -> None:
    """It is the caller's stream that is waited for, not the other thread's, which is the default
    one, and which outputs are told about.
    """

    def work(order: streams.Ordered) -> None:
        cuda.events.append(f"work on {cuda.current_stream(OnGPU.device).name}")
        order.outputs(on_gpu(cuda, "found"))

    with cuda.stream(Stream("side", cuda)):
        with streams.ordered(on_gpu(cuda)) as order:
            cuda.events.clear()
            thread = threading.Thread(target=work, args=(order,))
            thread.start()
            thread.join()
        assert cuda.events == [
            "work on default",
            "found is in use on side",
            "back on side",
            "side waits for default",
        ]


def test_after_an_error_the_caller_waits_too(cuda: Cuda) -> None:
    with cuda.stream(Stream("side", cuda)):
        with pytest.raises(ValueError, match="amiss"), streams.ordered(on_gpu(cuda)):
            raise ValueError("amiss")
        assert cuda.events[-2:] == ["back on side", "side waits for default"]


def test_a_call_within_a_call_waits_once(cuda: Cuda) -> None:
    with cuda.stream(Stream("side", cuda)), streams.ordered(on_gpu(cuda)):
        before = list(cuda.events)
        with streams.ordered(on_gpu(cuda)) as inner:
            inner.outputs(on_gpu(cuda))
        assert cuda.events == before


def test_on_the_default_stream_nothing_is_done(cuda: Cuda) -> None:
    with streams.ordered(on_gpu(cuda)) as order:
        order.outputs(on_gpu(cuda))
    assert not cuda.events


def test_tensors_of_the_cpu_do_not_ask_cuda(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delattr(torch, "cuda")
    with streams.ordered(torch.zeros(2), None) as order:
        order.outputs(torch.zeros(2))
    with streams.ordered() as order:
        order.outputs(None)


# --- who asks for it ------------------------------------------------------------------------------


class Watched:
    """Instead of `streams.ordered`: what was given back, and whether a call is at work."""

    def __init__(self) -> None:
        self.inside = 0
        self.inputs: tuple[Any, ...] = ()
        self.given: set[int] = set()  # the memory of outputs

    def ordered(self, *inputs: Any) -> Watched:
        assert all(isinstance(x, torch.Tensor) for x in inputs)
        self.inputs = inputs
        return self

    def __enter__(self) -> Watched:
        self.inside += 1
        return self

    def __exit__(self, *error: Any) -> None:
        self.inside -= 1

    def outputs(self, *found: torch.Tensor | None) -> None:
        self.given |= {x.data_ptr() for x in found if x is not None}


@pytest.fixture
def watched(monkeypatch: pytest.MonkeyPatch) -> Watched:
    """Every launch and copy insists on being within a call that is ordered."""
    found = Watched()

    def insisting(function: Any) -> Any:
        def call(*args: Any, **kwargs: Any) -> Any:
            assert found.inside == 1 and found.inputs, (
                f"{function.__name__}: the caller's stream is not waited for"
            )
            return function(*args, **kwargs)

        return call

    monkeypatch.setattr(engine, "no_modes", lambda: False)  # all is handed over, as with a GPU
    monkeypatch.setattr(streams, "ordered", found.ordered)
    monkeypatch.setattr(KernelCache, "launch", insisting(KernelCache.launch))
    for name in ("place", "seed", "read", "read_both"):
        monkeypatch.setattr(transfer, name, insisting(getattr(transfer, name)))
    return found


def image(depth: tr.DepthSoftness) -> tuple[torch.Tensor, torch.Tensor]:
    vertices, colours = random_faces(seed=3, batch=2, faces=4)
    vertices.requires_grad_()
    return vertices, tr.SoftRasterizer(8, depth=depth)(vertices, colours)


@pytest.mark.parametrize("depth", [tr.SoftmaxDepth(), tr.OverDepth(), tr.OverDepth(0.1)])
def test_renders_and_derivatives_are_ordered(depth: tr.DepthSoftness, watched: Watched) -> None:
    vertices, found = image(depth)
    (first,) = torch.autograd.grad(found.square().sum(), vertices, create_graph=True)
    torch.autograd.grad(first.square().sum(), vertices)
    assert len(watched.given) >= 3 and watched.inside == 0


def test_forward_mode_and_the_other_renderers_are_ordered(watched: Watched) -> None:
    vertices, colours = random_faces(seed=3, batch=2, faces=4)
    tr.SoftRasterizer(8).jvp((vertices, colours), (torch.ones_like(vertices), None))
    tr.SharpRasterizer(8)(vertices, colours)
    tr.hard_buffers(vertices, 8)
    formulas_at("logistic", torch.zeros(3))
    assert len(watched.given) >= 4 and watched.inside == 0
