"""What is known of a pose: a mask, a photo, a depth map. Each says how far it is off at a pose."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Protocol

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from taichi_raster.fitting.drawing import drawn as draw_with
from taichi_raster.fitting.drawing import reaching
from taichi_raster.fitting.photometric import appearance, exposure, gradient_of
from taichi_raster.fitting.pose_matching import blurred, gaussian, match, softer_by, without
from taichi_raster.fitting.pose_noise import Field
from taichi_raster.fitting.pose_scene import PoseScene, Surface
from taichi_raster.render.sampled import sampled_picture
from taichi_raster.render.sharp import SharpRasterizer
from taichi_raster.scene.faces import gather_faces
from taichi_raster.scene.pose import Pose

LEAST = 12
"""Pixels that a photo or a depth map needs."""

_STEP = 0.1  # pixels, of finite differences of exact areas
_STEEP = 10.0  # depth of surfaces seen more askew is not compared: the tangent of the angle
_MARGIN, _ENOUGH = 3, 400  # pixels: from outlines, and as many as are then to be left
_LEAST_BLUR, _MOST_BLUR = 0.15, 4.0  # pixels
_TIMES_OFF = 3.0  # of how far an outline is off: so blurred, errors are linear in that
_COLOUR = 1 / 255  # errors of colours, at least
_COVERAGE = 1e-3  # errors of coverage, at least
_OBJECT = 0.05  # errors of depth that are the object's, at most, of the objects' size
_DEPTH = 1e-4  # errors of depth, at least, of the objects' size


class Term(Protocol):
    """Something that is known of the scene in one photo."""

    def field(self, scene: PoseScene, local: Pose) -> Field | None:
        """Errors and their slopes; None if too little is seen."""

    def at(self, scene: PoseScene, local: Pose) -> Term:
        """The same, with what it measures at a pose and then keeps, so that costs compare."""


@dataclass(frozen=True, eq=False)
class MaskTerm:
    """Coverage: of all objects together, (1, H, W), or of each, (K, H, W).

    Where the outline is off by more than a fraction of a pixel, both pictures are blurred by some
    times as much: pixels then change in proportion to how far it is off.
    """

    photo: int
    target: Float[Tensor, "C H W"]
    known: Bool[Tensor, "H W"]
    blur: float | None = None
    """Pixels; None to measure it."""

    def at(self, scene: PoseScene, local: Pose) -> MaskTerm:
        """See `Term`."""
        found = self.field(scene, local)
        return self if found is None else replace(self, blur=found.blur)

    def field(self, scene: PoseScene, local: Pose) -> Field | None:
        """See `Term`."""
        size = self.target.shape[1], self.target.shape[2]
        short = min(size)
        near, far = scene.depths(local, self.photo)
        draw = SharpRasterizer(size, near=near, far=far)
        points = scene.points(local, self.photo)[0]
        radii, before = [], 0
        for mesh in scene.meshes:
            own = points[before : before + len(mesh.vertices), :2]
            radii.append(float((own - own.mean(0)).norm(dim=1).amax()) * short / 2)
            before += len(mesh.vertices)
        steps = torch.tensor([_STEP / max(r, 1.0) for r in radii]).repeat_interleave(6).double()
        each = torch.diag(steps)
        unknowns = torch.cat([torch.zeros(1, len(steps)).double(), each, -each])
        drawn = self._drawn(scene, draw, scene.corners(local, self.photo, unknowns))
        error = (self.target - drawn[0]) * self.known
        slopes = (drawn[1 : 1 + len(steps)] - drawn[1 + len(steps) :]).double()
        slopes = slopes / (2 * steps[:, None, None, None]) * self.known
        if not bool(drawn[0].any()):
            return None
        width = self.blur
        if width is None:
            off = self._off(error, slopes)
            width = min(_TIMES_OFF * off, _MOST_BLUR) if off > _LEAST_BLUR else 0.0
        error, shown = error.double(), drawn[0].double()
        raw, moving = error, slopes.square().sum(0)
        if width > 0:
            kernel = gaussian(width)
            error, slopes, shown = (blurred(x, kernel) for x in (error, slopes, shown))
        gradient = gradient_of(shown.movedim(0, -1)).movedim(-1, 1)
        valid = self.known.expand_as(error)
        values = _value_noise(raw, moving, valid)
        return Field(error, slopes, valid, "squares", _COVERAGE, gradient, width, values)

    def drawn(self, scene: PoseScene, local: Pose) -> Float[Tensor, "C H W"]:
        """What the target should be."""
        size = self.target.shape[1], self.target.shape[2]
        near, far = scene.depths(local, self.photo)
        draw = SharpRasterizer(size, near=near, far=far)
        return self._drawn(scene, draw, scene.corners(local, self.photo))[0]

    def _drawn(
        self, scene: PoseScene, draw: SharpRasterizer, corners: Tensor
    ) -> Float[Tensor, "N C H W"]:
        with torch.no_grad():
            if len(self.target) == 1:
                return draw_with(draw, corners)[..., 0][:, None]
            shown = torch.nn.functional.one_hot(scene.owners, len(scene.meshes)).to(corners)
            colours = shown[None, :, None].expand(len(corners), -1, 3, -1)
            return draw_with(draw, corners, colours)[..., :-1].movedim(-1, 1)

    def _off(self, error: Tensor, slopes: Tensor) -> float:
        """How far the outline is off, in pixels: sums of 5 x 5 pixels over 5 of its length."""
        sums = 25 * torch.nn.functional.avg_pool2d(error[None].float(), 5, 1, 2)[0] / 5
        moving = slopes.square().sum(0)
        at = moving > 0.05 * moving.amax()
        return float(sums[at].abs().mean()) if bool(at.any()) else 0.0


@dataclass(frozen=True, eq=False)
class PhotoTerm:
    """Colours, but for a gain and an offset of each channel."""

    photo: int
    image: Float[Tensor, "H W 3"]
    known: Bool[Tensor, "H W"]

    def at(self, scene: PoseScene, local: Pose) -> PhotoTerm:
        """See `Term`."""
        return self

    def field(self, scene: PoseScene, local: Pose) -> Field | None:
        """See `Term`."""
        size = self.image.shape[0], self.image.shape[1]
        seen = self._seen(scene, local, size)
        if seen is None:
            return None
        colour = self._rendered(scene, local, seen.objects)
        row, column = seen.row, seen.column
        theirs = self.image[row, column].double()
        softer = softer_by(colour, seen.objects)
        matched = match(colour[row, column], softer[row, column], theirs)
        gradient = gradient_of(matched.of(colour, softer))[:, row, column].double()
        half = min(size) / 2
        across, down = seen.motions[..., 0] * half, -seen.motions[..., 1] * half
        own = -(across[..., None] * gradient[0] + down[..., None] * gradient[1])
        error = theirs - matched.of(colour, softer)[row, column].double()
        spread = 1.4826 * error.abs().median(0).values
        weight = 1 / (1 + (error / (2.385 * spread.clamp(min=_COLOUR))).square())
        slopes = torch.zeros(scene.unknowns, len(row), 3, dtype=torch.float64)
        for k in range(len(scene.meshes)):
            mine = seen.owner == k
            slopes[6 * k : 6 * k + 6, mine] = own[:, mine]
        slopes = without(slopes, matched.basis, weight)
        pictures = torch.zeros(scene.unknowns + 1, 3, *size, dtype=torch.float64)
        pictures[:-1, :, row, column] = slopes.movedim(-1, 1)
        pictures[-1, :, row, column] = error.T
        valid = torch.zeros(3, *size, dtype=torch.bool)
        valid[:, row, column] = True
        return Field(pictures[-1], pictures[:-1], valid, "cauchy", _COLOUR)

    def _seen(
        self, scene: PoseScene, local: Pose, size: tuple[int, int], moving: bool = True
    ) -> Surface | None:
        """A photo's blur mixes what is beside an outline, which keeps away, if enough is left."""
        for margin, hiding, least in ((_MARGIN, True, _ENOUGH), (1, True, _ENOUGH), (1, False, 0)):
            seen = scene.surface(local, self.photo, size, self.known, margin, hiding, moving)
            if seen is None or len(seen.row) >= max(least, LEAST):
                return seen
        return None

    def _rendered(self, scene: PoseScene, local: Pose, objects: Tensor) -> Float[Tensor, "H W 3"]:
        size = objects.shape[0], objects.shape[1]
        near, far = scene.depths(local, self.photo)
        points, found, before = scene.points(local, self.photo).float(), None, 0
        for k, mesh in enumerate(scene.meshes):
            own = points[:, before : before + len(mesh.vertices)]
            before += len(mesh.vertices)
            corners = gather_faces(own, mesh.faces)
            colour = torch.zeros(*size, 3)
            if bool(reaching(corners, near, far).any()):
                shown = sampled_picture(corners, appearance(mesh), size, 2, near=near, far=far)[0]
                colour = shown[..., :3] / shown[..., 3:].clamp(min=0.25)
            found = (
                colour if found is None else torch.where((objects == k)[..., None], colour, found)
            )
        assert found is not None
        return found

    def correlation(self, scene: PoseScene, local: Pose) -> float:
        """Of rendered and photographed colours, robustly."""
        size = self.image.shape[0], self.image.shape[1]
        seen = self._seen(scene, local, size, moving=False)
        if seen is None:
            return -1.0
        colour = self._rendered(scene, local, seen.objects)
        ours, theirs = (x[seen.row, seen.column].double() for x in (colour, self.image))
        gains, offsets = exposure(ours, theirs)
        error = theirs - (gains * ours + offsets)
        spread = 1.4826 * float(error.abs().median())
        weight = 1 / (1 + (error / max(2 * spread, 0.02)).square())
        one, two = (x - (weight * x).sum(0) / weight.sum(0) for x in (ours, theirs))
        norm = ((weight * one.square()).sum() * (weight * two.square()).sum()).sqrt()
        return float((weight * one * two).sum() / norm.clamp(min=1e-12))


