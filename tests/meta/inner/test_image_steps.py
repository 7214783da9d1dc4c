"""The inner loop with steps measured in the picture: units, instances, outer gradients."""

from __future__ import annotations

import dataclasses
import pickle

import pytest
import torch

import taichi_raster as tr
from meta import MeasuredBatch, Method, OutlinedBatch, unroll
from meta.estimators import es_gradient, exact_gradient, learn_online
from meta.inner.updates import SGD, Adam, ImageSteps, Momentum, UpdateRule
from meta.outer.loss import OuterLoss
from tasks import Occlusion, Picture, Pose, Shape2D, Shape3D
from toy_tasks import ToyFamily, measured_task, toy_method

pytestmark = pytest.mark.runs_on(arch="cpu", precision="f64")
RULES: list[UpdateRule] = [SGD(), Momentum(0.8), Adam(eps=1e-3)]


@pytest.mark.parametrize("rule", RULES, ids=repr)
@pytest.mark.parametrize("unit", [1e-5, 180.0])
def test_units_of_the_unknowns_change_no_run(rule: UpdateRule, unit: float) -> None:
    method = toy_method(ImageSteps(rule), steps=8)
    found = unroll(method, measured_task(4, unit)).params / unit
    torch.testing.assert_close(found, unroll(method, measured_task(4)).params)


@pytest.mark.parametrize("rule", RULES, ids=repr)
def test_instances_do_not_influence_one_another(rule: UpdateRule) -> None:
    task, method = measured_task(4), toy_method(ImageSteps(rule), steps=8)
    together = unroll(method, task).params
    for i in range(4):
        alone = unroll(method, task.select([i])).params
        torch.testing.assert_close(together[i : i + 1], alone, rtol=0, atol=1e-12)


@pytest.mark.parametrize("recompute", [True, False])
@pytest.mark.parametrize("rule", RULES, ids=repr)
def test_the_outer_gradient_is_that_of_finite_differences(rule, recompute) -> None:
    task, method = measured_task(3), toy_method(ImageSteps(rule), steps=5)

    def outer(values: dict[str, torch.Tensor], create_graph: bool) -> torch.Tensor:
        run = unroll(method, task, create_graph, values, recompute=recompute)
        return task.true_error(run.params).log().mean()

    own = {name: value.requires_grad_() for name, value in method.parameter_dict().items()}
    gradients = torch.autograd.grad(outer(own, True), list(own.values()))
    for (name, value), gradient in zip(own.items(), gradients, strict=True):
        h = 1e-6
        ends = [
            float(outer({**own, name: (value + sign * h).detach()}, False).detach())
            for sign in (1, -1)
        ]
        assert float(gradient) == pytest.approx((ends[0] - ends[1]) / (2 * h), rel=1e-5, abs=1e-8)


def test_estimators_and_learning_online_take_the_rule() -> None:
    task, method = measured_task(4), toy_method(ImageSteps(), steps=5)
    outer = OuterLoss()
    exact = exact_gradient(method, task, outer)
    generator = torch.Generator().manual_seed(0)
    smoothed = es_gradient(method, task, outer, generator=generator)
    assert exact.grads.keys() == smoothed.grads.keys()
    run = learn_online(method, task, lr=1e-3)
    assert bool(torch.isfinite(run.params).all())


def test_what_is_not_seen_stands_still() -> None:
    task, method = measured_task(4), toy_method(ImageSteps(), steps=6)
    found = unroll(method, task).params
    assert torch.equal(found[:, 2], task.start()[:, 2])
    hidden = dataclasses.replace(task, initial=torch.cat([task.hidden, task.hidden[:, :1]], 1))
    assert torch.equal(unroll(method, hidden).params, hidden.start())  # gradients are zero


