"""The progress bar of everything that takes long."""

from __future__ import annotations

from importlib.util import find_spec
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from rich.console import Console
    from rich.progress import Progress


def progress_bar(console: Console | None = None, quiet: bool = False) -> Progress:
    """A bar whose tasks show a description, a count, a note, the time taken and the time left.

    In a notebook without ipywidgets it is printed once, at its end: rich moves a bar by them alone.
    """
    from rich.console import Console
    from rich.progress import (  # here, as rich takes a while to import
        BarColumn,
        MofNCompleteColumn,
        Progress,
        TextColumn,
        TimeElapsedColumn,
        TimeRemainingColumn,
    )

    console = Console() if console is None else console
    if console.is_jupyter and find_spec("ipywidgets") is None:
        console = Console(force_jupyter=False, force_terminal=False, force_interactive=False)
    return Progress(
        TextColumn("{task.description}"),
        BarColumn(bar_width=24),
        MofNCompleteColumn(),
        TextColumn("{task.fields[note]}"),
        TimeElapsedColumn(),
        TextColumn("eta"),
        TimeRemainingColumn(),
        console=console,
        disable=quiet,
    )
