"""The loop of a descent: what every fit writes around its own few lines, once.

    pose = torch.zeros(24, 6, requires_grad=True)  # 24 starts, side by side
    descent = tr.Descent(torch.optim.Adam([pose]), 300, lr=tr.Geometric(0.1, 0.01), title="pose")
    for step in descent:
        faces = geometry(pose)
        image = renderer.silhouette(faces, progress=step.progress)
        step.descend(tr.silhouette_iou_loss(image, target))
    (found,) = descent.best

A user's loop stays a loop: its body draws and compares as it likes. The descent counts, sets
learning rates, refuses what is not finite, keeps the best, shows a bar, writes checkpoints, and
ends the loop where the picture rests or somebody presses Ctrl-C.
"""

from __future__ import annotations

import logging
import os
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeAlias

import torch
from jaxtyping import Float
from torch import Tensor

from taichi_raster import checks
from taichi_raster.fitting import checkpoint as files
from taichi_raster.fitting.interrupt import first_interrupt
from taichi_raster.fitting.items import Kept, better_of, check_finite, count_items, over
from taichi_raster.fitting.progress import progress_bar
from taichi_raster.fitting.rest import Motion, Rest
from taichi_raster.fitting.steps import ImageSteps
from taichi_raster.softness.schedule import Schedule, as_progress, as_schedule

if TYPE_CHECKING:
    from rich.console import Console

logger = logging.getLogger(__name__)

Rate: TypeAlias = "float | Schedule"


@dataclass(eq=False)
class Step:
    """One pass through the loop of a `Descent`.

    Attributes:
        index: of the step, from 0.
        progress: for renderers and schedules.
        last: the pass that measures the last iterate, and moves nothing; see `Descent`.
    """

    index: int
    progress: float
    last: bool
    _descend: Callable[[Tensor, Tensor | None, float], None] = field(repr=False)
    _done: bool = field(default=False, repr=False)

    def descend(
        self, loss: Float[Tensor, "*B"], seen: Float[Tensor, "R *n D"] | None = None
    ) -> None:
        """Take the loss of the iterate as it is, and move it down the gradient.

        Args:
            loss: (B,) of each item, or 0-d. Their sum is differentiated, so that items whose losses
                do not depend on one another are fitted as if each were alone.
            seen: corners (R, ..., 3) or (R, ..., 2) in NDC, as the renderer was given them; only
                for `rest`. Rows of one item are next to each other.

        Raises:
            FloatingPointError: if a loss or a gradient is not finite, naming step and items. The
                unknowns are as they were.
            TypeError, ValueError: for other shapes, or if it was called before in this pass.
        """
        if self._done:
            raise ValueError(f"descend: was called twice in step {self.index}")
        self._done = True
        self._descend(loss, seen, self.progress)


