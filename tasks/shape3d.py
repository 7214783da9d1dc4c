"""Deform a sphere into a solid that is known only by its silhouettes, or by shaded pictures.

A hidden solid is seen from K directions at one elevation; its sharp silhouettes are the targets.
The unknowns are offsets of a sphere's vertices, (B, V, 3). The loss is the silhouette IoU loss plus
a Laplacian and a flattening term. This is the experiment of Liu et al. (ICCV 2019, SoftRas) as Wu
et al. (EGSR 2024) measured it. With `image="shaded"` the loss compares colours alone: matt white
solids under three fixed coloured lights, without masks.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import ClassVar, Literal, TypeAlias

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

import taichi_raster as tr
from taichi_raster.fitting.metrics import (
    sample_surface,
    surface_distance,
    volume,
    voxel_iou,
    voxelise,
)
from tasks import sphere
from tasks.copies import repeater
from tasks.pose_meshes import lit_colours, lit_coverage
from tasks.silhouettes import FAR, NEAR, coloured, coverage, mean_iou, side_by_side
from tasks.solids import random_solid
from tasks.streams import Stream, instance_generators

ELEVATIONS = (-60.0, -30.0, 0.0, 30.0, 60.0)
"""Degrees; the published experiment takes each in turn."""

FOV = 30.0  # degrees; published as a viewing angle of 15, half of it
DISTANCE = 2.732  # from the eye to the origin
VISIBLE_RADIUS = DISTANCE * math.sin(math.radians(FOV / 2))  # a sphere of it fills the image
BOUNDS = (-VISIBLE_RADIUS, VISIBLE_RADIUS)  # of the voxels
VOXELS = 32  # along each side

Elevation: TypeAlias = "float | Literal['any']"


@dataclass(frozen=True)
class Shape3D:
    """Family of 3D shape tasks; `sample` draws batches.

    Args:
        meshes: "procedural" for random solids (`tasks.solids`), or a tuple of closed meshes, from
            which each instance draws one.
        image: "silhouette" (published), or "shaded", whose loss compares colours alone.
        elevation: of all K cameras, degrees in (-90, 90), or "any": each instance draws one of
            `ELEVATIONS`.
        views: K; azimuths are k * 360 / K degrees.
        subdivisions: of the start, an icosphere: 1, 2, 3 are 42, 162, 642 vertices.
        image_size: side of the square silhouettes in pixels.
        radius: of the target, from the middle of its bounding box, which is moved to the origin, to
            its farthest vertex, in world units; below 0.707, so that it is in the image.
        smoothing: how far the gradient at a vertex spreads, as in `SmoothOffsets`; 0 for not at
            all.
        laplacian, flattening: weights of these two terms, as published.
        samples: points on each surface from which the true error is measured.
        cull_backfaces: whether the soft renderer culls back faces. That is a third cheaper, but
            alpha jumps where a face turns, and fits are worse (Chamfer distance 0.022 instead of
            0.015 on the coarse family).
        threshold: the soft renderer's; fragments of lower coverage are dropped.
        seed: of the whole family; a batch is a function of (seed, stream, index, size) alone.
        dtype: of all tensors; the runtime's by default.

    Raises ValueError or TypeError, naming the argument.

        family = Shape3D.coarse()
        task = family.sample(32, "train", index=0)
        renderer = family.renderer(tr.Distribution("logistic", scale=0.03))
        loss = task.loss(task.start(), renderer, progress=0.0)
    """

    error_name: ClassVar[str] = "Chamfer distance (world units)"
    failure_threshold: ClassVar[float] = 0.02
    error_floor: ClassVar[float] = 0.0004

    meshes: Literal["procedural"] | tuple[tr.Mesh, ...] = "procedural"
    image: Literal["silhouette", "shaded"] = "silhouette"
    elevation: Elevation = "any"
    views: int = 24
    subdivisions: int = 2
    image_size: int = 64
    radius: float = 0.6
    smoothing: float = 0.0
    laplacian: float = 0.03
    flattening: float = 0.0003
    samples: int = 256
    cull_backfaces: bool = False
    threshold: float = 1e-6
    seed: int = 0
    dtype: torch.dtype | None = None

    def __post_init__(self) -> None:
        if self.meshes != "procedural":
            if not isinstance(self.meshes, tuple) or not self.meshes:
                raise ValueError(
                    "meshes: expected 'procedural' or a tuple of taichi_raster.Mesh, at least one, "
                    f"got {self.meshes!r}"
                )
            for mesh in self.meshes:
                if not isinstance(mesh, tr.Mesh):
                    raise TypeError(
                        f"meshes: expected taichi_raster.Mesh, got {type(mesh).__name__}"
                    )
                _check_closed(mesh)
        if self.image not in ("silhouette", "shaded"):
            raise ValueError(f"image: expected 'silhouette' or 'shaded', got {self.image!r}")
        if self.elevation != "any" and not (
            isinstance(self.elevation, int | float) and abs(self.elevation) < 90
        ):
            raise ValueError(
                f"elevation: expected degrees in (-90, 90) or 'any', got {self.elevation!r}"
            )
        for name, least in (
            ("views", 1),
            ("subdivisions", 0),
            ("image_size", 1),
            ("samples", 1),
            ("seed", 0),
        ):
            value = getattr(self, name)
            if not isinstance(value, int) or value < least:
                raise ValueError(f"{name} must be an integer >= {least}, got {value!r}")
        for name in ("smoothing", "laplacian", "flattening"):
            if not 0 <= getattr(self, name) < math.inf:
                raise ValueError(f"{name} must be finite and >= 0, got {getattr(self, name)!r}")
        if not 0 < self.radius < VISIBLE_RADIUS:
            raise ValueError(
                f"radius must lie between 0 and {VISIBLE_RADIUS:.3f}, what the cameras see, "
                f"got {self.radius!r}"
            )

    @classmethod
    def published(
        cls, mesh: tr.Mesh, elevation: Elevation = 0.0, smoothing: float = 1.0, seed: int = 0
    ) -> Shape3D:
        """One mesh from 24 views of 64 x 64 pixels by a sphere of 642 vertices (Wu et al. 2024).

        Published with it: Adam, learning rate 10^-1.25 to 10^-1.75, betas (0.5, 0.95), 100 steps.
        The published unknowns keep each vertex in its octant; here `smoothing` replaces that.
        Without it (0), the surface crumples before it has shrunk.
        """
        return cls(
            (mesh,),
            "silhouette",
            elevation,
            views=24,
            subdivisions=3,
            image_size=64,
            smoothing=smoothing,
            samples=512,
            seed=seed,
        )

    @classmethod
    def coarse(
        cls, seed: int = 0, image: Literal["silhouette", "shaded"] = "silhouette"
    ) -> Shape3D:
        """Random solids, cheap enough for meta-training: 42 vertices, 8 views of 24 x 24 pixels."""
        return cls(
            image=image,
            views=8,
            subdivisions=1,
            image_size=24,
            samples=128,
            threshold=1e-3,
            seed=seed,
        )

    def sample(self, batch_size: int, stream: Stream, index: int) -> Shape3DBatch:
        """Batch `index` of a stream ("tune", "train" or "test"; disjoint).

        Instance i depends on (seed, stream, index, i) only: a smaller batch begins a larger one.
        """
        generators = instance_generators(batch_size, self.seed, stream, index)
        drawn = [self._draw(rng) for rng in generators]
        solids = tr.collate([mesh for mesh, _ in drawn])
        generator = torch.Generator().manual_seed(0)  # the same strata for every instance
        points = sample_surface(solids.vertices, solids.faces, self.samples, generator)
        dtype = self.dtype or tr.runtime().dtype
        elevation = torch.tensor([degrees for _, degrees in drawn], dtype=dtype)
        return Shape3DBatch(
            self, solids.vertices.to(dtype), solids.faces, points.to(dtype), elevation
        )

    def renderer(
        self,
        edge: tr.EdgeSoftness,
        depth: tr.DepthSoftness | None = None,
        alpha: tr.TConorm | None = None,
    ) -> tr.SoftRasterizer:
        """Soft renderer of this family's size and clip depths.

        `depth` matters only for shaded pictures. Its default is `OverDepth`, by the product, with
        which the published results were measured: under a softmax,
        near faces spread over those behind them, and fits are worse.
        """
        if depth is None:
            shaded = self.image == "shaded"
            depth = tr.OverDepth(union="product") if shaded else tr.HardDepth()  # costs nothing
        return tr.SoftRasterizer(
            self.image_size,
            edge=edge,
            depth=depth,
            alpha=alpha,
            near=NEAR,
            far=FAR,
            cull_backfaces=self.cull_backfaces,
            threshold=self.threshold,
        )

    def sharp_renderer(self) -> tr.SharpRasterizer:
        """Sharp reference renderer of the same size and clip depths."""
        return tr.SharpRasterizer(self.image_size, near=NEAR, far=FAR, cull_backfaces=True)

    @property
    def template(self) -> sphere.Template:
        """The sphere that is deformed."""
        dtype = self.dtype or tr.runtime().dtype
        return sphere.template(self.subdivisions, self.smoothing, self.samples, dtype)

    def _draw(self, rng: np.random.Generator) -> tuple[tr.Mesh, float]:
        """The solid of one instance, float64, and its elevation in degrees."""
        if isinstance(self.meshes, str):
            solid = random_solid(rng, self.radius)
        else:
            solid = self.meshes[int(rng.integers(len(self.meshes)))]
            solid = tr.normalise(tr.Mesh(solid.vertices.double(), solid.faces), radius=self.radius)
        chosen = ELEVATIONS[int(rng.integers(len(ELEVATIONS)))]
        return solid, chosen if isinstance(self.elevation, str) else float(self.elevation)


@dataclass(frozen=True)
class Shape3DBatch:
    """B instances of `Shape3D`.

    Attributes:
        vertices: (B, V', 3) of the hidden solids, in world units, padded.
        faces: (B, F', 3), padded with -1.
        points: (B, N, 3) fixed samples of the hidden surfaces.
        elevation: (B,) of the cameras, degrees.
    """

    family: Shape3D
    vertices: Float[Tensor, "B V 3"]
    faces: Int[Tensor, "B F 3"]
    points: Float[Tensor, "B N 3"]
    elevation: Float[Tensor, " B"]
    _cache: dict[str, Tensor] = field(default_factory=dict, repr=False, compare=False)
    _cameras: dict[str, tr.PerspectiveCamera] = field(
        default_factory=dict, repr=False, compare=False
    )

    @property
    def batch_size(self) -> int:
        """B."""
        return len(self.vertices)

    @property
    def silhouettes(self) -> Float[Tensor, "B K H W"]:
        """Targets: the share of each pixel that the hidden solids cover."""
        return self._cached("silhouettes", lambda: self._shown(coverage, *self._solid))

    @property
    def pictures(self) -> Float[Tensor, "B K H W 3"]:
        """Mean colours of the hidden solids over black, the targets if shaded."""
        return self._cached("pictures", lambda: self._coloured(*self._solid))

    @property
    def target(self) -> Float[Tensor, "B H KW C"]:
        """The targets of an instance side by side: silhouettes, or colours."""
        if self.family.image == "shaded":
            return side_by_side(self.pictures)
        return side_by_side(self.silhouettes[..., None])

    @property
    def camera(self) -> tr.PerspectiveCamera:
        """B * K cameras, those of one instance next to each other."""
        if "camera" not in self._cameras:
            views = self.family.views
            azimuth = torch.arange(views).to(self.elevation) * (360 / views)
            view = tr.orbit(
                DISTANCE, self.elevation.repeat_interleave(views), azimuth.repeat(self.batch_size)
            )
            self._cameras["camera"] = tr.PerspectiveCamera(view, FOV)
        return self._cameras["camera"]

    @property
    def backs(self) -> bool:
        """Whether the soft renderer draws back faces, too; see `tr.untuned_softening`."""
        return not self.family.cull_backfaces

    def start(self) -> Float[Tensor, "B V 3"]:
        """Initial unknowns; the same tensor at every call."""
        return torch.zeros_like(self.family.template.mesh.vertices).repeat(self.batch_size, 1, 1)

    def deformed(self, params: Float[Tensor, "B V 3"]) -> Float[Tensor, "B V 3"]:
        """The fit's vertices in world units."""
        template = self.family.template
        if template.spread is not None:
            params = template.spread @ params
        return template.mesh.vertices + params

    def loss(
        self, params: Float[Tensor, "B V 3"], renderer: nn.Module, progress: float | Tensor
    ) -> Float[Tensor, " B"]:
        """Silhouette IoU loss, averaged over views, + Laplacian + flattening (Liu et al. 2019).

        If shaded, the squared differences of colours in all views, over the squares of the target's
        colours, replace the IoU loss.
        """
        vertices, template = self.deformed(params), self.family.template
        image = self._soft(vertices, renderer, progress)
        if self.family.image == "shaded":
            loss = _relative(image, self.pictures)
        else:
            match = tr.silhouette_iou_loss(
                image.flatten(0, 1)[..., 0], self.silhouettes.flatten(0, 1)
            )
            loss = match.unflatten(0, (self.batch_size, -1)).mean(dim=1)
        if self.family.laplacian > 0:
            loss = loss + self.family.laplacian * template.laplacian(vertices)
        if self.family.flattening > 0:
            loss = loss + self.family.flattening * template.flattening(vertices)
        return loss

    def true_error(self, params: Float[Tensor, "B V 3"]) -> Float[Tensor, " B"]:
        """Chamfer distance between the surfaces of the fit and of the hidden solid (world units).

        Half the sum of two means: the distance of fixed points of the fit to the solid's surface,
        and that of fixed points of the solid to the fit's. Zero for equal surfaces.
        """
        vertices, template = self.deformed(params), self.family.template
        corners = tr.gather_faces(vertices, template.mesh.faces)[:, template.sampled]
        points = (template.weights[..., None] * corners).sum(dim=2)
        there = surface_distance(points, self.vertices, self.faces).mean(dim=1)
        back = surface_distance(self.points, vertices, template.mesh.faces).mean(dim=1)
        return (there + back) / 2

    def image_error(self, params: Float[Tensor, "B V 3"]) -> Float[Tensor, " B"]:
        """1 - IoU of sharp silhouettes, averaged over views; 0 for equal ones.

        The IoU of two coverages is the sum of their minima over that of their maxima. If shaded, it
        is the relative squared difference of colours, as in the loss.
        """
        if self.family.image == "shaded":
            return _relative(self._coloured(*self._fit(params)), self.pictures)
        return 1 - mean_iou(self._shown(coverage, *self._fit(params)), self.silhouettes)

    def metrics(self, params: Float[Tensor, "B V 3"]) -> dict[str, Float[Tensor, " B"]]:
        """Figures of each instance.

        parameter_error and chamfer (both the true error), image_error, silhouette_iou, voxel_iou
        (32^3), volume_ratio and area_ratio (of the fit to the solid: volumes, and silhouettes in
        all views), and failure: 1 where the true error is above
        `Shape3D.failure_threshold`.
        """
        with torch.no_grad():
            vertices, faces = self._fit(params)
            error, seen = self.true_error(params), self._shown(coverage, vertices, faces)
            solid = self._cached("voxels", lambda: _voxels(*self._solid))
            return {
                "parameter_error": error,
                "image_error": self.image_error(params),
                "failure": (error > Shape3D.failure_threshold).to(error.dtype),
                "chamfer": error,
                "silhouette_iou": mean_iou(seen, self.silhouettes),
                "voxel_iou": voxel_iou(_voxels(vertices, faces), solid).to(error.dtype),
                "volume_ratio": volume(vertices, faces) / volume(*self._solid),
                "area_ratio": seen.sum(dim=(1, 2, 3)) / self.silhouettes.sum(dim=(1, 2, 3)),
            }

    def repeat(self, copies: int) -> Shape3DBatch:
        """The same instances `copies` times over: i of copy j stands at j * B + i."""
        repeat = repeater(copies)
        _ = self.silhouettes, self.target  # made once, before they are copied
        return self._mapped(repeat)

    def select(self, instances: list[int]) -> Shape3DBatch:
        """A batch of some of the instances, in the order given."""
        return self._mapped(lambda tensor: tensor[instances])

    def geometry(self, params: Float[Tensor, "B V 3"]) -> Float[Tensor, "BK V 3"]:
        """What steps are measured by: vertices in all views, z as a share of the depth range."""
        seen = self.camera.project(
            self.deformed(params).repeat_interleave(self.family.views, dim=0)
        )
        return torch.cat([seen[..., :2], seen[..., 2:] / (FAR - NEAR)], dim=-1)

    def outlines(
        self, params: Float[Tensor, "B V 3"]
    ) -> tuple[Float[Tensor, "BK H W"], Float[Tensor, "BK H W"]]:
        """What a start is measured by: coverage of the fit, and of the target, in all views.

        If shaded, as far as it shows in colours alone.
        """
        if self.family.image == "shaded":
            drawn = lit_coverage(self._coloured(*self._fit(params)))
            return drawn.flatten(0, 1), lit_coverage(self.pictures).flatten(0, 1)
        drawn = self._shown(coverage, *self._fit(params))
        return drawn.flatten(0, 1), self.silhouettes.flatten(0, 1)

    def sharp_image(self, params: Float[Tensor, "B V 3"]) -> Float[Tensor, "B H KW C"]:
        """Pictures of the fit, side by side as in `target`; no gradient."""
        with torch.no_grad():
            if self.family.image == "shaded":
                return side_by_side(self._coloured(*self._fit(params)))
            return side_by_side(self._shown(coverage, *self._fit(params))[..., None])

    def soft_image(
        self, params: Float[Tensor, "B V 3"], renderer: nn.Module, progress: float | Tensor
    ) -> Float[Tensor, "B H KW C"]:
        """Soft pictures of the fit, side by side as in `target`."""
        return side_by_side(self._soft(self.deformed(params), renderer, progress))

    def fitted(self, params: Float[Tensor, "B V 3"]) -> list[tr.Mesh]:
        """The fits as meshes."""
        faces = self.family.template.mesh.faces
        return [tr.Mesh(vertices, faces) for vertices in self.deformed(params).detach()]

    def hidden(self) -> list[tr.Mesh]:
        """The hidden solids as meshes."""
        return [
            tr.Mesh(vertices, faces[(faces >= 0).all(dim=1)])
            for vertices, faces in zip(self.vertices, self.faces, strict=True)
        ]

    def _soft(
        self, vertices: Tensor, renderer: nn.Module, progress: float | Tensor
    ) -> Float[Tensor, "B K H W C"]:
        """Alpha, or the colours alone."""
        family, faces = self.family, self.family.template.mesh.faces
        lit = self._lit(vertices, faces) if family.image == "shaded" else None
        image = renderer(self._project(vertices, faces), lit, progress, family.views)
        image = image if lit is None else image[..., :3]
        return image.unflatten(0, (self.batch_size, -1))

    def _coloured(self, vertices: Tensor, faces: Tensor) -> Float[Tensor, "B K H W 3"]:
        """Mean colours."""
        image = coloured(
            self._project(vertices, faces), self.family.image_size, self._lit(vertices, faces)
        )
        return image[..., :3].unflatten(0, (self.batch_size, -1))

    def _lit(self, vertices: Tensor, faces: Tensor) -> Float[Tensor, "BK F 3 3"]:
        """Colours of all instances' faces, the same in all views."""
        return lit_colours(tr.gather_faces(vertices, faces)).repeat_interleave(
            self.family.views, dim=0
        )

    @property
    def _solid(self) -> tuple[Tensor, Tensor]:
        return self.vertices, self.faces

    def _fit(self, params: Tensor) -> tuple[Tensor, Tensor]:
        return self.deformed(params), self.family.template.mesh.faces

    def _shown(
        self, render: Callable[[Tensor, int], Tensor], vertices: Tensor, faces: Tensor
    ) -> Float[Tensor, "B K H W"]:
        images = render(self._project(vertices, faces), self.family.image_size)
        return images.unflatten(0, (self.batch_size, -1))

    def _project(self, vertices: Tensor, faces: Tensor) -> Float[Tensor, "BK F 3 3"]:
        """Faces of all instances in all their views."""
        views = self.family.views
        seen = self.camera.project(vertices.repeat_interleave(views, dim=0))
        return tr.gather_faces(
            seen, faces if faces.ndim == 2 else faces.repeat_interleave(views, dim=0)
        )

    def _cached(self, name: str, make: Callable[[], Tensor]) -> Tensor:
        if name not in self._cache:
            with torch.no_grad():
                self._cache[name] = make()
        return self._cache[name]

    def _mapped(self, change: Callable[[Tensor], Tensor]) -> Shape3DBatch:
        return replace(
            self,
            vertices=change(self.vertices),
            faces=change(self.faces),
            points=change(self.points),
            elevation=change(self.elevation),
            _cache={name: change(tensor) for name, tensor in self._cache.items()},
            _cameras={},
        )


def _check_closed(mesh: tr.Mesh) -> None:
    try:
        voxelise(mesh.vertices[None], mesh.faces, 1)
    except ValueError as error:
        raise ValueError(f"meshes: {error}") from None


def _relative(image: Tensor, goal: Tensor) -> Float[Tensor, " B"]:
    """Squared differences over the squares of the goal, (B,)."""
    return (image - goal).square().flatten(1).sum(1) / goal.square().flatten(1).sum(1)


def _voxels(vertices: Tensor, faces: Tensor) -> Tensor:
    return voxelise(vertices, faces, VOXELS, BOUNDS)
