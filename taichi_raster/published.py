"""Renderers with the conventions of the published ones, under the names of their arguments.

For results to compare, and for moving code over. The formulas are those of GenDR (Petersen et al.,
CVPR 2022) and SoftRas (Liu et al., ICCV 2019); what differs from this package's own conventions:

* front faces are clockwise in NDC;
* outside a triangle, barycentric coordinates are clipped to [0, 1] and renormalised;
* colour is not perspective-correct;
* what near, far and culling take from colour stays in alpha;
* the background weighs exp(2 eps / gamma);
* fragments farther outside than sqrt(dist_eps * dist_scale) are dropped, and those with F <= 1e-6.

GenDR takes the gamma distribution from a series of 32 terms cut at 15 scales; here it is exact.
Derivatives are exact here, where the published kernels approximate some.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor

from taichi_raster.aggregation import TConorm
from taichi_raster.depth import HardDepth, SoftmaxDepth
from taichi_raster.rasterizer import SoftRasterizer
from taichi_raster.softness.edge import Distribution

_ALIASES = {"hard": "heaviside", "hyperbolic_secant": "gudermannian"}
_SHIFTED = ("gamma", "gamma_rev", "levy", "levy_rev", "exponential", "exponential_rev")
_THRESHOLD = 1e-6


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
    if aggr_rgb_func not in ("softmax", "hard"):
        raise ValueError(f"aggr_rgb_func: unknown {aggr_rgb_func!r}; known: softmax, hard")
    if dist_eps < 1:
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
    scale = float(torch.as_tensor(dist_scale).detach().max())
    return SoftRasterizer(
        image_size, edge,
        HardDepth() if aggr_rgb_func == "hard" else SoftmaxDepth(aggr_rgb_gamma, 2 * aggr_rgb_eps),
        TConorm(aggr_alpha_func, aggr_alpha_t_conorm_p if has_p else None),
        background=background_color, near=near, far=far, cull_backfaces=not double_side,
        perspective_correct=False, antialias=2 if anti_aliasing else 1, threshold=_THRESHOLD,
        cutoff=math.sqrt(dist_eps * scale), front="cw", barycentrics="clipped",
        unclipped_alpha=True,
    )  # fmt: skip


def softras(
    image_size: int = 256,
    background_color: Sequence[float] | Tensor = (0.0, 0.0, 0.0),
    anti_aliasing: bool = False,
    sigma_val: float | Tensor = 1e-5,
    dist_eps: float = 1e-4,
    gamma_val: float | Tensor = 1e-4,
    aggr_func_rgb: str = "softmax",
    aggr_func_alpha: str = "prod",
    eps: float = 1e-3,
    near: float = 1.0,
    far: float = 100.0,
    fill_back: bool = True,
) -> SoftRasterizer:
    """A renderer that gives SoftRas' pictures with its Euclidean distance, (B, H, W, 4).

    The arguments are those of ``soft_renderer.SoftRenderer``: F = sigmoid(sign(d) d^2 / sigma_val),
    cut where d^2 reaches log(1 / dist_eps - 1) * sigma_val.

    Raises:
        ValueError: for a name that is not known, or a number out of range.
    """
    alphas = {"prod": "probabilistic", "hard": "hard", "max": "max"}
    if aggr_func_alpha not in alphas:
        raise ValueError(
            f"aggr_func_alpha: unknown {aggr_func_alpha!r}; known: {', '.join(alphas)}"
        )
    if not 0 < dist_eps < 0.5:
        raise ValueError(f"dist_eps: expected a number in (0, 1/2), got {dist_eps}")
    return gendr(
        image_size, background_color, anti_aliasing, "logistic", sigma_val, True,
        dist_eps=max(math.log(1 / dist_eps - 1), 1.0), aggr_alpha_func=alphas[aggr_func_alpha],
        aggr_rgb_func=aggr_func_rgb, aggr_rgb_eps=eps, aggr_rgb_gamma=gamma_val, near=near,
        far=far, double_side=fill_back,
    )  # fmt: skip
