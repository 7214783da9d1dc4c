"""What a face shows: values at its corners (a plain tensor), flat texels, or an image."""

from __future__ import annotations

from dataclasses import dataclass

from jaxtyping import Float
from torch import Tensor

from taichi_raster import checks
from taichi_raster.runtime.device import Runtime
from taichi_raster.runtime.extremes import Extremes
from taichi_raster.scene import texels
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
    """An image over texture coordinates.

    u points right and v up, each in [0, 1] over the image: v = 1 is its top row, as in OBJ files.
    The centre of texel (row j, column i) is at u = (i + 1/2) / W, v = 1 - (j + 1/2) / H.

    Kernels read a contiguous image where it is: a large one costs no more than a small one. It must
    not change between a render and its backward.

    A bilinear texture takes the four texels around a point. Where the picture shows it smaller than
    it is, it skips the others: the picture is aliased, and most texels have no gradient. A
    trilinear one blends the two levels of its mipmaps (see `mipmaps`) whose texels are about as
    large as a pixel there. With s the steps along x and y from a pixel to the next, the level is

        log2 max_s |(W du/ds, H dv/ds)|,  within [0, the last level]

    (OpenGL 4.6, section 8.14.1; nvdiffrast's "linear-mipmap-linear"). It is isotropic: texels are
    as large as the longer of the two steps. It is that of the face's plane at the point, also for
    pixels beyond the face's edge, and of the larger picture under antialiasing. Derivatives with
    respect to vertices and uv take the level as given. Those with respect to the image are exact.

    Attributes:
        uv: (B, F, 3, 2) at face corners, or (1, F, 3, 2).
        image: (B, H, W, C), or (1, H, W, C), which all batch items share.
        wrap: beyond [0, 1], ``"clamp"`` to the edge or ``"repeat"``.
        corners: (B, F, 3, D) further channels, given at corners, that follow the texture's.
        filter: ``"bilinear"`` or ``"trilinear"``.
        mipmaps: (B, M, C) or (1, M, C), of `mipmaps(image)`, for a trilinear texture. By default
            each render makes them.

    Raises:
        TypeError, ValueError: for other shapes, or an unknown wrap or filter; the message names the
            argument.
    """

    uv: Float[Tensor, "B F 3 2"]
    image: Float[Tensor, "B H W C"]
    wrap: str = "clamp"
    corners: Float[Tensor, "B F 3 D"] | None = None
    filter: str = "bilinear"
    mipmaps: Float[Tensor, "B M C"] | None = None

    def __post_init__(self) -> None:
        _check_tensor("uv", self.uv, 4, "(B, F, 3, 2)")
        if self.uv.shape[2:] != (3, 2):
            raise ValueError(f"uv: expected shape (B, F, 3, 2), got {tuple(self.uv.shape)}")
        _check_tensor("image", self.image, 4, "(B, H, W, C)")
        checks.choice("wrap", self.wrap, "clamp", "repeat")
        checks.choice("filter", self.filter, "bilinear", "trilinear")
        _check_corners(self.corners)
        if self.mipmaps is not None:
            self._check_mipmaps(self.mipmaps)

    @property
    def mipmapped(self) -> bool:
        """Whether it is trilinear."""
        return self.filter == "trilinear"

    def levels(self) -> Float[Tensor, "B M C"]:
        """The texels that a render samples: those of the image, or of all levels."""
        if not self.mipmapped:
            return self.image.flatten(1, 2)
        return texels.mipmaps(self.image) if self.mipmaps is None else self.mipmaps

    def _check_mipmaps(self, mipmaps: Tensor) -> None:
        if not self.mipmapped:
            raise ValueError("mipmaps: only for filter='trilinear'")
        _check_tensor("mipmaps", mipmaps, 3, "(B, M, C)")
        batch, height, width, channels = self.image.shape
        expected = batch, texels.starts(height, width)[-1], channels
        if mipmaps.shape != expected:
            raise ValueError(
                f"mipmaps: expected {expected} for this image, got {tuple(mipmaps.shape)}; make "
                "them with taichi_raster.mipmaps(image)"
            )


@dataclass(frozen=True)
class Appearance:
    """Attributes as the renderer packs them.

    Attributes:
        corners: (B, F, 3, D), D may be 0; uv: (B, F, 3, 2) or empty; texels: flat or empty.
        texture: ``"none"``, ``"surface"``, ``"clamp"`` or ``"repeat"``.
        channels: of the texture; 0 without one.
        size: of the texture, (height, width).
        stride: elements from one batch item's texture to the next, 0 if they share it.
        mipmapped: whether the texels are those of all levels of an image.
    """

    corners: Tensor
    uv: Tensor
    texels: Tensor
    texture: str = "none"
    channels: int = 0
    size: tuple[int, int] = (0, 0)
    stride: int = 0
    mipmapped: bool = False

    @property
    def total(self) -> int:
        """C, all channels."""
        return self.channels + self.corners.shape[3]


def appearance(
    attributes: Tensor | SurfaceTexture | UVTexture | None, vertices: Tensor, fixed_order: bool
) -> Appearance:
    """Attributes, which `check_attributes` has checked, packed.

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
        flat = attributes.texels
        shared = _shared(flat, batch, fixed_order)
        size = (flat.shape[2], flat.shape[3])
        stride = 0 if len(shared) == 1 else shared[0].numel()
        kind, channels = "surface", shared.shape[-1]
        return Appearance(corners, nothing, shared.reshape(-1), kind, channels, size, stride)
    image = attributes.image
    shared = _shared(attributes.levels(), batch, fixed_order)
    stride = 0 if len(shared) == 1 else shared[0].numel()
    uv = attributes.uv.expand(batch, -1, -1, -1)
    size = (image.shape[1], image.shape[2])
    return Appearance(
        corners,
        uv,
        shared.reshape(-1),
        attributes.wrap,
        image.shape[3],
        size,
        stride,
        attributes.mipmapped,
    )


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
    if isinstance(attributes, UVTexture) and attributes.mipmaps is not None:
        named["mipmaps"] = attributes.mipmaps
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
    batch, faces = face_vertices.shape[:2]
    if isinstance(attributes, SurfaceTexture):
        _check_lead("texels", attributes.texels, batch, faces)
    elif isinstance(attributes, UVTexture):
        _check_lead("uv", attributes.uv, batch, faces)
        if len(attributes.image) not in (1, batch):
            raise ValueError(
                f"image: expected a batch of 1 or {batch}, got {len(attributes.image)}"
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
