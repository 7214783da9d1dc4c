"""Every distribution's formulas against mpmath and scipy.stats, and their tails in float32."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import mpmath
import numpy as np
import pytest
import scipy.stats
import torch

from taichi_raster.softness.distributions import registry
from taichi_raster.softness.distributions.formulas import formulas_at

mp = mpmath.mp.clone()
mp.dps = 40
Real = Callable[..., Any]


@dataclass(frozen=True)
class Oracle:
    """A distribution written from its definition, in 40 digits, and scipy's name for it."""

    cdf: Real
    survival: Real
    pdf: Real
    scipy: Any = None
    low: float = -math.inf  # the support
    high: float = math.inf


def mirrored(o: Oracle, scipy: Any = None) -> Oracle:
    return Oracle(
        lambda x, *k: o.survival(-x, *k),
        lambda x, *k: o.cdf(-x, *k),
        lambda x, *k: o.pdf(-x, *k),
        scipy,
        -o.high,
        -o.low,
    )


def symmetric(cdf: Real, pdf: Real, scipy: Any = None, edge: float = math.inf) -> Oracle:
    return Oracle(cdf, lambda x: cdf(-x), pdf, scipy, -edge, edge)


def _gudermannian(x: Any) -> Any:
    return 2 / mp.pi * mp.atan(mp.exp(x))


def _wigner(x: Any) -> Any:
    a = mp.acos(-x)
    return (2 * a - mp.sin(2 * a)) / (2 * mp.pi)


GUMBEL = Oracle(
    lambda x: mp.exp(-mp.exp(-x)),
    lambda x: -mp.expm1(-mp.exp(-x)),
    lambda x: mp.exp(-x - mp.exp(-x)),
    scipy.stats.gumbel_r,
)
EXPONENTIAL = Oracle(
    lambda x: -mp.expm1(-x), lambda x: mp.exp(-x), lambda x: mp.exp(-x), scipy.stats.expon, 0.0
)
LEVY = Oracle(
    lambda x: mp.erfc(1 / mp.sqrt(2 * x)),
    lambda x: mp.erf(1 / mp.sqrt(2 * x)),
    lambda x: mp.exp(-1 / (2 * x)) / mp.sqrt(2 * mp.pi * x**3),
    scipy.stats.levy,
    0.0,
)
GAMMA = Oracle(
    lambda x, k: mp.gammainc(k, 0, x, regularized=True),
    lambda x, k: mp.gammainc(k, x, mp.inf, regularized=True),
    lambda x, k: mp.exp((k - 1) * mp.log(x) - x - mp.loggamma(k)),
    scipy.stats.gamma,
    0.0,
)
ORACLES = {
    "uniform": symmetric(
        lambda x: (1 + x) / 2, lambda x: mp.mpf(0.5), scipy.stats.uniform(-1, 2), 1.0
    ),
    "cubic_hermite": symmetric(
        lambda x: ((1 + x) / 2) ** 2 * (2 - x), lambda x: mp.mpf(0.75) * (1 - x * x), None, 1.0
    ),
    "wigner_semicircle": symmetric(
        _wigner, lambda x: 2 / mp.pi * mp.sqrt(1 - x * x), scipy.stats.semicircular, 1.0
    ),
    "gaussian": symmetric(lambda x: mp.erfc(-x / mp.sqrt(2)) / 2, mp.npdf, scipy.stats.norm),
    "laplace": Oracle(
        lambda x: mp.exp(x) / 2 if x < 0 else 1 - mp.exp(-x) / 2,
        lambda x: mp.exp(-x) / 2 if x > 0 else 1 - mp.exp(x) / 2,
        lambda x: mp.exp(-abs(x)) / 2,
        scipy.stats.laplace,
    ),
    "logistic": symmetric(
        lambda x: 1 / (1 + mp.exp(-x)),
        lambda x: mp.exp(-x) / (1 + mp.exp(-x)) ** 2,
        scipy.stats.logistic,
    ),
    "gudermannian": symmetric(_gudermannian, lambda x: mp.sech(x) / mp.pi, scipy.stats.hypsecant),
    "cauchy": symmetric(
        lambda x: mp.atan2(1, -x) / mp.pi, lambda x: 1 / (mp.pi * (1 + x * x)), scipy.stats.cauchy
    ),
    "reciprocal": symmetric(
        lambda x: (1 + x / (1 + abs(x))) / 2, lambda x: 1 / (1 + abs(x)) ** 2 / 2
    ),
    "gumbel_max": GUMBEL,
    "gumbel_min": mirrored(GUMBEL, scipy.stats.gumbel_l),
    "exponential": EXPONENTIAL,
    "exponential_rev": mirrored(EXPONENTIAL),
    "levy": LEVY,
    "levy_rev": mirrored(LEVY, scipy.stats.levy_l),
}
SHAPED = {"gamma": GAMMA, "gamma_rev": mirrored(GAMMA)}
SHAPES = (0.05, 0.5, 1.0, 2.5, 30.0)
F64 = pytest.mark.runs_on(arch="cpu", precision="f64")


