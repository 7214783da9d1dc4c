"""Triangle meshes, with texture coordinates, a texture or colours where they have them."""

from __future__ import annotations

import logging
from dataclasses import dataclass, replace

import torch
from jaxtyping import Float, Int
from torch import Tensor

from taichi_raster import checks
from taichi_raster.scene.atlas import with_channels
from taichi_raster.scene.attributes import UVTexture
from taichi_raster.scene.faces import as_indices, check_faces, gather_faces
from taichi_raster.scene.movable import Movable
from taichi_raster.scene.sampling import sample

logger = logging.getLogger(__name__)


@dataclass(frozen=True, eq=False)
class Mesh(Movable):
    """A triangle mesh.

    Attributes:
        vertices: (V, 3) finite positions in world units, float32 or float64.
        faces: (F, 3) indices into `vertices`, F >= 1, counter-clockwise from outside: int64, made
            from a tensor or an array of NumPy's, of any integer type, or from lists.
        uv: (T, 2) texture coordinates, u right and v up, or None.
        uv_faces: (F, 3) indices into `uv`; where there is `uv` alone, the faces' own.
        texture: (H, W, C) an image in [0, 1], row 0 on top, or None.
        colours: (K, C) in [0, 1], or None.
        colour_faces: (F, 3) indices into `colours`; without, they are those of vertices, K = V.
        wrap: how the texture goes on beyond [0, 1], "repeat" or "clamp".

    A mesh that has both a texture and colours shows their product (`colour_at`), as glTF has it.

    Raises:
        ValueError: for other shapes, values that are not finite, indices out of range, or an
            unknown wrap.
        TypeError: if `vertices` is not a tensor of floats, or `faces` does not hold integers.
    """

    vertices: Float[Tensor, "V 3"]
    faces: Int[Tensor, "F 3"]
    uv: Float[Tensor, "T 2"] | None = None
    uv_faces: Int[Tensor, "F 3"] | None = None
    texture: Float[Tensor, "H W C"] | None = None
    colours: Float[Tensor, "K C"] | None = None
    colour_faces: Int[Tensor, "F 3"] | None = None
    wrap: str = "repeat"

    def __post_init__(self) -> None:
        checks.floats("vertices", self.vertices)
        if self.vertices.ndim != 2 or self.vertices.shape[1] != 3:
            raise ValueError(f"vertices: must be (V, 3), got {tuple(self.vertices.shape)}")
        if not bool(self.vertices.isfinite().all()):
            raise ValueError("vertices: must be finite, got NaN or infinite positions")
        object.__setattr__(self, "faces", check_faces(self.faces, len(self.vertices)))
        self._check_texture()
        self._check_colours()
        if self.wrap not in ("repeat", "clamp"):
            raise ValueError(f"wrap: unknown {self.wrap!r}; known: repeat, clamp")

    def _check_texture(self) -> None:
        if self.uv is None:
            if self.uv_faces is not None:
                raise ValueError("uv_faces: needs uv")
            return
        checks.floats("uv", self.uv)
        if self.uv.ndim != 2 or self.uv.shape[1] != 2 or not bool(self.uv.isfinite().all()):
            raise ValueError(f"uv: must be (T, 2) and finite, got {tuple(self.uv.shape)}")
        self._check_index("uv_faces", self.uv_faces, len(self.uv))
        if self.texture is not None and checks.floats("texture", self.texture).ndim != 3:
            raise ValueError(f"texture: must be (H, W, C), got {tuple(self.texture.shape)}")

    def _check_colours(self) -> None:
        if self.colours is None:
            if self.colour_faces is not None:
                raise ValueError("colour_faces: needs colours")
            return
        checks.floats("colours", self.colours)
        shape = tuple(self.colours.shape)
        if self.colours.ndim != 2 or shape[1] == 0:
            raise ValueError(f"colours: must be (K, C), got {shape}")
        if self.colour_faces is None and shape[0] != len(self.vertices):
            raise ValueError(
                f"colours: must be (V, C), V = {len(self.vertices)}, without colour_faces, "
                f"got {shape}"
            )
        self._check_index("colour_faces", self.colour_faces, len(self.colours))

    def _check_index(self, name: str, index: Tensor | None, count: int) -> None:
        """Check an index of corners, and keep it as int64; without one, that of vertices."""
        found = check_faces(self.faces if index is None else index, count, name)
        if found.shape != self.faces.shape:
            raise ValueError(f"{name}: must be {tuple(self.faces.shape)}, got {tuple(found.shape)}")
        if index is not None:
            object.__setattr__(self, name, found)

    def corner_uv(self) -> Float[Tensor, "1 F 3 2"]:
        """Texture coordinates at face corners.

        Raises:
            ValueError: if the mesh has none.
        """
        if self.uv is None:
            raise ValueError("mesh: has no texture coordinates")
        return gather_faces(self.uv[None], self.faces if self.uv_faces is None else self.uv_faces)

    def uv_texture(
        self,
        wrap: str | None = None,
        filter: str = "bilinear",  # noqa: A002 - as in UVTexture
    ) -> UVTexture:
        """The mesh's texture as the renderer takes it.

        Colours that are the same at all corners are multiplied in. Others are not part of it, which
        a warning says: render them as further channels, and multiply the two.

        Args:
            wrap: beyond [0, 1], see `UVTexture`; by default, the mesh's own.
            filter: ``"bilinear"``, or ``"trilinear"`` for mipmaps.

        Raises:
            ValueError: if the mesh has no texture, or for an unknown wrap or filter.

        Example:
            >>> both = replace(mesh.uv_texture(), corners=mesh.corner_colours())
        """
        if self.texture is None:
            raise ValueError("mesh: has no texture")
        image = self.texture
        if self.colours is not None:
            if bool((self.colours == self.colours[:1]).all()):
                image = times(image, self.colours[:1])
            else:
                logger.warning(
                    "mesh: its colours multiply its texture, and are not part of uv_texture(); "
                    "see Mesh.uv_texture"
                )
        return UVTexture(self.corner_uv(), image[None], wrap or self.wrap, filter=filter)

    def corner_colours(self) -> Float[Tensor, "1 F 3 C"]:
        """Colours at face corners, without the texture's.

        Raises:
            ValueError: if the mesh has none.
        """
        if self.colours is None:
            raise ValueError("mesh: has no colours")
        index = self.faces if self.colour_faces is None else self.colour_faces
        return gather_faces(self.colours[None], index)

    def colour_at(
        self, faces: Int[Tensor, " N"], weights: Float[Tensor, "N 3"]
    ) -> Float[Tensor, "N C"]:
        """What the mesh shows at points on it: its texture, its colours, or their product.

        Args:
            faces: (N,) the face that each point is on.
            weights: (N, 3) barycentric coordinates there.

        Raises:
            ValueError: if the mesh has neither a texture nor colours, or for other shapes.
        """
        faces = as_indices("faces", faces).to(self.vertices.device)
        checks.floats("weights", weights)
        if faces.ndim != 1 or weights.shape != (len(faces), 3):
            raise ValueError(
                f"weights: must be (N, 3) for faces (N,), got {tuple(weights.shape)} "
                f"for {tuple(faces.shape)}"
            )
        if len(faces) and not 0 <= int(faces.min()) <= int(faces.max()) < len(self.faces):
            raise ValueError(f"faces: must lie in [0, {len(self.faces)}), the faces there are")
        found = None
        if self.texture is not None and self.uv is not None:
            surface = UVTexture(self.corner_uv(), self.texture[None], self.wrap)
            found = sample(surface, faces[None, None], weights[None, None])[0, 0]
        if self.colours is not None:
            own = sample(self.corner_colours(), faces[None, None], weights[None, None])[0, 0]
            found = own if found is None else times(found, own)
        if found is None:
            raise ValueError("mesh: has neither a texture nor colours")
        return found


