"""torch.autograd.functional and torch.func: what they give is what plain autograd gives."""

from collections.abc import Callable

import pytest
import torch
from torch import Tensor

import taichi_raster as tr

pytestmark = pytest.mark.runs_on(arch="cpu", precision="f64")
functional, func = torch.autograd.functional, torch.func

DEPTHS: dict[str, Callable[[], tr.DepthSoftness]] = {
    "softmax": tr.SoftmaxDepth,
    "over": tr.OverDepth,
    "soft order": lambda: tr.OverDepth(0.05),
}
START = torch.tensor([0.1, 0.2], dtype=torch.float64)
DIRECTION = torch.tensor([0.3, -0.5], dtype=torch.float64)


def picture(depth: str) -> Callable[[Tensor], Tensor]:
    """The image of two numbers that move the corners of some faces, and their colours."""
    g = torch.Generator().manual_seed(3)
    corners = torch.rand(2, 6, 3, 3, generator=g, dtype=torch.float64) - 0.5
    corners[..., 2] += 2.5
    ways = torch.randn(2, *corners.shape, generator=g, dtype=torch.float64) * 0.1
    colours = torch.rand(2, 6, 3, 2, generator=g, dtype=torch.float64)
    renderer = tr.SoftRasterizer((7, 6), tr.Distribution("logistic", 0.1), DEPTHS[depth]())
    return lambda t: renderer(corners + t[0] * ways[0] + t[1] * ways[1], colours * (1 + t[0]))


def loss(depth: str) -> Callable[[Tensor], Tensor]:
    image = picture(depth)
    target = torch.linspace(0, 1, 2 * 7 * 6 * 3, dtype=torch.float64).reshape(2, 7, 6, 3)
    return lambda t: (image(t) - target).square().mean()


def plain_gradient(f: Callable[[Tensor], Tensor], t: Tensor) -> Tensor:
    t = t.detach().requires_grad_()
    return torch.autograd.grad(f(t), t)[0]


def differences(f: Callable[[Tensor], Tensor], t: Tensor, step: float = 1e-5) -> Tensor:
    """Central differences of f, one column for each of its two numbers."""
    steps = step * torch.eye(2, dtype=torch.float64)
    return torch.stack([(f(t + s) - f(t - s)) / (2 * step) for s in steps], dim=-1)


@pytest.mark.parametrize("depth", DEPTHS)
def test_gradients_and_jacobians_are_plain_ones(depth: str) -> None:
    f, image = loss(depth), picture(depth)
    expected = plain_gradient(f, START)
    assert torch.allclose(expected, differences(f, START), rtol=1e-6, atol=1e-9)
    for found in (
        func.grad(f)(START),
        func.jacrev(f)(START),
        func.jacfwd(f)(START),
        functional.jacobian(f, START),
        torch.stack([func.jvp(f, (START,), (way,))[1] for way in torch.eye(2).double()]),
        torch.stack([functional.jvp(f, START, way)[1] for way in torch.eye(2).double()]),
    ):
        assert torch.allclose(found, expected, rtol=1e-12)
    jacobian = differences(image, START)
    for found in (func.jacrev(image)(START), func.jacfwd(image)(START)):
        assert torch.allclose(found, jacobian, atol=1e-7)


@pytest.mark.parametrize("depth", DEPTHS)
def test_second_derivatives_are_plain_ones(depth: str) -> None:
    f = loss(depth)
    hessian = functional.hessian(f, START)
    by_differences = differences(lambda t: plain_gradient(f, t), START)
    assert torch.allclose(hessian, by_differences, rtol=1e-5, atol=1e-8)
    for found in (
        func.hessian(f)(START),
        func.jacrev(func.jacrev(f))(START),
        func.jacrev(func.jacfwd(f))(START),
        func.jacfwd(func.grad(f))(START),
    ):
        assert torch.allclose(found, hessian, rtol=1e-10)
    for product in (functional.hvp, functional.vhp):
        assert torch.allclose(product(f, START, DIRECTION)[1], hessian @ DIRECTION, rtol=1e-10)


def test_products_with_the_hessian_of_corners_beside_a_texture_with_derivatives() -> None:
    """A tangent of the texture is not given, though it could have one."""
    g = torch.Generator().manual_seed(3)
    corners = torch.rand(1, 6, 3, 3, generator=g, dtype=torch.float64) - 0.5
    corners[..., 2] += 2.5
    ways = torch.randn(2, *corners.shape, generator=g, dtype=torch.float64) * 0.1
    uv = torch.rand(1, 6, 3, 2, generator=g, dtype=torch.float64)
    texels = torch.rand(1, 8, 8, 3, generator=g, dtype=torch.float64).requires_grad_()
    renderer = tr.SoftRasterizer(8, tr.Distribution("logistic", 0.1))

    def f(t: Tensor) -> Tensor:
        moved = corners + t[0] * ways[0] + t[1] * ways[1]
        return renderer(moved, tr.UVTexture(uv, texels)).square().sum()

    hessian = differences(lambda t: plain_gradient(f, t), START)
    for product in (functional.hvp, functional.vhp):
        assert torch.allclose(product(f, START, DIRECTION)[1], hessian @ DIRECTION, rtol=1e-5)
    assert torch.allclose(func.jacrev(func.jacrev(f))(START), hessian, rtol=1e-5)


