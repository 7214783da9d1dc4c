"""The base of depth softnesses: how much each fragment weighs in a pixel's colour.

Most are a log-weight l of the normalised depth z_norm = (far - z) / (far - near), which is 1 at the
near plane. A fragment's weight is its coverage times exp(l). The kernels then need sums only, and
the result does not depend on the order of the faces. `HardDepth` takes the colour of one face, and
`OverDepth` the fragments in front of each.

Each depth softness is one file: its log-weight for the kernels, its composition, its description,
and how it is stored. To add one, add a file to this folder, and export it in
`taichi_raster/__init__`.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar, Protocol

import torch
from torch import Tensor, nn

from taichi_raster.maths.dual import Number
from taichi_raster.runtime.variant import Architecture, DepthVariant
from taichi_raster.softness import parameters
from taichi_raster.softness.archive import Entry
from taichi_raster.softness.schedule import Schedule, as_finite, as_schedule, register_tensor
from taichi_raster.softness.serialization import Stored, built_schedule, stored_schedules


@dataclass(frozen=True)
class DepthState:
    """A depth softness at one progress.

    Attributes:
        gamma, shape, shift, background_z: each 0-d or (B,).
        weights: network weights, (Q,) or (B, Q), or None.
    """

    gamma: Tensor
    shape: Tensor
    shift: Tensor
    background_z: Tensor
    weights: Tensor | None = None


@dataclass(frozen=True)
class LogWeight:
    """A fragment's log-weight l in a kernel, with its derivatives.

    Attributes:
        l: the value.
        by_z: the derivative in z_norm; with a network, in the network's output.
        by_gamma, by_shape, by_shift: the derivatives in the parameters; None without this one.
        tape: what the network's VJP needs, or None.
    """

    l: Number  # noqa: E741 - as in the formulas
    by_z: Number
    by_gamma: Number
    by_shape: Any = None
    by_shift: Any = None
    tape: Any = None


class PairKernel(Protocol):
    """What a log-weight's formula may use of the kernel that it is compiled into."""

    autodiff: bool

    def parameter(self, b: Any, slot: int) -> Number:
        """A parameter of batch item `b`, see `Slot`."""

    def network(self, shape: Architecture, part: int, b: Any, x: Number) -> Any:
        """A network at x, with what its VJP needs; its weights are a part of the inputs."""


@dataclass(frozen=True)
class LogWeightFormula:
    """The formula of a log-weight in the kernels; equal formulas share compiled kernels.

    Attributes:
        network: the architecture of a network whose weights are inputs, or None.
        relative: whether l is z_norm / gamma (a softmax). Depths are then subtracted before the
            division, so that no digits are lost.
        looped: whether evaluating it takes loops.
    """

    network: Architecture | None = None
    relative: ClassVar[bool] = False

    @property
    def looped(self) -> bool:
        """Whether evaluating the formula takes loops."""
        return False

    def at(self, kernel: PairKernel, b: Any, z_norm: Number, reference: Any) -> LogWeight:
        """l at z_norm of batch item `b`; of z_norm - reference, if `relative`."""
        raise NotImplementedError


@dataclass(frozen=True)
class PixelColours:
    """The sums over each pixel's fragments that its colour is made of.

    Attributes:
        weight: (1, B, H, W) sum of the weights, times exp(-offset).
        colours: (C, B, H, W) weighted sums of the attributes, times exp(-offset).
        offset: (B, H, W) subtracted from all log-weights.
        reference: (B, H, W) the normalised depth that depths are relative to.
    """

    weight: Tensor
    colours: Tensor
    offset: Tensor
    reference: Tensor


KINDS: dict[str, type[DepthSoftness]] = {}
"""The depth softnesses that can be stored, by their `kind`."""


