"""A mixture is a family like any other, and each part's instances are solved as if alone."""

from __future__ import annotations

from typing import Any

import pytest
import torch

import taichi_raster as tr
from meta import (
    Mixture,
    OuterLoss,
    OuterTrainer,
    Part,
    TrainerSettings,
    es_gradient,
    softening_method,
    unroll,
)
from meta.inner.mixture import MixtureBatch
from meta.inner.picture_measures import measured
from meta.inner.protocol import MeasuredBatch, TaskBatch
from meta.outer.estimator import Estimator, Shard
from tasks import Occlusion, Pose, Shape2D, Shape3D

pytestmark = pytest.mark.runs_on(arch="cpu", precision="f64")

OUTER = OuterLoss("true", floor=1e-12)
FAMILIES: tuple[Any, ...] = (
    Shape2D(2, image_size=12),
    Occlusion((2, 3), True, 12),
    Shape3D(views=2, subdivisions=0, image_size=12, samples=16),
)


def mixture(shares: tuple[float, ...] = (3, 2, 1)) -> Mixture:
    parts = zip(FAMILIES, (0.03, 0.2, 0.01), shares, strict=True)
    return Mixture(tuple(Part(family, reference, share) for family, reference, share in parts))


def test_a_batch_has_instances_of_each_part_by_its_share() -> None:
    assert mixture().counts(3) == [1, 1, 1]
    assert mixture().counts(6) == [3, 2, 1]
    assert mixture().counts(60) == [30, 20, 10]
    assert mixture((100, 1, 1)).counts(10) == [8, 1, 1]
    for size in range(3, 40):
        assert sum(mixture((7, 3, 2)).counts(size)) == size


def test_each_instance_is_the_familys_own_and_is_solved_as_if_alone() -> None:
    task = mixture().sample(6, "tune", 3)
    assert isinstance(task, MeasuredBatch)
    method = softening_method(tr.SofteningPolicy(feedback=True), mixture(), 4)
    run = unroll(method, task)
    metrics = task.metrics(run.params)
    errors = task.true_error(run.params)
    for k, (family, count) in enumerate(zip(FAMILIES, (3, 2, 1), strict=True)):
        own = family.sample(count, "tune", 3)
        alone = unroll(softening_method(tr.SofteningPolicy(), family, 4), own)
        mine = metrics["part"] == k
        expected = own.true_error(alone.params)
        torch.testing.assert_close(metrics["parameter_error"][mine], expected)
        torch.testing.assert_close(run.losses[:, mine], alone.losses)
        weight = 6 / (3 * count)
        unit = ((expected + family.error_floor) / mixture().parts[k].reference) ** weight
        torch.testing.assert_close(errors[mine], unit)


def test_families_count_alike_however_many_instances_they_have() -> None:
    task = mixture().sample(12, "tune", 0)
    params = task.start()
    metrics = task.metrics(params)
    by_family = []
    for k, part in enumerate(mixture().parts):
        errors = metrics["parameter_error"][metrics["part"] == k] + part.family.error_floor
        by_family.append(torch.log(errors / part.reference).mean())
    whole = torch.log(task.true_error(params)).mean()
    torch.testing.assert_close(whole, torch.stack(by_family).mean())


def test_a_part_of_a_batch_and_copies_of_it_have_the_same_instances() -> None:
    task = mixture().sample(6, "train", 0)
    start, losses = task.start(), _losses(task)
    chosen = [4, 0, 5]
    some = task.select(chosen)
    assert torch.equal(some.start(), start[chosen])
    torch.testing.assert_close(_losses(some), losses[chosen])
    twice = some.repeat(2)
    assert torch.equal(twice.start(), start[chosen * 2])
    torch.testing.assert_close(_losses(twice), losses[chosen * 2])
    torch.testing.assert_close(
        measured(twice, twice.start()).distance, measured(task, start).distance[chosen * 2]
    )


