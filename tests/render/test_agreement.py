"""Every mode's image and derivatives are those of the dense twin, and of finite differences.

Both are in one file, so that one process compiles each mode's kernels once for both.
"""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor

import modes
import taichi_raster as tr
from modes import Inputs, Mode
from scenes import gradients, hessian_vector_products, relative

FLAT: dict[str, Mode] = {  # without a slope somewhere: not for finite differences
    "edge heaviside": Mode(edge=lambda x: tr.Distribution("heaviside")),
    "alpha hard": Mode(alpha=lambda x: tr.TConorm("hard")),
}
LIMITS = {  # what counts, and what is shown
    "culled": Mode(options={"cull_backfaces": True}, turned=(1,)),
    "cut": Mode(options={"near": 2.05, "far": 3.05, "cutoff": 0.1, "threshold": 0.05}),
    "cut, in alpha": Mode(options={"near": 2.05, "far": 3.05, "unclipped_alpha": True}),
}
EVERY = {
    **modes.ALL,
    **{f"pair {name}": mode for name, mode in modes.PAIRS.items()},
    **{f"limits {name}": mode for name, mode in LIMITS.items()},
}


def agree(
    of: Callable[[Callable[[Inputs], Tensor], Inputs], Inputs],
    mode: Mode,
    inputs: Inputs,
    tolerance: float,
    dead: tuple[str, ...] = (),
) -> None:
    """A derivative of the renderer and of its twin, at the same (rounded) inputs, by norm."""
    expected = of(mode.twin, {k: v.double() for k, v in inputs.items()})
    found = of(mode.render, inputs)
    for name, value in found.items():
        error = relative(value, expected[name])
        assert error < tolerance, (name, error)
        assert name in dead or float(expected[name].norm()) > 1e-3, f"{name} has no effect"


def image(render: Callable[[Inputs], Tensor], x: Inputs) -> Inputs:
    return {"image": render({k: v.clone().requires_grad_() for k, v in x.items()}).detach()}


# In float32, a CPU has each choice once: pairs would be the same formulas, compiled again.
F64 = pytest.mark.runs_on(precision="f64")
GPU = pytest.mark.runs_on(arch=("vulkan", "cuda"), precision="f32")


@pytest.mark.parametrize(
    "name",
    [
        *(name for name in EVERY if not name.startswith("pair ")),
        *(pytest.param(f"pair {name}", marks=F64) for name in modes.PAIRS),
        *(pytest.param(f"pair {name}", marks=GPU, id=f"GPU, {name}") for name in modes.PAIRS),
    ],
)
def test_image_and_gradient_are_the_twins(name: str, dtype: torch.dtype) -> None:
    mode = EVERY[name]
    double = dtype == torch.float64
    inputs = mode.inputs(dtype)
    agree(image, mode, inputs, 1e-13 if double else 1e-5)
    agree(gradients, mode, inputs, 1e-11 if double else 5e-4)


@pytest.mark.runs_on(precision="f64")
@pytest.mark.parametrize("name", EVERY)
def test_second_derivatives_are_the_twins(name: str) -> None:
    """The gamma distributions' curvature in their shape is a difference of digammas."""
    mode = EVERY[name]
    agree(hessian_vector_products, mode, mode.inputs(), 1e-9)


@pytest.mark.runs_on(arch="cpu", precision="f64")
@pytest.mark.parametrize("name", [name for name in EVERY if not name.startswith("limits ")])
def test_first_and_second_derivatives_are_finite_differences(name: str) -> None:
    mode = EVERY[name]
    x = mode.inputs()
    # A trilinear texture's level is taken as given by the derivatives of where it is looked up.
    keys = ["image"] if "trilinear" in name else list(x)
    for tensor in x.values():  # all of them: for fewer, other kernels would be compiled
        tensor.requires_grad_()
    leaves = [x[k] for k in keys]

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


@pytest.mark.runs_on(precision="f32")
@pytest.mark.parametrize("name", ["gamma, frank, clamp", "exponential, hamacher, clipped"])
def test_second_derivatives_in_float32(name: str) -> None:
    mode = EVERY[name]
    agree(hessian_vector_products, mode, mode.inputs(torch.float32), 1e-3)


@pytest.mark.parametrize("name", FLAT)
def test_what_has_no_slope_has_a_gradient_of_zero(name: str, dtype: torch.dtype) -> None:
    mode = FLAT[name]
    inputs = mode.inputs(dtype)
    tolerance = 1e-11 if dtype == torch.float64 else 5e-4
    agree(image, mode, inputs, tolerance)
    agree(gradients, mode, inputs, tolerance)


# --- parameters that differ from item to item -----------------------------------------------------


def several(mode: Mode, dtype: torch.dtype) -> Inputs:
    """Three items with scenes and parameters of their own."""
    items = [mode.inputs(dtype, seed) for seed in (0, 3, 4)]
    together = {}
    for name, first in items[0].items():
        if name in mode.numbers:
            together[name] = torch.stack([first * factor for factor in (0.8, 1.0, 1.3)])
        elif name.endswith("weights") or name == "picture":
            together[name] = torch.stack([x[name] for x in items])
        else:
            together[name] = torch.cat([x[name] for x in items])
    return together


PICTURE = Mode(tensors=("colours", "picture"))
BATCHES = {
    "distributions": modes.together(
        modes.distribution("gamma_rev"),
        modes.conorm("schweizer_sklar", -1.5),
        PICTURE,
        Mode(
            depth=lambda x: tr.DistributionDepth("cauchy", x["gamma"], x["floor"], None, x["at"]),
            numbers={"gamma": 0.1, "floor": 0.5, "at": -5.0},
        ),
    ),
    "networks": modes.together(
        modes.NETWORK,
        modes.conorm("aczel_alsina", 0.8),
        modes.TEXTURES["clamp"],
        modes.DEPTHS["network"],
    ),
}


@pytest.mark.parametrize("name", BATCHES)
def test_every_parameter_may_differ_from_item_to_item(name: str, dtype: torch.dtype) -> None:
    mode = BATCHES[name]
    inputs = several(mode, dtype)
    double = dtype == torch.float64
    agree(image, mode, inputs, 1e-13 if double else 1e-5)
    agree(gradients, mode, inputs, 1e-11 if double else 5e-4)
    if double:
        agree(hessian_vector_products, mode, inputs, 1e-9)


@pytest.mark.parametrize("name", ["table, surface", "exponential_rev, cauchy depth, repeat"])
def test_batch_items_may_share_a_texture(name: str, dtype: torch.dtype) -> None:
    mode = EVERY[name]
    inputs = several(mode, dtype)
    for shared in ("texels", "image", "uv"):
        if shared in inputs:
            inputs[shared] = inputs[shared][:1]
    agree(gradients, mode, inputs, 1e-11 if dtype == torch.float64 else 5e-4)
