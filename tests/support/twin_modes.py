"""The dense torch renderer for every mode: what a `SoftRasterizer`'s settings mean, from scratch.

Only settings and parameters are read from the renderer under test; what they mean is written here
and in the other twins, from the definitions. Shapes as in `twin`; run it in float64.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

import taichi_raster as tr
import twin
import twin_conorms
import twin_softness
import twin_textures

Attributes = Tensor | tr.SurfaceTexture | tr.UVTexture | None


@dataclass(frozen=True)
class Fragments:
    """What the pairs of pixels and faces come to, (B,H,W,F)."""

    distance: Tensor
    weights: Tensor  # (B,H,W,F,3), linear in the image
    z: Tensor
    shown: Tensor  # counts for colour
    log_f: Tensor
    log_s: Tensor
    front: Tensor  # (B,1,1,F), shows its front


def render(
    renderer: tr.SoftRasterizer,
    face_vertices: Tensor,
    attributes: Attributes,
    progress: float = 1.0,
) -> Tensor:
    """(B,H,W,C+1), differentiable in everything that the renderer's image is."""
    height, width = (side * renderer.antialias for side in renderer.image_size)
    u = torch.tensor(progress, dtype=torch.float64)
    x, counts = fragments(renderer, face_vertices, (height, width), u)
    p = twin.per_instance(renderer.alpha.at(u), face_vertices, 2)
    image = twin_conorms.alpha(renderer.alpha.generator.name, x.log_f, x.log_s, counts, p)[
        ..., None
    ]
    if attributes is not None:
        c = channels(attributes, x, face_vertices, renderer)
        behind = background(renderer, c)
        if isinstance(renderer.depth, tr.OverDepth):
            mean = over(renderer, x, c, u)
            image = torch.cat([image * mean + (1 - image) * behind, image], -1)
        else:
            image = torch.cat([colour(renderer, x, c, behind, u), image], -1)
    n = renderer.antialias
    blocks: Tensor = image.unflatten(2, (-1, n)).unflatten(1, (-1, n))
    return blocks.mean((2, 4))


def fragments(
    o: tr.SoftRasterizer, vertices: Tensor, size: tuple[int, int], u: Tensor
) -> tuple[Fragments, Tensor]:
    """The fragments, and which of them count for alpha."""
    pair = twin.pairs(vertices, *size)
    weights = pair.weights
    if o.barycentrics == "clipped":
        weights = affine(vertices, *size).clamp(0, 1)
        weights = weights / weights.sum(-1, keepdim=True)
    z = vertices[:, None, None, :, :, 2]
    depth = (weights * z).sum(-1) if o.orthographic else 1 / (weights / z.clamp_min(1e-30)).sum(-1)
    log_f, log_s = edge(o, pair.distance, u)
    exists = (vertices[..., 2] > 0).all(-1)[:, None, None]
    counts = exists & (log_f > (math.log(o.threshold) if o.threshold > 0 else -math.inf))
    if o.cutoff is not None:
        counts = counts & (pair.distance >= -o.cutoff)
    front = pair.area > 0 if o.front == "ccw" else pair.area < 0
    shown = counts & (depth >= o.near) & (depth <= o.far)
    if o.cull_backfaces:
        shown = shown & front[:, None, None]
    found = Fragments(pair.distance, weights, depth, shown, log_f, log_s, front[:, None, None])
    return found, counts if o.unclipped_alpha else shown


def affine(vertices: Tensor, height: int, width: int) -> Tensor:
    """(B,H,W,F,3): the barycentrics of the pixel itself, beyond [0, 1] outside."""
    p = twin.pixel_centres(height, width, vertices)[None, :, :, None, None]
    a = vertices[:, None, None, :, :, :2]
    b, c = a.roll(-1, dims=-2), a.roll(-2, dims=-2)
    return twin.cross(b - p, c - p) / twin.cross(b - a, c - a)


