"""Renderers with the conventions of the published ones, under the names of their arguments.

For results to compare, and for moving code over. The formulas are those of GenDR (Petersen et al.,
CVPR 2022) and SoftRas (Liu et al., ICCV 2019); what differs from this package's own conventions:

* front faces are clockwise in NDC;
* outside a triangle, barycentric coordinates are clipped to [0, 1] and renormalised;
* colour is not perspective-correct;
* what near, far and culling take from colour stays in alpha;
* the background weighs exp(2 eps / gamma);
* a pixel that sees a face's first or second corner reads one texel cell too far: the next row, or
  the next face's first texel;
* fragments farther outside than sqrt(dist_eps * dist_scale) are dropped (that distance is fixed
  here when the renderer is made), and in GenDR those with F <= 1e-6.

What does not agree, on purpose: GenDR takes the gamma distribution from a series of 32 terms cut at
15 scales (1e-4 of F for gamma from 12 scales on); here it is exact.
Derivatives are exact here, where the published kernels approximate some.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from taichi_raster import checks
from taichi_raster.depth.base import DepthSoftness
from taichi_raster.depth.hard import HardDepth
from taichi_raster.depth.softmax import SoftmaxDepth
from taichi_raster.render.soft import SoftRasterizer
from taichi_raster.softness.conorm import TConorm
from taichi_raster.softness.edge import Distribution

_ALIASES = {"hard": "heaviside", "hyperbolic_secant": "gudermannian"}
_SHIFTED = ("gamma", "gamma_rev", "levy", "levy_rev", "exponential", "exponential_rev")
_DEPTHS = ("softmax", "hard")
_CONVENTIONS: dict[str, Any] = dict(
    perspective_correct=False, front="cw", barycentrics="clipped", unclipped_alpha=True
)


def gendr(
    image_size: int = 256,
    background_color: Sequence[float] | Tensor = (0.0, 0.0, 0.0),
    anti_aliasing: bool = False,
    dist_func: str = "uniform",
    dist_scale: float | Tensor = 1e-2,
    dist_squared: bool = False,
    dist_shape: float | Tensor | None = None,
    dist_shift: float | Tensor | None = None,
    dist_eps: float = 1e4,
    aggr_alpha_func: str = "probabilistic",
    aggr_alpha_t_conorm_p: float | Tensor | None = None,
    aggr_rgb_func: str = "softmax",
    aggr_rgb_eps: float = 1e-3,
    aggr_rgb_gamma: float | Tensor = 1e-3,
    near: float = 1.0,
    far: float = 100.0,
    double_side: bool = False,
) -> SoftRasterizer:
    """A renderer that gives GenDR's pictures, (B, H, W, 4) where GenDR gives (B, 4, H, W).

    The arguments are those of ``gendr.GenDR``, with its defaults. ``texture_type="vertex"`` is a
    tensor of attributes, ``"surface"`` a `SurfaceTexture`. GenDR's ``face_vertices`` have the
    meaning of ours.

    Raises:
        ValueError: for a name that is not known, or a number out of range.
    """
    if aggr_rgb_func not in _DEPTHS:
        raise ValueError(f"aggr_rgb_func: unknown {aggr_rgb_func!r}; known: {', '.join(_DEPTHS)}")
    if checks.number("dist_eps", dist_eps) < 1:
        raise ValueError(f"dist_eps: expected at least 1, got {dist_eps}")
    name = _ALIASES.get(dist_func, dist_func)
    edge = Distribution(
        name, dist_scale, dist_squared,
        shape=dist_shape if name in ("gamma", "gamma_rev") else None,
        shift=dist_shift if dist_shift is not None and name in _SHIFTED else 0.0,
    )  # fmt: skip
    has_p = aggr_alpha_func in (
        "hamacher", "frank", "yager", "aczel_alsina", "dombi", "schweizer_sklar",
    )  # fmt: skip
    return SoftRasterizer(
        image_size, edge, _depth(aggr_rgb_func, aggr_rgb_gamma, aggr_rgb_eps),
        TConorm(aggr_alpha_func, aggr_alpha_t_conorm_p if has_p else None),
        background=background_color, near=near, far=far, cull_backfaces=not double_side,
        antialias=2 if anti_aliasing else 1, threshold=1e-6,
        cutoff=math.sqrt(dist_eps * _largest(dist_scale)), **_CONVENTIONS,
    )  # fmt: skip


def softras(
    image_size: int = 256,
    background_color: Sequence[float] | Tensor = (0.0, 0.0, 0.0),
    near: float = 1.0,
    far: float = 100.0,
    anti_aliasing: bool = False,
    fill_back: bool = True,
    eps: float = 1e-3,
    sigma_val: float | Tensor = 1e-5,
    dist_func: str = "euclidean",
    dist_eps: float = 1e-4,
    gamma_val: float | Tensor = 1e-4,
    aggr_func_rgb: str = "softmax",
    aggr_func_alpha: str = "prod",
) -> SoftRasterizer:
    """A renderer that gives SoftRas' pictures, (B, H, W, 4) where SoftRas gives (B, 4, H, W).

    The arguments are those of ``soft_renderer.SoftRenderer``, in its order and with its defaults:
    F = sigmoid(sign(d) d^2 / sigma_val), cut where d^2 outside reaches
    log(1 / dist_eps - 1) * sigma_val, or, with ``dist_func="hard"``, inside or not. Its barycentric
    distance and its alpha by ``"sum"`` (the mean of F over all faces) are not offered.

    Raises:
        ValueError: for a name that is not known, or a number out of range.
    """
    edges = {
        "euclidean": lambda: Distribution("logistic", sigma_val, squared=True),
        "hard": lambda: Distribution("heaviside", sigma_val),
    }
    alphas = {"prod": "probabilistic", "hard": "hard"}
    for name, value, known in (
        ("dist_func", dist_func, edges), ("aggr_func_alpha", aggr_func_alpha, alphas),
        ("aggr_func_rgb", aggr_func_rgb, _DEPTHS),
    ):  # fmt: skip
        if value not in known:
            raise ValueError(f"{name}: unknown {value!r}; known: {', '.join(known)}")
    if not 0 < checks.number("dist_eps", dist_eps) < 0.5:
        raise ValueError(f"dist_eps: expected a number in (0, 1/2), got {dist_eps}")
    return SoftRasterizer(
        image_size, edges[dist_func](), _depth(aggr_func_rgb, gamma_val, eps),
        TConorm(alphas[aggr_func_alpha]), background=background_color, near=near, far=far,
        cull_backfaces=not fill_back, antialias=2 if anti_aliasing else 1,
        threshold=0.0,  # SoftRas drops no fragment for a small F
        cutoff=math.sqrt(math.log(1 / dist_eps - 1) * _largest(sigma_val)), **_CONVENTIONS,
    )  # fmt: skip


def _depth(name: str, gamma: float | Tensor, eps: float) -> DepthSoftness:
    return HardDepth() if name == "hard" else SoftmaxDepth(gamma, 2 * eps)


def _largest(scale: float | Tensor) -> float:
    return float(checks.array("scale", scale, torch.float64).detach().max())
