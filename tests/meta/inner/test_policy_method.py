"""The method of a policy: untuned it is the softening by hand, and feedback sees what it should."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor, nn

import taichi_raster as tr
from meta import Adam, ImageSteps, Method, evaluate, softening_method, unroll
from meta.inner.picture_measures import measured
from taichi_raster.presets.watch import Measures, Watch
from tasks import Pose, Shape2D, Shape2DBatch, Shape3D
from toy_tasks import ToyFamily

pytestmark = pytest.mark.runs_on(arch="cpu", precision="f64")

FAMILY = Shape2D(1, image_size=12)
DISTANCE = torch.tensor([0.1, 0.2], dtype=torch.float64)


def by_hand(steps: int) -> Method:
    task = FAMILY.sample(4, "tune", 0)
    start = tr.untuned_softening(*task.outlines(task.start()))
    assert start.lr is not None
    renderer = FAMILY.renderer(start.edge, start.depth, start.alpha)
    renderer.sharp_from = start.sharp_from
    return Method(renderer, ImageSteps(Adam(betas=tr.ImageSteps.BETAS)), start.lr, steps)


@pytest.mark.parametrize("feedback", [False, True])
def test_at_its_start_it_solves_tasks_as_the_softening_by_hand(feedback: bool) -> None:
    task = FAMILY.sample(4, "tune", 0)
    ours = unroll(softening_method(tr.SofteningPolicy(feedback), FAMILY, 12), task)
    theirs = unroll(by_hand(12), task)
    torch.testing.assert_close(ours.losses, theirs.losses, rtol=1e-9, atol=1e-12)
    torch.testing.assert_close(ours.params, theirs.params, rtol=1e-9, atol=1e-9)
    assert bool((task.true_error(ours.params) < task.true_error(task.start())).all())


def test_its_last_steps_descend_the_sharp_picture_and_end_nearer() -> None:
    task = Pose(image_size=24).sample(4, "tune", 0)
    policy = tr.SofteningPolicy()
    errors: list[Tensor] = []

    def record(_: int, params: Tensor) -> None:
        with torch.no_grad():
            errors.append(task.image_error(params))

    soft = unroll(softening_method(policy, task.family, 40, sharp_from=None), task)
    sharp = unroll(softening_method(policy, task.family, 40), task, record=record)
    torch.testing.assert_close(sharp.losses[:30], soft.losses[:30], rtol=0, atol=0)
    torch.testing.assert_close(sharp.losses[30:], torch.stack(errors[30:-1]), rtol=0, atol=0)
    with torch.no_grad():
        assert bool((errors[-1] < 0.5 * task.image_error(soft.params)).all())


def test_an_error_without_a_gradient_leaves_all_steps_soft() -> None:
    task = FAMILY.sample(2, "tune", 0)
    image_error = Shape2DBatch.image_error
    expected = unroll(softening_method(tr.SofteningPolicy(), FAMILY, 12, sharp_from=None), task)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Shape2DBatch, "image_error", lambda self, x: image_error(self, x.detach()))
        found = unroll(softening_method(tr.SofteningPolicy(), FAMILY, 12), task)
    assert torch.equal(found.params, expected.params)


def test_sharp_steps_are_not_differentiated() -> None:
    task = FAMILY.sample(2, "tune", 0)
    with pytest.raises(NotImplementedError, match=r"^sharp_from: sharp steps cannot be diff"):
        unroll(softening_method(tr.SofteningPolicy(), FAMILY, 4), task, create_graph=True)


def test_a_run_in_two_parts_is_the_same_as_in_one() -> None:
    policy = tr.SofteningPolicy(feedback=True)
    with torch.no_grad():
        policy.gains.fill_(0.3)
    method = softening_method(policy, FAMILY, 20)
    task = FAMILY.sample(2, "tune", 0)
    whole = unroll(method, task)
    halves = unroll(method, task, after=unroll(method, task, until=7))
    assert torch.equal(whole.params, halves.params)


def test_instances_do_not_influence_one_another() -> None:
    policy = tr.SofteningPolicy(feedback=True)
    with torch.no_grad():
        policy.gains.fill_(0.3)
    task = FAMILY.sample(3, "tune", 0)
    method = softening_method(policy, FAMILY, 10)
    together = unroll(method, task).params
    for i in range(3):
        alone = unroll(method, task.select([i])).params
        torch.testing.assert_close(alone[0], together[i], rtol=1e-7, atol=1e-7)


def test_the_outer_gradient_is_that_of_finite_differences() -> None:
    policy = tr.SofteningPolicy()
    method = softening_method(policy, FAMILY, 3)
    task = FAMILY.sample(2, "tune", 1)
    name = "renderer.start"

    def error(values: Tensor, graph: bool) -> Tensor:
        run = unroll(method, task, create_graph=graph, params={name: values})
        return torch.log(task.true_error(run.params)).sum()

    values = torch.zeros(5, dtype=torch.float64, requires_grad=True)
    (grad,) = torch.autograd.grad(error(values, True), values)
    small = 1e-5
    for k in range(5):
        step = torch.zeros(5, dtype=torch.float64)
        step[k] = small
        up, down = (error(values.detach() + sign * step, False) for sign in (1, -1))
        assert float(grad[k]) == pytest.approx(float((up - down) / (2 * small)), rel=2e-3, abs=1e-6)


def measures(*values: float) -> Measures:
    """Of one scene: distance, pixel and mismatch."""
    distance, pixel, mismatch = (torch.tensor([x], dtype=torch.float64) for x in values)
    return Measures(distance, pixel, mismatch, torch.tensor([False]))


def test_where_backs_are_drawn_coverages_add_up_less() -> None:
    both = Shape3D(views=2, subdivisions=1, image_size=12), Shape3D(cull_backfaces=True)
    for family, p in zip(both, (2.2, 1.2), strict=True):
        task = family.sample(2, "tune", 0)
        found = measured(task, task.start()).backs
        assert found.tolist() == [p == 2.2] * 2
        setting = tr.SofteningPolicy().at(torch.tensor(0.3), DISTANCE, DISTANCE, backs=found)
        torch.testing.assert_close(setting.p, torch.full_like(DISTANCE, p), rtol=1e-6, atol=0)


def test_signals_are_what_was_seen() -> None:
    first, now = measures(0.3, 0.1, 0.5), measures(0.05, 0.1, 0.05)
    watch = Watch.begin(first)
    torch.testing.assert_close(
        watch.signals(), torch.tensor([[math.log(0.35), 0.0, 0.0, 0.0]], dtype=torch.float64)
    )
    corners = torch.zeros(1, 2, 3, dtype=torch.float64)
    corners[..., 2] = 1.0
    for k in range(40):  # a steady motion
        corners = corners + torch.tensor([0.1, 0.0, 0.0], dtype=torch.float64)
        watch = watch.stepped(torch.tensor([2.0 / (k + 1)]), corners)
    distance, mismatch, loss, agreement = watch.looked(now).signals()[0].tolist()
    assert distance == pytest.approx(math.log(0.1))
    assert mismatch == pytest.approx(math.log(0.051 / 0.501))
    assert loss == pytest.approx(-math.log(40))
    assert agreement == pytest.approx(1.0, abs=1e-3)
    for k in range(40):  # to and fro
        corners = corners + (-1) ** k * torch.tensor([0.1, 0.0, 0.0], dtype=torch.float64)
        watch = watch.stepped(torch.tensor([1.0]), corners)
    assert float(watch.signals()[0, 3]) == pytest.approx(0.3 / 1.7, abs=1e-2)  # (1-m)/(1+m)


def test_corners_that_are_not_drawn_do_not_count_as_motion() -> None:
    first = measures(1.0, 1.0, 1.0)
    watch = Watch.begin(first)
    corners = torch.zeros(1, 2, 3, dtype=torch.float64)
    for k in range(3):
        watch = watch.stepped(torch.ones(1), corners + k)
    assert float(watch.path) > 0
    still = Watch.begin(first)
    for k in range(3):
        still = still.stepped(torch.ones(1), corners + torch.tensor([k, k, 0.0]))
    assert float(still.path) == 0.0
    assert float(still.signals()[0, 3]) == 0.0


def test_it_works_where_methods_are_evaluated() -> None:
    found = evaluate(softening_method(tr.SofteningPolicy(), FAMILY, 5), FAMILY, 3, batch_size=2)
    assert found.errors.shape == (3,)


def test_what_it_cannot_use_is_refused_by_name() -> None:
    policy = tr.SofteningPolicy()
    with pytest.raises(TypeError, match=r"^policy: expected a SofteningPolicy"):
        softening_method(nn.Identity(), FAMILY, 5)  # type: ignore[arg-type]
    with pytest.raises(TypeError, match=r"^family: ToyFamily has no renderer"):
        softening_method(policy, ToyFamily(), 5)
    method = softening_method(policy, FAMILY, 5)
    with pytest.raises(TypeError, match=r"^task: ToyBatch has no outlines"):
        unroll(method, ToyFamily().sample(2, "tune", 0))
