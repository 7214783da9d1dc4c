"""Renderers with the arguments and conventions of GenDR and SoftRas.

Use them to compare results, and to move code over. The formulas are those of GenDR (Petersen et
al., CVPR 2022) and SoftRas (Liu et al., ICCV 2019). They differ from this package's conventions:

* front faces are clockwise in NDC;
* outside a triangle, barycentric coordinates are clipped to [0, 1] and renormalised;
* colour is not perspective-correct;
* what near, far and culling drop from colour stays in alpha;
* the background weighs exp(2 eps / gamma);
* at a face's first or second corner, the texel read is one cell too far: the next row's, or the
  next face's first;
* fragments farther outside than sqrt(dist_eps * dist_scale) are dropped (that distance is fixed
  here when the renderer is made), and in GenDR those with F <= 1e-6.

Two things differ on purpose. GenDR evaluates the gamma distribution by a series of 32 terms, cut at
15 scales (an error of 1e-4 in F from 12 scales on); here it is exact. Derivatives are exact here,
where the published kernels approximate some.
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
_WITH_P = ("hamacher", "frank", "yager", "aczel_alsina", "dombi", "schweizer_sklar")
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
    """A renderer that gives the images of GenDR (Petersen et al., CVPR 2022).

    The arguments are those of ``gendr.GenDR``, with its defaults. Images are (B, H, W, 4), where
    GenDR's are (B, 4, H, W). Pass a tensor of attributes for ``texture_type="vertex"``, and a
    `SurfaceTexture` for ``"surface"``. ``face_vertices`` mean the same as GenDR's.

    Raises:
        TypeError, ValueError: for an unknown name, or a number out of range.

    Example:
        >>> renderer = tr.published.gendr(64, dist_func="logistic", dist_scale=0.01)
        >>> rgba = renderer(face_vertices, face_colours)  # (B, 64, 64, 4)
    """
    if aggr_rgb_func not in _DEPTHS:
        raise ValueError(f"aggr_rgb_func: unknown {aggr_rgb_func!r}; known: {', '.join(_DEPTHS)}")
    if checks.number("dist_eps", dist_eps) < 1:
        raise ValueError(f"dist_eps: expected at least 1, got {dist_eps}")
    name = _ALIASES.get(dist_func, dist_func)
    edge = Distribution(
        name,
        dist_scale,
        dist_squared,
        shape=dist_shape if name in ("gamma", "gamma_rev") else None,
        shift=dist_shift if dist_shift is not None and name in _SHIFTED else 0.0,
    )
    return SoftRasterizer(
        image_size,
        edge,
        _depth(aggr_rgb_func, aggr_rgb_gamma, aggr_rgb_eps),
        TConorm(aggr_alpha_func, aggr_alpha_t_conorm_p if aggr_alpha_func in _WITH_P else None),
        background=background_color,
        near=near,
        far=far,
        cull_backfaces=not double_side,
        antialias=2 if anti_aliasing else 1,
        threshold=1e-6,
        cutoff=math.sqrt(dist_eps * _largest(dist_scale)),
        **_CONVENTIONS,
    )


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
    """A renderer that gives the images of SoftRas (Liu et al., ICCV 2019).

    The arguments are those of ``soft_renderer.SoftRenderer``, in its order and with its defaults.
    Images are (B, H, W, 4), where SoftRas' are (B, 4, H, W). F = sigmoid(sign(d) d^2 / sigma_val),
    cut where d^2 outside reaches log(1 / dist_eps - 1) * sigma_val. With ``dist_func="hard"``, F is
    1 inside and 0 outside. SoftRas' barycentric distance, and its alpha by ``"sum"`` (the mean of F
    over all faces), are not available.

    Raises:
        TypeError, ValueError: for an unknown name, or a number out of range.

    Example:
        >>> renderer = tr.published.softras(64, sigma_val=1e-4)
        >>> alpha = renderer.silhouette(face_vertices)  # (B, 64, 64)
    """
    edges = {
        "euclidean": lambda: Distribution("logistic", sigma_val, squared=True),
        "hard": lambda: Distribution("heaviside", sigma_val),
    }
    alphas = {"prod": "probabilistic", "hard": "hard"}
    for name, value, known in (
        ("dist_func", dist_func, edges),
        ("aggr_func_alpha", aggr_func_alpha, alphas),
        ("aggr_func_rgb", aggr_func_rgb, _DEPTHS),
    ):
        if value not in known:
            raise ValueError(f"{name}: unknown {value!r}; known: {', '.join(known)}")
    if not 0 < checks.number("dist_eps", dist_eps) < 0.5:
        raise ValueError(f"dist_eps: expected a number in (0, 1/2), got {dist_eps}")
    return SoftRasterizer(
        image_size,
        edges[dist_func](),
        _depth(aggr_func_rgb, gamma_val, eps),
        TConorm(alphas[aggr_func_alpha]),
        background=background_color,
        near=near,
        far=far,
        cull_backfaces=not fill_back,
        antialias=2 if anti_aliasing else 1,
        threshold=0.0,  # SoftRas drops no fragment for a small F
        cutoff=math.sqrt(math.log(1 / dist_eps - 1) * _largest(sigma_val)),
        **_CONVENTIONS,
    )


def _depth(name: str, gamma: float | Tensor, eps: float) -> DepthSoftness:
    return HardDepth() if name == "hard" else SoftmaxDepth(gamma, 2 * eps)


def _largest(scale: float | Tensor) -> float:
    return float(checks.array("scale", scale, torch.float64).detach().max())
