"""Several meshes as one, with their textures in an atlas."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from taichi_raster import checks
from taichi_raster.scene import atlas
from taichi_raster.scene.mesh import Mesh

logger = logging.getLogger(__name__)


def join(meshes: Sequence[Mesh]) -> Mesh:
    """Several meshes as one: a scene. Gradients flow back to each mesh's tensors.

    Vertices and faces are those of the first mesh, then of the second, and so on. One texture that
    all meshes share stays as it is. Several go into an atlas, in which bilinear sampling gives what
    each gives on its own, also where it repeats. A mesh without a texture, or without colours, is
    white where others have some, so that it shows what it showed. One warning names what is lost:
    texture coordinates of meshes without a texture, or texels if the atlas had to be shrunk.

    Args:
        meshes: at least one, of one dtype and device, their textures and colours grey, RGB or RGBA,
            or of one number of channels.

    Raises:
        TypeError: if one is not a `Mesh`.
        ValueError: if there is none, they differ in dtype or device, or their channels do not go
            together.

    Example:
        >>> scene = join([load_mesh("table.glb"), load_mesh("lamp.obj")])
    """
    meshes = list(meshes)
    for mesh in meshes:
        checks.instance("meshes", mesh, Mesh)
    if not meshes:
        raise ValueError("meshes: expected at least one")
    kinds = {(mesh.vertices.dtype, mesh.vertices.device) for mesh in meshes}
    if len(kinds) > 1:
        raise ValueError(f"meshes: must agree in dtype and device, got {sorted(map(str, kinds))}")
    vertices = torch.cat([mesh.vertices for mesh in meshes])
    faces = _stacked([mesh.faces for mesh in meshes], [len(mesh.vertices) for mesh in meshes])
    lost: list[str] = []
    surface = _surface(meshes, lost)
    colours, colour_faces = _colours(meshes)
    if lost:
        logger.warning("join: left out: %s", "; ".join(lost))
    return Mesh(
        vertices,
        faces,
        surface.uv,
        surface.uv_faces,
        surface.texture,
        colours,
        colour_faces,
        surface.wrap,
    )


@dataclass(frozen=True)
class _Textured:
    """The fields of a mesh that say what its texture shows."""

    uv: Tensor | None = None
    uv_faces: Tensor | None = None
    texture: Tensor | None = None
    wrap: str = "repeat"


def _surface(meshes: Sequence[Mesh], lost: list[str]) -> _Textured:
    pictures = [_picture(mesh) for mesh in meshes]
    if all(picture is None for picture in pictures):
        return _coordinates_alone(meshes, lost)
    if any(mesh.uv is not None and mesh.texture is None for mesh in meshes):
        lost.append("texture coordinates of meshes without a texture")
    channels = next(picture.image.shape[2] for picture in pictures if picture is not None)
    white = meshes[0].vertices.new_ones(1, 1, channels)
    half = meshes[0].vertices.new_full((1, 2), 0.5)
    filled = [
        atlas.Picture(white, half, torch.zeros_like(mesh.faces)) if picture is None else picture
        for picture, mesh in zip(pictures, meshes, strict=True)
    ]
    groups: list[list[int]] = []  # meshes that show the same image in the same way
    for i, picture in enumerate(filled):
        for group in groups:
            other = filled[group[0]]
            if other.wrap == picture.wrap and _same(other.image, picture.image):
                group.append(i)
                break
        else:
            groups.append([i])
    together = [
        atlas.Picture(
            filled[group[0]].image,
            torch.cat([filled[i].uv for i in group]),
            _stacked([filled[i].uv_faces for i in group], [len(filled[i].uv) for i in group]),
            filled[group[0]].wrap,
        )
        for group in groups
    ]
    if len(together) == 1:
        (one,) = together
        return _Textured(one.uv, one.uv_faces, one.image, one.wrap[0])
    found = atlas.atlas(together)
    if found.shrunk < 1:
        lost.append(
            f"texels: the atlas would not fit into {atlas.MOST} x {atlas.MOST}, and textures were "
            f"made up to {1 / found.shrunk:.3g} times smaller"
        )
    of_mesh: dict[int, Tensor] = {}
    start = 0
    for group, (uv, index) in zip(groups, found.coordinates, strict=True):
        parts = index.split([len(meshes[i].faces) for i in group])
        of_mesh |= {i: part + start for i, part in zip(group, parts, strict=True)}
        start += len(uv)
    return _Textured(
        torch.cat([uv for uv, _ in found.coordinates]),
        torch.cat([of_mesh[i] for i in range(len(meshes))]),
        found.image,
    )


def _picture(mesh: Mesh) -> atlas.Picture | None:
    if mesh.texture is None or mesh.uv is None:
        return None
    index = mesh.faces if mesh.uv_faces is None else mesh.uv_faces
    return atlas.Picture(mesh.texture, mesh.uv, index, (mesh.wrap, mesh.wrap))


def _same(a: Tensor, b: Tensor) -> bool:
    """Whether two images are one: also of equal values, unless a gradient has to go to each."""
    if a is b:
        return True
    return not (a.requires_grad or b.requires_grad) and a.shape == b.shape and torch.equal(a, b)


def _coordinates_alone(meshes: Sequence[Mesh], lost: list[str]) -> _Textured:
    """Texture coordinates without any texture."""
    if all(mesh.uv is None for mesh in meshes):
        return _Textured()
    if any(mesh.uv is None for mesh in meshes):
        lost.append("that some meshes have no texture coordinates, which are now 0")
    rows, index = [], []
    for mesh in meshes:
        if mesh.uv is None:
            rows.append(mesh.vertices.new_zeros(1, 2))
            index.append(torch.zeros_like(mesh.faces))
        else:
            rows.append(mesh.uv)
            index.append(mesh.faces if mesh.uv_faces is None else mesh.uv_faces)
    return _Textured(torch.cat(rows), _stacked(index, [len(uv) for uv in rows]))


def _colours(meshes: Sequence[Mesh]) -> tuple[Tensor | None, Tensor | None]:
    """Colours and their index; that of vertices where all meshes have it."""
    given = [mesh.colours for mesh in meshes if mesh.colours is not None]
    if not given:
        return None, None
    counts = {colours.shape[1] for colours in given}
    if len(counts) > 1 and not counts <= {1, 3, 4}:
        raise ValueError(f"colours: cannot join {sorted(counts)} channels")
    rows, index = [], []
    for mesh in meshes:
        if mesh.colours is None:
            rows.append(mesh.vertices.new_ones(1, max(counts)))
            index.append(torch.zeros_like(mesh.faces))
        else:
            rows.append(atlas.with_channels(mesh.colours, max(counts)))
            index.append(mesh.faces if mesh.colour_faces is None else mesh.colour_faces)
    colours = torch.cat(rows)
    if all(mesh.colours is not None and mesh.colour_faces is None for mesh in meshes):
        return colours, None
    return colours, _stacked(index, [len(part) for part in rows])


def _stacked(indices: Sequence[Tensor], counts: Sequence[int]) -> Tensor:
    """Indices one after another, each beyond the values of those before."""
    starts = torch.tensor([0, *counts[:-1]]).cumsum(0).tolist()
    return torch.cat([index + start for index, start in zip(indices, starts, strict=True)])
