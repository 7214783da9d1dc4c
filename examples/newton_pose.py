"""Second derivatives at work: Gauss-Newton and Newton steps on a camera's pose, beside Adam.

    python examples/newton_pose.py                  # about a minute
    python examples/newton_pose.py --arch vulkan    # in float32, which ends the descent earlier

A camera's distance, elevation, azimuth and field of view are recovered from one soft silhouette.
Distance and field of view nearly make up for each other, so the loss is a long narrow valley:
Adam creeps along it, methods that know the curvature do not.

    Adam           follows the gradient
    Gauss-Newton   scipy's least_squares, given the Jacobian of all pixels by forward mode
    Newton-CG      scipy's trust-ncg, given Hessian-vector products: the gradient of (gradient . v)

The renderer's second derivatives are exact, so Newton converges as it should: the number of right
digits doubles at every step. Into `out/newton_pose/` go:

    convergence.png   angle errors over steps and over seconds, in log scale
    poses.png         target, start, and where each method is after a few steps
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

import numpy as np
import scipy.optimize
import torch
import torch.autograd.forward_ad as forward_ad
import tyro
from matplotlib.figure import Figure
from rich.console import Console
from rich.table import Table
from torch import Tensor

import taichi_raster as tr
from meta.console import progress_bar
from tasks.pose import FAR, NEAR, Pose, PoseBatch

FEW = 8  # steps after which poses.png compares the methods


@dataclass(frozen=True)
class Options:
    """Recover poses by first- and second-order methods; see the top of the file.

    Args:
        out: folder of the pictures.
        arch: backend: cpu, vulkan, cuda, or auto.
        precision: f64, or f32; auto takes f64 where the backend has it.
        poses: how many problems, one after the other.
        start: how far off the starts are, in degrees: the least and the most.
        scale: softness of the edges, in NDC.
        size: pixels on a side.
        adam_steps: of Adam; its learning rate falls to a hundredth.
        learning_rate: of Adam, at the start.
        newton_steps: of the others, at most.
        seed: of meshes, poses and starts.
    """

    out: Path = Path("out/newton_pose")
    arch: Literal["cpu", "vulkan", "cuda", "auto"] = "cpu"
    precision: Literal["f64", "f32", "auto"] = "auto"
    poses: int = 6
    start: tuple[float, float] = (10.0, 25.0)
    scale: float = 0.05
    size: int = 32
    adam_steps: int = 150
    learning_rate: float = 0.05
    newton_steps: int = 30
    seed: int = 0

    def __post_init__(self) -> None:
        for name in ("poses", "adam_steps", "newton_steps"):
            if getattr(self, name) < 1:
                raise ValueError(f"--{name.replace('_', '-')}: must be at least 1")
        if self.size < 16:
            raise ValueError("--size: must be at least 16")
        for name in ("scale", "learning_rate"):
            if not 0 < getattr(self, name) < math.inf:
                raise ValueError(f"--{name.replace('_', '-')}: must be positive")


class Problem:
    """One pose: pixels' residuals, their Jacobian, the loss, its gradient, its Hessian times v.

    All takes and gives float64 arrays, as scipy does. The target is the soft picture of the true
    pose: so the loss is exactly 0 there, and what limits an error is the method.
    """

    def __init__(self, task: PoseBatch, renderer: tr.SoftRasterizer) -> None:
        self.task, self.renderer = task, renderer
        self.copies = task.repeat(task.start().shape[1])
        with torch.no_grad():
            self.target = self.picture(task.hidden, task)
        self.start = task.start()[0].double().cpu().numpy()
        self._at: tuple[np.ndarray, Tensor, Tensor] | None = None

    def picture(self, unknowns: Tensor, task: PoseBatch) -> Tensor:
        return task.soft_image(unknowns, self.renderer, progress=0.0)[..., 0]

    def residuals(self, x: np.ndarray) -> np.ndarray:
        with torch.no_grad():
            return self._flat(self.picture(self.tensor(x), self.task) - self.target)

    def jacobian(self, x: np.ndarray) -> np.ndarray:
        """(pixels, K): one copy of the camera is pushed along each unknown, all in one render."""
        unknowns = self.tensor(x).repeat(len(x), 1)
        with forward_ad.dual_level():
            moving = forward_ad.make_dual(unknowns, torch.eye(len(x), dtype=unknowns.dtype))
            tangent = forward_ad.unpack_dual(self.picture(moving, self.copies)).tangent
        return np.stack([self._flat(image) for image in tangent], axis=1)

    def loss_and_gradient(self, x: np.ndarray, again: bool = True) -> tuple[float, np.ndarray]:
        """Half the sum of squared residuals; `again` keeps what `hessian_times` differentiates."""
        unknowns = self.tensor(x).requires_grad_()
        loss = 0.5 * (self.picture(unknowns, self.task) - self.target).square().sum()
        (gradient,) = torch.autograd.grad(loss, unknowns, create_graph=again)
        self._at = (x.copy(), unknowns, gradient) if again else None
        return loss.item(), self._flat(gradient.detach())

    def hessian_times(self, x: np.ndarray, v: np.ndarray) -> np.ndarray:
        """The derivative of (gradient . v): the Hessian itself is never formed."""
        if self._at is None or not np.array_equal(self._at[0], x):
            self.loss_and_gradient(x)
        assert self._at is not None
        _, unknowns, gradient = self._at
        (product,) = torch.autograd.grad(gradient, unknowns, self.tensor(v), retain_graph=True)
        return self._flat(product)

    def angle(self, x: np.ndarray) -> float:
        """How far off, in degrees."""
        return float(self.task.true_error(self.tensor(x)))

    def tensor(self, x: np.ndarray) -> Tensor:
        return torch.as_tensor(x, dtype=tr.runtime().dtype)[None]

    def _flat(self, tensor: Tensor) -> np.ndarray:
        return tensor.double().flatten().cpu().numpy()


@dataclass
class Descent:
    """Iterates of one method on one problem, and when each was reached (seconds)."""

    start: np.ndarray
    points: list[np.ndarray] = field(default_factory=list)
    seconds: list[float] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.begin = time.perf_counter()
        self(self.start)

    def __call__(self, x: np.ndarray) -> None:
        self.points.append(np.array(x))
        self.seconds.append(time.perf_counter() - self.begin)


def adam(problem: Problem, options: Options) -> Descent:
    x = torch.tensor(problem.start, requires_grad=True)
    optimiser = torch.optim.Adam([x], lr=options.learning_rate)
    schedule = torch.optim.lr_scheduler.ExponentialLR(optimiser, 0.01 ** (1 / options.adam_steps))
    path = Descent(problem.start)
    for _ in range(options.adam_steps):
        x.grad = torch.from_numpy(problem.loss_and_gradient(x.detach().numpy(), again=False)[1])
        optimiser.step()
        schedule.step()
        path(x.detach().numpy())
    return path


def gauss_newton(problem: Problem, options: Options) -> Descent:
    """Where residuals are small, J^T J is nearly the Hessian: first derivatives are enough."""
    path = Descent(problem.start)

    def jacobian(x: np.ndarray) -> np.ndarray:  # is asked for once at every accepted point
        if not np.array_equal(x, path.points[-1]):
            path(x)
        return problem.jacobian(x)

    tight = dict(ftol=1e-15, xtol=1e-15, gtol=1e-15)
    scipy.optimize.least_squares(
        problem.residuals, problem.start, jacobian, max_nfev=options.newton_steps, **tight
    )
    return path


def newton(problem: Problem, options: Options) -> Descent:
    """Conjugate gradients in a trust region: they see where the loss curves downwards."""
    path = Descent(problem.start)
    scipy.optimize.minimize(
        problem.loss_and_gradient,
        problem.start,
        method="trust-ncg",
        jac=True,
        hessp=problem.hessian_times,
        callback=path,
        options={"maxiter": options.newton_steps, "gtol": 1e-12, "initial_trust_radius": 0.3},
    )
    return path


METHODS: dict[str, Callable[[Problem, Options], Descent]] = {
    "Adam": adam,
    "Gauss-Newton": gauss_newton,
    "Newton-CG": newton,
}


def main(options: Options) -> None:
    precision = options.precision
    if precision == "auto":
        precision = "f32" if options.arch == "vulkan" else "f64"
    tr.init(arch=options.arch, precision=precision)
    console = Console()
    family = Pose(
        image_size=options.size, unknown_fov=True, start_angle=options.start, seed=options.seed
    )
    # Fronts and backs, and even the faintest fragments: what comes and goes makes a loss jump.
    edge = tr.Distribution("gaussian", scale=options.scale)
    renderer = tr.SoftRasterizer(options.size, edge, near=NEAR, far=FAR, threshold=1e-9)
    tasks = family.sample(options.poses, "test", 0)
    problems = [Problem(tasks.select([i]), renderer) for i in range(options.poses)]

    check_derivatives(problems[0], console)  # and compile everything, before any clock starts
    paths: dict[str, list[Descent]] = {name: [] for name in METHODS}
    with progress_bar(console) as progress:
        bar = progress.add_task("descending", total=len(METHODS) * len(problems), note="")
        for problem in problems:
            for name, method in METHODS.items():
                progress.update(bar, note=name)
                paths[name].append(method(problem, options))
                progress.update(bar, advance=1)

    angles = {
        name: [
            [problem.angle(x) for x in path.points]
            for problem, path in zip(problems, own, strict=True)
        ]
        for name, own in paths.items()
    }
    console.print(table(paths, angles))
    options.out.mkdir(parents=True, exist_ok=True)
    draw_convergence(options.out / "convergence.png", paths, angles, precision)
    draw_poses(options.out / "poses.png", problems, paths, angles)
    console.print(f"wrote convergence.png and poses.png into {options.out}/")


def check_derivatives(problem: Problem, console: Console) -> None:
    """Of both orders: against differences, and the Hessian's symmetry, u . H v = v . H u.

    In float32, whose differences span so far that they step over the kinks where another edge
    becomes the nearest, the symmetry alone tells of the second order.
    """
    x, rng = problem.start, np.random.default_rng(0)
    u, v = rng.normal(size=(2, *x.shape))
    double = tr.runtime().precision == "f64"
    h = 1e-6 if double else 3e-3

    def off(exact: np.ndarray, f: Callable[[np.ndarray], np.ndarray]) -> str:
        differences = (f(x + h * v) - f(x - h * v)) / (2 * h)
        return f"{np.linalg.norm(differences - exact) / np.linalg.norm(exact):.0e}"

    along, across = problem.hessian_times(x, v), problem.hessian_times(x, u)
    asymmetry = abs(u @ along - v @ across) / np.linalg.norm(along) / np.linalg.norm(u)
    first = off(problem.jacobian(x) @ v, problem.residuals)
    lines = [f"Jacobian against differences: {first}", f"asymmetry of the Hessian: {asymmetry:.0e}"]
    if double:
        second = off(along, lambda x: problem.loss_and_gradient(x)[1])
        lines.append(f"Hessian times v against differences: {second}")
    console.print("\n".join(lines))


def table(paths: dict[str, list[Descent]], angles: dict[str, list[list[float]]]) -> Table:
    result = Table(title=f"{len(paths['Adam'])} poses")
    for name in ("", "solved to 1°", "median steps to 1°", "median end", "seconds each"):
        result.add_column(name, justify="right" if name else "left")
    for name, errors in angles.items():
        steps = [next((i for i, e in enumerate(path) if e < 1), math.inf) for path in errors]
        solved = sum(path[-1] < 1 for path in errors)
        seconds = np.mean([path.seconds[-1] for path in paths[name]])
        result.add_row(
            name,
            f"{solved}/{len(errors)}",
            f"{np.median(steps):g}",
            f"{np.median([path[-1] for path in errors]):.1e}°",
            f"{seconds:.1f}",
        )
    return result


def draw_convergence(
    path: Path,
    paths: dict[str, list[Descent]],
    angles: dict[str, list[list[float]]],
    precision: str,
) -> None:
    """A line for each pose."""
    figure = Figure(figsize=(10, 4), layout="constrained")
    by_step, by_time = figure.subplots(1, 2, sharey=True)
    for colour, (name, errors) in zip(("C7", "C0", "C3"), angles.items(), strict=True):
        for i, error in enumerate(errors):
            look = dict(color=colour, alpha=0.8, linewidth=1.3, label=name if i == 0 else None)
            shown = np.maximum(error, 1e-12)
            by_step.semilogy(range(len(error)), shown, **look)
            by_time.loglog(np.maximum(paths[name][i].seconds, 1e-2), shown, **look)
    by_step.set(xlabel="step", ylabel="angle error (degrees)", xscale="symlog")
    by_time.set(xlabel="seconds")
    by_step.set_xlim(left=0)
    for axis in (by_step, by_time):
        axis.grid(alpha=0.3)
    by_step.legend()
    figure.suptitle(f"{len(errors)} poses from one soft silhouette each, {precision}", fontsize=10)
    figure.savefig(path, dpi=110)


@torch.no_grad()
def draw_poses(
    path: Path,
    problems: list[Problem],
    paths: dict[str, list[Descent]],
    angles: dict[str, list[list[float]]],
) -> None:
    """Columns: poses. Rows: the start, and each method; sharply, over the target."""
    # More pixels, and next to no softness.
    crisp = tr.SoftRasterizer(
        96, tr.Distribution("uniform", scale=1e-3), near=NEAR, far=FAR, antialias=2
    )
    columns = min(6, len(problems))
    figure = Figure(figsize=(1.5 * columns + 1, 6.9), layout="constrained")
    figure.suptitle("green: both; red: the target alone; blue: this pose alone", fontsize=9)
    axes = figure.subplots(len(paths) + 1, columns, squeeze=False)
    for column, problem in enumerate(problems[:columns]):
        rows = {"start": (problem.start, angles["Adam"][column][0])}
        for name in paths:
            k = min(FEW, len(paths[name][column].points) - 1)
            rows[f"{name},\n{FEW} steps"] = paths[name][column].points[k], angles[name][column][k]
        goal = problem.task.soft_image(problem.task.hidden, crisp, 1.0)[0, ..., 0]
        for row, (name, (x, angle)) in enumerate(rows.items()):
            got = problem.task.soft_image(problem.tensor(x), crisp, 1.0)[0, ..., 0]
            axis = axes[row, column]
            axis.imshow(
                torch.stack(
                    [1 - got, 1 - (goal - got).abs() * 0.7 - 0.35 * goal * got, 1 - goal], dim=-1
                )
                .clamp(0, 1)
                .numpy()
            )
            axis.set(xticks=[], yticks=[])
            axis.set_xlabel(f"{angle:.2g}° off", fontsize=8)
            if column == 0:
                axis.set_ylabel(name, fontsize=9)
    figure.savefig(path, dpi=110)


if __name__ == "__main__":
    try:
        main(tyro.cli(Options))
    except (ValueError, OSError, RuntimeError) as error:
        raise SystemExit(f"newton_pose: {error}") from error