def times(a: Float[Tensor, "*n C"], b: Float[Tensor, "*n D"]) -> Float[Tensor, "*n E"]:
    """The product of grey, RGB or RGBA colours; what lacks alpha is opaque."""
    count = max(a.shape[-1], b.shape[-1])
    return with_channels(a, count) * with_channels(b, count)


def normalise(mesh: Mesh, radius: float | None = None, half_extent: float | None = None) -> Mesh:
    """The mesh with its bounding box centred at the origin, scaled to a size (radius 1 by default).

    Args:
        radius: distance from the origin to the farthest vertex; or
        half_extent: half the longest side of the bounding box.

    Raises:
        ValueError: if both are given, one is not positive, or all vertices are in one place.
    """
    if radius is not None and half_extent is not None:
        raise ValueError("radius, half_extent: give one of them, not both")
    name, size = ("half_extent", half_extent) if half_extent is not None else ("radius", radius)
    checks.instance("mesh", mesh, Mesh)
    size = 1.0 if size is None else checks.positive(name, size)
    low, high = mesh.vertices.amin(0), mesh.vertices.amax(0)
    centred = mesh.vertices - (low + high) / 2
    present = centred.abs().amax() if name == "half_extent" else centred.norm(dim=1).amax()
    if not bool(present > 0):
        raise ValueError("mesh: all its vertices are in one place, so it has no size to scale")
    return replace(mesh, vertices=centred * (size / present))


def subdivide(mesh: Mesh) -> Mesh:
    """The same surface in four times as many triangles: each is cut at the midpoints of its edges.

    The old vertices come first, so `vertices[:V]` is unchanged; winding is kept. Texture
    coordinates and colours are cut in the same way, each by its own index.
    """
    checks.instance("mesh", mesh, Mesh)
    vertices, faces = _halved(mesh.vertices, mesh.faces)
    finer: dict[str, Tensor] = {}
    for name, values, index in (
        ("uv", mesh.uv, mesh.uv_faces),
        ("colours", mesh.colours, mesh.colour_faces),
    ):
        if values is not None:
            rows, cut = _halved(values, mesh.faces if index is None else index)
            finer[name] = rows
            if index is not None or len(rows) != len(vertices):
                finer["uv_faces" if name == "uv" else "colour_faces"] = cut
    return replace(mesh, vertices=vertices, faces=faces, **finer)  # type: ignore[arg-type]


def _halved(values: Tensor, faces: Tensor) -> tuple[Tensor, Tensor]:
    """Values (V, C) with those of edges' midpoints after them, and the faces of all."""
    edges = faces[:, [[0, 1], [1, 2], [2, 0]]].reshape(-1, 2).sort(dim=1).values
    unique, index = edges.unique(dim=0, return_inverse=True)
    a, b, c = faces.unbind(1)
    ab, bc, ca = (index.reshape(-1, 3) + len(values)).unbind(1)
    quarters = [(a, ab, ca), (ab, b, bc), (ca, bc, c), (ab, bc, ca)]
    finer = torch.stack([torch.stack(corner, dim=1) for corner in quarters], dim=1)
    return torch.cat([values, values[unique].mean(dim=1)]), finer.reshape(-1, 3)
