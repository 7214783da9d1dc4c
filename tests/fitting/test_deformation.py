"""Smoothed offsets and uniform Adam: the equations that they stand for."""

import copy
import pickle
from collections.abc import Callable

import pytest
import torch
from torch import Tensor

import taichi_raster as tr
from taichi_raster.scene.procedural import icosphere

pytestmark = pytest.mark.runs_on(arch="cpu", precision="f64")
F64 = torch.float64


def system(mesh: tr.Mesh, smoothing: float) -> Tensor:
    """I + s L, dense, edge by edge."""
    found = torch.eye(len(mesh.vertices), dtype=F64)
    faces = mesh.faces.tolist()
    edges = {tuple(sorted((f[k - 1], f[k]))) for f in faces for k in range(3)}
    for i, j in edges:
        if i != j:
            found[i, i] += smoothing
            found[j, j] += smoothing
            found[i, j] -= smoothing
            found[j, i] -= smoothing
    return found


def together(*meshes: tr.Mesh) -> tr.Mesh:
    starts = torch.tensor([0, *(len(m.vertices) for m in meshes)]).cumsum(0).tolist()
    return tr.Mesh(
        torch.cat([m.vertices.double() for m in meshes]),
        torch.cat([m.faces + start for m, start in zip(meshes, starts, strict=False)]),
    )


def lonely() -> tr.Mesh:
    """One vertex without faces, one face on a line, and one edge that three faces share."""
    faces = torch.tensor([[0, 1, 2], [0, 1, 3], [1, 0, 4], [5, 5, 2]])
    return tr.Mesh(torch.rand(7, 3, dtype=F64, generator=torch.Generator().manual_seed(1)), faces)


MESHES: dict[str, tr.Mesh] = {
    "sphere": icosphere(1, dtype=F64),
    "components": together(icosphere(0), tr.box(), tr.star()),
    "odd": lonely(),
}


def noise(*shape: int, dtype: torch.dtype = F64) -> Tensor:
    return torch.randn(*shape, dtype=F64, generator=torch.Generator().manual_seed(0)).to(dtype)


@pytest.mark.parametrize("smoothing", [0.0, 0.7, 50.0])
@pytest.mark.parametrize("mesh", MESHES.values(), ids=MESHES)
def test_smoothing_is_the_dense_inverse(mesh: tr.Mesh, smoothing: float) -> None:
    surface = tr.SmoothOffsets(mesh, smoothing)
    inverse = torch.linalg.inv(system(mesh, smoothing))
    for shape in ((3,), (1,), (4, 3), (2, 3, 5), (0, 3), (2, 0)):
        x = noise(*shape[:-1], len(mesh.vertices), shape[-1])
        torch.testing.assert_close(surface.smooth(x), inverse @ x)
    with torch.no_grad():
        surface.offsets.copy_(noise(len(mesh.vertices), 3))
    torch.testing.assert_close(surface(), mesh.vertices + inverse @ surface.offsets)


@pytest.mark.parametrize("mesh", MESHES.values(), ids=MESHES)
def test_smoothing_has_exact_derivatives_of_any_order(mesh: tr.Mesh) -> None:
    surface, inverse = tr.SmoothOffsets(mesh, 3.0), torch.linalg.inv(system(mesh, 3.0))
    x, v = noise(2, 2, len(mesh.vertices), 3).requires_grad_()
    (vjp,) = torch.autograd.grad(surface.smooth(x), x, v.detach())
    torch.testing.assert_close(vjp, inverse.T @ v)
    jvp = torch.func.jvp(surface.smooth, (x.detach(),), (v.detach(),))[1]
    torch.testing.assert_close(jvp, inverse @ v)


def test_smoothing_passes_gradcheck() -> None:
    surface, x = tr.SmoothOffsets(MESHES["odd"], 3.0), noise(2, 7, 1).requires_grad_()
    assert torch.autograd.gradcheck(surface.smooth, (x,), check_forward_ad=True)

    def bent(x: Tensor) -> Tensor:
        return surface.smooth(surface.smooth(x).sin())

    assert torch.autograd.gradgradcheck(bent, (x,), check_fwd_over_rev=True)
    hessian = torch.func.hessian(lambda x: bent(x).square().sum())(x.detach())
    by_rows = torch.autograd.functional.hessian(lambda x: bent(x).square().sum(), x.detach())
    torch.testing.assert_close(hessian, by_rows)


def test_smoothing_can_be_mapped() -> None:
    surface, x = tr.SmoothOffsets(MESHES["sphere"], 3.0), noise(4, 42, 3)
    torch.testing.assert_close(torch.vmap(surface.smooth)(x), surface.smooth(x))
    along = torch.vmap(surface.smooth, in_dims=2, out_dims=2)(x.movedim(0, 2))
    torch.testing.assert_close(along.movedim(2, 0), surface.smooth(x))
    gradients = torch.vmap(torch.func.grad(lambda x: surface.smooth(x).square().sum()))(x)
    torch.testing.assert_close(gradients, 2 * surface.smooth(surface.smooth(x)))


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32])
def test_smoothing_is_solved_in_float64_whatever_comes_in(dtype: torch.dtype) -> None:
    surface, x = tr.SmoothOffsets(MESHES["sphere"], 1e4), noise(42, 3, dtype=dtype)
    assert torch.equal(surface.smooth(x), surface.smooth(x.double()).to(dtype))
    moved = tr.SmoothOffsets(icosphere(1), 2.0).to(dtype)
    assert moved().dtype == dtype


