"""Shape2D: what is drawn, what is judged, and a user's own task beside it."""

from dataclasses import dataclass

import numpy as np
import pytest
import torch

import taichi_raster as tr
from meta.estimators import es_gradient
from meta.evaluation.evaluate import evaluate
from meta.inner.method import Method
from meta.inner.protocol import TaskBatch, TaskFamily
from meta.inner.unroll import unroll
from meta.inner.updates import SGD, Adam
from meta.outer.loss import OuterLoss
from meta.outer.settings import TrainerSettings
from meta.outer.trainer import OuterTrainer
from tasks import FAILURE_THRESHOLD, Shape2D
from tasks.triangles import MIN_GAP, RADII

pytestmark = pytest.mark.runs_on(arch="cpu", precision="f64")

PERMUTATIONS = [[0, 1, 2], [0, 2, 1], [1, 0, 2], [1, 2, 0], [2, 0, 1], [2, 1, 0]]


@pytest.fixture(scope="module")
def family():
    return Shape2D(triangles=(1, 3), image_size=12)


@pytest.fixture(scope="module")
def task(family):
    return family.sample(40, "train", 3)


def test_it_meets_the_protocols(family, task):
    assert isinstance(family, TaskFamily) and isinstance(task, TaskBatch)


def test_a_batch_is_a_function_of_its_arguments_alone(family):
    again = Shape2D(triangles=(1, 3), image_size=12).sample(40, "train", 3)
    for name in ("hidden", "initial", "depth", "colours", "present"):
        assert torch.equal(getattr(family.sample(40, "train", 3), name), getattr(again, name))


def test_a_smaller_batch_begins_a_larger_one(family, task):
    few = family.sample(5, "train", 3)
    assert torch.equal(few.hidden, task.hidden[:5]) and torch.equal(few.initial, task.initial[:5])


def test_streams_indices_and_seeds_share_no_instance():
    drawn = [
        Shape2D(1, image_size=12, seed=seed).sample(6, stream, index).hidden
        for seed in (0, 1)
        for stream in ("tune", "train", "test")
        for index in range(4)
    ]
    instances = torch.cat(drawn).reshape(-1, 6)
    distance = torch.cdist(instances, instances) + torch.eye(len(instances))
    assert distance.min() > 1e-3


def test_hidden_triangles_are_as_described(task):
    x, y = task.hidden[..., 0], task.hidden[..., 1]
    twice_area = (x[..., 1] - x[..., 0]) * (y[..., 2] - y[..., 0])
    twice_area = twice_area - (x[..., 2] - x[..., 0]) * (y[..., 1] - y[..., 0])
    assert bool((twice_area > 0).all())  # counter-clockwise
    sides = (task.hidden - task.hidden.roll(1, dims=2)).norm(dim=-1)
    # a chord of the circumcircle: 2 R sin(gap / 2), gap >= MIN_GAP
    assert sides.min() >= 2 * RADII[0] * np.sin(MIN_GAP / 2) - 1e-12
    assert task.hidden.abs().max() <= 0.4 + RADII[1]


def test_starts_are_within_reach_of_the_hidden_instance(task):
    offset = task.initial - task.hidden
    assert offset.abs().max() <= 0.45
    assert offset.abs().max() > 0.35  # and use that reach


def test_counts_depths_and_colours_are_as_described(task, family):
    counts = task.present.sum(dim=1)
    assert sorted(set(counts.tolist())) == [1, 2, 3]
    for i, count in enumerate(counts):
        own = task.depth[i, task.present[i]]
        assert sorted(own.tolist()) == [1.0, 1.5, 2.0][:count]
        assert bool((task.depth[i, ~task.present[i]] > family.far).all())
    assert task.colours.max(dim=-1).values.min() >= 0.85  # bright
    assert task.colours.min(dim=-1).values.max() <= 0.15 + 1e-12  # saturated
    between = (task.colours[:, :, None] - task.colours[:, None]).norm(dim=-1) + 9 * torch.eye(3)
    assert between.min() > 0.4


def test_the_hidden_instance_has_no_error(task):
    metrics = task.metrics(task.hidden)
    assert metrics["parameter_error"].max() < 1e-11
    assert metrics["image_error"].max() == 0 and metrics["failure"].max() == 0


