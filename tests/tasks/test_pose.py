"""Pose: what is drawn, what its unknowns mean, and what is judged."""

import math
from typing import Any, Literal

import pytest
import torch

import taichi_raster as tr
from meta.inner.method import Method
from meta.inner.protocol import TaskBatch, TaskFamily
from meta.inner.unroll import unroll
from meta.inner.updates import Adam
from tasks.pose import HALF_FOV, MARGIN, Pose
from tasks.pose_meshes import FACES, KINDS, RADIUS, is_closed, random_body

pytestmark = pytest.mark.runs_on(arch="cpu", precision="f64")

SOFT = tr.Distribution("logistic", scale=0.03)


@pytest.fixture(scope="module")
def family():
    return Pose(image_size=24)


@pytest.fixture(scope="module")
def task(family):
    return family.sample(24, "train", 3)


def all_families(**changes):
    forms: tuple[Any, ...] = (
        ("silhouette", False, "any", "scaled"),
        ("silhouette", True, "any", "published"),
        ("shaded", True, "none", "scaled"),
        ("silhouette", True, "none", "published"),
    )
    return [
        Pose(image_size=24, image=image, unknown_fov=fov, overlap=overlap, units=units, **changes)
        for image, fov, overlap, units in forms
    ]


def at(task, **changes):
    """Unknowns at the truth but for these changes of its views."""
    views = task.family.views(task.hidden).clone()
    for name, value in changes.items():
        views[:, ("distance", "elevation", "azimuth", "half_fov", "x", "y").index(name)] += value
    return task.family.unknowns(views)


@pytest.mark.parametrize("family", all_families())
def test_it_meets_the_protocols_in_all_its_forms(family):
    task = family.sample(3, "tune", 0)
    assert all(isinstance(x, kind) for x, kind in ((family, TaskFamily), (task, TaskBatch)))
    known = 3 + family.unknown_fov + 2 * (family.overlap == "none")
    assert task.start().shape == task.hidden.shape == (3, known)
    channels = 4 if family.image == "shaded" else 1
    assert task.target.shape == task.sharp_image(task.start()).shape == (3, 24, 24, channels)
    params = task.start().clone().requires_grad_()
    loss = task.loss(params, family.renderer(SOFT), 0.5)
    (gradient,) = torch.autograd.grad(loss.sum(), params)
    assert loss.shape == (3,) and bool(torch.isfinite(gradient).all())
    metrics = task.metrics(task.hidden)
    assert all(values.shape == (3,) for values in metrics.values())
    for name in ("parameter_error", "image_error", "failure", "distance_error", "fov_error"):
        assert metrics[name].max() < 1e-9
    assert metrics["published_success"].min() == 1 and metrics["iou"].min() > 1 - 1e-9


def test_a_batch_is_a_function_of_its_arguments_alone(task):
    few = Pose(image_size=24).sample(5, "train", 3)
    for name in ("corners", "frames", "hidden", "initial"):
        assert torch.equal(getattr(few, name), getattr(task, name)[:5])


def test_streams_indices_and_seeds_share_no_instance():
    drawn = [
        Pose(seed=seed).sample(3, stream, index).initial
        for seed in (0, 1)
        for stream in ("tune", "train", "test")
        for index in range(2)
    ]
    instances = torch.cat(drawn)
    assert (torch.cdist(instances, instances) + torch.eye(len(instances))).min() > 1e-4


