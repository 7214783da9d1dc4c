"""`published.gendr` gives the pictures of GenDR's conventions to 1e-6, in float64."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch

import published_twin
import taichi_raster as tr
from published_twin import DEFAULTS, scene

pytestmark = pytest.mark.runs_on(arch="cpu", precision="f64")

NAMES = [
    "heaviside",
    "uniform",
    "cubic_hermite",
    "wigner_semicircle",
    "gaussian",
    "laplace",
    "logistic",
    "gudermannian",
    "cauchy",
    "reciprocal",
    "gumbel_max",
    "gumbel_min",
    "exponential",
    "exponential_rev",
    "gamma",
    "gamma_rev",
    "levy",
    "levy_rev",
]
CASES: list[dict[str, Any]] = [dict(dist_func=name) for name in NAMES]
CASES += [dict(dist_func=name, dist_squared=True, dist_scale=0.01) for name in NAMES[4:8]]
CASES += [
    dict(dist_func="exponential", dist_shift=1.5),
    dict(dist_func="levy_rev", dist_shift=0.7),
    dict(dist_func="gamma", dist_shift=2.0),
    dict(dist_eps=4.0),
    dict(double_side=True),
    dict(aggr_rgb_func="hard"),
    dict(aggr_rgb_func="hard", double_side=True, dist_func="gaussian"),
    dict(aggr_rgb_gamma=1e-3, dist_scale=0.01),
    dict(aggr_rgb_eps=0.3, aggr_rgb_gamma=0.1),
    dict(dist_func="uniform", dist_scale=0.3, dist_squared=True, dist_eps=1.0),
]
CASES += [
    dict(aggr_alpha_func=name, aggr_alpha_t_conorm_p=p)
    for name, p in [
        ("hard", None),
        ("max", None),
        ("einstein", None),
        ("hamacher", 0.0),
        ("hamacher", 2.5),
        ("frank", 0.1),
        ("frank", 20.0),
        ("yager", 0.7),
        ("yager", 3.0),
        ("aczel_alsina", 0.6),
        ("aczel_alsina", 2.0),
        ("dombi", 0.6),
        ("dombi", 3.0),
        ("schweizer_sklar", -0.5),
        ("schweizer_sklar", -3.0),
    ]
]


@pytest.mark.parametrize("case", CASES, ids=str)
def test_pictures_are_gendrs(case: dict[str, Any]) -> None:
    options = {**DEFAULTS, **case}
    if options["dist_func"].startswith("gamma"):
        options["dist_shape"] = 2.0
    renderer = tr.published.gendr(**options)
    scenes = [(0, "vertex"), (1, "vertex")]
    if "aggr_alpha_func" not in case and options["dist_func"] in ("logistic", "gaussian"):
        scenes.append((2, "surface"))  # coverages do not depend on where colours come from
    for seed, kind in scenes:
        faces, textures = scene(seed, kind)
        expected = published_twin.render(faces, textures, options, kind)
        given = torch.from_numpy(textures)[None]
        attributes = tr.SurfaceTexture(given.view(1, 6, 3, 3, 3)) if kind == "surface" else given
        found = renderer(torch.from_numpy(faces)[None], attributes)[0].permute(2, 0, 1).numpy()
        np.testing.assert_allclose(found, expected, rtol=0, atol=1e-6)
        assert np.ptp(expected[3]) > 0.05


def test_antialiasing_averages_two_by_two() -> None:
    faces, textures = scene(0, "vertex")
    large = published_twin.render(faces, textures, {**DEFAULTS, "image_size": 32}, "vertex")
    expected = large.reshape(4, 16, 2, 16, 2).mean((2, 4))
    renderer = tr.published.gendr(**DEFAULTS, anti_aliasing=True)
    found = renderer(torch.from_numpy(faces)[None], torch.from_numpy(textures)[None])[0]
    np.testing.assert_allclose(found.permute(2, 0, 1).numpy(), expected, rtol=0, atol=1e-6)


def test_softras_is_gendr_with_a_squared_logistic() -> None:
    faces, textures = scene(0, "vertex")
    cut = float(np.log(1 / 1e-4 - 1))
    options = {
        **DEFAULTS,
        "dist_scale": 1e-3,
        "dist_squared": True,
        "dist_eps": cut,
        "background_color": [0, 0, 0],
        "double_side": True,
        "aggr_rgb_gamma": 1e-3,
        "near": 1.0,
    }
    expected = published_twin.render(faces, textures, options, "vertex")
    renderer = tr.published.softras(16, sigma_val=1e-3, gamma_val=1e-3, near=1.0, far=6.0)
    found = renderer(torch.from_numpy(faces)[None], torch.from_numpy(textures)[None])[0]
    np.testing.assert_allclose(found.permute(2, 0, 1).numpy(), expected, rtol=0, atol=1e-6)


@pytest.mark.parametrize(
    ("options", "name"),
    [
        ({"aggr_rgb_func": "mean"}, "aggr_rgb_func"),
        ({"dist_eps": 0.5}, "dist_eps"),
        ({"dist_func": "normal"}, "unknown distribution"),
        ({"dist_func": "gamma"}, "shape"),
        ({"aggr_alpha_func": "sum"}, "unknown T-conorm"),
        ({"aggr_alpha_func": "yager"}, "p: "),
    ],
)
def test_bad_arguments_are_named(options: dict[str, Any], name: str) -> None:
    with pytest.raises(ValueError, match=name):
        tr.published.gendr(**options)
