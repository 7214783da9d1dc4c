"""A loop of one's own with feedback does what the method that learned it does."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

import taichi_raster as tr
from meta import softening_method, unroll
from tasks import Shape2D

pytestmark = pytest.mark.runs_on(arch="cpu", precision="f64")


def policy() -> tr.SofteningPolicy:
    found = tr.SofteningPolicy(feedback=True)
    with torch.no_grad():
        found.gains.copy_(torch.linspace(-0.4, 0.6, 15).reshape(3, 5))
    return found.requires_grad_(False)


def test_a_loop_of_ones_own_is_the_method_that_was_learned() -> None:
    family, steps = Shape2D(1, image_size=12), 16
    task = family.sample(3, "tune", 0)
    expected = unroll(softening_method(policy(), family, steps), task)
    x = task.start().clone().requires_grad_()
    start = tr.GuidedSoftening(policy(), *task.outlines(x))
    renderer = family.renderer(start.edge, start.depth, start.alpha)
    renderer.sharp_from = start.sharp_from
    assert start.lr is not None
    for step in tr.Descent(tr.ImageSteps([x], task.geometry, start.lr, depth_unit=1.0), steps):
        if step.index and step.index % 2 == 0:
            start.look(task.outlines(x)[0])
        loss = task.loss(x, renderer, step.progress)
        torch.testing.assert_close(loss.detach(), expected.losses[step.index], rtol=1e-5, atol=0)
        start.see(loss, task.geometry(x))
        step.descend(loss)
    off = (task.true_error(x) - task.true_error(expected.params)).abs()
    assert bool((off < 1e-4).all())


def masks() -> tuple[Tensor, Tensor]:
    drawn, target = torch.zeros(2, 32, 32), torch.zeros(2, 32, 32)
    drawn[:, 4:12, 4:12] = 1.0
    target[:, 4:12, 10:18] = 1.0
    return drawn, target


def test_without_being_shown_anything_it_is_an_open_loop() -> None:
    drawn, target = masks()
    u = torch.tensor(0.0, dtype=torch.float64)
    start = tr.GuidedSoftening(tr.SofteningPolicy(), drawn, target)
    before = start.edge.scale(u).clone()
    start.look(target)
    assert torch.equal(before, start.edge.scale(u))


def test_it_reacts_to_each_scene_by_itself() -> None:
    drawn, target = masks()
    u = torch.tensor(0.5, dtype=torch.float64)
    start = tr.GuidedSoftening(policy(), drawn, target)
    corners = torch.ones(2, 3, 3)
    start.see(torch.ones(2), corners)
    start.look(drawn)
    before = start.edge.scale(u)
    start.look(torch.stack([target[0], drawn[1]]))
    after = start.edge.scale(u)
    assert float(before[0]) != float(after[0])
    assert float(before[1]) == float(after[1])


def test_feedback_that_is_shown_nothing_is_refused_with_the_remedy() -> None:
    start = tr.GuidedSoftening(policy(), *masks())
    first, later = (torch.tensor(u, dtype=torch.float64) for u in (0.0, 0.5))
    assert start.edge.scale(first).shape == (2,)
    assert "by a policy with feedback" in repr(start)
    with pytest.raises(ValueError, match=r"^see: .* call see\(loss, corners\) in every step"):
        start.edge.scale(later)
    start.see(torch.ones(2), torch.ones(2, 3, 3))
    with pytest.raises(ValueError, match=r"^look: .* call look\(drawn\) eight times"):
        start.edge.scale(later)
    start.look(masks()[0])
    assert start.edge.scale(later).shape == (2,)


def test_what_it_cannot_use_is_refused_by_name() -> None:
    drawn, target = masks()
    start = tr.GuidedSoftening(policy(), drawn, target)
    with pytest.raises(TypeError, match=r"^policy: "):
        tr.GuidedSoftening(None, drawn, target)  # type: ignore[arg-type]
    with pytest.raises(ValueError, match=r"^target: must have the shape of drawn"):
        start.look(drawn[:, :8])
    with pytest.raises(ValueError, match=r"^loss: must be \(2,\)"):
        start.see(torch.ones(()), torch.zeros(2, 3, 3))
    with pytest.raises(ValueError, match=r"^corners: must be"):
        start.see(torch.ones(2), torch.zeros(3, 3, 3))
