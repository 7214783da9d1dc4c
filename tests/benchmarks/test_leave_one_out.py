"""Steps along the families' outer gradients, and what a learned policy's file says of them."""

from __future__ import annotations

import importlib
import math
from typing import Any

import pytest
import torch

import taichi_raster as tr
from taichi_raster.presets.pretrained import CARD_KEYS

pytestmark = pytest.mark.runs_on(arch="cpu", precision="f64")

benchmark: Any = importlib.import_module("benchmarks.leave_one_out")
SIX, Options, Slope, Step = benchmark.SIX, benchmark.Options, benchmark.Slope, benchmark.Step
card_of, direction, stepped = benchmark.card_of, benchmark.direction, benchmark.stepped


def slope(join: list[float], error: float) -> Any:
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


def test_the_first_round_is_shared_and_each_later_one_has_a_folder() -> None:
    assert Step("pose", 0).slopes == list(SIX) and Step("pose", 0).folder == "."
    assert Step("pose", 0).families == Step("pose", 1).slopes == [n for n in SIX if n != "pose"]
    assert Step("nothing", 1).slopes == list(SIX)
    folders = {Step(name, k).folder for name in (*SIX, "nothing") for k in (1, 2)}
    assert len(folders) == 2 * (len(SIX) + 1)


def test_a_card_says_how_it_was_learned() -> None:
    rounds = [
        {"confirmed": [0.8, 0.7, 0.9], "kept": True},
        {"confirmed": [1.1, 1.0, 1.2], "kept": False},
    ]
    found = card_of("nothing", Options(rounds=4), rounds)
    assert not [key for key in CARD_KEYS if not str(found.get(key, ""))]
    assert "errors of 0.800 " in found["scores"]["confirmed"]
    assert found["command"].endswith("--left-out nothing --rounds 4")
    assert math.isclose(found["rounds"][0]["confirmed"][0], 0.8)