@pytest.mark.parametrize("units", ["scaled", "published"])
def test_truths_and_starts_are_distributed_as_published(units):
    family = Pose(tr.icosphere(0), units=units, unknown_fov=True, start_angle=(35, 55))
    task = family.sample(400, "train", 0)
    truth, start = family.views(task.hidden), family.views(task.initial)
    assert torch.allclose(truth[:, 1:], torch.tensor([0.0, 0, HALF_FOV, 0, 0]).double())
    angle = start[:, 1:3].norm(dim=1)
    for values, low, high in (
        (truth[:, 0], 2.5, 4.0),
        (start[:, 0], 2.0, 10.0),
        (start[:, 3], 10.0, 30.0),
        (angle, 35.0, 55.0),
    ):
        assert low - 1e-9 <= values.min() and values.max() <= high + 1e-9
        assert values.min() < low + (high - low) / 20 and values.max() > high - (high - low) / 20
        # five standard errors of the mean of a uniform distribution
        middle = float(values.mean()) - (low + high) / 2
        assert abs(middle) < 5 * (high - low) / math.sqrt(12 * 400)
    # frames: rows right, up, backward of an orbit; its elevation is asin of backward's y
    sine = task.frames[:, 2, 1]
    wanted = torch.randn(100000, generator=torch.Generator().manual_seed(0)) * 60
    assert abs(float(sine.square().mean() - torch.deg2rad(wanted).sin().square().mean())) < 0.1
    assert torch.allclose(torch.linalg.det(task.frames), torch.ones(400).double())


def test_starts_without_overlap_have_no_pixel_in_common_and_lie_within_the_picture():
    for fov in (False, True):
        task = Pose(image_size=24, overlap="none", unknown_fov=fov).sample(40, "test", 0)
        assert task.start_overlap.max() == 0
        start = task.sharp_image(task.start())[..., 0]
        assert float((start * task.target[..., 0]).max()) == 0
        edge = int(24 * (1 - MARGIN) / 2)
        for images in (start, task.target[..., 0]):
            inner = images[:, edge : 24 - edge, edge : 24 - edge]
            assert torch.equal(inner.sum(dim=(1, 2)), images.sum(dim=(1, 2)))
            assert images.sum(dim=(1, 2)).min() > 2
    assert Pose(image_size=24).sample(40, "test", 0).start_overlap.min() == 1


def test_scaled_and_published_units_show_the_same_pictures():
    for overlap in ("any", "none"):
        tasks = [
            Pose(image_size=24, unknown_fov=True, overlap=overlap, units=units).sample(4, "tune", 1)
            for units in ("scaled", "published")
        ]
        torch.testing.assert_close(tasks[0].target, tasks[1].target)
        starts = [task.sharp_image(task.start()) for task in tasks]
        torch.testing.assert_close(*starts)
        for task in tasks:
            views = task.family.views(task.initial)
            torch.testing.assert_close(task.family.unknowns(views), task.initial)


def test_a_true_camera_is_the_orbit_that_was_drawn():
    # The same picture by the library's own camera, without the change of frame.
    mesh = tr.box(0.5, 0.8, 1.1, dtype=torch.float64)
    family = Pose(mesh, image_size=24)
    task = family.sample(6, "tune", 0)
    backward = task.frames[:, 2]
    assert backward.abs().max() < 1
    distance = family.views(task.hidden)[:, :1]
    camera = tr.PerspectiveCamera(
        tr.look_at(distance * backward, up=task.frames[:, 1]), fov=2 * HALF_FOV
    )
    faces = tr.gather_faces(camera.project(mesh.vertices[None]), mesh.faces)
    torch.testing.assert_close(family.sharp_renderer()(faces, None), task.target)


def test_the_true_error_is_the_angle_between_the_cameras_orientations(task):
    params = at(task, elevation=20.0, azimuth=-50.0)
    one = tr.orbit(1.0, 20.0, -50.0).double()[0, :3, :3]
    zero = tr.orbit(1.0, 0.0, 0.0).double()[0, :3, :3]
    wanted = math.degrees(math.acos((float(torch.trace(one @ zero.T)) - 1) / 2))
    torch.testing.assert_close(
        task.true_error(params), torch.full((24,), wanted).double(), rtol=1e-5, atol=0
    )
    torch.testing.assert_close(
        task.true_error(at(task, azimuth=30.0)), torch.full((24,), 30.0).double()
    )
    # a whole turn is no error, and half a turn the largest
    assert task.true_error(at(task, azimuth=360.0)).max() < 1e-6
    assert task.true_error(at(task, elevation=190.0)).allclose(torch.tensor(170.0).double())


def test_errors_have_finite_slopes_even_at_the_solution(task):
    for params in (task.hidden, task.initial):
        params = params.clone().requires_grad_()
        (task.true_error(params) + task.image_error(params)).sum().backward()
        assert torch.isfinite(params.grad).all()
    assert params.grad.abs().amax(dim=1).min() > 0


