"""Picture: hidden triangles with a known truth, image files without one."""

import numpy as np
import pytest
import torch
from PIL import Image

import taichi_raster as tr
from meta.inner.method import Method
from meta.inner.protocol import TaskBatch, TaskFamily
from meta.inner.unroll import unroll
from meta.inner.updates import Adam
from tasks.picture import COLOUR_NOISE, DEPTHS, FAR, UNIT, Picture
from tasks.triangles import TRANSLATION, VERTEX_NOISE

pytestmark = pytest.mark.runs_on(arch="cpu", precision="f32")

EDGE = tr.Distribution("gaussian", scale=0.02)
BLUE = (51, 102, 204)


@pytest.fixture(scope="module")
def family():
    return Picture(triangles=(20, 30), image_size=24)


@pytest.fixture(scope="module")
def task(family):
    return family.sample(4, "train", 3)


@pytest.fixture(scope="module")
def coloured():
    return Picture(triangles=(20, 30), image_size=24, colours=True).sample(4, "train", 3)


@pytest.fixture(scope="module")
def logos(tmp_path_factory):
    """A blue square on white, 80 x 80; and half of a wide picture red with an alpha channel."""
    folder = tmp_path_factory.mktemp("logos")
    square = np.full((80, 80, 3), 255, np.uint8)
    square[20:60, 20:60] = BLUE
    Image.fromarray(square).save(folder / "square.png")
    wide = np.zeros((20, 40, 4), np.uint8)
    wide[:, :20] = (255, 0, 0, 255)
    Image.fromarray(wide).save(folder / "wide.png")
    return (folder / "square.png", str(folder / "wide.png"))


@pytest.fixture(scope="module")
def meshes(tmp_path_factory):
    """Triangles far out of NDC, in the two layouts that are read."""
    folder = tmp_path_factory.mktemp("meshes")
    xy = np.random.default_rng(0).uniform(-6, 6, (12, 3, 2))
    xy[..., 1] *= 0.5
    np.save(folder / "four.npy", np.concatenate([xy, np.ones((12, 3, 2))], axis=-1)[None])
    np.save(folder / "two.npy", xy[:9].astype(np.float32))
    return (folder / "four.npy", folder / "two.npy")


def test_it_meets_the_protocols(family, task, coloured):
    assert all(isinstance(x, kind) for x, kind in ((family, TaskFamily), (task, TaskBatch)))
    assert task.start().shape == (4, 30, 6) and coloured.start().shape == (4, 30, 9)
    assert task.target.shape == task.sharp_image(task.start()).shape == (4, 24, 24, 4)


def test_a_batch_is_a_function_of_its_arguments_alone(task):
    few = Picture(triangles=(20, 30), image_size=24).sample(2, "train", 3)
    for name in ("hidden", "initial", "depth", "colours", "present"):
        assert torch.equal(getattr(few, name), getattr(task, name)[:2])


def test_streams_indices_and_seeds_share_no_instance():
    drawn = [
        Picture(5, seed=seed).sample(3, stream, index).initial
        for seed in (0, 1)
        for stream in ("tune", "train", "test")
        for index in range(2)
    ]
    instances = torch.cat(drawn).flatten(1)
    assert (torch.cdist(instances, instances) + torch.eye(len(instances))).min() > 1e-2


def test_counts_depths_and_starts_are_as_described(task, coloured):
    counts = task.present.sum(dim=1)
    assert counts.min() >= 20 and counts.max() <= 30
    for depth, present in zip(task.depth, task.present, strict=True):
        own = depth[present].sort().values
        torch.testing.assert_close(own, torch.linspace(*DEPTHS, len(own)))
        assert bool((depth[~present] > FAR).all())
    offset = (coloured.initial - coloured.hidden).abs()
    assert 0.9 * (TRANSLATION + VERTEX_NOISE) < offset[..., :6].max() <= 0.45 + 1e-5
    assert 0.9 * COLOUR_NOISE < offset[..., 6:].max() <= COLOUR_NOISE + 1e-5


@pytest.mark.parametrize("size", [24, (16, 48), (48, 16)])
def test_triangles_are_spread_over_the_whole_picture(size):
    task = Picture(60, image_size=size).sample(2, "test", 0)
    centres = task._triangles(task.solution).mean(dim=2)
    half_sides = torch.as_tensor(task.family.half_sides)
    assert bool((centres.abs().amax(dim=1) > 0.7 * half_sides).all())
    for axis in (0, 1):
        sides = torch.sign(centres[..., axis]).mean(dim=1)
        assert bool((sides.abs() < 0.35).all())  # 60 random signs would stray 0.39 at three sigma


