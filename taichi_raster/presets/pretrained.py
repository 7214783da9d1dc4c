"""Loads the learned softenings, and the learned policy, that come with the package.

Each is a small file in the folder `files`, with a card that says how it was learned. How they
compare with fixed softnesses is in docs/results.md.
"""

from __future__ import annotations

from importlib import resources
from typing import TYPE_CHECKING

from taichi_raster.presets.policy import SofteningPolicy, load_policy
from taichi_raster.presets.serialization import load_softening
from taichi_raster.presets.softening import Softening

if TYPE_CHECKING:
    from importlib.abc import Traversable

CARD_KEYS = ("task", "units", "optimiser", "command", "seed", "scores")
"""The keys of a shipped softening's card. Its steps and learning rate are attributes.

"task": what it was trained on. "units": of the unknowns that the learning rate moves, and the
renderer's near and far. "optimiser": name and numbers. "command" and "seed": how to train it again.
"scores": on unseen tasks, with what they are compared to.
"""

_SUFFIX = ".safetensors"


def pretrained_names() -> list[str]:
    """The names of the softenings that come with the package, sorted.

    Example:
        >>> for name in tr.pretrained_names():
        ...     print(tr.pretrained(name).describe())
    """
    folder = _folder()
    if not folder.is_dir():
        return []
    files = [entry.name for entry in folder.iterdir() if entry.name.endswith(_SUFFIX)]
    return sorted(name.removesuffix(_SUFFIX) for name in files)


def pretrained(name: str) -> Softening:
    """Load a softening that comes with the package.

    Args:
        name: one of `pretrained_names`.

    Returns:
        The softening, frozen: its parameters do not require grad. Its attribute ``card`` says how
        it was learned, and in which units.

    Raises:
        ValueError: for an unknown name; the message lists the known ones.

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


def universal_policy() -> SofteningPolicy:
    """Load the policy that was learned on several families of problems at once.

    It begins as `untuned_softening`, and changes scale, step and order by what the descent shows.
    Its ``card`` says how it was learned, and how it does; docs/choosing.md says for whom it is.

    Returns:
        The policy, with feedback and frozen: its parameters do not require grad.

    Example:
        >>> start = tr.GuidedSoftening(tr.universal_policy(), mask, target)
    """
    folder = resources.files("taichi_raster") / "presets" / "policies"
    with resources.as_file(folder / f"universal{_SUFFIX}") as path:
        return load_policy(path)


def _folder() -> Traversable:
    return resources.files("taichi_raster") / "presets" / "files"
