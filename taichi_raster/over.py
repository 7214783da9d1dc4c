"""Colours by the fragments in front: the composition of `OverDepth`, in torch.

A kernel lists the fragments of each pixel. Torch evaluates their distances, coverages and depths
anew, and composes them, so that all of it can be differentiated twice.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from jaxtyping import Float, Int
from torch import Tensor

from taichi_raster import gathering, per_item
from taichi_raster.attributes import SurfaceTexture, UVTexture, sample
from taichi_raster.sharp import nearest_point, pixel_centres
from taichi_raster.softness import registry
from taichi_raster.softness.edge import Distribution, EdgeSoftness, EdgeState
from taichi_raster.softness.log_cdf import cdf
from taichi_raster.softness.mlp import MLPSoftness
from taichi_raster.softness.network import network_logit
from taichi_raster.softness.table import TabulatedSoftness


@dataclass(frozen=True)
class Fragments:
    """All N fragments of a batch, by pixel, nearest first.

    Attributes:
        layers: (B, H, W, K) faces, -1 for none.
        place: where each fragment is in it, four of (N,).
        face: (N,).
        barycentrics: (N, 3) of the nearest point, in the image.
        z: (N, 3) of the face's corners.
        depth: (N,) of the nearest point.
        coverage: (N,).
    """

    layers: Int[Tensor, "B H W K"]
    place: tuple[Tensor, ...]
    face: Int[Tensor, "N"]
    barycentrics: Float[Tensor, "N 3"]
    z: Float[Tensor, "N 3"]
    depth: Float[Tensor, "N"]
    coverage: Float[Tensor, "N"]

    def spread(self, values: Float[Tensor, "N *rest"]) -> Float[Tensor, "B H W K *rest"]:
        """Values in their places, 0 where there is no fragment."""
        empty = values.new_zeros(*self.layers.shape, *values.shape[1:])
        return empty.index_put(self.place, values)


def fragments(
    vertices: Float[Tensor, "B F 3 3"],
    layers: Int[Tensor, "B H W K"],
    edge: EdgeSoftness,
    state: EdgeState,
    linear_depth: bool,
) -> Fragments:
    """What of the listed faces torch can follow; depth linear in the image if asked for."""
    there = layers >= 0
    deepest = max(int(there.sum(-1).max()), 1)
    layers, there = layers[..., :deepest], there[..., :deepest]
    place = there.nonzero(as_tuple=True)
    item, row, column, _ = place
    face = layers[place]
    corners = gathering.at(vertices, item, face)
    points = pixel_centres(*layers.shape[1:3]).to(vertices)[row, column]
    distance, barycentrics = nearest_point(points, corners[..., :2])
    z = corners[..., 2]
    depth = (barycentrics * z).sum(-1) if linear_depth else 1 / (barycentrics / z).sum(-1)
    coverage = _coverage(edge, state, distance, layers, place)
    return Fragments(layers, place, face, barycentrics, z, depth, coverage)


def mean_colour(
    found: Fragments,
    attributes: Tensor | SurfaceTexture | UVTexture,
    gamma: Float[Tensor, "B"] | None,
    linear: bool,
) -> Float[Tensor, "B H W C"]:
    """The mean of a pixel's attributes, each fragment weighing what those in front let through.

    Args:
        gamma: temperature of the order, in units of z; None where it is that of the list.
        linear: interpolate attributes linearly in the image, not perspective-correctly.
    """
    coverage = found.spread(found.coverage)
    if gamma is None:
        weights = coverage * _through_in_order(coverage)
    else:
        depth = found.spread(found.depth) / gamma[:, None, None, None]
        weights = coverage * _through_softly(coverage, depth)
    total = weights.sum(-1, keepdim=True)
    weights = weights / torch.where(total > 0, total, 1.0)
    mixing = found.barycentrics
    if not linear:
        mixing = mixing / found.z
        mixing = mixing / mixing.sum(-1, keepdim=True)
    if isinstance(attributes, Tensor):
        corners = gathering.at(attributes, found.place[0], found.face)
        colours = sum(mixing[:, i, None] * corners[:, i] for i in range(3))
        assert isinstance(colours, Tensor)
        return found.spread(weights[found.place][:, None] * colours).sum(-2)
    return (weights[..., None] * sample(attributes, found.layers, found.spread(mixing))).sum(-2)


def _through_in_order(coverage: Float[Tensor, "B H W K"]) -> Float[Tensor, "B H W K"]:
    """What those before each let through. By products, not logarithms: a coverage may be 1."""
    each = coverage.unbind(-1)
    parts = [torch.ones_like(each[0])]
    for a in each[:-1]:
        parts.append(parts[-1] * (1 - a))
    return torch.stack(parts, dim=-1)


def _through_softly(
    coverage: Float[Tensor, "B H W K"], depth: Float[Tensor, "B H W K"]
) -> Float[Tensor, "B H W K"]:
    """What the others let through, each as far as it is in front; depth in temperatures."""
    through = torch.ones_like(coverage)
    for j, (a, z) in enumerate(zip(coverage.unbind(-1), depth.unbind(-1), strict=True)):
        others = torch.ones_like(coverage[0, 0, 0])
        others[j] = 0
        through = through * (1 - a[..., None] * torch.sigmoid(depth - z[..., None]) * others)
    return through


def _coverage(
    edge: EdgeSoftness,
    state: EdgeState,
    distance: Float[Tensor, "N"],
    layers: Int[Tensor, "B H W K"],
    place: tuple[Tensor, ...],
) -> Float[Tensor, "N"]:
    """F at signed distances in NDC: differentiable twice, in the softness as well."""
    batch, item = len(layers), place[0]

    def each(values: Tensor) -> Tensor:
        values = values.to(distance)
        return gathering.at(values.expand(batch), item) if values.ndim > 0 else values

    along = distance * distance.abs() if edge.variant.squared else distance
    x = along / each(state.scale)
    if isinstance(edge, Distribution):
        formulas = registry.find(edge.distribution)
        x = x - each(state.shift) if formulas.mirrored else x + each(state.shift)
        return cdf(edge.distribution, x, each(state.shape) if formulas.shaped else None)
    if not isinstance(edge, MLPSoftness | TabulatedSoftness) or state.weights is None:
        raise TypeError(f"edge: OverDepth cannot evaluate a {type(edge).__name__}")
    weights = state.weights.to(distance)
    if isinstance(edge, TabulatedSoftness):
        return torch.sigmoid(edge.looked_up(weights, x, item))
    if weights.ndim == 1:
        return torch.sigmoid(network_logit(edge.network, weights, x))
    weights = per_item.weights("edge.weights", weights, edge.variant, distance.new_empty(batch))
    spread = x.new_zeros(layers.shape).index_put(place, x).view(batch, -1)
    logit = network_logit(edge.network, weights, spread).view(layers.shape)
    return torch.sigmoid(logit[place])
