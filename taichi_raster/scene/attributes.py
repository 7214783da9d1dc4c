"""What a face shows: values at its corners (a plain tensor), flat texels, or an image."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from jaxtyping import Float, Int
from torch import Tensor

from taichi_raster import checks
from taichi_raster.runtime.device import Runtime
from taichi_raster.runtime.extremes import Extremes
from taichi_raster.scene import gather
from taichi_raster.scene.movable import Movable


@dataclass(frozen=True, eq=False)
class SurfaceTexture(Movable):
    """R x R flat texels on each face (Liu et al., ICCV 2019).

    With barycentric coordinates w, i = floor(w0 R) and j = floor(w1 R), the texel is
    ``texels[j, i]`` if (w0 + w1) R - i - j <= 1, else ``texels[R - 1 - j, R - 1 - i]``: the face is
    cut into R * R equal triangles. Texels are flat, so colour has no gradient to where on the face
    a pixel falls; `UVTexture` has.

    Attributes:
        texels: (B, F, R, R, C), or (1, F, R, R, C), which all batch items share.
        corners: (B, F, 3, D) further channels, given at corners, that follow the texture's.

    Raises:
        TypeError, ValueError: for other shapes; the message names the argument.
    """

    texels: Float[Tensor, "B F R R C"]
    corners: Float[Tensor, "B F 3 D"] | None = None

    def __post_init__(self) -> None:
        _check_tensor("texels", self.texels, 5, "(B, F, R, R, C)")
        if self.texels.shape[2] != self.texels.shape[3]:
            raise ValueError(f"texels: expected R x R texels, got {tuple(self.texels.shape)}")
        _check_corners(self.corners)


@dataclass(frozen=True, eq=False)
class UVTexture(Movable):
    """An image over texture coordinates, sampled bilinearly.

    u points right and v up, each in [0, 1] over the image: v = 1 is its top row, as in OBJ files.
    The centre of texel (row j, column i) is at u = (i + 1/2) / W, v = 1 - (j + 1/2) / H.

    Attributes:
        uv: (B, F, 3, 2) at face corners, or (1, F, 3, 2).
        image: (B, H, W, C), or (1, H, W, C), which all batch items share.
        wrap: beyond [0, 1], ``"clamp"`` to the edge or ``"repeat"``.
        corners: (B, F, 3, D) further channels, given at corners, that follow the texture's.

    Raises:
        TypeError, ValueError: for other shapes or an unknown wrap; the message names the argument.
    """

    uv: Float[Tensor, "B F 3 2"]
    image: Float[Tensor, "B H W C"]
    wrap: str = "clamp"
    corners: Float[Tensor, "B F 3 D"] | None = None

    def __post_init__(self) -> None:
        _check_tensor("uv", self.uv, 4, "(B, F, 3, 2)")
        if self.uv.shape[2:] != (3, 2):
            raise ValueError(f"uv: expected shape (B, F, 3, 2), got {tuple(self.uv.shape)}")
        _check_tensor("image", self.image, 4, "(B, H, W, C)")
        if self.wrap not in ("clamp", "repeat"):
            raise ValueError(f"wrap: unknown {self.wrap!r}; known: clamp, repeat")
        _check_corners(self.corners)


@dataclass(frozen=True)
class Appearance:
    """Attributes as the renderer packs them.

    Attributes:
        corners: (B, F, 3, D), D may be 0; uv: (B, F, 3, 2) or empty; texels: flat or empty.
        texture: ``"none"``, ``"surface"``, ``"clamp"`` or ``"repeat"``.
        channels: of the texture; 0 without one.
        size: of the texture, (height, width).
        stride: elements from one batch item's texture to the next, 0 if they share it.
    """

    corners: Tensor
    uv: Tensor
    texels: Tensor
    texture: str = "none"
    channels: int = 0
    size: tuple[int, int] = (0, 0)
    stride: int = 0

    @property
    def total(self) -> int:
        """C, all channels."""
        return self.channels + self.corners.shape[3]


def appearance(
    attributes: Tensor | SurfaceTexture | UVTexture | None, vertices: Tensor, fixed_order: bool
) -> Appearance:
    """Attributes checked against the faces they belong to, and packed.

    With `fixed_order`, batch items get textures of their own, so that torch adds up their
    gradients in a fixed order.
    """
    batch, faces = vertices.shape[:2]
    nothing = vertices.new_empty(0)
    if attributes is None:
        return Appearance(vertices.new_empty(batch, faces, 3, 0), nothing, nothing)
    if isinstance(attributes, Tensor):
        return Appearance(attributes, nothing, nothing)
    corners = attributes.corners
    if corners is None:
        corners = vertices.new_empty(batch, faces, 3, 0)
    if isinstance(attributes, SurfaceTexture):
        texels = attributes.texels
        _check_lead("texels", texels, batch, faces)
        shared = _shared(texels, batch, fixed_order)
        size = (texels.shape[2], texels.shape[3])
        texels = shared.reshape(-1)
        stride = 0 if len(shared) == 1 else shared[0].numel()
        return Appearance(corners, nothing, texels, "surface", shared.shape[-1], size, stride)
    _check_lead("uv", attributes.uv, batch, faces)
    image = attributes.image
    if len(image) not in (1, batch):
        raise ValueError(f"image: expected a batch of 1 or {batch}, got {len(image)}")
    shared = _shared(image, batch, fixed_order)
    stride = 0 if len(shared) == 1 else shared[0].numel()
    uv = attributes.uv.expand(batch, -1, -1, -1)
    size = (image.shape[1], image.shape[2])
    return Appearance(
        corners, uv, shared.reshape(-1), attributes.wrap, image.shape[3], size, stride
    )


def sample(
    attributes: Tensor | SurfaceTexture | UVTexture,
    faces: Int[Tensor, "B H W *K"],
    weights: Float[Tensor, "B H W *K 3"],
) -> Float[Tensor, "B H W *K C"]:
    """Attributes at points given by face and barycentric weights, in torch.

    For the few points that `hard_buffers` finds, say.

    Args:
        faces: (B, H, W) or (B, H, W, K) face indices; where one is -1, there is no face, and the
            attributes are 0, whatever the weights.
        weights: the same with a last axis of 3: what to mix the corners' values with.
    """
    there = (faces >= 0)[..., None]
    found = _sample(attributes, faces, torch.where(there, weights, torch.zeros_like(weights)))
    return torch.where(there, found, torch.zeros_like(found))


def _sample(
    attributes: Tensor | SurfaceTexture | UVTexture, faces: Tensor, weights: Tensor
) -> Tensor:
    if isinstance(attributes, Tensor):
        return (weights[..., None] * of_faces(attributes, faces)).sum(-2)
    if isinstance(attributes, SurfaceTexture):
        channels = _surface_texel(attributes.texels, faces, weights)
    else:
        uv = attributes.uv.expand(len(faces), -1, -1, -1)
        at = (weights[..., None] * of_faces(uv, faces)).sum(-2)
        channels = _bilinear(attributes.image, at, attributes.wrap)
    if attributes.corners is None:
        return channels
    return torch.cat([channels, _sample(attributes.corners, faces, weights)], dim=-1)


def of_faces(values: Float[Tensor, "B F *rest"], faces: Int[Tensor, " B *n"]) -> Tensor:
    """The values of each listed face, (B, *n, *rest).

    Where there is none, -1, they are 1, without gradient: corners then have a depth that one can
    divide by, which those of face 0, say, need not have.
    """
    spread = values.expand(len(faces), *values.shape[1:])
    found = gather.at(spread, _items(faces), faces.clamp(min=0))
    there = (faces >= 0).view(*faces.shape, *([1] * (found.ndim - faces.ndim)))
    return torch.where(there, found, torch.ones_like(found))


def _surface_texel(texels: Tensor, faces: Tensor, weights: Tensor) -> Tensor:
    size = texels.shape[2]
    u, v = weights[..., 0] * size, weights[..., 1] * size
    i, j = (w.detach().floor().long().clamp(0, size - 1) for w in (u, v))
    lower = u + v - i - j <= 1 + 1e-4  # as in the kernels: whole on an edge but for rounding
    column, row = torch.where(lower, i, size - 1 - i), torch.where(lower, j, size - 1 - j)
    place = (faces.clamp(min=0) * size + row) * size + column
    if len(texels) > 1:
        place = place + _items(faces) * texels[0, ..., 0].numel()
    return gather.rows(texels.reshape(-1, texels.shape[4]), place)


def _bilinear(image: Tensor, uv: Tensor, wrap: str) -> Tensor:
    """(B, *n, C) from (B or 1, H, W, C) at uv (B, *n, 2)."""
    height, width = image.shape[1:3]
    (left, right, s), (top, bottom, t) = (
        _between(uv[..., 0], width, wrap),
        _between(1 - uv[..., 1], height, wrap),
    )
    rows, columns = torch.stack([top, top, bottom, bottom]), torch.stack([left, right, left, right])
    place = rows * width + columns
    if len(image) > 1:
        place = place + _items(uv[..., 0]) * (height * width)
    a, b, c, d = gather.rows(image.reshape(-1, image.shape[3]), place)
    s, t = s[..., None], t[..., None]
    upper, lower = (1 - s) * a + s * b, (1 - s) * c + s * d
    found: Tensor = (1 - t) * upper + t * lower
    return found


def _items(values: Tensor) -> Tensor:
    """Each value's batch item, to broadcast with values (B, *n)."""
    items = torch.arange(len(values), device=values.device)
    return items.view(-1, *([1] * (values.ndim - 1)))


