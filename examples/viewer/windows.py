"""Thin windows around an `App`: GGUI on a Vulkan driver, `ti.GUI` without, and none at all."""

from __future__ import annotations

import logging
import os
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, Literal

import numpy as np
import taichi as ti
from jaxtyping import UInt8
from PIL import Image

from viewer.app import KEYS, App, Pace, write_gif
from viewer.controls import Row
from viewer.painter import HEIGHT, SIDE, WIDTH

logger = logging.getLogger(__name__)

IDLE = 0.02  # seconds between looks at the input while nothing runs
HELD = 0.02  # seconds of optimisation between two frames while the mouse holds something
ARROWS = {"Up": "up", "Down": "down", "Left": "left", "Right": "right"}
NAMES = {" ": "space", "Tab": "tab", "Escape": "esc", **ARROWS}

Frame = UInt8[np.ndarray, "740 1260 4"]


def available() -> dict[str, str]:
    """What kind of window works here: for "ggui" and "gui", why not, or an empty text.

    GGUI draws with Vulkan whatever the kernels run on, and takes the process with it where there is
    no driver or no display: so look before.
    """
    screen = not sys.platform.startswith("linux") or bool(os.environ.get("DISPLAY"))
    no_screen = "" if screen else "there is no display (DISPLAY is not set)"
    driver = ti.lang.misc.is_arch_supported(ti.vulkan)
    no_driver = "" if driver else "there is no Vulkan driver"
    return {"ggui": no_screen or no_driver, "gui": no_screen}


class Window:
    """What the two windows share; `show` presents a frame and handles what came in meanwhile."""

    def __init__(self, app: App) -> None:
        self.app = app
        self._stepped = False  # since the last frame

    def show(self, frame: Frame) -> None:
        raise NotImplementedError

    def screenshot(self, path: Path) -> None:
        """The window as it is, controls and all, as PNG."""
        raise NotImplementedError

    def _typed(self, key: str) -> None:
        """A key by the name that Taichi gives it."""
        name = NAMES.get(key, key)
        if name == "n" and self._stepped:
            return  # a key that is held repeats faster than slow steps are taken
        self._stepped |= name == "n"
        if name in {word for keys, _ in KEYS for word in keys.replace(",", "").split()}:
            self.app.key(name)

    def _pixel(self, cursor: Any) -> tuple[float, float]:
        """Of the frame, from a cursor in [0, 1] x [0, 1] that counts upwards."""
        return cursor[0] * WIDTH, (1 - cursor[1]) * HEIGHT


class GGUI(Window):
    """A `ti.ui.Window` with sliders and buttons over the frame's column of controls."""

    def __init__(self, app: App) -> None:
        super().__init__(app)
        self.window = ti.ui.Window("taichi-raster", (WIDTH, HEIGHT), vsync=False)
        self.canvas, self.gui = self.window.get_canvas(), self.window.get_gui()
        self._dragging = False
        self._pending: dict[str, Any] = {}  # values of sliders that still move

    def show(self, frame: Frame) -> None:
        self._image = _columns(frame)  # kept: the window reads it until it is shown
        _set_image(self.canvas, self._image)
        self._controls()
        self.window.show()
        self._events()

    def screenshot(self, path: Path) -> None:
        self._image = _columns(self.app.frame())
        _set_image(self.canvas, self._image)
        self._controls()
        self.window.save_image(str(path))  # before it is shown: afterwards it is black

    def _events(self) -> None:
        app, window = self.app, self.window
        self._stepped = False
        if not window.running:
            app.running = False
            return
        for event in window.get_events(ti.ui.PRESS):
            if event.key not in (ti.ui.LMB, ti.ui.RMB, ti.ui.MMB):
                self._typed(event.key)
        at = self._pixel(window.get_cursor_pos())
        down = window.is_pressed(ti.ui.LMB)
        if down and not self._dragging and at[0] < WIDTH - SIDE:
            self._dragging = True
            app.press(*at)
        elif self._dragging and down:
            app.move(*at)
        elif self._dragging:
            self._dragging = False
            app.lift()

    def _controls(self) -> None:
        app, gui, session = self.app, self.gui, self.app.session
        share = SIDE / WIDTH
        with gui.sub_window("controls", 1 - share, 0.0, share, 1.0):
            for key, title in (
                ("space", "pause" if not session.paused else "go on"),
                ("n", "one step"),
                ("r", "restart"),
                ("h", "anneal again from here"),
            ):
                if gui.button(f"{title}###{key}"):
                    app.key(key)
            for row in app.rows:
                self._row(row)
            for key, title in (
                ("s", "save picture"),
                ("g", "save GIF" if app.recording else "record GIF"),
                ("p", "save parameters"),
            ):
                if gui.button(f"{title}###{key}"):
                    app.key(key)
            gui.text("drag corners, or orbit a pose;")
            gui.text("keys: space n r h t tab [ ] s g p esc")
            for start in range(0, min(len(app.message), 160), 40):
                gui.text(app.message[start : start + 40])

    def _row(self, row: Row) -> None:
        """One widget; a slider's choice counts when let go, as each may compile kernels."""
        gui, value = self.gui, row.get()
        if len(row.options) == 2:
            old = value == row.options[1]
            new = gui.checkbox(f"{row.name}: {row.text}###{row.name}", old)
            if new != old:
                self._set(row.name, row.options[int(new)])
        elif row.kind == "choice":
            old = row.options.index(value) if value in row.options else 0
            old = self._pending.get(row.name, old)
            new = gui.slider_int(f"###{row.name}", old, 0, len(row.options) - 1)
            gui.text(f"   {row.name}: {row.options[new] if self._pending else row.text}")
            if new != old:
                self._pending[row.name] = new
            if row.name in self._pending and not self.window.is_pressed(ti.ui.LMB):
                self._set(row.name, row.options[self._pending.pop(row.name)])
        elif row.kind == "int":
            new = gui.slider_int(f"{row.name}###{row.name}", value, int(row.low), int(row.high))
            if new != value:
                self._set(row.name, new)
        else:
            low, high = np.log10(row.low), np.log10(row.high)
            old = float(np.log10(value)) if value else (low + high) / 2
            new = gui.slider_float(f"###{row.name}", old, low, high)
            gui.text(f"   {row.name}: {row.text}")
            if abs(new - old) > 1e-5:
                self._set(row.name, float(10**new))

    def _set(self, name: str, value: Any) -> None:
        try:
            self.app.set(name, value)
        except ValueError as error:
            self.app.message = str(error)


