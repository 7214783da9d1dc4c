"""Stochastic gradients of sharp pictures: right in the mean, and each pixel tells what it knows."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from benchmarks.rival_gradients import (
    faces_moved,
    pixel_gradient,
    pixel_look,
    smoothed_gradient,
)
from tasks import Body, Pose, Shape2D
from tasks.body import ANGLES, PARENTS

pytestmark = pytest.mark.runs_on(arch="cpu", precision="f64")

COUNT = 40_000  # samples


def test_the_smoothed_gradient_is_that_of_a_quadratic_in_the_mean() -> None:
    """A quadratic smoothed by anything symmetric is the same but for a constant."""
    matrix = torch.tensor([[2.0, 0.7, 0.0], [0.7, 1.0, -0.4], [0.0, -0.4, 3.0]]).double()
    params = torch.tensor([[0.3, -0.2, 0.5], [-1.0, 0.4, 0.1]]).double()

    def loss(rows: Tensor) -> Tensor:
        return 0.5 * (rows * (rows @ matrix)).sum(dim=1)

    found = smoothed_gradient(loss, params, 0.3, COUNT, torch.Generator().manual_seed(0))
    torch.testing.assert_close(found, params @ matrix, atol=0.05, rtol=0)


def test_the_smoothed_gradient_sees_a_step_from_afar() -> None:
    """That of [x > 0] is the Gaussian's density: normal(0, sigma) at x."""
    params = torch.tensor([[-0.5]]).double()
    found = smoothed_gradient(
        lambda rows: (rows[:, 0] > 0).double(),
        params,
        0.4,
        COUNT,
        torch.Generator().manual_seed(0),
    )
    density = torch.distributions.Normal(0.0, 0.4).log_prob(params).exp()
    torch.testing.assert_close(found, density, atol=0.02, rtol=0)


def test_a_pixel_tells_only_unknowns_that_touch_it() -> None:
    """Two unknowns, each seen by one side of a row of pixels: no noise from one to the other."""
    goal = torch.zeros(1, 1, 1, 9).double()

    def look(rows: Tensor) -> tuple[Tensor, Tensor]:
        losses = goal.expand(len(rows), -1, -1, -1)[:, 0].clone()
        losses[:, 0, 0], losses[:, 0, -1] = rows[:, 0] ** 2, 5 * rows[:, 1]
        faces = torch.full((len(rows), 1, 9), -1)
        faces[:, 0, :2], faces[:, 0, -2:] = 0, 1
        return losses, faces

    moves = torch.eye(2, dtype=torch.bool)[None]
    params = torch.tensor([[0.3, 0.7]]).double()
    for seed in range(4):  # one pair is enough
        generator = torch.Generator().manual_seed(seed)
        found = pixel_gradient(look, moves, params, 0.1, 1, generator)
        torch.testing.assert_close(found, torch.tensor([[0.6, 5.0]]).double())
    everywhere = torch.ones_like(moves)
    noisy = pixel_gradient(look, everywhere, params, 0.1, 1, torch.Generator().manual_seed(1))
    assert not torch.allclose(noisy, torch.tensor([[0.6, 5.0]]).double(), atol=0.1)


def test_what_moves_what_is_found_out() -> None:
    triangles = faces_moved(Shape2D(2).sample(2, "tune", 0))
    assert torch.equal(triangles[0], torch.eye(2, dtype=torch.bool).repeat_interleave(6, dim=0))
    assert bool(faces_moved(Pose().sample(2, "tune", 0)).all())
    limbs = faces_moved(Body().sample(1, "tune", 0))[0].unflatten(1, (10, 4)).all(dim=2)
    assert bool(limbs[:2].all())  # the pelvis
    for angle in range(9):
        expected = [_turned_by(limb, angle) for limb in range(10)]
        assert limbs[2 + angle].tolist() == expected


def _turned_by(limb: int, angle: int) -> bool:
    own = ANGLES[limb] == angle
    return own or (PARENTS[limb] >= 0 and _turned_by(PARENTS[limb], angle))


@pytest.mark.parametrize("family", [Shape2D(2, image_size=16), Body(image_size=16)])
def test_leaving_pixels_out_loses_no_gradient(family: Shape2D | Body) -> None:
    """In the mean over directions, it is the gradient from all pixels."""
    task = family.sample(1, "tune", 2)
    pairs = 1500
    moves = faces_moved(task)
    look = pixel_look(task.repeat(2 * pairs))
    found = []
    for chosen in (moves, torch.ones_like(moves)):
        generator = torch.Generator().manual_seed(0)
        found.append(pixel_gradient(look, chosen, task.start(), 0.01, pairs, generator).flatten())
    # The same directions: the difference is noise of the pixels that were left out.
    assert (found[0] - found[1]).norm() < 0.2 * found[1].norm()
    assert torch.nn.functional.cosine_similarity(found[0], found[1], dim=0) > 0.98
