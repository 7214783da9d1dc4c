"""Body: a figure whose joints hang together, and a family like the others."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch

import taichi_raster as tr
from meta import OutlinedBatch, StudyFamily, softening_method, unroll
from tasks import Body
from tasks.body import ANGLES, LENGTHS, PARENTS, REST, limbs

pytestmark = pytest.mark.runs_on(arch="cpu", precision="f64")


@pytest.fixture(scope="module")
def family() -> Body:
    return Body(image_size=16)


def test_it_meets_the_protocols(family: Body) -> None:
    task = family.sample(2, "train", 0)
    assert isinstance(family, StudyFamily)
    assert isinstance(task, OutlinedBatch)
    assert task.target.shape == (2, 16, 16, 1)


def test_batches_are_functions_of_their_arguments_and_streams_differ(family: Body) -> None:
    task = family.sample(4, "train", 3)
    again = Body(image_size=16).sample(2, "train", 3)
    assert torch.equal(task.hidden[:2], again.hidden)
    assert torch.equal(task.initial[:2], again.initial)
    others = [family.sample(2, stream, 3).hidden for stream in ("tune", "test")]
    assert not any(torch.equal(other, again.hidden) for other in others)


def test_limbs_hang_together_and_turn_with_their_parents(family: Body) -> None:
    task = family.sample(1, "tune", 0)
    params = task.hidden.clone()
    begins, ends, _ = limbs(task.given["sizes"], params)
    for k, parent in enumerate(PARENTS):
        joint = params[:, :2] if parent < 0 else ends[:, parent]
        torch.testing.assert_close(begins[:, k], joint)
        length = (ends[:, k] - begins[:, k]).norm(dim=1)
        torch.testing.assert_close(length, task.given["sizes"][:, 0, k])
    turned = params.clone()
    turned[:, 2 + ANGLES[2]] += 0.3  # an upper arm
    after = limbs(task.given["sizes"], turned)[1]
    still = [k for k in range(len(LENGTHS)) if k not in (2, 3)]
    torch.testing.assert_close(after[:, still], ends[:, still])
    moved = (after[:, 2] - ends[:, 2]).norm(dim=1)
    torch.testing.assert_close(moved, 2 * math.sin(0.15) * task.given["sizes"][:, 0, 2])
    assert bool(((after[:, 3] - ends[:, 3]).norm(dim=1) > 0.01).all())


def test_at_rest_it_stands_upright(family: Body) -> None:
    task = family.sample(1, "tune", 0)
    ends = limbs(task.given["sizes"], torch.zeros(1, 11, dtype=torch.float64))[1][0]
    assert float(ends[1, 1]) > float(ends[0, 1]) > 0  # head above chest above pelvis
    assert float(ends[7, 1]) < float(ends[6, 1]) < 0  # feet below knees
    assert float(ends[2, 0]) * float(ends[4, 0]) < 0  # an arm on each side
    assert len(REST) == len(LENGTHS) == len(PARENTS)


def test_the_error_is_the_distance_of_joints_and_zero_at_the_truth(family: Body) -> None:
    task = family.sample(2, "tune", 1)
    assert float(task.true_error(task.hidden).max()) < 1e-9
    assert float(task.image_error(task.hidden).max()) < 1e-6
    shifted = task.hidden.clone()
    shifted[:, 0] += 0.25
    torch.testing.assert_close(
        task.true_error(shifted), torch.full((2,), 0.25, dtype=torch.float64)
    )


def test_descents_bring_the_pictures_together() -> None:
    family = Body(image_size=24)
    task = family.sample(4, "tune", 0)
    found = unroll(softening_method(tr.SofteningPolicy(), family, 25), task).params
    assert bool((task.image_error(found) < 0.7 * task.image_error(task.start())).all())


@pytest.mark.parametrize(
    "argument", [{"image_size": 4}, {"seed": -1}, {"start_angle": math.nan}, {"start_shift": -1.0}]
)
def test_bad_arguments_are_refused_by_name(argument: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match=f"^{next(iter(argument))} must be"):
        Body(**argument)
