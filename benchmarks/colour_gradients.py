"""Gradients of colours beside finite differences: is the picture's slope the right one?

    python benchmarks/colour_gradients.py
    python benchmarks/colour_gradients.py --antialias 2
    python benchmarks/colour_gradients.py --distribution logistic
    python benchmarks/colour_gradients.py --size 64 --scale 0.5 --cull

Two scenes in front of a grey background: a ball in front of a large ball, and a ball in front of a
knot, whose faces are a few pixels wide. All have colours at their vertices. There are 12 motions:
three shifts and three turns of each thing. A loss is the sum of a smooth random picture w times
RGB. Its derivatives along the motions, for each of several w, are compared with central differences
of pictures of 16 x 16 samples a pixel (`tr.sampled_picture`), which no renderer here has a part in.

    cosine   of the two lists of derivatives
    slope    of the gradients over the differences, by least squares: 1 is right
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
import tyro
from rich.console import Console
from rich.table import Table
from torch import Tensor

import taichi_raster as tr

BACKGROUND = 0.4
NEAR, FAR = 1.0, 5.0
CAMERA = tr.PerspectiveCamera(tr.orbit(2.7, 20.0, 30.0), fov=42.0)

Draw = Callable[[Tensor, Tensor], Tensor]


@dataclass(frozen=True)
class Options:
    """What to compare.

    Args:
        size: side of the picture, in pixels.
        distribution: of the edges.
        scale: its scale, in pixels.
        cull: whether soft renderers drop faces that show their back.
        antialias: how many times larger each way soft renderers draw, before they average.
        step: of the finite differences, as a share of a pixel.
        samples: of their pictures, along each side of a pixel.
        pictures: how many random ones are summed with.
    """

    size: int = 256
    distribution: str = "gaussian"
    scale: float = 0.25
    step: float = 0.5
    samples: int = 16
    pictures: int = 16
    cull: bool = False
    antialias: int = 1


class TwoThings:
    """A ball and a thing behind it, moved by (12,) unknowns: shifts and turns of each."""

    def __init__(self, behind: tr.Mesh) -> None:
        ball, towards = tr.icosphere(3, 0.35), torch.tensor([0.45, 0.3, 0.55])
        apart = 0.75 * behind.vertices / behind.vertices.norm(dim=1).max()
        self.parts = [(ball.vertices + towards, towards), (apart, torch.zeros(3))]
        self.faces = torch.cat([ball.faces, behind.faces + len(ball.vertices)])
        place = torch.cat([ball.vertices * 2, apart.roll(1, dims=1)])
        shades = 0.5 + 0.5 * torch.sin(4 * place)
        self.colours = tr.gather_faces(shades[None].double(), self.faces)

    def corners(self, unknowns: Tensor) -> Tensor:
        """(1, F, 3, 3)."""
        moved = []
        for (vertices, centre), motion in zip(self.parts, unknowns.split(6), strict=True):
            about = vertices.to(motion) - centre.to(motion)
            zero = motion.new_zeros(())
            x, y, z = motion[3:]
            skew = torch.stack(
                [torch.stack(row) for row in ([zero, -z, y], [z, zero, -x], [-y, x, zero])]
            )
            turned = (about[:, None] * torch.linalg.matrix_exp(skew)).sum(-1)
            moved.append(turned + centre.to(motion) + motion[:3])
        return tr.gather_faces(CAMERA.project(torch.cat(moved)[None]), self.faces)


def weights(options: Options) -> Tensor:
    """(K, H, W, 3), smooth over eight pixels or so."""
    rng = torch.Generator().manual_seed(0)
    few = max(2, options.size // 8)
    coarse = torch.randn(options.pictures, 3, few, few, generator=rng).double()
    fine = torch.nn.functional.interpolate(coarse, (options.size, options.size), mode="bicubic")
    return fine.movedim(1, -1)


def by_gradients(draw: Draw, scene: TwoThings, weight: Tensor) -> Tensor:
    """(K, 12)."""
    unknowns = torch.zeros(12, dtype=torch.float64, requires_grad=True)
    rgb = draw(scene.corners(unknowns), scene.colours)[0, ..., :3]
    sums = (weight * rgb).sum((1, 2, 3))
    return torch.stack([torch.autograd.grad(s, unknowns, retain_graph=True)[0] for s in sums])


def by_differences(scene: TwoThings, weight: Tensor, options: Options) -> Tensor:
    """(K, 12)."""
    # At the things, 2.7 away, the picture shows 2 x 2.7 tan(fov / 2).
    step = options.step * 2 * 2.7 * math.tan(math.radians(21.0)) / options.size
    columns = []
    for k in range(12):
        ends = []
        for side in (-step, step):
            unknowns = torch.zeros(12, dtype=torch.float64)
            unknowns[k] = side
            picture = tr.sampled_picture(
                scene.corners(unknowns),
                scene.colours,
                options.size,
                options.samples,
                background=BACKGROUND,
                near=NEAR,
                far=FAR,
            )
            ends.append((weight * picture[0, ..., :3]).sum((1, 2, 3)))
        columns.append((ends[1] - ends[0]) / (2 * step))
    return torch.stack(columns, dim=1)


def renderers(options: Options) -> dict[str, Draw]:
    """Those that are compared, by name."""
    edge = tr.Distribution(options.distribution, options.scale * 2 / options.size)
    common: dict[str, Any] = {"background": BACKGROUND, "near": NEAR, "far": FAR}
    common["cull_backfaces"] = options.cull
    made: dict[str, Draw] = {"sharp": tr.SharpRasterizer(options.size, **common)}
    common["antialias"] = options.antialias
    made["default: OverDepth"] = tr.SoftRasterizer(options.size, edge, **common)
    made['OverDepth(union="product")'] = tr.SoftRasterizer(
        options.size, edge, tr.OverDepth(union="product"), **common
    )
    made["default, Yager 1.2"] = tr.SoftRasterizer(
        options.size, edge, alpha=tr.TConorm("yager", 1.2), **common
    )
    for gamma in (0.1, 0.01, 0.001):
        made[f"softmax, gamma {gamma:g}"] = tr.SoftRasterizer(
            options.size, edge, tr.SoftmaxDepth(gamma), **common
        )
    return made


def main(options: Options) -> None:
    torch.set_num_threads(1)
    tr.init("cpu", precision="f64")
    weight = weights(options)
    scenes = {
        "two balls": TwoThings(tr.icosphere(3)),
        "ball and knot": TwoThings(tr.torus_knot(sides=12, sectors=120)),
    }
    for title, scene in scenes.items():
        truth = by_differences(scene, weight, options).flatten()
        table = Table("renderer", "cosine", "slope", title=f"{title}: {len(truth)} derivatives")
        for name, draw in renderers(options).items():
            found = by_gradients(draw, scene, weight).flatten()
            cosine = float(torch.dot(found, truth) / (found.norm() * truth.norm()))
            slope = float(torch.dot(found, truth) / truth.square().sum())
            table.add_row(name, f"{cosine:.4f}", f"{slope:.3f}")
        Console(width=100).print(table)


if __name__ == "__main__":
    main(tyro.cli(Options))
