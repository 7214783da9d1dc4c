"""Bring your own task: what you write to learn a softness for it is under 40 lines.

    python examples/own_task.py                    # about a minute on two cores
    python examples/own_task.py --iterations 100   # learns for longer

The task here: a stretched and turned octagon is seen in one sharp silhouette; where is it, how long
are its half-axes, and how is it turned? `Octagons` draws such problems, `OctagonBatch` is a number
of them, and these two are all that `meta` needs: plain dataclasses with the methods of
meta/inner/protocol.py. Nothing is inherited, registered or edited.

Learning starts at an annealed logistic softness, and changes its shape, its scale and the learning
rate, by evolution strategies. The start is the best of only ten that were tried by hand: for a
comparison with carefully tuned softnesses see examples/learn_softness.py.

Into `out/own_task/` go own_task.safetensors, which `tr.load_softening` reads, and solved.png:
target, start, and the results before and after learning, of problems that learning never saw.
"""

from __future__ import annotations

import copy
import math
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Literal

import numpy as np
import torch
import tyro
from rich.console import Console
from torch import Tensor, nn

import taichi_raster as tr
from meta.console import Clock
from meta.estimators import es_gradient
from meta.evaluation.evaluate import Evaluation, evaluate
from meta.evaluation.stats import compare
from meta.inner.method import Method
from meta.inner.protocol import Stream
from meta.inner.unroll import unroll
from meta.inner.updates import Adam
from meta.outer.loss import OuterLoss
from meta.outer.settings import TrainerSettings
from meta.outer.trainer import OuterTrainer
from meta.study.figures import picture_grid
from meta.study.plan import soft_renderer
from tasks.streams import instance_generators

SIZE = 16  # side of a picture in pixels
SHARP = tr.SharpRasterizer(SIZE)  # makes the targets
POSTER = tr.SharpRasterizer(96)  # and the figure
LOW = np.array([-0.35, -0.35, math.log(0.15), math.log(0.15), 0.0])  # of x, y, axes and angle
HIGH = np.array([0.35, 0.35, math.log(0.6), math.log(0.6), math.pi])
AWAY = np.array([0.3, 0.3, 0.5, 0.5, 1.2])  # how far off a start may be


# The task -----------------------------------------------------------------------------------------


def corners(params: Tensor) -> Tensor:
    """(B, 8, 2) in NDC, of x, y, the logarithms of both half-axes, and the angle: (B, 5).

    A half turn, or a quarter turn with exchanged axes, gives the same corners in the same order.
    """
    (a, b), turn = params[:, 2:4].exp().unbind(1), 2 * params[:, 4]
    mean, across, along = (a + b) / 2, (a - b) / 2 * turn.sin(), (a - b) / 2 * turn.cos()
    stretch = torch.stack([mean + along, across, across, mean - along], dim=1).view(-1, 2, 2)
    angles = torch.arange(8, dtype=params.dtype) * (math.pi / 4)
    around: Tensor = torch.stack([angles.cos(), angles.sin()], dim=1) @ stretch
    return params[:, None, :2] + around


def picture(params: Tensor, renderer: nn.Module, **options: float | Tensor) -> Tensor:
    """Silhouettes (B, H, W, 1) of the octagons, each drawn as a fan of six triangles."""
    ring = corners(params)
    fan = torch.stack([ring[:, :1].expand(-1, 6, -1), ring[:, 1:-1], ring[:, 2:]], dim=2)
    image: Tensor = renderer(tr.lift_triangles(fan, torch.ones(6)), None, **options)
    return image


@dataclass(frozen=True)
class OctagonBatch:
    hidden: Tensor  # (B, 5), the solutions
    initial: Tensor  # (B, 5), where descent starts
    target: Tensor  # (B, H, W, 1), what is seen

    batch_size = property(lambda self: len(self.hidden))

    def start(self) -> Tensor:
        return self.initial

    def loss(self, params: Tensor, renderer: nn.Module, progress: float | Tensor) -> Tensor:
        return (picture(params, renderer, progress=progress) - self.target).square().mean((1, 2, 3))

    def true_error(self, params: Tensor) -> Tensor:  # RMS distance of the corners in NDC
        gap = corners(params) - corners(self.hidden)
        return (gap.square().sum(2).mean(1) + 1e-24).sqrt()  # finite slope at 0

    def image_error(self, params: Tensor) -> Tensor:
        return (picture(params, SHARP) - self.target).square().mean((1, 2, 3))

    def metrics(self, params: Tensor) -> dict[str, Tensor]:
        return {"parameter_error": self.true_error(params), "image_error": self.image_error(params)}

    def repeat(self, copies: int) -> OctagonBatch:
        return self.select(list(range(self.batch_size)) * copies)

    def select(self, instances: list[int]) -> OctagonBatch:
        return OctagonBatch(*(x[instances] for x in (self.hidden, self.initial, self.target)))


@dataclass(frozen=True)
class Octagons:
    seed: int = 0

    def sample(self, batch_size: int, stream: Stream, index: int) -> OctagonBatch:
        generators = instance_generators(batch_size, self.seed, stream, index)
        places = np.stack([rng.uniform(LOW, HIGH) for rng in generators])
        starts = places + np.stack([rng.uniform(-AWAY, AWAY) for rng in generators])
        hidden, initial = (torch.tensor(x, dtype=tr.runtime().dtype) for x in (places, starts))
        return OctagonBatch(hidden, initial, picture(hidden, SHARP))


