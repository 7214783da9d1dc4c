"""A step along the families' outer gradients helps all of them."""

from __future__ import annotations

import math

import pytest
import torch

import taichi_raster as tr
from benchmarks.common_descent import Slope, direction, stepped

pytestmark = pytest.mark.runs_on(arch="cpu", precision="f64")


def slope(join: list[float], error: float) -> Slope:
    mean = {"join": torch.tensor(join, dtype=torch.float64)}
    return Slope(mean, {"join": torch.full((2,), error, dtype=torch.float64)})


def test_a_step_helps_every_family_and_leaves_out_what_is_uncertain() -> None:
    steep, other = [3.0, 0.0], [-0.8, 0.6]  # their mean would climb for the second one
    sure = direction([slope(steep, 0.0), slope(other, 0.0)])
    falls = [
        -float(sure["join"] @ torch.tensor(g).double()) / math.hypot(*g) for g in (steep, other)
    ]
    assert min(falls) > 0.3 and math.isclose(*falls, abs_tol=1e-6)
    assert math.isclose(float(sure["join"].norm()), 1.0, abs_tol=1e-12)
    doubtful = direction([slope([3.0, 0.0], 0.0), slope([4.0, 4.0], 4.0)])
    torch.testing.assert_close(doubtful["join"], torch.tensor([-1.0, 0.0]).double())
    start = tr.SofteningPolicy(feedback=True)
    once = stepped(start, sure, 0.5)
    twice = stepped(once, sure, 0.5)
    torch.testing.assert_close(twice.join.detach(), sure["join"])
    assert not bool(start.join.any()) and not twice.join.requires_grad
    assert torch.equal(twice.gains, start.gains)
