"""The renderer once more, in plain torch: dense, slow, loop-free; the oracle of the kernels' tests.

It is written from the definitions and shares no code with ``taichi_raster``. Every pixel looks at
every face; torch differentiates it as often as wanted, in reverse and forward mode. Run it in
float64.

Shapes: B batch, H x W pixels, F faces, C attribute channels. Per pair tensors are (B, H, W, F).

The two decisions that a soft rasterizer softens (Petersen et al., CVPR 2022; Wu et al., EGSR 2024):

* inside?    ``a = F(d / scale)`` with d the signed Euclidean distance to the triangle's boundary;
* in front?  ``psi = exp(z_norm / gamma)``, ``z_norm = (far - z) / (far - near)``.

``colour = (sum a psi c + psi_bg bg) / (sum a psi + psi_bg)`` is a softmax over ``log a + log psi``,
and ``alpha = 1 - prod (1 - a) = 1 - exp(sum log S)`` with S = 1 - F, the survival function: so an
edge is given as the pair (log F, log S).
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

Edge = Callable[[Tensor], tuple[Tensor, Tensor]]
"""x = d / scale, (B, H, W, F), to (log F(x), log S(x)); -inf where F or S is exactly 0."""


# --- edges ----------------------------------------------------------------------------------------


def log_or_minus_inf(v: Tensor) -> Tensor:
    """log v, and -inf with zero gradient where v <= 0."""
    positive = v > 0
    return torch.where(positive, torch.log(torch.where(positive, v, 1.0)), -math.inf)


def logistic(x: Tensor) -> tuple[Tensor, Tensor]:
    """F(x) = 1 / (1 + exp(-x))."""
    return torch.nn.functional.logsigmoid(x), torch.nn.functional.logsigmoid(-x)


def gaussian(x: Tensor) -> tuple[Tensor, Tensor]:
    """F(x) = Phi(x), the standard normal distribution function."""
    return torch.special.log_ndtr(x), torch.special.log_ndtr(-x)


def uniform(x: Tensor) -> tuple[Tensor, Tensor]:
    """F(x) = (x + 1) / 2 on [-1, 1]: the finite support that saturates."""
    return log_or_minus_inf(((1 + x) / 2).clamp(0, 1)), log_or_minus_inf(((1 - x) / 2).clamp(0, 1))


DISTRIBUTIONS: dict[str, Edge] = {"logistic": logistic, "gaussian": gaussian, "uniform": uniform}


def network(
    weights: Tensor,
    widths: tuple[int, ...],
    residual: bool = True,
    bias: bool = True,
    asinh: bool = True,
) -> Callable[[Tensor], Tensor]:
    """r(x): tanh layers, the first added to the last before its tanh; x is (B, H, W, F).

    ``weights`` is (P,) or (B, P): for each layer, the output unit's last, the matrix by rows (one
    row a unit), then the biases.
    """
    weights = weights if weights.ndim == 2 else weights[None]
    sizes = (1, *widths, 1)

    def r(x: Tensor) -> Tensor:
        h = (torch.asinh(x) if asinh else x)[..., None]
        first, begin = torch.zeros(()).to(h), 0
        for layer, (inputs, outputs) in enumerate(itertools.pairwise(sizes)):
            end = begin + inputs * outputs
            matrix = weights[:, begin:end].reshape(-1, outputs, inputs)
            h = torch.einsum("boi,bhwfi->bhwfo", matrix, h)
            if bias:
                h = h + weights[:, None, None, None, end : end + outputs]
            begin = end + outputs * bias
            if residual and layer == len(widths) - 1:
                h = h + first
            if layer < len(widths):
                h = torch.tanh(h)
            first = h if layer == 0 else first
        return h[..., 0]

    return r


def mlp(weights: Tensor, widths: tuple[int, ...], **options: bool) -> Edge:
    """F(x) = sigmoid(x + r(x)); options are those of `network`."""
    r = network(weights, widths, **options)
    return lambda x: logistic(x + r(x))


# --- geometry -------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Pairs:
    """What one pixel centre and one triangle say to each other."""

    distance: Tensor  # (B,H,W,F) signed, positive inside
    weights: Tensor  # (B,H,W,F,3) barycentrics of the nearest point of the triangle
    z: Tensor  # (B,H,W,F) perspective-correct depth there
    area: Tensor  # (B,F) twice the signed area; positive is counter-clockwise, the front


def pixel_centres(height: int, width: int, like: Tensor) -> Tensor:
    """(H, W, 2) NDC positions: x right, y up, row 0 on top, in units of half the shorter side."""
    x = (2 * torch.arange(width, dtype=like.dtype) + 1 - width) / min(height, width)
    y = (height - 1 - 2 * torch.arange(height, dtype=like.dtype)) / min(height, width)
    return torch.stack(torch.broadcast_tensors(x[None, :], y[:, None]), -1)


def cross(a: Tensor, b: Tensor) -> Tensor:
    return a[..., 0] * b[..., 1] - a[..., 1] * b[..., 0]


def safe_sqrt(v: Tensor) -> Tensor:
    """The root, with zero gradient at 0."""
    return torch.where(v > 0, torch.sqrt(torch.where(v > 0, v, 1.0)), 0.0)


def nonzero(v: Tensor) -> Tensor:
    return torch.where(v == 0, torch.ones_like(v), v)


def segment_parameter(p: Tensor, a: Tensor, b: Tensor) -> Tensor:
    """Where on the line a -> b its point nearest to p lies; 0 for a segment without length."""
    e = b - a
    return ((p - a) * e).sum(-1) / nonzero((e * e).sum(-1))


def pairs(face_vertices: Tensor, height: int, width: int) -> Pairs:
    p = pixel_centres(height, width, face_vertices)[None, :, :, None, None]  # (1,H,W,1,1,2)
    a = face_vertices[:, None, None, :, :, :2]  # (B,1,1,F,3,2): edge k runs from vertex k ...
    b = a.roll(-1, dims=-2)  # ... to vertex k + 1
    t = segment_parameter(p, a, b).clamp(0, 1)
    residual = p - (a + t[..., None] * (b - a))
    squared = (residual * residual).sum(-1)  # (B,H,W,F,3)
    nearest = squared.argmin(-1, keepdim=True)
    distance = safe_sqrt(squared.gather(-1, nearest).squeeze(-1))
    t = t.gather(-1, nearest)  # (B,H,W,F,1)

    side = cross(b - a, p - a)  # (B,H,W,F,3) twice the signed area opposite to vertex k + 2
    area = cross(a[..., 1, :] - a[..., 0, :], a[..., 2, :] - a[..., 0, :])  # (B,1,1,F)
    inside = (side * area.sign()[..., None] >= 0).all(-1) & (area != 0)

    within = side.roll(-1, dims=-1) / nonzero(area)[..., None]
    start = torch.nn.functional.one_hot(nearest.squeeze(-1), 3).to(t.dtype)
    on_edge = (1 - t) * start + t * start.roll(1, dims=-1)
    weights = torch.where(inside[..., None], within, on_edge)

    z = face_vertices[:, None, None, :, :, 2]
    return Pairs(
        distance=torch.where(inside, distance, -distance),
        weights=weights,
        z=1 / (weights / z.clamp_min(1e-30)).sum(-1),
        area=area[:, 0, 0],
    )


def attributes_at(
    pair: Pairs, face_vertices: Tensor, face_attributes: Tensor, perspective: bool
) -> Tensor:
    """(B,H,W,F,C): interpolated in the image, or on the surface."""
    weights = pair.weights
    if perspective:
        weights = (
            weights / face_vertices[:, None, None, :, :, 2].clamp_min(1e-30) * pair.z[..., None]
        )
    return torch.einsum("bhwfi,bfic->bhwfc", weights, face_attributes)


def kept(
    pair: Pairs, face_vertices: Tensor, near: float, far: float, cull_backfaces: bool
) -> Tensor:
    """(B,H,W,F): neither behind the eye, nor outside [near, far], nor culled."""
    in_front = (face_vertices[..., 2] > 0).all(-1)[:, None, None]
    facing = (pair.area > 0)[:, None, None] if cull_backfaces else torch.ones_like(in_front)
    return (pair.z >= near) & (pair.z <= far) & in_front & facing


# --- the soft renderer ----------------------------------------------------------------------------


@dataclass(frozen=True)
class View:
    """What is not differentiated."""

    image_size: tuple[int, int] = (8, 8)
    near: float = 0.1
    far: float = 100.0
    cull_backfaces: bool = False
    perspective_correct: bool = True
    antialias: int = 1
    threshold: float = 1e-6
    cutoff: float | None = None


def per_instance(v: Tensor | float, like: Tensor, trailing: int) -> Tensor:
    """A scalar or (B,) parameter, shaped to broadcast against B and ``trailing`` axes behind it."""
    v = torch.as_tensor(v, dtype=like.dtype)
    return v.reshape(v.shape + (1,) * trailing) if v.ndim else v


def render(
    face_vertices: Tensor,
    face_attributes: Tensor,
    *,
    edge: Edge,
    scale: Tensor | float,
    gamma: Tensor | float | None,
    background_z: Tensor | float = 2e-3,
    background: Tensor | float = 0.0,
    over: bool = False,
    view: View = View(),
) -> Tensor:
    """(B,F,3,3), (B,F,3,C) -> (B,H,W,C+1). ``gamma=None`` is hard depth, or `composited`."""
    if view.antialias > 1:
        n, (height, width) = view.antialias, view.image_size
        finer = View(**{**vars(view), "image_size": (n * height, n * width), "antialias": 1})
        fine = render(
            face_vertices,
            face_attributes,
            edge=edge,
            scale=scale,
            gamma=gamma,
            background_z=background_z,
            background=background,
            over=over,
            view=finer,
        )
        blocks: Tensor = fine.unflatten(2, (width, n)).unflatten(1, (height, n))
        return blocks.mean((2, 4))

    pair = pairs(face_vertices, *view.image_size)
    log_f, log_s = edge(pair.distance / per_instance(scale, face_vertices, 3))
    alive = kept(pair, face_vertices, view.near, view.far, view.cull_backfaces)
    counts = alive & (log_f > (math.log(view.threshold) if view.threshold > 0 else -math.inf))
    if view.cutoff is not None:
        counts = counts & (pair.distance >= -view.cutoff)

    saturated = counts & (log_s == -math.inf)
    log_survival = torch.where(counts & ~saturated, log_s, 0.0).sum(-1)
    alpha = torch.where(saturated.any(-1), 1.0, -torch.expm1(log_survival))

    c = attributes_at(pair, face_vertices, face_attributes, view.perspective_correct)
    background = torch.as_tensor(background, dtype=c.dtype).expand(c.shape[-1])
    if over:
        coverage = torch.where(counts, log_f, -math.inf).exp()
        shown = composited(pair, coverage, c)
        colour = alpha[..., None] * shown + (1 - alpha[..., None]) * background
    elif gamma is None:
        colour = nearest_inside(pair, counts, c, background)
    else:
        gamma = per_instance(gamma, face_vertices, 3)
        log_psi = (view.far - pair.z) / (view.far - view.near) / gamma
        log_weight = torch.where(counts, log_f + log_psi, -math.inf)
        background_z = per_instance(background_z, face_vertices, 3)
        log_weight_bg = (background_z / gamma).expand(log_weight[..., :1].shape)
        share = torch.softmax(torch.cat([log_weight, log_weight_bg], -1), -1)
        colour = (share[..., :-1, None] * c).sum(-2) + share[..., -1:] * background
    return torch.cat([colour, alpha[..., None]], -1)


def nearest_inside(pair: Pairs, counts: Tensor, c: Tensor, background: Tensor) -> Tensor:
    """Hard depth: (B,H,W,C), the colour of the nearest face that contains the pixel centre."""
    hit = counts & (pair.distance >= 0)
    nearest = torch.where(hit, pair.z, math.inf).argmin(-1)
    colour = c.gather(-2, nearest[..., None, None].expand(*nearest.shape, 1, c.shape[-1])).squeeze(
        -2
    )
    return torch.where(hit.any(-1, keepdim=True), colour, background)


def composited(pair: Pairs, coverage: Tensor, c: Tensor) -> Tensor:
    """(B,H,W,C): the mean of the fragments, in the order of the pixel's depths.

    Each weighs what it adds to what is covered: the sum of the two largest coverages so far of
    faces that show their front, or of those that show their back, whichever is larger; at most 1.
    """
    order = pair.z.argsort(-1)
    a = coverage.gather(-1, order)
    front = (pair.area > 0)[:, None, None].expand(order.shape).gather(-1, order)
    weights, covered = [], torch.zeros_like(a[..., 0])
    for last in range(1, a.shape[-1] + 1):
        sides = [torch.where(side, a, 0.0)[..., :last] for side in (front, ~front)]
        two = [x.topk(min(last, 2), -1).values.sum(-1).clamp(max=1) for x in sides]
        weights.append(torch.maximum(*two) - covered)
        covered = torch.maximum(*two)
    share = torch.stack(weights, -1) / torch.where(covered > 0, covered, 1.0)[..., None]
    return (share[..., None] * c.gather(-2, order[..., None].expand_as(c))).sum(-2)
