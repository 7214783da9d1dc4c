"""Several families as one: batches with instances of each, judged by errors in the same unit.

    mixture = Mixture((
        Part(Shape2D(2, image_size=24), reference=0.02, share=8),
        Part(Pose(image_size=32), reference=1.5, share=3),
    ))
    method = softening_method(tr.SofteningPolicy(), mixture, steps=50)
    trainer = OuterTrainer(method, mixture, OuterLoss("true", floor=1e-9), es_gradient)

A `MixtureBatch` is a batch like any other. Its unknowns are those of all instances, filled up with
zeros to the same number, so that trainers, estimators and evaluations need to know nothing of it.
"""

from __future__ import annotations

import copy
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn

import taichi_raster as tr
from meta.inner.picture_measures import measured
from meta.inner.protocol import Progress, Stream, StudyFamily
from taichi_raster.presets.watch import Measures


@dataclass(frozen=True)
class Part:
    """One family of a mixture.

    Args:
        family: its tasks.
        reference: the geometric mean of (error + floor) of what it is compared with: the unit of
            its errors.
        share: of a batch's instances, in proportion to the other parts'. Costly families best have
            a small one: for the smallest variance, in inverse proportion to the root of the time
            that an instance takes.

    Raises ValueError for a reference or a share that is not positive.
    """

    family: StudyFamily
    reference: float
    share: float = 1.0

    def __post_init__(self) -> None:
        for name in ("reference", "share"):
            value = getattr(self, name)
            if not (math.isfinite(value) and value > 0):
                raise ValueError(f"{name} must be finite and > 0, got {value!r}")

    @property
    def title(self) -> str:
        """The family, for tables."""
        return repr(self.family)


@dataclass(frozen=True)
class Mixture:
    """A family whose batches have instances of all its parts.

    An instance's error is ((error + floor) / reference) ** weight. So the logarithm of the whole's
    geometric mean is the mean over families of their logarithms, however many instances each has.

    Args:
        parts: at least one. Their streams stay what they are, so that "tune", "train" and "test"
            have no task in common.

    Raises ValueError if there is no part.
    """

    parts: tuple[Part, ...]

    def __post_init__(self) -> None:
        if not self.parts:
            raise ValueError("parts: expected at least one, got none")

    def counts(self, batch_size: int) -> list[int]:
        """Instances of each part in a batch: at least one, the rest in proportion to the shares."""
        rest = batch_size - len(self.parts)
        if rest < 0:
            raise ValueError(
                f"batch_size must be >= {len(self.parts)}, one for each part, got {batch_size}"
            )
        total = sum(part.share for part in self.parts)
        wanted = [max(batch_size * part.share / total - 1, 0.0) for part in self.parts]
        scale = rest / max(sum(wanted), 1e-12)
        exact = [scale * one for one in wanted]
        found = [1 + math.floor(one) for one in exact]
        by_rest = sorted(range(len(exact)), key=lambda k: math.floor(exact[k]) - exact[k])
        for k in by_rest[: batch_size - sum(found)]:
            found[k] += 1
        return found

    def sample(self, batch_size: int, stream: Stream, index: int) -> MixtureBatch:
        """Batch `index` of a stream, of instances of batch `index` of that stream of each part.

        Those of a part are spread evenly over the batch, so that processes which share it have
        about the same work.
        """
        counts = self.counts(batch_size)
        tasks = [
            part.family.sample(count, stream, index)
            for part, count in zip(self.parts, counts, strict=True)
        ]
        ingredients = tuple(
            Ingredient(k, part, batch_size / (len(counts) * count), task, rows)
            for k, (part, count, task, rows) in enumerate(
                zip(self.parts, counts, tasks, _spread(counts), strict=True)
            )
        )
        width = max(task.start()[0].numel() for task in tasks)
        return MixtureBatch(ingredients, batch_size, width)

    def renderer(
        self,
        edge: tr.EdgeSoftness,
        depth: tr.DepthSoftness | None = None,
        alpha: tr.TConorm | None = None,
    ) -> MixtureRenderer:
        """The soft renderer of each part, with these in common."""
        return MixtureRenderer(self, edge, depth, alpha)


