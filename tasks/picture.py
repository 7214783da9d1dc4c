"""Draw a whole picture with a hundred or more triangles: `Shape2D` at a larger scale.

The picture is either the sharp render of hidden triangles, which are to be recovered, or any image
file, which has no true solution. Hidden triangles and their displacement at the start are those of
`Shape2D` at a quarter of the size.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from functools import cached_property
from typing import ClassVar

import numpy as np
import torch
from jaxtyping import Bool, Float
from torch import Tensor, nn

import taichi_raster as tr
from tasks.copies import repeater
from tasks.picture_files import LoadedPicture, PathLike, load_picture, load_triangles
from tasks.streams import Stream, instance_generators
from tasks.triangles import (
    RELABELLINGS,
    TRANSLATION,
    VERTEX_NOISE,
    mean_square,
    separated_colours,
    triangle_outline,
    turned_to_front,
)

UNIT = 1 / 4  # NDC for each unit of a vertex unknown, and of the vertex error
NEAR, FAR = 0.5, 3.0
DEPTHS = (0.6, 2.9)  # depths are spread evenly over this range, in random order
REACH = 0.9  # triangle centres lie within this share of the picture's half sides
COLOUR_NOISE = 0.3  # largest displacement of a colour channel at the start


@dataclass(frozen=True)
class Picture:
    """Family of pictures to be drawn with triangles; `sample` draws batches.

    Unknowns are one row for each triangle: (B, K, 6), its vertices x, y, x, y, x, y in units of 1/4
    NDC, so that the learning rates of `Shape2D` suit. With `colours` they are (B, K, 9): red, green
    and blue follow, 0 to 1 in the solution but not clamped.

    Args:
        triangles: K, or an inclusive range (low, high) from which each instance draws its number.
            Instances are padded to the largest number with faces beyond the far plane, which render
            nothing, have exactly zero gradient and do not count in the error.
        images: paths of image files; instance i of a batch draws file i modulo their number. By
            default, None: the pictures are renders of hidden triangles.
        start_meshes: for each image the path of a .npy array (K, 3, C) of triangles to start from,
            x and y first, which are fitted into the picture. Their number replaces `triangles`, and
            instances of one file differ in the triangles' depths alone. By default, None: random
            triangles, spread over the picture.
        colours: whether each triangle's colour is unknown as well. Otherwise it is given: the
            hidden triangle's own or, for an image file, the mean colour of its foreground.
        matte: whether the target of an image file has an alpha channel: the file's own or, if it
            has none, the colour's distance from the background. The latter suits logos, not photos.
        image_size: side of the square picture in pixels, or (H, W).
        seed: of the whole family; a batch is a function of (seed, stream, index, size) alone.
        dtype: of all tensors; the runtime's by default.

    Raises ValueError or TypeError, naming the argument; for unreadable files in `sample`.

        family = Picture(images=("logo.png",), colours=True)
        task = family.sample(4, "test", index=0)
        renderer = family.renderer(tr.Distribution("gaussian", scale=0.02))
        loss = task.loss(task.start(), renderer, progress=0.0)
    """

    triangles: int | tuple[int, int] = (100, 150)
    images: tuple[PathLike, ...] | None = None
    start_meshes: tuple[PathLike, ...] | None = None
    colours: bool = False
    matte: bool = True
    image_size: int | tuple[int, int] = 64
    seed: int = 0
    dtype: torch.dtype | None = None

    failure_threshold: ClassVar[float] = 0.1
    error_floor: ClassVar[float] = 1e-3
    error_name: ClassVar[str] = "vertex error (NDC / 4)"

    def __post_init__(self) -> None:
        low, high = self.triangle_range
        if not (isinstance(low, int) and isinstance(high, int) and 1 <= low <= high):
            raise ValueError(
                "triangles: expected an integer >= 1 or a range (low, high) of such, "
                f"got {self.triangles!r}"
            )
        for name in ("images", "start_meshes"):
            paths = getattr(self, name)
            if paths is not None and (not isinstance(paths, tuple) or not paths):
                raise TypeError(f"{name}: expected a tuple of paths, or None, got {paths!r}")
        if self.start_meshes is not None and len(self.start_meshes) != len(self.images or ()):
            raise ValueError(
                f"start_meshes: expected one for each of the {len(self.images or ())} images, "
                f"got {len(self.start_meshes)}"
            )
        for name in ("colours", "matte"):
            if not isinstance(getattr(self, name), bool):
                raise TypeError(f"{name}: expected True or False, got {getattr(self, name)!r}")
        if not isinstance(self.seed, int) or self.seed < 0:
            raise ValueError(f"seed must be an integer >= 0, got {self.seed!r}")

    @property
    def triangle_range(self) -> tuple[int, int]:
        """(fewest, most) triangles of an instance without a start mesh."""
        return (
            self.triangles
            if isinstance(self.triangles, tuple)
            else (self.triangles, self.triangles)
        )

    def sample(self, batch_size: int, stream: Stream, index: int) -> PictureBatch:
        """Batch `index` of a stream ("tune", "train" or "test"; disjoint).

        Instance i depends on (seed, stream, index, i) only: a smaller batch begins a larger one.
        """
        generators = instance_generators(batch_size, self.seed, stream, index)
        draw = self._draw_hidden if self.images is None else self._draw_start
        scenes = [draw(rng, i) for i, rng in enumerate(generators)]
        dtype = self.dtype or tr.runtime().dtype
        *floats, present = (torch.as_tensor(np.stack(part)) for part in zip(*scenes, strict=True))
        hidden, initial, depth, colours = (part.to(dtype) for part in floats)
        ground, drawn = torch.zeros(batch_size, 3, dtype=dtype), None
        if self.images is not None:
            files = [self._files[i % len(self._files)] for i in range(batch_size)]
            ground = torch.as_tensor(np.stack([file.ground for file in files])).to(dtype)
            drawn = torch.as_tensor(np.stack([file.image for file in files])).to(dtype)
        hidden_or_none = hidden if drawn is None else None
        return PictureBatch(self, hidden_or_none, initial, depth, colours, ground, present, drawn)

    def renderer(
        self,
        edge: tr.EdgeSoftness,
        depth: tr.DepthSoftness | None = None,
        alpha: tr.TConorm | None = None,
    ) -> tr.SoftRasterizer:
        """Soft renderer of this family's size and clip depths.

        Its background is black; a batch adds its own background colours. The default depth softness
        is `OverDepth`, by the product, with which the published results were measured: under a
        softmax, the faint rim of a near triangle outweighs a triangle behind it that fully covers
        the pixel, the more so the smaller gamma is.
        """
        depth = tr.OverDepth(union="product") if depth is None else depth
        return tr.SoftRasterizer(
            self.image_size, edge, depth, alpha, background=(0, 0, 0), near=NEAR, far=FAR
        )

    def sharp_renderer(self) -> tr.SharpRasterizer:
        """Sharp reference renderer of the same size, background and clip depths."""
        return tr.SharpRasterizer(self.image_size, background=(0, 0, 0), near=NEAR, far=FAR)

    @property
    def size(self) -> tuple[int, int]:
        """(H, W) in pixels."""
        size = self.image_size
        return size if isinstance(size, tuple) else (size, size)

    @property
    def half_sides(self) -> np.ndarray:
        """Half width and half height of the picture in NDC."""
        return np.array(self.size[::-1]) / min(self.size)

    @cached_property
    def _files(self) -> list[LoadedPicture]:
        return [load_picture(path, self.size, self.matte) for path in self.images or ()]

    @cached_property
    def _meshes(self) -> list[np.ndarray]:
        return [load_triangles(path, self.half_sides) for path in self.start_meshes or ()]

    def _draw_hidden(self, rng: np.random.Generator, i: int) -> tuple[np.ndarray, ...]:
        """One instance: hidden and start (K,9), depth (K,), colours (K,3), present (K,)."""
        low, high = self.triangle_range
        count = int(rng.integers(low, high + 1))
        triangles = _spread_triangles(rng, count, high, self.half_sides) / UNIT
        shift = rng.uniform(-TRANSLATION, TRANSLATION, (high, 1, 2))
        noise = rng.uniform(-VERTEX_NOISE, VERTEX_NOISE, (high, 3, 2))
        colours = separated_colours(rng, high)
        start_colours = colours + rng.uniform(-COLOUR_NOISE, COLOUR_NOISE, (high, 3))
        start = _rows(triangles + shift + noise, start_colours)
        depth, present = _depths(rng, count, high)
        return _rows(triangles, colours), start, depth, colours, present

    def _draw_start(self, rng: np.random.Generator, i: int) -> tuple[np.ndarray, ...]:
        """As `_draw_hidden`, for file i, with the start in place of the hidden instance."""
        if self._meshes:
            mesh = self._meshes[i % len(self._meshes)]
            count, high = len(mesh), max(map(len, self._meshes))
            triangles = np.concatenate([mesh, np.zeros((high - count, 3, 2))])
        else:
            low, high = self.triangle_range
            count = int(rng.integers(low, high + 1))
            triangles = _spread_triangles(rng, count, high, self.half_sides)
        colours = np.tile(self._files[i % len(self._files)].ink, (high, 1))
        start_colours = colours + rng.uniform(-COLOUR_NOISE, COLOUR_NOISE, (high, 3))
        start = _rows(triangles / UNIT, start_colours)
        depth, present = _depths(rng, count, high)
        return start, start, depth, colours, present


@dataclass(frozen=True)
class PictureBatch:
    """B instances of `Picture`.

    Attributes:
        hidden: (B, K, 9), the solution, as unknowns with colours; None for image files.
        initial: (B, K, 9), the start, as unknowns with colours.
        depth: (B, K).
        colours: (B, K, 3) in [0, 1], used unless they are unknown.
        ground: (B, 3), the background colour.
        present: (B, K), false for padding.
        drawn: (B, H, W, 4 or 3) the image files' pictures; None for hidden triangles.
    """

    family: Picture
    hidden: Float[Tensor, "B K 9"] | None
    initial: Float[Tensor, "B K 9"]
    depth: Float[Tensor, "B K"]
    colours: Float[Tensor, "B K 3"]
    ground: Float[Tensor, "B 3"]
    present: Bool[Tensor, "B K"]
    drawn: Float[Tensor, "B H W C"] | None
    _cache: dict[str, Tensor] = field(default_factory=dict, repr=False, compare=False)

    @property
    def batch_size(self) -> int:
        """B."""
        return len(self.initial)

    @property
    def solution(self) -> Float[Tensor, "B K D"]:
        """The hidden instance as unknowns. Raises ValueError for image files, which have none."""
        if self.hidden is None:
            raise ValueError("a picture from a file has no known solution")
        return self._unknowns(self.hidden)

    @property
    def target(self) -> Float[Tensor, "B H W C"]:
        """The picture to draw: RGBA, or RGB of image files without a matte."""
        if self.drawn is not None:
            return self.drawn
        if "target" not in self._cache:
            with torch.no_grad():
                self._cache["target"] = self.sharp_image(self.solution)
        return self._cache["target"]

    def start(self) -> Float[Tensor, "B K D"]:
        """Initial unknowns; the same tensor at every call."""
        return self._unknowns(self.initial)

    def loss(
        self, params: Float[Tensor, "B K D"], renderer: nn.Module, progress: float | Tensor
    ) -> Float[Tensor, " B"]:
        """MSE over pixels and the target's channels between the soft render and the target."""
        return mean_square(self.soft_image(params, renderer, progress), self.target)

    def true_error(self, params: Float[Tensor, "B K D"]) -> Float[Tensor, " B"]:
        """Hidden triangles: geometric mean over the present ones of their vertex RMSE, in NDC / 4.

        It is minimised over the six relabellings of each triangle, and has a floor of 1e-3 under
        the logarithm. The RMSE over all vertices (see `metrics`) would be dominated by the few
        triangles that the picture does not constrain. Image files have no true solution: there it
        is the root of `image_error`.
        """
        if self.hidden is None:
            return torch.sqrt(self.image_error(params) + 1e-24)
        floor = self.family.error_floor
        errors = torch.sqrt(self._squared_errors(params) + 1e-24)  # finite slope at zero
        return torch.exp(self._over_triangles(torch.log(errors / floor + 1))).sub(1) * floor

    def image_error(self, params: Float[Tensor, "B K D"]) -> Float[Tensor, " B"]:
        """MSE over pixels and the target's channels between the sharp render and the target."""
        return mean_square(self.sharp_image(params), self.target)

    def metrics(self, params: Float[Tensor, "B K D"]) -> dict[str, Float[Tensor, " B"]]:
        """Figures of each instance.

        parameter_error: `true_error`; failure: 1 where it is above 0.1; image_error. For hidden
        triangles also vertex_rmse, over all present vertices, in NDC / 4; recovered, the share of
        triangles whose own vertex RMSE is below 0.1; and, for unknown colours, colour_error, the
        RMS difference to the true ones.
        """
        with torch.no_grad():
            error = self.true_error(params)
            threshold = self.family.failure_threshold
            figures = {
                "parameter_error": error,
                "image_error": self.image_error(params),
                "failure": (error > threshold).to(error),
            }
            if self.hidden is not None:
                squared = self._squared_errors(params)
                figures["vertex_rmse"] = self._over_triangles(squared).sqrt()
                figures["recovered"] = self._over_triangles((squared < threshold**2).to(error))
                if self.family.colours:
                    differences = params[..., 6:] - self.hidden[..., 6:]
                    squared = differences.square().mean(dim=-1)
                    figures["colour_error"] = self._over_triangles(squared).sqrt()
            return figures

    def repeat(self, copies: int) -> PictureBatch:
        """The same instances `copies` times over: i of copy j stands at j * B + i."""
        repeat = repeater(copies)
        return self._mapped(repeat, {"target": repeat(self.target)})

    def select(self, instances: list[int]) -> PictureBatch:
        """A batch of some of the instances, in the order given."""
        return self._mapped(lambda tensor: tensor[instances], {})

    def geometry(
        self, params: Float[Tensor, "B K D"]
    ) -> Tensor | tuple[Float[Tensor, "B K 3 3"], Float[Tensor, "B K 3"]]:
        """What steps are measured by: corners in NDC, and colours where they are unknown.

        Corners of padding are at a depth of 0.
        """
        xy = self._triangles(params)
        depth = self.present.to(params)[..., None, None].expand(*xy.shape[:3], 1)
        corners = torch.cat([xy, depth], dim=-1)
        return (corners, params[..., 6:]) if self.family.colours else corners

    def outlines(
        self, params: Float[Tensor, "B K D"]
    ) -> tuple[Float[Tensor, "B H W"], Float[Tensor, "B H W"]]:
        """What a start is measured by: coverage of `params`, and of the target.

        A picture without an alpha channel counts as covered throughout.
        """
        drawn, target = self.sharp_image(params), self.target
        if target.shape[-1] == 4:
            return drawn[..., 3], target[..., 3]
        return torch.ones_like(drawn[..., 0]), torch.ones_like(target[..., 0])

    def sharp_image(self, params: Float[Tensor, "B K D"]) -> Float[Tensor, "B H W C"]:
        """Sharp picture of the triangles at `params`, of the target's channels."""
        xy = turned_to_front(self._triangles(params))
        return self._on_ground(self.family.sharp_renderer()(*self._faces(xy, params)))

    def soft_image(
        self, params: Float[Tensor, "B K D"], renderer: nn.Module, progress: float | Tensor
    ) -> Float[Tensor, "B H W C"]:
        """Soft picture of the triangles at `params`, of the target's channels."""
        faces = self._faces(self._triangles(params), params)
        return self._on_ground(renderer(*faces, progress=progress))

    def _mapped(self, change: Callable[[Tensor], Tensor], cache: dict[str, Tensor]) -> PictureBatch:
        return PictureBatch(
            self.family,
            None if self.hidden is None else change(self.hidden),
            change(self.initial),
            change(self.depth),
            change(self.colours),
            change(self.ground),
            change(self.present),
            None if self.drawn is None else change(self.drawn),
            cache,
        )

    def _unknowns(self, full: Tensor) -> Tensor:
        return full if self.family.colours else full[..., :6].contiguous()

    def _triangles(self, params: Tensor) -> Tensor:
        """Vertices (B, K, 3, 2) in NDC."""
        return UNIT * params[..., :6].unflatten(-1, (3, 2))

    def _faces(self, xy: Tensor, params: Tensor) -> tuple[Tensor, Tensor]:
        """Face vertices (B,K,3,3) and face attributes (B,K,3,3): colours relative to the ground.

        Compositing is linear in colours. So a black background with the ground added to the picture
        equals each instance's own ground as the background.
        """
        colours = params[..., 6:] if self.family.colours else self.colours
        relative = (colours - self.ground[:, None])[:, :, None].expand(-1, -1, 3, -1)
        return tr.lift_triangles(xy, self.depth), relative

    def _on_ground(self, image: Tensor) -> Tensor:
        """An RGBA render of `_faces` as a picture of the target's channels."""
        rgb = image[..., :3] + self.ground[:, None, None]
        has_alpha = self.drawn is None or self.drawn.shape[-1] == 4
        return torch.cat([rgb, image[..., 3:]], dim=-1) if has_alpha else rgb

    def _squared_errors(self, params: Tensor) -> Tensor:
        """Mean squared distance of each triangle's vertices to the hidden ones, (B, K)."""
        assert self.hidden is not None
        vertices = params[..., :6].unflatten(-1, (3, 2))[:, :, RELABELLINGS]  # (B, K, 6, 3, 2)
        truth = self.hidden[:, :, None, :6].unflatten(-1, (3, 2))
        return (vertices - truth).square().sum(dim=(-1, -2)).min(dim=-1).values / 3

    def _over_triangles(self, values: Tensor) -> Tensor:
        """Mean of (B, K) over the present triangles."""
        return torch.where(self.present, values, 0).sum(dim=1) / self.present.sum(dim=1)


