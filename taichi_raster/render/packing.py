"""Packs a render for the kernels: its `Call`, and its inputs x.

Soft, sharp and hard renderers differ only in the softness. All three use `pack`.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import lru_cache
from typing import TypeAlias

import torch
from jaxtyping import Float
from torch import Tensor

from taichi_raster.depth.base import DepthState
from taichi_raster.runtime import transforms
from taichi_raster.runtime.call import Call
from taichi_raster.runtime.device import runtime
from taichi_raster.runtime.layout import Part, Slot
from taichi_raster.runtime.variant import DepthVariant, EdgeVariant, Variant
from taichi_raster.scene import texels
from taichi_raster.scene.attributes import Appearance, appearance
from taichi_raster.softness import parameters
from taichi_raster.softness.edge import EdgeState

FAR_AWAY = 1e30  # stands for an infinite distance in the kernels


@dataclass(frozen=True)
class View:
    """A renderer's options for the view; the fields are those of `SoftRasterizer`."""

    height: int
    width: int
    near: float
    far: float
    cull_backfaces: bool
    front: str
    orthographic: bool
    perspective_correct: bool = True
    barycentrics: str = "nearest"
    unclipped_alpha: bool = False


@dataclass(frozen=True)
class Softness:
    """The softnesses of one call.

    Attributes:
        edge, depth: the parts that kernels compile.
        conorm: the T-conorm's name.
        parameters: (B, Slot.COUNT).
        edge_weights, depth_weights: (B, P) and (B, Q), the networks' weights.
        threshold, cutoff, reach, hidden: which fragments count, see `Call`.
    """

    edge: EdgeVariant
    depth: DepthVariant
    conorm: str
    parameters: Float[Tensor, "B S"]
    edge_weights: Float[Tensor, "B P"]
    depth_weights: Float[Tensor, "B Q"]
    threshold: float
    cutoff: float
    reach: float
    hidden: float = 0.0

    @staticmethod
    def of(
        vertices: Tensor,
        edge: tuple[EdgeVariant, EdgeState],
        depth: tuple[DepthVariant, DepthState],
        conorm: tuple[str, Tensor],
        threshold: float,
        cutoff: float | None,
    ) -> Softness:
        """From softnesses at one progress, checked against the batch size."""
        found = {
            "edge.scale": edge[1].scale,
            "edge.shape": edge[1].shape,
            "edge.shift": edge[1].shift,
            "alpha.p": conorm[1],
            "depth.gamma": depth[1].gamma,
            "depth.shape": depth[1].shape,
            "depth.shift": depth[1].shift,
        }
        least = FAR_AWAY if cutoff is None else cutoff
        return Softness(
            edge[0],
            depth[0],
            conorm[0],
            parameters.stack(found, vertices),
            parameters.weights("edge.weights", edge[1].weights, edge[0], vertices),
            parameters.weights("depth.weights", depth[1].weights, depth[0], vertices),
            threshold,
            least,
            min(edge[1].reach, least, FAR_AWAY),
        )

    @staticmethod
    def none(vertices: Tensor, depth: DepthVariant, reach: float, cutoff: float) -> Softness:
        """For a renderer that is not soft: a linear ramp, twice as wide as the reach."""
        batch = len(vertices)
        numbers = vertices.new_ones(batch, Slot.COUNT)
        numbers[:, Slot.SCALE] = reach
        numbers[:, Slot.SHIFT] = 0
        nothing = vertices.new_empty(batch, 0)
        edge = EdgeVariant("uniform")
        return Softness(edge, depth, "probabilistic", numbers, nothing, nothing, 0.0, cutoff, reach)

    def but_conorm(self, name: str) -> Softness:
        """The same softness with another T-conorm."""
        return self if self.conorm == name else replace(self, conorm=name)

    def of_alpha(self) -> Softness:
        """The same softness for alpha only."""
        return replace(self, depth=DepthVariant("none"))


