"""Tabulates an edge softness, which makes any smooth one about as cheap as the logistic."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from taichi_raster.runtime import transforms
from taichi_raster.runtime.variant import EdgeVariant, Table
from taichi_raster.softness.distributions.formulas import formulas_at
from taichi_raster.softness.edge import Distribution, EdgeSoftness, EdgeState
from taichi_raster.softness.mlp import MLPSoftness
from taichi_raster.softness.network_torch import network_logit_and_slope
from taichi_raster.softness.schedule import Schedule, as_progress


class TabulatedSoftness(EdgeSoftness):
    """Evaluates an edge softness F = sigmoid(u(x)) by cubic Hermite interpolation of its logit u.

    The knots are dense around x = 0, and farther apart farther out, up to
    |x| = width * (2^octaves - 1). Beyond, the logit continues along its tangent. Torch computes the
    values and slopes at the knots at each call. So first and second derivatives flow through them
    to the weights and progress weights of an `MLPSoftness`.

    In a cell of size h, with a fourth derivative of the logit of at most M, the error of the logit
    is at most h^4 M / 384, that of its slope sqrt(3) h^3 M / 216, and that of its curvature
    h^2 M / 12 (Birkhoff and Priver, *Hermite interpolation errors for derivatives*, 1967).

    Args:
        edge: an `MLPSoftness`, or a `Distribution` with F strictly between 0 and 1 everywhere, not
            squared: "logistic", "gaussian", "laplace", "gudermannian", "cauchy" or "reciprocal",
            for example. A distribution's shift becomes part of the table, without gradient.
        width: size of the first octave, in units of the edge's scale, positive.
        octaves: how many there are, 1 to 20; each is twice as wide as the one before.
        subdivision: each octave has 2^subdivision cells, 0 to 10.

    Raises:
        TypeError: for another kind of softness.
        ValueError: for a distribution that reaches 0 or 1, or sizes out of range.

    Example:
        >>> edge = tabulate(MLPSoftness(scale=0.02))
    """

    _fixed: Tensor | None

    def __init__(
        self, edge: EdgeSoftness, width: float = 0.5, octaves: int = 10, subdivision: int = 5
    ) -> None:
        super().__init__()
        if not isinstance(edge, MLPSoftness | Distribution):
            raise TypeError(
                f"edge: expected an MLPSoftness or a Distribution, got {type(edge).__name__}"
            )
        if isinstance(edge, Distribution) and edge.squared:
            raise ValueError("edge: a squared distribution cannot be tabulated")
        if not 0 < width < math.inf:
            raise ValueError(f"width: expected a positive number, got {width}")
        for name, value, least, most in (
            ("octaves", octaves, 1, 20),
            ("subdivision", subdivision, 0, 10),
        ):
            if type(value) is not int or not least <= value <= most:
                raise ValueError(
                    f"{name}: expected a whole number from {least} to {most}, got {value}"
                )
        self.edge = edge
        self.table = Table(float(width), octaves, subdivision)
        self.variant = EdgeVariant("logistic", self.table)
        self._kept: tuple[Tensor, Tensor] | None = None  # weights, and the table of these
        self._kept_reach: tuple[Tensor, float, Tensor] | None = None  # table, threshold, reach
        # A buffer, so that it moves with the module. It is not saved: the edge determines it.
        fixed = self._of_distribution(edge) if isinstance(edge, Distribution) else None
        self.register_buffer("_fixed", fixed, persistent=False)

    @property
    def scale(self) -> Schedule:  # type: ignore[override]
        """The scale of the original."""
        return self.edge.scale

    @property
    def positions(self) -> Tensor:
        """(K,) |x| at the knots, ascending, on the device of the original's parameters."""
        made_of = self._fixed if isinstance(self.edge, Distribution) else self.edge.weights
        assert made_of is not None
        return self._positions(made_of.device)

    def _positions(self, device: torch.device) -> Tensor:
        t = self.table
        cells = torch.arange(t.knots, dtype=torch.float64, device=device) / 2**t.subdivision
        octave = cells.floor()
        return t.width * (2**octave * (1 + cells - octave) - 1)

    def at(self, u: Tensor, threshold: float) -> EdgeState:
        scale, cells = self.scale(u), self.cells(u)
        one = torch.ones_like(scale)
        return EdgeState(scale, one, 0 * one, cells, self._reach(cells, scale, threshold))

    def cells(self, u: Tensor) -> Tensor:
        """The polynomials at progress `u`, (8 K,) or (B, 8 K), as `Table` lays them out."""
        if self._fixed is not None:
            return self._fixed
        assert isinstance(self.edge, MLPSoftness)
        weights = self.edge.weights_at(u)
        wanted = torch.is_grad_enabled() or not weights.requires_grad
        if transforms.has_derivatives(weights) and wanted:
            return self._of_network(self.edge, weights)
        kept = self._kept  # other threads may replace it meanwhile
        if kept is None or not _same(kept[0], weights):
            weights = weights.detach().clone()
            kept = self._kept = weights, self._of_network(self.edge, weights)
        return kept[1]

    def value(self, d: Tensor, progress: float | None = None) -> Tensor:
        """F of the table, not of the original, at signed distances `d` in NDC; no derivatives."""
        u = as_progress(progress, 1)
        d = torch.as_tensor(d, dtype=torch.float64)
        return torch.sigmoid(self.logit(d / self.scale(u).detach().to(d.device), progress)[0])

    def logit(self, x: Tensor, progress: float | None = None) -> tuple[Tensor, Tensor, Tensor]:
        """The interpolated logit, its slope and curvature at scaled distances `x`, any shape."""
        cells = self.cells(as_progress(progress, 1)).detach()
        cells = cells.to(x.device, torch.float64).view(2, -1, 4)
        side, size, knots = (x < 0).long(), x.abs(), self._positions(x.device)
        cell = torch.searchsorted(knots, size.contiguous(), right=True) - 1
        c0, c1, c2, c3 = cells[side, cell].unbind(-1)
        t = size - knots[cell]
        value = c0 + t * (c1 + t * (c2 + t * c3))
        slope = (c1 + t * (2 * c2 + 3 * c3 * t)) * torch.where(x < 0, -1.0, 1.0)
        return value, slope, 2 * c2 + 6 * c3 * t

    def _reach(self, cells: Tensor, scale: Tensor, threshold: float) -> float:
        """`EdgeState.reach` of the table, not of the original."""
        if threshold <= 0:
            return math.inf
        if transforms.has_derivatives(cells):  # new at each call; keeping it would keep its graph
            return _largest(self._scaled_reach(cells.detach(), threshold), scale)
        kept = self._kept_reach
        if kept is None or kept[0] is not cells or kept[1] != threshold:
            reach = self._scaled_reach(cells.detach(), threshold)
            kept = self._kept_reach = cells, threshold, reach
        return _largest(kept[2], scale)

    def _scaled_reach(self, cells: Tensor, threshold: float) -> Tensor:
        """|x| outside beyond which F is at most `threshold`, 0-d or (B,).

        It comes from bounds of the cells: a cubic is at most its largest Bernstein coefficient.
        """
        c0, c1, c2, c3 = cells.to(torch.float64).unflatten(-1, (2, -1, 4))[..., 1, :, :].unbind(-1)
        knots = self._positions(c0.device)
        h = torch.cat(
            [knots.diff(), knots.new_zeros(1)]
        )  # the last cell, a half-line, is treated below
        middle = c0 + c1 * h / 3
        bounds = torch.stack(
            [c0, middle, middle + (c1 + c2 * h) * h / 3, c0 + h * (c1 + h * (c2 + h * c3))]
        )
        least = math.log(threshold / (1 - threshold)) if threshold < 1 else math.inf
        live = bounds.amax(dim=0) > least - 1e-4  # a margin for rounding in the kernels
        place = torch.arange(1, len(knots) + 1, device=live.device) * live
        ends = torch.cat([knots.new_zeros(1), knots[1:], knots.new_full((1,), math.inf)])
        last = place.amax(dim=-1)
        reach = ends[last.reshape(-1)].view(last.shape)  # a 0-d index would make the host wait
        return torch.where(c1[..., -1] > 0, math.inf, reach)

    def _both_sides(self, device: torch.device) -> Tensor:
        knots = self._positions(device)
        return torch.cat([knots, -knots])

    def _of_network(self, edge: MLPSoftness, weights: Tensor) -> Tensor:
        x = self._both_sides(weights.device).expand(*weights.shape[:-1], -1)
        return self._polynomials(*network_logit_and_slope(edge.network, weights, x))

    def _of_distribution(self, edge: Distribution) -> Tensor:
        if edge.formulas.shaped:
            raise ValueError(f"edge: {edge.distribution!r} reaches 0 or 1: it cannot be tabulated")
        shift, first = (edge.shift(as_progress(u, 1)).detach() for u in (None, 0.0))
        if not torch.equal(shift, first):
            raise ValueError("edge: a table has one shift, not one that follows progress")
        if shift.numel() != 1:
            raise ValueError("edge: a table has one shift, not one for each batch item")
        sign = -1 if edge.formulas.mirrored else 1
        x = self._both_sides(shift.device) + sign * shift.reshape(())
        found = formulas_at(edge.distribution, x).to(torch.float64)
        rows = found.shape[0] // 3
        values, slopes = found[rows] - found[2 * rows], found[rows + 1] - found[2 * rows + 1]
        if not bool(torch.isfinite(values).all()) or float(values.abs().max()) > 1e20:
            raise ValueError(
                f"edge: {edge.distribution!r} reaches 0 or 1, so that its logit is infinite; only "
                "distributions with F strictly between 0 and 1 can be tabulated"
            )
        return self._polynomials(values, slopes)

    def _polynomials(self, values: Tensor, slopes: Tensor) -> Tensor:
        """The cells' polynomials, from the logit's values and slopes at `_both_sides()`."""
        h = self._positions(values.device).diff()
        half = values.shape[-1] // 2
        p = values.unflatten(-1, (2, half))
        m = torch.stack([slopes[..., :half], -slopes[..., half:]], -2)
        rise, first, last = p.diff() / h, m[..., :-1], m[..., 1:]
        c2 = (3 * rise - 2 * first - last) / h
        c3 = (first + last - 2 * rise) / h**2
        zero = torch.zeros_like(p[..., :1])
        c2, c3 = torch.cat([c2, zero], -1), torch.cat([c3, zero], -1)
        return torch.stack([p, m, c2, c3], -1).flatten(-3)

    def extra_repr(self) -> str:
        return f"{self.table}"


def _largest(reach: Tensor, scale: Tensor) -> float:
    """The largest reach in NDC; the scale may be on another device than the table."""
    return float((reach * scale.detach().to(reach.device)).max())


def _same(a: Tensor, b: Tensor) -> bool:
    return a.shape == b.shape and a.dtype == b.dtype and a.device == b.device and torch.equal(a, b)


def tabulate(
    edge: EdgeSoftness, width: float = 0.5, octaves: int = 10, subdivision: int = 5
) -> TabulatedSoftness:
    """A table of `edge`, for faster renders.

    Args:
        edge, width, octaves, subdivision: as for `TabulatedSoftness`.

    Raises:
        TypeError, ValueError: as `TabulatedSoftness`.

    Example:
        >>> renderer = SoftRasterizer(256, edge=tabulate(MLPSoftness(scale=0.02)))
    """
    return TabulatedSoftness(edge, width, octaves, subdivision)
