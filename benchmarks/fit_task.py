"""A small inverse problem for timing outer steps: a sphere's vertices, from one silhouette."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn

import taichi_raster as tr
from meta.inner.method import Method
from meta.inner.updates import Adam
from scenes import GAMMA, SCALE


@dataclass(frozen=True)
class Fit:
    """One instance; the unknowns are the vertices (1, V, 3)."""

    mesh: tr.Mesh
    camera: tr.PerspectiveCamera
    target: Tensor
    batch_size: int = 1

    def start(self) -> Tensor:
        return self.mesh.vertices[None]

    def loss(self, params: Tensor, renderer: nn.Module, progress: object) -> Tensor:
        faces = tr.gather_faces(self.camera.project(params), self.mesh.faces)
        alpha = renderer(faces, torch.ones_like(faces))[..., 3]
        return (alpha - self.target).square().mean(dim=(1, 2))

    def true_error(self, params: Tensor) -> Tensor:
        wanted = self.mesh.vertices * torch.tensor([1.2, 0.8, 1.0])
        return (params - wanted).square().mean(dim=(1, 2))


def make_task() -> Fit:
    mesh = tr.icosphere(3, 0.7)
    camera = tr.PerspectiveCamera(tr.orbit(2.7, 20.0, 0.0), fov=42.0)
    target = torch.zeros(1, 64, 64)
    target[:, 22:42, 16:48] = 1
    return Fit(mesh, camera, target)


def make_method(steps: int) -> Method:
    """A learned softness, as a table, for a 64 x 64 image."""
    edge = tr.tabulate(tr.MLPSoftness(scale=SCALE))
    renderer = tr.SoftRasterizer(64, edge, tr.SoftmaxDepth(GAMMA), near=1.0, far=5.0)
    return Method(renderer, Adam(), tr.Constant(0.01), steps)
