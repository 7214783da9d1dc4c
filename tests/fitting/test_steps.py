"""Steps measured in the picture: how far they go, what they do not depend on, what stands still."""

from __future__ import annotations

import io
import math
from collections.abc import Callable, Sequence
from functools import lru_cache
from typing import Any, cast

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

import taichi_raster as tr

pytestmark = pytest.mark.runs_on(arch="cpu", precision="f64")
F64 = torch.float64
SPHERE = tr.icosphere(1, 0.6, F64)
VIEW = tr.look_at(torch.tensor([[0.3, 0.4, 2.5]], dtype=F64))
Optimiser = Callable[[list[dict[str, list[Tensor]]]], torch.optim.Optimizer]


def noise(*shape: int, seed: int = 0, dtype: torch.dtype = F64) -> Tensor:
    return torch.randn(*shape, dtype=F64, generator=torch.Generator().manual_seed(seed)).to(dtype)


def turned(vectors: Tensor, points: Tensor) -> Tensor:
    """Points (V, 3) turned about axes, by their lengths in radians (Rodrigues): (B, V, 3)."""
    angle = (vectors.square().sum(-1) + 1e-12).sqrt()[:, None, None]
    axis = (vectors[:, None] / angle).expand(-1, len(points), -1)
    points = points.to(vectors).expand(len(vectors), -1, -1)
    across = torch.linalg.cross(axis, points)
    along = (axis * points).sum(-1, keepdim=True)
    return angle.cos() * points + angle.sin() * across + (1 - angle.cos()) * along * axis


def posed(rotation: Tensor, translation: Tensor) -> Tensor:
    """The sphere, stretched, as seen: (B, V, 3)."""
    points = SPHERE.vertices * torch.tensor([1.0, 0.7, 0.4], dtype=F64)
    placed = turned(rotation, points) + translation[:, None]
    return tr.PerspectiveCamera(VIEW.to(placed), 40.0).project(placed)


def moved(before: Tensor, after: Tensor) -> Tensor:
    """Root mean square of the displacements in the picture, (B,)."""
    return (after - before)[..., :2].square().sum(-1).flatten(1).mean(1).sqrt()


def test_tensors_alone_get_an_adam_of_little_momentum() -> None:
    found = []
    for own in (True, False):
        x = (0.3 * noise(2, 3)).requires_grad_()
        adam = torch.optim.Adam([x], betas=tr.ImageSteps.BETAS)
        steps = tr.ImageSteps(adam if own else [x], lambda x: posed(x, torch.zeros_like(x)))
        for i in range(4):
            steps.zero_grad()
            posed(x, torch.zeros_like(x))[..., 0].square().sum().backward()
            steps.step(i / 4)
        found.append(x.detach())
    assert torch.equal(*found)


def test_within_a_transform_it_is_the_same() -> None:
    """The product in forward mode takes another way there."""
    x, direction = 0.3 * noise(2, 3), noise(2, 3, seed=1)

    def length(x: Tensor) -> Tensor:
        (step,) = tr.image_steps(
            lambda r: posed(r, torch.zeros_like(r)), [x], [direction], 0.02, depth_unit=1.0
        )
        return step.square().sum()

    y = x.clone().requires_grad_()
    (expected,) = torch.autograd.grad(length(y), y)
    torch.testing.assert_close(torch.func.grad(length)(x), expected)


# How far ------------------------------------------------------------------------------------------


def test_a_step_moves_the_scene_by_eta() -> None:
    rotation, translation = 0.3 * noise(3, 3), 0.1 * noise(3, 3, seed=1)
    for eta in (0.02, torch.tensor(0.02, dtype=F64), torch.tensor([0.02, 0.1, 1e-4])):
        (step,) = tr.image_steps(
            lambda r: posed(r, translation), [rotation], [noise(3, 3, seed=2)], eta
        )
        h = 1e-5
        ahead, behind = (posed(rotation + sign * h * step, translation) for sign in (1, -1))
        expected = torch.as_tensor(eta, dtype=F64).expand(3)
        torch.testing.assert_close(moved(behind, ahead) / (2 * h), expected, rtol=1e-6, atol=0)


