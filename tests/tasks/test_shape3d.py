"""Shape3D: what is drawn, what is judged, and that descent recovers a solid from silhouettes."""

import dataclasses

import numpy as np
import pytest
import torch
import trimesh

import taichi_raster as tr
from meta.inner.method import Method
from meta.inner.protocol import TaskBatch, TaskFamily
from meta.inner.unroll import unroll
from meta.inner.updates import Adam
from taichi_raster.fitting.metrics import chamfer_distance, sample_surface, volume
from tasks import sphere
from tasks.shape3d import ELEVATIONS, FOV, VISIBLE_RADIUS, Shape3D
from tasks.solids import KINDS, random_solid

pytestmark = pytest.mark.runs_on(arch="cpu", precision="f64")
F64 = torch.float64

SMALL = Shape3D(views=3, subdivisions=1, image_size=12, samples=64)
BALL = tr.icosphere(1, 1.0, F64)


@pytest.fixture(scope="module")
def task():
    return SMALL.sample(6, "train", 3)


@pytest.fixture(scope="module")
def renderer():
    return SMALL.renderer(tr.Distribution("logistic", scale=0.05))


@pytest.fixture(scope="module")
def balls():
    """A family whose targets are spheres with the start's own topology, and 1.2 times its size."""
    return dataclasses.replace(SMALL, meshes=(BALL,))


def random_offsets(task, size=0.05, seed=0):
    generator = torch.Generator().manual_seed(seed)
    return size * torch.randn(task.start().shape, dtype=F64, generator=generator)


def at_the_solution(task):
    """Unknowns of a task of `balls` that make the fit the hidden solid."""
    return task.vertices - task.deformed(task.start())


# What is drawn ----------------------------------------------------------------------------------


def test_it_meets_the_protocols(task):
    assert isinstance(SMALL, TaskFamily) and isinstance(task, TaskBatch)


def test_every_kind_of_solid_is_closed_outward_and_of_the_size_asked_for():
    for draw in KINDS.values():
        for seed in range(3):
            mesh = draw(np.random.default_rng(seed))
            solid = trimesh.Trimesh(mesh.vertices.numpy(), mesh.faces.numpy(), process=False)
            assert solid.is_watertight and solid.is_winding_consistent and solid.volume > 0
            assert solid.euler_number == 2  # without holes, in one piece
    for seed in range(20):
        mesh = random_solid(np.random.default_rng(seed), radius=0.6)
        assert float(mesh.vertices.norm(dim=1).max()) == pytest.approx(0.6)
        assert float(volume(mesh.vertices[None], mesh.faces)) > 0.02
        assert 12 <= len(mesh.faces) <= 528


def test_a_smaller_batch_begins_a_larger_one(task):
    few = SMALL.sample(3, "train", 3)
    for mine, theirs in zip(few.hidden(), task.hidden(), strict=False):
        assert torch.equal(mine.faces, theirs.faces)
        count = len(torch.unique(mine.faces))
        assert torch.equal(mine.vertices[:count], theirs.vertices[:count])
    assert torch.equal(few.elevation, task.elevation[:3])
    torch.testing.assert_close(few.points, task.points[:3])
    torch.testing.assert_close(few.silhouettes, task.silhouettes[:3])


def test_streams_indices_and_seeds_share_no_instance():
    drawn = [
        dataclasses.replace(SMALL, seed=seed).sample(4, stream, index).points.flatten(1)
        for seed in (0, 1)
        for stream in ("tune", "train", "test")
        for index in range(2)
    ]
    points = torch.cat(drawn)
    distance = torch.cdist(points, points) + 9 * torch.eye(len(points))
    assert distance.min() > 1e-2


def test_elevations_are_drawn_or_as_asked_for():
    drawn = SMALL.sample(40, "train", 0).elevation
    assert set(drawn.tolist()) == set(ELEVATIONS)
    fixed = dataclasses.replace(SMALL, elevation=45.0).sample(3, "train", 0)
    assert fixed.elevation.tolist() == [45.0] * 3
    eye = fixed.camera.eye
    torch.testing.assert_close(eye.norm(dim=1), torch.full((9,), 2.732, dtype=F64))
    torch.testing.assert_close(eye[:, 1], torch.full((9,), 2.732 * 0.5**0.5, dtype=F64))


