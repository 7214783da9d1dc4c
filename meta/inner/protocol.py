"""What meta-learning needs to know of a task: small Protocols, met by structure alone.

A class of your own with these methods works everywhere in `meta`. Nothing has to be inherited or
registered. `TaskFamily` and `TaskBatch` are enough to solve tasks and to learn on them. A `Study`,
which also tunes, compares and draws, asks for a `StudyFamily` and its `StudyBatch`.

`B` is the number of instances in a batch. Instances never influence one another.
"""

from __future__ import annotations

from typing import Literal, Protocol, TypeAlias, runtime_checkable

from jaxtyping import Float
from torch import Tensor, nn

import taichi_raster as tr

Stream: TypeAlias = Literal["tune", "train", "test"]
STREAMS: tuple[Stream, ...] = ("tune", "train", "test")
Progress: TypeAlias = "float | Tensor"


@runtime_checkable
class TaskBatch(Protocol):
    """B inverse problems solved side by side; their unknowns are one tensor (B, ...).

    A method more, ``select(instances: list[int])``, the batch of these instances alone, is needed
    only by runs of more than one process and to leave out instances whose loss is not finite.
    """

    @property
    def batch_size(self) -> int:
        """B."""
        ...

    def start(self) -> Float[Tensor, "B ..."]:
        """Initial unknowns; the same tensor at every call."""
        ...

    def loss(
        self, params: Float[Tensor, "B ..."], renderer: nn.Module, progress: Progress
    ) -> Float[Tensor, " B"]:
        """Soft inner loss of each instance under `renderer`, at inner progress in [0, 1]."""
        ...

    def true_error(self, params: Float[Tensor, "B ..."]) -> Float[Tensor, " B"]:
        """Distance to the hidden solution (>= 0); differentiable, free of the soft renderer."""
        ...

    def image_error(self, params: Float[Tensor, "B ..."]) -> Float[Tensor, " B"]:
        """Error between sharp renders (>= 0); differentiable, free of the soft renderer.

        Descents by `softening_method` end with its gradient. It should be least where the pictures
        are equal.
        """
        ...

    def metrics(self, params: Float[Tensor, "B ..."]) -> dict[str, Float[Tensor, " B"]]:
        """Named figures of each instance, for tables; no gradient."""
        ...

    def repeat(self, copies: int) -> TaskBatch:
        """The same instances `copies` times over: instance i of copy j stands at j * B + i."""
        ...


@runtime_checkable
class MeasuredBatch(TaskBatch, Protocol):
    """A batch whose steps can be measured in the picture, by `meta.ImageSteps`."""

    def geometry(
        self, params: Float[Tensor, "B ..."]
    ) -> Tensor | tuple[Float[Tensor, "R ..."], Float[Tensor, "R ..."]]:
        """Corners as the renderer is given them, and attributes where they depend on `params`.

        Corners are (R, ..., 3): x and y in NDC, z as a share of the depth range, so that a motion
        through all of it counts as 1 NDC; those with z <= 0 do not count. Attributes are (R, ...),
        in their own units. R is a multiple of B, and rows of one instance are next to each other.
        Forward mode must be able to differentiate it.
        """
        ...


@runtime_checkable
class OutlinedBatch(MeasuredBatch, Protocol):
    """A batch whose start can be measured in the picture, too: how far outlines are apart.

    One whose soft renderer draws the backs of closed surfaces says so by an attribute more, ``backs
    = True``: see `tr.untuned_softening`.
    """

    def outlines(
        self, params: Float[Tensor, "B ..."]
    ) -> tuple[Float[Tensor, "R H W"], Float[Tensor, "R H W"]]:
        """Coverage of each pixel in [0, 1], sharp: that of `params`, and that of the target.

        It must show no more than the loss does. R is a multiple of B, and rows of one instance
        (its views) are next to each other.
        """
        ...


@runtime_checkable
class TaskFamily(Protocol):
    """A distribution over tasks, with three disjoint streams of them."""

    def sample(self, batch_size: int, stream: Stream, index: int) -> TaskBatch:
        """Batch `index` (>= 0) of `stream`: a pure function of these and of the family's seed."""
        ...


@runtime_checkable
class StudyBatch(TaskBatch, Protocol):
    """A batch that can be shown: what a study's figures need beyond `TaskBatch`."""

    @property
    def target(self) -> Float[Tensor, "B H W C"]:
        """The picture that each instance is to match, sharp, with values in [0, 1]."""
        ...

    def sharp_image(self, params: Float[Tensor, "B ..."]) -> Float[Tensor, "B H W C"]:
        """Sharp picture of the unknowns, of the target's shape; free of the soft renderer."""
        ...

    def select(self, instances: list[int]) -> StudyBatch:
        """The batch of these instances alone, in the order given."""
        ...


@runtime_checkable
class StudyFamily(TaskFamily, Protocol):
    """A family that a study can tune, learn and judge on: what it needs beyond `TaskFamily`.

    The families of `tasks` meet it. `failure_threshold`, `error_floor` and `error_name` may be
    class variables.
    """

    @property
    def failure_threshold(self) -> float:
        """True error above which an instance counts as failed; in units of the error, > 0."""
        ...

    @property
    def error_floor(self) -> float:
        """Added to a true error before its logarithm: what is too small to matter, > 0."""
        ...

    @property
    def error_name(self) -> str:
        """What the true error is, with its unit, for tables and axes: "vertex RMSE (NDC)"."""
        ...

    def renderer(
        self,
        edge: tr.EdgeSoftness,
        depth: tr.DepthSoftness | None = None,
        alpha: tr.TConorm | None = None,
    ) -> tr.SoftRasterizer:
        """The soft renderer of these tasks: their image size, background and clip depths.

        `depth` and `alpha` left out are the family's own choice.
        """
        ...

    def sample(self, batch_size: int, stream: Stream, index: int) -> StudyBatch:
        """As `TaskFamily.sample`; its batches can be shown."""
        ...
