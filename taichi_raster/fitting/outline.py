"""Gauss-Newton on outlines: a sharp picture that says how far each piece of its outline has to go.

A hard rasterizer's gradient sees an edge only where it already crosses the target's. Weighted by
the target's signed distance instead of by a difference of pictures, the same gradient reaches as
far as the picture does. No softness is needed for that, and no learning rate:

    distance = tr.signed_distance(target)  # (1, H, W), once
    unknowns = torch.zeros(8, 6)  # eight starts, side by side
    for _ in range(10):
        found = tr.outline_step(geometry, unknowns, draw, target, distance)
        unknowns = unknowns + found.step
    best = unknowns[found.mismatch.argmin()]

It is for few unknowns (a pose, a lens, the joints of a hand), as one system of all of them is
solved for each item. `ImageSteps` is for many, and for colours.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
import torch.autograd.forward_ad as forward_ad
from jaxtyping import Bool, Float
from torch import Tensor

from taichi_raster import checks
from taichi_raster.fitting import inputs
from taichi_raster.fitting.outline_system import system_of

Geometry = Callable[[Tensor], Tensor]
Draw = Callable[[Tensor], Tensor]

_COVERED = 0.5


@dataclass(frozen=True, eq=False)
class OutlineStep:
    """What `outline_step` found.

    Attributes:
        step: (B, K) to add to the unknowns.
        motion: (B,) how far the step moves the points by which the outline is drawn, root mean
            square, in NDC. Well below a pixel, 2 / min(H, W), nothing more will change.
        mismatch: (B,) of what was drawn before the step: the area that it does not share with the
            target over the area of both together, in [0, 1]. The mean over views.
    """

    step: Float[Tensor, "B K"]
    motion: Float[Tensor, " B"]
    mismatch: Float[Tensor, " B"]


def signed_distance(
    mask: Float[Tensor, "B H W"], known: Bool[Tensor, "B H W"] | None = None
) -> Float[Tensor, "B H W"]:
    """The distance in NDC of each pixel's centre from the mask's outline, positive inside.

    The outline is where coverage passes a half. It is right to about half a pixel. No gradient.

    Args:
        mask: (B, H, W) coverage in [0, 1].
        known: (B, H, W), False where the mask says nothing, as where something else stands before
            the object. The border of such a part is no outline: distances are to known pixels.

    Returns:
        (B, H, W), in the dtype and on the device of `mask`. Everywhere the picture's diagonal if a
        mask is full, and the negative of that if it is empty.

    Raises:
        TypeError, ValueError: unless it holds floats in [0, 1] but for noise, of shape (B, H, W).
    """
    from scipy.ndimage import distance_transform_edt  # here, as SciPy takes a while to import

    if checks.floats("mask", mask).ndim != 3 or mask.numel() == 0:
        raise ValueError(f"mask: must be (B, H, W), got {tuple(mask.shape)}")
    checks.finite("an infinite or NaN value", "mask", mask)
    inputs.picture("mask", mask)
    if known is None:
        known = torch.ones(mask.shape, dtype=torch.bool)
    _check_known(known, mask)
    height, width = mask.shape[1:]
    diagonal = (height**2 + width**2) ** 0.5

    def pixels(covered: Tensor, told: Tensor) -> Tensor:
        if bool(covered[told].all()) or not bool(covered[told].any()):
            return torch.full(covered.shape, diagonal if covered[told].any() else -diagonal)
        inside, outside = (covered & told).numpy(), (~covered & told).numpy()
        from_outside = distance_transform_edt(~outside) * covered.numpy()
        from_inside = distance_transform_edt(~inside) * ~covered.numpy()
        found = torch.from_numpy(from_outside - from_inside)
        return found - 0.5 * found.sign()

    inside = mask.detach().cpu() >= _COVERED
    found = torch.stack([pixels(*both) for both in zip(inside, known.cpu(), strict=True)])
    return (found * (2 / min(height, width))).to(mask)


def outline_step(
    geometry: Geometry,
    unknowns: Float[Tensor, "B K"],
    draw: Draw,
    target: Float[Tensor, "R H W"],
    distance: Float[Tensor, "R H W"],
    damping: float = 1e-3,
    known: Bool[Tensor, "R H W"] | None = None,
) -> OutlineStep:
    """One Gauss-Newton step that brings the drawn outline to the target's.

    With phi the target's signed distance, it ascends the integral of phi over what is drawn, which
    is largest where that is the target (Kervadec et al., "Boundary loss for highly unbalanced
    segmentation", MIDL 2019). Its derivative is phi times the motion of the outline along its
    normal; its second derivative, where phi is a distance, the square of that motion, integrated
    along the outline. The renderer's own derivatives say where the outline is: those of the area
    that is drawn are its normals times its length. Within 1.5 pixels, the difference of coverage
    stands for phi.

    Items that hardly overlap with their target are moved by their centre and size instead.

    Args:
        geometry: from unknowns (N, K), of any number of rows that do not depend on each other, to
            points (N, V, 3) in NDC, or (N views, V, 3), views of one row next to each other. Each
            vertex once, not the corners of each face.
        unknowns: (B, K), of float32 or float64.
        draw: from points (R, V, 3) to coverage (R, H, W), sharp and differentiable.
        target: (R, H, W) coverage; or (1, H, W), or (views, H, W), for all items.
        distance: its `signed_distance`.
        damping: of Levenberg and Marquardt, a share of the system's diagonal, positive.
        known: as for `signed_distance`: of the size of `target`. False where the target says
            nothing; such pixels count for nothing.

    Returns:
        The step, how far it moves, and how well what was drawn fits. An item stays where it is if
        nothing of its target is seen.

    Raises:
        TypeError, ValueError: naming the argument, for other types or shapes.

    Example:
        >>> sharp = tr.SharpRasterizer(64, cull_backfaces=True)
        >>> def draw(points):
        ...     return sharp(tr.gather_faces(points, faces), None)[..., 0]
    """
    _check(unknowns, target, distance)
    damping = checks.positive("damping", damping)
    points, motions = _motions(geometry, unknowns.detach())
    goal, phi = (
        _for_rows(name, x, points) for name, x in (("target", target), ("distance", distance))
    )
    points.requires_grad_()
    with torch.enable_grad():
        picture = draw(points)
    checks.floats("draw: what it returned", picture)
    if picture.shape != goal.shape:
        raise ValueError(
            f"draw: must return coverage {tuple(goal.shape)}, got {tuple(picture.shape)}"
        )
    if known is not None:
        _check_known(known, target)
        told = _for_rows("known", known, points)
        with torch.enable_grad():
            picture = picture * told
        goal = goal * told
    by_item = motions.unflatten(1, (len(unknowns), -1)).flatten(2, 3).transpose(0, 1)
    step, motion = system_of(picture, points, goal, phi, by_item).step(by_item, damping)
    mismatch = _mismatch(picture.detach(), goal).reshape(len(unknowns), -1).mean(dim=1)
    return OutlineStep(step, motion, mismatch)


def _mismatch(drawn: Tensor, goal: Tensor) -> Float[Tensor, " R"]:
    whole = torch.maximum(drawn, goal).sum((1, 2))
    return (drawn - goal).abs().sum((1, 2)) / torch.where(whole > 0, whole, 1.0)


def _motions(geometry: Geometry, unknowns: Tensor) -> tuple[Tensor, Tensor]:
    """Points (R, V, 3), and their motions in x and y by each unknown, (K, R, V, 2)."""
    batch, count = unknowns.shape
    each = torch.eye(count).to(unknowns).repeat_interleave(batch, dim=0)
    with torch.no_grad(), forward_ad.dual_level():
        seen = geometry(forward_ad.make_dual(unknowns.repeat(count, 1), each))
        points, motions = forward_ad.unpack_dual(seen)
    if points.ndim != 3 or points.shape[2] != 3 or len(points) % (count * batch):
        raise ValueError(
            f"geometry: must return points (N, V, 3) or (N views, V, 3) for unknowns (N, K), got "
            f"{tuple(points.shape)} for {(count * batch, count)}"
        )
    if motions is None:
        raise ValueError("geometry: does not depend on the unknowns by anything differentiable")
    rows = len(points) // count
    return points[:rows].clone(), motions[..., :2].unflatten(0, (count, rows))


def _check_known(known: Tensor, like: Tensor) -> None:
    if not isinstance(known, Tensor) or known.dtype != torch.bool:
        raise TypeError("known: must be a tensor of bool")
    if known.shape != like.shape:
        raise ValueError(f"known: must be {tuple(like.shape)}, got {tuple(known.shape)}")


def _check(unknowns: Tensor, target: Tensor, distance: Tensor) -> None:
    if checks.floats("unknowns", unknowns).ndim != 2 or unknowns.numel() == 0:
        raise ValueError(f"unknowns: must be (B, K), got {tuple(unknowns.shape)}")
    if checks.floats("target", target).ndim != 3 or target.numel() == 0:
        raise ValueError(f"target: must be (R, H, W), got {tuple(target.shape)}")
    if checks.floats("distance", distance).shape != target.shape:
        raise ValueError(
            f"distance: must be (R, H, W), as target {tuple(target.shape)}, "
            f"got {tuple(distance.shape)}"
        )


def _for_rows(name: str, pictures: Tensor, points: Tensor) -> Tensor:
    rows = len(points)
    if rows % len(pictures):
        raise ValueError(
            f"{name}: {len(pictures)} rows are not a divisor of the {rows} that geometry returned"
        )
    return pictures.repeat(rows // len(pictures), 1, 1).to(points)
