"""The pose of a textured object by its picture: Gauss-Newton on colours, coarse to fine.

Lucas and Kanade's alignment (IJCAI 1981) of a rendered picture with a photo, over the six unknowns
of a pose, with the mean of both pictures' gradients (Benhimane and Malis, IROS 2004).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from taichi_raster.fitting.point_motions import point_motions
from taichi_raster.fitting.pose_problem import Problem
from taichi_raster.fitting.texture_pixels import barycentrics
from taichi_raster.render.hard import visible_faces
from taichi_raster.render.packing import View
from taichi_raster.render.sampled import sampled_picture
from taichi_raster.runtime.precision import product
from taichi_raster.scene.attributes import SurfaceTexture, UVTexture
from taichi_raster.scene.faces import gather_faces
from taichi_raster.scene.mesh import Mesh
from taichi_raster.scene.pose import Pose
from taichi_raster.scene.resampling import area_average

SIZES = (24, 48, 96, 192, 384)
"""The shorter side of the pictures, in pixels, as far as the photo has so many."""

STEPS = 12
"""At each size, at most."""

WIDTH = 0.1
"""Of the robust weights (Cauchy), in units of the photo's colours, at least."""

LEAST = 12
"""Pixels of the object that a step needs."""

ROUNDS, SETTLED = 40, 1e-3
"""Of weighted least squares for exposures, at most; and the change of a gain that ends them."""

SAMPLE = 8000
"""Pixels of which exposures are found."""


@dataclass(frozen=True, eq=False)
class Aligned:
    """A pose, its system of equations, and how well colours agree.

    Attributes:
        pose: of the mesh in units of its size, about its centre.
        hessian: (6, 6) of half the weighted sum of squares, without exposures.
        variance: of the colours' differences.
        correlation: of rendered and photographed colours, by robust weights, in [-1, 1].
        motion: of the last step, in pixels.
    """

    pose: Pose
    hessian: Float[Tensor, "6 6"]
    variance: float
    correlation: float
    motion: float


def aligned(
    problem: Problem,
    mesh: Mesh,
    photo: Float[Tensor, "H W 3"],
    start: Pose,
    known: Bool[Tensor, "H W"] | None = None,
    sizes: Sequence[int] = SIZES,
    steps: int = STEPS,
) -> Aligned:
    """Align a textured mesh with a photo, from a pose in the problem's units.

    Photo and rendering may differ by a gain and an offset of each channel. Pixels that disagree, as
    where something stands before the object, count less; those that are not `known`, not at all.
    """
    short = min(photo.shape[:2])
    sizes = [size for size in sizes if size <= short] or [short]
    found = Aligned(start, torch.eye(6, dtype=torch.float64), 1.0, -1.0, torch.inf)
    for size in sizes:
        shrink = size / short
        smaller = round(photo.shape[0] * shrink), round(photo.shape[1] * shrink)
        level = area_average(photo[None].float(), smaller)[0]
        told = None
        if known is not None:
            told = area_average(known[None].float(), smaller)[0] > 0.99
        found = _at_size(problem, mesh, level, found.pose, told, steps)
    return found


def _at_size(
    problem: Problem, mesh: Mesh, photo: Tensor, pose: Pose, known: Tensor | None, steps: int
) -> Aligned:
    best: Aligned | None = None
    tried, cost, damping = pose, torch.inf, 1e-3
    height, width = photo.shape[:2]
    for _ in range(steps):
        system = _system(problem, mesh, photo, tried, known)
        if system is None:
            break
        if best is not None and system.cost > cost:
            damping *= 10
        else:
            motion = (
                torch.inf if best is None else _motion(problem, best.pose, tried, (height, width))
            )
            cost, damping = system.cost, max(damping / 5, 1e-6)
            best = Aligned(tried, system.hessian, system.variance, system.correlation, motion)
            kept = system
            if motion < 0.02:
                break
        matrix = kept.hessian + damping * torch.diag(kept.hessian.diagonal().clamp(min=1e-12))
        step = -torch.linalg.lstsq(matrix, kept.slope[:, None]).solution[:, 0]
        if damping > 1e4:
            break
        tried = best.pose.moved(step.clamp(-0.3, 0.3)[None])
    return best or Aligned(pose, torch.eye(6, dtype=torch.float64), 1.0, -1.0, torch.inf)


