"""First and second derivatives of every mode, by finite differences in float64; and float32,
on every backend, against float64 on the CPU."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from torch import Tensor

import modes
from modes import Mode

EVERY = {**modes.ALL, **{f"pair {name}": mode for name, mode in modes.PAIRS.items()}}


@pytest.mark.runs_on(arch="cpu", precision="f64")
@pytest.mark.parametrize("name", EVERY)
def test_first_and_second_derivatives_are_finite_differences(name: str) -> None:
    mode = EVERY[name]
    x = mode.inputs()
    keys = list(x)
    leaves = [x[k].requires_grad_() for k in keys]

    def function(*values: Tensor) -> Tensor:
        return mode.render(dict(zip(keys, values, strict=True)))

    assert torch.autograd.gradcheck(function, leaves, fast_mode=True, atol=1e-6)
    # Wigner's density has an infinite slope at its edge: differences converge slowly near it.
    slack = 1e-4 if "wigner" in name else 1e-5
    assert torch.autograd.gradgradcheck(function, leaves, fast_mode=True, atol=slack)


def derivatives(mode: Mode, dtype: torch.dtype) -> Iterator[tuple[str, Tensor]]:
    """The image, and the gradient of a fixed linear function of it in every input."""
    x = {k: v.requires_grad_() for k, v in mode.inputs(dtype).items()}
    image = mode.render(x)
    seed = torch.linspace(-1, 1.3, image.numel(), dtype=dtype).sin().view_as(image)
    yield "result", image.detach()
    grads = torch.autograd.grad((image * seed).sum(), list(x.values()), materialize_grads=True)
    yield from zip(x, grads, strict=True)


@pytest.mark.runs_on(precision="f32")
@pytest.mark.parametrize("name", modes.ALL)
def test_float32_agrees_with_float64(name: str, float64_reference: dict) -> None:
    for key, found in derivatives(modes.ALL[name], torch.float32):
        expected = torch.tensor(float64_reference[name][key], dtype=torch.float64)
        error = (found.double().flatten() - expected).norm() / expected.norm().clamp(min=1e-3)
        assert float(error) < (1e-4 if key == "result" else 2e-3), (key, float(error))


@pytest.fixture(scope="module")
def float64_reference(tmp_path_factory: pytest.TempPathFactory) -> dict:
    """What float64 on the CPU gives: from another process, since Taichi takes one precision."""
    out = tmp_path_factory.mktemp("reference") / "float64.json"
    code = (
        "import json, sys, torch, taichi_raster as tr; torch.set_num_threads(1); "
        "tr.init('cpu', 'f64'); import modes, test_modes; "
        "json.dump({n: {k: v.flatten().tolist() for k, v in "
        "test_modes.derivatives(m, torch.float64)} for n, m in modes.ALL.items()}, "
        "open(sys.argv[1], 'w'))"
    )
    here = Path(__file__).parent
    environment = {"PYTHONPATH": f"{here}:{here.parent}"}
    subprocess.run(
        [sys.executable, "-c", code, str(out)], check=True, env={**os.environ, **environment}
    )
    return json.loads(out.read_text())
