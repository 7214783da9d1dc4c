"""First and second derivatives of every mode, by finite differences in float64."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

import modes

EVERY = {**modes.ALL, **{f"pair {name}": mode for name, mode in modes.PAIRS.items()}}


@pytest.mark.runs_on(arch="cpu", precision="f64")
@pytest.mark.parametrize("name", EVERY)
def test_first_and_second_derivatives_are_finite_differences(name: str) -> None:
    mode = EVERY[name]
    x = mode.inputs()
    # A trilinear texture's level is taken as given by the derivatives of where it is looked up.
    keys = ["image"] if "trilinear" in name else list(x)
    leaves = [x[k].requires_grad_() for k in keys]

    def function(*values: Tensor) -> Tensor:
        return mode.render(x | dict(zip(keys, values, strict=True)))

    # Texels that faces share are summed by two threads, in either order; all else to the bit.
    order = 1e-12 if "image" in x else 0.0
    assert torch.autograd.gradcheck(function, leaves, fast_mode=True, atol=1e-6, nondet_tol=order)
    # Wigner's density has an infinite slope at its edge: differences converge slowly near it.
    slack = 1e-4 if "wigner" in name else 1e-5
    assert torch.autograd.gradgradcheck(
        function, leaves, fast_mode=True, atol=slack, nondet_tol=order
    )
