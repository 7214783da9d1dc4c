"""Backends, and tensors and modules on a GPU, as far as that can be checked without one."""

from __future__ import annotations

import ctypes
import logging
import sys
from collections.abc import Callable
from functools import partial
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import taichi_raster as tr
from fake_gpu import AWAY, one_device
from taichi_raster import checks
from taichi_raster.runtime import cuda_driver, scratch

pytestmark = pytest.mark.runs_on(arch="cpu", precision="f64")

runtime = sys.modules["taichi_raster.runtime.device"]  # the package exports a function of this name
END = torch.ones((), dtype=torch.float64)
EACH = torch.tensor([0.2, 0.7], dtype=torch.float64)


def learned(scale: float | Tensor | tr.Schedule = 0.1) -> tr.MLPSoftness:
    return tr.MLPSoftness((3, 3), scale=scale, progress=True)


def pretrained_edge(name: str) -> tr.EdgeSoftness:
    return tr.pretrained(name).drawn_edge


EDGES: dict[str, Callable[[], tr.EdgeSoftness]] = {
    "logistic": lambda: tr.Distribution("logistic", 0.1),
    "a parameter for a scale": lambda: tr.Distribution(
        "logistic", nn.Parameter(torch.tensor(0.1, dtype=torch.float64))
    ),
    "a parameter's table": lambda: tr.tabulate(
        tr.Distribution("gaussian", nn.Parameter(torch.tensor(0.1, dtype=torch.float64)))
    ),
    "a shape": lambda: tr.Distribution("gamma", tr.Knots([0.3, 0.1]), shape=2.0, shift=0.5),
    "network": learned,
    "a network's table": lambda: tr.tabulate(learned(tr.Knots([0.3, 0.1]))),
    "a table of scales for each": lambda: tr.tabulate(learned(torch.tensor([0.1, 0.2]))),
    **{name: partial(pretrained_edge, name) for name in tr.pretrained_names()},
}


def reach_without_its_value(edge: tr.EdgeSoftness, u: Tensor) -> None:
    """What `at` looks up, but for the numbers that it takes to the host."""
    if isinstance(edge, tr.TabulatedSoftness):
        cells = edge.cells(u)
        assert cells.device == AWAY
        assert edge._scaled_reach(cells, 1e-6).device == AWAY
    elif isinstance(edge, tr.MLPSoftness):
        assert edge.weights_at(u).device == AWAY


@pytest.mark.parametrize("u", [END, EACH], ids=["one progress", "one for each"])
@pytest.mark.parametrize("name", EDGES)
def test_a_softness_that_was_moved_computes_where_its_weights_are(name: str, u: Tensor) -> None:
    edge = EDGES[name]().to(AWAY)
    with one_device():
        reach_without_its_value(edge, u)
        edge.scale(u)