def points(o: Oracle) -> list[float]:
    """Inside the support: near its edges, in its middle and far in its tails; not at kinks."""
    if o.high == 1.0:
        size = np.concatenate([[0.0013], np.linspace(0.05, 0.95, 13), 1 - np.logspace(-2, -7, 6)])
    else:
        size = np.concatenate([np.logspace(-3, 1.2, 24), [25.0, 36.0, 300.0]])
    both = [*(-size[::-1]), *size]
    if o.scipy in (scipy.stats.gumbel_r, scipy.stats.gumbel_l):
        both = [x for x in both if abs(x) < 80]  # beyond, F is 0 or 1 in any precision
    return [float(x) for x in both if o.low < x < o.high]


def log_of(value: Any, rest: Any) -> Any:
    """The logarithm of a number, given also what is missing from 1."""
    return mp.log(value) if value < 0.5 else mp.log1p(-rest)


def test_all_eighteen_are_there() -> None:
    assert set(registry.known()) == set(ORACLES) | set(SHAPED) | {"heaviside"}


@F64
@pytest.mark.parametrize("name", ORACLES)
def test_logs_and_density_are_the_definitions_to_1e_10(name: str) -> None:
    o = ORACLES[name]
    x = points(o)
    rows = formulas_at(name, torch.tensor(x, dtype=torch.float64)).tolist()
    for i, at in enumerate(map(mp.mpf, x)):
        f, s, p = o.cdf(at), o.survival(at), o.pdf(at)
        bend = mp.diff(o.pdf, at)
        expected = [
            f,
            p,
            bend,
            log_of(f, s),
            p / f,
            bend / f - (p / f) ** 2,
            log_of(s, f),
            -p / s,
            -bend / s - (p / s) ** 2,
        ]
        for row, value in enumerate(expected):
            slack = 1e-10 if row % 3 < 2 else 1e-8  # second slopes cancel in the tails
            scale = max(abs(value), abs(expected[row - 1]) if row % 3 == 2 else 0)
            error = abs(mp.mpf(rows[row][i]) - value)
            assert error <= slack * scale + mp.mpf(10) ** -290, (name, x[i], row, rows[row][i])


@F64
@pytest.mark.parametrize("name", [n for n, o in ORACLES.items() if o.scipy is not None])
def test_the_distribution_is_scipys(name: str) -> None:
    o = ORACLES[name]
    x = np.array([p for p in points(o) if abs(p) < 20])
    rows = formulas_at(name, torch.from_numpy(x)).numpy()
    np.testing.assert_allclose(rows[0], o.scipy.cdf(x), rtol=1e-9, atol=1e-14)
    np.testing.assert_allclose(rows[1], o.scipy.pdf(x), rtol=1e-9, atol=1e-15)


@F64
@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("name", SHAPED)
def test_gamma_and_its_derivatives_in_the_shape_are_the_definitions(
    name: str, shape: float
) -> None:
    o = SHAPED[name]
    sign = -1 if name.endswith("_rev") else 1
    sizes = [1e-3, 0.02, 0.3, 1.0, 2.0, 4.04, 4.6, 7.0, 15.0, 33.0, 36.0, 60.0, 300.0]
    x = [sign * size for size in sizes]
    rows = formulas_at(name, torch.tensor(x, dtype=torch.float64), shape).tolist()
    k = mp.mpf(shape)
    for i, at in enumerate(map(mp.mpf, x)):
        far = abs(at) > k + 4
        # The derivative of the tail that has digits.
        small = o.survival if (o is GAMMA) == far else o.cdf
        sign_f = 1 if small is o.cdf else -1

        def f(q: Any, at: Any = at, small: Any = small, sign: int = sign_f) -> Any:
            return sign * small(at, q)

        def log_f(q: Any, at: Any = at, small: Any = small, sign: int = sign_f) -> Any:
            return mp.log(small(at, q)) if sign > 0 else mp.log1p(-small(at, q))

        def log_s(q: Any, at: Any = at, small: Any = small, sign: int = sign_f) -> Any:
            return mp.log(small(at, q)) if sign < 0 else mp.log1p(-small(at, q))

        for j, function in enumerate((f, log_f, log_s)):
            at_k = [mp.diff(function, k, n) for n in range(3)]
            if j == 0:
                at_k[0] = o.cdf(at, k)
            p = o.pdf(at, k)
            slope = [p, p / o.cdf(at, k), -p / o.survival(at, k)][j]
            expected = {0: (at_k[0], 1e-10), 1: (slope, 1e-10)}
            expected |= {3: (at_k[1], 1e-8), 5: (at_k[2], 1e-8)}
            for offset, (value, tolerance) in expected.items():
                # A second derivative may pass through zero: measured against the first there.
                size = max(abs(value), abs(at_k[1]) * 1e-2 if offset == 5 else 0)
                error = abs(mp.mpf(rows[6 * j + offset][i]) - value)
                assert error <= tolerance * size + mp.mpf(10) ** -280, (x[i], j, offset, value)


