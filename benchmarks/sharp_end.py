"""Time a step where nothing is left for softness to do, beside other renderers.

    python benchmarks/sharp_end.py
    python benchmarks/sharp_end.py --sizes 64 256 --subdivisions 3 5

Forward and backward of RGB, all in turn, in one run, once they are warm. The scenes are
icospheres. Ours: softnesses of a quarter pixel, backs culled, whose far tails end at the default
threshold or at 1e-3; the sharp renderer; and, to show what softness costs, a logistic of 0.01 NDC.
Peers are those of peers.py that are installed. DEODR has one thread, all others have all cores.
Ours take one thread for torch's own operations.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
import tyro
from peers import Scene, deodr, mitsuba
from rich.console import Console
from rich.table import Table

import taichi_raster as tr
from scenes import Timing, timed, torch_threads


@dataclass(frozen=True)
class Options:
    """What to time.

    Args:
        sizes, subdivisions: pairs of a picture's side and an icosphere's subdivisions.
        repeats: timed calls of each kind, after `warm` untimed ones.
        no_mitsuba: leave it out, which takes the longest.
    """

    sizes: tuple[int, ...] = (64, 64, 256, 256, 256, 1024)
    subdivisions: tuple[int, ...] = (3, 5, 3, 4, 5, 5)
    repeats: int = 9
    warm: int = 3
    no_mitsuba: bool = False


def main(options: Options) -> None:
    if len(options.sizes) != len(options.subdivisions):
        raise SystemExit("sharp_end: --sizes and --subdivisions: give as many of each")
    tr.init("cpu")
    Console().print(table_of(options)[0])


def table_of(options: Options) -> tuple[Table, dict[str, dict[str, Timing]]]:
    """The table, and the times in ms by scene and renderer."""
    results: dict[str, dict[str, Timing]] = {}
    with torch_threads(1):
        for size, subdivisions in zip(options.sizes, options.subdivisions, strict=True):
            scene = Scene.of(subdivisions)
            calls = our_calls(scene, size)
            peer = deodr(scene, size)
            if peer is not None:
                calls["DEODR"] = peer
            other = None if options.no_mitsuba else mitsuba(subdivisions, size)
            if other is not None:
                calls["Mitsuba"] = other
            timed(calls, options.warm)
            results[f"{len(scene.faces):,}, {size}^2"] = timed(calls, options.repeats)
    names = list(next(iter(results.values())))
    table = Table("faces, pixels", *names)
    for scene_name, times in results.items():
        table.add_row(scene_name, *(f"{times[name][1]:.2f}" for name in names))
    return table, results


def our_calls(scene: Scene, size: int) -> dict[str, Callable[[], Any]]:
    """Forward and backward of our renderers, by name."""
    quarter = 0.5 / size
    softmax = tr.SoftmaxDepth(0.01)
    shared: dict[str, Any] = dict(near=1.0, far=5.0)
    culled = shared | dict(cull_backfaces=True)
    logistic, uniform = (tr.Distribution(name, quarter) for name in ("logistic", "uniform"))
    soft = tr.Distribution("logistic", 0.01)
    renderers: dict[str, torch.nn.Module] = {
        "logistic 0.01": tr.SoftRasterizer(size, soft, softmax, **shared),
        "1/4 px": tr.SoftRasterizer(size, logistic, softmax, **culled),
        "1/4 px, 1e-3": tr.SoftRasterizer(size, logistic, softmax, threshold=1e-3, **culled),
        "uniform": tr.SoftRasterizer(size, uniform, softmax, **culled),
        "over": tr.SoftRasterizer(size, logistic, tr.OverDepth(), **culled),
        "sharp": tr.SharpRasterizer(size, **culled),
    }
    return {name: our_call(scene, size, renderer) for name, renderer in renderers.items()}


def our_call(scene: Scene, size: int, renderer: torch.nn.Module) -> Callable[[], torch.Tensor]:
    vertices = tr.gather_faces(scene.vertices[None], scene.faces).requires_grad_()
    colours = tr.gather_faces(scene.colours[None], scene.faces).requires_grad_()
    weights = torch.randn(1, size, size, 4, generator=torch.Generator().manual_seed(1))

    def call() -> torch.Tensor:
        image = renderer(vertices, colours)
        torch.autograd.grad(image, (vertices, colours), weights)
        return image.detach()

    return call


if __name__ == "__main__":
    main(tyro.cli(Options))
