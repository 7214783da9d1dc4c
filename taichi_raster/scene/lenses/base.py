"""Lenses: how a real one bends the ideal picture of a pinhole, and back.

A lens maps points of the plane at distance 1 before the eye, (x, y) = (X/Z, Y/Z), to where it shows
them in that plane. As in OpenCV, whose coefficients are taken as they are, x is right and y *down*;
cameras, whose y is up, take care of that.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, TypeVar

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from taichi_raster import checks
from taichi_raster.scene.movable import Movable

WIDEST = 100.0
"""No lens reaches farther from the axis than this: 89.4 degrees."""

MARGIN = 0.99
"""The share of the way to the fold that is used: on the fold itself the inverse has no slope."""

_STEPS = 60
"""Newton's, at most. Six do for most lenses; near a fold each step halves the error.

The Jacobian is symmetric and positive within the radius: a lens is the gradient of a convex
function, so that damped steps come to the solution.
"""


_L = TypeVar("_L", bound="Lens")


@dataclass(frozen=True, eq=False)
class Lens(Movable):
    """The base of lenses: a radial factor, and for some a tangential shift.

    The polynomials of lenses fold back far from the axis, outside of the image that they were
    measured in. `radius` says up to where a lens is one-to-one.
    """

    @property
    def batch_size(self) -> int:
        """How many lenses these are: 1, or B."""
        return len(self.rows())

    @property
    def radius(self) -> Float[Tensor, " B"]:
        """The tangent of the angle from the axis up to which the lens is valid, (1,) or (B,).

        It is 99% of the way to the nearest fold, where two rays would meet in one point, and at
        most 100. `Camera.project_faces` cuts faces there.
        """
        rows = self.rows()
        found = [_radius(self._fold, tuple(row)) for row in rows.detach().cpu().double().tolist()]
        return torch.tensor(found, dtype=rows.dtype, device=rows.device)

    def distort(self, points: Float[Tensor, "B *n 2"]) -> Float[Tensor, "B *n 2"]:
        """Where the lens shows points of the plane at distance 1; x right, y down.

        Beyond `radius`, they move on outwards in proportion: nothing folds back. Twice
        differentiable in the points and in the coefficients.

        Args:
            points: (B, ..., 2), or a batch of 1 for the coefficients of B lenses.

        Raises:
            ValueError: for another shape.
        """
        points = self._checked(points)
        length = points.square().sum(-1, keepdim=True)
        limit = self.radius.to(points).reshape(-1, *[1] * (points.ndim - 1))
        outside = length > limit.square()
        # The double `where` keeps the root's slope finite on the axis.
        stretch = torch.where(outside, torch.where(outside, length, 1.0).sqrt() / limit, 1.0)
        return stretch * self._bend(points / stretch)

    def undistort(self, points: Float[Tensor, "B *n 2"]) -> Float[Tensor, "B *n 2"]:
        """The inverse of `distort`: NaN where no ray within `radius` arrives.

        Newton's method in double precision; derivatives are those of the implicit function, to
        second order.

        Args:
            points: (B, ..., 2), or a batch of 1 for the coefficients of B lenses.

        Raises:
            ValueError: for another shape.
        """
        points = self._checked(points)
        start, found = self._solve(points.detach())
        target = torch.where(found, points, torch.zeros_like(points))
        # The first of these steps makes first derivatives exact, the other those up to third order.
        near = self._newton(self._newton(start.to(points), target), target)
        return torch.where(found, near, torch.full_like(near, torch.nan))

    def _checked(self, points: Tensor) -> Tensor:
        checks.floats("points", points)
        batch = self.batch_size
        if points.ndim < 2 or points.shape[-1] != 2:
            raise ValueError(f"points: must be (B, ..., 2), got {tuple(points.shape)}")
        if batch != 1 and len(points) not in (1, batch):
            raise ValueError(
                f"points: batch must be 1 or that of the lenses, {batch}, got {len(points)}"
            )
        return points if len(points) >= batch else points.expand(batch, *points.shape[1:])

    @torch.no_grad()
    def _solve(self, points: Tensor) -> tuple[Tensor, Tensor]:
        """(solution, whether there is one within the radius), both (B, ..., 2)."""
        rows = self.rows().to(points.device, torch.float64)
        flat = points.double().flatten(1, -2)
        found = [
            self.of_rows(rows[i if len(rows) > 1 else 0])._solve_one(each)
            for i, each in enumerate(flat)
        ]
        guess, solved = (
            torch.stack(parts).view(points.shape) for parts in zip(*found, strict=True)
        )
        return guess, solved

    def _solve_one(self, target: Tensor) -> tuple[Tensor, Tensor]:
        """Damped steps for points (N, 2), each until it is there or gets nowhere."""
        limit = self.radius

        def within(points: Tensor) -> Tensor:
            length = points.norm(dim=-1, keepdim=True).clamp_min(1e-30)
            found: Tensor = points * (limit / length).clamp_max(1)
            return found

        def error_of(points: Tensor, target: Tensor) -> Tensor:
            error: Tensor = (self._bend(points[None])[0] - target).norm(dim=-1, keepdim=True)
            return error

        solution = within(target)
        left = self._reaches(target).nonzero()[:, 0]
        guess, wanted = solution[left], target[left]
        error = error_of(guess, wanted)
        share = torch.ones_like(error)  # of Newton's step, halved where it leads nowhere
        for _ in range(_STEPS):
            step = self._newton(guess[None], wanted[None])[0] - guess
            tried = within(guess + share * step)
            found = error_of(tried, wanted)
            better = found < error
            moved = (tried - guess).abs() > 1e-13 * (1 + guess.abs())
            guess, error = torch.where(better, tried, guess), torch.where(better, found, error)
            share = torch.where(better, (2 * share).clamp_max(1), share / 2)
            solution[left] = guess
            going = moved.any(-1) & (share > 1e-4)[..., 0]
            if not bool(going.any()):
                break
            left, guess, wanted = left[going], guess[going], wanted[going]
            error, share = error[going], share[going]
        solved = error_of(solution, target) <= 1e-9 * (1 + target.norm(dim=-1, keepdim=True))
        return torch.where(solved, solution, 0.0), solved.expand(target.shape)

    def _reaches(self, target: Tensor) -> Tensor:
        """Which points (N, 2) lie within the lens's border, or so close that it must be tried."""
        turn = torch.linspace(0, 2 * np.pi, 721, dtype=target.dtype, device=target.device)[:-1]
        circle = self.radius * torch.stack([turn.cos(), turn.sin()], dim=-1)
        x, y = self._bend(circle[None])[0].cpu().numpy().T
        u, v = target.cpu().numpy().T
        border = np.interp(np.arctan2(v, u), np.arctan2(y, x), np.hypot(x, y), period=2 * np.pi)
        return torch.tensor(np.hypot(u, v) < 1.001 * border, device=target.device)

    def _newton(self, guess: Tensor, target: Tensor) -> Tensor:
        """One step from `guess` towards the point that is shown at `target`."""
        a, b, c, d = self._slopes(guess)
        x, y = (self._bend(guess) - target).unbind(-1)
        return guess - torch.stack([d * x - b * y, a * y - c * x], -1) / (a * d - b * c)[..., None]

    def _bend(self, points: Tensor) -> Tensor:
        """`distort` within the radius."""
        factor, _ = self._factor(points.square().sum(-1))
        bent = factor[..., None] * points
        p1, p2 = self._tangential(points)
        if p1 is None or p2 is None:
            return bent
        x, y = points.unbind(-1)
        r2 = x * x + y * y
        dx = 2 * p1 * x * y + p2 * (r2 + 2 * x * x)
        dy = p1 * (r2 + 2 * y * y) + 2 * p2 * x * y
        return bent + torch.stack([dx, dy], dim=-1)

    def _slopes(self, points: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """The Jacobian of `_bend`, by rows."""
        x, y = points.unbind(-1)
        factor, slope = self._factor(x * x + y * y)
        xx, yy, xy = (factor + 2 * slope * x * x), (factor + 2 * slope * y * y), 2 * slope * x * y
        p1, p2 = self._tangential(points)
        if p1 is not None and p2 is not None:
            xx, yy = xx + 2 * p1 * y + 6 * p2 * x, yy + 6 * p1 * y + 2 * p2 * x
            xy = xy + 2 * p1 * x + 2 * p2 * y
        return xx, xy, xy, yy

    def _columns(self, points: Tensor) -> list[Tensor]:
        """The coefficients, each to combine with the x of points."""
        rows = self.rows().to(points)
        return [c.reshape(-1, *[1] * (points.ndim - 2)) for c in rows.unbind(-1)]

    def rows(self) -> Tensor:
        """The coefficients, (1, n) or (B, n)."""
        raise NotImplementedError

    def of_rows(self: _L, rows: Tensor) -> _L:
        """A lens of these coefficients."""
        raise NotImplementedError

    def _factor(self, r2: Tensor) -> tuple[Tensor, Tensor]:
        """What points at a squared radius are multiplied by, and its slope in that square."""
        raise NotImplementedError

    def _tangential(self, points: Tensor) -> tuple[Tensor | None, Tensor | None]:
        """p1 and p2, to combine with the x of points."""
        return None, None

    @staticmethod
    def _fold(row: np.ndarray) -> float:
        """99% of the radius at which a lens of these coefficients first stops being one-to-one."""
        raise NotImplementedError


@lru_cache(maxsize=256)
def _radius(fold: Callable[[np.ndarray], float], row: tuple[float, ...]) -> float:
    """Kept, as its roots would be found anew in every projection."""
    return min(fold(np.array(row)), WIDEST)


def first_root(polynomial: np.ndarray) -> float:
    """The smallest positive root of a polynomial with a constant term of 1; infinity if none."""
    powers = np.arange(len(polynomial))[::-1]
    negligible = np.abs(polynomial) * WIDEST**powers < 1e-12  # np.roots divides by the first
    roots = np.roots(np.where(negligible, 0.0, polynomial))
    real = roots.real[(np.abs(roots.imag) < 1e-9 * np.abs(roots)) & (roots.real > 0)]
    return float(real.min()) if len(real) else np.inf


def numbers(name: str, value: Any) -> Tensor:
    """Coefficients as (1, n) or (B, n); numbers of Python's in double precision."""
    dtype = None if isinstance(value, Tensor) else torch.float64
    found = checks.array(name, value, dtype)
    return found[None] if found.ndim == 1 else found


def check_coefficients(name: str, value: Any, least: int, most: int) -> None:
    """ValueError unless these are finite coefficients, from `least` to `most` of them."""
    found = numbers(name, value)
    if found.ndim != 2 or not least <= found.shape[-1] <= most:
        number = f"{least}" if least == most else f"{least} to {most}"
        raise ValueError(
            f"{name}: must have {number} coefficients, (n,) or (B, n), got shape "
            f"{tuple(checks.array(name, value).shape)}"
        )
    checks.finite("an infinite or NaN coefficient", name, found)
