"""Why masks allow nothing: the likely mistakes, tried one after another."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
from torch import Tensor

from taichi_raster.capture.silhouettes import Silhouette
from taichi_raster.runtime.precision import product
from taichi_raster.scene.pose import Pose

_CELLS = 32

_MORE = 0.1
"""By how much of a mask more must be filled where a mistake is corrected."""

_FILLED = 0.9
"""So much of a mask is filled by a hull of photos that agree, at least."""

_FEW = 1 / 3
"""At most this share of the photos are named as those that contradict the others."""


def why_empty(seen: Sequence[Silhouette]) -> str:
    """A sentence for an error: the change that would make a hull, or the photos that prevent it."""
    cones = _Cones.of(seen)
    filled = {what: _Cones.of(change(seen)).filled() for what, change in _MISTAKES.items()}
    best = max(filled, key=lambda what: filled[what])
    if filled[best] >= max(_FILLED, cones.filled() + _MORE):
        return best
    against = _contradicting(cones)
    if not against:
        return "no cause was found; look at the poses and the masks"
    names = ", ".join(seen[i].name for i in against)
    turned = [_upside_down(each) if i in against else each for i, each in enumerate(seen)]
    if _Cones.of(turned).filled() >= _FILLED:
        return f"the masks of these photos seem to be upside down: {names}"
    return (
        f"these photos contradict all others, by their masks or their poses: {names}; fix them, "
        f"or use capture.without({against})"
    )


@dataclass(frozen=True)
class _Cones:
    """A grid about the object, (P, 3), and which points lie outside of which masks' cones."""

    seen: Sequence[Silhouette]
    grid: Tensor
    outside: Tensor  # (photos, P)

    @staticmethod
    def of(seen: Sequence[Silhouette]) -> _Cones:
        """Of all photos."""
        grid, half = _grid(seen)
        outside = torch.stack([each.inside(grid) < -half / _CELLS for each in seen])
        return _Cones(seen, grid, outside)

    def filled(self, left_out: Sequence[int] = ()) -> float:
        """How much of their masks the points in all cones fill, as the median of the photos."""
        kept = [i for i in range(len(self.seen)) if i not in left_out]
        points = self.grid[~self.outside[kept].any(0)]
        if len(points) == 0:
            return 0.0
        return float(np.median([self.seen[i].spanned(points) for i in kept]))


def _contradicting(cones: _Cones) -> list[int]:
    """The fewest photos without which the others agree, one by one; none if they are many."""
    found: list[int] = []
    count = len(cones.seen)
    while len(found) < _FEW * count:
        rest = [i for i in range(count) if i not in found]
        filled = [cones.filled([*found, i]) for i in rest]
        if max(filled) <= 0:  # nothing is left yet: leave out what alone excludes most
            found.append(_most_alone(cones.outside, rest))
            continue
        found.append(rest[int(np.argmax(filled))])
        if max(filled) >= _FILLED:
            return sorted(found)
    return []


def _most_alone(outside: Tensor, rest: Sequence[int]) -> int:
    """The photo that alone, or with the fewest others, keeps most points out."""
    kept = outside[list(rest)]
    counts = kept.sum(0)
    alone = (kept & (counts == max(1, int(counts[counts > 0].min())))).sum(1)
    return rest[int(alone.argmax())]


def _upside_down(seen: Silhouette) -> Silhouette:
    """With the mask's rows the other way round; its box, too, as far as that can be said."""
    ends = torch.tensor(np.stack([seen.low, seen.high]))[None]
    image = seen.camera.to_image(ends) * torch.tensor([1.0, -1.0, 1.0])
    turned = seen.camera.from_image(image)[0].nan_to_num().numpy()
    low, high = turned.min(0), turned.max(0)
    return replace(seen, distance=seen.distance.flip(0), low=low, high=high)


Change = Callable[[Sequence[Silhouette]], Sequence[Silhouette]]


def _each(change: Callable[[Silhouette], Silhouette]) -> Change:
    return lambda seen: [change(each) for each in seen]


def _posed(change: Callable[[Pose], Tensor]) -> Change:
    """The same silhouettes from other view matrices."""

    def changed(seen: Silhouette) -> Silhouette:
        view = change(Pose.from_view(seen.camera.view))
        return replace(seen, camera=replace(seen.camera, view=view))

    return _each(changed)


def _reversed(seen: Sequence[Silhouette]) -> Sequence[Silhouette]:
    """The same silhouettes with the poses in the opposite order."""
    return [
        replace(each, camera=replace(each.camera, view=other.camera.view))
        for each, other in zip(seen, seen[::-1], strict=True)
    ]


def _inverse(pose: Pose) -> Pose:
    turned = pose.rotation.mT
    return Pose(turned, -product(turned, pose.translation[..., None])[..., 0])


# Others come to the same but for a turn of the world.
_MISTAKES: dict[str, Change] = {
    "the masks seem to be upside down": _each(_upside_down),
    "the photos and the poses seem to be in opposite orders": _reversed,
    "the poses seem to have the camera's y and z turned round: they are of OpenGL's cameras (y up, "
    "z back) where OpenCV's (y down, z forward) are asked for, or the other way": _posed(
        lambda pose: Pose.from_opengl(pose.opencv).view
    ),
    "the poses seem to be inverted: they take camera to world where world to camera is asked for, "
    "or the other way": _posed(lambda pose: _inverse(pose).view),
    "the poses seem to be inverted, and to have the camera's y and z turned round": _posed(
        lambda pose: Pose.from_opengl(_inverse(pose).opencv).view
    ),
}


def _grid(seen: Sequence[Silhouette]) -> tuple[Tensor, float]:
    """Points (P, 3) of a cube about the object, and half of its side."""
    eyes = torch.cat([each.camera.eye for each in seen]).double()
    rays = torch.stack([torch.tensor(each.low + each.high).double() / 2 for each in seen])
    turn = torch.cat([each.camera.view[:, :3, :3] for each in seen]).double()
    axes = product(turn.mT, rays[..., None])[..., 0]
    axes = axes / axes.norm(dim=-1, keepdim=True)
    across = torch.eye(3, dtype=torch.float64) - axes[:, :, None] * axes[:, None]
    right = product(across, eyes[..., None]).sum(0)
    centre = torch.linalg.lstsq(across.sum(0), right).solution[:, 0]
    depths = (centre - eyes).norm(dim=-1)
    sizes = torch.tensor([float(np.linalg.norm(each.high - each.low)) / 2 for each in seen])
    half = float((1.2 * sizes * depths).median())
    line = torch.linspace(-half, half, _CELLS, dtype=torch.float64)
    grid = torch.stack(torch.meshgrid(line, line, line, indexing="ij"), -1).reshape(-1, 3) + centre
    return grid, half
