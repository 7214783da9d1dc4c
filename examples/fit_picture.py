"""Draw a photo with a hundred-odd triangles, and see what the softness does.

    python examples/fit_picture.py                    # a landscape drawn here; about a minute
    python examples/fit_picture.py photo.jpg          # any image file
    python examples/fit_picture.py --triangles 150 --steps 600 --arch vulkan

Corners and colours of all triangles descend, by Adam, the squared difference between the *soft*
picture and the photo; what counts in the end is the *sharp* picture. Four softnesses start from
the same triangles. One that stays soft fits a picture that nobody sees: drawn sharply, its
triangles leave gaps. Sharp ones see no farther than a pixel, and one that begins soft and ends
sharp is better than either. How coverages mix in depth matters most: under a softmax, the soft rim
of a near triangle covers those behind it, and `OverDepth` lets it blend with them. Into
`out/fit_picture/` go:

    fit.png     photo, start, the four results drawn sharply, and their errors on the way
    fit.gif     the four of them at work
    result.png  the best of them
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import torch
import tyro
from matplotlib.figure import Figure
from PIL import Image, ImageDraw
from rich.console import Console
from torch import Tensor
from tyro.conf import Positional

import taichi_raster as tr
from meta.study.figures import solving_gif
from tasks.picture import FAR, NEAR, Picture, PictureBatch

SHEETS = tr.OverDepth(union="product")  # these triangles are no surface: they lie over one another

# Depth softness, and scales of the edges in NDC (the picture is 2 wide), at first and at last.
SOFTNESSES = {
    "softmax, soft, then sharp": (tr.SoftmaxDepth(0.2), 0.02, 0.003),
    "over, sharp all the time": (SHEETS, 0.003, 0.003),
    "over, soft all the time": (SHEETS, 0.02, 0.02),
    "over, soft, then sharp": (SHEETS, 0.02, 0.003),
}
RECORD = 30  # moments at which the pictures are kept, for the film and the curves


@dataclass(frozen=True)
class Options:
    """Draw a photo with triangles; see the top of the file.

    Args:
        image: any image file; without it, a landscape that is drawn here.
        out: folder of the pictures.
        arch: backend: cpu, vulkan, cuda, or auto.
        triangles: how many.
        steps: of Adam.
        size: pixels of the longer side while fitting.
        learning_rate: of Adam, at the start; it falls to a tenth.
        seed: of the triangles at the start.
    """

    image: Positional[Path | None] = None
    out: Path = Path("out/fit_picture")
    arch: Literal["cpu", "vulkan", "cuda", "auto"] = "cpu"
    triangles: int = 120
    steps: int = 300
    size: int = 64
    learning_rate: float = 0.05
    seed: int = 0

    def __post_init__(self) -> None:
        for name in ("triangles", "steps"):
            if getattr(self, name) < 1:
                raise ValueError(f"--{name}: must be at least 1")
        if self.size < 16:
            raise ValueError("--size: must be at least 16")
        if not 0 < self.learning_rate < 10:
            raise ValueError("--learning-rate: must lie between 0 and 10")


def main(options: Options) -> None:
    torch.set_num_threads(1)  # torch's idle threads spin, and take the cores away from Taichi's
    tr.init(arch=options.arch)
    console = Console()
    options.out.mkdir(parents=True, exist_ok=True)
    path = options.image
    if path is None:
        path = options.out / "landscape.png"
        landscape().save(path)

    # The task: triangles at random places, depths and colours, and the photo in (H, W) pixels.
    # A `Picture` can do more (see tasks/picture.py); here all it does is to hold these together.
    family = Picture(
        options.triangles,
        (path,),
        colours=True,
        matte=False,
        image_size=fitting_size(path, options.size),
        seed=options.seed,
    )
    task = family.sample(1, "test", 0)
    kept = []
    for name, (depth, first, last) in SOFTNESSES.items():
        edge = tr.Distribution("logistic", scale=tr.Geometric(first, last))
        kept.append(fit(name, task, family.renderer(edge, depth), options, console))
    steps = [step for step, _ in kept[0]]
    together = [torch.cat([each[i][1] for each in kept]) for i in range(len(steps))]
    show(task.repeat(len(kept)), list(zip(steps, together, strict=True)), options, console)


def fit(
    name: str,
    task: PictureBatch,
    renderer: tr.SoftRasterizer,
    options: Options,
    console: Console,
) -> list[tuple[int, Tensor]]:
    """Descend; returns (step, unknowns) of some moments, the start and the end among them."""
    unknowns = task.start().clone().requires_grad_()
    falling = tr.Geometric(options.learning_rate, 0.1 * options.learning_rate)
    adam = torch.optim.Adam([unknowns])
    every = max(1, options.steps // RECORD)
    kept = [(0, unknowns.detach().clone())]
    for step in tr.Descent(adam, options.steps, lr=falling, title=name, console=console):
        # `progress` tells the renderer how far we are: its scale follows it.
        step.descend(task.loss(unknowns, renderer, step.progress))
        done = step.index + 1
        if done % every == 0 or done == options.steps:
            kept.append((done, unknowns.detach().clone()))
    return kept


@torch.no_grad()
def show(
    task: PictureBatch, kept: list[tuple[int, Tensor]], options: Options, console: Console
) -> None:
    """Everything is judged and shown as it is meant to be seen: sharp."""
    with console.status("drawing"):
        errors = torch.stack([task.image_error(unknowns) for _, unknowns in kept]).sqrt()
        # The same triangles in more pixels: hardly any softness, and the nearest hides the others.
        crisp = tr.SoftRasterizer(
            enlarged(task),
            tr.Distribution("uniform", scale=1e-3),
            tr.HardDepth(),
            near=NEAR,
            far=FAR,
            antialias=2,
        )
        films = torch.stack([task.soft_image(unknowns, crisp, 1.0) for _, unknowns in kept], dim=1)
    for name, error in zip(SOFTNESSES, errors[-1].tolist(), strict=True):
        console.print(f"{name:26s}  root mean squared error {error:.4f}")

    target = task.target[0]
    steps = [step for step, _ in kept]
    draw_figure(options.out / "fit.png", target, films, errors, steps)
    columns = {"photo": target, **dict(zip(SOFTNESSES, films, strict=True))}
    solving_gif(options.out / "fit.gif", columns)
    best = films[int(errors[-1].argmin()), -1]
    pixels = (best.clamp(0, 1) * 255).round().byte().cpu().numpy()
    Image.fromarray(pixels).save(options.out / "result.png")
    console.print(f"wrote fit.png, fit.gif and result.png into {options.out}/")


def draw_figure(
    path: Path, target: Tensor, films: Tensor, errors: Tensor, steps: list[int]
) -> None:
    figure = Figure(figsize=(15, 2.9), layout="constrained")
    *axes, plot = figure.subplots(1, len(films) + 3, width_ratios=[1] * (len(films) + 2) + [1.5])
    pictures = {"photo": target, "start": films[0, 0]}
    for i, name in enumerate(SOFTNESSES):
        pictures[f"{name}\nerror {errors[-1, i]:.3f}"] = films[i, -1]
        plot.semilogy(steps, errors[:, i].tolist(), label=name)
    for axis, (title, picture) in zip(axes, pictures.items(), strict=True):
        axis.imshow(picture.clamp(0, 1).numpy())
        axis.set_title(title, fontsize=9)
        axis.axis("off")
    plot.set(xlabel="step")
    plot.set_title("error of the sharp picture (RMS)", fontsize=9)
    plot.legend(fontsize=8)
    figure.savefig(path, dpi=110)


def fitting_size(path: Path, longer: int) -> tuple[int, int]:
    """(H, W) with the photo's aspect."""
    with Image.open(path) as image:
        width, height = image.size
    scale = longer / max(width, height)
    return max(8, round(height * scale)), max(8, round(width * scale))


