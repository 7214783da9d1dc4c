"""The whole frame as one picture: what every window shows and `--headless` writes."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from jaxtyping import UInt8
from PIL import Image, ImageDraw
from torch import Tensor

import taichi_raster as tr
from viewer.plots import (
    BACKGROUND,
    DIM,
    GRID,
    METHODS,
    PANEL,
    TEXT,
    WARNING,
    Axes,
    Colour,
    Curve,
    decades,
    font,
    plot,
)
from viewer.session import LETTERS, Session

WIDTH, HEIGHT = 1260, 740
SIDE = 300  # width of the column of controls, at the right
HEADER, GAP, TITLE = 34, 12, 20
PICTURE = (WIDTH - SIDE - 5 * GAP) // 4
OUTLINE = (200, 200, 200)
KINDS = ("target", "soft", "sharp", "error")
SCALED = torch.linspace(-4, 4, 161, dtype=torch.float64)  # distances of the softness curve


@dataclass(frozen=True)
class Place:
    """Where a picture is in the frame: of a method (None for the target), and of what kind."""

    kind: str
    index: int | None
    left: int
    top: int

    def ndc(self, x: float, y: float) -> tuple[float, float]:
        """Of a pixel of the frame."""
        return 2 * (x - self.left) / PICTURE - 1, 1 - 2 * (y - self.top) / PICTURE


@dataclass(frozen=True)
class SideText:
    """The column of controls: rows (name, value), which one is chosen, keys, and a message."""

    rows: tuple[tuple[str, str], ...]
    chosen: int
    keys: tuple[tuple[str, str], ...]
    message: str = ""


def places(methods: int) -> list[Place]:
    """Of all pictures, row by row."""
    found = []
    for row in range(methods):
        top = HEADER + TITLE + row * (TITLE + PICTURE + 6)
        for column, kind in enumerate(KINDS):
            index = None if kind == "target" else row
            found.append(Place(kind, index, GAP + column * (PICTURE + GAP), top))
    return found


def place_at(methods: int, x: float, y: float) -> Place | None:
    """The picture that a pixel of the frame lies in."""
    for place in places(methods):
        if place.left <= x < place.left + PICTURE and place.top <= y < place.top + PICTURE:
            return place
    return None


def heat(error: np.ndarray) -> np.ndarray:
    """Colours (H, W, 3) in [0, 1] of numbers (H, W) in [0, 1]: black, red, yellow, white."""
    return np.clip(3 * error[..., None] - np.arange(3), 0, 1)


class Painter:
    """Composes frames; what does not change between them is drawn once."""

    def __init__(self) -> None:
        self._frame = np.zeros((HEIGHT, WIDTH), np.uint32)  # a pixel's four bytes in one number
        self._still: tuple[object, ...] | None = None
        self._softness: tuple[object, Image.Image] | None = None

    def paint(
        self, session: Session, side: SideText, status: str, held: tuple[int | None, int] | None
    ) -> UInt8[np.ndarray, "740 1260 4"]:
        """The frame, RGBA, row 0 at the top.

        `status` is the text at the top right; `held` a corner that the mouse holds: whose, which.
        """
        settings = tuple(run.settings for run in session.runs)
        still = (session.family_name, session.seed, settings, side, session.turn is None)
        if self._still != still:
            self._put(_still_parts(session, side), 0, 0)
            self._still = still
        session.note_errors()
        for index, run in enumerate(session.runs):
            shown = session.pictures(index)
            shown["error"] = torch.from_numpy(heat(shown["error"].numpy()))
            row = places(len(session.runs))[index * len(KINDS) : (index + 1) * len(KINDS)]
            for place in row:
                self._put(_picture(shown[place.kind], place, session, held), place.left, place.top)
            text = run.failure or f"error {run.errors[-1][1]:.3g}"
            width = 3 * PICTURE // 2 if run.failure else PICTURE // 2
            right, top = row[-1].left + PICTURE, row[-1].top - TITLE
            label = _label(text, width, WARNING if run.failure else DIM, 13)
            self._put(label, right - width, top)
        top = HEADER + len(session.runs) * (TITLE + PICTURE + 6) + 8
        width = (WIDTH - SIDE - 4 * GAP) // 3
        size = (width, HEIGHT - top - GAP)
        for k, plotted in enumerate((self._curves(session, size), *plots(session, size))):
            self._put(plotted, GAP + k * (width + GAP), top)
        width = 2 * PICTURE
        self._put(_label(status, width, TEXT, 14), WIDTH - SIDE - GAP - width, 6)
        return np.asarray(self._frame.copy().view(np.uint8).reshape(HEIGHT, WIDTH, 4))

    def _curves(self, session: Session, size: tuple[int, int]) -> Image.Image:
        """The plot of the softnesses; a distribution's depends on settings alone."""
        key: list[object] = [size]
        for run in session.runs:
            still = isinstance(run.renderer.edge, tr.Distribution)
            key.append((run.settings, None if still else run.progress(session.steps)))
        if self._softness is None or self._softness[0] != key:
            x = SCALED.numpy()
            curves = [
                Curve(x, session.curve(i, SCALED).numpy(), dot=False, **_look(session, i))
                for i in range(len(session.runs))
            ]
            axes = Axes("softness F(distance / scale)", size, (-4, 4), (0, 1))
            self._softness = (key, plot(axes, curves))
        image = self._softness[1].copy()
        _legend(image, session)
        return image

    def _put(self, image: Image.Image, left: int, top: int) -> None:
        pixels = np.asarray(image.convert("RGBA")).view(np.uint32)[..., 0]
        self._frame[top : top + image.height, left : left + image.width] = pixels


