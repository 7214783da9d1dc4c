"""Small analytic tasks in pure torch, with a "renderer" whose softness matters: oracles for meta/.

The inner loss is a robust distance, s * log(1 + (x - h)^2 / s), whose softness s is the renderer's.
The third unknown is in no loss, as a hidden vertex is: its gradient is exactly zero.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from meta.inner.method import Method
from meta.inner.updates import Adam, UpdateRule

STREAMS = ("tune", "train", "test")


class ToyRenderer(nn.Module):
    """Softness s = exp(log_scale + slope * progress): 0-d parameters, or (B,) of them."""

    def __init__(self, log_scale: float = 0.3, slope: float = -0.7):
        super().__init__()
        self.log_scale = nn.Parameter(torch.tensor(log_scale, dtype=torch.float64))
        self.slope = nn.Parameter(torch.tensor(slope, dtype=torch.float64))

    def forward(self, distance: Tensor, progress: float | Tensor) -> Tensor:
        scale = torch.exp(self.log_scale + self.slope * progress)
        scale = scale[:, None] if scale.ndim else scale
        return (scale * torch.log1p(distance.square() / scale)).sum(dim=1)


@dataclass(frozen=True)
class ToyBatch:
    hidden: Tensor  # (B, 2)
    initial: Tensor  # (B, 3)

    @property
    def batch_size(self) -> int:
        return len(self.hidden)

    def start(self) -> Tensor:
        return self.initial

    def loss(self, params: Tensor, renderer: nn.Module, progress: float | Tensor) -> Tensor:
        losses: Tensor = renderer(params[:, :2] - self.hidden, progress)
        return losses

    def true_error(self, params: Tensor) -> Tensor:
        return ((params[:, :2] - self.hidden).square().sum(dim=1) + 1e-24).sqrt()

    def image_error(self, params: Tensor) -> Tensor:
        return torch.tanh((params[:, :2] - self.hidden).square()).mean(dim=1)

    def metrics(self, params: Tensor) -> dict[str, Tensor]:
        return {"parameter_error": self.true_error(params), "image_error": self.image_error(params)}

    def repeat(self, copies: int) -> ToyBatch:
        return ToyBatch(self.hidden.repeat(copies, 1), self.initial.repeat(copies, 1))

    def select(self, instances: list[int]) -> ToyBatch:
        return ToyBatch(self.hidden[instances], self.initial[instances])


@dataclass(frozen=True)
class ToyFamily:
    seed: int = 0

    def sample(self, batch_size: int, stream: str, index: int) -> ToyBatch:
        seed = hash((self.seed, STREAMS.index(stream), index)) % 2**31
        generator = torch.Generator().manual_seed(seed)
        hidden = torch.randn((batch_size, 2), generator=generator, dtype=torch.float64)
        away = torch.randn((batch_size, 3), generator=generator, dtype=torch.float64)
        return ToyBatch(hidden, torch.cat([hidden, hidden[:, :1]], dim=1) + away)


class Rate(nn.Module):
    """Learning rate exp(log_rate), 0-d or (B,)."""

    def __init__(self, value: float = 0.1):
        super().__init__()
        self.log_rate = nn.Parameter(torch.tensor(value, dtype=torch.float64).log())

    def forward(self, progress: float | Tensor) -> Tensor:
        return self.log_rate.exp()


class ToyMethod(Method):
    renderer: ToyRenderer
    lr: Rate


def toy_method(rule: UpdateRule | None = None, steps: int = 12) -> ToyMethod:
    """A method that learns softness, slope and learning rate."""
    return ToyMethod(ToyRenderer(), rule or Adam(), Rate(), steps)


class Quadratic(nn.Module):
    """Stands for a renderer; the inner loss below ignores it, the outer one is its quadratic."""

    def __init__(self) -> None:
        super().__init__()
        generator = torch.Generator().manual_seed(3)
        self.point = nn.Parameter(torch.randn(4, generator=generator, dtype=torch.float64))


class QuadraticTask:
    """One SGD step with rate 1 takes the unknown to the renderer's point."""

    curvature = torch.tensor([1.0, 0.5, 2.0, 3.0], dtype=torch.float64)

    def __init__(self, offsets: Tensor) -> None:
        self.offsets = offsets

    @property
    def batch_size(self) -> int:
        return len(self.offsets)

    def start(self) -> Tensor:
        return torch.zeros(self.batch_size, 4, dtype=torch.float64)

    def loss(self, params: Tensor, renderer: nn.Module, progress: float | Tensor) -> Tensor:
        assert isinstance(renderer, Quadratic)
        return 0.5 * (params - renderer.point).square().sum(dim=1)

    def true_error(self, params: Tensor) -> Tensor:
        return (self.curvature * (params - self.offsets).square()).sum(dim=1)

    def repeat(self, copies: int) -> QuadraticTask:
        return QuadraticTask(self.offsets.repeat(copies, 1))

    def image_error(self, params: Tensor) -> Tensor:
        return self.true_error(params)

    def metrics(self, params: Tensor) -> dict[str, Tensor]:
        return {"parameter_error": self.true_error(params)}


class One(nn.Module):
    def forward(self, progress: float | Tensor) -> Tensor:
        return torch.ones((), dtype=torch.float64)


class FixedRate(nn.Module):
    """The same learning rate at any progress, not learnable."""

    def __init__(self, value: float):
        super().__init__()
        self.value = value

    def forward(self, progress: float | Tensor) -> Tensor:
        return torch.tensor(self.value, dtype=torch.float64)


@dataclass(frozen=True)
class MeasuredBatch(ToyBatch):
    """Its unknowns are in units of `unit`; the picture shows the first two."""

    unit: float = 1.0

    def start(self) -> Tensor:
        return self.unit * self.initial

    def loss(self, params: Tensor, renderer: nn.Module, progress: float | Tensor) -> Tensor:
        return super().loss(params / self.unit, renderer, progress)

    def true_error(self, params: Tensor) -> Tensor:
        return super().true_error(params / self.unit)

    def geometry(self, params: Tensor) -> Tensor:
        x, y = (params[:, :2] / self.unit).unbind(1)
        return torch.stack([torch.stack([x, x * y.cos()], 1), torch.stack([y, x + y], 1)], 1)

    def repeat(self, copies: int) -> MeasuredBatch:
        plain = super().repeat(copies)
        return MeasuredBatch(plain.hidden, plain.initial, self.unit)

    def select(self, instances: list[int]) -> MeasuredBatch:
        return MeasuredBatch(self.hidden[instances], self.initial[instances], self.unit)


def measured_task(count: int, unit: float = 1.0) -> MeasuredBatch:
    drawn = ToyFamily().sample(count, "train", 0)
    return MeasuredBatch(drawn.hidden, drawn.initial, unit)
