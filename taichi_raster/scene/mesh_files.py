"""Reading and writing mesh files."""

from __future__ import annotations

import logging
import os
from collections.abc import Callable
from pathlib import Path

import torch

from taichi_raster import checks
from taichi_raster.scene.files import glb, gltf, images, obj, off, others, ply, stl
from taichi_raster.scene.files.assembly import assemble, first_unique
from taichi_raster.scene.files.soup import Notes, Soup
from taichi_raster.scene.files.writing import Written, write_together
from taichi_raster.scene.mesh import Mesh

logger = logging.getLogger(__name__)

_READERS: dict[str, Callable[[Path, Notes], Soup]] = {
    ".obj": obj.read,
    ".ply": ply.read,
    ".off": off.read,
    ".stl": stl.read,
    ".gltf": gltf.read,
    ".glb": gltf.read,
}
_WRITERS: dict[str, Callable[[Path, Mesh, Notes], Written]] = {
    ".obj": obj.write,
    ".ply": ply.write,
    ".off": off.write,
    ".stl": stl.write,
    ".glb": glb.write,
}


def load_mesh(
    path: str | os.PathLike[str], dtype: torch.dtype = torch.float32, merge: bool = True
) -> Mesh:
    """Read a mesh: OBJ, PLY, OFF, STL, glTF, or another format that trimesh reads.

    The mesh is what programs show that open the file. Polygons are cut into triangles, concave ones
    by ear clipping. The parts of a scene become one mesh. Textures, of several of which an atlas is
    made, come along with the factors of their materials, and so do colours of materials, faces and
    vertices. Where a file has both, the two multiply (see `Mesh`). All are taken as the file has
    them, without conversion between linear light and sRGB, as trimesh does.

    One warning names whatever is left out (logger ``taichi_raster.scene.mesh_files``).

    Args:
        path: the file; its suffix says the format.
        dtype: of the mesh.
        merge: make vertices at one place one, also where they differ in texture coordinates or
            colours, which have indices of their own; and leave out vertices that no face uses. The
            rest keep the file's order. Without it, vertices are those that the file lists.

    Raises:
        FileNotFoundError: if there is no such file.
        ValueError: if the file cannot be read as a mesh, holds no triangle, has vertices that are
            not finite, or announces more elements than it has bytes. The message names the file.
    """
    path = checks.path("path", path)
    if not path.is_file():
        raise FileNotFoundError(f"{path}: there is no such mesh file")
    notes = Notes()
    reader = _READERS.get(path.suffix.lower(), others.read)
    try:
        mesh = assemble(reader(path, notes), dtype, merge, notes)
    except ImportError as error:
        raise ValueError(
            f"{path}: cannot be read as a mesh: it is corrupt, or its format needs a package that "
            f"is not installed ({error}); the extra taichi-raster[formats] has those of COLLADA "
            "and 3MF"
        ) from error
    except Exception as error:  # readers raise anything that parsing may raise
        raise ValueError(f"{path}: cannot be read as a mesh: {_said(error)}") from error
    if notes:
        logger.warning("%s: left out: %s", path, notes)
    return mesh


def _said(error: Exception) -> str:
    if str(error).startswith(("could not convert", "invalid literal")):
        return f"has text where a number ought to be ({error})"
    if isinstance(error, OverflowError):
        return "has a whole number of more than 64 bits"
    if isinstance(error, ValueError):
        return str(error)
    return f"{type(error).__name__}: {error}"


def save_mesh(path: str | os.PathLike[str], mesh: Mesh) -> None:
    """Write `mesh` in the format of the path's suffix; all files appear whole, or none.

    | suffix | holds |
    | --- | --- |
    | .obj | all but the opacity of colours; a texture lies beside it, in a .mtl and a .png |
    | .ply | all, colours in 8 bits; a texture lies beside it, in a .png |
    | .glb | all, in float32 |
    | .off | the shape and colours |
    | .stl | the shape, in float32, without the order of vertices |
    | others that trimesh writes | the shape |

    Files beside it are named after it; where another file has that name, they get a number, too.
    Images have 8 bits a channel. One warning names whatever the file does not hold (logger
    ``taichi_raster.scene.mesh_files``).

    Raises:
        FileNotFoundError: if there is no such folder.
        ValueError: if trimesh does not write that format, or colours or a texture have a number of
            channels that files do not hold.
    """
    path = checks.path("path", path)
    checks.instance("mesh", mesh, Mesh)
    if not path.parent.is_dir():
        raise FileNotFoundError(f"{path.parent}: there is no such folder")
    notes = Notes()
    if mesh.colours is not None:
        _check_channels("colours", mesh.colours, 3, 4)
    if mesh.texture is not None:
        _check_channels("texture", mesh.texture, 1, 3, 4)
    suffix = path.suffix.lower()
    files = _WRITERS.get(suffix, others.write)(path, mesh, notes)
    _note_losses(suffix, mesh, notes)
    write_together(files)
    if notes:
        logger.warning("%s: the file does not hold: %s", path, notes)


def _note_losses(suffix: str, mesh: Mesh, notes: Notes) -> None:
    """What is lost in more than one format."""
    colours = mesh.colours if suffix in (".obj", ".off", ".ply", ".glb") else None
    if colours is not None and bool(((colours < 0) | (colours > 1)).any()):
        notes.add("colours beyond [0, 1]")
    if mesh.texture is not None and mesh.uv is None:
        notes.add("the texture, which has no texture coordinates")
    elif mesh.texture is not None and suffix in (".obj", ".ply", ".glb"):
        if not images.is_shown(mesh.texture):
            notes.add("values of the texture beyond [0, 1]")
        if mesh.wrap != "repeat" and suffix == ".ply":
            notes.add(f"that the texture's wrap is {mesh.wrap!r}")
    numbered = mesh.colours is None and (mesh.uv is None or suffix == ".obj")
    if not (numbered and suffix in (".obj", ".off", ".ply")):
        used = torch.zeros(len(mesh.vertices), dtype=torch.bool)
        used[mesh.faces.reshape(-1).cpu()] = True
        if not bool(used.all()):
            notes.add(f"the {int((~used).sum())} vertices that no face uses")
        places = mesh.vertices.detach().cpu()[used]
        if len(first_unique(places.double().numpy())[0]) < len(places):
            notes.add("that some vertices at one place are several: reading makes them one")


def _check_channels(name: str, values: torch.Tensor, *allowed: int) -> None:
    if values.shape[-1] not in allowed:
        raise ValueError(
            f"mesh.{name}: files hold {' or '.join(map(str, allowed))} channels, "
            f"got {values.shape[-1]}"
        )
