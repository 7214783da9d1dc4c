"""exp, log, log1p and atan2 of the kernels against numpy, over their whole ranges."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import taichi as ti
import torch

from taichi_raster.maths import elementary
from taichi_raster.runtime.thread import runs_in_runtime_thread

pytestmark = pytest.mark.runs_on(arch="cpu")


@runs_in_runtime_thread
def evaluate(
    function: Callable[..., Any], *arguments: np.ndarray, dtype: torch.dtype
) -> np.ndarray:
    real = ti.f32 if dtype == torch.float32 else ti.f64
    fields = [ti.field(real, len(arguments[0])) for _ in range(len(arguments) + 1)]
    for field, values in zip(fields[1:], arguments, strict=True):
        field.from_numpy(values)
    pair = len(arguments) == 2

    @ti.kernel
    def run():
        for i in fields[0]:
            if ti.static(pair):
                fields[0][i] = function(fields[1][i], fields[-1][i])
            else:
                fields[0][i] = function(fields[1][i])

    run()
    return fields[0].to_numpy().astype(np.float64)


def numbers(dtype: torch.dtype) -> tuple[Any, float, float]:
    """(numpy type, machine epsilon, smallest normal number)."""
    kind = np.float32 if dtype == torch.float32 else np.float64
    return kind, float(np.finfo(kind).eps), float(np.finfo(kind).tiny)


def test_exp(dtype: torch.dtype) -> None:
    kind, eps, tiny = numbers(dtype)
    most = 88.0 if dtype == torch.float32 else 709.0
    near = [np.linspace(-2, 2, 4001), np.geomspace(1e-30, 1, 100), -np.geomspace(1e-30, 1, 100)]
    x: np.ndarray = np.concatenate([np.linspace(np.log(tiny) + 1e-3, most, 100_001), *near]).astype(
        kind
    )
    found = evaluate(elementary.exp, x, dtype=dtype)
    expected = np.exp(x.astype(np.longdouble))
    assert float(np.abs(found / expected - 1).max()) < 3 * eps
    outside = evaluate(elementary.exp, np.array([-1e4, -1e30, 1e4], dtype=kind), dtype=dtype)
    assert outside[0] == outside[1] == 0 and np.isfinite(outside[2]) and outside[2] > 1e38


def test_log(dtype: torch.dtype) -> None:
    kind, eps, tiny = numbers(dtype)
    largest = np.finfo(kind).max / 2
    near = [np.linspace(0.5, 2, 10_001), 1 + np.geomspace(eps, 0.1, 200)]
    x = np.concatenate([np.geomspace(tiny, largest, 100_001), *near]).astype(kind)
    found = evaluate(elementary.log, x, dtype=dtype)
    expected = np.log(x.astype(np.longdouble))
    assert float((np.abs(found - expected) / np.maximum(np.abs(expected), tiny)).max()) < 4 * eps
    at_zero = evaluate(elementary.log, np.zeros(1, dtype=kind), dtype=dtype)
    assert at_zero[0] == pytest.approx(np.log(tiny))


def test_log1p(dtype: torch.dtype) -> None:
    kind, eps, _ = numbers(dtype)
    x = np.concatenate([np.geomspace(1e-30, 1e6, 20_001), -np.geomspace(1e-30, 0.9, 20_001)])
    x = x.astype(kind)
    found = evaluate(elementary.log1p, x, dtype=dtype)
    expected = np.log1p(x.astype(np.longdouble))
    assert float(np.abs(found / expected - 1).max()) < 6 * eps


def test_atan2(dtype: torch.dtype) -> None:
    kind, eps, _ = numbers(dtype)
    g = np.random.default_rng(0)
    size = np.exp(g.uniform(-20, 20, 100_000))
    angle = np.concatenate([g.uniform(0, np.pi, 90_000), np.geomspace(1e-9, 1, 10_000)])
    y, x = (size * np.sin(angle)).astype(kind), (size * np.cos(angle)).astype(kind)
    found = evaluate(elementary.atan2, y, x, dtype=dtype)
    expected = np.arctan2(y.astype(np.longdouble), x.astype(np.longdouble))
    assert float(np.abs(found / expected - 1).max()) < 4 * eps
    ends = np.array([0.0, 0.0, 1.0], dtype=kind), np.array([2.0, -2.0, 0.0], dtype=kind)
    assert np.allclose(evaluate(elementary.atan2, *ends, dtype=dtype), [0, np.pi, np.pi / 2])
