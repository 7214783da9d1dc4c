"""Everything that can be set, as rows: each window draws them its own way."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal

from viewer.methods import CONORMS, OPTIMISERS
from viewer.session import LETTERS, Session

HORIZONS = (25, 50, 100, 200, 400)
LARGEST_SEED = 999


@dataclass(frozen=True)
class Row:
    """One setting.

    Attributes:
        kind: "choice" among `options`; or a whole ("int") or positive ("log") number between
            `low` and `high`.
        get, set: its value: a text among the options, or a number; `get` may give None, for what a
            learned softness decides itself.
    """

    name: str
    kind: Literal["choice", "int", "log"]
    get: Callable[[], Any]
    set: Callable[[Any], None]
    options: tuple[str, ...] = ()
    low: float = 0.0
    high: float = 1.0

    @property
    def text(self) -> str:
        value = self.get()
        if value is None:
            return "its own"
        return f"{value:.3g}" if self.kind == "log" else str(value)

    def nudge(self, direction: int) -> None:
        """The next value up or down: choices go round, numbers stop at their ends."""
        value = self.get()
        if self.kind == "choice":
            here = self.options.index(value) if value in self.options else -1
            self.set(self.options[(here + direction) % len(self.options)])
        elif self.kind == "int":
            self.set(int(min(max(value + direction, self.low), self.high)))
        else:
            middle = math.sqrt(self.low * self.high)
            factor = 10 ** (direction / 10)
            start = middle if value is None else value
            self.set(min(max(start * factor, self.low), self.high))


def rows(session: Session, edited: Callable[[], int], edit: Callable[[int], None]) -> list[Row]:
    """All settings; those of a method belong to the one that `edited` tells."""

    def method(name: str) -> dict[str, Any]:
        return {
            "get": lambda: getattr(session.runs[edited()].settings, name),
            "set": lambda value: session.set_method(edited(), **{name: value}),
        }

    def number(title: str, name: str, low: float, high: float) -> Row:
        return Row(title, "log", low=low, high=high, **method(name))

    def learned_or(names: tuple[str, ...], name: str) -> Row:
        return Row(name.replace("conorm", "T-conorm"), "choice", options=names, **method(name))

    return [
        Row(
            "task",
            "choice",
            lambda: session.family_name,
            lambda value: session.set_problem(family=value),
            tuple(session.families),
        ),
        Row(
            "seed",
            "int",
            lambda: session.seed,
            lambda value: session.set_problem(seed=value),
            low=0,
            high=LARGEST_SEED,
        ),
        Row(
            "steps",
            "choice",
            lambda: str(session.steps),
            lambda value: session.set_steps(int(value)),
            tuple(map(str, HORIZONS)),
        ),
        Row(
            "methods",
            "choice",
            lambda: str(len(session.runs)),
            lambda value: session.set_count(int(value)),
            ("1", "2"),
        ),
        Row(
            "edit method",
            "choice",
            lambda: LETTERS[edited()],
            lambda value: edit(LETTERS.index(value)),
            LETTERS,
        ),
        learned_or(session.library.names, "softness"),
        number("scale, first", "scale", 0.002, 0.5),
        number("scale, last", "scale_end", 0.002, 0.5),
        number("gamma", "gamma", 1e-4, 1.0),
        learned_or(CONORMS, "conorm"),
        number("its p", "p", 0.1, 10.0),
        number("learning rate", "lr", 1e-4, 1.0),
        Row(
            "rate decays",
            "choice",
            lambda: "yes" if session.runs[edited()].settings.decay else "no",
            lambda value: session.set_method(edited(), decay=value == "yes"),
            ("no", "yes"),
        ),
        learned_or(tuple(OPTIMISERS), "optimiser"),
    ]
