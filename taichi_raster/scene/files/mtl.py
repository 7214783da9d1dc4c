"""Materials of OBJ files (Wavefront's MTL): the colour, opacity and image of each."""

from __future__ import annotations

import re
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np
from numpy import ndarray

from taichi_raster.scene.files import images
from taichi_raster.scene.files.soup import Notes, Surface

_NUMBER = re.compile(r"[-+]?(\d+\.?\d*|\.\d+)([eE][-+]?\d+)?\s+")
_ARGUMENTS = {"s": 3, "o": 3, "t": 3, "mm": 2}  # at most so many numbers; of others, one word


@dataclass(frozen=True, eq=False)
class Material:
    """A surface, and how its image's coordinates are moved: uv * scale + offset."""

    surface: Surface = field(default_factory=Surface)
    scale: tuple[float, float] = (1.0, 1.0)
    offset: tuple[float, float] = (0.0, 0.0)

    def moved(self, uv: ndarray) -> ndarray:
        """Texture coordinates as the image takes them."""
        return np.asarray(uv * self.scale + self.offset)


def read_materials(text: str, folder: Path, notes: Notes) -> dict[str, Material]:
    """The materials of a library, by name."""
    found: dict[str, dict[str, str]] = {}
    lines: dict[str, str] = {}
    for line in text.splitlines():
        word, _, rest = line.strip().partition(" ")
        if "\t" in word:
            word, _, rest = line.strip().partition("\t")
        if word == "newmtl":
            lines = found.setdefault(rest.strip(), {})
        else:
            lines[word.lower()] = rest.strip()
    read: dict[str, ndarray | None] = {}  # one image for all materials that name it
    return {name: _material(name, lines, folder, read, notes) for name, lines in found.items()}


def _material(
    name: str,
    lines: dict[str, str],
    folder: Path,
    read: dict[str, ndarray | None],
    notes: Notes,
) -> Material:
    colour = _colour(name, lines.get("kd", ""), notes)
    alpha = 1.0
    if "d" in lines:
        alpha = _last_number(lines["d"], 1.0)
    elif "tr" in lines:
        alpha = 1 - _last_number(lines["tr"], 0.0)
    plain = Surface(
        factor=(*(colour or (1.0, 1.0, 1.0)), min(max(alpha, 0.0), 1.0)),
        given=colour is not None or alpha != 1,
    )
    image_line = lines.get("map_kd")
    opacity_line = lines.get("map_d")
    if opacity_line and opacity_line != image_line:
        notes.add("images of opacity (map_d) of materials", name)
    if not image_line:
        return Material(plain)
    options, file = _options(image_line, folder)
    if file not in read:
        read[file] = images.read_beside(folder, file, notes)
    image = read[file]
    if image is None:
        return Material(plain)
    if colour is not None and colour != (1.0, 1.0, 1.0):
        notes.add("Kd beside an image (map_Kd) of materials", name)
    if "mm" in options:
        base, gain = [*map(float, options["mm"]), 1.0][:2]
        image = images.values(image)
        image = np.concatenate([(base + gain * image[..., :3]).clip(0, 1), image[..., 3:]], axis=-1)
    ignored = sorted(set(options) & {"t", "imfchan"})
    if "cc" in options and options["cc"] == ["on"]:
        ignored.append("cc")
    if ignored:
        notes.add("options of map_Kd", *(f"-{option}" for option in ignored))
    clamp = options.get("clamp") == ["on"]
    surface = replace(
        plain,
        image=image,
        factor=(1.0, 1.0, 1.0, plain.factor[3]),
        wrap=("clamp", "clamp") if clamp else ("repeat", "repeat"),
        given=True,
    )
    scale = [*map(float, options.get("s", [])), 1.0, 1.0][:2]
    offset = [*map(float, options.get("o", [])), 0.0, 0.0][:2]
    if len(options.get("s", [])) == 1:
        scale[1] = 1.0
    return Material(surface, (scale[0], scale[1]), (offset[0], offset[1]))


def _colour(name: str, words: str, notes: Notes) -> tuple[float, float, float] | None:
    if not words:
        return None
    try:
        numbers = [float(word) for word in words.split()]
    except ValueError:
        notes.add("Kd that is not three numbers, of materials", name)
        return None
    if len(numbers) == 1:
        numbers *= 3
    if len(numbers) < 3:
        return None
    red, green, blue = (min(max(value, 0.0), 1.0) for value in numbers[:3])
    return red, green, blue


def _last_number(words: str, default: float) -> float:
    """Of `d 0.5`, or `d -halo 0.5`."""
    try:
        return float(words.split()[-1])
    except (ValueError, IndexError):
        return default


def _options(line: str, folder: Path) -> tuple[dict[str, list[str]], str]:
    """The options of a `map_` line, and the file that it names, which may have spaces."""
    options: dict[str, list[str]] = {}
    rest = line.strip()
    while True:
        found = re.match(r"-([a-zA-Z]+)\s+", rest)
        if found is None or images.find_beside(folder, rest) is not None:
            return options, rest
        option = found[1].lower()
        rest = rest[found.end() :]
        options[option] = []
        if option in _ARGUMENTS:
            while len(options[option]) < _ARGUMENTS[option]:
                number = _NUMBER.match(rest)
                if number is None:
                    break
                options[option].append(number[0].strip())
                rest = rest[number.end() :]
        else:
            word, _, rest = rest.partition(" ")
            options[option].append(word)
            rest = rest.strip()
