"""Photos of one object or scene, each with its camera, and with a mask if there is one."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from taichi_raster import checks
from taichi_raster.capture import photo_checks
from taichi_raster.capture.masks import (
    AlphaChannel,
    ColourKey,
    check_mask,
    mask_of,
    read_mask,
    read_photo,
)
from taichi_raster.scene.camera import PinholeCamera
from taichi_raster.scene.lenses.base import Lens
from taichi_raster.scene.lenses.brown_conrady import BrownConradyLens
from taichi_raster.scene.mesh import Mesh
from taichi_raster.scene.pose import Pose
from taichi_raster.scene.resampling import area_average


@dataclass(frozen=True, eq=False)
class Photo:
    """One photo with its camera. Pixels are read from the file each time that they are asked for.

    Attributes:
        name: as the capture's file has it.
        camera: of a batch of 1, in double precision, in the capture's world.
        image_size: (height, width) in pixels, or one number.
        picture: the file, a tensor of floats (H, W, 3 or 4) in [0, 1], or None if there is none.
        silhouette: the mask: a file, a tensor (H, W) in [0, 1], a rule, or None if there is none.

    Raises:
        TypeError: for something else, whole numbers as a picture among it.
        ValueError: for a tensor of another shape, or a camera of another batch.
    """

    name: str
    camera: PinholeCamera
    image_size: tuple[int, int]
    picture: Path | Tensor | None = None
    silhouette: Path | Tensor | AlphaChannel | ColourKey | None = None

    def __post_init__(self) -> None:
        checks.instance("name", self.name, str)
        checks.instance("camera", self.camera, PinholeCamera)
        if len(self.camera.view) != 1:
            raise ValueError(f"camera: must be of a batch of 1, got {len(self.camera.view)}")
        object.__setattr__(self, "image_size", checks.image_size(self.image_size))
        photo_checks.check_kind("picture", self.picture, Path, Tensor)
        photo_checks.check_kind(
            "silhouette", self.silhouette, Path, Tensor, AlphaChannel, ColourKey
        )
        if isinstance(self.picture, Tensor):
            photo_checks.check_picture(self.picture)
        if isinstance(self.silhouette, Tensor):
            photo_checks.check_silhouette(self.silhouette)

    @property
    def pose(self) -> Pose:
        """World to camera."""
        return Pose.from_view(self.camera.view)

    def pixels(self) -> Float[Tensor, "H W C"]:
        """The photo in [0, 1], float32: three channels, and a fourth if it has alpha.

        Raises:
            ValueError: naming the photo, if there is no picture, the file cannot be read, it has
                another size than the camera, or values that do not lie in [0, 1].
        """
        if self.picture is None:
            raise ValueError(f"{self.name}: there is no picture, only a camera")
        if isinstance(self.picture, Tensor):
            found = self.picture.detach().float()
        else:
            found = torch.from_numpy(read_photo(self.picture, self.image_size))
        if tuple(found.shape[:2]) != self.image_size:
            raise ValueError(
                f"{self._where()}: has {found.shape[0]} x {found.shape[1]} pixels (height x width),"
                f" and its camera {self.image_size[0]} x {self.image_size[1]}"
            )
        if isinstance(self.picture, Tensor):
            photo_checks.check_range(f"{self.name}: picture", found)
        return found

    def image(self, image_size: int | tuple[int, int] | None = None) -> Float[Tensor, "H W 3"]:
        """The photo in [0, 1], float32; in fewer pixels, each the mean of what it covers.

        Raises:
            ValueError: naming the photo, as for `pixels`.
        """
        return self._sized(self.pixels()[..., :3], image_size)

    def mask(self, image_size: int | tuple[int, int] | None = None) -> Float[Tensor, "H W"]:
        """The mask, 1 on the object, float32; in fewer pixels, the share that it covers of each.

        Raises:
            ValueError: naming the file, if there is no mask, it has another size than the photo or
                values that do not lie in [0, 1], or it is empty, full or inverted.
        """
        rule = self.silhouette
        if rule is None:
            raise ValueError(f"{self.name}: has no mask; give tr.load_capture masks or a key")
        where = str(rule if isinstance(rule, Path) else self._where())
        if isinstance(rule, Path):
            found = read_mask(rule, self.image_size)
        elif isinstance(rule, Tensor):
            found = rule.detach().float().cpu().numpy()
        elif isinstance(self.picture, Path):
            found = mask_of(self.picture, rule, self.image_size)
        else:
            pixels = self.pixels().cpu().numpy()
            try:
                found = rule(pixels)
            except ValueError as error:
                raise ValueError(f"{where}: {error}") from error
        if found.shape != self.image_size:
            raise ValueError(
                f"{where}: the mask has {found.shape[0]} x {found.shape[1]} pixels (height x width)"
                f", and the photo {self.image_size[0]} x {self.image_size[1]}"
            )
        if isinstance(rule, Tensor):
            photo_checks.check_range(f"{where}: silhouette", rule)
        check_mask(where, found)
        return self._sized(torch.from_numpy(np.ascontiguousarray(found, np.float32)), image_size)

    def _where(self) -> str:
        return str(self.picture) if isinstance(self.picture, Path) else self.name

    @staticmethod
    def _sized(found: Tensor, image_size: int | tuple[int, int] | None) -> Tensor:
        return found if image_size is None else area_average(found[None], image_size)[0]


@dataclass(frozen=True, eq=False)
class Capture:
    """Photos of one object or scene, from `load_capture`, or made of `Photo`s.

    The world is right-handed. Where the file's is not, z has the other sign here, and
    `given_world` takes a result back. Everything else is as the file has it: origin, axes, units.

    Attributes:
        photos: at least one, with names of their own.
        mirrored: whether the world of the file is left-handed.
        points: (P, 3) points of the scene that came along, or None.

    Example:
        >>> capture = tr.load_capture("dino")
        >>> photo = capture[4]
        >>> photo.image((288, 360)).shape, photo.mask((288, 360)).mean()
        >>> tr.save_mesh("fit.obj", capture.given_world(mesh))
    """

    photos: tuple[Photo, ...]
    mirrored: bool = False
    points: Float[Tensor, "P 3"] | None = None

    def __post_init__(self) -> None:
        if not isinstance(self.photos, Sequence) or len(self.photos) == 0:
            raise ValueError("photos: must be at least one Photo")
        for photo in self.photos:
            checks.instance("photos", photo, Photo)
        object.__setattr__(self, "photos", tuple(self.photos))
        twice = {name for name in self.names if self.names.count(name) > 1}
        if twice:
            raise ValueError(f"photos: several have the name {min(twice)!r}")

    def __len__(self) -> int:
        return len(self.photos)

    def __iter__(self) -> Iterator[Photo]:
        return iter(self.photos)

    def __getitem__(self, index: int) -> Photo:
        return self.photos[index]

    def only(self, indices: Sequence[int]) -> Capture:
        """A capture of some of the photos, by their places."""
        return replace(self, photos=tuple(self.photos[i] for i in indices))

    def without(self, indices: Sequence[int]) -> Capture:
        """A capture of all photos but some, by their places: hold those out to test with."""
        left_out = {range(len(self))[i] for i in indices}
        return self.only([i for i in range(len(self)) if i not in left_out])

    @property
    def names(self) -> tuple[str, ...]:
        """Of the photos."""
        return tuple(photo.name for photo in self.photos)

    @property
    def has_masks(self) -> bool:
        """Whether each photo has a mask."""
        return all(photo.silhouette is not None for photo in self.photos)

    @property
    def image_size(self) -> tuple[int, int]:
        """(height, width) of all photos; ValueError if they differ."""
        sizes = {photo.image_size for photo in self.photos}
        if len(sizes) > 1:
            raise ValueError(f"photos: have several sizes, {sorted(sizes)}; take them one by one")
        return self.photos[0].image_size

    @property
    def camera(self) -> PinholeCamera:
        """The cameras of all photos, as a batch.

        Raises:
            ValueError: if some have a fisheye and others another lens or none.
        """
        cameras = [photo.camera for photo in self.photos]

        def rows(name: str, width: tuple[int, ...]) -> Tensor:
            like = cameras[0].view
            values = [checks.array(name, getattr(c, name), like.dtype) for c in cameras]
            return torch.stack([value.reshape(width) for value in values])

        return PinholeCamera(
            torch.cat([camera.view for camera in cameras]),
            rows("focal", (2,)),
            rows("principal", (2,)),
            rows("skew", ()),
            lens=_joined([camera.lens for camera in cameras]),
        )

    def images(self, image_size: int | tuple[int, int] | None = None) -> Float[Tensor, "B H W 3"]:
        """All photos; see `Photo.image`. They must be of one size unless you give another."""
        size = self.image_size if image_size is None else image_size
        return torch.stack([photo.image(size) for photo in self.photos])

    def masks(self, image_size: int | tuple[int, int] | None = None) -> Float[Tensor, "B H W"]:
        """All masks; see `Photo.mask`."""
        size = self.image_size if image_size is None else image_size
        return torch.stack([photo.mask(size) for photo in self.photos])

    def given_world(self, mesh: Mesh) -> Mesh:
        """A mesh in the world of the file's cameras: the same, or mirrored, winding and all."""
        checks.instance("mesh", mesh, Mesh)
        if not self.mirrored:
            return mesh

        def turned(faces: Tensor | None) -> Tensor | None:
            return None if faces is None else faces.flip(1)

        faces = mesh.faces.flip(1)
        uv_faces = turned(mesh.uv_faces)
        return replace(
            mesh,
            vertices=mesh.vertices * mesh.vertices.new_tensor([1.0, 1.0, -1.0]),
            faces=faces,
            uv_faces=uv_faces,
            colour_faces=turned(mesh.colour_faces),
        )


def _joined(lenses: Sequence[Lens | None]) -> Lens | None:
    """One batch of lenses; none among Brown's and Conrady's are those without coefficients."""
    if all(lens is None for lens in lenses):
        return None
    if all(lens is lenses[0] for lens in lenses):
        return lenses[0]
    plain = BrownConradyLens()
    kinds = {type(plain if lens is None else lens) for lens in lenses}
    if len(kinds) > 1:
        raise ValueError(
            "photos: some have a fisheye lens and others another or none; take them one by one"
        )
    found = [plain if lens is None else lens for lens in lenses]
    rows = torch.cat([lens.rows() for lens in found])
    return found[0].of_rows(rows)
