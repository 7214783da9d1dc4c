"""Recover the pose of a camera from one picture of a known mesh: its silhouette, or shaded.

`Pose.published` is the experiment of Petersen et al. (GenDR, CVPR 2022), which Wu et al. (EGSR
2024) also use. The camera orbits the mesh. Its distance, elevation and azimuth are unknown, and
optionally its field of view. If the silhouettes of start and target do not meet at all
(`overlap="none"`), the place of the mesh in the picture is unknown, too.

Angles are *relative to the truth*, as published: the mesh is first turned so that the true camera
has elevation and azimuth 0. The true elevation, drawn from N(0, 60 degrees) and often beyond 90,
thus only turns the mesh, and no up vector flips. No truth is near a pole, where azimuth is
undefined.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import cached_property
from typing import ClassVar, Literal

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor, nn

import taichi_raster as tr
from tasks.copies import repeater
from tasks.pose_meshes import is_closed, lit_colours, lit_coverage, random_body
from tasks.streams import Stream, instance_generators

# Ranges of the true and starting distances, uniform; those of "any" overlap are published. With
# "none" they are larger, so that two meshes fit into the picture side by side.
TRUE_DISTANCE = {"any": (2.5, 4.0), "none": (6.0, 8.0)}
START_DISTANCE = {"any": (2.0, 10.0), "none": (5.0, 10.0)}
TRUE_SPREAD = 60.0  # standard deviation of the true elevation and azimuth in degrees; published
HALF_FOV = 20.0  # the true one, in degrees; published
START_HALF_FOV = (10.0, 30.0)  # uniform; published
MARGIN = 0.95  # where overlap is "none", meshes lie within this part of the picture

# Unknown distances and half fields of view are taken as they are between the inner two of these.
# Beyond, they approach the outer two smoothly, so that no update brings the camera into the mesh.
DISTANCES = (1.6, 2.0, 10.0, 20.0)
HALF_FOVS = (5.0, 10.0, 30.0, 45.0)
LARGEST_RADIUS = 1.5  # of a mesh; less than DISTANCES[0] - NEAR
NEAR, FAR = 0.05, 25.0


@dataclass(frozen=True)
class Pose:
    """Family of pose tasks; `sample` draws batches.

    Unknowns are (B, K): distance, elevation, azimuth, then half the field of view h if
    `unknown_fov`, then the pan (x, y), where in the picture the origin appears, if `overlap` is
    "none". Their units:

        "scaled":    log distance, radians, log tan h, NDC
        "published": scene units, degrees, degrees, hundredths of NDC

    A step in a scaled unknown moves points of the picture by about that step times the mesh's
    radius in the picture; a step in the pan moves them by that step. So one Adam rate, about 0.05
    to 0.1, suits all. Published Adam rates, for the published units, are 0.3 to 0.5.

    Args:
        meshes: "procedural", a random body for each instance (`tasks.pose_meshes`); or one mesh for
            all, within 1.5 of the origin.
        image: "silhouette", whose loss is 1 - intersection over union (published), or "shaded",
            whose loss is the mean squared difference of its colours alone.
        image_size: side of the square picture in pixels; published: 64.
        unknown_fov: whether the field of view is unknown, too. Perspective alone distinguishes it
            from the distance, so both are then poorly determined; the angles are not.
        start_angle: degrees in the (elevation, azimuth) plane from the truth to the start, drawn
            uniformly from (low, high), in a random direction; published: 15-35, 35-55 and 55-75.
        overlap: "any": the mesh is in the middle of the picture, as published. "none": the mesh and
            its start are at different places, so that their silhouettes have no pixel in common.
        distance, start_distance: (low, high) of the true and starting distances; None for
            `TRUE_DISTANCE` and `START_DISTANCE`. (At the farthest published start, 10, a procedural
            body is still seven pixels wide in a picture of 32, so the published range is kept.)
        units: "scaled" or "published", of the unknowns.
        seed: of the whole family; a batch is a function of (seed, stream, index, size) alone.
        dtype: of all tensors; the runtime's by default.

    Raises ValueError or TypeError, naming the argument.

        family = Pose()
        task = family.sample(64, "train", index=0)
        renderer = family.renderer(tr.Distribution("logistic", scale=0.03))
        loss = task.loss(task.start(), renderer, progress=0.0)
    """

    failure_threshold: ClassVar[float] = 5.0
    error_floor: ClassVar[float] = 0.05
    error_name: ClassVar[str] = "angle error (degrees)"

    meshes: Literal["procedural"] | tr.Mesh = "procedural"
    image: Literal["silhouette", "shaded"] = "silhouette"
    image_size: int = 32
    unknown_fov: bool = False
    start_angle: tuple[float, float] = (15.0, 35.0)
    overlap: Literal["any", "none"] = "any"
    distance: tuple[float, float] | None = None
    start_distance: tuple[float, float] | None = None
    units: Literal["scaled", "published"] = "scaled"
    seed: int = 0
    dtype: torch.dtype | None = None

    @classmethod
    def published(
        cls,
        mesh: tr.Mesh,
        start_angle: tuple[float, float] = (15.0, 35.0),
        image_size: int = 64,
        unknown_fov: bool = True,
        seed: int = 0,
    ) -> Pose:
        """The published experiment on `mesh`, taken as it is, in published units.

        Source: experiments/opt_camera.py of GenDR. Its viewing angle is half the field of view (20
        for the truth, 10 to 30 at the start), and is unknown there.
        """
        return cls(
            mesh,
            "silhouette",
            image_size,
            unknown_fov,
            start_angle,
            "any",
            None,
            None,
            "published",
            seed,
        )

    def __post_init__(self) -> None:
        if isinstance(self.meshes, tr.Mesh):
            radius = float(self.meshes.vertices.norm(dim=1).max())
            if radius > LARGEST_RADIUS:
                raise ValueError(
                    f"meshes: must lie within {LARGEST_RADIUS} of the origin, reaches {radius:.4g};"
                    " use taichi_raster.normalise(mesh)"
                )
        else:
            _check_choice("meshes", self.meshes, "procedural")
        _check_choice("image", self.image, "silhouette", "shaded")
        _check_choice("overlap", self.overlap, "any", "none")
        _check_choice("units", self.units, "scaled", "published")
        _check_range("start_angle", self.start_angle, 0.0, 180.0)
        _check_range("distance", self.distances, *DISTANCES[1:3])
        _check_range("start_distance", self.start_distances, *DISTANCES[1:3])
        if not isinstance(self.image_size, int) or self.image_size < 8:
            raise ValueError(f"image_size must be an integer >= 8, got {self.image_size!r}")
        if not isinstance(self.seed, int) or self.seed < 0:
            raise ValueError(f"seed must be an integer >= 0, got {self.seed!r}")

    @property
    def distances(self) -> tuple[float, float]:
        """(low, high) of the true distance."""
        return self.distance or TRUE_DISTANCE[self.overlap]

    @property
    def start_distances(self) -> tuple[float, float]:
        """(low, high) of the starting distance."""
        return self.start_distance or START_DISTANCE[self.overlap]

    @cached_property
    def closed(self) -> bool:
        """Whether front faces alone show the whole silhouette; renderers then cull back faces."""
        return not isinstance(self.meshes, tr.Mesh) or is_closed(self.meshes)

    def sample(self, batch_size: int, stream: Stream, index: int) -> PoseBatch:
        """Batch `index` of a stream ("tune", "train" or "test"; disjoint).

        Instance i depends on (seed, stream, index, i) only: a smaller batch begins a larger one.
        """
        generators = instance_generators(batch_size, self.seed, stream, index)
        dtype = self.dtype or tr.runtime().dtype
        shared = [self.meshes] if isinstance(self.meshes, tr.Mesh) else None
        meshes = shared or [random_body(rng) for rng in generators]
        corners = torch.stack([mesh.vertices.double()[mesh.faces] for mesh in meshes])
        radii = corners.norm(dim=-1).amax(dim=(1, 2)).expand(batch_size).tolist()
        drawn = [self._draw(rng, radius) for rng, radius in zip(generators, radii, strict=True)]
        angles, hidden, start = (torch.as_tensor(np.stack(x)) for x in zip(*drawn, strict=True))
        right, up, forward = tr.orbit(1.0, *angles.unbind(1))[:, :3, :3].unbind(1)
        return PoseBatch(
            self,
            corners.to(dtype),
            lit_colours(corners).to(dtype) if self.image == "shaded" else None,
            torch.stack([right, up, -forward], dim=1).to(dtype),
            self.unknowns(hidden).to(dtype),
            self.unknowns(start).to(dtype),
        )

    def renderer(
        self,
        edge: tr.EdgeSoftness,
        depth: tr.DepthSoftness | None = None,
        alpha: tr.TConorm | None = None,
    ) -> tr.SoftRasterizer:
        """Soft renderer of this family's size and clip depths.

        `depth` matters only for shaded pictures. Its default is `OverDepth`, by the product, with
        which the published results were measured. Under a softmax
        with a small gamma, near faces spread over the background, and most poses are missed. With a
        gamma of 1, as many are found as with `OverDepth`, at twice the error.

        The renderer drops fragments below 1e-3, which makes it 1.7 times faster and solves as many
        tasks. Where silhouettes do not overlap, only the far tails have a gradient, and it keeps
        fragments down to 1e-6.
        """
        if depth is None and self.image == "shaded":
            depth = tr.OverDepth(union="product")
        return tr.SoftRasterizer(
            self.image_size,
            edge,
            depth,
            alpha,
            near=NEAR,
            far=FAR,
            cull_backfaces=self.closed,
            threshold=1e-3 if self.overlap == "any" else 1e-6,
        )

    def sharp_renderer(self) -> tr.SharpRasterizer:
        """Sharp reference renderer of the same size and clip depths."""
        return tr.SharpRasterizer(self.image_size, near=NEAR, far=FAR, cull_backfaces=self.closed)

    def views(self, params: Float[Tensor, "B K"]) -> Float[Tensor, "B 6"]:
        """The views that unknowns mean: distance, elevation, azimuth, half field of view, pan x, y.

        They are in scene units, degrees and NDC.
        """
        distance, elevation, azimuth, *rest = params.unbind(dim=-1)
        half = rest.pop(0) if self.unknown_fov else None
        x, y = rest or (torch.zeros_like(distance),) * 2
        if self.units == "published":
            distance = _eased(distance, DISTANCES)
            half = None if half is None else _eased(half, HALF_FOVS)
            x, y = x / 100, y / 100
        else:
            distance = torch.exp(_eased(distance, tuple(map(math.log, DISTANCES))))
            elevation, azimuth = torch.rad2deg(elevation), torch.rad2deg(azimuth)
            if half is not None:
                tangent = torch.exp(_eased(half, tuple(map(_log_tangent, HALF_FOVS))))
                half = torch.rad2deg(torch.atan(tangent))
        half = torch.full_like(distance, HALF_FOV) if half is None else half
        return torch.stack([distance, elevation, azimuth, half, x, y], dim=-1)

    def unknowns(self, views: Float[Tensor, "B 6"]) -> Float[Tensor, "B K"]:
        """The unknowns that mean `views`, whose distance and field of view must be in range."""
        distance, elevation, azimuth, half, x, y = views.unbind(dim=-1)
        if self.units == "published":
            columns = [distance, elevation, azimuth, half, 100 * x, 100 * y]
        else:
            angles = torch.deg2rad(torch.stack([elevation, azimuth, half]))
            columns = [distance.log(), *angles[:2], angles[2].tan().log(), x, y]
        wanted = [True] * 3 + [self.unknown_fov] + [self.overlap == "none"] * 2
        return torch.stack([c for c, some in zip(columns, wanted, strict=True) if some], dim=-1)

    def _draw(self, rng: np.random.Generator, radius: float) -> tuple[np.ndarray, ...]:
        """True angles (2,), and the views of the truth and of the start, relative to it: (6,)."""
        angles = rng.normal(0, TRUE_SPREAD, 2)
        away, direction = rng.uniform(*self.start_angle), rng.uniform(0, 2 * math.pi)
        start_angles = away * math.cos(direction), away * math.sin(direction)
        for _ in range(1000):
            near, far = rng.uniform(*self.distances), rng.uniform(*self.start_distances)
            half = rng.uniform(*START_HALF_FOV) if self.unknown_fov else HALF_FOV
            places = rng.uniform(-1, 1, (2, 2))
            sizes = np.array([_disc(radius, near, HALF_FOV), _disc(radius, far, half)])
            pans = places * np.maximum(MARGIN - sizes, 0)[:, None]
            apart = float(np.linalg.norm(pans[0] - pans[1])) - sizes.sum()
            if self.overlap == "any":
                pans *= 0
                break
            # A sharp edge spreads over half a pixel on either side.
            if sizes.max() < MARGIN and apart > 2 / self.image_size:
                break
        else:
            raise ValueError(
                "overlap='none': at these distances two such meshes do not fit into the picture "
                "side by side; use a smaller mesh, or larger distance and start_distance"
            )
        hidden = np.array([near, 0.0, 0.0, HALF_FOV, *pans[0]])
        return angles, hidden, np.array([far, *start_angles, half, *pans[1]])


@dataclass(frozen=True)
class PoseBatch:
    """B instances of `Pose`.

    Attributes:
        corners: (B, F, 3, 3), of the meshes' faces in the world; (1, F, 3, 3) for one shared mesh.
        colours: RGB of the corners, of the same shape; None for silhouettes.
        frames: (B, 3, 3) rotations of the world that bring the true camera to elevation and azimuth
            0: rows right, up, backward.
        hidden, initial: (B, K), the solution and the start.
    """

    family: Pose
    corners: Float[Tensor, "*B F 3 3"]
    colours: Float[Tensor, "*B F 3 3"] | None
    frames: Float[Tensor, "B 3 3"]
    hidden: Float[Tensor, "B K"]
    initial: Float[Tensor, "B K"]
    _cache: dict[str, Tensor] = field(default_factory=dict, repr=False, compare=False)

    @property
    def batch_size(self) -> int:
        """B."""
        return len(self.hidden)

    @property
    def target(self) -> Float[Tensor, "B H W C"]:
        """Sharp picture of the truth: RGBA, or the silhouette alone."""
        return self._cached("target", lambda: self.sharp_image(self.hidden))

    @property
    def start_overlap(self) -> Float[Tensor, " B"]:
        """1 where the silhouettes of start and truth have a pixel in common, else 0."""

        def overlap() -> Tensor:
            both = self.sharp_image(self.initial)[..., -1] * self.target[..., -1]
            return (both.sum(dim=(1, 2)) > 0).to(both)

        return self._cached("start_overlap", overlap)

    def start(self) -> Float[Tensor, "B K"]:
        """Initial unknowns; the same tensor at every call."""
        return self.initial

    def loss(
        self, params: Float[Tensor, "B K"], renderer: nn.Module, progress: float | Tensor
    ) -> Float[Tensor, " B"]:
        """1 - IoU of the soft silhouette and the target's, or MSE of their colours."""
        image = self.soft_image(params, renderer, progress)
        if self.colours is None:
            return tr.silhouette_iou_loss(image[..., 0], self.target[..., 0])
        return tr.mse(image[..., :3], self.target[..., :3])

    def true_error(self, params: Float[Tensor, "B K"]) -> Float[Tensor, " B"]:
        """Angle in degrees of the rotation between the orientations of the camera and the truth.

        The rotation is Rx(elevation) Ry(azimuth), with cos(angle / 2) = cos(elevation / 2)
        cos(azimuth / 2). To second order the angle is the root of elevation^2 + azimuth^2, which
        the published criterion uses.
        """
        half = torch.deg2rad(self.family.views(params)[:, 1:3]) / 2
        (sin_e, sin_a), (cos_e, cos_a) = half.sin().unbind(1), half.cos().unbind(1)
        sine = torch.sqrt(sin_e**2 + (cos_e * sin_a) ** 2 + 1e-24)  # finite slope at zero
        return torch.rad2deg(2 * torch.atan2(sine, (cos_e * cos_a).abs()))

    def image_error(self, params: Float[Tensor, "B K"]) -> Float[Tensor, " B"]:
        """1 - IoU of the sharp silhouette and the target's, or MSE of their colours.

        Here IoU is the sum of min(a, b) over that of max(a, b), which is 1 for equal coverages even
        where they are fractions.
        """
        return self._sharp_difference(self.sharp_image(params))

    def metrics(self, params: Float[Tensor, "B K"]) -> dict[str, Float[Tensor, " B"]]:
        """Figures of each instance.

        parameter_error: `true_error`, in degrees; failure: 1 where it is above 5;
        image_error: `image_error`; iou: of the sharp silhouettes;
        published_success: 1 where elevation^2 + azimuth^2 < 5^2, in degrees, relative to the truth;
        distance_error: in scene units;
        fov_error: of the whole field of view, in degrees, 0 where it is known;
        pan_error: in NDC, 0 where the pan is known;
        start_overlap: 1 where the silhouettes of start and truth overlap.
        """
        with torch.no_grad():
            error, image = self.true_error(params), self.sharp_image(params)
            views, truth = self.family.views(params), self.family.views(self.hidden)
            off = (views - truth).abs()
            return {
                "parameter_error": error,
                "image_error": self._sharp_difference(image),
                "failure": (error > self.family.failure_threshold).to(error),
                "published_success": (views[:, 1:3].square().sum(dim=1) < 25).to(error),
                "distance_error": off[:, 0],
                "fov_error": 2 * off[:, 3],
                "pan_error": off[:, 4:].norm(dim=1),
                "iou": 1 - tr.coverage_iou_loss(image[..., -1], self.target[..., -1]),
                "start_overlap": self.start_overlap,
            }

    def repeat(self, copies: int) -> PoseBatch:
        """The same instances `copies` times over: i of copy j stands at j * B + i."""
        repeat = repeater(copies)
        _ = self.target, self.start_overlap  # rendered once, for all copies
        return self._mapped(repeat)

    def select(self, instances: list[int]) -> PoseBatch:
        """A batch of some of the instances, in the order given."""
        return self._mapped(lambda tensor: tensor[instances])

    def geometry(self, params: Float[Tensor, "B K"]) -> Float[Tensor, "B F 3 3"]:
        """What steps are measured by: corners, z as a share of the depth range."""
        corners = self._faces(params)[0]
        return torch.cat([corners[..., :2], corners[..., 2:] / (FAR - NEAR)], dim=-1)

    def outlines(
        self, params: Float[Tensor, "B K"]
    ) -> tuple[Float[Tensor, "B H W"], Float[Tensor, "B H W"]]:
        """What a start is measured by: coverage of `params`, and of the target.

        If shaded, as far as it shows in colours alone.
        """
        drawn, target = self.sharp_image(params), self.target
        if self.colours is None:
            return drawn[..., 0], target[..., 0]
        return lit_coverage(drawn[..., :3]), lit_coverage(target[..., :3])

    def sharp_image(self, params: Float[Tensor, "B K"]) -> Float[Tensor, "B H W C"]:
        """Sharp picture from the cameras at `params`."""
        return self.family.sharp_renderer()(*self._faces(params))

    def soft_image(
        self, params: Float[Tensor, "B K"], renderer: nn.Module, progress: float | Tensor
    ) -> Float[Tensor, "B H W C"]:
        """Soft picture from the cameras at `params`."""
        return renderer(*self._faces(params), progress=progress)

    def _faces(self, params: Tensor) -> tuple[Tensor, Tensor | None]:
        """Face vertices (B, F, 3, 3) in NDC and colours.

        Corners are projected, not vertices: only the camera is unknown, and a corner that is
        projected six times is cheaper than the gradient of a gather.
        """
        distance, elevation, azimuth, half_fov, x, y = self.family.views(params).unbind(dim=-1)
        view = tr.orbit(distance, elevation, azimuth)
        turned = torch.cat([view[:, :3, :3] @ self.frames, view[:, :3, 3:]], dim=2)
        view = torch.cat([turned, view[:, 3:]], dim=1)
        focal = (1 / torch.tan(torch.deg2rad(half_fov)))[:, None].expand(-1, 2)
        camera = tr.PinholeCamera(view, focal, torch.stack([x, y], dim=-1))
        faces = camera.project(self.corners.flatten(1, 2)).unflatten(1, (-1, 3))
        return faces, None if self.colours is None else self.colours.expand(len(faces), -1, -1, -1)

    def _sharp_difference(self, image: Tensor) -> Tensor:
        if self.colours is None:
            return tr.coverage_iou_loss(image[..., 0], self.target[..., 0])
        return tr.mse(image[..., :3], self.target[..., :3])

    def _cached(self, name: str, make: Callable[[], Tensor]) -> Tensor:
        if name not in self._cache:
            with torch.no_grad():
                self._cache[name] = make()
        return self._cache[name]

    def _mapped(self, change: Callable[[Tensor], Tensor]) -> PoseBatch:
        """A batch with each instance's tensors changed; shared ones are kept."""
        shared = len(self.corners) != self.batch_size

        def own(tensor: Tensor) -> Tensor:
            return tensor if shared else change(tensor)

        return PoseBatch(
            self.family,
            own(self.corners),
            None if self.colours is None else own(self.colours),
            change(self.frames),
            change(self.hidden),
            change(self.initial),
            {name: change(tensor) for name, tensor in self._cache.items()},
        )


def _eased(x: Tensor, limits: tuple[float, ...]) -> Tensor:
    """x between the inner two limits; beyond, it rises smoothly (C1) towards the outer two."""
    low, first, last, high = limits
    below = low + (first - low) * torch.exp((x.clamp(max=first) - first) / (first - low))
    above = high - (high - last) * torch.exp((last - x.clamp(min=last)) / (high - last))
    return torch.where(x < first, below, torch.where(x > last, above, x))


def _disc(radius: float, distance: float, half_fov: float) -> float:
    """Radius in NDC of the picture of a sphere around the origin."""
    return radius / math.sqrt(distance**2 - radius**2) / math.tan(math.radians(half_fov))


def _log_tangent(degrees: float) -> float:
    return math.log(math.tan(math.radians(degrees)))


def _check_choice(name: str, value: object, *known: str) -> None:
    if value not in known:
        raise ValueError(f"{name}: expected one of {list(known)}, got {value!r}")


def _check_range(name: str, value: tuple[float, float], least: float, most: float) -> None:
    if not (len(value) == 2 and least <= value[0] <= value[1] <= most):
        raise ValueError(
            f"{name}: expected (low, high) with {least} <= low <= high <= {most}, got {value!r}"
        )
