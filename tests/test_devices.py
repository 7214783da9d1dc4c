"""Tensors and modules on a GPU, as far as that can be checked without one (see fake_gpu.py)."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

import taichi_raster as tr
from fake_gpu import AWAY, one_device

pytestmark = pytest.mark.runs_on(arch="cpu", precision="f64")

END = torch.ones((), dtype=torch.float64)
EACH = torch.tensor([0.2, 0.7], dtype=torch.float64)


def learned(scale: float | Tensor | tr.Schedule = 0.1) -> tr.MLPSoftness:
    return tr.MLPSoftness((3, 3), scale=scale, progress=True)


EDGES = {
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
    **{name: (lambda name=name: tr.pretrained(name).drawn_edge) for name in tr.pretrained_names()},
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
    def by_no_kernel(name: str, x: Tensor, shape: float | None = None) -> Tensor:
        return x.new_empty(9, len(x))

    monkeypatch.setattr("taichi_raster.softness.edge.formulas_at", by_no_kernel)
    edge = EDGES[name]()
    edge = edge.to(AWAY) if moved else edge
    with one_device():
        distances = torch.empty(5, dtype=torch.float64, device=AWAY)
        assert edge.value(distances).device == AWAY


def test_what_a_table_keeps_moves_with_it() -> None:
    table = tr.tabulate(tr.Distribution("gaussian", 0.1))
    assert [k for k, _ in table.named_buffers()] == ["_fixed"]
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
