"""Other renderers, where they are installed (pip install '.[peers]'), for comparison."""

from __future__ import annotations

import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

import taichi_raster as tr


@dataclass(frozen=True)
class Scene:
    """A sphere in front of a camera.

    Attributes:
        vertices: (V, 3): x and y in NDC, and z; colours: (V, 3); faces: (F, 3).
    """

    vertices: Tensor
    colours: Tensor
    faces: Tensor

    @staticmethod
    def of(subdivisions: int) -> Scene:
        mesh = tr.icosphere(subdivisions, 0.7)
        camera = tr.PerspectiveCamera(tr.orbit(2.7, 20.0, 30.0), fov=42.0)
        vertices = camera.project(mesh.vertices[None].float())[0]
        colours = torch.rand(vertices.shape, generator=torch.Generator().manual_seed(0))
        return Scene(vertices, colours, mesh.faces)


class Deodr:
    """Forward and backward by DEODR, which antialiases the silhouette alone, or all edges.

    Raises:
        ImportError: if it is not installed.
    """

    def __init__(
        self,
        scene: Scene,
        size: int,
        weights: np.ndarray | None = None,
        all_edges: bool = False,
    ) -> None:
        from deodr.differentiable_renderer import Scene2D

        places = (scene.vertices[:, :2] * torch.tensor([1.0, -1.0]) + 1) * size / 2
        self.faces = scene.faces.numpy()
        count, corners = len(self.faces), len(places)
        self.picture = Scene2D(
            faces=self.faces.astype(np.uint32),
            faces_uv=np.zeros((count, 3), np.uint32),
            ij=places.double().numpy(),
            depths=scene.vertices[:, 2].double().numpy(),
            textured=np.zeros(count, bool),
            uv=np.zeros((1, 2)),
            shade=np.zeros(corners),
            colors=scene.colours.double().numpy(),
            shaded=np.zeros(count, bool),
            edgeflags=np.zeros((count, 3), bool),
            height=size,
            width=size,
            nb_colors=3,
            texture=np.zeros((2, 2, 3)),
            background_color=np.zeros(3),
            clockwise=False,
            backface_culling=True,
            perspective_correct=False,  # it has no gradient of that
            integer_pixel_centers=False,
        )
        self.beside = neighbours(self.faces)
        self.all_edges = all_edges
        random = np.random.default_rng(1).standard_normal((size, size, 3))
        self.weights = random if weights is None else weights

    def __call__(self) -> np.ndarray:
        corner = self.picture.ij[self.faces]
        edge, diagonal = corner[:, 1] - corner[:, 0], corner[:, 2] - corner[:, 0]
        front = edge[:, 0] * diagonal[:, 1] - edge[:, 1] * diagonal[:, 0] < 0
        silhouette = front[:, None] & ~front[self.beside]
        self.picture.edgeflags = silhouette | self.all_edges
        self.picture.clear_gradients()
        image, _ = self.picture.render(1)
        self.picture.render_backward(self.weights, make_copies=False)
        return image


def deodr(
    scene: Scene, size: int, weights: np.ndarray | None = None, all_edges: bool = False
) -> Deodr | None:
    """None if it is not installed."""
    try:
        return Deodr(scene, size, weights, all_edges)
    except ImportError:
        return None


def neighbours(faces: np.ndarray) -> np.ndarray:
    """(F, 3): the face on the other side of each edge of a closed mesh."""
    owner = {(u, v): f for f, (a, b, c) in enumerate(faces) for u, v in ((a, b), (b, c), (c, a))}
    return np.array([[owner[v, u] for u, v in ((a, b), (b, c), (c, a))] for a, b, c in faces])


class Mitsuba:
    """Forward and backward by Mitsuba 3 on LLVM: a path of one bounce, silhouettes by projection.

    The mesh glows in the colours of its vertices, so that nothing else is sampled. Four samples a
    pixel and four along silhouettes: its gradient is right on average, and noisy.

    Raises:
        ImportError: if it is not installed, or finds no LLVM (`DRJIT_LIBLLVM_PATH` says where).
    """

    SAMPLES = 4

    def __init__(self, subdivisions: int, size: int) -> None:
        import drjit
        import mitsuba

        mitsuba.set_variant("llvm_ad_rgb")
        mitsuba.set_log_level(mitsuba.LogLevel.Error)
        self.drjit, self.mitsuba = drjit, mitsuba
        self.scene = self._scene(subdivisions, size)
        self.parameters = mitsuba.traverse(self.scene)
        weights = np.random.default_rng(1).standard_normal((size, size, 3))
        self.weights = mitsuba.TensorXf(weights.astype(np.float32))
        self.turn = 0

    def _scene(self, subdivisions: int, size: int) -> Any:
        mi = self.mitsuba
        mesh = tr.icosphere(subdivisions, 0.7)
        colours = Scene.of(subdivisions).colours
        made = mi.Mesh("sphere", len(mesh.vertices), len(mesh.faces))
        parameters = mi.traverse(made)
        parameters["vertex_positions"] = mesh.vertices.float().numpy().ravel()
        parameters["faces"] = mesh.faces.numpy().astype(np.uint32).ravel()
        parameters.update()
        made.add_attribute("vertex_color", 3, colours.numpy().ravel())
        view = tr.orbit(2.7, 20.0, 30.0)[0].numpy()
        eye = -view[:3, :3].T @ view[:3, 3]
        with tempfile.TemporaryDirectory() as folder:
            path = str(Path(folder) / "sphere.ply")
            made.write_ply(path)
            return mi.load_dict(
                {
                    "type": "scene",
                    "integrator": {"type": "direct_projective", "sppi": 0, "guiding": "none"},
                    "sensor": {
                        "type": "perspective",
                        "fov": 42,
                        "to_world": mi.ScalarTransform4f().look_at(
                            origin=eye.tolist(),
                            target=(eye + view[2, :3]).tolist(),
                            up=view[1, :3].tolist(),
                        ),
                        "film": {
                            "type": "hdrfilm",
                            "width": size,
                            "height": size,
                            "rfilter": {"type": "box"},
                            "pixel_format": "rgb",
                            "sample_border": True,
                        },
                        "sampler": {"type": "independent", "sample_count": self.SAMPLES},
                    },
                    "mesh": {
                        "type": "ply",
                        "filename": path,
                        "face_normals": True,
                        "emitter": {
                            "type": "area",
                            "radiance": {"type": "mesh_attribute", "name": "vertex_color"},
                        },
                    },
                }
            )

    def __call__(self) -> np.ndarray:
        dr, key = self.drjit, "mesh.vertex_positions"
        dr.enable_grad(self.parameters[key])
        self.parameters.update()
        self.turn += 1
        image = self.mitsuba.render(self.scene, self.parameters, spp=self.SAMPLES, seed=self.turn)
        dr.backward(dr.sum(image * self.weights))
        np.array(dr.grad(self.parameters[key]))  # waits for it
        dr.set_grad(self.parameters[key], 0)
        return np.array(image)


def mitsuba(subdivisions: int, size: int) -> Mitsuba | None:
    """None if it is not installed, or finds no LLVM."""
    try:
        return Mitsuba(subdivisions, size)
    except ImportError:
        return None
