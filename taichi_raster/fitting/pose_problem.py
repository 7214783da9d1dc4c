"""Where an object's pose is looked for: the starts, coarse to fine, and to the end."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, replace

import torch
from jaxtyping import Float
from torch import Tensor

from taichi_raster.depth.hard import HardDepth
from taichi_raster.fitting.drawing import drawn as draw_with
from taichi_raster.fitting.drawing import reaching
from taichi_raster.fitting.outline import outline_step, signed_distance
from taichi_raster.fitting.pyramid import proxy_mesh
from taichi_raster.render.sharp import SharpRasterizer
from taichi_raster.render.soft import SoftRasterizer
from taichi_raster.runtime.precision import product
from taichi_raster.scene.camera import Camera
from taichi_raster.scene.faces import gather_faces
from taichi_raster.scene.mesh import Mesh
from taichi_raster.scene.pose import Pose, centre_and_size
from taichi_raster.scene.resampling import area_average
from taichi_raster.softness.edge import Distribution

COARSE, FINE = 64, 256
"""The shorter side of the pictures, in pixels, at first and in between."""

STEPS = (25, 10, 6)
"""At most, at each size."""

POLISH = 15
"""Newton steps at the end, at most."""

KEPT = 4
"""Starts that go on to the second size."""


@dataclass(frozen=True, eq=False)
class Followed:
    """A start, to the end: its pose, its mismatch, and the last step's motion in pixels."""

    pose: Pose
    mismatch: float
    motion: float