def _spread(counts: Sequence[int]) -> list[Tensor]:
    """Where the instances of each part stand in a batch."""
    wanted = torch.cat([(torch.arange(n, dtype=torch.float64) + 0.5) / n for n in counts])
    places = wanted.argsort(stable=True).argsort()
    return list(places.split(list(counts)))


class MixtureRenderer(nn.Module):
    """The renderers of a mixture's parts, which share their softness.

    Where a schedule has one value for each instance, each part's renderer gets those of its own.
    Weights of networks, and values that no schedule gives, are for all instances alike.
    """

    def __init__(
        self,
        mixture: Mixture,
        edge: tr.EdgeSoftness,
        depth: tr.DepthSoftness | None,
        alpha: tr.TConorm | None,
    ) -> None:
        super().__init__()
        self.mixture = mixture
        self.edge = edge
        self.depth = depth
        self.alpha = alpha

    def of(self, part: int, rows: Tensor, total: int) -> nn.Module:
        """The renderer of a part whose instances stand at `rows` of a batch of `total`."""
        optional = {"depth": self.depth, "alpha": self.alpha}
        given = {
            name: _at_rows(module, rows, total)
            for name, module in optional.items()
            if module is not None
        }
        edge = _at_rows(self.edge, rows, total)
        drawn: nn.Module = self.mixture.parts[part].family.renderer(edge, **given)
        return drawn


class _Rows(tr.Schedule):
    """A schedule of a whole batch, for some of its instances."""

    def __init__(self, whole: tr.Schedule, rows: Tensor, total: int) -> None:
        super().__init__()
        self.whole = whole
        self.rows = rows
        self.total = total

    def forward(self, u: Tensor) -> Tensor:
        if u.ndim == 1:
            u = u.new_zeros(self.total).index_copy(0, self.rows.to(u.device), u)
        value: Tensor = self.whole(u)
        return value[self.rows.to(value.device)] if value.shape == (self.total,) else value


def _at_rows(module: nn.Module, rows: Tensor, total: int) -> Any:
    """The same module, which shares its parameters, with schedules for some instances alone."""
    copied = copy.copy(module)
    copied._modules = {
        name: _Rows(child, rows, total) if isinstance(child, tr.Schedule) else child
        for name, child in module._modules.items()
    }
    return copied


@dataclass(frozen=True)
class Ingredient:
    """The instances of one part in a batch: which part, their weight, and where they stand."""

    index: int
    part: Part
    weight: float
    task: Any  # a StudyBatch
    rows: Tensor

    def own(self, params: Float[Tensor, "B K"]) -> Tensor:
        """Their unknowns, in the family's own shape."""
        shape = self.task.start().shape
        return params[self.rows.to(params.device), : math.prod(shape[1:])].reshape(shape)


