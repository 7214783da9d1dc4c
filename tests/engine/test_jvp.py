"""Forward mode: the tangent image against the twin's, and against the reverse mode."""

import pytest
import torch
from torch import Tensor

import taichi_raster as tr
from scenes import SECOND_ORDER_MODES, Case, Inputs, kink_margin, like, random_faces, relative


def twin_jvp(case: Case, x: Inputs, tangents: Inputs) -> tuple[Tensor, Tensor]:
    names = list(tangents)

    def image(*values: Tensor) -> Tensor:
        return case.twin({**x, **dict(zip(names, values, strict=True))})

    primals, dots = tuple(x[k] for k in names), tuple(tangents[k] for k in names)
    value, moved = torch.func.jvp(image, primals, dots)[:2]
    return value, moved


@SECOND_ORDER_MODES
def test_jvp_is_the_twins(edge: str, depth: str, dtype: torch.dtype) -> None:
    case = Case(edge, depth).but(image_size=(11, 14))
    x = case.inputs(seed=41, batch=2, faces=5)
    assert kink_margin(x, case.view, edge) > 1e-6
    tangents = {k: like(x[k], seed) for seed, k in enumerate(("vertices", "attributes"))}
    expected, expected_dot = twin_jvp(case, x, tangents)

    narrow = {k: v.to(dtype) for k, v in x.items()}
    primals = (narrow["vertices"], narrow["attributes"])
    dots = (tangents["vertices"].to(dtype), tangents["attributes"].to(dtype))
    renderer = case.renderer(narrow)
    if "weights" in x:
        with torch.no_grad():
            renderer.edge.weights.copy_(x["weights"])
    image, image_dot = renderer.jvp(primals, dots)
    small = 1e-9 if dtype == torch.float64 else 1e-3
    assert (image.double() - expected).abs().max() < min(small, 1e-4)
    assert relative(image_dot, expected_dot) < small


def test_jvp_and_vjp_are_transposes(dtype: torch.dtype) -> None:
    case = Case("logistic").but(image_size=(8, 9), antialias=2)
    x = case.inputs(seed=71, dtype=dtype)
    renderer = case.renderer(x)
    primals = x["vertices"].clone().requires_grad_(), x["attributes"].clone().requires_grad_()
    dots = like(primals[0], 0), like(primals[1], 1)
    _, image_dot = renderer.jvp(primals, dots)
    image = renderer(*primals)
    cotangent = like(image, 5)
    back = torch.autograd.grad(image, primals, cotangent)
    forward = (image_dot * cotangent).sum().item()
    backward = sum((b * d).sum().item() for b, d in zip(back, dots, strict=True))
    assert forward == pytest.approx(backward, rel=1e-10 if dtype == torch.float64 else 1e-3)


def test_jvp_at_a_progress(dtype: torch.dtype) -> None:
    import taichi_raster as tr

    case = Case("logistic").but(image_size=(7, 6))
    x = case.inputs(seed=72, dtype=dtype)
    u = torch.tensor([0.2, 0.8], dtype=torch.float64)
    schedule = tr.Geometric(0.4, 0.1)
    annealed = tr.SoftRasterizer(
        edge=tr.Distribution("logistic", scale=schedule), **vars(case.view)
    )
    fixed = tr.SoftRasterizer(
        edge=tr.Distribution("logistic", scale=schedule(u)), **vars(case.view)
    )
    primals = (x["vertices"], x["attributes"])
    dots = (like(primals[0]), like(primals[1], 1))
    for a, b in zip(annealed.jvp(primals, dots, progress=u), fixed.jvp(primals, dots), strict=True):
        assert torch.allclose(a, b, atol=1e-5)


def test_forward_ad_reaches_every_input(dtype: torch.dtype) -> None:
    """torch.autograd.forward_ad through the renderer itself, also for the softness."""
    import torch.autograd.forward_ad as fwd

    for edge in ("logistic", "mlp"):
        case = Case(edge)
        x = case.inputs(seed=73)
        tangents = {k: like(v, seed) for seed, (k, v) in enumerate(x.items())}
        _, expected = twin_jvp(case, x, tangents)
        with fwd.dual_level():
            dual = {k: fwd.make_dual(v.to(dtype), tangents[k].to(dtype)) for k, v in x.items()}
            image_dot = fwd.unpack_dual(case.ours(dual)).tangent
        assert image_dot is not None
        assert relative(image_dot, expected) < (1e-9 if dtype == torch.float64 else 1e-3)


