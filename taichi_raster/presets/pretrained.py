"""Softenings that come with the package, learned once and ready to use.

Each is a small file in the folder `files`, with a card that says how it came about.
What they were learned on, and how they compare with fixed softnesses, is in docs/results.md.
"""

from __future__ import annotations

from importlib import resources
from typing import TYPE_CHECKING

from taichi_raster.presets.serialization import load_softening
from taichi_raster.presets.softening import Softening

if TYPE_CHECKING:
    from importlib.abc import Traversable

CARD_KEYS = ("task", "units", "optimiser", "command", "seed", "scores")
"""What the card of a shipped softening says; its steps and learning rate are attributes of it.

"task": what it was trained on; "units": of the unknowns that the learning rate moves, and the
renderer's near and far; "optimiser": name and numbers; "command" and "seed": how to train it again;
"scores": on unseen tasks, with what they are compared to.
"""

_SUFFIX = ".safetensors"


def pretrained_names() -> list[str]:
    """The names of all softenings that come with the package, sorted."""
    folder = _folder()
    if not folder.is_dir():
        return []
    files = [entry.name for entry in folder.iterdir() if entry.name.endswith(_SUFFIX)]
    return sorted(name.removesuffix(_SUFFIX) for name in files)


def pretrained(name: str) -> Softening:
    """The softening called `name`, frozen; its attribute ``card`` says where it comes from.

    Raises:
        ValueError: if there is none of this name; the message lists the known ones.

    Example:
        >>> softening = tr.pretrained("pose")
        >>> print(softening.describe())
        >>> renderer = softening.renderer(64, near=1.0, far=5.0)
    """
    known = pretrained_names()
    if name not in known:
        raise ValueError(
            f"name: no pretrained softening {name!r}; known: {', '.join(known) or 'none'}"
        )
    with resources.as_file(_folder() / f"{name}{_SUFFIX}") as path:
        return load_softening(path)


def _folder() -> Traversable:
    return resources.files("taichi_raster") / "presets" / "files"