def test_meshes_of_the_users_are_normalised_and_drawn_from():
    family = dataclasses.replace(SMALL, meshes=(tr.box(), tr.torus()), radius=0.5)
    task = family.sample(12, "train", 0)
    assert {len(mesh.faces) for mesh in task.hidden()} == {12, 1024}
    sizes = task.vertices.norm(dim=2).amax(dim=1)
    torch.testing.assert_close(sizes, torch.full((12,), 0.5, dtype=F64))


def test_targets_are_of_the_size_of_the_solids():
    # A sphere of radius r shows as a disc of tan(arcsin(r / distance)) in the image plane.
    family = dataclasses.replace(SMALL, meshes=(tr.icosphere(3),), image_size=24)
    task = family.sample(2, "test", 0)
    radius = np.tan(np.arcsin(0.6 / 2.732)) / np.tan(np.radians(FOV / 2))
    area = task.silhouettes.mean(dim=(2, 3)).numpy()
    np.testing.assert_allclose(area, np.pi * radius**2 / 4, rtol=0.01)
    assert pytest.approx(2.732 * np.sin(np.radians(15))) == VISIBLE_RADIUS


def test_the_target_shows_the_views_side_by_side(task):
    assert task.target.shape == (6, 12, 36, 1)
    assert torch.equal(task.target[2, :, 12:24, 0], task.silhouettes[2, 1])
    assert bool(((task.target >= 0) & (task.target <= 1)).all())


def test_the_image_error_looks_at_the_sharp_renderers_silhouettes(task):
    sharp, params = SMALL.sharp_renderer(), random_offsets(task)
    solid = sharp(task._project(*task._solid), None)[..., 0].unflatten(0, (6, 3))
    fit = sharp(task._project(*task._fit(params)), None)[..., 0].unflatten(0, (6, 3))
    iou = torch.minimum(solid, fit).sum(dim=(2, 3)) / torch.maximum(solid, fit).sum(dim=(2, 3))
    torch.testing.assert_close(task.image_error(params), 1 - iou.mean(dim=1))


def test_targets_are_made_once_and_copied(task, monkeypatch):
    _ = task.silhouettes
    monkeypatch.setattr("tasks.shape3d.coverage", None)  # no further render
    twice = task.repeat(2)
    assert twice.batch_size == 12
    assert torch.equal(twice.silhouettes, task.silhouettes.repeat(2, 1, 1, 1))
    some = task.select([4, 1])
    assert torch.equal(some.target, task.target[[4, 1]])


# What is judged ---------------------------------------------------------------------------------


def test_repeat_is_copy_major(task, renderer):
    twice = task.repeat(2)
    params = random_offsets(task)
    both = torch.cat([params, 2 * params])
    for judge in (
        lambda t, x: t.true_error(x),
        lambda t, x: t.image_error(x),
        lambda t, x: t.loss(x, renderer, 0.5),
    ):
        torch.testing.assert_close(
            judge(twice, both), torch.cat([judge(task, params), judge(task, 2 * params)])
        )


def test_the_hidden_solid_has_no_error(balls):
    task = balls.sample(3, "test", 0)
    metrics = task.metrics(at_the_solution(task))
    assert metrics["chamfer"].max() < 1e-11 and metrics["image_error"].max() < 1e-9
    assert metrics["failure"].max() == 0
    for name in ("silhouette_iou", "voxel_iou", "volume_ratio", "area_ratio"):
        torch.testing.assert_close(metrics[name], torch.ones(3, dtype=F64))