@pytest.mark.parametrize("moved", [False, True], ids=["softness on the CPU", "softness moved"])
@pytest.mark.parametrize("name", [name for name in EDGES if "for each" not in name])
def test_values_come_back_on_the_device_of_the_distances(
    name: str, moved: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    def by_no_kernel(_: str, x: Tensor, *__: float | None) -> Tensor:
        return x.new_empty(9, len(x))

    monkeypatch.setattr("taichi_raster.softness.edge.formulas_at", by_no_kernel)
    edge = EDGES[name]()
    edge = edge.to(AWAY) if moved else edge
    with one_device():
        distances = torch.empty(5, dtype=torch.float64, device=AWAY)
        assert edge.value(distances).device == AWAY


def test_what_a_table_keeps_moves_with_it() -> None:
    table = tr.tabulate(tr.Distribution("gaussian", 0.1))
    assert "_fixed" in dict(table.named_buffers())
    assert not table.state_dict()  # the edge that it was made of determines it
    for edge in (table, tr.tabulate(learned())):
        assert edge.positions.device == torch.device("cpu")
        edge.to(AWAY)
        assert edge.cells(END).device == edge.positions.device == AWAY


def test_a_schedule_of_which_one_end_was_moved() -> None:
    start, end = nn.Parameter(torch.tensor([0.3, 0.2])), torch.tensor([0.1, 0.1])
    schedule = tr.Geometric(start, end).to(AWAY)
    with one_device():
        assert schedule(EACH).device == AWAY


# --- tensors that the kernels cannot reach --------------------------------------------------------


class Elsewhere:
    """As much of a tensor as its device is asked for."""

    def __init__(self, value: Tensor, device: str) -> None:
        self.value, self.device = value, torch.device(device)

    def __getattr__(self, name: str) -> Any:
        return getattr(self.value, name)


@pytest.mark.parametrize(
    ("arch", "device", "refusal"),
    [
        ("cpu", "cuda:0", r"corners: CUDA tensors need .*init\(arch='cuda'\), but arch is 'cpu'"),
        ("vulkan", "cuda:1", r"corners: CUDA tensors need .*but arch is 'vulkan'"),
        (
            "cuda",
            "cuda:1",
            "corners: on cuda:1, .*move it to cuda:0, or set CUDA_VISIBLE_DEVICES=1",
        ),
        ("cuda", "cuda:0", None),
        ("cuda", "cpu", None),
        ("cpu", "cpu", None),
    ],
)
def test_tensors_that_kernels_cannot_reach_are_refused(
    arch: str, device: str, refusal: str | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings: Any = SimpleNamespace(arch=arch, dtype=torch.float64, precision="f64")
    tensor: Any = Elsewhere(torch.ones(2, dtype=torch.float64), device)
    looked_at: list[str] = []
    monkeypatch.setattr(checks, "finite", lambda what, name, *_: looked_at.append(name))
    if refusal is None:
        checks.values("corners", tensor, settings)
        assert looked_at == ["corners"]
    else:
        with pytest.raises(ValueError, match=refusal):
            checks.values("corners", tensor, settings)
        assert not looked_at


# --- which backend there is -----------------------------------------------------------------------


class Driver:
    """Some of CUDA's driver: it finds so many GPUs, and this thread has a context or not."""

    def __init__(self, starts: bool = True, gpus: int = 1, free: int | None = None) -> None:
        self.starts, self.gpus, self.free = starts, gpus, free

    def cuInit(self, flags: int) -> int:
        return 0 if self.starts else 100

    def cuDeviceGetCount(self, count: Any) -> int:
        count._obj.value = self.gpus
        return 0

    def cuMemGetInfo_v2(self, free: Any, total: Any) -> int:
        if self.free is None:
            return 201
        free._obj.value = self.free
        return 0


@pytest.fixture
def started(monkeypatch: pytest.MonkeyPatch) -> list[Any]:
    """What Taichi was started on, instead of starting it; and it finds a driver."""
    found: list[Any] = []
    monkeypatch.setattr(runtime.ti, "init", lambda arch, **options: found.append(arch))
    monkeypatch.setattr(runtime.ti.lang.misc, "is_arch_supported", lambda arch: True)
    return found


NO_GPU = {"no GPU": Driver(gpus=0), "no start": Driver(starts=False, gpus=8)}


@pytest.mark.parametrize("which", NO_GPU)
def test_a_driver_without_a_gpu_leaves_the_cpu(
    which: str, started: list[Any], monkeypatch: pytest.MonkeyPatch, caplog: Any
) -> None:
    monkeypatch.setattr(cuda_driver, "_driver", lambda: NO_GPU[which])
    with caplog.at_level(logging.INFO):
        assert runtime._started("auto", "f32") == "cpu"
    assert started == [runtime.ti.cpu]
    assert "CUDA's driver is there, but finds no GPU" in caplog.text
    with pytest.raises(RuntimeError, match=r"no working 'cuda' .*: CUDA's driver finds no GPU"):
        runtime._started("cuda", "f32")
    assert started == [runtime.ti.cpu]


@pytest.mark.parametrize("driver", [None, Driver()], ids=["none that can be asked", "a GPU"])
def test_a_gpu_is_taken(driver: Driver | None, started: Any, monkeypatch: Any) -> None:
    monkeypatch.setattr(cuda_driver, "_driver", lambda: driver)
    for arch in ("auto", "cuda"):
        assert runtime._started(arch, "f32") == "cuda"
    assert started == 2 * [runtime.ti.cuda]


def test_a_gpu_that_does_not_start_leaves_the_cpu(monkeypatch: Any, caplog: Any) -> None:
    started = []

    def start(arch: Any, **_: Any) -> None:
        if arch == runtime.ti.cuda:
            raise RuntimeError("CUDA Error CUDA_ERROR_DEVICE_UNAVAILABLE")
        started.append(arch)

    monkeypatch.setattr(runtime.ti, "init", start)
    monkeypatch.setattr(runtime, "_supported", lambda arch: True)
    assert runtime._started("auto", "f32") == "cpu"
    assert started == [runtime.ti.cpu]
    assert "does not start, so the CPU is used: CUDA Error CUDA_ERROR_DEVICE" in caplog.text
    with pytest.raises(RuntimeError, match=r"no working 'cuda' backend.*DEVICE_UNAVAILABLE"):
        runtime._started("cuda", "f32")


def test_free_memory_is_that_of_the_first_gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    of_each = [(1000, 8000), (2000, 8000)]
    current = SimpleNamespace(
        is_available=lambda: True, mem_get_info=lambda device=1: of_each[device]
    )
    monkeypatch.setattr(torch, "cuda", current)
    assert scratch.free_memory("cuda") == 1000
    current.is_available = lambda: False  # torch was built without CUDA: the driver knows
    for driver, free in ((Driver(free=3000), 3000), (Driver(free=None), None), (None, None)):
        monkeypatch.setattr(cuda_driver, "_driver", lambda driver=driver: driver)
        assert scratch.free_memory("cuda") == free


def test_a_driver_is_asked_by_its_own_interface(monkeypatch: pytest.MonkeyPatch) -> None:
    def missing(name: str) -> None:
        raise OSError(name)

    monkeypatch.setattr(ctypes, "CDLL", missing)
    assert cuda_driver.gpu_count() is None
    monkeypatch.setattr(ctypes, "CDLL", lambda name: Driver(gpus=2))
    assert cuda_driver.gpu_count() == 2