def test_tensors_share_eta_and_attributes_have_their_own() -> None:
    x, y, colour = noise(2, 5, 2), noise(2, 5, 2, seed=1), noise(2, 5, 3, seed=2)

    def seen(x: Tensor, y: Tensor, colour: Tensor) -> tuple[Tensor, Tensor]:
        return torch.cat([3 * x, 7 * y], 1), 5 * colour

    directions = [noise(*t.shape, seed=9) for t in (x, y, colour)]
    steps = tr.image_steps(seen, [x, y, colour], directions, 0.02, 0.3)
    before = seen(x, y, colour)
    zero = torch.zeros_like
    for i, expected in ((0, 0.02 / math.sqrt(2)), (1, 0.02 / math.sqrt(2))):
        alone = [step if i == j else zero(step) for j, step in enumerate(steps)]
        after = seen(x + alone[0], y + alone[1], colour)
        torch.testing.assert_close(
            moved(before[0], after[0]), torch.full((2,), expected, dtype=F64)
        )
    change = (seen(x, y, colour + steps[2])[1] - before[1]).flatten(1).square().mean(1).sqrt()
    torch.testing.assert_close(change, torch.full((2,), 0.3, dtype=F64))
    for step, direction in zip(steps, directions, strict=True):
        ratio = (step / direction).flatten(1)
        torch.testing.assert_close(ratio, ratio[:, :1].expand_as(ratio))


def test_what_moves_both_keeps_to_both() -> None:
    x = noise(2, 4, 2)
    for gain in (0.0, 1e-3, 1.0, 1e3):
        (step,) = tr.image_steps(lambda x, g=gain: (x, g * x), [x], [noise(2, 4, 2)], 0.02, 0.1)
        corners, change = moved(x, x + step), gain * step.flatten(1).square().mean(1).sqrt()
        assert bool((corners <= 0.02 * (1 + 1e-9)).all() and (change <= 0.1 * (1 + 1e-9)).all())
        assert bool((corners.square() / 0.02**2 + change.square() / 0.1**2 > 0.99).all())


def test_depth_counts_where_it_is_asked_for() -> None:
    x = noise(2, 4, 3).abs()
    direction = torch.zeros_like(x)
    direction[..., 2] = 1.0
    (still,) = tr.image_steps(lambda x: x, [x], [direction], 0.02)
    assert not still.any()
    (step,) = tr.image_steps(lambda x: x, [x], [direction], 0.02, depth_unit=5.0)
    torch.testing.assert_close(step, 0.1 * direction)


def test_padding_and_what_is_behind_the_eye_do_not_count() -> None:
    x = noise(2, 4, 2)
    z = torch.ones(2, 4, 1, dtype=F64)
    (expected,) = tr.image_steps(lambda x: torch.cat([x, z], -1), [x], [noise(2, 4, 2)], 0.02)

    def padded(x: Tensor) -> Tensor:
        more = torch.cat([1e6 * x, torch.zeros_like(z)], -1)
        return torch.cat([torch.cat([x, z], -1), more, torch.zeros_like(more)], 1)

    (step,) = tr.image_steps(padded, [x], [noise(2, 4, 2)], 0.02)
    torch.testing.assert_close(step, expected)


def test_views_of_an_item_count_together_and_one_problem_needs_no_batch() -> None:
    x, d = noise(2, 5, 3), noise(2, 5, 3, seed=1)
    views = noise(3, 3, 2, seed=2)

    def seen(x: Tensor) -> Tensor:  # (B * 3, V, 2), views next to each other
        return (x[:, None] @ views).flatten(0, 1)

    (steps,) = tr.image_steps(seen, [x], [d], 0.02)
    for i in range(2):
        (alone,) = tr.image_steps(lambda x: seen(x[None]), [x[i]], [d[i]], 0.02, per_item=False)
        torch.testing.assert_close(steps[i], alone)


# What it does not depend on -----------------------------------------------------------------------