def test_the_hidden_instance_has_no_error(task, coloured):
    for batch in (task, coloured):
        metrics = batch.metrics(batch.solution)
        assert metrics["parameter_error"].max() < 1e-7 and metrics["image_error"].max() == 0
        assert metrics["failure"].max() == 0 and metrics["recovered"].min() == 1


def test_relabelling_vertices_changes_no_error(coloured):
    params = coloured.start()
    other = torch.cat([params[..., 2:6], params[..., :2], params[..., 6:]], dim=-1)
    mirrored = torch.cat([params[..., 2:4], params[..., :2], params[..., 4:]], dim=-1)
    for relabelled in (other, mirrored):
        for measure in (coloured.true_error, coloured.image_error):
            torch.testing.assert_close(measure(relabelled), measure(params))


def test_the_error_is_the_geometric_mean_of_the_triangles_own(task):
    # Far less than half a side away, the identity is the nearest labelling.
    half = torch.arange(task.depth.shape[1]) % 2 == 0
    offset = torch.where(half, 0.05, 0.01)[:, None] * torch.tensor([1.0, 2.0] * 3)
    moved = torch.where(task.present[..., None], task.solution + offset, 9.0)
    metrics = task.metrics(moved)
    for i in range(task.batch_size):
        own = torch.where(half, 0.05, 0.01)[task.present[i]] * 5**0.5
        geometric = float(torch.exp(torch.log(own + 1e-3).mean()) - 1e-3)
        assert float(metrics["parameter_error"][i]) == pytest.approx(geometric, rel=1e-3)
        assert float(metrics["vertex_rmse"][i]) == pytest.approx(
            float(own.square().mean().sqrt()), rel=1e-3
        )
        assert float(metrics["recovered"][i]) == pytest.approx(float((own < 0.1).float().mean()))


def test_errors_are_differentiable_even_at_the_solution(coloured):
    for params in (coloured.solution, coloured.start()):
        params = params.clone().requires_grad_()
        (coloured.true_error(params) + coloured.image_error(params)).sum().backward()
        assert torch.isfinite(params.grad).all()
    assert params.grad[..., :6].abs().max() > 0 and params.grad[..., 6:].abs().max() > 0


def test_padding_renders_nothing_and_has_exactly_zero_gradient(coloured):
    renderer = coloured.family.renderer(EDGE)
    params = coloured.start().clone().requires_grad_()
    (gradient,) = torch.autograd.grad(coloured.loss(params, renderer, 0.0).sum(), params)
    assert bool((gradient[~coloured.present] == 0).all())
    elsewhere = torch.where(coloured.present[..., None], coloured.start(), -coloured.start())
    for measure in (coloured.true_error, coloured.image_error):
        assert torch.equal(measure(elsewhere), measure(coloured.start()))


def test_repeat_is_copy_major_and_select_keeps_instances(task, logos):
    for batch in (task, Picture(6, images=logos, image_size=16).sample(4, "test", 0)):
        twice, some = batch.repeat(2), batch.select([3, 1])
        assert torch.equal(twice.target, batch.target.repeat(2, 1, 1, 1))
        errors = batch.true_error(batch.start())
        assert torch.equal(twice.true_error(twice.start()), errors.repeat(2))
        assert torch.equal(some.target, batch.target[[3, 1]])
        assert torch.equal(some.true_error(some.start()), errors[[3, 1]])


def test_image_files_are_fitted_with_their_ground_and_matte(logos):
    task = Picture(6, images=logos, image_size=16).sample(3, "test", 0)
    square, wide = task.target[0], task.target[1]
    assert torch.equal(task.target[2], square)
    inside = torch.zeros(16, 16, dtype=torch.bool)
    inside[4:12, 4:12] = True
    blue = torch.tensor(BLUE) / 255
    torch.testing.assert_close(square[inside], torch.cat([blue, torch.ones(1)]).expand(64, 4))
    torch.testing.assert_close(square[~inside], torch.tensor([1.0, 1, 1, 0]).expand(192, 4))
    torch.testing.assert_close(task.colours[0], blue.expand(6, 3))
    # twice as wide as high: 16 x 8 pixels in the middle, the left half of them red
    red = torch.zeros(16, 16, 4)
    red[4:12, :8] = torch.tensor([1.0, 0, 0, 1])
    torch.testing.assert_close(wide, red)


def test_a_file_without_matte_is_judged_by_its_colours_alone(logos):
    task = Picture(6, images=logos[:1], matte=False, image_size=16).sample(2, "test", 0)
    image = task.sharp_image(task.start())
    assert task.target.shape == image.shape == (2, 16, 16, 3)
    assert bool((image[:, 0, 0] == 1).any())  # white ground