# All the rest works for any task ------------------------------------------------------------------


@dataclass(frozen=True)
class Options:
    """Learn a softness for a task of one's own; see the top of the file.

    Args:
        out: folder of the results.
        arch: backend: cpu, cuda, vulkan or auto.
        iterations: of learning.
        tasks: problems in an iteration; each is solved by `pairs` pairs of softnesses.
        pairs: see `tasks`.
        steps: of a descent.
        unseen: problems to judge by.
        seed: of problems and search directions.
        quiet: no progress bar.
    """

    out: Path = Path("out/own_task")
    arch: Literal["cpu", "cuda", "vulkan", "auto"] = "cpu"
    iterations: int = 30
    tasks: int = 16
    pairs: int = 4
    steps: int = 30
    unseen: int = 256
    seed: int = 0
    quiet: bool = False

    def __post_init__(self) -> None:
        for name in ("iterations", "tasks", "pairs", "steps", "unseen"):
            if getattr(self, name) < 1:
                raise ValueError(f"--{name}: must be at least 1")


def main(options: Options) -> None:
    torch.set_num_threads(1)  # torch's idle threads spin, and take the cores away from Taichi's
    tr.init(arch=options.arch, deterministic=True)
    console, clock = Console(quiet=options.quiet), Clock()
    family = Octagons(options.seed)
    method = start(options)
    before = copy.deepcopy(method)
    clock("learning", lambda: learn(method, family, options, console))
    with console.status(f"{options.unseen} unseen problems, before and after learning"):
        ends = clock(
            "judging", lambda: [evaluate(m, family, options.unseen) for m in (before, method)]
        )
    scores = compared(*ends)
    for name, score in scores.items():
        console.print(f"{name}: {score}")
    options.out.mkdir(parents=True, exist_ok=True)
    softening = packed(method, options, scores)
    tr.save_softening(options.out / "own_task.safetensors", softening)
    console.print(softening.describe(), highlight=False)
    show(options.out / "solved.png", family, before, method)
    console.print(f"time: {clock}; results in {options.out}")


def start(options: Options) -> Method:
    """A logistic softness of annealed scale, set by hand; all of it can be learned."""
    edge = tr.MLPSoftness((4, 4), scale=tr.Knots([0.06, 0.05, 0.04, 0.03]), seed=options.seed)
    rate = tr.Knots([0.1, 0.1, 0.1, 0.02])
    return Method(tr.SoftRasterizer(SIZE, edge=edge), Adam(), rate, options.steps)


def learn(method: Method, family: Octagons, options: Options, console: Console) -> None:
    """Antithetic evolution strategies on the training stream; keeps the best validated iterate."""
    names = list(method.learnable())
    settings = TrainerSettings(
        iterations=options.iterations,
        batch_size=options.tasks,
        lr={name: 0.03 if "weights" in name else 0.06 for name in names},
        validate_every=max(1, options.iterations // 5),
        seed=options.seed,
    )
    search = {
        "pairs": options.pairs,
        "sigma": {name: 0.08 if "weights" in name else 0.15 for name in names},
        "directions": "per_task",
    }
    trainer = OuterTrainer(method, family, OuterLoss("true"), es_gradient, search, settings)
    trainer.run(console=console, quiet=options.quiet, description="learning")


def compared(before: Evaluation, after: Evaluation) -> dict[str, str]:
    """What the learning was worth, on the same unseen problems."""
    pair = compare("after", after.errors, "before", before.errors)
    return {
        "median error (NDC)": f"{np.median(before.errors):.4f} before, "
        f"{np.median(after.errors):.4f} after learning",
        "failures (error above 0.1)": f"{(before.errors > 0.1).mean():.1%} before, "
        f"{(after.errors > 0.1).mean():.1%} after",
        "error ratio": f"{pair.ratio.format(digits=3)}, after to before, 95% interval",
    }


def packed(method: Method, options: Options, scores: dict[str, str]) -> tr.Softening:
    """Everything that was learned, with where it comes from."""
    renderer, rule, lr = soft_renderer(method), method.rule, method.lr
    assert isinstance(rule, Adam) and isinstance(lr, tr.Schedule)
    card = {
        "task": f"an octagon's place, axes and angle from one silhouette of {SIZE} x {SIZE} pixels",
        "units": "x and y in NDC, log half-axes, radians",
        "optimiser": {"name": "Adam", **asdict(rule)},
        "command": f"python examples/own_task.py --iterations {options.iterations}",
        "seed": options.seed,
        "scores": scores,
    }
    parts = (renderer.edge, renderer.depth, renderer.alpha)
    return tr.Softening(*parts, lr, method.steps, card)


def show(path: Path, family: Octagons, before: Method, after: Method, count: int = 6) -> None:
    """Sharp pictures of the first unseen problems."""
    task = family.sample(count, "test", 0)
    columns = {"target": task.hidden, "start": task.start()}
    columns["before learning"] = unroll(before, task).params
    columns["after learning"] = unroll(after, task).params
    with torch.no_grad():
        shown = {name: picture(params, POSTER) for name, params in columns.items()}
    shown = {name: image.expand(-1, -1, -1, 3) for name, image in shown.items()}
    picture_grid(path, shown, [f"unseen {i + 1}" for i in range(count)])


if __name__ == "__main__":
    try:
        main(tyro.cli(Options))
    except (ValueError, OSError, RuntimeError) as error:
        raise SystemExit(f"own_task: {error}") from error