def pose_loss(rotation: Tensor, translation: Tensor, colour: Tensor) -> Tensor:
    goal = posed(0 * rotation + 0.2, 0 * translation + 0.05).detach()
    fit = (posed(rotation, translation) - goal)[..., :2].square().sum((1, 2))
    return fit + (colour - 0.5).square().sum((1, 2))


def trajectory(
    make: Optimiser, scales: Sequence[float], dtype: torch.dtype, count: int = 4, batch: int = 2
) -> list[Tensor]:
    """Rotation, translation and colours after some steps, their unknowns in units of `scales`."""
    starts = [0.3 * noise(2, 3), 0.1 * noise(2, 3, seed=1), noise(2, 4, 3, seed=2)]
    starts = [start[:batch] for start in starts]
    unknowns = [(c * x).to(dtype).requires_grad_() for c, x in zip(scales, starts, strict=True)]

    def meant(*unknowns: Tensor) -> list[Tensor]:
        return [x / c for c, x in zip(scales, unknowns, strict=True)]

    def seen(*unknowns: Tensor) -> tuple[Tensor, Tensor]:
        rotation, translation, colour = meant(*unknowns)
        return posed(rotation, translation), colour

    optimiser = make([{"params": unknowns[:2]}, {"params": unknowns[2:]}])
    steps = tr.ImageSteps(optimiser, seen, [tr.Geometric(0.03, 0.01), 0.02], [0.1, 0.05])
    for i in range(count):
        steps.zero_grad()
        pose_loss(*meant(*unknowns)).sum().backward()
        steps.step(i / count)
    return [x.detach() for x in meant(*unknowns)]


OPTIMISERS: dict[str, Optimiser] = {
    "SGD": lambda p: torch.optim.SGD(p, lr=0.3),
    "momentum": lambda p: torch.optim.SGD(p, lr=1.0, momentum=0.9, nesterov=True),
    "Adam": lambda p: torch.optim.Adam(p, lr=1.0),
    "large eps": lambda p: torch.optim.Adam(p, lr=1e-3, eps=0.1, betas=(0.5, 0.9)),
    "RMSprop": lambda p: torch.optim.RMSprop(p, lr=0.1),
}
SCALES = st.lists(st.floats(-6, 6).map(lambda e: 10.0**e), min_size=3, max_size=3)


reference = lru_cache(lambda make, dtype: trajectory(make, [1.0] * 3, dtype))


@pytest.mark.parametrize(("dtype", "rounding"), [(F64, 1e-12), (torch.float32, 1e-4)])
@pytest.mark.parametrize("make", OPTIMISERS.values(), ids=OPTIMISERS)
@settings(max_examples=3)
@given(scales=SCALES)
def test_units_of_the_unknowns_change_no_trajectory(
    make: Optimiser, dtype: torch.dtype, rounding: float, scales: list[float]
) -> None:
    for found, expected in zip(
        trajectory(make, scales, dtype), reference(make, dtype), strict=True
    ):
        torch.testing.assert_close(found, expected, rtol=0, atol=rounding)


@pytest.mark.parametrize("make", OPTIMISERS.values(), ids=OPTIMISERS)
def test_the_learning_rate_has_no_effect(make: Optimiser) -> None:
    def other(groups: list[dict[str, list[Tensor]]]) -> torch.optim.Optimizer:
        optimiser = make(groups)
        for group in optimiser.param_groups:
            group["lr"] *= 1e-5
        return optimiser

    found_all = trajectory(other, [1.0] * 3, F64)
    for found, expected in zip(found_all, reference(make, F64), strict=True):
        torch.testing.assert_close(found, expected, rtol=0, atol=1e-9)


@pytest.mark.parametrize("make", OPTIMISERS.values(), ids=OPTIMISERS)
def test_items_do_not_depend_on_one_another(make: Optimiser) -> None:
    alone = trajectory(make, [1.0] * 3, F64, batch=1)
    for found, expected in zip(reference(make, F64), alone, strict=True):
        torch.testing.assert_close(found[:1], expected, rtol=0, atol=1e-12)


