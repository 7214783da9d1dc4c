"""Silhouettes by DEODR (pip install '.[peers]'), as a function that torch can differentiate."""

from __future__ import annotations

import importlib.util
from typing import Any

import numpy as np
import torch
from peers import neighbours
from torch import Tensor


def installed() -> bool:
    return importlib.util.find_spec("deodr") is not None


class DeodrSilhouettes:
    """From points (B, V, 3) in NDC to coverage (B, H, H) of a closed mesh.

    Its derivatives are those in x and y; it has none in depth.
    """

    def __init__(self, faces: Tensor, size: int) -> None:
        self.faces = faces.numpy()
        self.size = size
        self.beside = neighbours(self.faces)
        self.scenes: list[Any] = []  # one for each row: each keeps what its derivatives need

    def __call__(self, points: Tensor) -> Tensor:
        drawn: Tensor = _Drawn.apply(points, self)
        return drawn

    def draw(self, row: int, points: np.ndarray) -> np.ndarray:
        if row == len(self.scenes):
            self.scenes.append(self._scene(len(points)))
        scene = self.scenes[row]
        scene.ij = (points[:, :2] * np.array([1.0, -1.0]) + 1) * (self.size / 2)
        scene.depths = np.ascontiguousarray(points[:, 2])
        corner = scene.ij[self.faces]
        edge, diagonal = corner[:, 1] - corner[:, 0], corner[:, 2] - corner[:, 0]
        front = edge[:, 0] * diagonal[:, 1] - edge[:, 1] * diagonal[:, 0] < 0
        scene.edgeflags = front[:, None] & ~front[self.beside]  # the silhouette
        scene.clear_gradients()
        image: np.ndarray = scene.render(1)[0][..., 0]
        return image

    def pull(self, row: int, slope: np.ndarray) -> np.ndarray:
        """(V, 2): the adjoint of x and y in NDC."""
        scene = self.scenes[row]
        scene.render_backward(np.ascontiguousarray(slope[..., None]), make_copies=False)
        pulled: np.ndarray = scene.ij_b * (self.size / 2) * np.array([1.0, -1.0])
        return pulled

    def _scene(self, corners: int) -> Any:
        from deodr.differentiable_renderer import Scene2D

        count = len(self.faces)
        return Scene2D(
            faces=self.faces.astype(np.uint32),
            faces_uv=np.zeros((count, 3), np.uint32),
            ij=np.zeros((corners, 2)),
            depths=np.zeros(corners),
            textured=np.zeros(count, bool),
            uv=np.zeros((1, 2)),
            shade=np.zeros(corners),
            colors=np.ones((corners, 1)),
            shaded=np.zeros(count, bool),
            edgeflags=np.zeros((count, 3), bool),
            height=self.size,
            width=self.size,
            nb_colors=1,
            texture=np.zeros((2, 2, 1)),
            background_color=np.zeros(1),
            clockwise=False,
            backface_culling=True,
            perspective_correct=False,
            integer_pixel_centers=False,
        )


class _Drawn(torch.autograd.Function):
    """Once for each call of the renderer: a later call takes over its scenes."""

    @staticmethod
    def forward(ctx: Any, points: Tensor, renderer: DeodrSilhouettes) -> Tensor:
        ctx.renderer = renderer
        rows = points.detach().double().numpy()
        return torch.from_numpy(np.stack([renderer.draw(i, p) for i, p in enumerate(rows)])).to(
            points
        )

    @staticmethod
    def backward(ctx: Any, slope: Tensor) -> tuple[Tensor, None]:
        rows = slope.double().numpy()
        moved = np.stack([ctx.renderer.pull(i, s) for i, s in enumerate(rows)])
        flat = torch.from_numpy(moved).to(slope)
        return torch.cat([flat, torch.zeros_like(flat[..., :1])], dim=2), None
