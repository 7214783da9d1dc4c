"""An optimisation that can be watched, stopped, changed and pulled at: no window, no drawing."""

from __future__ import annotations

import json
import math
import time
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file
from torch import Tensor, nn

import taichi_raster as tr
from meta.inner.updates import rule_for
from viewer.families import FAMILIES, Family, rgb
from viewer.methods import OPTIMISERS, Library, MethodSettings
from viewer.turn import Turn

LETTERS = ("A", "B")


@dataclass
class Run:
    """One method at work.

    Attributes:
        params: the unknowns, (1, ...). state: the update rule's.
        step: steps taken since the start. base: the step at which progress is 0.
        losses: of the unknowns before each step. errors: (step, true error) where it was asked for.
        failure: what went wrong, if something did; such a run stands still.
    """

    settings: MethodSettings
    renderer: tr.SoftRasterizer
    rate: nn.Module
    params: Tensor
    state: Any
    step: int = 0
    base: int = 0
    losses: list[float] = field(default_factory=list)
    errors: list[tuple[int, float]] = field(default_factory=list)
    failure: str | None = None
    noted: int = -1  # the session's version that the last error is of

    def progress(self, steps: int) -> float:
        """From 0, the start, to 1 after `steps` steps, where it stays."""
        return min((self.step - self.base) / steps, 1.0)


