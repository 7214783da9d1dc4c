"""The numbers that options take, checked before a command begins."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, get_type_hints


@dataclass(frozen=True)
class Within:
    """Marks an option of a command: `size: Annotated[int, Within(8, 8192)]`. Ends count."""

    least: float
    most: float

    def check(self, option: str, value: Any) -> None:
        """ValueError, naming the option, unless it is None or a number in this range."""
        # A NaN is in no range.
        if value is not None and not self.least <= value <= self.most:
            raise ValueError(
                f"{option}: expected {self.least:.12g} to {self.most:.12g}, got {value}"
            )


SEED = Within(0, 2**32 - 1)
COUNT = Within(1, 1_000_000)
TEXELS = Within(16, 8192)
FOCAL = Within(1e-3, 1e9)


def ranges(command: type) -> dict[str, Within]:
    """Those that the fields of a command are marked with."""
    hints = get_type_hints(command, include_extras=True)
    found = {}
    for name, hint in hints.items():
        for mark in getattr(hint, "__metadata__", ()):
            if isinstance(mark, Within):
                found[name] = mark
    return found


def option(name: str) -> str:
    """What a field is called on the command line."""
    return f"--{name.replace('_', '-')}"


def check(command: Any) -> None:
    """ValueError for the first option whose number is out of its range."""
    for name, within in ranges(type(command)).items():
        within.check(option(name), getattr(command, name))