def test_metrics_measure_what_they_say():
    task = Pose(image_size=24, unknown_fov=True, overlap="none").sample(4, "tune", 0)
    moved = at(task, distance=0.5, elevation=3.0, azimuth=3.9, half_fov=2.0, x=0.03, y=0.04)
    metrics = task.metrics(moved)
    for name, wanted in (
        ("distance_error", 0.5),
        ("fov_error", 4.0),
        ("pan_error", 0.05),
        ("failure", 0.0),
        ("published_success", 1.0),
    ):
        torch.testing.assert_close(metrics[name], torch.full((4,), wanted).double())
    far = task.metrics(at(task, elevation=3.1, azimuth=4.0))
    assert far["failure"].min() == 1 and far["published_success"].max() == 0  # 5.06 degrees
    by_hand = task.sharp_image(moved)[..., 0], task.target[..., 0]
    iou = torch.minimum(*by_hand).sum((1, 2)) / torch.maximum(*by_hand).sum((1, 2))
    torch.testing.assert_close(metrics["iou"], iou)
    torch.testing.assert_close(metrics["image_error"], 1 - iou)


@pytest.mark.parametrize("units", ["scaled", "published"])
def test_no_update_can_bring_the_camera_out_of_its_valid_range(units):
    family = Pose(image_size=24, unknown_fov=True, units=units)
    task = family.sample(4, "tune", 0)
    for size in (1e2, 1e6):
        for sign in (-1, 1):
            params = (task.start() + sign * size).requires_grad_()
            views = family.views(params)
            assert bool(((views[:, 0] >= 1.6) & (views[:, 0] <= 20)).all())
            assert bool(((views[:, 3] >= 5) & (views[:, 3] <= 45)).all())
            loss = task.loss(params, family.renderer(SOFT), 0.0) + task.true_error(params)
            (gradient,) = torch.autograd.grad(loss.sum(), params)
            assert bool(torch.isfinite(gradient).all())


def test_the_valid_range_is_entered_without_a_kink():
    family = Pose(units="published", unknown_fov=True)
    x = torch.linspace(-5, 50, 5501, dtype=torch.float64)
    params = torch.stack([x, 0 * x, 0 * x, x], dim=1)
    for column in (0, 3):
        values = family.views(params)[:, column]
        slope = values.diff() / 0.01
        assert slope.min() > 0 and slope.max() < 1 + 1e-9
        assert slope.diff().abs().max() < 0.03  # 0.01 / the shortest way to a limit, 0.4


@pytest.mark.parametrize("kind", KINDS)
def test_bodies_are_closed_and_wound_outwards(kind, monkeypatch):
    import numpy as np

    monkeypatch.setattr("tasks.pose_meshes.KINDS", (kind,))
    for seed in range(6):
        body = random_body(np.random.default_rng(seed))
        assert is_closed(body) and body.faces.shape == (FACES, 3)
        assert float(body.vertices.norm(dim=1).max()) == pytest.approx(RADIUS)
    inside_out = tr.Mesh(body.vertices, body.faces.flip(1))
    assert not is_closed(inside_out) and not is_closed(tr.plane())


def test_a_silhouette_tells_the_pose_of_nearly_every_body():
    # At the true distance, no other pose in a grid of 16 around the truth has the same silhouette.
    task = Pose(image_size=24).sample(20, "test", 0)
    best = torch.zeros(20).double()
    for radius in (15.0, 45.0):
        for turn in range(8):
            angle = math.radians(45 * turn)
            params = at(task, elevation=radius * math.cos(angle), azimuth=radius * math.sin(angle))
            best = torch.maximum(best, task.metrics(params)["iou"])
    assert float((best < 0.95).double().mean()) >= 0.9


def test_front_faces_alone_show_the_same_silhouette(task):
    whole = tr.SharpRasterizer(24, near=0.05, far=25.0)(*task._faces(task.hidden))
    assert float((whole - task.target).abs().max()) < 1e-4


