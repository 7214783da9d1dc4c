"""Occlusion: what is drawn, what the picture tells of depths, and who can reorder shapes."""

import itertools

import numpy as np
import pytest
import torch

import taichi_raster as tr
from meta.inner.method import Method
from meta.inner.protocol import TaskBatch, TaskFamily
from meta.inner.unroll import unroll
from meta.inner.updates import Adam
from tasks.occlusion import DISPLACEMENT, FAR, MARGIN, NEAR, POSITION_UNIT, Occlusion, depth_share
from tasks.overlapping import (
    KINDS,
    LEAST_SEEN,
    LEAST_SHOWN,
    area,
    overlapping_shapes,
    random_outline,
)

pytestmark = pytest.mark.runs_on(arch="cpu", precision="f32")

EDGE = tr.Distribution("gaussian", scale=0.03)


@pytest.fixture(scope="module")
def family():
    return Occlusion(shapes=(3, 5), image_size=24)


@pytest.fixture(scope="module")
def task(family):
    return family.sample(24, "train", 3)


@pytest.fixture(scope="module")
def moving():
    return Occlusion(shapes=(3, 5), positions=True, image_size=24).sample(24, "train", 3)


def ordered(task, gap):
    """Depth unknowns (B, K) in the hidden order, neighbours `gap` of the range apart."""
    rank = task.hidden[..., 2].argsort(dim=1).argsort(dim=1).float()
    return torch.logit((0.3 + gap * rank - 0.01) / 0.98)


def test_it_meets_the_protocols(family, task, moving):
    assert all(isinstance(x, kind) for x, kind in ((family, TaskFamily), (task, TaskBatch)))
    assert task.start().shape == (24, 5) and moving.start().shape == (24, 5, 3)
    assert task.target.shape == task.sharp_image(task.start()).shape == (24, 24, 24, 4)


def test_a_batch_is_a_function_of_its_arguments_alone(task):
    again = Occlusion(shapes=(3, 5), image_size=24).sample(5, "train", 3)
    for name in ("hidden", "initial", "colours", "shown", "present"):
        assert torch.equal(getattr(again, name), getattr(task, name)[:5])
    faces = again.owner.shape[1]
    assert torch.equal(again.owner, task.owner[:5, :faces])
    assert torch.equal(again.corners, task.corners[:5, :faces])
    assert bool((task.owner[:5, faces:] < 0).all())


def test_streams_indices_and_seeds_share_no_instance():
    drawn = [
        Occlusion(3, seed=seed).sample(4, stream, index).initial
        for seed in (0, 1)
        for stream in ("tune", "train", "test")
        for index in range(2)
    ]
    instances = torch.cat(drawn).reshape(-1, 9)
    assert (torch.cdist(instances, instances) + torch.eye(len(instances))).min() > 1e-3


@pytest.mark.parametrize("kind", KINDS)
def test_outlines_are_convex_and_counter_clockwise(kind):
    rng = np.random.default_rng(0)
    for _ in range(20):
        outline = random_outline(rng, kind)
        side = np.roll(outline, -1, axis=0) - outline
        after = np.roll(side, -1, axis=0)
        assert (side[:, 0] * after[:, 1] > side[:, 1] * after[:, 0]).all() and area(outline) > 0.02


@pytest.mark.parametrize("count", [3, 12])
def test_every_shape_is_seen_and_overlaps_another_by_hard_buffers(count):
    size, inexact = 96, 0.1  # pixels; the stack was checked on a coarser grid of points
    for seed in range(4):
        stack = overlapping_shapes(np.random.default_rng(seed), count)
        fans = [
            [(k, o[0] + c, a + c, b + c) for a, b in itertools.pairwise(o)]
            for k, (o, c) in enumerate(zip(stack.outlines, stack.centres, strict=True))
        ]
        faces = [face for fan in fans for face in fan]
        owner = np.array([face[0] for face in faces])
        xy = torch.tensor(np.array([face[1:] for face in faces]), dtype=torch.float32)[None]
        depth = torch.tensor(1.0 + 0.1 * owner, dtype=torch.float32)[None]
        seen = tr.hard_buffers(tr.lift_triangles(xy, depth), size).face[0].numpy()
        pixel = 4 / size**2
        for k, outline in enumerate(stack.outlines):
            share = pixel * np.isin(seen, np.flatnonzero(owner == k)).sum() / area(outline)
            assert share > LEAST_SEEN - inexact
        pairs = stack.shown | stack.shown.T
        assert pairs.any(axis=1).all()
        assert not np.tril(stack.shown).any()  # front to back


