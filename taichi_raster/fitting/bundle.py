"""The poses of all cameras together, by what their photos show alike of one surface.

Photos of one place agree wherever they are taken from, up to light. So the poses are those for
which the photos agree best on the surface: the bundle adjustment of photogrammetry, without
features, on a mesh. Where the surface is off its true place, patches of it move along their
normals, which is eliminated from the system. Outlines take part with a low weight: they say what
colours do not, but the surface has been fitted to the same outlines.

Some motions of all cameras together hardly show: on a turntable, above all, that all look down more
steeply. There small errors of surface and light would add up to degrees. So each camera is held
near the pose that was given, as far as that is uncertain: many cameras together hold their mean.

Light differs from photo to photo when the object turns. So brightness is compared within a patch:
less its mean there, over its spread there (normalised correlation).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn.functional import grid_sample, normalize

from taichi_raster.fitting.outline_system import system_of
from taichi_raster.fitting.photo_level import Level
from taichi_raster.fitting.point_motions import DIFFERENCE, pose_motions, projected
from taichi_raster.render.hard import hard_buffers
from taichi_raster.render.sharp import SharpRasterizer
from taichi_raster.runtime.precision import product
from taichi_raster.scene.camera import Camera
from taichi_raster.scene.faces import gather_faces
from taichi_raster.scene.mesh import Mesh
from taichi_raster.scene.pose import Pose

POINTS = 30_000
"""At which photos are compared, at most: two for each pixel."""

LEAST = 8
"""Points of a patch that a photo has to show."""

FLOOR = 0.03
"""Of the spread of brightness in a patch: below it, what differs is noise."""

NOISE = 0.1
"""Of normalised brightness, at least."""

SHARED = 4.0
"""Points that count as one: there are two for each pixel, and errors of neighbours are alike."""

ANGLE = 20.0
"""Degrees between two views, at which they count for each other 60% of what the same would."""

LOOSE = 0.02
"""How far patches may be off their places, in units of the object's size."""

LARGEST = 0.05
"""Of a step, in each unknown of `Pose.moved`."""


@dataclass(frozen=True, eq=False)
class Seen:
    """What one photo shows at M points of the surface.

    Attributes:
        value: (M,) normalised brightness.
        slope: (6, M) of it by the unknowns of `Pose.moved`.
        outwards: (M,) of it along the surface's normal.
        weight: (M,) the cosine of the angle at which the surface is seen; 0 where it is not.
        way: (3,) from the object to the eye.
    """

    value: Float[Tensor, " M"]
    slope: Float[Tensor, "6 M"]
    outwards: Float[Tensor, " M"]
    weight: Float[Tensor, " M"]
    way: Float[Tensor, " 3"]


@dataclass(frozen=True, eq=False)
class Given:
    """Where the cameras are by what was given, of which each is uncertain by itself.

    Attributes:
        poses: of the object, in units of its size and about its centre.
        precision: (6,) one over the variance of each unknown of `Pose.moved`.
    """

    poses: Sequence[Pose]
    precision: Float[Tensor, " 6"]

    @staticmethod
    def within(poses: Sequence[Pose], degrees: float, shift: float) -> Given:
        """Uncertain by an angle, about all axes together, and by shifts in sizes, along each."""
        turn = math.radians(degrees) / math.sqrt(3)
        return Given(poses, torch.tensor([turn] * 3 + [shift] * 3, dtype=torch.float64) ** -2)