class DepthSoftness(nn.Module):
    """The base class of depth softnesses: how fragments mix into a pixel's colour.

    Attributes:
        variant: the part that kernels compile.
        kind: the name of this class in files; None if it cannot be stored.
        by_fragments: whether colours are composed from each pixel's fragments (see `OverDepth`),
            not from sums over faces.
    """

    variant: DepthVariant
    kind: ClassVar[str | None] = None
    by_fragments: ClassVar[bool] = False

    def __init_subclass__(cls, **more: Any) -> None:
        super().__init_subclass__(**more)
        if (kind := vars(cls).get("kind")) is not None:
            KINDS[kind] = cls

    def at(self, u: Tensor) -> DepthState:
        """The softness at progress `u`, 0-d or (B,)."""
        raise NotImplementedError

    def background(self, state: DepthState, batch: int) -> Tensor:
        """The background's log-weight, (B,), by the formula of a fragment's.

        If the formula is `relative`, it is the background's normalised depth instead.
        """
        return state.background_z.expand(batch)

    def compose(
        self, found: PixelColours, state: DepthState, floor: Tensor, background: Tensor | None
    ) -> Tensor:
        """The pixels' colours over the background.

        Args:
            found: the sums of all pixels.
            state: of this softness.
            floor: (B,) the result of the method `background`.
            background: colours, which broadcast to (C, B, H, W); None for 0.

        Returns:
            (C, B, H, W).
        """
        raise NotImplementedError

    def describe(self) -> str:
        """A short description: the kind, and its parameters."""
        return type(self).__name__

    def stored(self) -> Stored:
        """What a file keeps of it besides its kind: a description, and tensors by name.

        Raises:
            TypeError: if it cannot be stored.
        """
        raise TypeError(f"depth: cannot save a {type(self).__name__}")

    @classmethod
    def built(cls, entry: Entry) -> DepthSoftness:
        """Build it from what `stored` described.

        Raises:
            ValueError: for missing or invalid entries.
        """
        raise NotImplementedError


class WeightedDepth(DepthSoftness):
    """The base class of those with a log-weight: a temperature, and the background's depth."""

    background_z: Tensor

    def __init__(
        self, gamma: float | Tensor | Schedule = 1e-2, background_z: float | Tensor = 2e-3
    ) -> None:
        super().__init__()
        self.gamma = as_schedule("gamma", gamma)
        value = as_finite("background_z", background_z)
        if not bool((value.detach() >= 0).all()):
            raise ValueError(f"background_z: expected finite values >= 0, got {value.tolist()}")
        register_tensor(self, "background_z", value)

    def at(self, u: Tensor) -> DepthState:
        gamma = self.gamma(u)
        return DepthState(gamma, torch.ones_like(gamma), torch.zeros_like(gamma), self.background_z)

    def compose(
        self, found: PixelColours, state: DepthState, floor: Tensor, background: Tensor | None
    ) -> Tensor:
        rest = self.rest(found.offset, found.reference, state, floor)
        colours = found.colours if background is None else found.colours + rest * background
        return colours * (found.weight + rest).reciprocal()

    def rest(self, offset: Tensor, reference: Tensor, state: DepthState, floor: Tensor) -> Tensor:
        """The background's weight in each pixel, (B, H, W); arguments as for `compose`."""
        floor = floor[:, None, None]
        formula = self.variant.log_weight
        if formula is not None and formula.relative:
            gamma = parameters.to_like(state.gamma, floor)
            floor = (floor - reference) / (gamma[:, None, None] if gamma.ndim else gamma)
        return torch.exp(floor - offset)

    def _stored(self, *schedules: str, **description: Any) -> Stored:
        """The description, these schedules, own parameters and the background's depth."""
        kinds, tensors = stored_schedules(self, "depth", *schedules)
        tensors |= dict(self.named_parameters(recurse=False))
        return description | kinds, tensors | {"background_z": self.background_z}

    @staticmethod
    def _shared(entry: Entry) -> tuple[Schedule, Tensor]:
        """The temperature and the background's depth of a stored one."""
        return built_schedule(entry, "gamma"), entry.tensor("background_z")
