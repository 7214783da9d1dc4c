"""The one test that every run has: it runs in the configuration that it was asked for."""

import pytest
import torch

import taichi_raster as tr


def test_runtime_is_the_one_asked_for(pytestconfig: pytest.Config, dtype: torch.dtype) -> None:
    runtime = tr.runtime()
    assert runtime.arch == pytestconfig.getoption("--arch")
    assert runtime.precision == pytestconfig.getoption("--precision")
    assert dtype == {"f32": torch.float32, "f64": torch.float64}[runtime.precision]