def test_ratios_of_a_smaller_fit_are_those_of_its_size(balls):
    task = balls.sample(1, "test", 0)
    metrics = task.metrics(task.start())  # a sphere of radius 0.5 for one of 0.6
    assert float(metrics["volume_ratio"]) == pytest.approx((5 / 6) ** 3)
    assert float(metrics["voxel_iou"]) == pytest.approx((5 / 6) ** 3, abs=0.03)
    # In perspective, the square of tan(arcsin(r / distance)).
    area = np.tan(np.arcsin(0.5 / 2.732)) ** 2 / np.tan(np.arcsin(0.6 / 2.732)) ** 2
    assert float(metrics["area_ratio"]) == pytest.approx(area, abs=0.01)
    assert float(metrics["silhouette_iou"]) == pytest.approx(area, abs=0.01)
    # Between the two icospheres, flat faces included, distances are 0.1 at most.
    assert 0.085 < float(metrics["chamfer"]) < 0.1


def test_the_true_error_is_the_chamfer_distance_of_dense_samples(task):
    family = dataclasses.replace(SMALL, samples=4000)
    dense = family.sample(6, "train", 3)
    params = random_offsets(task)
    generator = torch.Generator().manual_seed(1)
    fit = sample_surface(dense.deformed(params), family.template.mesh.faces, 4000, generator)
    wanted = chamfer_distance(fit, dense.points)
    # Samples stand 0.02 apart, which the distance between point sets cannot fall below.
    torch.testing.assert_close(dense.true_error(params), wanted, atol=0.01, rtol=0.05)
    torch.testing.assert_close(task.true_error(params), wanted, atol=0.015, rtol=0.1)


def test_errors_are_differentiable_even_at_the_solution(balls):
    task = balls.sample(2, "test", 0)
    for params in (at_the_solution(task), random_offsets(task)):
        params = params.clone().requires_grad_()
        (task.true_error(params) + task.image_error(params)).sum().backward()
        assert torch.isfinite(params.grad).all()
    assert params.grad.abs().max() > 0


@pytest.mark.parametrize("name", ["true_error", "image_error"])
def test_slopes_of_errors_are_those_of_finite_differences(task, name):
    params, direction = random_offsets(task), random_offsets(task, 1.0, 1)
    x = params.clone().requires_grad_()
    judge = getattr(task, name)
    (gradient,) = torch.autograd.grad(judge(x).sum(), x)
    slope = (gradient * direction).sum(dim=(1, 2))
    h = 1e-7
    by_hand = (judge(params + h * direction) - judge(params - h * direction)) / (2 * h)
    torch.testing.assert_close(slope, by_hand, rtol=1e-4, atol=1e-5)


def test_failure_is_a_true_error_above_the_threshold(balls):
    task = balls.sample(6, "test", 0)
    share = torch.linspace(0, 1, 6, dtype=F64)[:, None, None]
    metrics = task.metrics(share * at_the_solution(task))
    expected = metrics["parameter_error"] > Shape3D.failure_threshold
    assert torch.equal(metrics["failure"] == 1, expected)
    assert expected[0] and not expected[-1]
    assert Shape3D.error_floor == pytest.approx(Shape3D.failure_threshold / 50)


def test_the_inner_loss_is_iou_plus_laplacian_plus_flattening(task, renderer):
    params = random_offsets(task)
    faces, vertices = SMALL.template.mesh.faces, task.deformed(params)
    by_hand = 0.03 * tr.LaplacianLoss(faces, 42)(vertices)
    by_hand += 0.0003 * tr.FlatteningLoss(faces, 42)(vertices)
    for i in range(task.batch_size):
        azimuth = torch.tensor([0.0, 120.0, 240.0], dtype=F64)
        camera = tr.PerspectiveCamera(tr.orbit(2.732, task.elevation[i], azimuth), 30.0)
        seen = tr.gather_faces(camera.project(vertices[i : i + 1]), faces)
        alpha = renderer.silhouette(seen)
        by_hand[i] += tr.silhouette_iou_loss(alpha, task.silhouettes[i]).mean()
    torch.testing.assert_close(task.loss(params, renderer, 0.0), by_hand)
    assert task.soft_image(params, renderer, 0.0).shape == task.target.shape


def test_instances_may_have_softnesses_of_their_own(task):
    scales = torch.linspace(0.02, 0.2, 6, dtype=F64)
    together = task.loss(
        task.start(), SMALL.renderer(tr.Distribution("logistic", scale=scales)), 0.0
    )
    for i, scale in enumerate(scales.tolist()):
        alone = task.select([i])
        renderer = SMALL.renderer(tr.Distribution("logistic", scale=scale))
        torch.testing.assert_close(
            alone.loss(alone.start(), renderer, 0.0), together[i : i + 1], rtol=1e-6, atol=1e-6
        )