def _motion(problem: Problem, one: Pose, two: Pose, size: tuple[int, int]) -> float:
    change = problem.points(one, problem.mesh) - problem.points(two, problem.mesh)
    return float(change[..., :2].square().sum(-1).mean().sqrt()) * min(size) / 2


@dataclass(frozen=True, eq=False)
class _System:
    hessian: Tensor
    slope: Tensor
    cost: float
    variance: float
    correlation: float


def _system(
    problem: Problem, mesh: Mesh, photo: Tensor, pose: Pose, known: Tensor | None
) -> _System | None:
    """The normal equations of the pose, exposures eliminated; None if too little is seen."""
    size = photo.shape[0], photo.shape[1]
    points = problem.points(pose, mesh)
    near, far = problem.depths(pose)
    corners = gather_faces(points.float(), mesh.faces)
    if not bool((corners[..., 2] > near).all(-1).any()):
        return None
    shown = sampled_picture(corners, appearance(mesh), size, 2, near=near, far=far)[0]
    colour, alpha = shown[..., :3], shown[..., 3]
    whole = alpha > 0.999
    whole = ~torch.nn.functional.max_pool2d((~whole)[None, None].float(), 3, 1, 1)[0, 0].bool()
    seen = visible_faces(corners, View(*size, near, far, False, "ccw", False))[0]
    whole &= seen >= 0
    if known is not None:
        whole &= known
    if int(whole.sum()) < LEAST:
        return None
    row, column = whole.nonzero().unbind(1)
    face = seen[whole]
    weights = barycentrics(corners[0][face].double().numpy(), row.numpy(), column.numpy(), *size)
    motions = _motions(problem, mesh, pose, face, torch.from_numpy(weights))
    # Along columns and, downwards, along rows, in pixels.
    half = min(size) / 2
    along = torch.stack([motions[..., 0] * half, -motions[..., 1] * half], dim=-1)  # (6, n, 2)
    ours, theirs = colour[row, column].double(), photo[row, column].double()
    gains, offsets = exposure(ours, theirs)
    gradient = 0.5 * (gradient_of(photo) + gradient_of(colour) * gains.float())[:, row, column]
    error = theirs - (gains * ours + offsets)  # (n, 3)
    spread = 1.4826 * float(error.abs().median())
    trust = 1 / (1 + (error / max(2 * spread, WIDTH * 0.2)).square())
    slopes = -(along[..., 0, None] * gradient[0] + along[..., 1, None] * gradient[1]).double()
    # What gains and offsets could do as well is no sign of motion.
    rows = []
    for channel in range(3):
        weight = trust[:, channel]
        basis = torch.stack([ours[:, channel], torch.ones_like(weight)], dim=1)
        normal = product(basis.mT, weight[:, None] * basis)
        normal = normal + 1e-9 * torch.eye(2, dtype=torch.float64)
        share = torch.linalg.solve(
            normal, product(basis.mT, weight[:, None] * slopes[..., channel].mT)
        )
        rows.append(slopes[..., channel] - product(basis, share).mT)
    left = torch.stack(rows, dim=-1)  # (6, n, 3)
    weighted = left * trust
    flat, other = weighted.flatten(1), left.flatten(1)
    hessian = product(flat, other.mT)
    slope = -product(flat, error.flatten()[:, None])[:, 0]
    count = float(trust.sum())
    width = max(2 * spread, WIDTH * 0.2)
    cost = float((width**2 * torch.log1p((error / width).square())).mean())
    variance = float((trust * error.square()).sum()) / max(count - 12, 1.0)
    share = trust / trust.sum(0)
    one, two = (x - (share * x).sum(0) for x in (ours, theirs))
    norm = ((trust * one.square()).sum() * (trust * two.square()).sum()).sqrt()
    correlation = float((trust * one * two).sum() / norm.clamp(min=1e-12))
    return _System(hessian, slope, cost, variance, correlation)