def test_relabelling_the_vertices_of_a_triangle_changes_no_error(task):
    generator = torch.Generator().manual_seed(0)
    choice = torch.randint(6, (task.batch_size, 3), generator=generator)
    order = torch.tensor(PERMUTATIONS)[choice][..., None].expand(-1, -1, -1, 2)
    other = task.initial.gather(2, order)
    torch.testing.assert_close(task.true_error(other), task.true_error(task.initial))
    torch.testing.assert_close(task.image_error(other), task.image_error(task.initial))


def test_the_parameter_error_is_the_rms_distance_of_present_vertices(task):
    # Far fewer than half a side away, the identity is the nearest labelling.
    offset = 0.01 * torch.ones_like(task.hidden)
    offset[..., 1] *= 2
    moved = torch.where(task.present[..., None, None], task.hidden + offset, task.hidden + 5.0)
    wanted = torch.full((task.batch_size,), 0.01 * 5**0.5, dtype=torch.float64)
    torch.testing.assert_close(task.true_error(moved), wanted)


def test_the_parameter_error_equals_a_search_over_relabellings(task):
    for i in range(5):
        total, count = 0.0, int(task.present[i].sum())
        for k in range(count):
            total += min(
                float((task.initial[i, k, order] - task.hidden[i, k]).square().sum())
                for order in PERMUTATIONS
            )
        expected = (total / (3 * count)) ** 0.5
        assert float(task.true_error(task.initial)[i]) == pytest.approx(expected)


def test_errors_are_differentiable_even_at_the_solution(task):
    for params in (task.hidden, task.initial):
        params = params.clone().requires_grad_()
        (task.true_error(params) + task.image_error(params)).sum().backward()
        assert torch.isfinite(params.grad).all()
    assert params.grad.abs().max() > 0


def test_failure_is_a_parameter_error_above_the_threshold(task):
    metrics = task.metrics(0.7 * task.hidden + 0.3 * task.initial)
    expected = metrics["parameter_error"] > FAILURE_THRESHOLD
    assert FAILURE_THRESHOLD == 0.1 and torch.equal(metrics["failure"] == 1, expected)
    assert expected.any() and not expected.all()


def test_padding_renders_nothing_and_has_exactly_zero_gradient(family, task):
    renderer = family.renderer(tr.Distribution("logistic", scale=0.1))
    params = task.initial.clone().requires_grad_()
    (gradient,) = torch.autograd.grad(task.loss(params, renderer, 0.0).sum(), params)
    assert bool((gradient[~task.present] == 0).all())
    assert bool((gradient[task.present].abs().amax(dim=(1, 2)) > 0).all())
    elsewhere = torch.where(task.present[..., None, None], task.initial, -task.initial)
    assert torch.equal(task.loss(elsewhere, renderer, 0.0), task.loss(task.initial, renderer, 0.0))
    assert torch.equal(task.image_error(elsewhere), task.image_error(task.initial))


def test_repeat_is_copy_major(task):
    twice = task.repeat(2)
    assert twice.batch_size == 80
    for copy in range(2):
        part = slice(copy * 40, (copy + 1) * 40)
        assert torch.equal(twice.hidden[part], task.hidden)
        assert torch.equal(twice.target[part], task.target)
    errors = twice.true_error(twice.start())
    assert torch.equal(errors, task.true_error(task.start()).repeat(2))
    some = task.select([7, 2])
    assert torch.equal(some.target, task.target[[7, 2]])


def test_the_inner_loss_is_the_mse_over_rgba(family, task):
    renderer = family.renderer(tr.Distribution("gaussian", scale=0.1))
    image = task.soft_image(task.initial, renderer, 0.3)
    assert image.shape == task.target.shape == (40, 12, 12, 4)
    by_hand = (image - task.target).square().flatten(1).mean(dim=1)
    torch.testing.assert_close(task.loss(task.initial, renderer, 0.3), by_hand)


def test_descent_solves_an_easy_instance():
    task = Shape2D(1, image_size=24).sample(4, "tune", 0)
    near = torch.where(torch.ones_like(task.initial) > 0, 0.8 * task.hidden + 0.2 * task.initial, 0)
    easy = type(task)(task.family, task.hidden, near, task.depth, task.colours, task.present)
    edge = tr.Distribution("logistic", scale=tr.Geometric(0.03, 0.01))
    method = Method(task.family.renderer(edge), Adam(), tr.Constant(0.01), 40)
    before, after = (easy.true_error(x) for x in (near, unroll(method, easy).params))
    assert bool((after < 0.5 * before).all()) and after.max() < FAILURE_THRESHOLD