def test_smoothing_works_in_inference_mode_and_where_it_was_made_there() -> None:
    x = noise(42, 3)
    expected = tr.SmoothOffsets(MESHES["sphere"], 3.0).smooth(x)
    with torch.inference_mode():
        made = tr.SmoothOffsets(MESHES["sphere"], 3.0)
        assert torch.equal(made.smooth(noise(42, 3)), expected)
        assert torch.equal(tr.SmoothOffsets(MESHES["sphere"], 3.0)(), made.start)
    x.requires_grad_()
    (gradient,) = torch.autograd.grad(made.smooth(x).sum(), x)
    torch.testing.assert_close(gradient, torch.ones_like(x))


COPIES: dict[str, Callable[[tr.SmoothOffsets], tr.SmoothOffsets]] = {
    "copy": copy.deepcopy,
    "pickle": lambda surface: pickle.loads(pickle.dumps(surface)),
}


@pytest.mark.parametrize("make", COPIES.values(), ids=COPIES)
def test_copies_smooth_alike_and_share_nothing(make) -> None:
    surface = tr.SmoothOffsets(MESHES["components"], 3.0)
    with torch.no_grad():
        surface.offsets.copy_(noise(*surface.offsets.shape))
    twin = make(surface)
    assert torch.equal(twin(), surface())
    with torch.no_grad():
        twin.offsets.zero_()
    assert torch.equal(twin(), surface.start) and not torch.equal(surface(), surface.start)


def test_state_dicts_are_start_and_offsets_and_those_with_a_dense_inverse_still_load() -> None:
    surface, other = (tr.SmoothOffsets(MESHES["sphere"], s) for s in (3.0, 4.0))
    with torch.no_grad():
        surface.offsets.copy_(noise(42, 3))
    state = surface.state_dict()
    assert sorted(state) == ["offsets", "start"]
    fresh = tr.SmoothOffsets(MESHES["sphere"], 3.0)
    fresh.load_state_dict(state)
    assert torch.equal(fresh(), surface())
    old = {**state, "spread": torch.linalg.inv(system(MESHES["sphere"], 3.0)).float()}
    holder, offsets = torch.nn.ModuleDict({"surface": fresh}), 2 * state["offsets"]
    holder.load_state_dict({f"surface.{k}": v for k, v in {**old, "offsets": offsets}.items()})
    assert torch.equal(fresh.offsets, offsets)
    for wrong in (other, tr.SmoothOffsets(MESHES["odd"], 3.0)):
        with pytest.raises(ValueError, match=r"^spread: is of another mesh or smoothing"):
            wrong.load_state_dict(old)


def test_pickles_with_a_dense_inverse_say_how_to_go_on() -> None:
    surface = tr.SmoothOffsets(MESHES["sphere"], 3.0)
    surface.register_buffer("spread", torch.eye(42))  # as it was
    with pytest.raises(ValueError, match="load its state dict"):
        pickle.loads(pickle.dumps(surface))


@pytest.mark.parametrize(
    ("x", "error", "message"),
    [
        ([[1.0]], TypeError, r"^x: expected a torch.Tensor, got list"),
        (torch.ones(42, 3, dtype=torch.int64), TypeError, r"^x: .*int64"),
        (torch.ones(42, 3, dtype=torch.complex64), TypeError, r"^x: .*complex64"),
        (torch.ones(41, 3), ValueError, r"^x: must be \(\.\.\., 42, C\), got \(41, 3\)"),
        (torch.ones(42), ValueError, r"^x: must be"),
        (torch.ones(42, 3, device="meta"), ValueError, r"^x: is on the meta device"),
    ],
)
def test_what_cannot_be_smoothed_is_refused(x, error, message) -> None:
    with pytest.raises(error, match=message):
        tr.SmoothOffsets(MESHES["sphere"], 3.0).smooth(x)


@pytest.mark.parametrize("smoothing", [-1.0, float("inf"), float("nan"), 1e17, 1e300])
def test_smoothing_out_of_range_is_refused(smoothing: float) -> None:
    with pytest.raises(ValueError, match=r"^smoothing: "):
        tr.SmoothOffsets(MESHES["components"], smoothing)


def test_a_uniform_shift_is_not_smoothed_away():
    surface = tr.SmoothOffsets(icosphere(1, dtype=F64), smoothing=10.0)
    with torch.no_grad():
        surface.offsets.fill_(0.25)
    torch.testing.assert_close(surface() - surface.start, torch.full((42, 3), 0.25, dtype=F64))


def test_uniform_adam_keeps_the_proportions_of_a_constant_gradient():
    x = torch.zeros(3, dtype=F64)
    adam = tr.UniformAdam([x], lr=0.01)
    gradient = torch.tensor([1.0, -0.1, 0.0], dtype=F64)
    for _ in range(5):
        x.grad = 7.0 * gradient
        adam.step()
    torch.testing.assert_close(x, -0.05 * gradient)


def test_uniform_adam_finds_a_minimum_and_survives_a_zero_gradient():
    x = torch.tensor([1.0, -2.0], dtype=F64)
    adam = tr.UniformAdam([x])
    for step in range(300):
        x.grad = 2 * x
        adam.param_groups[0]["lr"] = 0.1 * 0.98**step
        adam.step()
    assert x.abs().max() < 1e-2
    still = torch.ones(2, dtype=F64)
    adam = tr.UniformAdam([still, x])
    still.grad, x.grad = torch.zeros(2, dtype=F64), None
    before = x.clone()
    adam.step()
    assert torch.equal(still, torch.ones(2, dtype=F64)) and torch.equal(x, before)


@pytest.mark.parametrize(("name", "value"), [("lr", 0.0), ("betas", (0.9, 1.0))])
def test_uniform_adam_refuses_numbers_out_of_range(name, value):
    with pytest.raises(ValueError, match=rf"^{name}: "):
        tr.UniformAdam([torch.zeros(2)], **{name: value})