# What stands still --------------------------------------------------------------------------------


@pytest.mark.parametrize("dtype", [torch.float32, F64])
def test_what_cannot_move_the_picture_stands_still(dtype: torch.dtype) -> None:
    camera = tr.OrthographicCamera(VIEW.to(dtype), 1.3)
    along = VIEW[0, 2, :3].to(dtype)  # the view axis: x and y move by rounding alone

    def seen(depth: Tensor, _: Tensor, x: Tensor) -> Tensor:
        points = SPHERE.vertices.to(dtype) + depth[:, None] * along + x[:, None] * along[[1, 0, 2]]
        return camera.project(points)

    unknowns = [noise(2, 1, seed=i, dtype=dtype) for i in range(3)]
    directions = [torch.ones_like(x) for x in unknowns]
    depth, hidden, x = tr.image_steps(seen, unknowns, directions, 0.02)
    assert not depth.any() and not hidden.any()
    before = seen(*unknowns)
    # They do not take a share of eta, either.
    torch.testing.assert_close(
        moved(before, seen(unknowns[0], unknowns[1], unknowns[2] + x)),
        torch.full((2,), 0.02, dtype=dtype),
        rtol=1e-4,
        atol=0,
    )
    directions[2][1] = 0.0
    assert not tr.image_steps(seen, unknowns, directions, 0.02)[2][1].any()


@pytest.mark.parametrize("dtype", [torch.float32, F64])
@pytest.mark.parametrize("flat", [False, True])
def test_depth_in_perspective_is_no_rounding(dtype: torch.dtype, flat: bool) -> None:
    points = SPHERE.vertices * torch.tensor([0.01, 0.01, 0.0 if flat else 1e-3], dtype=F64)
    camera = tr.PerspectiveCamera(tr.look_at((0.0, 0.0, 900.0)).to(dtype), 40.0)

    def seen(depth: Tensor) -> Tensor:
        return camera.project(points.to(dtype) + depth[:, None] * torch.eye(3, dtype=dtype)[2])

    (step,) = tr.image_steps(
        seen, [noise(1, 1, dtype=dtype)], [torch.ones(1, 1, dtype=dtype)], 1e-8
    )
    assert float(step) > 0


def test_unused_parameters_and_zero_gradients_stay() -> None:
    x, unused, ungraded = (noise(2, 4, 2, seed=i).requires_grad_() for i in range(3))
    before = [t.detach().clone() for t in (x, unused, ungraded)]
    adam = torch.optim.Adam([x, unused, ungraded])
    steps = tr.ImageSteps(adam, lambda x, unused, ungraded: x + 0 * unused + ungraded, 0.02)
    for i in range(3):
        steps.zero_grad()
        (x[0].square().sum() + unused.sum()).backward()
        steps.step(i / 3)
    assert torch.equal(unused, before[1]) and torch.equal(ungraded, before[2])
    assert torch.equal(x[1], before[0][1]) and not torch.equal(x[0], before[0][0])


# As a function ------------------------------------------------------------------------------------


def test_steps_are_differentiable_twice() -> None:
    r, t = 0.3 * noise(2, 3), 0.1 * noise(2, 3, seed=1)
    d, e = noise(2, 3, seed=2), noise(2, 3, seed=3)
    eta, stretch = torch.tensor([0.02, 0.5], dtype=F64), torch.tensor(1.3, dtype=F64)
    inputs = tuple(x.requires_grad_() for x in (r, t, d, e, eta, stretch))

    def steps(*x: Tensor) -> tuple[Tensor, ...]:
        def seen(r: Tensor, t: Tensor) -> tuple[Tensor, Tensor]:
            return x[5] * posed(r, t)[:, ::9], 3 * t.sin()

        return tr.image_steps(seen, x[:2], x[2:4], x[4], 0.3, depth_unit=2.0)

    assert torch.autograd.gradcheck(steps, inputs)
    assert torch.autograd.gradgradcheck(steps, inputs, atol=1e-4, fast_mode=True)


