"""The viewer without a window: keys and mouse come in, frames go out."""

from __future__ import annotations

import time
from pathlib import Path

import numpy as np
from jaxtyping import UInt8
from PIL import Image

from viewer.controls import LARGEST_SEED, rows
from viewer.painter import HEIGHT, WIDTH, Painter, Place, SideText, place_at
from viewer.session import LETTERS, Session

KEYS = (
    ("space", "pause, or go on"),
    ("n", "one step"),
    ("r", "restart"),
    ("h", "anneal again from here"),
    ("t", "one method, or two"),
    ("tab", "edit the other method"),
    ("up, down", "choose a setting"),
    ("left, right", "change it"),
    ("[ ]", "seed before, after"),
    ("s", "save the picture"),
    ("g", "start, then save, a GIF"),
    ("p", "save the parameters"),
    ("mouse", "drag corners; orbit"),
    ("esc", "quit"),
)
GIF_FRAMES = 300  # the longest recording
TURN = 3.0  # radians for a drag across a picture


class App:
    """A session, what is chosen in it, and what is saved of it.

    Args:
        session: what runs.
        out: folder that pictures, GIFs and parameters go to; it is made when needed.
    """

    def __init__(self, session: Session, out: Path) -> None:
        self.session, self.out = session, out
        self.painter = Painter()
        self.edited, self.chosen = 0, 5
        self.rows = rows(session, lambda: self.edited, self._edit)
        self.message = ""
        self.rates = ""  # a window's frames and steps a second
        self.running = True
        self._recording: list[Image.Image] | None = None
        self._saved = 0
        self._grip: tuple[Place, int | None, float, float] | None = None
        self._frame: tuple[object, np.ndarray] | None = None
        self._waiting = False

    # Time ----------------------------------------------------------------------------------------

    def tick(self, seconds: float) -> int:
        """Optimise for about so long; the steps finished.

        Where kernels have to be compiled first, which takes seconds, the frame says so before.
        """
        if self._waiting:
            self._waiting = False
        elif not self.session.paused and self.session.compiles_next():
            self._waiting = True
            return 0
        return self.session.work(seconds)

    @property
    def held(self) -> bool:
        """Whether the mouse holds something: frames then come first."""
        return self._grip is not None

    @property
    def recording(self) -> bool:
        """Whether frames are kept for a GIF."""
        return self._recording is not None

    @property
    def status(self) -> str:
        session = self.session
        state = "running"
        if self._waiting:
            state = "compiling kernels ..."
        elif session.paused:
            state = "paused" if session.active else "finished"
        record = "" if self._recording is None else f"recording {len(self._recording)}  ·  "
        rates = "" if session.paused or not self.rates else f"{self.rates}  ·  "
        return f"{record}{rates}{state}  ·  step {session.taken} of {session.until}"

    def frame(self) -> UInt8[np.ndarray, "740 1260 4"]:
        """The frame as it is now, RGBA; the same array where nothing changed."""
        grip = self._grip
        held = None if grip is None or grip[1] is None else (grip[0].index, grip[1])
        session = self.session
        key = (session.version, [run.step for run in session.runs], self.side, self.status, held)
        if self._frame is None or self._frame[0] != key:
            new = self.painter.paint(session, self.side, self.status, held)
            self._frame = (key, new)
            if self._recording is not None and len(self._recording) < GIF_FRAMES:
                self._recording.append(_small(new))
        return self._frame[1]

    @property
    def side(self) -> SideText:
        texts = tuple((row.name, row.text) for row in self.rows)
        return SideText(texts, self.chosen, KEYS, self.message)

    # Input ---------------------------------------------------------------------------------------

    def key(self, name: str) -> None:
        """A key of `KEYS`, one name each: "up", "[", ..."""
        self.message = ""
        task, count = self.session.task, len(self.session.runs)
        try:
            self._key(name)
        except ValueError as error:  # a setting that does not go with the others
            self.message = str(error)
        self._let_go(task, count)

    def set(self, name: str, value: object) -> None:
        """Set a row's value, by its name."""
        row = next((row for row in self.rows if row.name == name), None)
        if row is None:
            raise ValueError(f"name: no setting {name!r}; known: {[r.name for r in self.rows]}")
        task, count = self.session.task, len(self.session.runs)
        row.set(value)
        self._let_go(task, count)
        self.edited = min(self.edited, len(self.session.runs) - 1)

    def press(self, x: float, y: float) -> None:
        """The mouse button goes down at a pixel of the frame."""
        place = place_at(len(self.session.runs), x, y)
        if place is None:
            return
        corner = self.session.grab(place.index, *place.ndc(x, y))
        drags = self.session.family.drags
        if drags == "result" and not self.session.paused:
            self.message = "space pauses; then the mouse turns the fit"
        elif corner is not None or (drags in ("camera", "result") and place.index is not None):
            self._grip = (place, corner, x, y)
            self.move(x, y)

    def move(self, x: float, y: float) -> None:
        """The mouse moves."""
        if self._grip is None:
            return
        place, corner, old_x, old_y = self._grip
        if corner is not None:
            self.session.drag(place.index, corner, *place.ndc(x, y))
        elif place.index is not None and (x, y) != (old_x, old_y):
            (x0, y0), (x1, y1) = place.ndc(old_x, old_y), place.ndc(x, y)
            self.session.orbit(place.index, TURN / 2 * (x1 - x0), TURN / 2 * (y1 - y0))
        self._grip = (place, corner, x, y)

    def lift(self) -> None:
        """The mouse button goes up."""
        self._grip = None
        self.session.release()

    def _let_go(self, task: object, count: int) -> None:
        """Of what is held, once there is another task, or a method less."""
        if self.session.task is not task or len(self.session.runs) != count:
            self.lift()

    def zoom(self, x: float, y: float, amount: float) -> None:
        """Bring the camera of the picture under the mouse closer, by a share of its distance."""
        place = place_at(len(self.session.runs), x, y)
        if place is not None and place.index is not None:
            self.session.orbit(place.index, 0.0, 0.0, amount)

    # Saving --------------------------------------------------------------------------------------

    def save_picture(self) -> Path:
        """The frame as PNG."""
        path = self._path("picture", "png")
        Image.fromarray(self.frame()).convert("RGB").save(path)
        return self._told(path)

    def save_parameters(self) -> Path:
        """The unknowns as safetensors; see `Session.save_parameters`."""
        path = self._path("parameters", "safetensors")
        self.session.save_parameters(path)
        return self._told(path)

    def record(self) -> Path | None:
        """Begin to keep frames, or write those kept as a GIF of half the size."""
        if self._recording is None:
            self._recording, self.message = [], "recording: g again saves the GIF"
            return None
        frames, self._recording = self._recording, None
        if not frames:
            self.message = "nothing was recorded"
            return None
        path = self._path("animation", "gif")
        write_gif(path, frames)
        return self._told(path)

    # ---------------------------------------------------------------------------------------------

    def _key(self, name: str) -> None:
        session = self.session
        if name == "space":
            session.toggle()
        elif name == "n":
            session.paused = True
            session.step()
        elif name == "r":
            session.restart()
            session.paused = False
        elif name == "h":
            session.anneal_again()
        elif name == "t":
            self.set("methods", "1" if len(session.runs) == 2 else "2")
        elif name == "tab":
            self._edit(1 - self.edited)
        elif name in ("up", "down"):
            self.chosen = (self.chosen + (1 if name == "down" else -1)) % len(self.rows)
        elif name in ("left", "right"):
            self.rows[self.chosen].nudge(1 if name == "right" else -1)
            self.edited = min(self.edited, len(session.runs) - 1)
        elif name in ("[", "]"):
            seed = session.seed + (1 if name == "]" else -1)
            session.set_problem(seed=min(max(seed, 0), LARGEST_SEED))
        elif name == "s":
            self.save_picture()
        elif name == "g":
            self.record()
        elif name == "p":
            self.save_parameters()
        elif name == "esc":
            self.running = False

    def _edit(self, index: int) -> None:
        self.edited = index if index < len(self.session.runs) else 0
        if index != self.edited:
            self.message = f"there is no method {LETTERS[index]} yet: t adds it"

    def _path(self, name: str, suffix: str) -> Path:
        self.out.mkdir(parents=True, exist_ok=True)
        while True:
            self._saved += 1
            path = self.out / f"{name}_{self._saved:03d}.{suffix}"
            if not path.exists():
                return path

    def _told(self, path: Path) -> Path:
        self.message = f"saved {path}"
        return path


