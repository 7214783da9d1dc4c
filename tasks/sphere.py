"""The sphere that `Shape3D` deforms, with what depends on its topology alone."""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache

import torch
from jaxtyping import Float, Int
from torch import Tensor

import taichi_raster as tr
from taichi_raster.fitting.metrics import barycentric_weights

START_RADIUS = 0.5  # as published


@dataclass(frozen=True)
class Template:
    """The sphere of a family, and what depends on its topology alone.

    Attributes:
        mesh: V vertices and F faces.
        laplacian, flattening: the two terms of the loss.
        spread: (V, V) from unknowns to offsets; None for the identity.
        sampled: (N,) faces, and weights: (N, 3) barycentric coordinates on them, of the points that
            the true error looks at.
    """

    mesh: tr.Mesh
    laplacian: tr.LaplacianLoss
    flattening: tr.FlatteningLoss
    spread: Float[Tensor, "V V"] | None
    sampled: Int[Tensor, " N"]
    weights: Float[Tensor, "N 3"]


@lru_cache(maxsize=8)
@torch.inference_mode(False)
def template(subdivisions: int, smoothing: float, samples: int, dtype: torch.dtype) -> Template:
    """A sphere of radius `START_RADIUS`; equal arguments give the same object.

    Its tensors outlive the call, so that they are never those of torch's inference mode.
    """
    mesh = tr.icosphere(subdivisions, START_RADIUS, dtype)
    faces, count = mesh.faces, len(mesh.vertices)
    generator = torch.Generator().manual_seed(0)
    order = torch.randperm(len(faces), generator=generator)
    sampled = order.repeat(-(-samples // len(faces)))[:samples]  # each face about equally often
    weights = barycentric_weights(
        *torch.rand((2, samples), generator=generator, dtype=torch.float64)
    ).to(dtype)
    return Template(
        mesh,
        tr.LaplacianLoss(faces, count).to(dtype),
        tr.FlatteningLoss(faces, count),
        # Dense, as a batch of a few hundred vertices is multiplied faster than it is solved for.
        tr.SmoothOffsets(mesh, smoothing).smooth(torch.eye(count, dtype=dtype))
        if smoothing > 0
        else None,
        sampled,
        weights,
    )
