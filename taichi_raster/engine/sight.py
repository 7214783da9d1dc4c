"""What pixels see of a scene, and the memory for it."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from functools import lru_cache

import numpy as np
import torch
from jaxtyping import Int
from torch import Tensor

from taichi_raster.kernels.areas.hiding import SPARE
from taichi_raster.kernels.areas.layout import View
from taichi_raster.kernels.areas.polygons import RECORD
from taichi_raster.kernels.areas.visibility import Visibility
from taichi_raster.runtime.device import Runtime, runtime
from taichi_raster.runtime.launcher import Launcher

PIECES = 48
"""Convex pieces of a fragment that a thread can keep for later."""

MOST = 2**31 - 1
"""The largest index that Taichi can compute."""


@dataclass(frozen=True, eq=False)
class Scene:
    """What a picture is drawn of, apart from its faces.

    Attributes:
        height, width: pixels.
        near, far: depth range.
        view: what kernels are compiled for.
        launchers: of these kernels, by name.
    """

    height: int
    width: int
    near: float
    far: float
    view: View
    launchers: dict[str, Launcher] = field(default_factory=dict)


@dataclass(frozen=True, eq=False)
class Sight:
    """What each pixel sees of each face, as derivatives need it.

    Attributes:
        scene: the scene.
    """

    scene: Scene

    def fragments(self) -> tuple[Int[Tensor, " N"], Int[Tensor, " N"], Int[Tensor, " N"]]:
        """(fragment, pixel, face) of each, pixel by pixel; both counted through the batch."""
        raise NotImplementedError


def by_pixel(
    firsts: Int[Tensor, " Q"],
    ends: Int[Tensor, " Q"],
    slots: Int[Tensor, " N"],
    listed: Int[Tensor, " P"],
    lists: Int[Tensor, " N"] | None,
) -> tuple[Int[Tensor, " N"], Int[Tensor, " N"], Int[Tensor, " N"]]:
    """`Sight.fragments`, of `Arrays`; without `lists`, fragments are in the order of lists."""
    many = (ends - firsts).long()
    filled = (many > 0).nonzero()[:, 0]
    many = many[filled]
    pixels = filled.repeat_interleave(many)
    begins = firsts[filled] - (many.cumsum(0) - many)
    places = torch.arange(len(pixels), device=pixels.device) + begins.repeat_interleave(many)
    fragments = places if lists is None else lists[places].long()
    found = slots[fragments].long()
    return fragments, pixels, listed[torch.where(found < 0, -1 - found, found)].long()


@lru_cache(maxsize=256)
def _kernels(view: View, settings: Runtime) -> tuple[Visibility, dict[str, Launcher]]:
    return Visibility(view, settings), {}


SHARED = {"prepare", "prepare_few", "prepare_many", "count_pixels"}
"""Kernels that do not look at colours, so that all numbers of channels share them."""


@lru_cache(maxsize=256)
def limits_of(near: float, far: float, dtype: torch.dtype, device: torch.device) -> Tensor:
    return torch.tensor([near, far], dtype=dtype, device=device)


def launch(scene: Scene, name: str, *arguments: Tensor | int) -> int:
    """Launch a kernel of `Visibility`."""
    launcher = scene.launchers.get(name)
    if launcher is None:
        launcher = scene.launchers[name] = _launcher(scene.view, name)
    return launcher(*arguments)


def _launcher(view: View, name: str) -> Launcher:
    settings = runtime()
    if name in SHARED:
        view = replace(view, channels=min(view.channels, 0))
    kernels, launchers = _kernels(view, settings)
    if name not in launchers:
        launchers[name] = Launcher(getattr(kernels, name), settings.arch)
    return launchers[name]


_kept: dict[tuple[str, torch.dtype], Tensor] = {}
"""Memory whose contents no call needs any more; for one thread at a time."""


def room_for(name: str, size: int, like: Tensor, dtype: torch.dtype | None = None) -> Tensor:
    """Memory of at least this size that lasts until the next call.

    Fresh memory would be slow: the system clears it.
    """
    dtype = dtype or like.dtype
    found = _kept.get((name, dtype))
    if found is None or found.numel() < size or found.device != like.device:
        found = torch.empty(size * 5 // 4, dtype=dtype, device=like.device)
        _kept[name, dtype] = found
    return found


def workers_memory(like: Tensor, workers: int, longest: int) -> tuple[Tensor, Tensor]:
    """The workers' memory: numbers, and integers."""
    return (
        room_for("numbers", room(workers, longest), like),
        room_for("order", workers * 2 * longest, like, torch.int32),
    )


def room(workers: int, longest: int) -> int:
    """How many numbers the workers' memory has."""
    return workers * RECORD * (longest + PIECES + SPARE)


def fits(what: str, count: int) -> None:
    """Refuse more than Taichi can index; a negative count stands for that, too."""
    if not 0 <= count <= MOST:
        raise MemoryError(
            f"the {what} of one picture need more than 2^31 numbers: render fewer batch items, "
            "faces or pixels at a time"
        )


def zeros(shape: tuple[int, ...], like: Tensor) -> Tensor:
    """Zeros. On a CPU the system clears them, where they are first used: so threads share that."""
    if like.device.type != "cpu":
        return like.new_zeros(shape)
    return torch.from_numpy(np.zeros(shape, np.float32 if like.dtype == torch.float32 else float))


def integers(values: list[int], like: Tensor) -> Tensor:
    if like.device.type == "cpu":  # NumPy takes a tenth of what torch takes for a list
        return torch.from_numpy(np.array(values, dtype=np.int32))
    return torch.tensor(values, dtype=torch.int32, device=like.device)


def flat(values: Tensor) -> Tensor:
    """Numbers alone: Taichi would give a tensor that requires grad a gradient of zeros."""
    return or_one(values.detach().contiguous().view(-1))


def or_one(values: Tensor) -> Tensor:
    """The values, or one that nobody uses: Taichi takes no empty arrays."""
    return values if values.numel() > 0 else values.new_zeros(1)
