"""What is timed, and how: an icosphere of radius 0.7 seen from 2.7 away, with a softness of scale
0.01 NDC that reaches 0.14 NDC, colours mixed by softmax depth.
"""

from __future__ import annotations

import math
import statistics
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import TypeVar

import torch
from torch import Tensor

import taichi_raster as tr
from taichi_raster.render.nearest import nearest_point, pixel_centres

SCALE, GAMMA, CUTOFF = 0.01, 0.01, 0.2

Passes = Mapping[str, Callable[[], Tensor]]
Name = TypeVar("Name")
Timing = tuple[float, float, float]  # milliseconds: lower quartile, median, upper quartile


def icosphere_faces(subdivisions: int, batch: int) -> Tensor:
    """Projected faces (B, F, 3, 3) of a sphere that fills about 0.7 of the half-width."""
    mesh = tr.icosphere(subdivisions, 0.7)
    camera = tr.PerspectiveCamera(tr.orbit(2.7, 20.0, torch.arange(batch) * 15.0), fov=42.0)
    return tr.gather_faces(camera.project(mesh.vertices[None].float()), mesh.faces)


def make_renderer(
    size: int,
    edge: tr.EdgeSoftness | None = None,
    cutoff: float = CUTOFF,
    depth: tr.DepthSoftness | None = None,
) -> tr.SoftRasterizer:
    """RGBA; a logistic and a softmax unless `edge` and `depth` say otherwise."""
    edge = tr.Distribution("logistic", SCALE) if edge is None else edge
    depth = tr.SoftmaxDepth(GAMMA) if depth is None else depth
    return tr.SoftRasterizer(size, edge, depth, near=1.0, far=5.0, cutoff=cutoff)


def passes(faces: Tensor, size: int, cutoff: float = CUTOFF) -> Passes:
    """The forward pass, forward and backward to the vertices, and a Hessian-vector product."""
    faces = faces.to(tr.runtime().dtype).requires_grad_()
    colours = torch.rand(faces.shape, generator=torch.Generator().manual_seed(0)).to(faces)
    renderer = make_renderer(size, cutoff=cutoff)

    def gradient(create_graph: bool = False) -> Tensor:
        loss = renderer(faces, colours).square().sum()
        return torch.autograd.grad(loss, faces, create_graph=create_graph)[0]

    def hessian_vector() -> Tensor:
        return torch.autograd.grad(gradient(create_graph=True).square().sum(), faces)[0]

    return {
        "forward": lambda: renderer(faces.detach(), colours),
        "forward + backward": gradient,
        "Hessian-vector": hessian_vector,
    }


def dense_torch(faces: Tensor, size: int) -> Callable[[], Tensor]:
    """Forward and backward of the silhouette alone, every pixel against every face."""
    faces = faces.to(tr.runtime().dtype).requires_grad_()

    def gradient() -> Tensor:
        points = pixel_centres(size, size).to(faces)[:, :, None]
        distance, _ = nearest_point(points, faces[0, None, None, :, :, :2])
        alpha = -torch.expm1(-torch.nn.functional.softplus(distance / SCALE).sum(-1))
        return torch.autograd.grad(alpha.square().sum(), faces)[0]

    return gradient


def pairs(faces: Tensor, size: int, cutoff: float = CUTOFF) -> float:
    """How many pixels and faces lie within reach: triangles' areas, widened by the reach."""
    corners = faces[..., :2].detach().double()
    sides = corners.roll(-1, dims=-2) - corners
    area = (sides[..., 0, 0] * sides[..., 1, 1] - sides[..., 0, 1] * sides[..., 1, 0]).abs() / 2
    reach = min(SCALE * math.log(1e6), cutoff)
    widened = area + sides.norm(dim=-1).sum(-1) * reach + math.pi * reach**2
    return float(widened.sum()) * (size / 2) ** 2


@contextmanager
def torch_threads(count: int) -> Iterator[None]:
    """So many threads for torch's own operations.

    After each that several threads did, these spin for some milliseconds, and take the cores away
    from Taichi's: one thread is what `docs/performance.md` advises, and what we time with.
    """
    before = torch.get_num_threads()
    torch.set_num_threads(count)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def timed(
    calls: Mapping[Name, Callable[[], object]],
    repeats: int,
    clock: Callable[[], float] = time.perf_counter,
    in_a_row: int = 1,
) -> dict[Name, Timing]:
    """Time each call `repeats` times, in turn, so that all see the same machine; once untimed.

    A turn is so many calls `in_a_row`, each of which is timed.
    """
    times: dict[Name, list[float]] = {name: [] for name in calls}
    for turn in range(repeats + 1):
        for name, call in calls.items():
            for _ in range(in_a_row):
                begin = clock()
                call()
                if torch.cuda.is_available():
                    torch.cuda.synchronize()
                if turn > 0:
                    times[name].append(1e3 * (clock() - begin))
    return {name: quartiles(values) for name, values in times.items()}


def quartiles(values: list[float]) -> Timing:
    if len(values) == 1:
        return values[0], values[0], values[0]
    low, median, high = statistics.quantiles(values, n=4, method="inclusive")
    return low, median, high


def yardsticks(repeats: int) -> dict[str, Timing]:
    """How fast this machine is at something that everybody has."""
    matrix, values = torch.randn(1024, 1024), torch.randn(10**7)
    calls: Passes = {
        "1024^2 float32 matrix product": lambda: matrix @ matrix,
        "tanh of 1e7 float32 values": lambda: torch.tanh(values),
    }
    return timed(calls, repeats)