def appearance(mesh: Mesh) -> Tensor | SurfaceTexture | UVTexture:
    """A mesh's texture, mipmapped, or its colours."""
    if mesh.uv is not None and mesh.texture is not None:
        index = mesh.faces if mesh.uv_faces is None else mesh.uv_faces
        image = mesh.texture.float()
        image = image[..., :3].expand(*image.shape[:2], 3)[None]
        uv = gather_faces(mesh.uv[None].float(), index)
        return UVTexture(uv, image, wrap=mesh.wrap, filter="trilinear")
    assert mesh.colours is not None
    index = mesh.faces if mesh.colour_faces is None else mesh.colour_faces
    colours = mesh.colours.float()
    return gather_faces(colours[None, :, :3].expand(1, -1, 3), index)


def _motions(
    problem: Problem, mesh: Mesh, pose: Pose, face: Tensor, at_corners: Tensor
) -> Float[Tensor, "6 n 2"]:
    """How surface points move in the picture by each unknown, in NDC."""
    corners = problem.points(pose, mesh)[0][mesh.faces[face]]  # (n, 3, 3)
    weights = at_corners / corners[..., 2].double()
    weights = (weights / weights.sum(-1, keepdim=True)).to(mesh.vertices.dtype)
    at = (weights[..., None] * mesh.vertices[mesh.faces[face]]).sum(1)

    def view(unknowns: Tensor) -> Tensor:
        rows = len(unknowns)
        many = Pose(pose.rotation.expand(rows, 3, 3), pose.translation.expand(rows, 3))
        return many.moved(unknowns).view

    return point_motions(problem.camera, view, at, 6)[..., :2]


def gradient_of(picture: Float[Tensor, "H W 3"]) -> Float[Tensor, "2 H W 3"]:
    """Central differences along columns and along rows."""
    padded = torch.nn.functional.pad(
        picture.permute(2, 0, 1)[None], (1, 1, 1, 1), mode="replicate"
    )[0]
    across = (padded[:, 1:-1, 2:] - padded[:, 1:-1, :-2]) / 2
    down = (padded[:, 2:, 1:-1] - padded[:, :-2, 1:-1]) / 2
    return torch.stack([across, down]).permute(0, 2, 3, 1)


def exposure(ours: Tensor, theirs: Tensor) -> tuple[Tensor, Tensor]:
    """(gains, offsets) of each channel, robustly: weighted least squares, to its end."""
    some = some_of(ours)
    ours, theirs = ours[some], theirs[some]
    weight = torch.ones_like(ours)
    gains, offsets = torch.ones(3).double(), torch.zeros(3).double()
    for _ in range(ROUNDS):
        before = gains
        total = weight.sum(0)
        mean_one, mean_two = (weight * ours).sum(0) / total, (weight * theirs).sum(0) / total
        variance = (weight * (ours - mean_one).square()).sum(0)
        gains = (weight * (ours - mean_one) * (theirs - mean_two)).sum(0) / variance.clamp(min=1e-9)
        gains = gains.clamp(0.1, 10)
        offsets = mean_two - gains * mean_one
        error = theirs - gains * ours - offsets
        width = (3 * error.abs().median(dim=0).values).clamp(min=0.02)
        weight = 1 / (1 + (error / width).square())
        if float((gains - before).abs().max()) < SETTLED:
            break
    return gains, offsets


def some_of(pixels: Float[Tensor, "n 3"]) -> slice:
    """About as many of them as say what the exposure is."""
    return slice(None, None, max(1, len(pixels) // SAMPLE))
