"""Reading and writing mesh files, through trimesh."""

from __future__ import annotations

import os
import re
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from taichi_raster.mesh import Mesh

if TYPE_CHECKING:
    import trimesh  # imported by the functions that need it, as it takes a third of a second


def load_mesh(path: str | os.PathLike[str], dtype: torch.dtype = torch.float32) -> Mesh:
    """Read any triangle or polygon mesh that trimesh reads (OBJ, OFF, PLY, STL, glTF, ...).

    Polygons are cut into triangles, the meshes of a scene become one, and vertices at the same
    place become one (also where they differ in texture coordinates, which keep an index of their
    own, or normals). Vertices that no face uses are left out. Texture coordinates, the (base
    colour) texture and vertex colours come along.

    Raises:
        FileNotFoundError: if there is no such file.
        ValueError: if the file cannot be read as a mesh, holds no triangle, has vertices that are
            not finite, or announces more elements than it has bytes.
    """
    import trimesh

    path = Path(path)
    if not path.is_file():
        raise FileNotFoundError(f"{path}: there is no such mesh file")
    _check_text(path)
    try:
        loaded = trimesh.load(path, force="mesh", process=False)
        if not isinstance(loaded, trimesh.Trimesh):
            raise TypeError(f"it holds a {type(loaded).__name__}")
        vertices = np.asarray(loaded.vertices, dtype=np.float64)
        faces = np.asarray(loaded.faces, dtype=np.int64)
    except ImportError as error:
        raise ValueError(
            f"{path}: cannot be read as a mesh: it is corrupt, or its format or encoding needs "
            f"the Python package {error.name}"
        ) from error
    except Exception as error:  # trimesh's readers raise anything that parsing may raise
        raise ValueError(f"{path}: cannot be read as a mesh: {error}") from error
    if vertices.ndim != 2 or faces.ndim != 2 or len(faces) == 0:
        raise ValueError(f"{path}: holds no triangle; is it a mesh file?")
    if not 0 <= faces.min() <= faces.max() < len(vertices):
        raise ValueError(f"{path}: has faces whose vertices are not in the file")
    if not np.isfinite(vertices[faces]).all():
        raise ValueError(f"{path}: has vertices that are NaN or infinite")
    used, inverse = np.unique(faces, return_inverse=True)
    faces = inverse.reshape(faces.shape)
    places, first, merged = np.unique(
        vertices[used], axis=0, return_index=True, return_inverse=True
    )
    return Mesh(
        torch.tensor(places, dtype=dtype),
        torch.tensor(merged.reshape(-1)[faces]),
        **_appearance(loaded, used, faces, first, dtype),
    )


def save_mesh(path: str | os.PathLike[str], mesh: Mesh) -> None:
    """Write `mesh` in the format of the path's suffix; the file appears whole or not at all.

    Colours are written to OBJ, PLY and GLB; texture coordinates and a texture to GLB and OBJ (an
    OBJ's texture lies beside it, in a .mtl and a .png of its name). Other formats keep the shape.

    Raises:
        FileNotFoundError: if there is no such folder.
        ValueError: if trimesh does not write that format.
    """
    import trimesh

    path = Path(path)
    if not path.parent.is_dir():
        raise FileNotFoundError(f"{path.parent}: there is no such folder")
    kind = path.suffix.lower().lstrip(".")
    out = _to_trimesh(mesh)
    beside: dict[str, bytes] = {}
    try:
        if kind == "obj" and mesh.uv is not None:
            data, beside = trimesh.exchange.obj.export_obj(
                out, return_texture=True, mtl_name=f"{path.stem}.mtl"
            )
        else:
            data = out.export(file_type=kind)
    except ValueError as error:
        raise ValueError(f"{path}: meshes cannot be written as {kind!r}; try .obj") from error
    if isinstance(data, str):
        data = data.encode()
    if not isinstance(data, bytes):
        raise ValueError(f"{path}: {kind!r} is not a single file; try .obj or .glb")
    for name, content in beside.items():
        _write(path.parent / name, content)
    _write(path, data)


# A face of an OBJ file that counts from 0, which trimesh would take for the last vertex.
_ZERO_INDEX = re.compile(rb"^\s*f\s[^\n]*?(?<=\s)0+(?=[/\s])", re.MULTILINE)