FAMILIES = {
    "Shape2D": (Shape2D(triangles=(1, 2), image_size=12), 0.04),
    "Picture": (Picture(triangles=(2, 3), image_size=12), 0.04),
    "Occlusion": (Occlusion(shapes=(2, 3), image_size=12, positions=True), 0.02),
    "Pose": (Pose(image_size=16), 0.04),
    "Shape3D": (dataclasses.replace(Shape3D.coarse(), views=4, image_size=16), 0.02),
}


@pytest.mark.parametrize(("family", "eta"), FAMILIES.values(), ids=FAMILIES)
def test_families_can_be_measured(family, eta: float) -> None:
    task = family.sample(2, "tune", 0)
    assert isinstance(task, MeasuredBatch)
    renderer = family.renderer(tr.Distribution("gaussian", tr.Geometric(0.1, 0.02)))
    run = unroll(Method(renderer, ImageSteps(), tr.Constant(eta), 2), task)
    before = task.geometry(task.start())
    after = task.geometry(unroll(Method(renderer, ImageSteps(), tr.Constant(eta), 1), task).params)
    before, after = (x[0] if isinstance(x, tuple) else x for x in (before, after))
    moves = (after - before).square().sum(-1).reshape(2, -1)
    counted = (before[..., 2] > 0).reshape(2, -1)
    size = (torch.where(counted, moves, 0.0).sum(1) / counted.sum(1)).sqrt()
    # The first order of one step, and colours may hold corners back.
    least = 0.0 if isinstance(task.geometry(task.start()), tuple) else 0.6
    assert bool((size < 1.4 * eta).all() and (size > least * eta).all())
    assert bool(torch.isfinite(run.params).all())


@pytest.mark.parametrize(
    "family",
    [
        Shape2D(triangles=2, image_size=12),
        Occlusion(shapes=(2, 3), image_size=12, positions=True),
        Pose(image_size=16),
        Pose(image="shaded", image_size=16),
        dataclasses.replace(Shape3D.coarse(), views=4, image_size=16),
        dataclasses.replace(Shape3D.coarse(image="shaded"), views=4, image_size=16),
    ],
    ids=["shape2d", "occlusion", "pose", "shaded", "shape3d", "solid"],
)
def test_families_show_how_far_outlines_are_apart(family) -> None:
    task = family.sample(2, "tune", 0)
    assert isinstance(task, OutlinedBatch)
    drawn, target = task.outlines(task.start())
    assert drawn.shape == target.shape and drawn.ndim == 3 and len(drawn) % 2 == 0
    assert float(target.min()) >= 0 and 0.9 < float(target.max()) <= 1
    assert float(tr.outline_distance(drawn, target).max()) > 0
    if not isinstance(family, Shape3D):
        hidden = getattr(task, "solution" if isinstance(family, Occlusion) else "hidden")
        there, same = task.outlines(hidden)
        torch.testing.assert_close(there, same)


def test_colours_over_black_show_coverage() -> None:
    for image in ("silhouette", "shaded"):
        task = Pose(image=image, image_size=24).sample(3, "tune", 0)
        target = task.outlines(task.start())[1]
        if image == "silhouette":
            coverage = target
    assert bool((target >= coverage - 1e-6).all())
    # Elsewhere than at edges it is the same.
    plain = (coverage < 1e-6) | (coverage > 1 - 1e-6)
    torch.testing.assert_close(target[plain], coverage[plain])


def test_a_task_without_geometry_and_a_rule_without_a_task_are_refused() -> None:
    with pytest.raises(TypeError, match=r"^task: ToyBatch has no geometry"):
        unroll(toy_method(ImageSteps(), steps=2), ToyFamily().sample(2, "train", 0))
    rule, x = ImageSteps(), torch.ones(2, 3)
    with pytest.raises(ValueError, match=r"^geometry: unknown"):
        rule.step(x, x, rule.init(x), 0.1)
    with pytest.raises(ValueError, match="appearance must be finite"):
        ImageSteps(appearance=0.0)
    assert pickle.loads(pickle.dumps(rule)) == rule
