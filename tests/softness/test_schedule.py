"""Schedules: closed forms, per-item progress, what they learn, and what they refuse."""

import math

import pytest
import torch
from torch.func import functional_call

import taichi_raster as tr

pytestmark = pytest.mark.runs_on(arch="cpu", precision="f64")


def u(*values: float) -> torch.Tensor:
    return torch.tensor(values[0] if len(values) == 1 else values, dtype=torch.float64)


def test_constant_is_the_same_at_any_progress_and_keeps_its_tensor() -> None:
    value = torch.tensor(0.3, dtype=torch.float64, requires_grad=True)
    schedule = tr.Constant(value)
    assert schedule(u(0.0)) is value or torch.equal(schedule(u(0.0)), value)
    schedule(u(0.7)).backward()
    assert value.grad == 1


def test_a_constant_parameter_is_registered() -> None:
    parameter = torch.nn.Parameter(torch.tensor(0.3))
    assert any(p is parameter for p in tr.Constant(parameter).parameters())


def test_geometric_multiplies_by_equal_ratios() -> None:
    schedule = tr.Geometric(0.16, 0.01)
    at = [float(schedule(u(x))) for x in (0, 0.25, 0.5, 0.75, 1)]
    assert at == pytest.approx([0.16, 0.08, 0.04, 0.02, 0.01])


def test_geometric_gradient_is_its_closed_form() -> None:
    start, end = (torch.tensor(v, dtype=torch.float64, requires_grad=True) for v in (0.16, 0.01))
    value = tr.Geometric(start, end)(u(0.3))
    value.backward()
    assert start.grad is not None and end.grad is not None
    assert start.grad.item() == pytest.approx(0.7 * value.item() / 0.16)
    assert end.grad.item() == pytest.approx(0.3 * value.item() / 0.01)


def test_knots_are_log_linear_between_and_constant_outside() -> None:
    schedule = tr.Knots([0.1, 0.4, 0.2], positions=[0.25, 0.5, 1.0])
    at = [float(schedule(u(x))) for x in (0, 0.25, 0.375, 0.5, 0.75, 1)]
    assert at == pytest.approx([0.1, 0.1, 0.2, 0.4, math.sqrt(0.4 * 0.2), 0.2])
    assert float(tr.Knots([0.3])(u(0.6))) == pytest.approx(0.3)


def test_knots_default_to_even_spacing() -> None:
    assert float(tr.Knots([1.0, 2.0, 8.0])(u(0.75))) == pytest.approx(4.0)


def test_progress_may_differ_for_each_item() -> None:
    for schedule in (tr.Geometric(0.16, 0.01), tr.Knots([0.1, 0.4, 0.2])):
        together = schedule(u(0.1, 0.6, 1.0))
        alone = torch.stack([schedule(u(x)) for x in (0.1, 0.6, 1.0)])
        assert together.shape == (3,)
        assert torch.allclose(together, alone, rtol=1e-12)


def test_knots_take_one_schedule_for_each_item() -> None:
    schedule = tr.Knots([0.1, 0.4, 0.2])
    log_values = torch.tensor([[0.1, 0.4, 0.2], [1.0, 2.0, 3.0]], dtype=torch.float64).log()
    for progress in (u(0.25), u(0.25, 0.5)):
        value = functional_call(schedule, {"log_values": log_values}, (progress,))
        second = math.sqrt(2.0) if progress.ndim == 0 else 2.0
        assert value.tolist() == pytest.approx([0.2, second])


def test_knots_gradient_matches_finite_differences() -> None:
    schedule = tr.Knots([0.1, 0.4, 0.2])

    def at(log_values: torch.Tensor) -> torch.Tensor:
        return functional_call(schedule, {"log_values": log_values}, (u(0.1, 0.6, 1.0),))

    log_values = schedule.log_values.detach().clone().requires_grad_()
    assert torch.autograd.gradcheck(at, log_values)
    assert torch.autograd.gradgradcheck(at, log_values)


@pytest.mark.parametrize("value", [0.0, -0.1, math.nan, math.inf])
def test_values_must_be_positive_and_finite(value: float) -> None:
    with pytest.raises(ValueError, match=r"value.*positive"):
        tr.Constant(value)
    with pytest.raises(ValueError, match=r"end.*positive"):
        tr.Geometric(0.1, value)
    with pytest.raises(ValueError, match=r"values.*positive"):
        tr.Knots([0.1, value])


def test_a_value_must_be_a_number_or_a_tensor() -> None:
    with pytest.raises(TypeError, match="value"):
        tr.Constant("0.1")  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="value"):
        tr.Constant(torch.ones(2, 2))


@pytest.mark.parametrize(
    "positions", [[0, 0, 1], [0, 1], [0.5, 0.2, 1], [0, 0.5, 1.5], [-0.1, 0.5, 1]]
)
def test_knot_positions_must_ascend_in_the_unit_interval(positions: list[float]) -> None:
    with pytest.raises(ValueError, match="positions"):
        tr.Knots([0.1, 0.2, 0.3], positions=positions)
