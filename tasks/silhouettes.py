"""Sharp pictures by counting points, as targets; and silhouettes by ramps, which have gradients."""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor

import taichi_raster as tr

NEAR, FAR = 1.0, 5.0
SUBPIXELS = 4  # of a counted pixel, along each side


def coverage(face_vertices: Tensor, size: int) -> Float[Tensor, "BK H W"]:
    """The share of each pixel that faces cover, from SUBPIXELS^2 points in it."""
    return counted(face_vertices, size, None)[..., 0]


def counted(face_vertices: Tensor, size: int, colours: Tensor | None) -> Tensor:
    """(B * K, H, W, C + 1): the nearest colour over black, and coverage, of SUBPIXELS^2 points."""
    renderer = tr.SoftRasterizer(
        size,
        edge=tr.Distribution("heaviside"),
        depth=tr.HardDepth(),
        alpha=tr.TConorm("hard"),
        near=NEAR,
        far=FAR,
        antialias=SUBPIXELS,
    )
    return renderer(face_vertices, colours)


def ramps(face_vertices: Tensor, size: int) -> Float[Tensor, "BK H W"]:
    """Summed coverages of the front faces, at most 1: the alpha of `Shape3D.sharp_renderer`.

    That renderer composes its picture in torch, which is slow where many faces meet in a pixel. For
    silhouettes the kernels do the same: a ramp one pixel wide is a uniform distribution, and
    Yager's T-conorm with p = 1 is the clipped sum.
    """
    renderer = tr.SoftRasterizer(
        size,
        edge=tr.Distribution("uniform", scale=1 / size),
        depth=tr.HardDepth(),
        alpha=tr.TConorm("yager", p=1.0),
        near=NEAR,
        far=FAR,
        cull_backfaces=True,
    )
    return renderer.silhouette(face_vertices)


def mean_iou(fit: Tensor, goal: Tensor) -> Float[Tensor, " B"]:
    """IoU of coverages (B, K, H, W): sum of minima over sum of maxima, averaged over views.

    Two empty ones agree.
    """
    both = torch.minimum(fit, goal).sum(dim=(2, 3))
    either = torch.maximum(fit, goal).sum(dim=(2, 3))
    some = either > 0
    return torch.where(some, both / torch.where(some, either, 1.0), 1.0).mean(dim=1)


def side_by_side(images: Float[Tensor, "B K H W C"]) -> Float[Tensor, "B H KW C"]:
    """The views of an instance in one picture."""
    return images.transpose(1, 2).flatten(2, 3)