def test_jvp_is_the_same_in_inference_mode(dtype: torch.dtype) -> None:
    """Which drops tangents, and whose tensors know no forward mode."""
    vertices, colours = random_faces(3, dtype=dtype)
    tangent = torch.linspace(-1, 1, vertices.numel(), dtype=dtype).view_as(vertices)
    renderer = tr.SoftRasterizer(8)
    expected = renderer.jvp((vertices, colours), (tangent, None))
    assert float(expected[1].abs().max()) > 0
    with torch.inference_mode():
        for given in (vertices, 1 * vertices):
            found = renderer.jvp((given, colours), (tangent, None))
            assert all(torch.equal(f, e) for f, e in zip(found, expected, strict=True))


def test_a_tangent_that_is_none_is_zero(dtype: torch.dtype) -> None:
    case = Case()
    x = case.inputs(seed=74, dtype=dtype)
    primals = (x["vertices"], x["attributes"])
    dot = like(x["vertices"])
    with_none = case.renderer(x).jvp(primals, (dot, None))
    with_zero = case.renderer(x).jvp(primals, (dot, torch.zeros_like(x["attributes"])))
    # The two are compiled for what moves. On a CPU both round alike; a GPU's compiler fuses other
    # products and sums of each, which then round once instead of twice (ten scenes differ by up to
    # 0.8 of the last digit of their largest value).
    rounding = 0.0 if tr.runtime().arch == "cpu" else 8 * torch.finfo(dtype).eps
    for a, b in zip(with_none, with_zero, strict=True):
        torch.testing.assert_close(a, b, rtol=0, atol=rounding * float(b.abs().max()))
    _, still = case.renderer(x).jvp(primals, (None, None))
    assert still.abs().max() == 0


@pytest.mark.parametrize("wrong", ["shape", "dtype"])
def test_wrong_tangents_are_refused(wrong: str, dtype: torch.dtype) -> None:
    case = Case()
    x = case.inputs(seed=74, dtype=dtype)
    dot = {"shape": x["vertices"][:, :1], "dtype": x["vertices"].half()}[wrong]
    with pytest.raises((TypeError, ValueError), match=r"tangents.*face_vertices"):
        case.renderer(x).jvp((x["vertices"], x["attributes"]), (dot, x["attributes"]))


@pytest.mark.runs_on(arch="cpu", precision="f64")
@pytest.mark.parametrize("which", ["a table's network", "a depth distribution's gamma"])
def test_forward_mode_in_what_torch_computes_of_a_softness(which: str, dtype: torch.dtype) -> None:
    """Forward mode is reverse mode along a direction."""
    x = Case("logistic").inputs(seed=5, batch=2, faces=6, dtype=dtype)
    if which == "a table's network":
        network = tr.MLPSoftness((3, 3), scale=0.1, init="gaussian")
        renderer = tr.SoftRasterizer(12, tr.tabulate(network, octaves=6), tr.SoftmaxDepth())
        name, start = "edge.edge.weights", network.weights.detach()
    else:
        gamma = tr.Knots([0.2])
        depth = tr.DistributionDepth("gaussian", gamma)
        renderer, name = tr.SoftRasterizer(12, depth=depth), "depth.gamma.log_values"
        start = gamma.log_values.detach()
    direction = torch.linspace(-1, 1, start.numel() + 1)[1:].to(start).view(start.shape)

    def image(values: Tensor) -> Tensor:
        faces = x["vertices"].detach(), x["attributes"].detach()
        return torch.func.functional_call(renderer, {name: values}, faces)

    values = start.clone().requires_grad_()
    (slope,) = torch.autograd.grad(image(values).square().sum(), values)
    with torch.autograd.forward_ad.dual_level():
        dual = torch.autograd.forward_ad.make_dual(start, direction)
        found = torch.autograd.forward_ad.unpack_dual(image(dual).square().sum())
        assert found.tangent is not None
        assert abs(float(slope.flatten() @ direction.flatten())) > 1e-4
        torch.testing.assert_close(
            found.tangent.to(start), (slope * direction).sum(), rtol=1e-9, atol=0
        )