def _between(coordinate: Tensor, size: int, wrap: str) -> tuple[Tensor, Tensor, Tensor]:
    """(lower texel, upper texel, fraction between)."""
    if wrap == "repeat":
        coordinate = coordinate - coordinate.detach().floor()
    at = coordinate * size - 0.5
    low = at.detach().clamp(-1, size).floor()
    index = low.long()
    if wrap == "repeat":
        return index % size, (index + 1) % size, at - low
    return index.clamp(0, size - 1), (index + 1).clamp(0, size - 1), (at - low).clamp(0, 1)


def _shared(texture: Tensor, batch: int, fixed_order: bool) -> Tensor:
    return texture.expand(batch, *texture.shape[1:]) if fixed_order else texture


def _check_tensor(name: str, value: Tensor, rank: int, shape: str) -> None:
    if not isinstance(value, Tensor):
        raise TypeError(f"{name}: expected a torch.Tensor, got {type(value).__name__}")
    if value.ndim != rank or 0 in value.shape:
        raise ValueError(f"{name}: expected shape {shape}, none 0, got {tuple(value.shape)}")


def _check_corners(corners: Tensor | None) -> None:
    if corners is not None:
        _check_tensor("corners", corners, 4, "(B, F, 3, D)")


def _check_lead(name: str, value: Tensor, batch: int, faces: int) -> None:
    if value.shape[0] not in (1, batch) or value.shape[1] != faces:
        raise ValueError(
            f"{name}: expected {faces} faces and a batch of 1 or {batch}, got {tuple(value.shape)}"
        )