def _check_text(path: Path) -> None:
    """Refuse what trimesh would misread: headers that announce more elements than the file has
    bytes, and indices of 0 in an OBJ."""
    size = path.stat().st_size
    if path.suffix.lower() == ".obj" and _ZERO_INDEX.search(path.read_bytes()):
        raise ValueError(f"{path}: has a face with vertex 0; OBJ files count from 1")
    with path.open("rb") as file:
        head = file.read(65536)
    if path.suffix.lower() == ".ply":
        for line in head.split(b"end_header")[0].splitlines():
            words = line.split()
            if len(words) == 3 and words[0] == b"element" and words[2].isdigit():
                if int(words[2]) > size:
                    raise ValueError(
                        f"{path}: cannot be read as a mesh: announces {int(words[2])} "
                        f"{words[1].decode(errors='replace')} elements in {size} bytes"
                    )
    if path.suffix.lower() == ".off":
        for line in head.splitlines()[:20]:
            words = line.split()
            if len(words) == 3 and all(w.isdigit() for w in words):
                if int(words[0]) + int(words[1]) > size:
                    raise ValueError(
                        f"{path}: cannot be read as a mesh: announces {int(words[0])} vertices "
                        f"and {int(words[1])} faces in {size} bytes"
                    )
                return


def _appearance(
    loaded: trimesh.Trimesh, used: np.ndarray, faces: np.ndarray, first: np.ndarray, dtype: Any
) -> dict[str, Tensor]:
    """Texture coordinates, texture and colours, as far as the file has them."""
    visual: Any = loaded.visual
    found: dict[str, Tensor] = {}
    uv = getattr(visual, "uv", None)
    if uv is not None and len(uv) == len(loaded.vertices) and np.isfinite(uv[used]).all():
        unique, index = np.unique(np.asarray(uv)[used, :2], axis=0, return_inverse=True)
        found["uv"] = torch.tensor(unique, dtype=dtype)
        found["uv_faces"] = torch.tensor(index.reshape(-1)[faces])
        image = _image_of(getattr(visual, "material", None))
        if image is not None:
            pixels = np.asarray(image.convert("RGBA" if image.mode == "RGBA" else "RGB"))
            found["texture"] = torch.tensor(pixels / 255, dtype=dtype)
    elif getattr(visual, "kind", None) == "vertex":
        colours = np.asarray(visual.vertex_colors)[used][first, :3]
        found["colours"] = torch.tensor(colours / 255, dtype=dtype)
    return found


def _image_of(material: Any) -> Image.Image | None:
    for name in ("baseColorTexture", "image"):
        image = getattr(material, name, None)
        if isinstance(image, Image.Image):
            return image
    return None


def _to_trimesh(mesh: Mesh) -> trimesh.Trimesh:
    import trimesh

    vertices = mesh.vertices.detach().cpu().double().numpy()
    faces = mesh.faces.cpu().numpy()
    if mesh.uv is None:
        out = trimesh.Trimesh(vertices, faces, process=False)
        if mesh.colours is not None:
            out.visual = trimesh.visual.ColorVisuals(out, vertex_colors=_bytes(mesh.colours))
        return out
    # One vertex for each pair of place and texture coordinate.
    uv_faces = faces if mesh.uv_faces is None else mesh.uv_faces.cpu().numpy()
    pairs = np.stack([faces, uv_faces], axis=-1).reshape(-1, 2)
    unique, index = np.unique(pairs, axis=0, return_inverse=True)
    out = trimesh.Trimesh(vertices[unique[:, 0]], index.reshape(faces.shape), process=False)
    image = None if mesh.texture is None else Image.fromarray(_bytes(mesh.texture))
    uv = mesh.uv.detach().cpu().double().numpy()[unique[:, 1]]
    material = trimesh.visual.material.SimpleMaterial(image=image, diffuse=[255, 255, 255, 255])
    out.visual = trimesh.visual.TextureVisuals(uv=uv, material=material)
    return out


def _bytes(values: Tensor) -> np.ndarray:
    return (values.detach().cpu().double().clamp(0, 1) * 255).round().to(torch.uint8).numpy()


def _write(path: Path, data: bytes) -> None:
    handle, temporary = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
    try:
        with os.fdopen(handle, "wb") as file:
            file.write(data)
        os.chmod(temporary, 0o666 & ~_umask())
        os.replace(temporary, path)
    except BaseException:
        os.unlink(temporary)
        raise


def _umask() -> int:
    """The process's permission mask, which can only be read by setting it."""
    mask = os.umask(0)
    os.umask(mask)
    return mask
