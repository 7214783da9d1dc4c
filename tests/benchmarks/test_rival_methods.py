"""Other people's methods solve an easy task, within their budget of renders."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor

from benchmarks.rival_methods import (
    Evolution,
    Noisy,
    Starts,
    by_pixel,
    evolve,
    many_starts,
    smooth,
)
from meta.inner.updates import Adam
from meta.search.fixed import FixedSoftness
from tasks import Body
from tasks.scenes import SceneBatch

pytestmark = pytest.mark.runs_on(arch="cpu", precision="f64")

RENDERS = 300
NOISY = Noisy(0.03, 0.1, 0.1, 0.1, 3, (0.9, 0.999))
SOFTNESS = FixedSoftness("gaussian", 0.08, 0.01, 0.04, True)


@pytest.fixture
def task() -> SceneBatch:
    return Body(image_size=16, start_angle=0.3).sample(4, "tune", 0)


@pytest.fixture
def drawn(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """How many sharp pictures each call draws."""
    rows: list[int] = []
    original = SceneBatch._drawn

    def counted(self: SceneBatch, params: Tensor) -> Tensor:
        rows.append(len(params))
        return original(self, params)

    monkeypatch.setattr(SceneBatch, "_drawn", counted)
    return rows


@pytest.mark.parametrize("name", ["smooth", "by_pixel", "evolve", "starts"])
def test_it_lowers_the_loss_within_its_budget(
    name: str, task: SceneBatch, drawn: list[int]
) -> None:
    _ = task.target
    drawn.clear()
    methods: dict[str, Any] = {
        "smooth": lambda: smooth(task, NOISY, RENDERS, 0),
        "by_pixel": lambda: by_pixel(task, NOISY, RENDERS, 0),
        "evolve": lambda: evolve(task, Evolution(0.1, 1.0), RENDERS, 0),
        "starts": lambda: many_starts(task, Starts(3, 10, 0.1, 1.0), SOFTNESS, Adam(), 0),
    }
    found = methods[name]()
    assert found.shape == task.start().shape
    assert sum(drawn) <= RENDERS * task.batch_size
    if name == "starts":
        assert sum(drawn) == 3 * task.batch_size  # its descents are soft
    with torch.no_grad():
        before, after = task.image_error(task.start()), task.image_error(found)
    assert float(after.mean()) < 0.6 * float(before.mean())


def test_more_starts_are_never_worse_in_the_picture(task: SceneBatch) -> None:
    losses = []
    for count in (1, 6):
        found = many_starts(task, Starts(count, 10, 0.03, 1.0), SOFTNESS, Adam(), 0)
        with torch.no_grad():
            losses.append(task.image_error(found))
    assert bool((losses[1] <= losses[0] + 1e-12).all())
    assert not torch.equal(losses[0], losses[1])
