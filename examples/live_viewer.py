"""Watch an optimisation while it runs, and take part: the live viewer.

    python examples/live_viewer.py                            # a window; --task pose for another
    python examples/live_viewer.py --compare logistic         # two methods on the same problem
    python examples/live_viewer.py --learned my.safetensors   # adds a learned softness, and uses it
    python examples/live_viewer.py --task photos --softness untuned --compare logistic
    python examples/live_viewer.py --browser                  # on a machine without a screen
    python examples/live_viewer.py --headless --frames 60 --out out/live_viewer     # pictures alone
    python examples/live_viewer.py --measure 20               # what the viewer costs

The window shows target, current soft render, sharp render and error side by side, the softness, and
plots of loss and parameter error. Everything can be changed while it runs: task, seed, softness,
scales, gamma, T-conorm, learning rate, optimiser. Drag the corner of a triangle (also the target's)
or orbit a pose with the mouse; save pictures, GIFs and parameters. docs/viewer.md has it all.

The window is GGUI where there is a Vulkan driver (a software one will do), with sliders and
buttons, and else a `ti.GUI` with keys, which it lists. `--browser` (pip install
'taichi-raster[browser]') serves a page with the same pictures beside the meshes in 3D.
`--headless` writes the same frames.
"""

from __future__ import annotations

import sys
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

import torch
import tyro
from rich.console import Console

import taichi_raster as tr
from viewer.app import App, Pace
from viewer.browser import Browser
from viewer.families import FAMILIES, photos
from viewer.measure import measure
from viewer.methods import Library, MethodSettings
from viewer.session import Session
from viewer.windows import NoWindow, Window, available, loop, open_window, write_frames


@dataclass(frozen=True)
class Options:
    """Watch an optimisation while it runs, and take part; see the top of the file."""

    task: str = "shape2d"
    """shape2d, occlusion, pose, pose_shaded, shape3d or photos."""
    capture: Path | None = None
    """For task photos, a folder with cameras and masks; else some are made."""
    seed: int = 1
    """Which problem."""
    softness: str | None = None
    """A distribution, a learned one by its file's name, or untuned; by default the task's own."""
    compare: str | None = None
    """A second method: its softness. Its scale stays constant, unless the first brings its own."""
    scale: tuple[float, ...] | None = None
    """In NDC: a constant, or the first and the last."""
    gamma: float | None = None
    """Temperature of the softmax over depth."""
    conorm: str | None = None
    """T-conorm."""
    lr: float | None = None
    """Learning rate."""
    learned: tuple[Path, ...] = ()
    """Files of learned softnesses or softenings to choose from; the first is used at once."""
    steps: int = 100
    """Steps of a descent, over which schedules run."""
    image_size: int = 56
    """Side of the pictures in pixels; a 3D shape's nine views are half as large."""
    window: Literal["auto", "ggui", "gui"] = "auto"
    """ggui needs a Vulkan driver; gui does not."""
    browser: bool = False
    """Serve a page instead of opening a window; needs viser."""
    host: str = "127.0.0.1"
    """With --browser, where to listen; 0.0.0.0 lets other machines in, without a password."""
    port: int = 8080
    """With --browser, of the page, or the next that is free."""
    arch: str = "cpu"
    """What the kernels run on: auto, cpu, cuda or vulkan."""
    headless: bool = False
    """Write frames instead of opening a window."""
    frames: int | None = None
    """With --headless, how many (by default 60); else quit after so many."""
    out: Path = Path("out/live_viewer")
    """Folder for what is saved."""
    share: float = 0.1
    """Share of the time that may go into painting and showing frames."""
    longest: float = 0.4
    """Longest time between two frames that is spent on optimising, in seconds."""
    measure: float | None = None
    """Measure for about so many seconds what the viewer costs, print it, and quit."""
    screenshot: Path | None = None
    """Write what the window shows to this file before quitting."""

    def __post_init__(self) -> None:
        for name in ("steps", "image_size", "frames"):
            value, least = getattr(self, name), 16 if name == "image_size" else 1
            if value is not None and value < least:
                raise ValueError(f"--{name.replace('_', '-')}: must be at least {least}")
        if self.scale is not None and len(self.scale) not in (1, 2):
            raise ValueError("--scale: expected one or two numbers")
        if not 0 < self.share < 1:
            raise ValueError("--share: must lie between 0 and 1")
        for name in ("longest", "measure"):
            value = getattr(self, name)
            if value is not None and not value > 0:
                raise ValueError(f"--{name}: must be positive")
        if not 1 <= self.port <= 65535:
            raise ValueError("--port: expected 1 to 65535")
        if self.seed < 0:
            raise ValueError("--seed: must be at least 0")