def pack(
    vertices: Float[Tensor, "B F 3 3"], shown: Appearance, view: View, softness: Softness
) -> tuple[Call, Float[Tensor, " X"], Float[Tensor, " T"] | None]:
    """The call, its inputs in one flat vector, in the order of `Part`, and its texels, if any."""
    batch, faces = vertices.shape[:2]
    parts = [
        vertices,
        shown.corners,
        shown.uv,
        softness.edge_weights,
        softness.depth_weights,
        softness.parameters,
    ]
    every = [*parts, shown.texels]
    levels = texels.starts(*shown.size)[:-1] if shown.mipmapped else []
    moves = tuple(map(transforms.has_derivatives, every))
    call = _call(
        (softness.edge, softness.depth, softness.conorm),
        (shown.corners.shape[3], shown.texture, shown.channels, shown.mipmapped),
        view,
        moves,
        (batch, faces),
        tuple(part.numel() for part in every),
        (softness.threshold, softness.cutoff, softness.reach, softness.hidden),
        runtime().deterministic,
        (*shown.size, shown.stride),
        tuple(levels),
    )
    x = torch.cat([part.reshape(-1) for part in parts if part.numel() > 0])
    return call, x, None if shown.texture == "none" else shown.texels


def for_alpha(call: Call, vertices: Tensor, view: View, softness: Softness) -> tuple[Call, bool]:
    """The call for alpha alone, of the same inputs; and whether alpha has derivatives in them."""
    moves = [False] * Part.COUNT
    for part, values in (
        (Part.VERTICES, vertices),
        (Part.EDGE_WEIGHTS, softness.edge_weights),
        (Part.DEPTH_WEIGHTS, softness.depth_weights),
        (Part.PARAMETERS, softness.parameters),
    ):
        moves[part] = transforms.has_derivatives(values)
    return _call_for_alpha(call, (softness.edge, softness.conorm), view, tuple(moves)), any(moves)


def without_attributes(vertices: Tensor) -> Appearance:
    """The appearance for a call without attributes."""
    return appearance(None, vertices, fixed_order=False)


Compiled: TypeAlias = tuple[EdgeVariant, DepthVariant, str]
Shown: TypeAlias = tuple[int, str, int, bool]


@lru_cache(maxsize=256)
def _call(
    compiled: Compiled,
    shown: Shown,
    view: View,
    moves: tuple[bool, ...],
    size: tuple[int, int],
    sizes: tuple[int, ...],
    limits: tuple[float, float, float, float],
    fixed_order: bool,
    texture: tuple[int, int, int],
    levels: tuple[int, ...],
) -> Call:
    """The same call for equal arguments, so that what is kept for it is found at once."""
    threshold, cutoff, reach, hidden = limits
    return Call(
        _variant(compiled, shown, view, moves),
        *size,
        view.height,
        view.width,
        sizes,
        view.near,
        view.far,
        threshold,
        cutoff,
        reach,
        fixed_order,
        texture,
        levels,
        hidden,
    )


@lru_cache(maxsize=256)
def _call_for_alpha(
    call: Call, compiled: tuple[EdgeVariant, str], view: View, moves: tuple[bool, ...]
) -> Call:
    edge, conorm = compiled
    alone = edge, DepthVariant("none"), conorm
    return replace(call, variant=_variant(alone, (0, "none", 0, False), view, moves))


def _variant(compiled: Compiled, shown: Shown, view: View, moves: tuple[bool, ...]) -> Variant:
    edge, depth, conorm = compiled
    corners, texture, channels, mipmapped = shown
    return Variant(
        edge,
        depth,
        conorm=conorm,
        corners=corners,
        texture=texture,
        texels=channels,
        mipmapped=mipmapped,
        perspective=view.perspective_correct,
        cull=view.cull_backfaces,
        clockwise=view.front == "cw",
        clipped=view.barycentrics == "clipped",
        unclipped_alpha=view.unclipped_alpha,
        orthographic=view.orthographic,
        moves=(
            # A render without derivatives uses the kernels for derivatives in vertices.
            moves[Part.VERTICES] or not any(moves),
            any(moves[Part.CORNERS : Part.EDGE_WEIGHTS]),
            any(moves[Part.EDGE_WEIGHTS : Part.TEXELS]),
            moves[Part.TEXELS],
        ),
    )
