"""The figures of what a policy chooses show what a run really did."""

from __future__ import annotations

import pytest
import torch

import taichi_raster as tr
from docs.policy_figures import course, families, starts, stuck
from meta import softening_method, unroll
from tasks import Body

pytestmark = pytest.mark.runs_on(arch="cpu", precision="f64")


@pytest.mark.parametrize("like", [tr.SofteningPolicy(), tr.universal_policy()])
def test_recording_changes_nothing(like: tr.SofteningPolicy) -> None:
    task = Body(image_size=16).sample(2, "tune", 0)
    found = course(task, like, 20)
    run = unroll(softening_method(like, task.family, 20), task)
    assert torch.equal(found.ends, run.params)
    assert all(x.shape == (20, 2) for x in (found.scale, found.step, found.gamma, found.images))
    for chosen in (found.scale, found.gamma):
        assert bool(chosen[:15].isfinite().all()) and bool(chosen[15:].isnan().all())
    shorter = (found.step / found.scale - 1)[:15].abs()
    same = bool((shorter < 1e-9).all())  # by hand, a step is as long as the scale
    assert same != like.has_feedback
    torch.testing.assert_close(found.images[0], task.image_error(task.start()))


def test_figures_are_drawn() -> None:
    for draw, panels in ((starts, 8), (stuck, 8), (families, 3)):
        assert len(draw(4).axes) == panels