def test_the_ground_lies_behind_the_triangles(logos):
    """As a renderer with that background draws it."""
    task = Picture(6, images=logos[:1], image_size=16).sample(2, "test", 0)
    faces = tr.lift_triangles(task._triangles(task.start()), task.depth)
    colours = task.colours[:, :, None].expand(-1, -1, 3, -1).contiguous()
    renderer = task.family.renderer(EDGE)
    direct = tr.SoftRasterizer(
        16, EDGE, renderer.depth, background=(1, 1, 1), near=renderer.near, far=renderer.far
    )
    torch.testing.assert_close(
        task.soft_image(task.start(), renderer, 1.0), direct(faces, colours), atol=1e-5, rtol=0
    )


def test_the_error_of_image_files_is_that_of_the_picture(logos):
    task = Picture(6, images=logos, image_size=16).sample(2, "test", 0)
    squares = (task.sharp_image(task.start()) - task.target).square().mean(dim=(1, 2, 3))
    torch.testing.assert_close(task.true_error(task.start()), squares.sqrt())
    assert set(task.metrics(task.start())) == {"parameter_error", "image_error", "failure"}
    with pytest.raises(ValueError, match="no known solution"):
        _ = task.solution


def test_start_meshes_keep_their_proportions_and_fill_the_picture(logos, meshes):
    family = Picture(images=logos, start_meshes=meshes, image_size=16)
    task = family.sample(3, "test", 0)
    assert task.start().shape == (3, 12, 6) and task.present.sum(dim=1).tolist() == [12, 9, 12]
    assert torch.equal(task.initial[0, :, :6], task.initial[2, :, :6])
    xy = UNIT * task.start()[0].reshape(-1, 2).double().numpy()
    source = np.load(meshes[0])[0, ..., :2].reshape(-1, 2)
    assert np.abs(xy).max() == pytest.approx(0.95, abs=1e-5)
    scale = np.ptp(xy, axis=0) / np.ptp(source, axis=0)
    assert scale[0] == pytest.approx(scale[1], rel=1e-5)
    offset = xy - scale * source
    assert np.ptp(offset, axis=0).max() < 1e-5


def test_descent_draws_a_logo(logos):
    task = Picture(12, images=logos[:1], image_size=24).sample(2, "tune", 0)
    edge = tr.Distribution("gaussian", tr.Geometric(0.1, 0.02))
    run = unroll(Method(task.family.renderer(edge), Adam(), tr.Constant(0.1), 40), task)
    before, after = task.true_error(task.start()), task.true_error(run.params)
    assert bool((after < 0.5 * before).all())


@pytest.mark.parametrize(
    ("error", "make", "named"),
    [
        (ValueError, lambda: Picture(0), "triangles"),
        (ValueError, lambda: Picture((3, 1)), "triangles"),
        (TypeError, lambda: Picture(images="a.png"), "images"),  # type: ignore[arg-type]
        (TypeError, lambda: Picture(images=()), "images"),
        (ValueError, lambda: Picture(start_meshes=("a.npy",)), "start_meshes"),
        (TypeError, lambda: Picture(colours=3), "colours"),  # type: ignore[arg-type]
        (ValueError, lambda: Picture(seed=-1), "seed"),
        (ValueError, lambda: Picture(5).sample(0, "test", 0), "batch_size"),
        (ValueError, lambda: Picture(5, image_size=8).sample(1, "test", 0).repeat(0), "copies"),
        (ValueError, lambda: Picture(images=("none.png",)).sample(1, "test", 0), "images: cannot"),
    ],
)
def test_wrong_arguments_are_refused_by_name(error, make, named):
    with pytest.raises(error, match=named):
        make()


def test_files_of_other_content_are_refused_by_name(logos, tmp_path):
    Image.new("RGB", (8, 8), "red").save(tmp_path / "plain.png")
    (tmp_path / "text.png").write_text("no image")
    np.save(tmp_path / "quads.npy", np.zeros((5, 4, 3)))
    np.save(tmp_path / "line.npy", np.zeros((5, 3, 2)))
    (tmp_path / "text.npy").write_text("no array")
    for name in ("plain.png", "text.png"):
        with pytest.raises(ValueError, match=f"images: .*{name}"):
            Picture(images=(tmp_path / name,)).sample(1, "test", 0)
    for name in ("quads.npy", "line.npy", "text.npy"):
        with pytest.raises(ValueError, match=f"start_meshes: .*{name}"):
            Picture(images=logos[:1], start_meshes=(tmp_path / name,)).sample(1, "test", 0)