@dataclass(frozen=True)
class MixtureBatch:
    """B instances of several families.

    Attributes:
        ingredients: the instances of each family, none empty.
        batch_size: B.
        width: K, the largest number of unknowns of an instance.
    """

    ingredients: tuple[Ingredient, ...]
    batch_size: int
    width: int

    def start(self) -> Float[Tensor, "B K"]:
        """Initial unknowns, filled up with zeros; the same tensor at every call."""
        return self._joined(
            lambda one: nn.functional.pad(
                (rows := one.task.start().flatten(1)), (0, self.width - rows.shape[1])
            )
        )

    def loss(
        self, params: Float[Tensor, "B K"], renderer: nn.Module, progress: Progress
    ) -> Float[Tensor, " B"]:
        """Each family's own soft loss. `renderer` is of `Mixture.renderer`."""
        if not isinstance(renderer, MixtureRenderer):
            raise TypeError(
                f"renderer: expected one of Mixture.renderer, got {type(renderer).__name__}"
            )

        def loss(one: Ingredient) -> Tensor:
            own = progress
            if isinstance(own, Tensor) and own.ndim == 1:
                own = own[one.rows.to(own.device)]
            drawn = renderer.of(one.index, one.rows, self.batch_size)
            return one.task.loss(one.own(params), drawn, own)

        return self._joined(loss)

    def true_error(self, params: Float[Tensor, "B K"]) -> Float[Tensor, " B"]:
        """((error + floor) / reference) ** weight; see `Mixture`."""

        def error(one: Ingredient) -> Tensor:
            found = one.task.true_error(one.own(params)) + one.part.family.error_floor
            return (found / one.part.reference) ** one.weight

        return self._joined(error)

    def image_error(self, params: Float[Tensor, "B K"]) -> Float[Tensor, " B"]:
        """Each family's own, between sharp renders."""
        return self._joined(lambda one: one.task.image_error(one.own(params)))

    def metrics(self, params: Float[Tensor, "B K"]) -> dict[str, Float[Tensor, " B"]]:
        """Figures of each instance.

        parameter_error: the family's own true error; part: the family's place in the mixture;
        failure: 1 where the error is above the family's threshold.
        """
        with torch.no_grad():
            errors = self._joined(lambda one: one.task.true_error(one.own(params)))
            limits = self._joined(
                lambda one: errors.new_full((len(one.rows),), one.part.family.failure_threshold)
            )
            parts = self._joined(lambda one: errors.new_full((len(one.rows),), one.index))
        return {"parameter_error": errors, "part": parts, "failure": (errors > limits).to(errors)}

    def geometry(self, params: Float[Tensor, "B K"]) -> Float[Tensor, "B N 3"]:
        """Corners of each instance, all its views, filled up with some that do not count.

        Raises TypeError for a family whose attributes are unknown, too.
        """

        def corners(one: Ingredient) -> Tensor:
            geometry = getattr(one.task, "geometry", None)
            found = None if geometry is None else geometry(one.own(params))
            if not isinstance(found, Tensor):
                raise TypeError(
                    f"part {one.index}: {type(one.task).__name__} needs a geometry(params) that "
                    "gives corners alone, by which a mixture measures steps"
                )
            found = found.reshape(len(one.rows), -1, found.shape[-1])
            return nn.functional.pad(found, (0, 3 - found.shape[-1]), value=1.0)

        every = [corners(one) for one in self.ingredients]
        most = max(found.shape[1] for found in every)
        filled = [nn.functional.pad(found, (0, 0, 0, most - found.shape[1])) for found in every]
        return torch.cat(filled)[self._order()]

    def measured(self, params: Float[Tensor, "B K"]) -> Measures:
        """What the picture shows of each instance; see `measured`."""
        every = [measured(one.task, one.own(params)) for one in self.ingredients]
        order = self._order().to(every[0].pixel.device)

        def joined(name: str) -> Tensor:
            return torch.cat([getattr(found, name) for found in every])[order]

        names = ("distance", "pixel", "mismatch", "backs")
        return Measures(*(joined(name) for name in names))

    def repeat(self, copies: int) -> MixtureBatch:
        """The same instances `copies` times over: instance i of copy j stands at j * B + i."""
        shifts = self.batch_size * torch.arange(copies)[:, None]
        ingredients = tuple(
            replace(one, task=one.task.repeat(copies), rows=(shifts + one.rows).flatten())
            for one in self.ingredients
        )
        return replace(self, ingredients=ingredients, batch_size=copies * self.batch_size)

    def select(self, instances: Sequence[int]) -> MixtureBatch:
        """A batch of some of the instances, in the order given."""
        chosen = []
        for one in self.ingredients:
            places = {row: k for k, row in enumerate(one.rows.tolist())}
            kept = [(at, places[i]) for at, i in enumerate(instances) if i in places]
            if kept:
                rows = torch.tensor([at for at, _ in kept])
                task = one.task.select([k for _, k in kept])
                chosen.append(replace(one, task=task, rows=rows))
        return replace(self, ingredients=tuple(chosen), batch_size=len(instances))

    def _order(self) -> Tensor:
        """Where each instance stands in the ingredients, one after the other."""
        return torch.cat([one.rows for one in self.ingredients]).argsort()

    def _joined(self, value: Callable[[Ingredient], Tensor]) -> Tensor:
        """Values of each ingredient's instances, in the order of the batch."""
        found = torch.cat([value(one) for one in self.ingredients])
        return found[self._order().to(found.device)]
