"""What a large texture costs a call beyond a small one.

    python benchmarks/textures.py
    python benchmarks/textures.py --side 4096

5,120 faces at 256 x 256, RGB, float32. Each figure is the difference of the least processor times
of calls with `side` x `side` texels and with 64 x 64, taken in turn, in milliseconds.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass

import torch
import tyro
from rich.console import Console
from rich.table import Table
from torch import Tensor

import taichi_raster as tr
from scenes import torch_threads


@dataclass(frozen=True)
class Options:
    """What to time.

    Args:
        side: of the large texture, in texels.
        repeats: calls of each kind, after one that compiles.
    """

    side: int = 2048
    repeats: int = 6


PASSES = {
    "forward": (False, False),
    "both, of vertices": (True, False),
    "both, of texels": (False, True),
}


def main(options: Options) -> None:
    tr.init("cpu", precision="f32")
    edge = tr.Distribution("uniform", scale=0.004)
    renderers = {
        "softmax": tr.SoftRasterizer(256, edge, cull_backfaces=True),
        "OverDepth": tr.SoftRasterizer(256, edge, tr.OverDepth(), cull_backfaces=True),
        "SharpRasterizer": tr.SharpRasterizer(256),
    }
    table = Table("", *PASSES)
    with torch_threads(1):
        for name, renderer in renderers.items():
            costs = [cost(renderer, options, *moves) for moves in PASSES.values()]
            table.add_row(name, *(f"{value:.0f}" for value in costs))
    Console().print(table)


def cost(renderer: torch.nn.Module, options: Options, vertices: bool, texels: bool) -> float:
    """Milliseconds of processor time that the large texture adds."""
    calls = [call(renderer, side, vertices, texels) for side in (64, options.side)]
    for each in calls:
        each()
    least = [float("inf")] * 2
    for _ in range(options.repeats):
        for i, each in enumerate(calls):
            begin = time.process_time()
            each()
            least[i] = min(least[i], time.process_time() - begin)
    return 1e3 * (least[1] - least[0])


def call(
    renderer: torch.nn.Module, side: int, vertices: bool, texels: bool
) -> Callable[[], Tensor]:
    mesh = tr.icosphere(4)
    corners = 0.8 * mesh.vertices.float()
    places = torch.cat([corners[:, :2], 3 + corners[:, 2:]], dim=1)
    faces = tr.gather_faces(places[None], mesh.faces).requires_grad_(vertices)
    uv = tr.gather_faces((0.6 * corners[None, :, :2] + 0.5).clamp(0, 1), mesh.faces)
    image = torch.rand(1, side, side, 3, generator=torch.Generator().manual_seed(0))
    image.requires_grad_(texels)

    def run() -> Tensor:
        faces.grad = image.grad = None
        picture: Tensor = renderer(faces, tr.UVTexture(uv, image))
        if vertices or texels:
            picture.square().sum().backward()
        return picture

    return run


if __name__ == "__main__":
    main(tyro.cli(Options))
