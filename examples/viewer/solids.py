"""The problems in space: their meshes, and their cameras around them."""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import singledispatch
from typing import Any

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

import taichi_raster as tr
from tasks.occlusion import OcclusionBatch
from tasks.pose import PoseBatch
from tasks.shape2d import Shape2DBatch
from tasks.shape3d import FOV, Shape3DBatch
from viewer.photo import PhotoBatch


@dataclass(frozen=True)
class Eye:
    """A camera of the problem.

    Attributes:
        view: (4, 4), as `tr.orbit` gives it: rows right, up and forward.
        half: tangents of half its angles, across and up.
        image: what it sees, (H, W, 3) in [0, 1], where that is known.
    """

    view: Float[Tensor, "4 4"]
    half: tuple[float, float]
    image: Float[Tensor, "H W 3"] | None = None

    @property
    def place(self) -> Float[Tensor, " 3"]:
        """Where it is."""
        return -self.view[:3, :3].T @ self.view[:3, 3]


@dataclass(frozen=True)
class Stage:
    """What stands still: all is about 1 in size, around the origin.

    Attributes:
        eyes: the cameras of the problem.
        solution: the mesh that the descent looks for, where it is hidden.
        up: that of the world. front: where to look from at first.
    """

    eyes: tuple[Eye, ...] = ()
    solution: tr.Mesh | None = None
    up: Float[Tensor, " 3"] = field(default_factory=lambda: torch.tensor([0.0, 1.0, 0.0]))
    front: Float[Tensor, " 3"] = field(default_factory=lambda: torch.tensor([0.6, 0.4, 1.6]))


@singledispatch
def stage(task: Any) -> Stage:
    """What stands still in a problem: a batch of one."""
    raise TypeError(f"task: {type(task).__name__} has no place in space yet")


@singledispatch
def solid(task: Any, params: Tensor) -> tr.Mesh:
    """What unknowns mean, as a mesh; its colours, where it has some, belong to vertices."""
    name = type(task).__name__
    raise TypeError(f"task: {name} has no mesh for unknowns {tuple(params.shape)} yet")


def eye(task: Any, params: Tensor) -> Eye | None:
    """The camera that unknowns mean, where that is what is looked for."""
    return _camera(task, params) if isinstance(task, PoseBatch) else None


# Flat shapes one behind the other ----------------------------------------------------------------


@stage.register
def _(task: Shape2DBatch) -> Stage:
    return Stage(solution=solid(task, task.hidden))


@stage.register
def _(task: OcclusionBatch) -> Stage:
    return Stage(solution=solid(task, task.solution))


@solid.register
def _(task: Shape2DBatch, params: Tensor) -> tr.Mesh:
    return _flat(task.geometry(params)[0], task.colours[0])


@solid.register
def _(task: OcclusionBatch, params: Tensor) -> tr.Mesh:
    there = task.owner[0] >= 0
    return _flat(task.geometry(params)[0, there], task.colours[0, task.owner[0, there]])


def _flat(corners: Float[Tensor, "F 3 3"], colours: Float[Tensor, "F 3"]) -> tr.Mesh:
    """Triangles whose depth is a share of the depth range; what is near is in front, z > 0."""
    corners = torch.cat([corners[..., :2], 0.5 - corners[..., 2:]], dim=-1).detach()
    faces = torch.arange(3 * len(corners)).reshape(-1, 3)
    return tr.Mesh(corners.reshape(-1, 3), faces, colours=colours.repeat_interleave(3, dim=0))


# Solids ------------------------------------------------------------------------------------------


@stage.register
def _(task: Shape3DBatch) -> Stage:
    half = float(torch.tan(torch.deg2rad(torch.tensor(FOV / 2))))
    size = task.family.image_size
    pictures = task.target[0].unflatten(1, (-1, size)).unbind(1)
    eyes = zip(task.camera.view.float(), pictures, strict=True)
    shown = tuple(Eye(view, (half, half), part.expand(-1, -1, 3)) for view, part in eyes)
    return Stage(shown, task.hidden()[0], front=torch.tensor([1.0, 0.9, 2.4]))


@solid.register
def _(task: Shape3DBatch, params: Tensor) -> tr.Mesh:
    return task.fitted(params)[0]


@stage.register
def _(task: PhotoBatch) -> Stage:
    photos = task.photos
    height, width = photos.shape
    eyes = []
    for number in [task.held, *task.fitted]:  # the one held out is the first
        camera = photos.cameras[number]
        view = camera.view[0].double()
        turn = view[:3, :3]
        moved = (turn @ photos.centre + view[:3, 3]) / photos.radius
        view = torch.cat([torch.cat([turn, moved[:, None]], dim=1), view[3:]]).float()
        fx, fy = torch.as_tensor(camera.focal).reshape(-1)[:2].tolist()
        across, down = width / min(width, height) / fx, height / min(width, height) / fy
        eyes.append(Eye(view, (across, down), photos.images[number]))
    up = torch.stack([one.view[1, :3] for one in eyes]).mean(0)
    return Stage(tuple(eyes), None, torch.nn.functional.normalize(up, dim=0), eyes[0].place)


@solid.register
def _(task: PhotoBatch, params: Tensor) -> tr.Mesh:
    mesh, photos = task.coloured(params), task.photos
    moved = (mesh.vertices.double() - photos.centre) / photos.radius
    return tr.Mesh(moved.float(), mesh.faces, colours=mesh.colours)


# Poses -------------------------------------------------------------------------------------------


@stage.register
def _(task: PoseBatch) -> Stage:
    truth = _camera(task, task.hidden)
    seen = task.target[0][..., :3].expand(-1, -1, 3)
    aside = torch.tensor([0.85, 0.5, 0.6]) * truth.place.norm()
    return Stage((Eye(truth.view, truth.half, seen),), front=aside)


@solid.register
def _(task: PoseBatch, _params: Tensor) -> tr.Mesh:
    """The mesh, turned so that the true camera has elevation and azimuth 0."""
    corners = (task.corners[0] @ task.frames[0].T).reshape(-1, 3)
    faces = torch.arange(len(corners)).reshape(-1, 3)
    colours = None if task.colours is None else task.colours[0].reshape(-1, 3)
    return tr.Mesh(corners, faces, colours=colours)


def _camera(task: PoseBatch, params: Tensor) -> Eye:
    distance, elevation, azimuth, half = task.family.views(params.detach())[:, :4].unbind(dim=-1)
    slope = float(torch.tan(torch.deg2rad(half)))
    return Eye(tr.orbit(distance, elevation, azimuth)[0].float(), (slope, slope))


def rotation(view: Float[Tensor, "4 4"]) -> np.ndarray:
    """(3, 3) from a camera's axes right, down and forward, as OpenCV has them, to the world's."""
    axes = view[:3, :3].double() * torch.tensor([[1.0], [-1.0], [1.0]])
    return np.asarray(axes.T)