def test_a_pair_is_shown_where_swapping_it_changes_enough_of_the_picture():
    """The second and third shape in depth change places."""
    task = Occlusion(shapes=(3, 5), image_size=48).sample(16, "train", 3)
    depths = ordered(task, 0.1)
    order = depths.masked_fill(~task.present, torch.inf).argsort(dim=1)
    rows = torch.arange(task.batch_size)
    front, back = order[:, 1], order[:, 2]
    swapped = depths.clone()
    swapped[rows, front], swapped[rows, back] = depths[rows, back], depths[rows, front]
    difference = (task.sharp_image(swapped) - task.target).abs().amax(dim=-1)
    changed = 4 * (difference > 0.2).float().mean(dim=(1, 2))  # NDC^2
    shown = task.shown[rows, front, back]
    assert shown.any() and not shown.all()
    assert not bool(task.shown[rows, back, front].any())
    # To within what the coarse grid of points and the rims of shapes make of an area.
    assert changed[~shown].max() < 1.3 * LEAST_SHOWN
    assert changed[shown].min() > 0.7 * LEAST_SHOWN


def test_the_hidden_instance_and_any_depths_in_its_order_solve_it(task, moving):
    for params in (task.solution, ordered(task, 1.5 * MARGIN), ordered(task, 0.1)):
        metrics = task.metrics(params)
        assert metrics["parameter_error"].max() == 0 and metrics["image_error"].max() < 1e-12
        assert metrics["order_accuracy"].min() == 1 and metrics["all_ordered"].min() == 1
    assert moving.metrics(moving.solution)["parameter_error"].max() < 1e-6
    assert moving.metrics(moving.solution)["failure"].max() == 0


def test_the_depth_error_ignores_increasing_affine_maps(task):
    share = depth_share(task.solution)
    same = torch.logit((0.3 + 0.4 * share - 0.01) / 0.98)
    assert task.metrics(same)["depth_error"].max() < 1e-5
    reverse = task.metrics(-task.solution)["depth_error"]
    # No increasing map is better than a constant: the spread of the hidden depths is left.
    for i in range(3):
        own = share[i, task.present[i]]
        assert float(reverse[i]) == pytest.approx(float(own.std(correction=0)), rel=1e-3)


def test_one_wrong_pair_is_a_failure_and_counts_by_its_share(task):
    tie = torch.zeros_like(task.solution)
    torch.testing.assert_close(task.true_error(tie), torch.ones(24))  # log2(1 + 1) for every pair
    pairs = task.shown.sum(dim=(1, 2))
    assert pairs.max() < 10
    depths = ordered(task, 0.1)
    for i in range(8):
        front, back = torch.nonzero(task.shown[i])[0]
        both = depths[[i]].clone()
        both[0, front] = both[0, back]
        gap = depth_share(both[0]) - depth_share(both[0])[:, None]
        hinge = (1 - gap[task.shown[i]] / MARGIN).clamp(min=0)
        expected = torch.log2(1 + hinge).mean()
        error = task.select([i]).true_error(both)[0]
        assert float(error) == pytest.approx(float(expected)) and error >= 1 / pairs[i]
        assert error > task.family.failure_threshold


def test_half_of_the_pairs_start_in_the_wrong_order():
    task = Occlusion(shapes=(3, 5), image_size=8).sample(128, "tune", 0)
    accuracy = task.metrics(task.start())["order_accuracy"].mean()
    assert 0.4 < accuracy < 0.6  # 500 pairs or so: three standard errors are 0.07


def test_starts_and_counts_are_as_described(task, moving):
    assert sorted(set(task.present.sum(dim=1).tolist())) == [3, 4, 5]
    assert torch.equal(task.initial[..., :2], task.hidden[..., :2])
    offset = POSITION_UNIT * (moving.initial - moving.hidden)[..., :2].abs()
    assert 0.9 * DISPLACEMENT < offset.max() <= DISPLACEMENT + 1e-6
    expected = (POSITION_UNIT * (moving.initial - moving.hidden)[0, moving.present[0], :2]).square()
    error = moving.metrics(moving.start())["position_error"][0]
    assert float(error) == pytest.approx(float(expected.sum(dim=1).mean().sqrt()), rel=1e-5)