@dataclass(frozen=True, eq=False)
class Bundle:
    """A surface in units of its size, about its centre, and photos of it.

    Attributes:
        mesh: the surface; poses are of it.
        cameras, levels: of the photos; the cameras' own views do not count.
        points, normals: (M, 3) of the surface.
        patch: (M,) which patch a point belongs to.
        patches: how many there are.
        outline: the standard deviation that outlines are taken to have, in pixels.
        given: where the cameras are, if photos do not say.
    """

    mesh: Mesh
    cameras: Sequence[Camera]
    levels: Sequence[Level]
    points: Float[Tensor, "M 3"]
    normals: Float[Tensor, "M 3"]
    patch: Tensor
    patches: int
    outline: float
    given: Given

    @staticmethod
    def of(
        mesh: Mesh,
        cameras: Sequence[Camera],
        levels: Sequence[Level],
        outline: float,
        patch: float,
        given: Given,
        seed: int,
    ) -> Bundle:
        """Points spread by area, and patches of so many pixels."""
        shown = sorted(float(level.mask.sum()) for level in levels)
        pixels = 3 * shown[len(shown) // 2]  # of the whole surface, not of one side of it
        count = min(POINTS, round(2 * pixels))
        patches = max(20, min(round(pixels / patch), count // (2 * LEAST)))
        corners = mesh.vertices.double()[mesh.faces]
        cross = torch.linalg.cross(corners[:, 1] - corners[:, 0], corners[:, 2] - corners[:, 0])
        generator = torch.Generator().manual_seed(seed)
        face = torch.multinomial(cross.norm(dim=1), count, replacement=True, generator=generator)
        two = torch.rand(count, 2, generator=generator, dtype=torch.float64)
        two = torch.where(two.sum(1, keepdim=True) > 1, 1 - two, two)
        weights = torch.cat([1 - two.sum(1, keepdim=True), two], dim=1)
        points = (weights[..., None] * corners[face]).sum(1)
        normals = normalize(cross, dim=1)[face]
        place = torch.cat([points, 0.2 * normals], dim=1).float()  # two sides of a sheet are apart
        nearest = torch.cdist(place, place[:patches]).argmin(1)
        return Bundle(mesh, cameras, levels, points, normals, nearest, patches, outline, given)

    def stepped(self, poses: Sequence[Pose]) -> tuple[Bundle, list[Pose]]:
        """One Gauss-Newton step of all poses, and of the patches along their normals."""
        count = len(poses)
        matrix, slope, patches = self._by_colours(
            [self.seen(i, pose) for i, pose in enumerate(poses)]
        )
        matrix, slope = matrix / SHARED, slope / SHARED
        for i, pose in enumerate(poses):
            own, pull = self._by_outline(i, pose)
            matrix[i, :, i] += own / self.outline**2
            slope[i] += pull / self.outline**2
            matrix[i, :, i] += self.given.precision.diag()
            slope[i] += self.given.precision * self.given.poses[i].unknowns_to(pose)[0]
        whole = matrix.reshape(6 * count, 6 * count)
        found = -torch.linalg.solve(whole, slope.flatten())
        rows = found.reshape(count, 1, 6).clamp(-LARGEST, LARGEST)
        out = patches(rows[:, 0])[self.patch][:, None].clamp(-LOOSE, LOOSE)
        better = replace(self, points=self.points + out * self.normals)
        return better, [pose.moved(row) for pose, row in zip(poses, rows, strict=True)]

    def seen(self, i: int, pose: Pose) -> Seen:
        """Through one camera."""
        level = self.levels[i]
        short, (height, width) = min(level.size), level.size
        at, motion = self._moving(i, pose, self.points)
        further = projected(self.cameras[i], pose, self.points + DIFFERENCE * self.normals)[0]
        outwards = (further - at)[:, :2] / DIFFERENCE
        vertices = projected(self.cameras[i], pose, self.mesh.vertices.double()).float()
        near, far = _depths(pose)
        corners = gather_faces(vertices, self.mesh.faces)
        depth = hard_buffers(corners, level.size, near=near, far=far).depth
        x, y, z = at.unbind(-1)
        grid = torch.stack([x * (short / width), -y * (short / height)], dim=-1)[None, None].float()
        sampled = grid_sample(level.fields, grid, mode="bilinear", align_corners=False)
        value, across, down, within = sampled[0, :, 0].double()
        nearest = grid_sample(depth[None], grid, mode="nearest", align_corners=False)[0, 0, 0]
        eye = -product(pose.rotation[0].mT, pose.translation[0][:, None])[:, 0]
        facing = (normalize(eye - self.points, dim=1) * self.normals).sum(1)
        shown = (z > 0) & (z - nearest < 0.04) & (facing > 0.25) & (within > 0.99)
        # Slopes along columns and, downwards, along rows, by pixels.
        along = torch.stack([across, -down]) * (short / 2)
        slope, out = ((along.T * change).sum(-1) for change in (motion, outwards))
        value, slope, out, shown = self._normalised(value, slope, out, shown)
        return Seen(value, slope, out, facing * shown, normalize(eye, dim=0))

    def _normalised(
        self, value: Tensor, slope: Tensor, out: Tensor, shown: Tensor
    ) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """Less the mean of each patch, over its spread; patches that are half hidden are left."""
        weight = shown.double()
        count, whole = self._of_patches(weight), self._of_patches(torch.ones_like(weight))

        def less_mean(x: Tensor) -> Tensor:
            mean = self._of_patches(weight * x) / count.clamp(min=1)
            return x - mean[..., self.patch]

        value, slope, out = less_mean(value), less_mean(slope), less_mean(out)
        variance = self._of_patches(weight * value.square()) / count.clamp(min=1)
        spread = (variance + FLOOR**2).sqrt()[self.patch]
        good = ((count >= LEAST) & (count > 0.7 * whole))[self.patch]
        return value / spread, slope / spread, out / spread, shown & good

    def _of_patches(self, x: Float[Tensor, "*n M"]) -> Float[Tensor, "*n P"]:
        zero = torch.zeros(*x.shape[:-1], self.patches, dtype=x.dtype)
        return zero.index_add_(-1, self.patch, x)

    def _by_colours(
        self, seen: Sequence[Seen]
    ) -> tuple[Tensor, Tensor, Callable[[Tensor], Tensor]]:
        """Normal equations, (N, 6, N, 6) and (N, 6), of all pairs of photos that are near.

        And how far patches go, (P,), when poses move by (N, 6).
        """
        count = len(seen)
        ways = torch.stack([each.way for each in seen])
        angles = torch.rad2deg(torch.acos(product(ways, ways.mT).clamp(-1, 1)))
        close = torch.exp(-0.5 * (angles / ANGLE).square())
        pairs = [(i, j) for i in range(count) for j in range(i) if float(close[i, j]) > 0.1]
        matrix = torch.zeros(count, 6, count, 6, dtype=torch.float64)
        slope = torch.zeros(count, 6, dtype=torch.float64)
        rows = torch.zeros(count, 6, self.patches, dtype=torch.float64)
        pull = torch.zeros(self.patches, dtype=torch.float64)
        stiff = torch.full((self.patches,), LOOSE**-2, dtype=torch.float64)
        errors = {(i, j): seen[i].value - seen[j].value for i, j in pairs}
        both = {(i, j): seen[i].weight * seen[j].weight for i, j in pairs}
        found = [errors[pair][both[pair] > 0].abs() for pair in pairs]
        every = torch.cat([*found, torch.zeros(1, dtype=torch.float64)])
        spread = max(1.4826 * float(every.median()), NOISE)
        times = torch.stack([each.weight > 0 for each in seen]).sum(0).clamp(min=1)
        for i, j in pairs:
            error = errors[i, j]
            trust = 1 / (1 + (error / (2 * spread)).square())
            weight = close[i, j] * both[i, j] * trust / times / spread**2
            one, two = weight * seen[i].slope, weight * seen[j].slope
            across = product(one, seen[j].slope.mT)
            matrix[i, :, i] += product(one, seen[i].slope.mT)
            matrix[j, :, j] += product(two, seen[j].slope.mT)
            matrix[i, :, j] -= across
            matrix[j, :, i] -= across.mT
            slope[i] += (one * error).sum(1)
            slope[j] -= (two * error).sum(1)
            out = seen[i].outwards - seen[j].outwards
            stiff += self._of_patches(weight * out.square())
            pull += self._of_patches(weight * out * error)
            rows[i] += self._of_patches(one * out)
            rows[j] -= self._of_patches(two * out)
        # What patches off their places could do as well is no sign of motion.
        flat = rows.flatten(0, 1)
        matrix -= product(flat / stiff, flat.mT).reshape(matrix.shape)
        slope -= (rows * (pull / stiff)).sum(-1)

        def patches(step: Tensor) -> Tensor:
            return -(pull + (rows * step[..., None]).sum((0, 1))) / stiff

        return matrix, slope, patches

    def _by_outline(self, i: int, pose: Pose) -> tuple[Tensor, Tensor]:
        """(6, 6) and (6,) of half the squared distance of outlines, in pixels."""
        level = self.levels[i]
        at, motion = self._moving(i, pose, self.mesh.vertices.double())
        points = at[None].float().requires_grad_()
        near, far = _depths(pose)
        draw = SharpRasterizer(level.size, near=near, far=far)
        picture = draw(gather_faces(points, self.mesh.faces), None)[..., 0]
        found = system_of(picture, points, level.mask, level.distance, motion[None].float())
        half = min(level.size) / 2
        return found.matrix[0].double() * half, found.slope[0].double() * half

    def _moving(self, i: int, pose: Pose, points: Tensor) -> tuple[Tensor, Tensor]:
        """Points (M, 3) in NDC, and their motions by each unknown, (6, M, 2)."""
        at = projected(self.cameras[i], pose, points)[0]
        return at, pose_motions(self.cameras[i], pose, points)


def _depths(pose: Pose) -> tuple[float, float]:
    """(near, far) of an object of size 1."""
    z = float(pose.translation[0, 2])
    return max(0.2 * (z - 1), 1e-3), 5 * (z + 1)
