"""The meshes of a session in a page's 3D scene, and the cameras of the problem around them."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
import trimesh
from scipy.spatial.transform import Rotation
from torch import Tensor

import taichi_raster as tr
from viewer.plots import METHODS
from viewer.session import LETTERS, Session
from viewer.solids import Eye, Stage, eye, rotation, solid, stage

APART = 2.6  # from one method's mesh to the other's, which are about 2 across
LINE, SOLUTION = (120, 126, 138), (235, 238, 242)


class Scene:
    """What `server`, a `viser.ViserServer`, shows beside its panel."""

    def __init__(self, server: Any) -> None:
        self.server = server
        self._staged: object = None
        self._under = (0.0, 0.0, 0.0)  # where a title stands

    def show(self, session: Session) -> None:
        """The meshes as they are now."""
        scene = self.server.scene
        staged = (session.task, len(session.runs))
        if self._staged is None or self._staged != staged:
            self._staged = staged
            self._set(stage(session.task), len(session.runs))
        for index, run in enumerate(session.runs):
            name = f"/{LETTERS[index]}"
            mesh = solid(session.task, run.params)
            scene.add_mesh_trimesh(f"{name}/mesh", _shown(mesh, METHODS[index]))
            camera = eye(session.task, run.params)
            if camera is not None:
                self._frustum(f"{name}/camera", camera, METHODS[index], 3.0)
            title = f"{LETTERS[index]}: {run.settings.title}"
            scene.add_label(f"{name}/title", title, position=self._under)

    def _set(self, new: Stage, methods: int) -> None:
        """The cameras and solutions of a problem, and where to look at them from."""
        scene = self.server.scene
        scene.reset()
        up, front = (np.asarray(vector.double()) for vector in (new.up, new.front))
        scene.set_up_direction(tuple(up))
        self._under = tuple(-1.15 * up)
        right = np.cross(up, front)
        right /= max(float(np.linalg.norm(right)), 1e-9)
        for index in range(methods):
            at = APART * (index - (methods - 1) / 2) * right
            scene.add_frame(f"/{LETTERS[index]}", show_axes=False, position=tuple(at))
            if new.solution is not None:
                self._wire(f"/{LETTERS[index]}/solution", new.solution)
            alone = index == 0 or len(new.eyes) == 1  # many would stand among the other's
            for number, one in enumerate(new.eyes if alone else ()):
                self._frustum(f"/{LETTERS[index]}/eyes/{number}", one, LINE, 1.5)
        place = tuple(front * (1.0 if methods == 1 else 1.4))
        first = self.server.initial_camera
        first.position, first.look_at = place, (0.0, 0.0, 0.0)
        for client in self.server.get_clients().values():
            client.camera.position, client.camera.look_at = place, (0.0, 0.0, 0.0)

    def _frustum(self, name: str, shown: Eye, colour: tuple[int, int, int], line: float) -> None:
        across, up = shown.half
        x, y, z, w = Rotation.from_matrix(rotation(shown.view)).as_quat()
        self.server.scene.add_camera_frustum(
            name,
            fov=float(2 * np.arctan(up)),
            aspect=across / up,
            scale=0.25,
            thickness=line,
            thickness_units="screen",
            color=colour,
            image=None if shown.image is None else _bytes(shown.image),
            wxyz=(w, x, y, z),
            position=tuple(shown.place.tolist()),
        )

    def _wire(self, name: str, mesh: tr.Mesh) -> None:
        self.server.scene.add_mesh_simple(
            name,
            np.asarray(mesh.vertices.float()),
            np.asarray(mesh.faces),
            color=SOLUTION,
            wireframe=True,
            opacity=0.35,
        )


def _shown(mesh: tr.Mesh, colour: tuple[int, int, int]) -> trimesh.Trimesh:
    """With the mesh's own colours, or one for all; seen from both sides."""
    vertices, faces = np.asarray(mesh.vertices.double()), np.asarray(mesh.faces)
    count = len(vertices)
    if mesh.colours is None:
        colours = np.broadcast_to(np.array(colour, np.uint8), (count, 3))
    else:
        colours = _bytes(mesh.colours.clamp(0, 1) ** 2.2)  # those of a glTF file are linear
    return trimesh.Trimesh(
        np.concatenate([vertices, vertices]),
        np.concatenate([faces, faces[:, ::-1] + count]),
        vertex_colors=np.concatenate([colours, colours]),
        process=False,
    )


def _bytes(colours: Tensor) -> np.ndarray:
    return np.asarray((colours.detach().clamp(0, 1) * 255).round().to(torch.uint8))