def test_depths_never_leave_the_range_and_keep_their_gradient(task):
    depth = NEAR + (FAR - NEAR) * depth_share(torch.tensor([-1e4, -5.0, 0.0, 5.0, 1e4]))
    assert depth.min() > NEAR and depth.max() < FAR
    far_out = (3 * task.start() + 2).requires_grad_()
    loss = task.loss(far_out, task.family.renderer(EDGE), 0.0)
    (gradient,) = torch.autograd.grad(loss.sum(), far_out)
    assert bool((gradient[task.present] != 0).all())


def test_padding_renders_nothing_and_has_exactly_zero_gradient(moving):
    renderer = moving.family.renderer(EDGE)
    params = moving.start().clone().requires_grad_()
    (gradient,) = torch.autograd.grad(moving.loss(params, renderer, 0.0).sum(), params)
    assert bool((gradient[~moving.present] == 0).all())
    elsewhere = torch.where(moving.present[..., None], moving.start(), 1 - moving.start())
    for measure in (moving.image_error, moving.true_error, lambda x: moving.loss(x, renderer, 0.0)):
        assert torch.equal(measure(elsewhere), measure(moving.start()))


def test_errors_are_differentiable_even_at_the_solution(task, moving):
    for batch in (task, moving):
        for params in (batch.solution, batch.start()):
            params = params.clone().requires_grad_()
            (batch.true_error(params) + batch.image_error(params)).sum().backward()
            assert torch.isfinite(params.grad).all()
        assert params.grad.abs().max() > 0


def test_repeat_is_copy_major_and_select_keeps_instances(moving):
    twice, some = moving.repeat(2), moving.select([7, 2])
    assert torch.equal(twice.target, moving.target.repeat(2, 1, 1, 1))
    errors = moving.true_error(moving.start())
    assert torch.equal(twice.true_error(twice.start()), errors.repeat(2))
    assert torch.equal(some.target, moving.target[[7, 2]])
    assert torch.equal(some.true_error(some.start()), errors[[7, 2]])
    renderer = moving.family.renderer(EDGE)
    losses = moving.loss(moving.start(), renderer, 0.0)
    torch.testing.assert_close(twice.loss(twice.start(), renderer, 0.0), losses.repeat(2))


def test_only_a_soft_depth_reorders_shapes(task):
    task, accuracies = task.select(list(range(12))), []
    for depth in (tr.HardDepth(), tr.SoftmaxDepth(0.003), None):
        renderer = task.family.renderer(EDGE, depth)
        run = unroll(Method(renderer, Adam(), tr.Constant(0.1), 30), task)
        accuracies.append(float(task.metrics(run.params)["order_accuracy"].mean()))
    start = float(task.metrics(task.start())["order_accuracy"].mean())
    hard, narrow, wide = accuracies
    assert hard == start and wide > 0.75 and wide > narrow + 0.2


def test_many_more_shapes_than_in_training_are_the_same_task():
    task = Occlusion(shapes=(10, 16), positions=True, image_size=24).sample(4, "test", 0)
    assert task.start().shape == (4, 16, 3) and task.present.sum(dim=1).min() >= 10
    assert task.metrics(task.solution)["all_ordered"].min() == 1
    loss = task.loss(task.start(), task.family.renderer(EDGE), 0.5)
    assert loss.shape == (4,) and torch.isfinite(loss).all()


@pytest.mark.parametrize(
    ("error", "make", "named"),
    [
        (ValueError, lambda: Occlusion(1), "shapes"),
        (ValueError, lambda: Occlusion((4, 3)), "shapes"),
        (TypeError, lambda: Occlusion(3, positions=1), "positions"),  # type: ignore[arg-type]
        (ValueError, lambda: Occlusion(3, seed=-1), "seed"),
        (ValueError, lambda: Occlusion(3).sample(0, "test", 0), "batch_size"),
        (ValueError, lambda: Occlusion(3).sample(1, "exam", 0), "stream"),  # type: ignore[arg-type]
        (ValueError, lambda: Occlusion(3, image_size=8).sample(1, "test", 0).repeat(0), "copies"),
    ],
)
def test_wrong_arguments_are_refused_by_name(error, make, named):
    with pytest.raises(error, match=named):
        make()
