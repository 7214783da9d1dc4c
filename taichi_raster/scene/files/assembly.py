"""From a file's triangles to a mesh: vertices in the file's order, one texture, colours."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from numpy import ndarray
from torch import Tensor

from taichi_raster.scene import atlas
from taichi_raster.scene.files import images
from taichi_raster.scene.files.soup import WHITE, Notes, Soup, Surface
from taichi_raster.scene.mesh import Mesh


def assemble(soup: Soup, dtype: torch.dtype, merge: bool, notes: Notes) -> Mesh:
    """The mesh of a file.

    Args:
        merge: make vertices at one place one, and leave out those that no face uses.

    Raises:
        ValueError: if there is no triangle.
    """
    if len(soup.faces) == 0:
        raise ValueError("holds no triangle; is it a mesh file?")
    places, faces = soup.places, np.asarray(soup.faces, dtype=np.int64)
    if merge:
        places, faces = _merged(places, faces, soup.split, notes)
    elif not np.isfinite(places).all():
        raise ValueError("has vertices that are NaN or infinite")
    fields = _textured(soup, dtype, notes)
    if fields is None:
        fields = _untextured(soup, dtype, notes)
    fields |= _colours(soup, faces, len(places), bool("texture" in fields), dtype)
    return Mesh(torch.tensor(places, dtype=dtype), torch.tensor(faces), **fields)  # type: ignore[arg-type]


# Vertices -----------------------------------------------------------------------------------------


def first_unique(rows: ndarray) -> tuple[ndarray, ndarray]:
    """Which rows (N, C) are the first of their value, ascending, and of which each row is one."""
    rows = rows + 0.0  # -0 becomes 0
    order = np.lexsort(rows.T[::-1])  # stable: equal rows stay in their order
    ordered = rows[order]
    new = np.ones(len(rows), dtype=bool)
    new[1:] = (ordered[1:] != ordered[:-1]).any(axis=1)
    first = order[new]
    group = np.empty(len(rows), dtype=np.int64)
    group[order] = np.cumsum(new) - 1
    by_first = np.argsort(first)
    rank = np.empty(len(first), dtype=np.int64)
    rank[by_first] = np.arange(len(first))
    return first[by_first], rank[group]


def _merged(places: ndarray, faces: ndarray, split: bool, notes: Notes) -> tuple[ndarray, ndarray]:
    used = np.zeros(len(places), dtype=bool)
    used[faces] = True
    kept = np.flatnonzero(used)
    first, merged = first_unique(places[kept])
    if not split:  # so the file's numbers meant something
        changes = [
            f"{count} {what}"
            for count, what in (
                (len(places) - len(kept), "that no face uses"),
                (len(kept) - len(first), "at the places of others"),
            )
            if count > 0
        ]
        if changes:
            notes.add(
                f"vertices {' and '.join(changes)}, so that others have new numbers "
                "(load_mesh(..., merge=False) keeps them)"
            )
    number = np.full(len(places), -1)
    number[kept] = merged
    return places[kept][first], number[faces]


# Colours ------------------------------------------------------------------------------------------


def _colours(
    soup: Soup, faces: ndarray, count: int, textured: bool, dtype: torch.dtype
) -> dict[str, Tensor]:
    """Colours of vertices where each has one, else with an index of their own.

    Beside a texture, colours of materials are in the texture.
    """
    corners = np.ones((*faces.shape, 4))
    found = textured is False and any(
        _used(soup, i) and s.given for i, s in enumerate(soup.surfaces)
    )
    if soup.colours is not None:
        given = ~np.isnan(soup.colours)
        corners = np.where(given, soup.colours, corners)
        found = True
    if not found:
        return {}
    if not textured:
        for i, surface in enumerate(soup.surfaces):
            chosen = _materials(soup) == i
            corners[chosen] *= np.array(surface.factor)
    if (corners[..., 3] == 1).all():
        corners = corners[..., :3]
    of_vertices = np.ones((count, corners.shape[-1]))
    of_vertices[faces] = corners
    if (of_vertices[faces] == corners).all():
        return {"colours": torch.tensor(of_vertices, dtype=dtype)}
    flat = corners.reshape(-1, corners.shape[-1])
    first, index = first_unique(flat)
    return {
        "colours": torch.tensor(flat[first], dtype=dtype),
        "colour_faces": torch.tensor(index.reshape(faces.shape)),
    }


def _materials(soup: Soup) -> ndarray:
    if soup.material is None:
        return np.zeros(len(soup.faces), dtype=np.int64)
    return soup.material


def _used(soup: Soup, index: int) -> bool:
    return bool((_materials(soup) == index).any())


# Textures -----------------------------------------------------------------------------------------


def _untextured(soup: Soup, dtype: torch.dtype, notes: Notes) -> dict[str, Tensor | str]:
    """Texture coordinates without a texture."""
    if soup.uv is None:
        return {}
    missing = np.isnan(soup.uv).any(axis=(1, 2))
    if missing.all():
        return {}
    if missing.any():
        notes.add(f"that {int(missing.sum())} faces have no texture coordinates, which are now 0")
    uv = np.where(missing[:, None, None], 0.0, soup.uv)
    coordinates, index = _indexed(uv)
    return {"uv": torch.tensor(coordinates, dtype=dtype), "uv_faces": torch.tensor(index)}


def _indexed(uv: ndarray) -> tuple[ndarray, ndarray]:
    """(T, 2) coordinates, each once, and (F, 3) indices, of those at corners (F, 3, 2)."""
    flat = uv.reshape(-1, 2)
    first, index = first_unique(flat)
    return flat[first], index.reshape(uv.shape[:2])


@dataclass
class _Group:
    """Faces that show the same image in the same way."""

    surface: Surface
    faces: ndarray
    uv: ndarray


def _textured(soup: Soup, dtype: torch.dtype, notes: Notes) -> dict[str, Tensor | str] | None:
    """Texture and coordinates; None if no face shows an image."""
    if not any(s.image is not None and _used(soup, i) for i, s in enumerate(soup.surfaces)):
        return None
    groups = _groups(soup, notes)
    if all(group.surface.image is None for group in groups):
        return None
    alone = groups[0].surface if len(groups) == 1 else None
    if alone is not None and alone.wrap in (("repeat", "repeat"), ("clamp", "clamp")):
        uv, index = _indexed(groups[0].uv)
        return {
            "uv": torch.tensor(uv, dtype=dtype),
            "uv_faces": torch.tensor(index),
            "texture": _image(alone, dtype),
            "wrap": alone.wrap[0],
        }
    pictures = []
    for group in groups:
        uv, index = _indexed(group.uv)
        pictures.append(
            atlas.Picture(
                _image(group.surface, dtype),
                torch.tensor(uv, dtype=torch.float64),
                torch.tensor(index),
                group.surface.wrap,
            )
        )
    found = atlas.atlas(pictures)
    if found.shrunk < 1:
        notes.add(
            f"texels: {len(pictures)} textures, laid out as often as they repeat, would not fit "
            f"into {atlas.MOST} x {atlas.MOST}, and were made up to {1 / found.shrunk:.3g} times "
            "smaller"
        )
    corners = np.empty((len(soup.faces), 3, 2))
    for group, (moved, at) in zip(groups, found.coordinates, strict=True):
        corners[group.faces] = moved.numpy()[at.numpy()]
    uv, index = _indexed(corners)
    return {
        "uv": torch.tensor(uv, dtype=dtype),
        "uv_faces": torch.tensor(index),
        "texture": found.image,
    }


def _groups(soup: Soup, notes: Notes) -> list[_Group]:
    """The faces by what they show; those without an image show one texel of their colour."""
    material = _materials(soup)
    whole = np.zeros(len(soup.faces), dtype=bool)
    if soup.uv is not None:
        whole = ~np.isnan(soup.uv).any(axis=(1, 2))
    found: dict[tuple[object, ...], list[tuple[Surface, ndarray]]] = {}
    for i, surface in enumerate(soup.surfaces):
        chosen = material == i
        shown = chosen & whole if surface.image is not None else np.zeros_like(chosen)
        if shown.any():
            key = (id(surface.image), surface.factor, surface.wrap)
            found.setdefault(key, []).append((surface, np.flatnonzero(shown)))
        plain = chosen & ~shown
        if plain.any():
            if surface.image is not None:
                notes.add("a texture at faces without texture coordinates")
            one_colour = Surface(factor=surface.factor)
            found.setdefault(surface.factor, []).append((one_colour, np.flatnonzero(plain)))
    groups = []
    for members in found.values():
        faces = np.concatenate([faces for _, faces in members])
        surface = members[0][0]
        uv = np.full((len(faces), 3, 2), 0.5)
        if surface.image is not None and soup.uv is not None:
            uv = soup.uv[faces]
        elif whole[faces].any() and len(found) > 1:
            notes.add("texture coordinates of faces without a texture")
        groups.append(_Group(surface, faces, uv))
    return groups


def _image(surface: Surface, dtype: torch.dtype) -> Tensor:
    """(H, W, 3 or 4): the image times the factor; of a plain surface, one texel."""
    factor = np.array(surface.factor)
    if surface.image is None:
        return torch.tensor(factor[None, None, : 4 if factor[3] != 1 else 3], dtype=dtype)
    texels = images.values(surface.image)
    if factor[3] != 1 and texels.shape[-1] == 3:
        texels = np.concatenate([texels, np.ones((*texels.shape[:2], 1))], axis=-1)
    if surface.factor != WHITE:
        texels = texels * factor[: texels.shape[-1]]
    return torch.tensor(texels, dtype=dtype)
