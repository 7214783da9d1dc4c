"""Why masks allow nothing: the likely mistakes, tried one after another."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace

import numpy as np
import torch
from torch import Tensor

from taichi_raster.capture.silhouettes import Silhouette
from taichi_raster.runtime.precision import product
from taichi_raster.scene.pose import Pose

_CELLS = 32
_BETTER = 4
"""So many times as much must be left where a mistake is corrected."""

_FEW = 1 / 3
"""At most this share of the photos are named as those that contradict the others."""


def why_empty(seen: Sequence[Silhouette]) -> str:
    """A sentence for an error: the change that would make a hull, or the photos that prevent it."""
    outside = _outside(seen)
    enough = _BETTER * max(1, _left(outside))
    volumes = {
        what: _left(_outside([change(each) for each in seen])) for what, change in _MISTAKES.items()
    }
    best = max(volumes, key=lambda what: volumes[what])
    if volumes[best] >= enough:
        return best
    against = _contradicting(outside, enough)
    if not against:
        return "no cause was found; look at the poses and the masks"
    names = ", ".join(seen[i].name for i in against)
    turned = [_upside_down(each) if i in against else each for i, each in enumerate(seen)]
    if _left(_outside(turned)) >= enough:
        return f"the masks of these photos seem to be upside down: {names}"
    return (
        f"these photos contradict all others, by their masks or their poses: {names}; fix them, "
        f"or use capture.without({against})"
    )


def _left(outside: Tensor) -> int:
    """How many points lie in all cones."""
    return int((~outside.any(0)).sum())


def _contradicting(outside: Tensor, enough: int) -> list[int]:
    """The fewest photos without which enough is left, one after another; none if they are many."""
    found: list[int] = []
    kept = outside.clone()
    while len(found) < _FEW * len(outside):
        counts = kept.sum(0)
        alone = (kept & (counts == max(1, int(counts[counts > 0].min())))).sum(1)
        i = int(alone.argmax())
        found.append(i)
        kept[i] = False
        if _left(kept) >= enough:
            return sorted(found)
    return []


def _upside_down(seen: Silhouette) -> Silhouette:
    """With the mask's rows the other way round; its box, too, as far as that can be said."""
    ends = torch.tensor(np.stack([seen.low, seen.high]))[None]
    image = seen.camera.to_image(ends) * torch.tensor([1.0, -1.0, 1.0])
    turned = seen.camera.from_image(image)[0].nan_to_num().numpy()
    low, high = turned.min(0), turned.max(0)
    return replace(seen, distance=seen.distance.flip(0), low=low, high=high)


def _posed(change: Callable[[Pose], Tensor]) -> Callable[[Silhouette], Silhouette]:
    """The same silhouette from another view matrix."""

    def changed(seen: Silhouette) -> Silhouette:
        view = change(Pose.from_view(seen.camera.view))
        return replace(seen, camera=replace(seen.camera, view=view))

    return changed


def _inverse(pose: Pose) -> Pose:
    turned = pose.rotation.mT
    return Pose(turned, -product(turned, pose.translation[..., None])[..., 0])


# Others come to the same but for a turn of the world.
_MISTAKES: dict[str, Callable[[Silhouette], Silhouette]] = {
    "the masks seem to be upside down": _upside_down,
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


def _outside(seen: Sequence[Silhouette]) -> Tensor:
    """(photos, P): which points of a grid about the object lie outside of which masks' cones."""
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
    return torch.stack([each.inside(grid) < -half / _CELLS for each in seen])