def test_dtype_can_be_chosen():
    task = Shape2D(1, image_size=8, dtype=torch.float32).sample(2, "test", 0)
    assert task.start().dtype == task.colours.dtype == torch.float32


@pytest.mark.parametrize(
    ("make", "named"),
    [
        (lambda: Shape2D(0), "triangles"),
        (lambda: Shape2D((3, 1)), "triangles"),
        (lambda: Shape2D(1, near=1.5), "near, far"),
        (lambda: Shape2D(6), "near, far: 6 triangles have depths 1.0 to 3.5"),
        (lambda: Shape2D(1, seed=-1), "seed"),
        (lambda: Shape2D(1).sample(0, "test", 0), "batch_size"),
        (lambda: Shape2D(1).sample(1, "exam", 0), r"stream: expected one of \['tune', 'train', 't"),  # type: ignore[arg-type]
        (lambda: Shape2D(1).sample(1, "test", -1), "index"),
        (lambda: Shape2D(1, image_size=8).sample(1, "test", 0).repeat(0), "copies"),
    ],
)
def test_wrong_arguments_are_refused_by_name(make, named):
    with pytest.raises(ValueError, match=named):
        make()


@dataclass(frozen=True)
class Disc:
    """A user's own task, known to nobody: where is the bright square? Needs nothing but methods."""

    place: torch.Tensor  # (B, 2)
    size = 10

    batch_size = property(lambda self: len(self.place))

    def start(self):
        return torch.zeros_like(self.place)

    def faces(self, centre):
        corners = torch.tensor([[-1.0, -1], [1, -1], [1, 1], [-1, 1]], dtype=torch.float64) * 0.3
        square = centre[:, None] + corners
        xy = torch.stack([square[:, [0, 1, 2]], square[:, [0, 2, 3]]], dim=1)
        fv = torch.cat([xy, torch.ones_like(xy[..., :1])], dim=-1)
        return fv, torch.ones(len(centre), 2, 3, 1, dtype=torch.float64)

    def picture(self, centre):
        return tr.SharpRasterizer(self.size)(*self.faces(centre))

    def loss(self, params, renderer, progress):
        image = renderer(*self.faces(params), progress=progress)
        return (image - self.picture(self.place)).square().mean(dim=(1, 2, 3))

    def true_error(self, params):
        return ((params - self.place).square().sum(dim=1) + 1e-24).sqrt()

    def image_error(self, params):
        return (self.picture(params) - self.picture(self.place)).square().mean(dim=(1, 2, 3))

    def metrics(self, params):
        return {"parameter_error": self.true_error(params)}

    def repeat(self, copies):
        return Disc(self.place.repeat(copies, 1))


class Discs:
    def sample(self, batch_size, stream, index):
        seed = {"tune": 0, "train": 1, "test": 2}[stream] + 3 * index
        generator = torch.Generator().manual_seed(seed)
        place = torch.rand((batch_size, 2), generator=generator, dtype=torch.float64) - 0.5
        return Disc(place)


def test_a_users_own_task_trains_and_evaluates_without_touching_this_repository():
    assert isinstance(Discs(), TaskFamily) and isinstance(Discs().sample(2, "tune", 0), TaskBatch)
    edge = tr.Distribution("logistic", scale=tr.Knots([0.02, 0.02]))
    method = Method(tr.SoftRasterizer(10, edge=edge), SGD(), tr.Knots([0.1, 0.1]), 5)
    settings = TrainerSettings(
        iterations=4, batch_size=4, lr=0.3, validate_every=2, validation_batch_size=8
    )
    options = {"pairs": 2, "sigma": 0.2, "directions": "per_task"}
    before = evaluate(method, Discs(), 8)
    trainer = OuterTrainer(method, Discs(), OuterLoss("true"), es_gradient, options, settings)
    result = trainer.run(quiet=True)
    after = evaluate(method, Discs(), 8)
    assert result.best.score < result.start_score
    assert after.errors.mean() < before.errors.mean()