class Pace:
    """How long to optimise between two frames, so that frames take only a share of the time.

    Args:
        share: of the time that may go into painting and showing, in (0, 1).
        longest: seconds of optimisation between two frames, however long a frame takes: the
            interface stays responsive.
    """

    def __init__(self, share: float = 0.1, longest: float = 0.4) -> None:
        self.share, self.longest = share, longest
        self._cost = 0.01
        self._rates = (time.perf_counter(), 0, 0)

    @property
    def seconds(self) -> float:
        """To optimise before the next frame."""
        return min(max(self._cost * (1 / self.share - 1), 0.01), self.longest)

    def painted(self, seconds: float) -> None:
        """A frame took so long. One that compiled kernels, or waited, counts for little."""
        self._cost += 0.3 * (min(seconds, 10 * self._cost) - self._cost)

    def rates(self, steps: int) -> str | None:
        """Told the steps of each frame: a text with both rates, about once a second."""
        since, frames, total = self._rates
        now = time.perf_counter()
        self._rates = (since, frames + 1, total + steps)
        if now - since < 1:
            return None
        self._rates = (now, 0, 0)
        span = now - since
        shown, taken = (frames + 1) / span, (total + steps) / span
        return f"{shown:.{shown < 10:d}f} frames/s  ·  {taken:.{taken < 10:d}f} steps/s"


def write_gif(path: Path, frames: list[Image.Image], milliseconds: int = 80) -> None:
    """An endless GIF; the last frame stays for two seconds."""
    times = [milliseconds] * (len(frames) - 1) + [2000]
    frames[0].save(path, save_all=True, append_images=frames[1:], duration=times, loop=0)


def _small(frame: np.ndarray) -> Image.Image:
    """Half the size, in 128 colours, for a GIF."""
    image = Image.fromarray(frame).convert("RGB").resize((WIDTH // 2, HEIGHT // 2))
    return image.quantize(128, method=Image.Quantize.FASTOCTREE, dither=Image.Dither.NONE)
