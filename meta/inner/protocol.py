"""What meta-learning needs to know of a task: two small Protocols, met by structure alone.

A class of your own with these methods works everywhere in `meta`; nothing has to be inherited or
registered. `B` is the number of instances in a batch; instances never influence one another.
"""

from __future__ import annotations

from typing import Literal, Protocol, TypeAlias, runtime_checkable

from jaxtyping import Float
from torch import Tensor, nn

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
    ) -> Float[Tensor, "B"]:
        """Soft inner loss of each instance under `renderer`, at inner progress in [0, 1]."""
        ...

    def true_error(self, params: Float[Tensor, "B ..."]) -> Float[Tensor, "B"]:
        """Distance to the hidden solution (>= 0); differentiable, free of the soft renderer."""
        ...

    def image_error(self, params: Float[Tensor, "B ..."]) -> Float[Tensor, "B"]:
        """Error between sharp renders (>= 0); differentiable, free of the soft renderer."""
        ...

    def metrics(self, params: Float[Tensor, "B ..."]) -> dict[str, Float[Tensor, "B"]]:
        """Named figures of each instance, for tables; no gradient."""
        ...

    def repeat(self, copies: int) -> TaskBatch:
        """The same instances `copies` times over: instance i of copy j stands at j * B + i."""
        ...


@runtime_checkable
class TaskFamily(Protocol):
    """A distribution over tasks, with three disjoint streams of them."""

    def sample(self, batch_size: int, stream: Stream, index: int) -> TaskBatch:
        """Batch `index` (>= 0) of `stream`: a pure function of these and of the family's seed."""
        ...
