"""A shape from photos: silhouettes are fitted, and one photo that is held out judges the result."""

from __future__ import annotations

import tempfile
from dataclasses import dataclass, field, replace
from functools import lru_cache
from pathlib import Path
from typing import Any, ClassVar

import torch
from jaxtyping import Float
from torch import Tensor, nn

import taichi_raster as tr
from fit_photos import make_photos
from viewer.turn import ZOOM, Turn

OWN_PHOTOS = 14  # of the capture that is made here
VIEWS = 6  # photos that are fitted, at most: every step draws all of them
START = 0.6  # radius of the sphere at the start, in those of the object
SMOOTHING, LAPLACIAN = 1.0, 0.02
SQUARES = 8  # of the chessboard, along a side


@dataclass(frozen=True)
class PhotoFit:
    """The photos of a capture, in few pixels, and the sphere that is fitted to them.

    Photo `seed` of the capture, counted from 0 and round again, is held out and shown. Of the
    others, at most `VIEWS` are fitted. Colours are not fitted: each vertex has those that the
    fitted photos show where it is.

    Args:
        folder: a capture with masks, as `tr.load_capture` reads it; None makes one.
        seed: which photo is held out.
        size: the longer side of the pictures, in pixels.

    Raises ValueError, naming the folder, if it has fewer than three photos, or of different shapes,
    and what `tr.load_capture` and `tr.visual_hull` do.
    """

    error_name: ClassVar[str] = "1 - IoU in the photo held out"
    failure_threshold: ClassVar[float] = 0.05

    folder: Path | None = None
    seed: int = 0
    size: int = 56

    def sample(self, batch_size: int, stream: str, index: int) -> PhotoBatch:
        """The one problem that there is."""
        read = _read(self.folder, self.size)
        held = self.seed % len(read.cameras)
        others = [i for i in range(len(read.cameras)) if i != held]
        count = min(VIEWS, len(others))
        return PhotoBatch(read, [others[i * len(others) // count] for i in range(count)], held)

    def renderer(
        self,
        edge: tr.EdgeSoftness,
        depth: tr.DepthSoftness | None = None,
        alpha: tr.TConorm | None = None,
    ) -> tr.SoftRasterizer:
        """Soft renderer of the photos' size and the depths between which the object is."""
        read = _read(self.folder, self.size)
        shape, (near, far) = read.shape, read.depths
        return tr.SoftRasterizer(
            shape, edge=edge, depth=depth, alpha=alpha, near=near, far=far, threshold=1e-3
        )


@dataclass(frozen=True)
class _Photos:
    """All photos in few pixels; the object is around `centre`, in the world of `cameras`."""

    cameras: list[tr.PinholeCamera]
    images: Float[Tensor, "N H W 3"]
    masks: Float[Tensor, "N H W"]
    centre: Float[Tensor, " 3"]
    radius: float
    depths: tuple[float, float]

    @property
    def shape(self) -> tuple[int, int]:
        """(height, width) in pixels."""
        return self.masks.shape[1], self.masks.shape[2]


@lru_cache(maxsize=2)
def _read(folder: Path | None, size: int) -> _Photos:
    if folder is None:
        with tempfile.TemporaryDirectory() as made:
            return _read(make_photos(Path(made), OWN_PHOTOS, 2 * size), size)
    capture = tr.load_capture(folder)
    sizes = {photo.image_size for photo in capture}
    if len(capture) < 3 or len(sizes) > 1:
        raise ValueError(f"{folder}: the viewer needs three photos or more, all of one size")
    height, width = sizes.pop()
    share = min(1.0, size / max(height, width))
    shape = max(8, round(share * height)), max(8, round(share * width))
    hull = tr.visual_hull(capture, 32).vertices
    low, high = hull.amin(dim=0), hull.amax(dim=0)
    centre = (low + high) / 2
    radius = float((hull - centre).norm(dim=1).max())
    distances = [float((p.camera.eye - centre).norm()) for p in capture]
    near = max(0.3 * (min(distances) - radius), 1e-3 * radius)
    return _Photos(
        [photo.camera for photo in capture],
        torch.stack([photo.image(shape) for photo in capture]),
        torch.stack([photo.mask(shape) for photo in capture]),
        centre.double(),
        radius,
        (near, ZOOM[1] * (max(distances) + radius)),
    )


@dataclass(frozen=True)
class PhotoBatch:
    """The one problem of a `PhotoFit`; its unknowns (1, V, 3) move the vertices, smoothed.

    Attributes:
        photos: all of them. fitted: the numbers of those that the loss compares.
        held: that of the one which is held out and shown.
    """

    photos: _Photos
    fitted: list[int]
    held: int
    template: tr.Mesh = field(default_factory=lambda: tr.icosphere(2, radius=START))

    @property
    def target(self) -> Float[Tensor, "1 S S 3"]:
        """The photo that is held out."""
        return _square(self.photos.images[self.held])[None]

    def start(self) -> Float[Tensor, "1 V 3"]:
        """Initial unknowns."""
        return torch.zeros_like(self.template.vertices)[None]

    def loss(
        self, params: Float[Tensor, "1 V 3"], renderer: nn.Module, progress: float | Tensor
    ) -> Float[Tensor, " 1"]:
        """1 - IoU of soft silhouettes, the mean of the photos, and how rough the surface is."""
        faces = tr.gather_faces(self._seen(params, self.fitted), self.template.faces)
        drawn = renderer.silhouette(faces, progress)  # type: ignore[operator]
        match = tr.coverage_iou_loss(drawn, self.photos.masks[self.fitted])
        rough = _tools(self.template)[1](self._deformed(params))
        loss: Tensor = match.mean()[None] + LAPLACIAN * rough
        return loss

    def true_error(self, params: Float[Tensor, "1 V 3"]) -> Float[Tensor, " 1"]:
        """1 - IoU of the outline in the photo that is held out."""
        mesh = tr.Mesh(self._world(params)[0].float(), self.template.faces)
        found = tr.outline_iou(mesh, self._camera(self.held), self.photos.masks[self.held])
        return torch.tensor([1 - found])

    def geometry(self, params: Float[Tensor, "1 V 3"]) -> Float[Tensor, "K V 3"]:
        """What steps are measured by: vertices in all fitted photos, z as a share of the depths."""
        seen = self._seen(params, self.fitted)
        near, far = self.photos.depths
        return torch.cat([seen[..., :2], seen[..., 2:] / (far - near)], dim=-1)

    def outlines(
        self, params: Float[Tensor, "1 V 3"]
    ) -> tuple[Float[Tensor, "K H W"], Float[Tensor, "K H W"]]:
        """What a start is measured by: its coverage, and the masks, in all fitted photos."""
        faces = tr.gather_faces(self._seen(params, self.fitted), self.template.faces)
        near, far = self.photos.depths
        shown = tr.sampled_picture(faces, None, self.photos.shape, 4, near=near, far=far)
        return shown[..., 0], self.photos.masks[self.fitted]

    def soft_image(
        self, params: Float[Tensor, "1 V 3"], renderer: nn.Module, progress: float | Tensor
    ) -> Float[Tensor, "1 S S 4"]:
        """Where the photo that is held out was taken: colours, and coverage."""
        corners = tr.gather_faces(self._seen(params, [self.held]), self.template.faces)
        colours = tr.gather_faces(
            self._colours(self._world(params)[0], self.template), self.template.faces
        )
        return _square(renderer(corners, colours, progress)[0])[None]

    def coloured(self, params: Float[Tensor, "1 V 3"]) -> tr.Mesh:
        """The fit in the world of the cameras, with colours of its vertices from the photos."""
        mesh = tr.Mesh(self._world(params)[0].detach().float(), self.template.faces)
        for _ in range(2):  # colours live at vertices: more of them show more of the photos
            mesh = tr.subdivide(mesh)
        return replace(mesh, colours=self._colours(mesh.vertices.double(), mesh)[0])

    def overlay(
        self, params: Float[Tensor, "1 V 3"], renderer: nn.Module, turn: Turn | None
    ) -> tuple[Float[Tensor, "S S 3"], Float[Tensor, "S S"]]:
        """The fit in every other square over the photo, and its difference from the photo.

        With `turn`, the whole fit, turned, in place of the squares.
        """
        mesh = self.coloured(params)
        assert mesh.colours is not None
        colours = tr.gather_faces(mesh.colours[None], mesh.faces)

        def drawn(turn: Turn | None) -> Tensor:
            seen = self._projected(mesh.vertices[None], self.held, turn)
            found: Tensor = renderer(tr.gather_faces(seen, mesh.faces), colours, 1.0)[0]
            return found

        image, photo, mask = (
            drawn(None),
            self.photos.images[self.held],
            self.photos.masks[self.held],
        )
        error = (image[..., :3] - photo * mask[..., None]).abs().mean(dim=-1)
        if turn is not None:
            return _square(drawn(turn)[..., :3]), _square(error[..., None])[..., 0]
        cover = image[..., 3:] * _chessboard(self.photos.shape)
        over = cover * image[..., :3] + (1 - cover) * photo
        return _square(over), _square(error[..., None])[..., 0]

    # ---------------------------------------------------------------------------------------------

    def _deformed(self, params: Tensor) -> Tensor:
        """(1, V, 3) vertices in units of the object's radius, around its middle."""
        moved: Tensor = self.template.vertices + _tools(self.template)[0] @ params
        return moved

    def _world(self, params: Tensor) -> Tensor:
        return self.photos.centre + self.photos.radius * self._deformed(params).double()

    def _seen(self, params: Tensor, which: list[int]) -> Tensor:
        world = self._world(params)
        return torch.cat([self._projected(world, i) for i in which])

    def _camera(self, number: int) -> tr.PinholeCamera:
        return self.photos.cameras[number]

    def _projected(self, world: Tensor, number: int, turn: Turn | None = None) -> Tensor:
        """(1, V, 3) float32 in the picture of a photo, of the object turned before its camera."""
        camera = self._camera(number)
        if turn is not None:
            world = turn.applied(world.double(), camera, self.photos.centre)
        return camera.project(world.double()).float()

    def _colours(self, vertices: Tensor, mesh: tr.Mesh) -> Float[Tensor, "1 V 3"]:
        """Of vertices in the world: the mean of the fitted photos that they face."""
        normals = tr.vertex_normals(vertices[None].float(), mesh.faces)[0]
        total, weights = torch.zeros(len(vertices), 3), torch.full((len(vertices), 1), 1e-6)
        height, width = self.photos.shape
        to_grid = min(height, width) / torch.tensor([width, height])
        for i in self.fitted:
            camera = self._camera(i)
            seen = camera.project(vertices[None].double())[0, :, :2].float()
            grid = seen * torch.tensor([1.0, -1.0]) * to_grid
            photo = self.photos.images[i].permute(2, 0, 1)[None]
            found = nn.functional.grid_sample(
                photo, grid[None, None], align_corners=False, padding_mode="border"
            )[0, :, 0].T
            to_eye = nn.functional.normalize(camera.eye.float() - vertices.float(), dim=1)
            weight = (normals * to_eye).sum(dim=1, keepdim=True).clamp(min=1e-3) ** 3
            total, weights = total + weight * found, weights + weight
        return (total / weights)[None]


def _square(picture: Float[Tensor, "H W C"]) -> Float[Tensor, "S S C"]:
    """In the middle of a black square."""
    height, width, _ = picture.shape
    side = max(height, width)
    found = picture.new_zeros(side, side, picture.shape[2])
    top, left = (side - height) // 2, (side - width) // 2
    found[top : top + height, left : left + width] = picture
    return found


def _chessboard(shape: tuple[int, int]) -> Float[Tensor, "H W 1"]:
    side = max(1, max(shape) // SQUARES)
    row, column = (torch.arange(count) // side for count in shape)
    return ((row[:, None] + column) % 2).float()[..., None]


_TOOLS: dict[int, Any] = {}


def _tools(template: tr.Mesh) -> tuple[Tensor, nn.Module]:
    """The matrix that smooths offsets, (I + s L)^-1, and the loss of rough surfaces."""
    count = len(template.vertices)
    if count not in _TOOLS:
        smooth = tr.SmoothOffsets(template, SMOOTHING)
        spread = smooth.smooth(torch.eye(count, dtype=torch.float64)).float()
        _TOOLS[count] = spread, tr.LaplacianLoss(template.faces, count)
    found: tuple[Tensor, nn.Module] = _TOOLS[count]
    return found
