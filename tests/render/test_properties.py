"""Whatever the triangles: no output and no gradient is ever NaN or infinite."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

import taichi_raster as tr
from scenes import total

KINDS = (
    "plain",
    "point",
    "repeated vertex",
    "collinear",
    "edge-on",
    "huge",
    "tiny",
    "off screen",
    "behind",
    "crossing",
    "copy",
)


def triangle(kind: str, g: torch.Generator, before: Tensor | None) -> Tensor:
    """(3, 3) of a kind of trouble."""
    t = torch.rand(3, 3, generator=g, dtype=torch.float64) * 2 - 1
    t[:, 2] = 1.5 + t[:, 2].abs() * 3
    if kind == "copy" and before is not None:
        return before.clone()
    if kind == "point":
        t[1:] = t[0]
    elif kind == "repeated vertex":
        t[2] = t[1]
    elif kind == "collinear":
        t[2] = t[0] + 0.3 * (t[1] - t[0])
    elif kind == "edge-on":
        t[:, 0] = t[0, 0]
    elif kind == "huge":
        t[:, :2] *= 1e6
    elif kind == "tiny":
        t = t[:1] + 1e-7 * t
        t[:, 2] = t[:, 2].abs() + 1
    elif kind == "off screen":
        t[:, 0] += 1e3
    elif kind == "behind":
        t[:, 2] *= -1
    elif kind == "crossing":
        t[0, 2] = -1e-3
    return t


def modes() -> dict[str, dict[str, Any]]:
    """Few, since each is a set of kernels to compile."""
    return {
        "plain": {},
        "sharp edges": dict(
            edge=tr.Distribution("gaussian", 1e-3),
            depth=tr.SoftmaxDepth(1e-3),
            alpha=tr.TConorm("schweizer_sklar", -3.0),
        ),
        "no slope at the edge": dict(
            edge=tr.Distribution("exponential_rev", 0.05),
            depth=tr.HardDepth(),
            alpha=tr.TConorm("aczel_alsina", 0.5),
        ),
        "infinite density": dict(
            edge=tr.Distribution("gamma", 0.1, shape=0.5, squared=True),
            depth=tr.SoftmaxDepth(),
            alpha=tr.TConorm("dombi", 0.5),
            barycentrics="clipped",
            unclipped_alpha=True,
        ),
        "learned": dict(
            edge=tr.MLPSoftness((3, 3), scale=0.1),
            depth=tr.DistributionDepth("gumbel_max", 0.01, shift=-50.0),
            alpha=tr.TConorm("frank", 1e-3),
        ),
    }


@pytest.mark.runs_on(arch="cpu", precision="f32")  # what overflows, does so here first
@given(
    seed=st.integers(0, 2**31),
    kinds=st.lists(st.sampled_from(KINDS), min_size=1, max_size=6),
    name=st.sampled_from(sorted(modes())),
)
def test_images_and_both_derivatives_are_finite(seed: int, kinds: list[str], name: str) -> None:
    dtype = tr.runtime().dtype
    g = torch.Generator().manual_seed(seed)
    rows: list[Tensor] = []
    for kind in ("plain", *kinds):  # one that can be seen, or there is nothing to render
        rows.append(triangle(kind, g, rows[-1] if rows else None))
    vertices = torch.stack(rows)[None].to(dtype).requires_grad_()
    colours = torch.rand(1, len(rows), 3, 3, generator=g).to(dtype).requires_grad_()
    options = modes()[name]
    edge = options.get("edge")
    image = tr.SoftRasterizer(8, near=0.5, far=20.0, background=0.5, **options)(vertices, colours)
    assert bool(image.isfinite().all())
    assert float(image.min()) >= -1e-6 and float(image.max()) <= 1 + 1e-5
    wanted = [vertices, colours, *(edge.parameters() if edge is not None else ())]
    first = torch.autograd.grad(image.sum(), wanted, create_graph=True, materialize_grads=True)
    assert all(bool(v.isfinite().all()) for v in first)
    along = total((v * math.sin(i + 1)).sum() for i, v in enumerate(first))
    second = torch.autograd.grad(along, wanted, materialize_grads=True)
    if name != "infinite density":  # whose curvature at the edge float32 cannot hold
        assert all(bool(v.isfinite().all()) for v in second)
    assert bool(image.isfinite().all())
