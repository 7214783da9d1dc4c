"""`published.softras` is SoftRas in its edge cases; alpha keeps what colour loses, as published."""

from __future__ import annotations

import inspect
import math
from typing import Any

import numpy as np
import pytest
import torch

import published_twin
import taichi_raster as tr
from published_twin import DEFAULTS, scene

pytestmark = pytest.mark.runs_on(arch="cpu", precision="f64")


def picture(renderer: tr.SoftRasterizer, faces: np.ndarray, colours: np.ndarray) -> np.ndarray:
    """(4, H, W)."""
    image = renderer(torch.from_numpy(faces)[None], torch.from_numpy(colours)[None])
    return image[0].permute(2, 0, 1).numpy()


def test_softras_cuts_where_it_says_however_large_dist_eps_is() -> None:
    faces, colours = scene(0, "vertex")
    options = {
        **DEFAULTS,
        "dist_scale": 0.02,
        "dist_squared": True,
        "double_side": True,
        "dist_eps": math.log(1 / 0.4 - 1),
        "background_color": [0, 0, 0],
        "aggr_rgb_gamma": 0.05,
    }
    expected = published_twin.render(faces, colours, options, "vertex")
    renderer = tr.published.softras(
        16, sigma_val=0.02, gamma_val=0.05, dist_eps=0.4, near=1.5, far=6.0
    )
    np.testing.assert_allclose(picture(renderer, faces, colours), expected, rtol=0, atol=1e-6)


def test_softras_keeps_small_coverages_up_to_its_cut() -> None:
    # A half plane x < -0.5: at x the distance outside is x + 0.5.
    faces = torch.tensor([[[[-9.0, -9, 2], [-0.5, 0, 2], [-9, 9, 2]]]], dtype=torch.float64)
    faces[0, 0, :, 0] = torch.tensor([-0.5, -0.5, -9.0])
    faces[0, 0, :, 1] = torch.tensor([-9.0, 9.0, 0.0])
    sigma, n = 0.02, 16
    renderer = tr.published.softras(n, sigma_val=sigma, dist_eps=1e-12)
    row = renderer.silhouette(faces)[0, n // 2]
    x = (2 * torch.arange(n, dtype=torch.float64) + 1 - n) / n
    d = x + 0.5
    expected = torch.sigmoid(-d * d.abs() / sigma)
    expected[d * d.abs() >= math.log(1e12) * sigma] = 0
    assert bool(((expected > 0) & (expected < 1e-6)).any())
    torch.testing.assert_close(row, expected, rtol=1e-6, atol=1e-15)


def test_softras_knows_a_hard_distance_and_names_what_it_does_not_offer() -> None:
    faces, colours = scene(1, "vertex")
    options = {
        **DEFAULTS,
        "dist_func": "hard",
        "double_side": True,
        "background_color": [0, 0, 0],
        "aggr_rgb_func": "hard",
    }
    expected = published_twin.render(faces, colours, options, "vertex")
    renderer = tr.published.softras(16, dist_func="hard", aggr_func_rgb="hard", near=1.5, far=6.0)
    np.testing.assert_allclose(picture(renderer, faces, colours), expected, rtol=0, atol=1e-12)
    for name, value in [
        ("dist_func", "barycentric"),
        ("aggr_func_alpha", "sum"),
        ("aggr_func_rgb", "mean"),
    ]:
        wrong: dict[str, Any] = {name: value}
        with pytest.raises(ValueError, match=f"^{name}: unknown '{value}'; known: "):
            tr.published.softras(16, **wrong)


def test_arguments_come_in_the_order_of_the_published_constructors() -> None:
    """``SoftRenderer.__init__`` and ``GenDR.__init__``, up to what is not here (texture_type)."""
    assert list(inspect.signature(tr.published.softras).parameters) == [
        "image_size",
        "background_color",
        "near",
        "far",
        "anti_aliasing",
        "fill_back",
        "eps",
        "sigma_val",
        "dist_func",
        "dist_eps",
        "gamma_val",
        "aggr_func_rgb",
        "aggr_func_alpha",
    ]
    assert list(inspect.signature(tr.published.gendr).parameters) == [
        "image_size",
        "background_color",
        "anti_aliasing",
        "dist_func",
        "dist_scale",
        "dist_squared",
        "dist_shape",
        "dist_shift",
        "dist_eps",
        "aggr_alpha_func",
        "aggr_alpha_t_conorm_p",
        "aggr_rgb_func",
        "aggr_rgb_eps",
        "aggr_rgb_gamma",
        "near",
        "far",
        "double_side",
    ]


@pytest.mark.parametrize(
    "change", ["all too near", "all too far", "behind the eye", "through the eye"]
)
def test_alpha_does_not_ask_where_a_face_lies_in_depth(change: str) -> None:
    """GenDR joins alpha before it looks at depth."""
    faces, colours = scene(3, "vertex")
    if change == "all too near":
        faces[..., 2] = 0.5
    elif change == "all too far":
        faces[..., 2] += 10
    elif change == "behind the eye":
        faces[:2, :, 2] *= -1
    else:
        faces[1, 0, 2] *= -1
    expected = published_twin.render(faces, colours, DEFAULTS, "vertex")
    found = picture(tr.published.gendr(**DEFAULTS), faces, colours)
    np.testing.assert_allclose(found, expected, rtol=0, atol=1e-6)
