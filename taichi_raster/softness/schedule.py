"""Schedules: values that depend on the progress u of an optimisation, from 0 (start) to 1 (end).

A scale, a gamma or a learning rate is a number, a tensor, or a schedule. Progress is a number or a
0-d tensor for all batch items, or a tensor (B,) with one for each.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from jaxtyping import Float
from torch import Tensor, nn

from taichi_raster import checks
from taichi_raster.softness import parameters


class Schedule(nn.Module):
    """The base class of schedules: a value as a function of progress.

    ``schedule(u)`` takes progress in [0, 1], 0-d or (B,), and returns values of shape 0-d or (B,).
    To write your own, override `forward`.
    """

    def forward(self, u: Tensor) -> Tensor:
        """The value at progress `u`."""
        raise NotImplementedError


class Constant(Schedule):
    """Has the same value at any progress.

    Args:
        value: a positive number or tensor, 0-d or (B,). An `nn.Parameter` is registered. Another
            tensor is kept by reference, never detached, as a buffer outside the state dict.

    Raises:
        TypeError: for a value of another type.
        ValueError: for a value that is not positive and finite, or of another shape.
    """

    value: Tensor

    def __init__(self, value: float | Tensor) -> None:
        super().__init__()
        register_tensor(self, "value", _as_value("value", value))

    def forward(self, u: Tensor) -> Tensor:
        return self.value

    def extra_repr(self) -> str:
        return f"value={self.value.tolist()}"


class Geometric(Schedule):
    """Anneals at a constant ratio: ``start * (end / start) ** u``.

    Args:
        start, end: positive numbers or tensors, 0-d or (B,), as for `Constant`.

    Raises:
        TypeError, ValueError: as `Constant`.

    Example:
        >>> edge = Distribution("logistic", scale=Geometric(0.16, 0.01))
    """

    start: Tensor
    end: Tensor

    def __init__(self, start: float | Tensor, end: float | Tensor) -> None:
        super().__init__()
        register_tensor(self, "start", _as_value("start", start))
        register_tensor(self, "end", _as_value("end", end))

    def forward(self, u: Tensor) -> Tensor:
        start, end = self.start.log(), self.end.to(self.start.device).log()
        return torch.exp(start + (end - start) * u.to(start))

    def extra_repr(self) -> str:
        return f"start={self.start.tolist()}, end={self.end.tolist()}"


class Knots(Schedule):
    """A learnable schedule: interpolates linearly between the logarithms of positive knot values.

    Args:
        values: (K,) positive knot values, K >= 1.
        positions: (K,) ascending positions of the knots in [0, 1]; evenly spaced by default. The
            value is constant before the first knot and behind the last one.

    Attributes:
        log_values: parameter (K,). With `torch.func.functional_call` it may be (B, K), one schedule
            per batch item.

    Raises:
        TypeError: for values of another type.
        ValueError: for values that are not positive, or positions that do not ascend in [0, 1].

    Example:
        >>> schedule = Knots([0.16, 0.08, 0.01])
        >>> schedule(torch.tensor(0.5))  # 0.08
    """

    positions: Tensor

    def __init__(
        self,
        values: Sequence[float] | Float[Tensor, " K"],
        positions: Sequence[float] | Float[Tensor, " K"] | None = None,
    ) -> None:
        super().__init__()
        knots = checks.array("values", values, torch.float64)
        if knots.ndim != 1 or len(knots) == 0 or not _all_positive(knots):
            raise ValueError(f"values: expected a list of positive numbers, got {values}")
        places = torch.linspace(0, 1, len(knots), device="cpu") if positions is None else positions
        places = checks.array("positions", places, torch.float64)
        ascending = bool((places[1:] > places[:-1]).all())
        if places.shape != knots.shape or not ascending or places[0] < 0 or places[-1] > 1:
            raise ValueError(
                f"positions: expected {len(knots)} ascending numbers in [0, 1], got {positions}"
            )
        self.log_values = nn.Parameter(knots.log())
        self.register_buffer("positions", places)

    def forward(self, u: Tensor) -> Tensor:
        return interpolated(self.log_values, self.positions, u).exp()

    def extra_repr(self) -> str:
        return f"knots={len(self.positions)}"


def interpolated(
    values: Float[Tensor, "*B K"], positions: Float[Tensor, " K"], u: Float[Tensor, "*B"]
) -> Float[Tensor, "*B"]:
    """Linear between knots; constant before the first and behind the last one.

    Args:
        values: (K,) or (B, K), at the knots.
        positions: (K,) ascending.
        u: 0-d or (B,).
    """
    last = len(positions) - 1
    u = parameters.to_like(u, positions)
    if last == 0:
        return values[..., 0]
    right = torch.searchsorted(positions, u.detach().contiguous()).clamp(1, last)
    left = right - 1
    before, after = _picked(positions, left), _picked(positions, right)
    t = ((u - before) / (after - before)).clamp(0, 1)
    low, high = _picked(values, left), _picked(values, right)
    return low + (high - low) * t.to(low)


def _picked(values: Tensor, index: Tensor) -> Tensor:
    """Values (K,) or (B, K) at an index that is 0-d or (B,)."""
    if (
        index.ndim == 0
    ):  # indexing by a 0-d tensor would fetch it from a GPU, and the host would wait
        return values[..., index[None]][..., 0]
    if values.ndim == 1:
        return values[index]
    return values.gather(-1, index[:, None])[:, 0]


def as_schedule(name: str, value: float | Tensor | Schedule) -> Schedule:
    """`value` if it is a schedule, else a `Constant` of it; errors name the argument `name`."""
    if isinstance(value, Schedule):
        return value
    try:
        return Constant(value)
    except (TypeError, ValueError) as error:
        raise type(error)(f"{name}: {str(error).removeprefix('value: ')}") from None


class Shift(Schedule):
    """A constant of either sign; otherwise as `Constant`."""

    value: Tensor

    def __init__(self, value: float | Tensor) -> None:
        super().__init__()
        register_tensor(self, "value", as_finite("value", value))

    def forward(self, u: Tensor) -> Tensor:
        return self.value

    def extra_repr(self) -> str:
        return f"value={self.value.tolist()}"


def as_shift(name: str, value: float | Tensor | Schedule) -> Schedule:
    """`value` if it is a schedule, else a `Shift` of it; errors name the argument `name`."""
    if isinstance(value, Schedule):
        return value
    try:
        return Shift(value)
    except (TypeError, ValueError) as error:
        raise type(error)(f"{name}: {str(error).removeprefix('value: ')}") from None


def as_progress(progress: float | Tensor | None, batch: int) -> Tensor:
    """Progress as a 0-d or (B,) float64 tensor in [0, 1]; None means the end, 1.

    Raises:
        ValueError: if it has another shape or leaves [0, 1].
    """
    if progress is None:
        return torch.ones((), dtype=torch.float64, device="cpu")
    u = checks.array("progress", progress, torch.float64)
    if u.shape not in ((), (batch,)):
        raise ValueError(f"progress: expected a number or shape ({batch},), got {tuple(u.shape)}")
    if not bool(((u >= 0) & (u <= 1)).all()):
        raise ValueError("progress: expected values in [0, 1]")
    return u


def describe(value: Schedule | Tensor) -> str:
    """A short description: the constant, or the values at the start and the end."""
    if isinstance(value, Tensor):
        return _numbers(value)
    if isinstance(value, Constant | Shift):
        return _numbers(value.value)
    start, end = (_numbers(value(as_progress(u, 1))) for u in (0.0, 1.0))
    knots = f" by {len(value.positions)} knots" if isinstance(value, Knots) else ""
    return f"{start} -> {end}{knots}"


def _numbers(values: Tensor) -> str:
    texts = [f"{v:.4g}" for v in values.detach().reshape(-1).tolist()]
    return texts[0] if values.ndim == 0 else f"({', '.join(texts)})"


def register_tensor(module: nn.Module, name: str, value: Tensor) -> None:
    """Register a user's tensor with a module, without copying it, so that `module.to` moves it.

    A parameter becomes one of the module's. Another tensor becomes a buffer outside the state dict:
    what is not learned is an argument, not state.
    """
    if isinstance(value, nn.Parameter):
        module.register_parameter(name, value)
    else:
        module.register_buffer(name, value, persistent=False)


def as_finite(name: str, value: float | Tensor) -> Tensor:
    """A finite number or tensor, 0-d or (B,), as a floating-point tensor; else an error."""
    tensor = _as_tensor(name, value)
    if not bool(torch.isfinite(tensor.detach()).all()):
        raise ValueError(f"{name}: expected finite values, got {tensor.tolist()}")
    return tensor


def _as_value(name: str, value: float | Tensor) -> Tensor:
    tensor = _as_tensor(name, value)
    if not _all_positive(tensor):
        raise ValueError(f"{name}: expected positive finite values, got {tensor.tolist()}")
    return tensor


def _as_tensor(name: str, value: float | Tensor) -> Tensor:
    if not isinstance(value, Tensor) and not checks.is_number(value):
        raise TypeError(f"{name}: expected a number or a tensor, got {type(value).__name__}")
    tensor = (
        value
        if isinstance(value, Tensor)
        else torch.tensor(float(value), dtype=torch.float64, device="cpu")
    )
    if tensor.ndim > 1 or not tensor.is_floating_point():
        raise ValueError(
            f"{name}: expected a floating-point number or (B,), got {tensor.dtype} of shape "
            f"{tuple(tensor.shape)}"
        )
    return tensor


def _all_positive(values: Tensor) -> bool:
    v = values.detach()
    return bool(((v > 0) & torch.isfinite(v)).all())