def test_smoothing_spreads_a_pull_and_keeps_a_shift():
    task = dataclasses.replace(SMALL, smoothing=2.0).sample(1, "test", 0)
    pull = task.start()
    torch.testing.assert_close(task.deformed(pull + 0.1), task.deformed(pull) + 0.1)
    pull[0, 0, 0] = 1.0
    moved = (task.deformed(pull) - task.deformed(task.start()))[0, :, 0]
    assert bool((moved > 0).all()) and 0.1 < moved[0] < 0.5
    assert float(moved.sum()) == pytest.approx(1.0)


def test_descent_recovers_solids_from_silhouettes():
    family = Shape3D.coarse()
    task = family.sample(8, "tune", 0)
    edge = tr.Distribution("logistic", scale=tr.Geometric(0.03, 0.005))
    method = Method(family.renderer(edge), Adam(betas=(0.5, 0.95)), tr.Geometric(0.03, 0.01), 25)
    before = task.metrics(task.start())
    after = task.metrics(unroll(method, task).params)
    assert after["chamfer"].mean() < 0.4 * before["chamfer"].mean()
    assert after["silhouette_iou"].mean() > 0.9 > before["silhouette_iou"].mean()
    assert after["voxel_iou"].mean() > 0.7 > before["voxel_iou"].mean()


def test_the_published_experiment_is_as_published():
    family = Shape3D.published(BALL, elevation=-30.0)
    assert (family.views, family.image_size, family.elevation) == (24, 64, -30.0)
    assert (family.laplacian, family.flattening) == (0.03, 0.0003)
    start = family.template.mesh.vertices
    assert start.shape == (642, 3)
    torch.testing.assert_close(start.norm(dim=1), torch.full((642,), 0.5, dtype=F64))


def test_dtype_can_be_chosen():
    task = dataclasses.replace(SMALL, dtype=torch.float32).sample(2, "test", 0)
    tensors = (task.start(), task.points, task.vertices, task.elevation)
    assert {tensor.dtype for tensor in tensors} == {torch.float32}
    assert task.true_error(task.start()).dtype == torch.float32


@pytest.mark.parametrize(
    ("make", "named"),
    [
        (lambda: Shape3D(meshes="solids"), "meshes"),  # type: ignore[arg-type]
        (lambda: Shape3D(meshes=()), "meshes"),
        (lambda: Shape3D(meshes=(tr.plane(),)), "meshes: .*open"),
        (lambda: Shape3D(image="rgb"), "image: .*shaded"),  # type: ignore[arg-type]
        (lambda: Shape3D(elevation="all"), "elevation"),  # type: ignore[arg-type]
        (lambda: Shape3D(elevation=90.0), "elevation"),
        (lambda: Shape3D(views=0), "views"),
        (lambda: Shape3D(subdivisions=-1), "subdivisions"),
        (lambda: Shape3D(image_size=0), "image_size"),
        (lambda: Shape3D(samples=0), "samples"),
        (lambda: Shape3D(seed=-1), "seed"),
        (lambda: Shape3D(radius=0.8), "radius must lie between 0 and 0.707"),
        (lambda: Shape3D(smoothing=-1.0), "smoothing"),
        (lambda: Shape3D(laplacian=float("nan")), "laplacian"),
        (lambda: SMALL.sample(0, "test", 0), "batch_size"),
        (lambda: SMALL.sample(1, "exam", 0), "stream"),  # type: ignore[arg-type]
        (lambda: SMALL.sample(1, "test", 0).repeat(0), "copies"),
    ],
)
def test_wrong_arguments_are_refused_by_name(make, named):
    with pytest.raises(ValueError, match=named):
        make()


def test_meshes_are_meshes():
    with pytest.raises(TypeError, match=r"^meshes: "):
        Shape3D(meshes=("airplane.obj",))  # type: ignore[arg-type]