def test_steps_have_finite_derivatives_where_something_stands_still() -> None:
    x, d = noise(2, 3, 2).requires_grad_(), torch.zeros(2, 3, 2, dtype=F64)
    d[0] = 1.0
    d.requires_grad_()
    for seen in (lambda x: x.sin(), lambda x: 0 * x, lambda x: (x.sin(), 0 * x)):
        (step,) = tr.image_steps(seen, [x], [d], 0.02)
        first = torch.autograd.grad(
            step.square().sum(), [x, d], create_graph=True, allow_unused=True
        )
        found = [g for g in first if g is not None]
        found += [
            g
            for f in first
            if f is not None and f.requires_grad
            for g in torch.autograd.grad(f.sum(), [x, d], retain_graph=True, allow_unused=True)
            if g is not None
        ]
        assert all(bool(torch.isfinite(g).all()) for g in found)


# As a loop ----------------------------------------------------------------------------------------


def test_a_resumed_run_goes_on_as_if_it_had_not_stopped() -> None:
    def run(x: Tensor, stop: int | None) -> Tensor:
        x = x.clone().requires_grad_()
        steps = tr.ImageSteps(torch.optim.Adam([x], eps=0.1), lambda x: 2 * x)
        for i in range(8):
            if i == stop:
                file = io.BytesIO()
                torch.save(steps.state_dict(), file)
                file.seek(0)
                x = x.detach().clone().requires_grad_()
                steps = tr.ImageSteps(torch.optim.Adam([x], eps=0.1), lambda x: 2 * x)
                steps.load_state_dict(torch.load(file, weights_only=True))
            steps.zero_grad()
            (1e-4 * (x - 3).square() * torch.tensor([1.0, 9.0])).sum().backward()
            steps.step(i / 8)
        return x.detach()

    assert torch.equal(run(noise(3, 4, 2), 3), run(noise(3, 4, 2), None))


def test_eta_is_a_schedule_of_progress() -> None:
    for eta, at, expected in (
        (None, 0.5, 0.02),
        (None, 1.0, 0.002),
        (tr.Geometric(0.1, 0.001), 0.5, 0.01),
        (torch.tensor([0.3, 0.1]), 0.0, (0.3, 0.1)),
        (tr.Geometric(0.1, 0.001), torch.tensor([0.0, 1.0]), (0.1, 0.001)),
    ):
        x = noise(2, 4, 2).requires_grad_()
        before = x.detach().clone()
        steps = tr.ImageSteps(torch.optim.SGD([x]), lambda x: x, eta)
        x.square().sum().backward()
        gradient = x.grad
        steps.step(at)
        wanted = torch.as_tensor(expected, dtype=F64).expand(2)
        torch.testing.assert_close(moved(before, x.detach()), wanted, rtol=1e-6, atol=0)
        assert x.grad is gradient and x.requires_grad


def soft_and_sharp() -> tuple[tr.SoftRasterizer, tr.SharpRasterizer]:
    edge = tr.Distribution("gaussian", tr.Geometric(0.1, 0.01))
    soft = tr.SoftRasterizer(
        32, edge, alpha=tr.TConorm("yager", 1.0), cull_backfaces=True, threshold=1e-3
    )
    return soft, tr.SharpRasterizer(32, cull_backfaces=True)


@pytest.mark.parametrize(("angle", "length"), [(1.0, 1.0), (180 / math.pi, 1e3)])
def test_one_eta_fits_poses_in_any_units(angle: float, length: float) -> None:
    soft, sharp = soft_and_sharp()
    rotation = (angle * torch.tensor([[0.0, 0.0, -0.2], [0.0, 0.1, 0.3]])).requires_grad_()
    translation = (length * torch.tensor([[-0.1, 0.1, 0.0], [0.3, -0.1, 0.3]])).requires_grad_()

    def seen(rotation: Tensor, translation: Tensor) -> Tensor:
        vertices = posed(rotation.double() / angle, translation / length)
        return tr.gather_faces(vertices, SPHERE.faces)

    truth = seen(
        angle * torch.tensor([[0, 0, 0.4], [0, 0, -0.3]]), length * torch.full((2, 3), 0.1)
    )
    target = sharp(truth, None)[..., -1]
    before = moved(seen(rotation, translation), truth)
    adam = torch.optim.Adam([rotation, translation], betas=(0.5, 0.9))
    steps = tr.ImageSteps(adam, seen)
    for i in range(60):
        steps.zero_grad()
        image = soft.silhouette(seen(rotation, translation), progress=i / 60)
        tr.silhouette_iou_loss(image, target).sum().backward()
        steps.step(i / 60)
    assert bool((moved(seen(rotation, translation), truth) < 0.12 * before).all())


