"""One small network spans the distributions (Wu et al., EGSR 2024): how far it stays from each."""

from __future__ import annotations

import pytest
import torch

import taichi_raster as tr
from taichi_raster.softness.distributions import registry
from taichi_raster.softness.distributions.formulas import formulas_at

pytestmark = pytest.mark.runs_on(arch="cpu", precision="f64")

# Largest |F_network - F| that is allowed over twelve scales each way.
# `python tests/softness/test_mlp_regression.py` prints them.
ALLOWED = {name: 0.003 for name in registry.known() if name != "heaviside"} | {"levy_rev": 0.02}


def largest_error(name: str) -> float:
    shape = 2.0 if registry.find(name).shaped else None
    edge = tr.MLPSoftness(scale=1.0, init=name, init_shape=shape)
    x = torch.linspace(-12, 12, 4801, dtype=torch.float64)
    return float((edge.value(x) - formulas_at(name, x, shape)[0]).abs().max())


# Kinks, jumps of the slope, long tails, a bell: the others are between these.
@pytest.mark.parametrize("name", ["uniform", "exponential_rev", "cauchy", "gaussian", "levy_rev"])
def test_the_network_can_start_as_any_distribution(name: str) -> None:
    assert largest_error(name) < ALLOWED[name]


def test_what_it_cannot_start_as_is_refused() -> None:
    with pytest.raises(ValueError, match=r"^init: "):
        tr.MLPSoftness(init="heaviside")
    with pytest.raises(ValueError, match=r"^init_shape: "):
        tr.MLPSoftness(init="gamma")


if __name__ == "__main__":
    torch.set_num_threads(1)
    tr.init("cpu", "f64")
    for each in ALLOWED:
        print(f"{each:20s} {largest_error(each):.4f}")