# From shaded pictures ----------------------------------------------------------------------------

SHADED = dataclasses.replace(SMALL, image="shaded")


def test_shaded_targets_are_the_lit_solids_over_black():
    task = SHADED.sample(3, "train", 3)
    plain = SMALL.sample(3, "train", 3)
    assert task.target.shape == (3, 12, 36, 3) and torch.equal(task.vertices, plain.vertices)
    empty = plain.target[..., 0] == 0
    assert float(task.target[empty].abs().max()) == 0
    full = task.target[plain.target[..., 0] == 1]
    assert float(full.min()) >= 0 and float(full.std(dim=0).min()) > 0.03
    assert float(full.max(dim=1).values.min()) > 0.02  # no side is black, as the background is
    same = dataclasses.replace(SHADED, meshes=(BALL,)).sample(2, "train", 0)
    exact = at_the_solution(same)
    torch.testing.assert_close(same.sharp_image(exact), same.target)
    assert float(same.image_error(exact).max()) < 1e-12


def test_the_shaded_loss_looks_at_colours_alone():
    task = SHADED.sample(2, "train", 3)
    params = random_offsets(task)
    template, vertices = SHADED.template, task.deformed(params)
    renderer = SHADED.renderer(tr.Distribution("logistic", 0.05), tr.SoftmaxDepth(0.05))
    expected = 0.03 * template.laplacian(vertices) + 0.0003 * template.flattening(vertices)
    image = task.soft_image(params, renderer, 0.0)
    assert image.shape == task.target.shape
    squares = task.target.square().sum(dim=(1, 2, 3))
    expected += (image - task.target).square().sum(dim=(1, 2, 3)) / squares
    torch.testing.assert_close(task.loss(params, renderer, 0.0), expected)
    assert isinstance(SHADED.renderer(tr.Distribution("logistic")).depth, tr.OverDepth)


def test_slopes_of_the_shaded_loss_are_those_of_finite_differences():
    task = SHADED.sample(1, "train", 3)
    renderer = SHADED.renderer(tr.Distribution("logistic", 0.1), tr.OverDepth(0.05))
    params = random_offsets(task).requires_grad_()
    direction = random_offsets(task, 1.0, 1)
    (slope,) = torch.autograd.grad(task.loss(params, renderer, 0.0).sum(), params)
    h = 1e-6
    ahead, behind = (task.loss(params.detach() + s * h * direction, renderer, 0.0) for s in (1, -1))
    assert float((slope * direction).sum()) == pytest.approx(float(ahead - behind) / (2 * h), 1e-4)


def test_shaded_instances_are_copied_and_chosen():
    task = SHADED.sample(3, "tune", 0)
    renderer = SHADED.renderer(tr.Distribution("logistic", 0.05))
    losses = task.loss(task.start(), renderer, 0.0)
    twice = task.repeat(2)
    torch.testing.assert_close(twice.loss(twice.start(), renderer, 0.0), losses.repeat(2))
    chosen = task.select([2, 0])
    torch.testing.assert_close(chosen.loss(chosen.start(), renderer, 0.0), losses[[2, 0]])


def test_descent_recovers_solids_from_colours():
    family = dataclasses.replace(SHADED, views=4, image_size=16, threshold=1e-3)
    task = family.sample(2, "train", 0)
    renderer = family.renderer(tr.Distribution("gaussian", tr.Geometric(0.05, 0.01)))
    method = Method(renderer, Adam(betas=(0.5, 0.95)), tr.Constant(0.015), 30)
    found = unroll(method, task).params
    before, after = task.metrics(task.start()), task.metrics(found)
    for name in ("image_error", "parameter_error"):
        assert bool((after[name] < 0.75 * before[name]).all()), name


def test_what_is_kept_between_tasks_can_be_trained_on_if_inference_asked_first():
    sphere.template.cache_clear()
    with torch.inference_mode():
        kept = sphere.template(1, 1.0, 16, torch.float64)
    tensors = [kept.mesh.vertices, kept.spread, kept.weights, *kept.laplacian.buffers()]
    assert not any(tensor is not None and tensor.is_inference() for tensor in tensors)