@pytest.mark.parametrize("length", [1.0, 1e3])
def test_the_same_eta_fits_a_shape_in_any_units(length: float) -> None:
    soft, sharp = soft_and_sharp()
    sphere = tr.icosphere(2, 0.5, F64)
    surface = tr.SmoothOffsets(tr.Mesh(length * sphere.vertices, sphere.faces), 20.0)
    cameras = tr.PerspectiveCamera(tr.orbit(2.5, [0.0, 0.0, 90.0], [0.0, 90.0, 0.0]), 40.0)

    def seen(offsets: Tensor) -> Tensor:
        return cameras.project((surface.start + surface.smooth(offsets))[None] / length)

    def faces(vertices: Tensor) -> Tensor:
        return tr.gather_faces(vertices, sphere.faces)

    hidden = sphere.vertices * torch.tensor([1.4, 0.8, 1.0])
    target = sharp(faces(cameras.project(hidden[None])), None)[..., -1]

    def error() -> float:
        image = sharp(faces(seen(surface.offsets.detach())), None)[..., -1]
        return float(tr.mse(image, target).mean())

    before = error()
    adam = torch.optim.Adam([surface.offsets], betas=(0.5, 0.9))
    steps = tr.ImageSteps(adam, seen, per_item=False)
    for i in range(40):
        steps.zero_grad()
        image = soft.silhouette(faces(seen(surface.offsets)), progress=i / 40)
        tr.silhouette_iou_loss(image, target).mean().backward()
        steps.step(i / 40)
    assert error() < 0.06 * before


# Bad input ----------------------------------------------------------------------------------------


def same(x: Tensor) -> Tensor:
    return x


@pytest.mark.parametrize(
    ("change", "error", "message"),
    [
        ({"unknowns": []}, ValueError, r"^unknowns: expected at least one"),
        (
            {"unknowns": [torch.ones(2, 3, dtype=torch.int64)]},
            TypeError,
            r"^unknowns\[0\]: .*int64",
        ),
        ({"unknowns": [torch.ones(())]}, ValueError, r"^unknowns\[0\]: must be \(B, \.\.\.\)"),
        ({"unknowns": [torch.ones(2, 0, 2)]}, ValueError, r"^unknowns\[0\]: holds no numbers"),
        ({"directions": []}, ValueError, r"^directions: expected 1, got 0"),
        ({"directions": [torch.ones(2, 4)]}, ValueError, r"^directions\[0\]: must have the shape"),
        ({"eta": 0.0}, ValueError, r"^eta: must be positive"),
        ({"eta": "fast"}, TypeError, r"^eta: expected a number"),
        ({"eta": torch.ones(3)}, ValueError, r"^eta: .*\(2,\).*\(3,\)"),
        ({"appearance_eta": -1}, ValueError, r"^appearance_eta: must be positive"),
        ({"depth_unit": 0}, ValueError, r"^depth_unit: must be positive"),
        ({"geometry": lambda x: None}, TypeError, r"^geometry: must return corners"),
        ({"geometry": lambda x: (x, x, x)}, TypeError, r"^geometry: must return corners"),
        ({"geometry": lambda x: x[..., :1]}, ValueError, r"^geometry: corners must be \(R"),
        (
            {"geometry": lambda x: x[:1]},
            ValueError,
            r"^geometry: corners must have a multiple of 2",
        ),
        ({"geometry": lambda x: (x, x[:1])}, ValueError, r"^geometry: attributes must have a mult"),
    ],
)
def test_bad_arguments_are_refused_by_name(change, error, message) -> None:
    arguments = {
        "geometry": same,
        "unknowns": [torch.ones(2, 4, 2)],
        "directions": [torch.ones(2, 4, 2)],
        "eta": 0.02,
    }
    with pytest.raises(error, match=message):
        tr.image_steps(**(arguments | change))


