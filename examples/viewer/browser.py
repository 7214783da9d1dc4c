"""The viewer in a browser, for machines whose screen is elsewhere: a page that viser serves."""

from __future__ import annotations

import queue
import threading
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from viewer.app import App
from viewer.controls import Row
from viewer.painter import GAP, KINDS, PICTURE, TITLE, places, plots
from viewer.plots import BACKGROUND
from viewer.scene import Scene
from viewer.session import LETTERS
from viewer.windows import Frame, Window

BUTTONS = {"pause / go on": "space", "step": "n", "restart": "r", "anneal again": "h"}
SAVING = {"picture": "s", "GIF: start / save": "g", "parameters": "p"}
PLOT = (2 * PICTURE + GAP, 150)  # width and height of a plot, in pixels
PER_DECADE = 20  # places of a slider


class Browser(Window):
    """A page with pictures, plots and settings beside the meshes, which the mouse turns.

    The descent waits for the first page to be opened: it would often be over before.

    Args:
        app: what is shown.
        host: the address to listen on; 127.0.0.1 lets in this machine's own programs alone.
        port: or the next that is free.

    Raises ImportError, saying what to install, where viser is missing.
    """

    def __init__(self, app: App, host: str = "127.0.0.1", port: int = 8080) -> None:
        super().__init__(app)
        try:
            import viser
        except ImportError as error:
            raise ImportError(
                "the browser needs viser: pip install 'taichi-raster[browser]'"
            ) from error
        self._come: queue.SimpleQueue[Callable[[], None]] = queue.SimpleQueue()
        self._writer: int | None = None  # the thread that writes to the page, while it does
        self._drawn: object = None
        self.server: Any = viser.ViserServer(host, port, label="taichi-raster", verbose=False)
        self.server.gui.configure_theme(
            dark_mode=True, control_width="large", show_share_button=False
        )
        self.server.on_client_connect(lambda client: self._come.put(self._opened))
        self.server.gui.main_panel.dock_right()
        self.scene = Scene(self.server)
        self._waiting = not app.session.paused
        app.session.paused = True
        self._panel()

    @property
    def address(self) -> str:
        """What to open in a browser on this machine."""
        return f"http://localhost:{self.server.get_port()}"

    def close(self) -> None:
        """Stop to serve the page."""
        self.server.stop()

    def screenshot(self, path: Path) -> None:
        Image.fromarray(self.app.frame()).convert("RGB").save(path)

    def show(self, frame: Frame) -> None:
        self._stepped = False
        self._events()
        frame = self.app.frame()  # as it is after what came in
        with self.server.atomic():
            if self._drawn is not frame:
                self.scene.show(self.app.session)
                self._pictures(frame)
                self._drawn = frame
            self._write()

    # What comes in -------------------------------------------------------------------------------

    def _events(self) -> None:
        """Pages have threads of their own: what they ask for waits here for the viewer's."""
        while True:
            try:
                asked = self._come.get_nowait()
            except queue.Empty:
                return
            try:
                asked()
            except ValueError as error:  # a setting that does not go with the others
                self.app.message = str(error)

    def _opened(self) -> None:
        if self._waiting:
            self._waiting, self.app.session.paused = False, False

    def _set(self, row: Row, value: Any) -> None:
        self._waiting = False
        if value not in (row.get(), row.text):
            self.app.message = ""
            self.app.set(row.name, value)

    # The panel -----------------------------------------------------------------------------------

    def _panel(self) -> None:
        gui = self.server.gui
        self.status = gui.add_markdown("")
        self.buttons = [self._buttons(BUTTONS)]
        self.pictures: list[Any] = []
        blank = np.zeros((PLOT[1], PLOT[0], 3), np.uint8)
        self.plots = [gui.add_image(blank, label=None, order=100.0 + k) for k in range(2)]
        self.fields: dict[str, Any] = {}
        with gui.add_folder("settings", order=200.0):
            for row in self.app.rows:
                self.fields[row.name] = self._field(row)
        with gui.add_folder("save", order=300.0, expand_by_default=False):
            self.buttons.append(self._buttons(SAVING))

    def _buttons(self, keys: dict[str, str]) -> Any:
        """A row of buttons, each of which is a key of the windows."""
        group = self.server.gui.add_button_group("", tuple(keys))

        def clicked(event: Any) -> None:
            self._come.put(partial(self._typed, keys[event.target.value]))

        group.on_click(clicked)
        return group

    def _typed(self, key: str) -> None:
        self._waiting = False
        super()._typed(key)

    def _field(self, row: Row) -> Any:
        """One setting; of a positive number, the slider is its decimal logarithm."""
        gui = self.server.gui
        if row.kind == "choice":
            field = gui.add_dropdown(row.name, _options(row), initial_value=row.text)
        elif row.kind == "int":
            field = gui.add_slider(row.name, int(row.low), int(row.high), 1, row.get())
        else:
            low, high = _place(row.low), _place(row.high)
            marks = tuple(
                (power * PER_DECADE, f"{10.0**power:g}")
                for power in range(-4, 2)
                if low <= power * PER_DECADE <= high
            )
            place = _place_of(row)
            field = gui.add_multi_slider(row.name, low, high, 1, (place,), marks=marks)

        def changed(event: Any) -> None:
            if threading.get_ident() != self._writer:  # else it is what we write ourselves
                value = event.target.value
                value = 10 ** (value[0] / PER_DECADE) if row.kind == "log" else value
                self._come.put(partial(self._set, row, value))

        field.on_update(changed)
        return field

    def _write(self) -> None:
        """The settings as they are, and the state."""
        self._writer = threading.get_ident()
        try:
            for row in self.app.rows:
                field, value = self.fields[row.name], row.get()
                if row.kind == "choice" and field.value != row.text:
                    field.options = _options(row)
                    field.value = row.text
                elif row.kind == "int" and field.value != value:
                    field.value = value
                elif row.kind == "log":
                    place, label = (_place_of(row),), f"{row.name}: {row.text}"
                    if field.value != place:
                        field.value = place
                    if field.label != label:
                        field.label = label
        finally:
            self._writer = None
        session = self.app.session
        lines = [f"**{session.family.title}**, seed {session.seed}", self.app.status]
        lines += [
            f"{letter}: {run.failure or _error(run.errors)}"
            for letter, run in zip(LETTERS, session.runs, strict=False)
        ]
        content = "  \n".join(lines + ([self.app.message] if self.app.message else []))
        if self.status.content != content:
            self.status.content = content

    def _pictures(self, frame: Frame) -> None:
        """Each method's four pictures, two by two, as they are in the frame; and the plots."""
        session, gui = self.app.session, self.server.gui
        while len(self.pictures) > len(session.runs):
            self.pictures.pop().remove()
        for index in range(len(session.runs)):
            pixels = _two_by_two(frame, len(session.runs), index)
            if index < len(self.pictures):
                self.pictures[index].image = pixels
            else:
                made = gui.add_image(pixels, format="jpeg", jpeg_quality=92, order=50.0 + index)
                self.pictures.append(made)
        for handle, plotted in zip(self.plots, plots(session, PLOT), strict=True):
            handle.image = np.asarray(plotted.convert("RGB"))