@F64
@pytest.mark.parametrize("name", SHAPED)
def test_gammas_slopes_are_those_of_its_values(name: str) -> None:
    x = torch.tensor([0.3, 1.7, 3.4, 6.9, 7.1, 12.0], dtype=torch.float64)
    x = -x if name.endswith("_rev") else x
    h, k = 1e-5, 3.0
    rows = formulas_at(name, x, k)
    up, down = formulas_at(name, x + h, k), formulas_at(name, x - h, k)
    more, less = formulas_at(name, x, k + h), formulas_at(name, x, k - h)
    for j in range(3):
        v, v_x, v_xx, v_k, v_kx, v_kk = range(6 * j, 6 * j + 6)
        for value, slope, high, low in [
            (v, v_x, up, down),
            (v_x, v_xx, up, down),
            (v_k, v_kx, up, down),
            (v, v_k, more, less),
            (v_k, v_kk, more, less),
        ]:
            difference = (high[value] - low[value]) / (2 * h)
            torch.testing.assert_close(rows[slope], difference, rtol=1e-6, atol=1e-9)


ALL: list[tuple[str, float | None]] = [(name, None) for name in (*ORACLES, "heaviside")]
ALL += [(name, k) for name in SHAPED for k in (0.3, 1.0, 8.0)]


@pytest.mark.parametrize(("name", "shape"), ALL)
def test_all_is_finite_and_monotone_out_to_ten_thousand_scales(
    name: str, shape: float | None
) -> None:
    size = torch.cat([torch.zeros(1), torch.logspace(-9, 4, 400), torch.tensor([1e5, 1e6])])
    x = torch.cat([-size.flip(0), size])
    rows = formulas_at(name, x, shape)
    assert bool(torch.isfinite(rows).all())
    n = len(rows) // 3
    f, log_f, log_s = rows[0], rows[n], rows[2 * n]
    assert float(f.min()) >= 0 and float(f.max()) <= 1
    step = 4 * torch.finfo(rows.dtype).eps
    assert bool((f.diff() >= -step).all())
    assert bool((log_f.diff() >= -step * (1 + log_f[1:].abs())).all())
    assert bool((log_s.diff() <= step * (1 + log_s[1:].abs())).all())
    assert bool((rows[1] >= 0).all())


@pytest.mark.runs_on(precision="f32")
@pytest.mark.parametrize(
    ("name", "shape"), [case for case in ALL[:-6] if case[0] != "heaviside"] + ALL[-5:-3]
)
def test_float32_agrees_with_the_definitions(name: str, shape: float | None) -> None:
    o = {**ORACLES, **SHAPED}[name]
    x = torch.tensor([p for p in points(o) if abs(p) < 40], dtype=torch.float32)
    rows = formulas_at(name, x, shape)
    n = len(rows) // 3
    k = () if shape is None else (mp.mpf(shape),)
    for i, at in enumerate(mp.mpf(v) for v in x.tolist()):
        expected = [o.cdf(at, *k), o.pdf(at, *k), mp.log(o.cdf(at, *k)), mp.log(o.survival(at, *k))]
        for row, value in zip((0, 1, n, 2 * n), expected, strict=True):
            if row == 2 * n and name.startswith(("uniform", "cubic", "wigner")):
                continue  # 1 - x has lost its digits before F sees it
            # Vulkan promises only 4096 units in the last place of atan2.
            slack = 1e-4 * float(abs(value)) + (2e-6 if row >= n else 1e-30)
            assert abs(float(rows[row, i]) - float(value)) <= slack, (name, float(at), row)


@F64
@pytest.mark.parametrize(("name", "shape"), ALL)
@pytest.mark.parametrize("threshold", [1e-6, 1e-3, 0.2])
def test_reach_is_where_f_falls_to_the_threshold(
    name: str, shape: float | None, threshold: float
) -> None:
    formulas = registry.find(name)
    reach = formulas.reach(threshold, shape) if formulas.shaped else formulas.reach(threshold)
    step = 1e-6 * max(1.0, abs(reach))
    at = formulas_at(name, torch.tensor([-reach - step, -reach + step]).double(), shape)[0]
    assert float(at[0]) <= threshold
    starts = not math.isinf(ORACLES.get(name, GAMMA).low) and ORACLES.get(name, GAMMA).low == 0
    assert float(at[1]) >= threshold or starts or name == "gamma"