def leaf(*shape: int) -> Tensor:
    return torch.ones(*shape, requires_grad=True)


@pytest.mark.parametrize(
    ("make", "error", "message"),
    [
        (lambda x: tr.ImageSteps(x, same), TypeError, "^optimiser: expected a Optimizer"),
        (lambda x: tr.ImageSteps(torch.optim.LBFGS([x]), same), TypeError, "^optimiser: LBFGS"),
        (
            lambda x: tr.ImageSteps([x, cast(Any, 1.0)], same),
            TypeError,
            r"^optimiser\[1\]: expected a torch",
        ),
        (lambda x: tr.ImageSteps(torch.optim.AdamW([x]), same), ValueError, "weight decay"),
        (lambda x: tr.ImageSteps(torch.optim.SGD([x], lr=0.0), same), ValueError, "learning rate"),
        (lambda x: tr.ImageSteps(torch.optim.SGD([x]), x), TypeError, "^geometry: expected a func"),
        (
            lambda x: tr.ImageSteps(torch.optim.SGD([x]), same, [0.1, 0.2]),
            ValueError,
            "^eta: .*1 g",
        ),
        (lambda x: tr.ImageSteps(torch.optim.SGD([x]), same, -1.0), ValueError, "^eta: "),
        (
            lambda x: tr.ImageSteps(torch.optim.SGD([x]), same, per_item=[True, False]),
            ValueError,
            "^per_item: ",
        ),
        (
            lambda x: tr.ImageSteps(torch.optim.SGD([x, leaf(3, 2)]), same),
            ValueError,
            r"^optimiser: group 0, parameters\[1\]: must be \(B",
        ),
        (lambda x: tr.ImageSteps([x, x], same), ValueError, "^optimiser: parameter 1 is there tw"),
        (
            lambda x: tr.ImageSteps([x, torch.ones(2, 3)], same),
            ValueError,
            "^optimiser: parameter 1 does not require",
        ),
    ],
)
def test_optimisers_that_do_not_fit_are_refused(make, error, message) -> None:
    with pytest.raises(error, match=message):
        make(leaf(2, 4, 2))


class Backward(torch.autograd.Function):
    """The identity, of which torch knows the reverse mode alone."""

    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        return x.clone()

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> Tensor:
        return grad


def test_a_geometry_without_forward_mode_is_named() -> None:
    x = leaf(2, 4, 2)
    steps = tr.ImageSteps([x], Backward.apply)
    x.grad = torch.ones_like(x)
    with pytest.raises(NotImplementedError, match=r"^geometry: forward mode"):
        steps.step(0.0)
    assert torch.equal(x, torch.ones_like(x))


def test_a_step_that_fails_leaves_the_parameters_as_they_were() -> None:
    x = leaf(2, 4, 2)
    steps = tr.ImageSteps(torch.optim.Adam([x]), lambda x: x / 0)
    with pytest.raises(ValueError, match=r"^optimiser: no parameter has a gradient"):
        steps.step(0.0)
    x.grad = torch.ones_like(x)
    with pytest.raises(ValueError, match=r"^geometry: .* not finite in batch item 0, 1"):
        steps.step(0.0)
    x.grad[1, 0, 0] = math.nan
    with pytest.raises(ValueError, match=r"gradient of parameter 0 is not finite in batch item 1"):
        steps.step(0.0)
    assert torch.equal(x, torch.ones_like(x))
    with pytest.raises(ValueError, match=r"^progress: "):
        steps.step(1.5)
    with pytest.raises(ValueError, match=r"^state: "):
        steps.load_state_dict({"units": [], "optimiser": {}})