@dataclass(frozen=True, eq=False)
class DepthTerm:
    """Distances along the optical axis, in the objects' unit; 0 where unknown.

    The error is the distance of the measured point from the plane of the surface that its pixel
    sees (Chen and Medioni, Image and Vision Computing 10, 1992), so that what is seen askew counts
    less. What is far off, as something that stands before the object, does not count (Tukey's
    weights).
    """

    photo: int
    depth: Float[Tensor, "H W"]
    known: Bool[Tensor, "H W"]

    def at(self, scene: PoseScene, local: Pose) -> DepthTerm:
        """See `Term`."""
        return self

    def field(self, scene: PoseScene, local: Pose) -> Field | None:
        """See `Term`."""
        size = self.depth.shape[0], self.depth.shape[1]
        measured = self.known & (self.depth > 0)
        seen = scene.surface(local, self.photo, size, measured)
        if seen is None or len(seen.row) < LEAST:
            return None
        along = (seen.slope * seen.motions[..., :2]).sum(-1)
        own = seen.motions[..., 2] - along
        error = self.depth[seen.row, seen.column].double() / scene.unit - seen.z
        tangent = seen.slope.norm(dim=-1) / (seen.z * _ray(scene, self.photo))
        steep, facing = tangent > _STEEP, (1 + tangent.square()).rsqrt()
        own, error = own * facing, error * facing
        pictures = torch.zeros(scene.unknowns + 1, *size, dtype=torch.float64)
        for k in range(len(scene.meshes)):
            mine = seen.owner == k
            pictures[6 * k : 6 * k + 6, seen.row[mine], seen.column[mine]] = own[:, mine]
        pictures[-1, seen.row, seen.column] = error
        valid = torch.zeros(size, dtype=torch.bool)
        valid[seen.row[~steep], seen.column[~steep]] = True
        if int(valid.sum()) < LEAST:
            return None
        pictures = pictures * valid
        parts = pictures[-1][None], pictures[:-1, None], valid[None]
        return Field(*parts, "tukey", _DEPTH, most=_OBJECT)

    def share(self, scene: PoseScene, local: Pose) -> tuple[float, float]:
        """(scale of the errors in the objects' unit, share of pixels that it holds for)."""
        field = self.field(scene, local)
        if field is None:
            return torch.inf, 0.0
        scale = field.scale()
        near = (field.error.abs() < 4.685 * scale)[field.valid]
        return scale * scene.unit, float(near.double().mean())


def _value_noise(error: Tensor, moving: Tensor, valid: Tensor) -> float:
    """The variance of coverage away from outlines, by the median."""
    near = torch.nn.functional.max_pool2d((moving > 0)[None].float(), 9, 1, 4)[0] > 0
    far = error[valid & ~near].abs()
    return (1.4826 * float(far.median())) ** 2 if far.numel() > 0 else 0.0


def _ray(scene: PoseScene, photo: int) -> float:
    """How far apart at depth 1 are two points that are 1 apart in NDC, in the middle."""
    camera = scene.cameras[photo]
    probe = torch.tensor([[[0.0, 0.0, 1.0], [1e-2, 0.0, 1.0]]]).to(camera.view)
    one, two = camera.from_image(probe)[0]
    return float((two / two[2] - one / one[2]).norm()) / 1e-2