def _still_parts(session: Session, side: SideText) -> Image.Image:
    """The frame without what a step changes."""
    image = Image.new("RGB", (WIDTH, HEIGHT), BACKGROUND)
    draw = ImageDraw.Draw(image)
    draw.text((GAP, 8), f"{session.family.title}, seed {session.seed}", TEXT, font(16))
    for number, place in enumerate(places(len(session.runs))):
        row = number // len(KINDS)
        text, colour = session.family.titles.get(place.kind, place.kind), DIM
        if place.kind == "sharp" and session.turn is not None:
            text = "the fit, turned"
        if place.kind == "soft":
            text, colour = f"{LETTERS[row]}: {session.runs[row].settings.title}", METHODS[row]
        draw.text((place.left, place.top - TITLE + 3), _fitted(text, PICTURE), colour, font(13))
    image.paste(_column(side), (WIDTH - SIDE, 0))
    return image


def _picture(
    picture: Tensor, place: Place, session: Session, held: tuple[int | None, int] | None
) -> Image.Image:
    """A picture with the handles of what can be dragged in it."""
    pixels = (picture.clamp(0, 1) * 255).round().to(torch.uint8).numpy()
    image = Image.fromarray(pixels).resize((PICTURE, PICTURE), Image.Resampling.NEAREST)
    draw, last = ImageDraw.Draw(image), PICTURE - 1
    for part in range(1, session.family.views):
        at = round(part * PICTURE / session.family.views)
        draw.line((at, 0, at, last), GRID)
        draw.line((0, at, last, at), GRID)
    corners = None if place.kind == "error" else session.corners(place.index)
    if corners is None:
        return image
    points = [((x + 1) / 2 * PICTURE, (1 - y) / 2 * PICTURE) for x, y in corners.tolist()]
    if place.kind != "target":
        for k in range(0, len(points), 3):
            draw.line([c for point in (*points[k : k + 3], points[k]) for c in point], OUTLINE)
    for k, (x, y) in enumerate(points):
        gripped = held == (place.index, k)
        r, fill = (5, TEXT) if gripped else (3, None)
        draw.ellipse((x - r, y - r, x + r, y + r), fill, TEXT)
    return image


