"""What a call costs, however little it draws: one face in 16 x 16 pixels.

    python benchmarks/call_cost.py
    python benchmarks/call_cost.py --size 64 --subdivisions 3

Forward and backward of RGB, gradients of the vertices and of their colours, in milliseconds: the
least of many calls by the clock, and of processor time of all threads together. Calls of all
renderers take turns, so that all see the same machine. Torch has one thread.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass

import torch
import tyro
from peers import Scene
from torch import Tensor

import taichi_raster as tr
from scenes import torch_threads


@dataclass(frozen=True)
class Options:
    """What to time.

    Args:
        size: side of the picture, in pixels.
        subdivisions: of an icosphere that is drawn instead of one face: 20 faces, times 4 for each.
        calls: of each kind.
        warm: untimed calls of each kind before that.
    """

    size: int = 16
    subdivisions: int | None = None
    calls: int = 2000
    warm: int = 50


def main(options: Options) -> None:
    tr.init("cpu")
    vertices, colours = scene(options.subdivisions)
    calls: dict[str, Callable[[], object]] = {}
    for name, renderer in renderers(options.size).items():
        calls[f"{name}, forward"] = forward(renderer, vertices, colours)
        calls[f"{name}, both"] = both(renderer, vertices, colours, options.size)
    with torch_threads(1):
        least(calls, options.warm)
        found = least(calls, options.calls)
    print(f"{vertices.shape[1]} faces, {options.size} x {options.size} pixels; milliseconds")
    print(f"{'':22}{'clock':>8}{'processor':>12}")
    for name, (clock, processor) in found.items():
        print(f"{name:22}{clock:8.3f}{processor:12.3f}")


def scene(subdivisions: int | None) -> tuple[Tensor, Tensor]:
    """(1, F, 3, 3) vertices and colours."""
    if subdivisions is None:
        vertices = torch.tensor([[[[-0.5, -0.5, 2.0], [0.5, -0.5, 2.0], [0.0, 0.5, 2.0]]]])
        return vertices, torch.rand(1, 1, 3, 3, generator=torch.Generator().manual_seed(0))
    sphere = Scene.of(subdivisions)
    shown = (sphere.vertices, sphere.colours)
    return tuple(tr.gather_faces(values[None], sphere.faces) for values in shown)


def renderers(size: int) -> dict[str, torch.nn.Module]:
    edge = tr.Distribution("logistic", 0.5 / size)
    return {
        "sharp": tr.SharpRasterizer(size, near=1.0, far=5.0),
        "softmax": tr.SoftRasterizer(size, edge, tr.SoftmaxDepth(0.01), near=1.0, far=5.0),
        "over": tr.SoftRasterizer(size, edge, near=1.0, far=5.0),
    }


def forward(renderer: torch.nn.Module, vertices: Tensor, colours: Tensor) -> Callable[[], object]:
    return lambda: renderer(vertices, colours)


def both(
    renderer: torch.nn.Module, vertices: Tensor, colours: Tensor, size: int
) -> Callable[[], object]:
    inputs = tuple(values.clone().requires_grad_() for values in (vertices, colours))
    weights = torch.randn(1, size, size, 4, generator=torch.Generator().manual_seed(1))

    def call() -> object:
        return torch.autograd.grad(renderer(*inputs), inputs, weights)

    return call


def least(calls: dict[str, Callable[[], object]], count: int) -> dict[str, tuple[float, float]]:
    """Milliseconds of the quickest of `count` calls of each: by the clock, and of the processor."""
    found = dict.fromkeys(calls, (float("inf"), float("inf")))
    for _ in range(count):
        for name, call in calls.items():
            begin, spent = time.perf_counter(), time.process_time()
            call()
            spent, end = time.process_time() - spent, time.perf_counter()
            least_clock, least_spent = found[name]
            found[name] = min(least_clock, 1e3 * (end - begin)), min(least_spent, 1e3 * spent)
    return found


if __name__ == "__main__":
    main(tyro.cli(Options))