class Session:
    """One problem, and one or two methods that solve it.

    Args:
        family: a name in `families`.
        seed: of the problem.
        methods: settings of one or two methods; by default one, the family's own.
        steps: over which schedules run; the optimisation stops there and can be told to go on.
        size: of pictures, in pixels.
        library: the softnesses that there are.
        families: the problems that there are.

    Raises ValueError, naming the argument.
    """

    def __init__(
        self,
        family: str = "shape2d",
        seed: int = 0,
        methods: tuple[MethodSettings, ...] = (),
        steps: int = 100,
        size: int = 56,
        library: Library | None = None,
        families: Mapping[str, Family] = FAMILIES,
    ) -> None:
        self.library = Library.of() if library is None else library
        self.families = families
        self.steps, self.size = steps, size
        self.task: Any
        self.until: int
        self._work: Iterator[None] | None = None  # a step that is under way
        self.paused = False
        self.version = 0  # rises with every change from outside
        self._compiled: set[object] = set()
        self._held: tuple[Run, int, Tensor] | None = None
        self._turn: tuple[int, Turn | None] = (0, None)  # at which step, and how far
        self._pose(family, seed)
        self.runs = [self._run(m) for m in methods or (self.default_method(),)]
        self.restart()

    # The problem and the methods -----------------------------------------------------------------

    @property
    def family(self) -> Family:
        return self.families[self.family_name]

    def default_method(self) -> MethodSettings:
        """The family's own settings."""
        return MethodSettings(**self.family.start)

    def second_method(self) -> MethodSettings:
        """The first method's settings, but a constant scale: something to compare with."""
        first = self.runs[0].settings
        if first.scale is None:
            return self.default_method()
        return replace(first, scale_end=first.scale)

    def set_problem(self, family: str | None = None, seed: int | None = None) -> None:
        """Another problem, from its start; another family brings its own scales and rates."""
        other = family is not None and family != self.family_name
        self._pose(family or self.family_name, self.seed if seed is None else seed)
        settings = [self._moved(run.settings) if other else run.settings for run in self.runs]
        self.runs = [self._run(each) for each in settings]
        self.restart()

    def set_steps(self, steps: int) -> None:
        """Another horizon for the schedules."""
        if steps < 1:
            raise ValueError(f"steps: must be at least 1, got {steps}")
        self.steps = steps
        self.until = max(self.until, steps) if self.taken else steps
        self._changed()

    def set_method(self, index: int, **changes: Any) -> None:
        """Change a method where it stands; a new optimiser forgets what the old one knew."""
        run = self.runs[index]
        if "softness" in changes:
            name = changes.pop("softness")
            changes = {**self.library.choose(run.settings, name, self.family), **changes}
        settings = replace(run.settings, **changes)
        fresh = self._run(settings)  # raises before anything is changed
        if settings.optimiser == run.settings.optimiser:
            fresh.state = run.state
        fresh.params, fresh.step, fresh.base = run.params, run.step, run.base
        fresh.losses, fresh.errors = run.losses, run.errors
        self.runs[index] = fresh
        self._changed()

    def set_count(self, count: int) -> None:
        """One method, or two side by side, which then both start anew."""
        if count not in (1, 2):
            raise ValueError(f"count: expected 1 or 2, got {count}")
        if count == len(self.runs):
            return
        self.runs = self.runs[:1] if count == 1 else [*self.runs, self._run(self.second_method())]
        if count == 2:
            self.restart()
        self._changed()

    # Optimising ----------------------------------------------------------------------------------

    @property
    def taken(self) -> int:
        """Steps that the method farthest ahead has taken."""
        return max(run.step for run in self.runs)

    @property
    def active(self) -> list[Run]:
        """Those that have steps left."""
        return [run for run in self.runs if run.failure is None and run.step < self.until]

    def restart(self) -> None:
        """Everything from the start."""
        for run in self.runs:
            run.params = self.task.start().clone()
            run.state = OPTIMISERS[run.settings.optimiser].init(run.params)
            run.step = run.base = 0
            run.losses, run.errors, run.failure = [], [], None
        self.until = self.steps
        self._held = None
        self._changed()

    def anneal_again(self) -> None:
        """Progress 0 from here on: schedules start again, unknowns stay."""
        for run in self.runs:
            run.base, run.failure = run.step, None
            run.state = OPTIMISERS[run.settings.optimiser].init(run.params)
        self.until = self.taken + self.steps
        self.paused = False
        self._changed()

    def toggle(self) -> None:
        """Pause, or go on; beyond the last step, for as many again at the schedules' ends."""
        if not self.active:
            self.until = self.taken + self.steps
            self.paused = False
        else:
            self.paused = not self.paused

    def step(self) -> None:
        """One step of every method, paused or not."""
        if not self.active:
            self.until = self.taken + 1
        steps = [run.step for run in self.active]
        goal = max(steps, default=0) + (len(set(steps)) == 1)  # one may be a step behind
        while self._work is not None:  # a step that is under way is the one asked for
            self._piece()
        for run in self.active:
            if run.step < goal:
                for _ in self._pieces(run):
                    pass
        self.note_errors()

    def work(self, seconds: float) -> int:
        """Optimise for about that long, at least one piece of a step; the steps finished.

        A step is done in pieces (a render, its gradient), so that a slow one takes several calls.
        """
        if self.paused:
            return 0
        before = sum(run.step for run in self.runs)
        deadline = time.perf_counter() + seconds
        while self._piece() and time.perf_counter() < deadline:
            pass
        if not self.active:
            self.paused = True
        return sum(run.step for run in self.runs) - before

    def compiles_next(self) -> bool:
        """Whether kernels will be compiled that were not before; true once for each method."""
        new = {(self.family_name, r.settings.softness, r.settings.conorm) for r in self.runs}
        fresh = not new <= self._compiled
        self._compiled |= new
        return fresh

    def _piece(self) -> bool:
        """The next piece of a step; false if there is nothing to do."""
        if self._work is None:
            waiting = self.active
            if not waiting:
                return False
            self._work = self._pieces(min(waiting, key=lambda run: run.step))
        if next(self._work, "done") == "done":
            self._work = None
        return True

    def _pieces(self, run: Run) -> Iterator[None]:
        """One step."""
        progress = run.progress(self.steps)
        params = run.params.detach().requires_grad_()
        try:
            loss = self.task.loss(params, run.renderer, progress)
        except ValueError as error:  # the scene has left the picture, or blown up
            run.failure = f"step {run.step}: {error}"
            return
        yield
        (grad,) = torch.autograd.grad(loss.sum(), params)
        rate = run.rate(torch.tensor(progress, dtype=torch.float64))
        rule = rule_for(OPTIMISERS[run.settings.optimiser], self.task)
        moved, state = rule.step(params.detach(), grad, run.state, rate)
        if not bool(torch.isfinite(moved).all()):
            run.failure = f"step {run.step}: an unknown is not finite; lower the learning rate"
            return
        run.params, run.state, run.step = moved, state, run.step + 1
        run.losses.append(float(loss.detach()))
        if self._held is not None and self._held[0] is run:
            self._put(*self._held)

    # Pulling -------------------------------------------------------------------------------------

    def corners(self, index: int | None) -> Tensor | None:
        """(N, 2) corners of a method's triangles, or of the target's (None), in NDC."""
        if self.family.drags != "corners":
            return None
        shapes = self.task.hidden if index is None else self.runs[index].params
        return shapes[0].reshape(-1, 2)

    def grab(self, index: int | None, x: float, y: float, reach: float = 0.15) -> int | None:
        """The corner nearest to (x, y) in NDC, if within reach."""
        corners = self.corners(index)
        if corners is None:
            return None
        distance = (corners - torch.tensor([x, y])).norm(dim=1)
        nearest = int(distance.argmin())
        return nearest if float(distance[nearest]) <= reach else None

    def drag(self, index: int | None, corner: int, x: float, y: float) -> None:
        """Hold a corner at (x, y); that of the target (None) changes the problem."""
        place = torch.tensor([x, y], dtype=self.task.hidden.dtype)
        if index is None:
            hidden = self.task.hidden.clone()
            hidden[0].reshape(-1, 2)[corner] = place
            self.task = replace(self.task, hidden=hidden, _cache={})
        else:
            self._held = (self.runs[index], corner, place)
            self._put(*self._held)
        self._changed()

    def release(self) -> None:
        """Let go of the corner."""
        self._held = None

    def orbit(self, index: int, right: float, up: float, closer: float = 0.0) -> None:
        """Turn the mesh in a method's picture, by radians to the right and up, or move it.

        Where that is not what is optimised, all results turn, until the next step.
        """
        if self.family.drags == "result" and self.paused:
            self._turn = self.taken, (self.turn or Turn()).moved(right, up, closer)
            self._changed()
        if self.family.drags != "camera":
            return
        run = self.runs[index]
        params = run.params.clone()
        params[0, 2] -= right
        params[0, 1] -= up
        params[0, 0] -= closer
        run.params, run.failure = params, None
        self._changed()

    def _put(self, run: Run, corner: int, place: Tensor) -> None:
        params = run.params.clone()
        params[0].reshape(-1, 2)[corner] = place
        run.params, run.failure = params, None

    # Looking -------------------------------------------------------------------------------------

    @torch.no_grad()
    def target(self) -> Tensor:
        """The target's picture, (H, W, 3)."""
        return rgb(self.task.target, self.family.views)

    @torch.no_grad()
    def soft(self, index: int) -> Tensor:
        """A method's soft picture now, (H, W, 3), colours times alpha."""
        run = self.runs[index]
        image = self.task.soft_image(run.params, run.renderer, run.progress(self.steps))
        return rgb(image, self.family.views, fade=True)

    @torch.no_grad()
    def sharp(self, index: int) -> Tensor:
        """A method's sharp picture now, (H, W, 3).

        Counted at 3 x 3 points a pixel, by the kernels: the families' own sharp renderers are
        differentiable, and take several times as long.
        """
        image = self.task.soft_image(self.runs[index].params, self._sharp, 1.0)
        return rgb(image, self.family.views)

    @torch.no_grad()
    def pictures(self, index: int) -> dict[str, Tensor]:
        """A method's pictures by their kinds, (H, W, 3); the error is (H, W)."""
        target, overlay = self.target(), getattr(self.task, "overlay", None)
        if overlay is None:
            sharp = self.sharp(index)
            error = (sharp - target).abs().mean(dim=-1)
        else:
            sharp, error = overlay(self.runs[index].params, self._sharp, self.turn)
        return {"target": target, "soft": self.soft(index), "sharp": sharp, "error": error}

    @property
    def turn(self) -> Turn | None:
        """How the mouse has turned results that stand still, if it has."""
        taken, turn = self._turn
        return turn if self.paused and taken == self.taken else None

    @torch.no_grad()
    def note_errors(self) -> None:
        """Take down the true error of every method where it stands."""
        for run in self.runs:
            known = run.errors[-1] if run.errors else (-1, 0.0)
            if known[0] < run.step or run.noted != self.version:
                error = (run.step, float(self.task.true_error(run.params)))
                if known[0] == run.step:  # something was moved meanwhile
                    run.errors.pop()
                run.errors.append(error)
                run.noted = self.version

    def scale(self, index: int) -> float:
        """The scale of a method's softness now, in NDC."""
        run = self.runs[index]
        u = torch.tensor(run.progress(self.steps), dtype=torch.float64)
        return float(run.renderer.edge.scale(u).detach())

    @torch.no_grad()
    def curve(self, index: int, x: Tensor) -> Tensor:
        """F of a method's softness now, at distances `x` in units of its scale."""
        run = self.runs[index]
        values: Tensor = run.renderer.edge.value(x * self.scale(index), run.progress(self.steps))
        return values

    def save_parameters(self, path: Path) -> None:
        """Unknowns, solution, losses and errors as safetensors; settings are in its metadata."""
        self.note_errors()
        tensors = {"start": self.task.start()}
        if isinstance(getattr(self.task, "hidden", None), Tensor):
            tensors["hidden"] = self.task.hidden
        for letter, run in zip(LETTERS, self.runs, strict=False):
            tensors[f"{letter}.unknowns"] = run.params
            tensors[f"{letter}.losses"] = torch.tensor(run.losses)
            tensors[f"{letter}.errors"] = torch.tensor(run.errors)
        methods = {
            letter: {**asdict(run.settings), "steps taken": run.step}
            for letter, run in zip(LETTERS, self.runs, strict=False)
        }
        problem = {"task": self.family_name, "seed": self.seed, "image_size": self.size}
        about = json.dumps({**problem, "steps": self.steps, "methods": methods})
        save_file({k: v.contiguous() for k, v in tensors.items()}, path, {"viewer": about})

    # ---------------------------------------------------------------------------------------------

    def _pose(self, family: str, seed: int) -> None:
        if family not in self.families:
            known = ", ".join(self.families)
            raise ValueError(f"family: unknown {family!r}; known: {known}")
        self.tasks = self.families[family].make(seed, self.size)
        self.task = self.tasks.sample(1, "test", 0)
        self.family_name, self.seed = family, seed
        self._sharp = self.tasks.renderer(
            tr.Distribution("heaviside"), tr.HardDepth(), tr.TConorm("hard")
        )
        self._sharp.antialias = 3

    def _moved(self, old: MethodSettings) -> MethodSettings:
        """The family's own scales and rates, all else as it was."""
        fresh = replace(
            self.default_method(),
            conorm=old.conorm,
            p=old.p,
            decay=old.decay,
            optimiser=old.optimiser,
        )
        fresh = replace(fresh, **self.library.choose(fresh, old.softness, self.family))
        constant = old.scale is not None and old.scale == old.scale_end
        return replace(fresh, scale_end=fresh.scale) if constant else fresh

    def _run(self, settings: MethodSettings) -> Run:
        params = self.task.start().clone()
        for name in ("scale", "scale_end", "gamma", "lr", "p"):
            value = getattr(settings, name)
            if value is not None and not (math.isfinite(value) and value > 0):
                raise ValueError(f"{name}: must be positive, got {value}")
        parts = self.library.parts(settings, self.task)
        return Run(
            settings,
            self.library.renderer(settings, self.tasks, parts),
            self.library.rate(settings, self.family, parts),
            params,
            OPTIMISERS[settings.optimiser].init(params),
        )

    def _changed(self) -> None:
        """A step that was under way is dropped: it started from what is no longer so."""
        self._work = None
        self.version += 1
