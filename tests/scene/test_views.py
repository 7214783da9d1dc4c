"""Views of one scene share the scene's softness: equal to scenes rendered one by one."""

import inspect

import pytest
import torch

import taichi_raster as tr

pytestmark = pytest.mark.runs_on(arch="cpu", precision="f64")

SCENES, VIEWS, FACES = 3, 2, 4


@pytest.fixture
def faces(dtype):
    generator = torch.Generator().manual_seed(7)
    corners = torch.rand((SCENES * VIEWS, FACES, 3, 3), generator=generator, dtype=dtype)
    return corners * torch.tensor([1.6, 1.6, 1.0], dtype=dtype) - torch.tensor(
        [0.8, 0.8, -1.0], dtype=dtype
    )


def renderer(scene: int | None = None) -> tr.SoftRasterizer:
    """Parameters for all scenes, or those of one."""

    def of(values: list[float]) -> torch.Tensor:
        chosen = values if scene is None else values[scene : scene + 1]
        return torch.tensor(chosen, dtype=torch.float64)

    return tr.SoftRasterizer(
        (12, 16),
        tr.Distribution(
            "gamma", of([0.03, 0.05, 0.1]), shape=of([1.5, 2.0, 3.0]), shift=of([0.1, 0.0, -0.2])
        ),
        tr.SoftmaxDepth(of([0.05, 0.1, 0.2]), background_z=of([0.0, 0.01, 0.02])),
        tr.TConorm("hamacher", of([0.5, 1.0, 2.0])),
        near=0.5,
        far=3.0,
    )


def test_every_parameter_of_a_scene_reaches_all_its_views(faces):
    image = renderer()(faces, faces.detach(), views=VIEWS)
    for scene in range(SCENES):
        ours = slice(scene * VIEWS, (scene + 1) * VIEWS)
        torch.testing.assert_close(image[ours], renderer(scene)(faces[ours], faces[ours]))


def test_progress_and_network_weights_are_those_of_the_scene(faces):
    edge = tr.MLPSoftness((3, 3), scale=tr.Geometric(0.2, 0.02), init="gaussian", progress=True)
    soft = tr.SoftRasterizer(12, edge, near=0.5, far=3.0)
    weights = (edge.weights.detach() * torch.tensor([[1.0], [0.5], [1.5]])).requires_grad_()
    progress = torch.tensor([0.0, 0.5, 1.0], dtype=torch.float64)

    def render(rows, u, weights, **options):
        return torch.func.functional_call(
            soft, {"edge.weights": weights}, (faces[rows], faces[rows], u), options
        )

    image = render(slice(None), progress, weights, views=VIEWS)
    (gradient,) = torch.autograd.grad(image.square().sum(), weights)
    for scene in range(SCENES):
        rows = slice(scene * VIEWS, (scene + 1) * VIEWS)
        own = weights[scene].detach().requires_grad_()
        alone = render(rows, float(progress[scene]), own)
        torch.testing.assert_close(image[rows], alone)
        (expected,) = torch.autograd.grad(alone.square().sum(), own)
        torch.testing.assert_close(gradient[scene], expected)


def directions(faces):
    generator = torch.Generator().manual_seed(8)
    return tuple(torch.randn(faces.shape, generator=generator, dtype=faces.dtype) for _ in range(2))


def test_forward_mode_with_views_is_that_of_the_scenes_one_by_one(faces):
    dots = directions(faces)
    image, image_dot = renderer().jvp((faces, faces), dots, views=VIEWS)
    for scene in range(SCENES):
        ours = slice(scene * VIEWS, (scene + 1) * VIEWS)
        alone = renderer(scene).jvp((faces[ours], faces[ours]), tuple(d[ours] for d in dots))
        torch.testing.assert_close((image[ours], image_dot[ours]), alone)


def test_forward_mode_with_views_and_progress_is_that_of_duals_and_of_differences(faces):
    edge = tr.Distribution("logistic", tr.Geometric(0.2, 0.05))
    soft = tr.SoftRasterizer(8, edge, tr.SoftmaxDepth(0.1), near=0.5, far=3.0)
    u = torch.tensor([0.0, 0.5, 1.0], dtype=torch.float64)
    dots = directions(faces)
    image, image_dot = soft.jvp((faces, faces), dots, u, VIEWS)
    forward = torch.autograd.forward_ad
    with forward.dual_level():
        dual = (forward.make_dual(faces, dot) for dot in dots)
        found = forward.unpack_dual(soft(*dual, progress=u, views=VIEWS))
        assert torch.equal(found.primal, image) and torch.equal(found.tangent, image_dot)
    step = 1e-6
    ahead, behind = (
        soft(*(faces + sign * step * dot for dot in dots), progress=u, views=VIEWS)
        for sign in (1, -1)
    )
    # Pixels whose nearest point changes sides between the two have no slope to compare with.
    error = (image_dot - (ahead - behind) / (2 * step)).abs()
    assert float(error.quantile(0.99)) < 1e-6 * float(image_dot.abs().max())


@pytest.mark.parametrize("method", ["silhouette", "jvp"])
def test_every_way_to_render_takes_the_options_of_forward(method):
    def options(function) -> dict[str, inspect.Parameter]:
        parameters = inspect.signature(function).parameters
        return {n: p for n, p in parameters.items() if p.default is not inspect.Parameter.empty}

    assert options(getattr(tr.SoftRasterizer, method)) == options(tr.SoftRasterizer.forward)


def test_views_that_do_not_divide_the_batch_and_entries_for_views_are_refused(faces):
    with pytest.raises(ValueError, match="views: 6 batch items are not a multiple of 4"):
        renderer()(faces, None, views=4)
    with pytest.raises(ValueError, match="expected one entry, or one for each of the 2 scenes"):
        renderer()(faces, None, views=3)
    with pytest.raises(ValueError, match="views: expected a positive integer"):
        renderer()(faces, None, views=0)