def prepare(options: Options) -> App:
    """Everything that can be wrong with what the user gave goes wrong here."""
    torch.set_num_threads(1)  # torch's idle threads spin, and take the cores away from Taichi's
    if options.capture is not None:
        options = replace(options, task="photos")
    if options.task not in FAMILIES:
        raise ValueError(f"--task: unknown {options.task!r}; known: {', '.join(FAMILIES)}")
    try:
        tr.init(arch=options.arch)
    except RuntimeError as error:
        raise ValueError(f"--arch: {error}") from error
    library = Library.of(options.learned)
    methods = [_method(options, library, options.softness)]
    if options.compare is not None:
        second = _method(options, library, options.compare)
        constant = methods[0].scale is not None
        methods.append(replace(second, scale_end=second.scale) if constant else second)
    families = {**FAMILIES, "photos": photos(options.capture)}
    session = Session(
        options.task,
        options.seed,
        tuple(methods),
        options.steps,
        options.image_size,
        library,
        families,
    )
    return App(session, options.out)


def _method(options: Options, library: Library, softness: str | None) -> MethodSettings:
    family = FAMILIES[options.task]
    settings = MethodSettings(**family.start)
    name = softness or (options.learned[0].name if options.learned else settings.softness)
    settings = replace(settings, **library.choose(settings, name, family))
    given: dict[str, Any] = {"gamma": options.gamma, "conorm": options.conorm, "lr": options.lr}
    if options.scale is not None:
        given |= {"scale": options.scale[0], "scale_end": options.scale[-1]}
    return replace(settings, **{k: value for k, value in given.items() if value is not None})


def window_kind(wanted: str) -> Literal["ggui", "gui"]:
    """The window to open; ValueError, saying why, if that does not work here."""
    works = available()
    if wanted == "auto":
        wanted = "ggui" if not works["ggui"] else "gui"
    if works[wanted]:
        raise ValueError(f"--window: {works[wanted]}; --browser and --headless need none")
    return "ggui" if wanted == "ggui" else "gui"


def command_line() -> None:
    """A bad argument or file ends in one line, not in a traceback."""
    console = Console()
    try:
        options = tyro.cli(Options)
        app = prepare(options)
        window = _window(options, app)
    except (ValueError, OSError, ImportError) as error:
        sys.exit(f"live_viewer: {error}")
    pace = Pace(options.share, options.longest)
    if window is None:
        with console.status("rendering frames"):
            write_frames(app, options.out, options.frames or 60)
        console.print(f"frames, a GIF and the parameters are in {options.out}/")
        return
    if isinstance(window, Browser):
        console.print(f"open {window.address} in a browser; Ctrl-C ends it", highlight=False)
    try:
        if options.measure is not None:
            name = type(window).__name__
            console.print(f"{options.task} on {tr.runtime().arch}, window: {name}")
            measure(app, window, pace, options.measure, console)
        else:
            loop(app, window, pace, options.frames)
        if options.screenshot is not None:
            window.screenshot(options.screenshot)
    except KeyboardInterrupt:
        pass
    finally:
        if isinstance(window, Browser):
            window.close()


def _window(options: Options, app: App) -> Window | None:
    """What shows the frames; None where they are written instead."""
    if options.browser:
        return Browser(app, options.host, options.port)
    if not options.headless:
        return open_window(window_kind(options.window), app)
    return None if options.measure is None else NoWindow(app)


if __name__ == "__main__":
    command_line()
