"""Reading and writing mesh files, through trimesh."""

from __future__ import annotations

import io
import os
import re
import struct
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from taichi_raster import checks
from taichi_raster.scene.mesh import Mesh

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

    path = checks.path("path", path)
    if not path.is_file():
        raise FileNotFoundError(f"{path}: there is no such mesh file")
    _check_text(path)
    try:
        loaded = _load(path)
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


def _load(path: Path) -> Any:
    """What trimesh makes of a file, with help for binary PLY files of mixed polygons."""
    import trimesh

    try:
        return trimesh.load(path, force="mesh", process=False)
    except ValueError as error:
        if "PLY is unexpected length" not in str(error):
            raise
        text = io.BytesIO(_ply_as_text(path.read_bytes()))
        return trimesh.load(text, file_type="ply", force="mesh", process=False)


_PLY_TYPES = {
    "char": "b",
    "int8": "b",
    "uchar": "B",
    "uint8": "B",
    "short": "h",
    "int16": "h",
    "ushort": "H",
    "uint16": "H",
    "int": "i",
    "int32": "i",
    "uint": "I",
    "uint32": "I",
    "float": "f",
    "float32": "f",
    "double": "d",
    "float64": "d",
}


def _ply_as_text(data: bytes) -> bytes:
    """A binary PLY file as a text one, of which trimesh takes faces of any numbers of corners."""
    head, mark, body = data.partition(b"end_header\n")
    order = ">" if b"binary_big_endian" in head else "<"
    elements: list[tuple[int, list[list[str]]]] = []
    for words in (line.split() for line in head.decode("ascii").splitlines()):
        if words[:1] == ["element"]:
            elements.append((int(words[2]), []))
        elif words[:1] == ["property"]:
            elements[-1][1].append(words[1:-1])
    at = 0

    def take(kind: str, count: int = 1) -> tuple[Any, ...]:
        nonlocal at
        layout = f"{order}{count}{_PLY_TYPES[kind]}"
        values = struct.unpack_from(layout, body, at)  # refuses to read past the end
        at += struct.calcsize(layout)
        return values

    rows = []
    for count, properties in elements:
        for _ in range(count):
            row: list[Any] = []
            for kinds in properties:
                if kinds[0] == "list":
                    (length,) = take(kinds[1])
                    row += [length, *take(kinds[2], length)]
                else:
                    row += take(kinds[0])
            rows.append(" ".join(map(repr, row)))
    head = re.sub(rb"(?m)^format \S+", b"format ascii", head)
    return head + mark + "\n".join(rows).encode() + b"\n"


def save_mesh(path: str | os.PathLike[str], mesh: Mesh) -> None:
    """Write `mesh` in the format of the path's suffix; the file appears whole or not at all.

    Colours are written to OBJ, PLY and GLB; texture coordinates and a texture to GLB and OBJ (an
    OBJ's texture lies beside it, in a .mtl and a .png of its name). Other formats keep the shape.

    Raises:
        FileNotFoundError: if there is no such folder.
        ValueError: if trimesh does not write that format, or colours or a texture have a number of
            channels that files do not hold.
    """
    import trimesh

    path = checks.path("path", path)
    checks.instance("mesh", mesh, Mesh)
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
    """Refuse what trimesh would misread.

    That is a header that announces more elements than the file has bytes, and indices of 0 in an
    OBJ.
    """
    size = path.stat().st_size
    if path.suffix.lower() == ".obj" and _ZERO_INDEX.search(path.read_bytes()):
        raise ValueError(f"{path}: has a face with vertex 0; OBJ files count from 1")
    with path.open("rb") as file:
        head = file.read(65536)
    if path.suffix.lower() == ".ply":
        for line in head.split(b"end_header")[0].splitlines():
            words = line.split()
            counted = len(words) == 3 and words[0] == b"element" and words[2].isdigit()
            if counted and int(words[2]) > size:
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
    """The texture, but not the picture that trimesh puts in the place of a missing one."""
    from trimesh.visual.material import color_image

    for name in ("baseColorTexture", "image"):
        image = getattr(material, name, None)
        if isinstance(image, Image.Image) and image != color_image():
            return image
    return None


def _to_trimesh(mesh: Mesh) -> trimesh.Trimesh:
    import trimesh

    vertices = mesh.vertices.detach().cpu().double().numpy()
    faces = mesh.faces.cpu().numpy()
    if mesh.uv is None:
        out = trimesh.Trimesh(vertices, faces, process=False)
        if mesh.colours is not None:
            _check_channels("colours", mesh.colours, 3, 4)
            out.visual = trimesh.visual.ColorVisuals(out, vertex_colors=_bytes(mesh.colours))
        return out
    # One vertex for each pair of place and texture coordinate.
    uv_faces = faces if mesh.uv_faces is None else mesh.uv_faces.cpu().numpy()
    pairs = np.stack([faces, uv_faces], axis=-1).reshape(-1, 2)
    unique, index = np.unique(pairs, axis=0, return_inverse=True)
    out = trimesh.Trimesh(vertices[unique[:, 0]], index.reshape(faces.shape), process=False)
    image = None
    if mesh.texture is not None:
        _check_channels("texture", mesh.texture, 1, 3, 4)
        picture = _bytes(mesh.texture)
        image = Image.fromarray(picture[..., 0] if picture.shape[-1] == 1 else picture)
    uv = mesh.uv.detach().cpu().double().numpy()[unique[:, 1]]
    material = trimesh.visual.material.SimpleMaterial(image=image, diffuse=[255, 255, 255, 255])
    out.visual = trimesh.visual.TextureVisuals(uv=uv, material=material)
    return out


def _check_channels(name: str, values: Tensor, *allowed: int) -> None:
    if values.shape[-1] not in allowed:
        raise ValueError(
            f"mesh.{name}: files hold {' or '.join(map(str, allowed))} channels, "
            f"got {values.shape[-1]}"
        )


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
