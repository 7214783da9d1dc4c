"""What a step measured in the picture costs, beside the picture and its gradient.

    python benchmarks/step_cost.py
    python benchmarks/step_cost.py --subdivisions 2 --size 64

One pose of a sphere, a rotation and a translation, as in `benchmarks/pose_fit.py`. The least of
several rounds is shown, in milliseconds. The product in forward mode is taken for each tensor of
unknowns; by torch.func is how it was taken before, and how it still is within its transforms.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass

import torch
import tyro
from torch import Tensor

import taichi_raster as tr
from taichi_raster.fitting import steps as module


@dataclass(frozen=True)
class Options:
    """See the top of the file.

    Args:
        subdivisions: of the sphere; 4 are 5,120 faces.
        size: pixels on a side.
        scale: of the softness, in pixels.
        rounds: of each measurement.
    """

    subdivisions: int = 4
    size: int = 256
    scale: float = 0.5
    rounds: int = 30


def main(options: Options) -> None:
    torch.set_num_threads(1)
    tr.init(arch="cpu")
    camera = tr.PerspectiveCamera(tr.look_at((0.0, 0.0, 3.0)), 40.0)
    sphere = tr.icosphere(options.subdivisions, 0.7)
    turn, move = (torch.zeros(1, 3, requires_grad=True) for _ in range(2))

    def geometry(turn: Tensor, move: Tensor) -> Tensor:
        x, y, z = turn.unbind(1)
        zero = torch.zeros_like(x)
        cross = torch.stack([zero, -z, y, z, zero, -x, -y, x, zero], dim=1).view(-1, 3, 3)
        points = sphere.vertices @ torch.linalg.matrix_exp(cross).mT + move[:, None]
        return tr.gather_faces(camera.project(points), sphere.faces)

    edge = tr.Distribution("gaussian", 2 * options.scale / options.size)
    alpha = tr.TConorm("yager", 1.0)
    soft = tr.SoftRasterizer(options.size, edge, alpha=alpha, cull_backfaces=True, threshold=1e-3)
    target = soft.silhouette(geometry(turn, move + 0.02)).detach()
    steps = tr.ImageSteps([turn, move], geometry, 1e-6)

    def drawn() -> None:
        steps.zero_grad()
        image = soft.silhouette(geometry(turn, move))
        tr.silhouette_iou_loss(image, target).sum().backward()

    def only_geometry() -> None:
        with torch.no_grad():
            geometry(turn, move)

    drawn()
    print(f"{len(sphere.faces)} faces, {options.size} x {options.size} pixels, milliseconds")
    print(f"  picture and gradient   {least(drawn, options.rounds):8.2f}")
    print(f"  geometry, once         {least(only_geometry, options.rounds):8.2f}")
    print(f"  step                   {least(lambda: steps.step(0.5), options.rounds):8.2f}")
    module._pushed = lambda f, x, d: torch.func.jvp(f, (x,), (d,))[:2]
    print(f"  step, by torch.func    {least(lambda: steps.step(0.5), options.rounds):8.2f}")


def least(run: Callable[[], None], rounds: int) -> float:
    """Milliseconds of the quickest round."""
    found = []
    for _ in range(rounds):
        begin = time.perf_counter()
        run()
        found.append(time.perf_counter() - begin)
    return 1000 * min(found)


if __name__ == "__main__":
    main(tyro.cli(Options))