def edge(o: tr.SoftRasterizer, distance: Tensor, u: Tensor) -> tuple[Tensor, Tensor]:
    """(log F, log S) at signed distances."""
    scale = twin.per_instance(o.edge.scale(u), distance, 3)
    if isinstance(o.edge, tr.MLPSoftness):
        net = o.edge.network
        weights = o.edge.weights.to(distance)
        of = twin.mlp(weights, net.widths, residual=net.residual, bias=net.bias, asinh=net.asinh)
        return of(distance / scale)
    if isinstance(o.edge, tr.TabulatedSoftness):
        return twin_softness.tabulated(*knots(o.edge, distance))(distance / scale)
    name = o.edge.distribution
    x = (distance * distance.abs() if o.edge.squared else distance) / scale
    shift = twin.per_instance(o.edge.shift(u), distance, 3)
    shape = o.edge.shape(u) if name in twin_softness.SHAPED else None
    return twin_softness.edge(name, shape)(x + twin_softness.shift_sign(name) * shift)


def knots(edge: tr.TabulatedSoftness, like: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Where they lie, from left to right, and the values and slopes of the original there."""
    at = edge.positions.to(like)
    at = torch.cat([-at.flip(0), at[1:]])
    assert isinstance(edge.edge, tr.MLPSoftness)
    net, weights = edge.edge.network, torch.atleast_2d(edge.edge.weights.to(like))
    r = twin.network(weights, net.widths, residual=net.residual, bias=net.bias, asinh=net.asinh)
    x = at.expand(len(weights), -1).clone().requires_grad_()
    values = x + r(x[:, None, None])[:, 0, 0]
    (slopes,) = torch.autograd.grad(values.sum(), x, create_graph=True)
    return at, values, slopes


def log_weight(o: tr.SoftRasterizer, z_norm: Tensor, u: Tensor) -> Tensor:
    """l at normalised depths (B,H,W,F)."""
    depth = o.depth
    gamma = twin.per_instance(depth.gamma(u), z_norm, 3)
    if isinstance(depth, tr.SoftmaxDepth):
        return z_norm / gamma
    if isinstance(depth, tr.MLPDepth):
        net = depth.network
        weights = depth.weights.to(z_norm)
        r = twin.network(weights, net.widths, residual=net.residual, bias=net.bias, asinh=False)
        return (z_norm + r(z_norm)) / gamma
    name = depth.formulas.name
    shift = twin_softness.shift_sign(name) * twin.per_instance(depth.shift(u), z_norm, 3)
    shape = depth.shape(u) if name in twin_softness.SHAPED else None
    return twin_softness.edge(name, shape)(z_norm / gamma + shift)[0]


def colour(o: tr.SoftRasterizer, x: Fragments, c: Tensor, background: Tensor, u: Tensor) -> Tensor:
    """(B,H,W,C): fragments and background, each by its share."""
    if isinstance(o.depth, tr.HardDepth):
        hit = x.shown & (x.distance >= 0)
        nearest = torch.where(hit, x.z, math.inf).argmin(-1)
        share = torch.nn.functional.one_hot(nearest, hit.shape[-1]) * hit.any(-1, keepdim=True)
        rest = ~hit.any(-1, keepdim=True)
        return torch.einsum("bhwf,bhwfc->bhwc", share.to(c.dtype), c) + rest * background
    z_norm = torch.where(x.shown, (o.far - x.z) / (o.far - o.near), 0.5)
    weight = torch.where(x.shown, x.log_f + log_weight(o, z_norm, u), -math.inf)
    floor = twin.per_instance(o.depth.background_z, c, 3).expand(weight[..., :1].shape)
    share = torch.softmax(torch.cat([weight, log_weight(o, floor, u)], -1), -1)
    return torch.einsum("bhwf,bhwfc->bhwc", share[..., :-1], c) + share[..., -1:] * background


def over(o: tr.SoftRasterizer, x: Fragments, c: Tensor, u: Tensor) -> Tensor:
    """(B,H,W,C): the mean of the fragments, each by what it shows of itself."""
    share = added(x) if o.depth.union == "largest_two" else let_through(o, x, u)
    total = share.sum(-1, keepdim=True)
    share = share / torch.where(total > 0, total, 1.0)
    return torch.einsum("bhwf,bhwfc->bhwc", share, c)


def added(x: Fragments) -> Tensor:
    """(B,H,W,F): what each adds to the coverage of those up to it.

    That is the sum of the two largest among fronts, or among backs, whichever is larger.
    """
    order = torch.where(x.shown, x.z, math.inf).argsort(-1)
    a = torch.where(x.shown, torch.exp(x.log_f), 0.0).gather(-1, order)
    up_to = torch.ones(a.shape[-1], a.shape[-1], dtype=torch.bool).tril()
    front = x.front.expand(order.shape).gather(-1, order)
    sums = []
    for side in (front, ~front):
        of_side = torch.where(side, a, 0.0)[..., None, :]
        largest = torch.where(up_to, of_side, 0.0).topk(2, dim=-1).values
        sums.append(largest.sum(-1).clamp(max=1))
    together: Tensor = torch.where(sums[0] >= sums[1], sums[0], sums[1])
    more = torch.cat([together[..., :1], together[..., 1:] - together[..., :-1]], -1)
    return torch.zeros_like(more).scatter(-1, order, more)


def let_through(o: tr.SoftRasterizer, x: Fragments, u: Tensor) -> Tensor:
    """(B,H,W,F): each times what all the others let through."""
    z = torch.where(x.shown, (o.far - x.z) / (o.far - o.near), 0.0)
    nearer = z[..., None, :] - z[..., :, None]  # (B,H,W,F,F): how much the last is in front
    if o.depth.gamma is None:
        in_front = (nearer > 0).to(z)
    else:
        gamma = twin.per_instance(o.depth.gamma(u), nearer, 4)
        in_front = 1 / (1 + torch.exp(-nearer / gamma))
    a = torch.where(x.shown, torch.exp(x.log_f), 0.0)
    itself = torch.eye(a.shape[-1], dtype=torch.bool)
    through = torch.where(itself, 1.0, 1 - a[..., None, :] * in_front).prod(-1)
    return a * through


def channels(
    attributes: Attributes, x: Fragments, vertices: Tensor, o: tr.SoftRasterizer
) -> Tensor:
    """(B,H,W,F,C) at each fragment."""
    weights = x.weights
    perspective = o.perspective_correct and not o.orthographic
    if perspective:
        weights = weights / vertices[:, None, None, :, :, 2].clamp_min(1e-30) * x.z[..., None]

    def mixed(corners: Tensor) -> Tensor:
        corners = corners.expand(len(vertices), -1, -1, -1)
        return torch.einsum("bhwfi,bfic->bhwfc", weights, corners)

    if isinstance(attributes, Tensor):
        return mixed(attributes)
    assert attributes is not None
    if isinstance(attributes, tr.SurfaceTexture):
        found = twin_textures.surface(attributes.texels, weights)
    elif attributes.filter == "bilinear":
        found = twin_textures.bilinear(attributes.image, mixed(attributes.uv), attributes.wrap)
    else:
        size = attributes.image.shape[1], attributes.image.shape[2]
        uv = attributes.uv.expand(len(vertices), -1, -1, -1)
        pixel = 2 / (min(o.image_size) * o.antialias)
        level = twin_textures.level_of_detail(vertices, uv, x.weights, size, pixel, perspective)
        found = twin_textures.trilinear(attributes.image, mixed(uv), level, attributes.wrap)
    if attributes.corners is None:
        return found
    return torch.cat([found, mixed(attributes.corners)], -1)


def background(o: tr.SoftRasterizer, c: Tensor) -> Tensor:
    """Broadcastable to (B,H,W,C), each pixel of a picture antialias times as large."""
    behind = torch.as_tensor(o.background, dtype=c.dtype)
    if behind.ndim >= 3:
        for axis in (-3, -2):
            behind = behind.repeat_interleave(o.antialias, dim=axis)
    return behind