def tensors(attributes: Tensor | SurfaceTexture | UVTexture | None) -> dict[str, Tensor]:
    """The tensors in attributes, by the names that users know them by."""
    if attributes is None:
        return {}
    if isinstance(attributes, Tensor):
        return {"face_attributes": attributes}
    named = (
        {"texels": attributes.texels}
        if isinstance(attributes, SurfaceTexture)
        else {"uv": attributes.uv, "image": attributes.image}
    )
    if attributes.corners is not None:
        named["corners"] = attributes.corners
    return named


def check_attributes(
    attributes: object, face_vertices: Tensor, settings: Runtime, later: Extremes | None = None
) -> None:
    """Shapes, dtypes, devices and finiteness of everything in a renderer's attributes.

    Raises:
        TypeError, ValueError: naming the tensor that is wrong.
    """
    if not (attributes is None or isinstance(attributes, Tensor | SurfaceTexture | UVTexture)):
        raise TypeError(
            "face_attributes: expected a torch.Tensor, a SurfaceTexture, a UVTexture or None, got "
            f"{type(attributes).__name__}"
        )
    for name, value in tensors(attributes).items():
        if name in ("face_attributes", "corners"):
            _check_corner_values(name, value, face_vertices)
        checks.values(name, value, settings, later)
        if value.device != face_vertices.device:
            raise ValueError(
                f"{name}: on {value.device}, but face_vertices is on "
                f"{face_vertices.device}; move them to one device"
            )


def _check_corner_values(name: str, value: Tensor, face_vertices: Tensor) -> None:
    if value.ndim != 4 or value.shape[2] != 3:
        raise ValueError(f"{name}: expected shape (B, F, 3, C), got {tuple(value.shape)}")
    if face_vertices.shape[:2] != value.shape[:2]:
        raise ValueError(
            f"{name}: expected {tuple(face_vertices.shape[:2])} batch items and faces as "
            f"in face_vertices, got {tuple(value.shape[:2])}"
        )
    if value.shape[3] == 0:
        raise ValueError(f"{name}: expected at least one channel")
