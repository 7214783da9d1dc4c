"""Further formats, through trimesh: each geometry of its scene, with its material."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from numpy import ndarray
from PIL import Image

from taichi_raster.scene.files.matrices_numpy import moved
from taichi_raster.scene.files.soup import Builder, Notes, Soup, Surface, polygons
from taichi_raster.scene.mesh import Mesh


def read(path: Path, notes: Notes) -> Soup:
    """What trimesh makes of the file."""
    import trimesh  # here, as it takes a third of a second

    scene: Any = trimesh.load(path, force="scene", process=False)
    builder = Builder()
    images: dict[int, tuple[Any, ndarray]] = {}
    for name in scene.graph.nodes_geometry:
        matrix, key = scene.graph[name]
        geometry = scene.geometry[key]
        if not isinstance(geometry, trimesh.Trimesh):
            notes.add({"Path3D": "lines", "PointCloud": "points"}.get(
                type(geometry).__name__, f"a {type(geometry).__name__}"
            ))  # fmt: skip
            continue
        places = np.asarray(geometry.vertices, dtype=np.float64)
        places = moved(matrix, places)
        faces = np.asarray(geometry.faces, dtype=np.int64)
        if len(faces) == 0:
            continue
        if np.linalg.det(matrix[:3, :3]) < 0:
            faces = faces[:, ::-1]
        polygons(places, np.full(len(faces), 3), faces.reshape(-1), notes)  # checks them
        surface, uv, colours = _appearance(geometry, images)
        if uv is not None and (uv.shape != (len(places), 2) or not np.isfinite(uv).all()):
            notes.add("texture coordinates that are not finite, or too few")
            uv = None
        first = builder.vertices(places)
        builder.triangles(
            faces + first, surface, None if uv is None else uv[faces], _at_corners(colours, faces)
        )
    return builder.soup(split=True)


def _at_corners(colours: tuple[str, ndarray] | None, faces: ndarray) -> ndarray | None:
    if colours is None:
        return None
    kind, values = colours
    return values[:, None].repeat(3, axis=1) if kind == "face" else values[faces]


def _appearance(
    geometry: Any, images: dict[int, tuple[Any, ndarray]]
) -> tuple[Surface, ndarray | None, tuple[str, ndarray] | None]:
    """Surface, texture coordinates (V, 2), and colours with what they are of."""
    from trimesh.visual.material import color_image

    visual = geometry.visual
    if visual.kind in ("vertex", "face"):
        values = visual.vertex_colors if visual.kind == "vertex" else visual.face_colors
        return Surface(), None, (visual.kind, np.asarray(values, dtype=np.uint8))
    uv = getattr(visual, "uv", None)
    uv = None if uv is None else np.asarray(uv, dtype=np.float64)
    material = getattr(visual, "material", None)
    if material is None:
        return Surface(), uv, None
    for name in ("baseColorTexture", "image"):
        found = getattr(material, name, None)
        # trimesh puts a picture of its own in the place of a missing one.
        if uv is not None and isinstance(found, Image.Image) and found != color_image():
            if id(found) not in images:
                alpha = found.mode in ("RGBA", "LA", "PA") or "transparency" in found.info
                images[id(found)] = (found, np.asarray(found.convert("RGBA" if alpha else "RGB")))
            factor = getattr(material, "baseColorFactor", None)
            return Surface(images[id(found)][1], _factor(factor), given=True), uv, None
    colour = getattr(material, "baseColorFactor", None)
    if colour is None:
        colour = getattr(material, "diffuse", None)
    return Surface(factor=_factor(colour), given=colour is not None), uv, None


def _factor(colour: Any) -> tuple[float, ...]:
    if colour is None:
        return 1.0, 1.0, 1.0, 1.0
    values = np.asarray(colour)
    values = values / 255 if values.dtype.kind in "ui" else values.astype(np.float64)
    return (*values.tolist(), 1.0)[:4]


def write(path: Path, mesh: Mesh, notes: Notes) -> dict[Path, bytes]:
    """The shape alone, in a format that trimesh writes as one file.

    Raises:
        ValueError: if it does not.
    """
    import trimesh

    kind = path.suffix.lower().lstrip(".")
    vertices = mesh.vertices.detach().cpu().double().numpy()
    out = trimesh.Trimesh(vertices, mesh.faces.cpu().numpy(), process=False)
    try:
        data = out.export(file_type=kind)
    except ValueError as error:
        raise ValueError(f"{path}: meshes cannot be written as {kind!r}; try .obj") from error
    if isinstance(data, str):
        data = data.encode()
    if not isinstance(data, bytes):
        raise ValueError(f"{path}: {kind!r} is not a single file; try .obj or .glb")
    if mesh.colours is not None:
        notes.add("colours")
    if mesh.uv is not None:
        notes.add("texture coordinates" if mesh.texture is None else "the texture")
    return {path: data}