@dataclass(frozen=True, eq=False)
class Problem:
    """Mesh, mask and camera, in units of the object's size, about its centre."""

    mesh: Mesh
    camera: Camera
    mask: Tensor
    centre: Tensor
    size: float
    known: Tensor
    """(H, W), False where the mask says nothing."""

    @staticmethod
    def of(mesh: Mesh, camera: Camera, mask: Tensor, known: Tensor | None = None) -> Problem:
        """From a mesh in its own frame, and a camera anywhere."""
        if known is None:
            known = torch.ones(mask.shape, dtype=torch.bool)
        centre, size = centre_and_size(mesh.vertices.detach().double())
        local = Mesh(((mesh.vertices.detach().double() - centre) / size).float(), mesh.faces)
        view = torch.eye(4, dtype=torch.float64)[None]
        at_origin = replace(camera, view=view.to(camera.view))
        told = torch.where(known, mask.detach().float(), 0.0)
        return Problem(local, at_origin, told, centre[0], float(size), known)

    # Poses are of the mesh in its own frame, `given`, or of the mesh here, `local`.

    def local(self, pose: Pose) -> Pose:
        """Of the mesh in units of its size, about its centre."""
        turned = product(pose.rotation, self.centre[:, None])[..., 0]
        return Pose(pose.rotation, (pose.translation + turned) / self.size)

    def given(self, pose: Pose) -> Pose:
        """Of the mesh in its own frame and units."""
        turned = product(pose.rotation, self.centre[:, None])[..., 0]
        return Pose(pose.rotation, self.size * pose.translation - turned)

    def points(self, local: Pose, mesh: Mesh) -> Float[Tensor, "N V 3"]:
        """The mesh's vertices in NDC."""
        view = local.view
        corners = mesh.vertices.to(view)[None]
        seen = (view[:, None, :3, :3] * corners[:, :, None]).sum(-1) + view[:, None, :3, 3]
        found: Tensor = self.camera.to_image(seen)
        return found

    def before_the_mask(self) -> Pose:
        """Upright, where a ball of the mesh's mean size would have the mask's place and area."""
        height, width = self.mask.shape
        short = min(height, width)
        inside = self.mask > 0.5
        row, column = inside.nonzero().double().mean(0).tolist()
        x, y = (2 * column + 1 - width) / short, (height - 2 * row - 1) / short
        ray = self.camera.from_image(torch.tensor([[[x, y, 1.0]]]).to(self.camera.view))[0, 0]
        beside = self.camera.from_image(torch.tensor([[[x + 1e-2, y, 1.0]]]).to(self.camera.view))
        scale = float((beside[0, 0] / beside[0, 0, 2] - ray / ray[2]).norm()) / 1e-2
        radius = math.sqrt(float(inside.sum()) / math.pi) * 2 / short * scale  # at depth 1
        own = 0.6 * float(self.mesh.vertices.norm(dim=1).mean())
        place = (ray / ray[2]).double() * max(own / radius, 1.05)
        flipped = place * torch.tensor([1.0, -1.0, 1.0])  # y down
        return self.given(Pose(torch.eye(3, dtype=torch.float64)[None], flipped[None]))

    def turned(self, pose: Pose, count: int, seed: int, most: float) -> Pose:
        """`count` poses: the given one, and turns of it about the object's centre."""
        generator = torch.Generator().manual_seed(seed)
        axes = torch.randn(count, 3, generator=generator, dtype=torch.float64)
        angles = most * torch.rand(count, 1, generator=generator, dtype=torch.float64) ** (1 / 3)
        turns = torch.nn.functional.normalize(axes, dim=1) * angles
        turns[0] = 0
        unknowns = torch.cat([turns, torch.zeros(count, 3, dtype=torch.float64)], dim=1)
        local = self.local(pose)
        many = Pose(local.rotation.expand(count, 3, 3), local.translation.expand(count, 3))
        return self.given(many.moved(unknowns))

    def followed(self, poses: Pose, say: Callable[[str], None]) -> list[Followed]:
        """The starts, coarse to fine; the best first."""
        local = self.local(poses)
        short = min(self.mask.shape)
        sizes = [COARSE, FINE, short] if short > FINE else [min(COARSE, short), short]
        mismatch = motion = torch.zeros(len(poses))
        for level, (size, steps) in enumerate(zip(sizes, STEPS, strict=False)):
            if level > 0:
                kept = mismatch.argsort()[: KEPT if level == 1 else 1]
                if level > 1 and len(kept) < len(mismatch):
                    kept = mismatch.argsort()[
                        : max(1, int((mismatch < 1.5 * mismatch.min()).sum()))
                    ]
                local = Pose(local.rotation[kept], local.translation[kept])
            mesh = self._mesh(local, size) if level == 0 else self.mesh
            local, mismatch, motion = self._descended(local, mesh, size, steps)
            say(
                f"{size} pixels: {len(local)} starts, the best mismatch {float(mismatch.min()):.4f}"
            )
        given = self.given(local)
        found = [
            Followed(
                Pose(given.rotation[i], given.translation[i]), float(mismatch[i]), float(motion[i])
            )
            for i in range(len(given))
        ]
        return sorted(found, key=lambda one: one.mismatch)

    def _mesh(self, local: Pose, size: int) -> Mesh:
        """A stand-in of faces of about two pixels."""
        depth = float(local.translation[:, 2].median())
        probe = torch.tensor([[[0.0, 0.0, 1.0], [1e-2, 0.0, 1.0]]]).to(self.camera.view)
        ray = self.camera.from_image(probe)[0]
        pixel = float((ray[1] / ray[1, 2] - ray[0] / ray[0, 2]).norm()) / 1e-2 * 2 / size * depth
        try:
            return proxy_mesh(self.mesh, 2 * pixel)
        except ValueError:  # smaller than that: there is nothing to simplify
            return self.mesh

    def _descended(
        self, local: Pose, mesh: Mesh, size: int, steps: int
    ) -> tuple[Pose, Tensor, Tensor]:
        """(poses, mismatches, last motions in pixels) after some steps at one size."""
        target, known = self.target(size)
        distance = signed_distance(target, known)
        near, far = self.depths(local)
        draw = SharpRasterizer(_size(target), near=near, far=far)
        mismatch, motion = torch.full((len(local),), torch.inf), torch.zeros(len(local))
        best = local
        for _ in range(steps):
            rows = local

            def points(unknowns: Tensor, rows: Pose = rows) -> Tensor:
                times = len(unknowns) // len(rows)
                many = Pose(rows.rotation.repeat(times, 1, 1), rows.translation.repeat(times, 1))
                return self.points(many.moved(unknowns.double()), mesh).float()

            def drawn(seen: Tensor) -> Tensor:
                return draw_with(draw, gather_faces(seen, mesh.faces))[..., 0]

            zero = torch.zeros(len(local), 6)
            found = outline_step(points, zero, drawn, target, distance, known=known)
            better = found.mismatch < mismatch
            best = Pose(
                torch.where(better[:, None, None], local.rotation, best.rotation),
                torch.where(better[:, None], local.translation, best.translation),
            )
            mismatch = torch.minimum(mismatch, found.mismatch)
            motion = found.motion * size / 2
            if float(motion.max()) < 0.05:
                break
            local = local.moved(found.step.double().clamp(-1, 1))
        return best, mismatch, motion

    def target(self, size: int) -> tuple[Tensor, Tensor]:
        """The mask and where it is known, (1, H, W), of a shorter side of `size` at most."""
        return smaller(self.mask, self.known, size)

    def depths(self, local: Pose) -> tuple[float, float]:
        """(near, far) for the renderers."""
        z = local.translation[:, 2]
        return max(0.2 * float(z.min() - 1), 1e-3), 5 * float(z.max() + 1)

    def polished(self, found: Followed) -> Followed:
        """Newton's method to the end."""
        local = self.local(found.pose)
        target, known = self.target(FINE)
        loss_of = _Loss(self, target[0], known[0], self.depths(local))
        damping, steps = 1e-3, 0
        value, slope, hessian = loss_of(local)
        motion = math.inf
        while steps < POLISH and motion > 0.02:
            steps += 1
            scaled = hessian + damping * torch.diag(hessian.diagonal().abs().clamp(min=1e-9))
            step = -torch.linalg.solve(_positive(scaled), slope).clamp(-0.2, 0.2)
            tried = local.moved(step[None])
            new = loss_of(tried)
            if new[0] <= value:
                motion = self._motion(local, tried, min(target.shape[1:]))
                local, (value, slope, hessian) = tried, new
                damping = max(damping / 10, 1e-6)
            else:
                damping *= 10
                if damping > 1e3:
                    break
        mismatch = self.mismatch(local)[0]
        pose = Pose(*(v.detach() for v in _parts(self.given(local))))
        settled = motion if math.isfinite(motion) else 0.0 if damping > 1e3 else math.inf
        return Followed(pose, mismatch, settled)

    def mismatch(self, local: Pose) -> tuple[float, float]:
        """As of `PoseFit`, in all pixels; and without what noise in every pixel explains."""
        full, known = self.target(min(self.mask.shape))
        near, far = self.depths(local)
        draw = SharpRasterizer(_size(full), near=near, far=far)
        corners = gather_faces(self.points(local, self.mesh).float(), self.mesh.faces)
        drawn = draw_with(draw, corners)[..., 0]
        return mismatches(drawn * known, full, known)

    def _motion(self, one: Pose, two: Pose, size: int) -> float:
        """How far vertices move, root mean square, in pixels."""
        change = self.points(one, self.mesh) - self.points(two, self.mesh)
        return float(change[..., :2].square().sum(-1).mean().sqrt()) * size / 2