def _two_by_two(frame: Frame, methods: int, index: int) -> np.ndarray:
    """A method's pictures with their titles, (H, W, 3), out of the frame's row."""
    row = places(methods)[index * len(KINDS) : (index + 1) * len(KINDS)]
    height = TITLE + PICTURE
    shown = np.empty((2 * height + GAP, 2 * PICTURE + GAP, 3), np.uint8)
    shown[:] = BACKGROUND
    for number, place in enumerate(row):
        top, left = (number // 2) * (height + GAP), (number % 2) * (PICTURE + GAP)
        part = frame[place.top - TITLE : place.top + PICTURE, place.left : place.left + PICTURE]
        shown[top : top + height, left : left + PICTURE] = part[..., :3]
    return shown


def _options(row: Row) -> tuple[str, ...]:
    """What there is to choose, and what is chosen otherwise: "its own", or 60 steps."""
    return row.options if row.text in row.options else (row.text, *row.options)


def _place(value: float) -> int:
    """On a slider."""
    return round(PER_DECADE * float(np.log10(value)))


def _place_of(row: Row) -> int:
    value = row.get()
    low, high = _place(row.low), _place(row.high)
    return (low + high) // 2 if value is None else min(max(_place(value), low), high)


def _error(errors: list[tuple[int, float]]) -> str:
    return f"error {errors[-1][1]:.3g}" if errors else ""
