"""A bar neither warns nor fails in a notebook that cannot move it."""

import io
import warnings

import pytest
from rich.console import Console

from taichi_raster.fitting import progress

pytestmark = pytest.mark.runs_on(arch="cpu", precision="f64")


def test_a_notebook_without_widgets_gets_a_bar_that_does_not_move(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(progress, "find_spec", lambda name: None)
    shown = progress.progress_bar(Console(force_jupyter=True, file=io.StringIO()))
    assert not shown.console.is_jupyter
    assert not shown.console.is_terminal  # else each movement is a line of its own
    with warnings.catch_warnings():
        warnings.simplefilter("error")  # rich asks for ipywidgets by a warning
        with shown:
            shown.update(shown.add_task("fit", total=2, note=""), advance=2)


def test_a_notebook_with_widgets_and_a_terminal_keep_theirs(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(progress, "find_spec", lambda name: object())
    notebook, terminal = Console(force_jupyter=True), Console(force_jupyter=False)
    assert progress.progress_bar(notebook).console is notebook
    monkeypatch.setattr(progress, "find_spec", lambda name: None)
    assert progress.progress_bar(terminal).console is terminal