def _losses(task: TaskBatch) -> torch.Tensor:
    scale = 0.05 + 0.01 * task.start()[:, 0].detach().abs()  # one for each instance
    renderer = mixture().renderer(tr.Distribution("gaussian", scale))
    return task.loss(task.start(), renderer, 0.5)


def test_an_estimate_is_the_same_in_one_piece_or_in_two() -> None:
    task = mixture().sample(6, "train", 1)
    method = softening_method(tr.SofteningPolicy(), mixture(), 2)
    options = {"pairs": 1, "directions": "per_task", "sigma": 0.1}

    def estimate(part: TaskBatch, shard: Shard | None) -> Any:
        generator = torch.Generator().manual_seed(5)
        return es_gradient(method, part, OUTER, generator=generator, shard=shard, **options)

    whole = estimate(task, None)
    shares = [Shard((0, 1, 2), 6), Shard((3, 4, 5), 6)]
    halves = [estimate(shard.of(task), shard) for shard in shares]
    for name, grad in whole.grads.items():
        mean = (halves[0].grads[name] + halves[1].grads[name]) / 2
        torch.testing.assert_close(grad, mean)


def test_a_training_on_it_resumes_to_the_bit(tmp_path: Any) -> None:
    answers = 1

    def stopping(*args: Any, **options: Any) -> Any:
        nonlocal answers
        if answers == 0:
            raise KeyboardInterrupt
        answers -= 1
        return es_gradient(*args, **options)

    def trainer(folder: str, estimator: Estimator = es_gradient) -> OuterTrainer:
        return OuterTrainer(
            softening_method(tr.SofteningPolicy(), mixture(), 2),
            mixture(),
            OUTER,
            estimator,
            {"pairs": 1, "directions": "per_task", "sigma": 0.1},
            TrainerSettings(2, 6, validation_batches=1, validation_batch_size=3),
            tmp_path / folder,
            resume="auto",
            validation=OUTER,
        )

    whole = trainer("whole").run(quiet=True)
    with pytest.raises(KeyboardInterrupt):
        trainer("halves", Estimator("es", es_gradient.outer_kinds, stopping, "")).run(quiet=True)
    assert trainer("halves").iteration == 1
    resumed = trainer("halves").run(quiet=True)
    losses = [[entry["loss"] for entry in result.history] for result in (whole, resumed)]
    assert losses[0] == losses[1]
    for name, value in whole.best.parameters.items():
        assert torch.equal(value, resumed.best.parameters[name])


def test_streams_of_a_mixture_have_no_task_in_common() -> None:
    starts = {s: mixture().sample(6, s, 0).start() for s in ("tune", "train", "test")}
    assert not torch.equal(starts["tune"], starts["train"])
    assert not torch.equal(starts["tune"], starts["test"])
    assert torch.equal(starts["tune"], mixture().sample(6, "tune", 0).start())


def test_what_cannot_be_mixed_is_refused_by_name() -> None:
    with pytest.raises(ValueError, match=r"^parts: "):
        Mixture(())
    with pytest.raises(ValueError, match=r"^reference must be"):
        Part(FAMILIES[0], 0.0)
    with pytest.raises(ValueError, match=r"^share must be"):
        Part(FAMILIES[0], 1.0, -1.0)
    with pytest.raises(ValueError, match=r"^batch_size must be >= 3"):
        mixture().sample(2, "tune", 0)
    task = mixture().sample(3, "tune", 0)
    with pytest.raises(TypeError, match=r"^renderer: expected one of Mixture\.renderer"):
        task.loss(task.start(), FAMILIES[0].renderer(tr.Distribution("gaussian")), 0.0)


def test_pictures_of_different_sizes_are_measured_by_their_own_pixels() -> None:
    mixed = Mixture((Part(Shape2D(1, image_size=12), 1.0), Part(Pose(image_size=20), 1.0)))
    task = mixed.sample(2, "tune", 0)
    assert isinstance(task, MixtureBatch)
    found = measured(task, task.start())
    assert sorted(found.pixel.tolist()) == pytest.approx([2 / 20, 2 / 12])
    assert bool((found.mismatch > 0).all())