class Descent:
    """Iterates over the steps of a descent; the loop's body draws, compares, and calls `descend`.

    Step i of n runs at progress i / n. With `best_from`, the body runs once more in the end, at
    progress 1, to measure the last iterate: then the loss of all that may be kept is known.

    Ctrl-C ends the loop after the step that runs, as if it were the last, and sets `interrupted`;
    pressed once more, it is a KeyboardInterrupt. (So it is in a thread other than the main one, or
    if the program handles SIGINT itself.) Another `for` over the same descent resumes where it
    ended, after a `break`, too.

    Args:
        optimiser: of torch, or an `ImageSteps`; the unknowns are its parameters.
        steps: n; with 0, the body runs at most to measure.
        lr: learning rate, a number or a schedule by progress; or a list, one for each parameter
            group, with None for the group's own. By default the optimiser's own.
        between: progress at the first step and after the last: a part of a longer descent.
        per_item: whether tensors of unknowns are (B, ...), for losses (B,): one flag, or one for
            each group. False for what all items share. Ignored where the loss is 0-d.
        best_from: the progress from which on each item's iterate of the lowest loss is kept: 0 for
            a loss that means the same all the time, 1 for the last iterate. Losses of different
            softness say little about each other. None keeps the last iterate, without measuring it.
        rest: when an item counts as having arrived; see `Rest`.
        title: of the progress bar; without one, none is shown.
        console: of rich, for the bar.
        checkpoint: a file for the state of the descent. It is replaced as a whole, never in part.
        save_every: seconds between checkpoints; also at the end of the loop.
        resume: go on from the checkpoint if there is one. The rest of the run is the same to the
            last bit, if nothing random is drawn but by `step.index`. Without it, a file that is
            there is replaced at the first save.

    Attributes:
        taken: steps so far.
        interrupted: whether Ctrl-C ended the loop.
        at_rest: (B,), items that have arrived; None before the first step.

    Raises:
        TypeError, ValueError: naming the argument, for values out of range; or the file, for a
            checkpoint that is damaged or of another descent.
        FileNotFoundError: if the checkpoint's folder does not exist.

    Example:
        >>> for step in (descent := Descent(torch.optim.Adam([x], lr=0.1), 100)):
        ...     step.descend((x - 1).square().sum())
    """

    def __init__(
        self,
        optimiser: torch.optim.Optimizer | ImageSteps,
        steps: int,
        *,
        lr: Rate | Sequence[Rate | None] | None = None,
        between: tuple[float, float] = (0.0, 1.0),
        per_item: bool | Sequence[bool] = True,
        best_from: float | None = None,
        rest: Rest | None = None,
        title: str | None = None,
        console: Console | None = None,
        checkpoint: str | os.PathLike[str] | None = None,
        save_every: float = 30.0,
        resume: bool = False,
    ) -> None:
        checks.instance("optimiser", optimiser, torch.optim.Optimizer, ImageSteps)
        if isinstance(optimiser, torch.optim.LBFGS):
            raise TypeError("optimiser: LBFGS calls the loss itself; take another one")
        self.optimiser = optimiser
        self._torch = optimiser.optimiser if isinstance(optimiser, ImageSteps) else optimiser
        self.steps = checks.whole("steps", steps, 0)
        if isinstance(optimiser, ImageSteps) and lr is not None:
            raise ValueError("lr: has no effect on ImageSteps, whose steps are its eta")
        groups = self._torch.param_groups
        self._rates = _for_groups("lr", lr, len(groups))
        self._schedules = [None if r is None else as_schedule("lr", r) for r in self._rates]
        first, last = (as_progress(checks.number("between", u), 1).item() for u in between)
        if not first < last:
            raise ValueError(f"between: must ascend, got {between}")
        self.between = (first, last)
        flags = _for_groups("per_item", per_item, len(groups))
        self._own = [
            checks.flag("per_item", flag)
            for flag, group in zip(flags, groups, strict=True)
            for _ in group["params"]
        ]
        self.best_from = best_from
        if best_from is not None and not 0 <= checks.number("best_from", best_from) <= 1:
            raise ValueError(f"best_from: must lie in [0, 1], got {best_from}")
        self.rest: Rest | None = None if rest is None else checks.instance("rest", rest, Rest)
        self.title = title
        self.console = console
        self.save_every = checks.positive("save_every", save_every)
        self.taken = 0
        self.interrupted = False
        self.at_rest: Tensor | None = None
        self._finished = self.steps == 0 and best_from is None
        self._losses: Tensor | None = None
        self._kept: Kept | None = None
        self._motion = None if rest is None else Motion(rest)
        self._path = None if checkpoint is None else files.checked(checkpoint)
        if checks.flag("resume", resume):
            if self._path is None:
                raise ValueError("resume: needs a checkpoint")
            if self._path.is_file():
                self._resume(self._path)

    @property
    def unknowns(self) -> tuple[Tensor, ...]:
        """The optimiser's parameters, group by group, as they are."""
        return tuple(x for group in self._torch.param_groups for x in group["params"])

    @property
    def best(self) -> tuple[Tensor, ...]:
        """Copies of the unknowns without their gradient, the best of each item; see `best_from`."""
        now = [x.detach().clone() for x in self.unknowns]
        if self._kept is None:
            return tuple(now)
        whole = self._kept.losses.ndim == 0
        return tuple(
            kept.clone() if whole or own else x
            for kept, x, own in zip(self._kept.values, now, self._own, strict=True)
        )

    @property
    def losses(self) -> Float[Tensor, "*B"]:
        """The loss of each item of `best`; without `best_from`, that before the last step.

        Raises:
            ValueError: before the first step.
        """
        if self._losses is None:
            raise ValueError("losses: there are none before the first step")
        return (self._losses if self._kept is None else self._kept.losses).clone()

    @property
    def winner(self) -> int:
        """The item of the lowest loss, of several starts of one problem."""
        return int(self.losses.argmin())

    def __iter__(self) -> Iterator[Step]:
        self.interrupted = False
        saved = time.monotonic()
        with first_interrupt(self._interrupt), self._bar() as show:
            while not (self._finished or self.interrupted):
                step = self._next()
                yield step
                if not step._done:
                    raise ValueError(f"step {step.index}: the loop's body did not call descend")
                show()
                if self._path is not None and time.monotonic() - saved > self.save_every:
                    self.save()
                    saved = time.monotonic()
        if self._path is not None:
            self.save()
        if self.interrupted:
            logger.warning(
                "descent: interrupted after %d of %d steps; what there is is kept",
                self.taken,
                self.steps,
            )

    def save(self) -> None:
        """Write the checkpoint now.

        Raises:
            ValueError: if there is none.
        """
        if self._path is None:
            raise ValueError("checkpoint: none was given")
        files.write(self._path, self._state())

    def _interrupt(self) -> None:
        self.interrupted = True

    # A step ------------------------------------------------------------------------------------

    def _next(self) -> Step:
        first, last = self.between
        share = self.taken / self.steps if self.steps else 1.0
        progress = min(first + (last - first) * share, 1.0)
        for group, schedule in zip(self._torch.param_groups, self._schedules, strict=True):
            if schedule is not None:
                group["lr"] = float(schedule(as_progress(progress, 1)))
        return Step(self.taken, progress, self.taken == self.steps, self._descend)

    def _descend(self, loss: Tensor, seen: Tensor | None, progress: float) -> None:
        unknowns = self.unknowns
        items = count_items(loss, self._losses, unknowns, self._own)
        where = f"at step {self.taken} (progress {progress:.3g})"
        check_finite("the loss", loss.detach().reshape(items, 1), where, loss.ndim == 1)
        if self.at_rest is None:
            self.at_rest = torch.zeros(items, dtype=torch.bool, device=loss.device)
        last = self.taken == self.steps
        self._losses = loss.detach().clone()
        if self.best_from is not None and progress >= self.best_from:
            self._kept = better_of(self._kept, Kept.of(unknowns, self._losses), self._own)
        if last:
            self._finished = True
            return
        if self._motion is not None and self._motion.due(self.taken):
            self.at_rest |= self._motion.rested(self._seen(seen), items, progress)
            if bool(self.at_rest.all()):
                self._finished = True
                return
        self._move(loss, items, progress, where)
        self.taken += 1
        self._finished = self.taken == self.steps and self.best_from is None

    def _move(self, loss: Tensor, items: int, progress: float, where: str) -> None:
        if not loss.requires_grad:
            raise ValueError("loss: does not depend on the unknowns by anything differentiable")
        self.optimiser.zero_grad()
        loss.sum().backward()
        unknowns = self.unknowns
        if all(x.grad is None for x in unknowns):
            raise ValueError("loss: does not depend on the optimiser's parameters")
        for i, (x, own) in enumerate(zip(unknowns, self._own, strict=True)):
            if x.grad is not None:
                each = own and loss.ndim == 1
                rows = x.grad.detach().reshape(items if each else 1, -1)
                check_finite(f"the gradient of parameter {i}", rows, where, each)
        assert self.at_rest is not None
        some = loss.ndim == 1 and bool(self.at_rest.any())
        before = [x.detach().clone() for x in unknowns] if some else []
        if isinstance(self.optimiser, ImageSteps):
            self.optimiser.step(progress)
        else:
            self.optimiser.step()
        with torch.no_grad():
            for x, old, own in zip(unknowns, before, self._own, strict=False):
                if own:
                    x.copy_(torch.where(over(self.at_rest, x), old, x))

    def _seen(self, seen: Any) -> Tensor:
        if seen is None and isinstance(self.optimiser, ImageSteps):
            with torch.no_grad():
                found = self.optimiser.geometry(*self.unknowns)
            return found[0] if isinstance(found, tuple) else found
        if seen is None:
            raise ValueError("seen: give descend the corners that were drawn; rest needs them")
        return checks.floats("seen", seen).detach()

    @contextmanager
    def _bar(self) -> Iterator[Callable[[], None]]:
        """A bar while the loop runs, and what shows in it that a step is done."""
        if self.title is None:
            yield lambda: None
            return
        total = self.steps + (self.best_from is not None)
        with progress_bar(self.console) as bar:
            line = bar.add_task(self.title, total=total, completed=self.taken, note="compiling")

            def show() -> None:
                done = total if self._finished else self.taken
                bar.update(line, completed=done, note=self._note())

            yield show

    def _note(self) -> str:
        assert self._losses is not None and self.at_rest is not None
        note = f"loss {float(self._losses.mean()):.4f}"
        if self.rest is not None and len(self.at_rest) > 1:
            note += f", {int(self.at_rest.sum())} of {len(self.at_rest)} at rest"
        return f"{note}, stopping" if self.interrupted else note

    # Checkpoints -------------------------------------------------------------------------------

    def _settings(self) -> dict[str, Any]:
        return {
            "optimiser": type(self._torch).__name__,
            "in the picture": isinstance(self.optimiser, ImageSteps),
            "steps": self.steps,
            "between": list(self.between),
            "best_from": self.best_from,
            "unknowns": [[*x.shape] for x in self.unknowns],
            "dtypes": [str(x.dtype) for x in self.unknowns],
        }

    def _state(self) -> dict[str, Any]:
        return {
            "settings": self._settings(),
            "taken": self.taken,
            "finished": self._finished,
            "unknowns": [x.detach() for x in self.unknowns],
            "optimiser": self.optimiser.state_dict(),
            "losses": self._losses,
            "kept": None if self._kept is None else [self._kept.values, self._kept.losses],
            "at_rest": self.at_rest,
            "motion": None if self._motion is None else self._motion.state(),
        }

    def _resume(self, path: Path) -> None:
        state = files.read(path, self._settings())
        device = self.unknowns[0].device
        try:
            with torch.no_grad():
                for x, value in zip(self.unknowns, state["unknowns"], strict=True):
                    x.copy_(value)
            self.optimiser.load_state_dict(state["optimiser"])
            self.taken, self._finished = int(state["taken"]), bool(state["finished"])
            self._losses, self.at_rest = (_on(state[k], device) for k in ("losses", "at_rest"))
            kept = state["kept"]
            self._kept = None if kept is None else Kept(*_on(kept, device))
            if self._motion is not None:
                self._motion.load(_on(state["motion"], device))
        except (KeyError, TypeError, ValueError, RuntimeError, IndexError) as error:
            raise ValueError(f"checkpoint: {path} is not of this descent: {error}") from error


def _for_groups(name: str, value: Any, count: int) -> list[Any]:
    each = list(value) if isinstance(value, list | tuple) else [value] * count
    if len(each) != count:
        raise ValueError(f"{name}: expected one for each of {count} groups, got {len(each)}")
    return each


def _on(value: Any, device: torch.device) -> Any:
    if isinstance(value, Tensor):
        return value.to(device)
    return [_on(part, device) for part in value] if isinstance(value, list) else value