def test_a_mesh_that_is_not_closed_keeps_its_backs():
    assert Pose().renderer(SOFT).cull_backfaces
    assert Pose(tr.icosphere(1)).renderer(SOFT).cull_backfaces
    assert not Pose(tr.plane()).renderer(SOFT).cull_backfaces


def test_colours_come_from_lights_that_are_fixed_in_the_mesh_s_world():
    task = Pose(image_size=24, image="shaded").sample(4, "tune", 0)
    assert task.colours is not None and task.colours.shape == task.corners.shape
    assert task.colours.std(dim=(1, 2)).min() > 0.03
    assert float(task.colours.min()) >= 0 and float(task.colours.max()) <= 1.2


def test_repeat_is_copy_major_and_select_keeps_order(task):
    for some in (task, Pose(tr.box(), image_size=24, image="shaded").sample(3, "tune", 0)):
        twice, count = some.repeat(2), some.batch_size
        assert twice.batch_size == 2 * count
        for part in (slice(0, count), slice(count, None)):
            assert torch.equal(twice.target[part], some.target)
            assert torch.equal(twice.initial[part], some.initial)
        renderer = some.family.renderer(SOFT)
        losses = twice.loss(twice.start(), renderer, 0.0)
        torch.testing.assert_close(losses, some.loss(some.start(), renderer, 0.0).repeat(2))
        chosen = some.select([2, 0])
        assert torch.equal(chosen.target, some.target[[2, 0]])
        torch.testing.assert_close(
            chosen.image_error(chosen.start()), some.image_error(some.start())[[2, 0]]
        )


def test_each_instance_can_have_a_softness_of_its_own(task):
    few = task.select([0, 1, 2])
    scales = torch.tensor([0.01, 0.03, 0.1], dtype=torch.float64)
    together = few.loss(few.start(), few.family.renderer(tr.Distribution("logistic", scales)), 0.0)
    for i, scale in enumerate(scales.tolist()):
        renderer = few.family.renderer(tr.Distribution("logistic", scale))
        alone = few.select([i])
        torch.testing.assert_close(together[i], alone.loss(alone.start(), renderer, 0.0)[0])


def test_descent_solves_easy_instances_in_either_units():
    rates: dict[Literal["scaled", "published"], float] = {"scaled": 0.05, "published": 0.5}
    for units, lr in rates.items():
        family = Pose(image_size=24, units=units, start_angle=(8.0, 12.0), start_distance=(3, 3.5))
        task = family.sample(6, "tune", 0)
        edge = tr.Distribution("logistic", scale=tr.Geometric(0.03, 0.01))
        method = Method(
            family.renderer(edge), Adam(betas=(0.9, 0.99)), tr.Geometric(lr, lr / 5), 60
        )
        after = task.true_error(unroll(method, task).params)
        assert float((after < Pose.failure_threshold).double().mean()) > 0.6, units  # none at start


@pytest.mark.parametrize(
    ("make", "named"),
    [
        (lambda: Pose("teapot"), "meshes"),  # type: ignore[arg-type]
        (lambda: Pose(tr.icosphere(0, radius=2.0)), "meshes: .*normalise"),
        (lambda: Pose(image="depth"), "image"),  # type: ignore[arg-type]
        (lambda: Pose(image_size=0), "image_size"),
        (lambda: Pose(start_angle=(35.0, 15.0)), "start_angle"),
        (lambda: Pose(overlap="some"), "overlap"),  # type: ignore[arg-type]
        (lambda: Pose(distance=(0.5, 3.0)), "distance"),
        (lambda: Pose(start_distance=(3.0, 11.0)), "start_distance"),
        (lambda: Pose(units="radians"), "units"),  # type: ignore[arg-type]
        (lambda: Pose(seed=-1), "seed"),
        (lambda: Pose().sample(0, "test", 0), "batch_size"),
        (lambda: Pose(overlap="none", distance=(2, 2.1)).sample(1, "test", 0), "overlap='none'"),
        (lambda: Pose(image_size=8).sample(1, "test", 0).repeat(0), "copies"),
    ],
)
def test_wrong_arguments_are_refused_by_name(make, named):
    with pytest.raises(ValueError, match=named):
        make()