def test_reverse_over_plain_forward_mode_has_a_gradient() -> None:
    """d/dt of a directional derivative, which torch once took for a constant."""
    f = loss("softmax")
    t = START.clone().requires_grad_()
    with torch.autograd.forward_ad.dual_level():
        dual = torch.autograd.forward_ad.make_dual(t, DIRECTION)
        slope = torch.autograd.forward_ad.unpack_dual(f(dual)).tangent
    (found,) = torch.autograd.grad(slope, t)
    assert torch.allclose(found, functional.hessian(f, START) @ DIRECTION, rtol=1e-10)


@pytest.mark.parametrize("depth", ["softmax", "over"])
def test_vmap_is_one_render_after_the_other(depth: str) -> None:
    f, ts = loss(depth), torch.stack([START, START + 0.1, START - 0.2])
    values = torch.stack([f(t) for t in ts])
    gradients = torch.stack([plain_gradient(f, t) for t in ts])
    assert torch.equal(torch.vmap(f)(ts), values)
    assert torch.allclose(torch.vmap(func.grad(f))(ts), gradients, rtol=1e-12)
    assert torch.allclose(func.grad(lambda s: torch.vmap(f)(s).sum())(ts), gradients, rtol=1e-12)
    hessians = torch.stack([functional.hessian(f, t) for t in ts])
    assert torch.allclose(torch.vmap(func.hessian(f))(ts), hessians, rtol=1e-10)
    assert torch.equal(torch.vmap(torch.vmap(f))(ts[None])[0], values)


def test_vmap_over_a_softness() -> None:
    corners = torch.tensor([[[[-0.5, -0.4, 2.0], [0.6, -0.3, 2.0], [0.1, 0.7, 2.0]]]]).double()

    def area(scale: Tensor) -> Tensor:
        return tr.SoftRasterizer(8, tr.Distribution("logistic", scale)).silhouette(corners).sum()

    scales = torch.tensor([0.02, 0.1, 0.3], dtype=torch.float64)
    expected = torch.stack([area(scale) for scale in scales])
    renderer = tr.SoftRasterizer(8)
    found = torch.vmap(
        lambda scale: func.functional_call(
            renderer, {"edge.scale.value": scale}, (corners, None)
        ).sum()
    )
    assert torch.allclose(found(scales), expected, rtol=1e-6)


def test_vmap_over_a_soft_order_is_refused_by_name() -> None:
    with pytest.raises(NotImplementedError, match=r"vmap.*OverDepth.*batch"):
        torch.vmap(loss("soft order"))(torch.stack([START, START]))


def test_third_derivatives_are_refused_by_name() -> None:
    f = loss("softmax")
    with pytest.raises(NotImplementedError, match="third derivatives"):
        func.jacrev(func.jacrev(func.jacrev(f)))(START)
    t = START.clone().requires_grad_()
    (first,) = torch.autograd.grad(f(t), t, create_graph=True)
    (second,) = torch.autograd.grad(first.sum(), t, create_graph=True)
    with pytest.raises(NotImplementedError, match="third derivatives"):
        torch.autograd.grad(second.sum(), t)


def test_forward_over_forward_mode_is_refused_by_name() -> None:
    with pytest.raises(NotImplementedError, match=r"forward mode over forward mode.*jacrev"):
        func.jacfwd(func.jacfwd(loss("softmax")))(START)


def test_torch_compile_breaks_the_graph_at_the_renderer_and_goes_on() -> None:
    f = loss("softmax")
    torch._dynamo.reset()
    compiled = torch.compile(lambda t: f(t.sin()) * 2, backend="eager")
    t = START.clone().requires_grad_()
    (found,) = torch.autograd.grad(compiled(t), t)
    (expected,) = torch.autograd.grad(f(t.sin()) * 2, t)
    assert torch.allclose(found, expected, rtol=1e-12)


@pytest.mark.parametrize("renderer", [tr.SoftRasterizer(4), tr.SharpRasterizer(4)])
def test_tracing_is_refused(renderer: torch.nn.Module) -> None:
    faces = torch.tensor([[[[-0.5, -0.5, 2.0], [0.5, -0.5, 2.0], [0.0, 0.5, 2.0]]]]).double()
    with pytest.raises(NotImplementedError, match=r"^torch\.jit\.trace"):
        torch.jit.trace(renderer, (faces, faces))