def enlarged(task: PictureBatch, longer: int = 192) -> tuple[int, int]:
    height, width = task.family.size
    scale = longer / max(height, width)
    return round(height * scale), round(width * scale)


def landscape(side: int = 256) -> Image.Image:
    """Evening over the hills."""
    s = 4 * side  # drawn larger, for smooth edges
    image = Image.new("RGB", (s, s))
    draw = ImageDraw.Draw(image)
    for y in range(s):  # the sky
        t = y / s
        draw.line([(0, y), (s, y)], fill=(int(60 + 230 * t), int(110 + 90 * t), int(190 - 60 * t)))

    def polygon(points: list[tuple[float, float]], colour: str) -> None:
        draw.polygon([(s * x, s * y) for x, y in points], fill=colour)

    draw.ellipse([0.58 * s, 0.3 * s, 0.84 * s, 0.56 * s], fill="#ffe9a8")
    polygon(
        [(0, 0.62), (0.25, 0.36), (0.45, 0.58), (0.7, 0.42), (1, 0.66), (1, 1), (0, 1)], "#7a5c8e"
    )
    polygon([(0.25, 0.36), (0.18, 0.433), (0.25, 0.42), (0.3, 0.44), (0.32, 0.437)], "#f4eef2")
    polygon([(0, 0.72), (0.35, 0.62), (0.7, 0.7), (1, 0.6), (1, 1), (0, 1)], "#3f6b4f")
    polygon([(0, 0.86), (0.5, 0.78), (1, 0.88), (1, 1), (0, 1)], "#2c4a38")
    polygon([(0.16, 0.68), (0.34, 0.68), (0.34, 0.84), (0.16, 0.84)], "#f3e2c7")
    polygon([(0.12, 0.69), (0.25, 0.57), (0.38, 0.69)], "#b5403a")
    polygon([(0.22, 0.73), (0.28, 0.73), (0.28, 0.84), (0.22, 0.84)], "#5a3a28")
    for x in (0.72, 0.86):
        polygon([(x, 0.56), (x - 0.07, 0.82), (x + 0.07, 0.82)], "#1f3a2c")
    return image.resize((side, side), Image.Resampling.BOX)


if __name__ == "__main__":
    try:
        main(tyro.cli(Options))
    except (ValueError, OSError, RuntimeError) as error:
        raise SystemExit(f"fit_picture: {error}") from error
