"""Gradients of sharp pictures by random perturbations, as other people estimate them.

smoothed_gradient: Fischer and Ritschel, "Plateau-reduced differentiable path tracing", CVPR 2023.
pixel_gradient: Deliot, Heitz and Belcour, "Transforming a non-differentiable rasterizer into a
differentiable one with stochastic gradient estimation", I3D 2024.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any, Protocol

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn

import taichi_raster as tr
from meta.inner.protocol import TaskBatch


class PicturedBatch(TaskBatch, Protocol):
    """What is asked of a batch beyond `TaskBatch`; those of `tasks` have it."""

    @property
    def family(self) -> Any: ...
    @property
    def target(self) -> Tensor: ...
    def sharp_image(self, params: Tensor) -> Tensor: ...
    def soft_image(self, params: Tensor, renderer: nn.Module, progress: float) -> Tensor: ...
    def geometry(self, params: Tensor) -> Any: ...


def smoothed_gradient(
    loss: Callable[[Float[Tensor, "R ..."]], Float[Tensor, " R"]],
    params: Float[Tensor, "B ..."],
    sigma: float,
    pairs: int,
    generator: torch.Generator,
) -> Float[Tensor, "B ..."]:
    """The gradient of a loss that is smoothed by a Gaussian of width `sigma` over its unknowns.

    As the authors' code does it, all unknowns are moved at once. Each offset is drawn from the
    density in proportion to the absolute derivative of the Gaussian, |x| exp(-x^2 / 2 sigma^2),
    whose inverse distribution function is a formula; and each sample has its mirror image.

    Args:
        loss: of R = 2 * pairs * B vectors of unknowns; row i of copy j stands at j * B + i.
        params: unknowns.
        sigma: width, in units of the unknowns.
        pairs: samples with their mirror images.
        generator: of the samples.
    """
    uniform = torch.rand(pairs, *params.shape, generator=generator, dtype=torch.float64)
    signs = _signs((pairs, *params.shape), generator)
    offsets = signs * sigma * torch.sqrt(-2 * torch.log1p(-uniform))
    difference = _difference(loss, params, offsets)
    # The derivative over the density, which is the same for all offsets of a sign.
    weights = signs * math.sqrt(2 / math.pi) / sigma
    found = (_spread(difference, weights) * weights).mean(dim=0) / 2
    return found.to(params)


def pixel_gradient(
    look: Callable[[Tensor], tuple[Float[Tensor, "R H W"], Int[Tensor, "R H W"] | None]],
    moves: Bool[Tensor, "B K F"],
    params: Float[Tensor, "B ..."],
    sigma: float,
    pairs: int,
    generator: torch.Generator,
) -> Float[Tensor, "B ..."]:
    """The gradient of a loss that is a sum over pixels, each of which tells only what touches it.

    All unknowns are moved at once by `sigma`, each to a random side, and once more to the other.
    The difference of a pixel's losses counts for those unknowns alone that move a face which either
    picture shows there, or in one of the eight pixels around: coverages are fractions, so a face
    can be seen without its covering the centre.

    Args:
        look: the loss of each pixel, and the face that its centre sees (-1: none), of R = 2 * pairs
            * B vectors of unknowns, as `smoothed_gradient`'s. None in place of the faces is for
            unknowns that move them all: each pixel then counts for each.
        moves: whether unknown k moves face f.
        params, sigma, pairs, generator: as `smoothed_gradient`'s.
    """
    signs = _signs((pairs, *params.shape), generator)
    rows = torch.cat([params + sigma * signs, params - sigma * signs]).to(params)
    losses, faces = look(rows.flatten(0, 1))
    count = len(params)
    difference = losses.unflatten(0, (2, pairs, count)).double()
    difference = difference[0] - difference[1]  # (S, B, H, W)
    if faces is None:
        sums = difference.sum(dim=(2, 3))[..., None].expand(-1, -1, moves.shape[1])
    else:
        touched = _touched(faces.unflatten(0, (2, pairs, count)), moves)
        sums = (touched * difference[:, :, None]).sum(dim=(3, 4))
    found: Tensor = (sums.reshape(signs.shape) * signs).mean(dim=0) / (2 * sigma)
    return found.to(params)


def faces_moved(task: PicturedBatch) -> Bool[Tensor, "B K F"]:
    """Which unknown moves which face, tried out at the start.

    In `Shape2D` a triangle's corners move that triangle, in `Body` an angle moves its limb and what
    hangs on it, in `Pose` all unknowns move all faces.
    """
    start = task.start()
    with torch.no_grad():
        before = task.geometry(start)
        moved = []
        for k in range(start[0].numel()):
            after = start.flatten(1).clone()
            after[:, k] += 0.01
            corners = task.geometry(after.view_as(start))
            moved.append((corners != before).flatten(2).any(dim=2))
    return torch.stack(moved, dim=1)


class FaceNumbers(nn.Module):
    """Takes the place of a renderer: its picture is the number of the face that a centre sees."""

    def __init__(self, sharp: tr.SharpRasterizer) -> None:
        super().__init__()
        self.sharp = sharp

    def forward(
        self,
        faces: Float[Tensor, "B F 3 3"],
        attributes: Tensor | None = None,
        progress: Any = 0.0,
        views: int = 1,
    ) -> Int[Tensor, "B H W"]:
        s = self.sharp
        return tr.hard_buffers(faces, s.image_size, s.near, s.far, s.cull_backfaces).face


def pixel_look(
    task: PicturedBatch, numbered: bool = True
) -> Callable[[Tensor], tuple[Tensor, Tensor | None]]:
    """For `pixel_gradient`: squared differences to the target, and numbers of faces."""
    numbers = FaceNumbers(task.family.sharp_renderer())

    def look(params: Tensor) -> tuple[Tensor, Tensor | None]:
        squares = (task.sharp_image(params) - task.target).square().mean(dim=3)
        return squares, task.soft_image(params, numbers, 0.0) if numbered else None

    return look


def _touched(
    faces: Int[Tensor, "2 S B H W"], moves: Bool[Tensor, "B K F"]
) -> Float[Tensor, "S B K H W"]:
    """1 for the pixels of each unknown, in either of two pictures; else 0."""
    none = torch.zeros_like(moves[:, :, :1])
    table = torch.cat([moves, none], dim=2).transpose(1, 2).float()  # face -1 is its last row
    items = torch.arange(len(moves))[None, None, :, None, None]
    seen = table[items, faces].amax(dim=0).flatten(0, 1).permute(0, 3, 1, 2)
    wider: Tensor = nn.functional.max_pool2d(seen, 3, 1, 1).unflatten(0, faces.shape[1:3])
    return wider


def _signs(shape: tuple[int, ...], generator: torch.Generator) -> Tensor:
    return 2.0 * torch.randint(2, shape, generator=generator).double() - 1


def _difference(
    loss: Callable[[Tensor], Tensor], params: Tensor, offsets: Float[Tensor, "S B ..."]
) -> Float[Tensor, "S B"]:
    """Of losses on one side and on the other."""
    rows = torch.cat([params + offsets, params - offsets]).to(params).flatten(0, 1)
    both = loss(rows).double().unflatten(0, (2, *offsets.shape[:2]))
    difference: Tensor = both[0] - both[1]
    return difference


def _spread(values: Tensor, like: Tensor) -> Tensor:
    """With as many dimensions as another tensor, 1 each at the end."""
    return values.reshape(*values.shape, *[1] * (like.ndim - values.ndim))