class _Loss:
    """Half the sum of squared differences of coverage, with its derivatives by the pose.

    Value, errors and gradient are those of exact coverage. The Hessian has the derivatives of
    coverage that is drawn with a softness of a quarter pixel, as second ones exist there.
    """

    def __init__(
        self, problem: Problem, target: Tensor, known: Tensor, depths: tuple[float, float]
    ) -> None:
        self.problem, self.target, self.known = problem, target, known
        edge = Distribution("logistic", 0.25 * 2 / min(target.shape))
        near, far = depths
        self.soft = SoftRasterizer(_size(target), edge, HardDepth(), near=near, far=far)
        self.sharp = SharpRasterizer(_size(target), near=near, far=far)

    def __call__(self, local: Pose) -> tuple[float, Tensor, Tensor]:
        """(value, gradient, Hessian)."""
        unknowns = torch.zeros(6, requires_grad=True)
        moved = local.moved(unknowns[None].double())
        seen = self.problem.points(moved, self.problem.mesh).float()
        faces = gather_faces(seen, self.problem.mesh.faces)
        sharp = draw_with(self.sharp, faces)[0, ..., 0]
        error = (sharp - self.target) * self.known
        loss = error.square().sum() / 2
        if not bool(reaching(faces, self.sharp.near, self.sharp.far).any()):
            nothing = torch.zeros(6, 6, dtype=torch.float64)
            return float(loss.detach()), nothing[0], nothing
        (slope,) = torch.autograd.grad(loss, unknowns, retain_graph=True)
        blurred = self.soft.silhouette(faces)[0]
        soft = (blurred + (sharp - blurred).detach() - self.target) * self.known
        soft = soft.square().sum() / 2
        (change,) = torch.autograd.grad(soft, unknowns, create_graph=True)
        rows = [torch.autograd.grad(change[i], unknowns, retain_graph=True)[0] for i in range(6)]
        hessian = torch.stack(rows).double()
        return float(loss.detach()), slope.double(), (hessian + hessian.mT) / 2


def mismatches(drawn: Tensor, target: Tensor, known: Tensor) -> tuple[float, float]:
    """The area that drawing and mask do not share, over that of both; and of more than noise.

    Noise is three standard deviations, by the median: 0 but for a mask that has it in most pixels.
    """
    error = (drawn - target).abs()
    noise = min(3 * 1.4826 * float(error[known].median()), 0.9) if bool(known.any()) else 0.0
    found = []
    for least in (0.0, noise):
        off, shown = ((x - least).clamp(min=0) / (1 - least) for x in (error, target))
        found.append(float(off.sum() / torch.maximum(drawn, shown).sum().clamp(min=1)))
    return found[0], found[1]


def smaller(mask: Tensor, known: Tensor, size: int) -> tuple[Tensor, Tensor]:
    """A mask and where it is known, (1, H, W) each, with a shorter side of `size` at most."""
    height, width = mask.shape
    shrink = min(1.0, size / min(height, width))
    shape = max(1, round(height * shrink)), max(1, round(width * shrink))
    target, told = area_average(mask[None], shape), area_average(known[None].float(), shape)
    known = told > 0.99
    return target * known, known


def _parts(pose: Pose) -> tuple[Tensor, Tensor]:
    return pose.rotation, pose.translation


def _size(pictures: Tensor) -> tuple[int, int]:
    return pictures.shape[-2], pictures.shape[-1]


def _positive(matrix: Tensor) -> Tensor:
    values, vectors = torch.linalg.eigh(matrix)
    return product(product(vectors, torch.diag(values.abs().clamp(min=1e-9))), vectors.mT)
