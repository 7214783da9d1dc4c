"""The oracles of every mode against scipy, closed forms, torch's own sampling and differences."""

from __future__ import annotations

import itertools
import math

import numpy as np
import pytest
import scipy.stats
import torch
from torch import Tensor

import twin_conorms
import twin_softness
import twin_textures
from modes import CONORMS

pytestmark = pytest.mark.runs_on(arch="cpu", precision="f64")
F64 = torch.float64
SHAPE = 1.7
SCIPY = {
    "uniform": scipy.stats.uniform(-1, 2),
    "wigner_semicircle": scipy.stats.semicircular(),
    "gaussian": scipy.stats.norm(),
    "laplace": scipy.stats.laplace(),
    "logistic": scipy.stats.logistic(),
    "gudermannian": scipy.stats.hypsecant(),
    "cauchy": scipy.stats.cauchy(),
    "gumbel_max": scipy.stats.gumbel_r(),
    "gumbel_min": scipy.stats.gumbel_l(),
    "exponential": scipy.stats.expon(),
    "gamma": scipy.stats.gamma(SHAPE),
    "levy": scipy.stats.levy(),
    "levy_rev": scipy.stats.levy_l(),
    "cubic_hermite": scipy.stats.beta(2, 2, loc=-1, scale=2),  # density ~ (1 + x) (1 - x)
}
NAMES = sorted([*twin_softness.EDGES, *twin_softness.SHAPED])
POINTS = torch.linspace(-9.3, 9.3, 63, dtype=F64)


@pytest.mark.parametrize("name", SCIPY)
def test_distributions_are_scipys(name: str) -> None:
    log_f, log_s = twin_softness.edge(name, SHAPE)(POINTS)
    expected = SCIPY[name]
    np.testing.assert_allclose(log_f.exp(), expected.cdf(POINTS), rtol=1e-11, atol=1e-15)
    np.testing.assert_allclose(log_s.exp(), expected.sf(POINTS), rtol=1e-10, atol=1e-14)


@pytest.mark.parametrize("name", ["gamma", "exponential", "levy"])
def test_the_reversed_ones_mirror(name: str) -> None:
    log_f, log_s = twin_softness.edge(f"{name}_rev", SHAPE)(POINTS)
    mirrored = twin_softness.edge(name, SHAPE)(-POINTS)
    assert torch.equal(log_f, mirrored[1]) and torch.equal(log_s, mirrored[0])


@pytest.mark.parametrize("name", [name for name in NAMES if name != "heaviside"])
def test_distributions_differentiate_twice(name: str) -> None:
    shape = torch.tensor(SHAPE, dtype=F64, requires_grad=True)
    x = torch.tensor([-2.5, -0.7, -0.2, 0.3, 0.8, 2.6], dtype=F64, requires_grad=True)

    def both(x: Tensor, shape: Tensor) -> Tensor:
        log_f, log_s = twin_softness.edge(name, shape)(x)
        return torch.cat([log_f.exp(), log_s.exp()])

    assert torch.autograd.gradcheck(both, (x, shape))
    assert torch.autograd.gradgradcheck(both, (x, shape))


PAIRS = list(itertools.product((1e-12, 0.1, 0.45, 0.9, 1 - 1e-9), repeat=2))


def cover(values: tuple[float, ...]) -> list[twin_conorms.Cover]:
    a = [torch.tensor(v, dtype=F64) for v in values]
    return [(v, 1 - v) for v in a]


@pytest.mark.parametrize("name", CONORMS)
def test_conorms_are_commutative_and_associative_with_a_neutral_zero(name: str) -> None:
    conorm, p = twin_conorms.CONORMS[name], torch.tensor(CONORMS[name] or 1.0, dtype=F64)
    zero = torch.tensor(0.0, dtype=F64), torch.tensor(1.0, dtype=F64)
    for a, b in PAIRS:
        x, y, z = cover((a, b, 0.3))
        one, other = conorm(x, y, p), conorm(y, x, p)
        torch.testing.assert_close(one, other, rtol=0, atol=1e-14)
        torch.testing.assert_close(one[0] + one[1], torch.tensor(1.0, dtype=F64))
        torch.testing.assert_close(
            conorm(one, z, p)[0], conorm(x, conorm(y, z, p), p)[0], rtol=0, atol=1e-7
        )
        torch.testing.assert_close(conorm(x, zero, p)[0], x[0], rtol=0, atol=1e-9)
        assert float(one[0]) >= max(a, b) - 1e-9  # max is the smallest of all


def test_conorms_meet_where_the_literature_says() -> None:
    """Hamacher at 1 and 2, Frank and Aczel-Alsina at 1, Dombi at 1; Yager at 1."""
    p = {v: torch.tensor(v, dtype=F64) for v in (0.0, 1.0, 2.0, 1 + 1e-7)}
    of = twin_conorms.CONORMS
    for a, b in PAIRS:
        x, y = cover((a, b))
        for name, at, same, at_same in [
            ("hamacher", 1.0, "probabilistic", 0.0),
            ("hamacher", 2.0, "einstein", 0.0),
            ("aczel_alsina", 1.0, "probabilistic", 0.0),
            ("dombi", 1.0, "hamacher", 0.0),
            ("frank", 1 + 1e-7, "probabilistic", 0.0),
        ]:
            torch.testing.assert_close(
                of[name](x, y, p[at])[0], of[same](x, y, p[at_same])[0], rtol=0, atol=1e-7
            )
        assert math.isclose(float(of["yager"](x, y, p[1.0])[0]), min(1, a + b), abs_tol=1e-12)


def test_bilinear_is_torchs_grid_sample() -> None:
    g = torch.Generator().manual_seed(0)
    image = torch.rand(2, 4, 5, 3, generator=g, dtype=F64)
    uv = torch.rand(2, 6, 7, 1, 2, generator=g, dtype=F64) * 3 - 1
    grid = torch.stack([2 * uv[..., 0] - 1, 1 - 2 * uv[..., 1]], -1).squeeze(3)
    expected = torch.nn.functional.grid_sample(
        image.permute(0, 3, 1, 2), grid, padding_mode="border", align_corners=False
    ).permute(0, 2, 3, 1)
    found = twin_textures.bilinear(image, uv, "clamp").squeeze(3)
    torch.testing.assert_close(found, expected)
    wide = torch.nn.functional.grid_sample(  # five images side by side: uv stays in the middle ones
        image.tile(1, 5, 5, 1).permute(0, 3, 1, 2), grid / 5, align_corners=False
    ).permute(0, 2, 3, 1)
    torch.testing.assert_close(twin_textures.bilinear(image, uv, "repeat").squeeze(3), wide)


def test_flat_texels_are_equal_parts_of_the_face() -> None:
    """Random points fall into each of the R * R with probability 1 / R^2, upright or not."""
    r, count = 4, 40_000
    w = -torch.rand(count, 3, generator=torch.Generator().manual_seed(0), dtype=F64).log()
    w = w / w.sum(-1, keepdim=True)  # uniform over the triangle
    chosen = twin_textures.surface(
        torch.arange(r * r, dtype=F64).view(1, 1, r, r, 1), w.view(1, 1, count, 1, 3)
    )
    share = torch.bincount(chosen.flatten().long(), minlength=r * r) / count
    assert float((share - 1 / r**2).abs().max()) < 5 * math.sqrt(1 / r**2 / count)