class PlainGUI(Window):
    """A `ti.GUI`, which needs no graphics driver; keys and mouse only."""

    def __init__(self, app: App) -> None:
        super().__init__(app)
        self.gui = ti.GUI("taichi-raster", (WIDTH, HEIGHT), fast_gui=True)

    def show(self, frame: Frame) -> None:
        self.gui.img[:] = _fast_pixels(frame)
        self.gui.show()
        self._stepped = False
        for event in self.gui.get_events():
            self._event(event)
        if not self.gui.running:
            self.app.running = False

    def screenshot(self, path: Path) -> None:
        Image.fromarray(self.app.frame()).convert("RGB").save(path)

    def _event(self, event: Any) -> None:
        app, at = self.app, self._pixel(event.pos)
        if event.type == ti.GUI.PRESS:
            if event.key == ti.GUI.LMB:
                app.press(*at)
            elif event.key == ti.GUI.EXIT:
                app.running = False
            else:
                self._typed({"bracketleft": "[", "bracketright": "]"}.get(event.key, event.key))
        elif event.type == ti.GUI.RELEASE and event.key == ti.GUI.LMB:
            app.lift()
        elif event.type == ti.GUI.MOTION and event.key == ti.GUI.MOVE:
            app.move(*at)
        elif event.key == ti.GUI.WHEEL:
            app.zoom(*at, 0.1 if event.delta[1] > 0 else -0.1)


class NoWindow(Window):
    """Frames go nowhere: to measure what painting alone costs."""

    def show(self, frame: Frame) -> None:
        pass


def open_window(kind: Literal["ggui", "gui"], app: App) -> Window:
    return GGUI(app) if kind == "ggui" else PlainGUI(app)


def loop(
    app: App,
    window: Window,
    pace: Pace,
    frames: int | None = None,
    until: Callable[[], bool] = lambda: False,
) -> tuple[int, int]:
    """Optimise and show in turn until the window is closed; (frames shown, steps taken)."""
    shown = steps = 0
    while app.running and not until() and (frames is None or shown < frames):
        taken = app.tick(min(pace.seconds, HELD) if app.held else pace.seconds)
        begin = time.perf_counter()
        window.show(app.frame())
        pace.painted(time.perf_counter() - begin)
        app.rates = pace.rates(taken) or app.rates
        shown, steps = shown + 1, steps + taken
        if app.session.paused:
            time.sleep(IDLE)
    return shown, steps


def write_frames(app: App, folder: Path, frames: int) -> None:
    """So many frames, evenly spaced over the optimisation's steps: PNGs, a GIF, the parameters."""
    folder.mkdir(parents=True, exist_ok=True)
    session, pictures = app.session, []
    for number in range(frames):
        while session.taken < round(number * session.steps / max(frames - 1, 1)):
            if not session.active:
                break  # all have failed
            session.step()
        session.paused = number == frames - 1
        picture = Image.fromarray(app.frame()).convert("RGB")
        picture.save(folder / f"frame_{number:04d}.png")
        pictures.append(picture.resize((WIDTH // 2, HEIGHT // 2)).quantize(128))
    write_gif(folder / "animation.gif", pictures)
    session.save_parameters(folder / "parameters.safetensors")


def _columns(frame: Frame) -> UInt8[np.ndarray, "1260 740 4"]:
    """The frame as GGUI wants it: x first, y upwards; empty where the sliders go."""
    pixels = frame.view(np.uint32)[..., 0].copy()
    pixels[:, WIDTH - SIDE :] = pixels[-1, -1]
    return np.ascontiguousarray(pixels[::-1].T).view(np.uint8).reshape(WIDTH, HEIGHT, 4)


def _set_image(canvas: Any, image: UInt8[np.ndarray, "1260 740 4"]) -> None:
    """`canvas.set_image(image)`; that converts by a kernel, which takes 40 times as long."""
    try:
        from taichi.ui.utils import get_field_info

        canvas.canvas.set_image(get_field_info(image.view(np.uint32)[..., 0]))
    except (ImportError, AttributeError, TypeError):  # another version of Taichi
        canvas.set_image(image)


def _fast_pixels(frame: Frame) -> np.ndarray:
    """The frame as a fast `ti.GUI` keeps it: one number a pixel, row 0 at the top."""
    if sys.platform == "darwin":
        return frame.view(np.uint32).ravel()
    return np.ascontiguousarray(frame[..., [2, 1, 0, 3]]).view(np.uint32).ravel()