def plots(session: Session, size: tuple[int, int]) -> list[Image.Image]:
    """The loss and the error."""
    losses, errors = [], []
    for i, run in enumerate(session.runs):
        look = _look(session, i)
        losses.append(Curve(np.arange(len(run.losses), dtype=float), np.array(run.losses), **look))
        errors.append(Curve(*np.array(run.errors).T, **look))
    reach, tasks = (0.0, float(session.until)), session.tasks
    name = _fitted(f"parameter error: {tasks.error_name}", size[0] - 20)
    return [
        plot(Axes("loss", size, reach, _span(losses), True), losses),
        plot(Axes(name, size, reach, _span(errors), True, tasks.failure_threshold), errors),
    ]


def _look(session: Session, index: int) -> dict[str, Any]:
    """Of a method's curves: where there are two, the first is wider, to be seen under the other."""
    width = 3.0 - index if len(session.runs) == 2 else 2.0
    return {"colour": METHODS[index], "width": width}


def _legend(image: Image.Image, session: Session) -> None:
    """The scales now, in the lower right of the plot of softnesses, where no curve is."""
    draw = ImageDraw.Draw(image)
    for i in range(len(session.runs)):
        text = f"{LETTERS[i]}: scale {session.scale(i):.3g}"
        y = image.height - 32 - 17 * (len(session.runs) - i)
        draw.text((image.width - 20, y), text, METHODS[i], font(12), anchor="ra")


def _column(side: SideText) -> Image.Image:
    """The column of controls."""
    image = Image.new("RGB", (SIDE, HEIGHT), PANEL)
    draw = ImageDraw.Draw(image)
    y = 10
    for k, (name, value) in enumerate(side.rows):
        if k == side.chosen:
            draw.rectangle((6, y - 2, SIDE - 7, y + 18), GRID)
        draw.text((14, y), name, DIM, font(14))
        draw.text((SIDE - 14, y), _fitted(value, 175), TEXT, font(14), anchor="ra")
        y += 22
    y += 8
    draw.line((14, y, SIDE - 14, y), GRID)
    y += 8
    for key, meaning in side.keys:
        draw.text((14, y), key, METHODS[1], font(12))
        draw.text((96, y), meaning, DIM, font(12))
        y += 17
    for line in _wrapped(side.message, SIDE - 28)[:4]:
        draw.text((14, y + 8), line, TEXT, font(13))
        y += 17
    return image


def _label(text: str, width: int, colour: Colour, size: int) -> Image.Image:
    """A text against the right of a strip, its top 3 pixels below the strip's."""
    image = Image.new("RGB", (width, size + 6), BACKGROUND)
    ImageDraw.Draw(image).text((width - 1, 3), text, colour, font(size), anchor="ra")
    return image


def _span(curves: Sequence[Curve]) -> tuple[float, float]:
    ends = [(curve.y.min(), curve.y.max()) for curve in curves if len(curve.y)]
    return decades([float(value) for pair in ends for value in pair])


def _fitted(text: str, width: int) -> str:
    """The text, cut where it is too long for so many pixels."""
    while text and font(13).getlength(text) > width:
        text = text[:-2].rstrip(" .") + "."
    return text


def _wrapped(text: str, width: int) -> list[str]:
    lines: list[str] = []
    for word in _broken(text, width):
        longer = f"{lines[-1]} {word}" if lines else word
        if lines and font(13).getlength(longer) <= width:
            lines[-1] = longer
        else:
            lines.append(word)
    return lines


def _broken(text: str, width: int) -> list[str]:
    """The words, long ones (a path) cut into pieces of so many pixels."""
    words = []
    for word in text.split():
        while font(13).getlength(word) > width:
            fits = max(n for n in range(1, len(word)) if font(13).getlength(word[:n]) <= width)
            words.append(word[:fits])
            word = word[fits:]
        words.append(word)
    return words