def _rows(triangles: np.ndarray, colours: np.ndarray) -> np.ndarray:
    """(K, 9) from (K, 3, 2) and (K, 3)."""
    return np.concatenate([triangles.reshape(-1, 6), colours], axis=1)


def _depths(rng: np.random.Generator, count: int, high: int) -> tuple[np.ndarray, np.ndarray]:
    """Depths (high,), of which `count` are in range, and which these are."""
    depth = np.full(high, 2 * FAR)
    depth[:count] = rng.permutation(np.linspace(*DEPTHS, count))
    return depth, np.arange(high) < count


def _spread_triangles(
    rng: np.random.Generator, count: int, high: int, half_sides: np.ndarray
) -> np.ndarray:
    """`high` triangles (high, 3, 2) in NDC; the first `count` are spread over the picture.

    Each of these has its centre in its own cell of a grid that has few more cells than `count`.
    """
    reach = REACH * half_sides
    rows = max(1, round(np.sqrt(count * reach[1] / reach[0])))
    grid = np.array([-(-count // rows), rows])
    cells = rng.permutation(grid[0] * grid[1])[np.arange(high) % count]
    corner = np.stack([cells % grid[0], cells // grid[0]], axis=-1)
    centres = ((corner + rng.uniform(0, 1, (high, 2))) / grid * 2 - 1) * reach
    outlines = np.stack([triangle_outline(rng) for _ in range(high)])
    return centres[:, None] + UNIT * outlines
