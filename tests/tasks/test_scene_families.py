"""Calibration, Arrangement, Painted: families to judge by, drawn and measured as they say."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
import torch
from scipy.spatial.transform import Rotation

import taichi_raster as tr
from meta import OutlinedBatch, StudyBatch, StudyFamily, softening_method, unroll
from tasks import Arrangement, Calibration, Painted
from tasks.painted import DISTANCE, FOCAL
from tasks.scenes import rotation

pytestmark = pytest.mark.runs_on(arch="cpu", precision="f64")

FAMILIES: list[Any] = [
    Calibration(image_size=24),
    Arrangement(objects=2, image_size=24, start_shift=0.3),
    Painted(image_size=16),
]
each = pytest.mark.parametrize("family", FAMILIES, ids=lambda f: type(f).__name__)


@each
def test_they_meet_the_protocols(family: Any) -> None:
    task = family.sample(2, "train", 0)
    assert isinstance(task, OutlinedBatch)
    assert isinstance(task, StudyBatch)
    channels = 1 if isinstance(family, Calibration) else 4
    size = family.image_size
    assert task.target.shape == (2, size, size * family.views, channels)
    drawn, wanted = task.outlines(task.start())
    assert drawn.shape == wanted.shape == (2 * family.views, size, size)
    assert 0.03 < float(wanted.mean()) < 0.9  # there is something to see
    assert isinstance(family, StudyFamily)


@each
def test_batches_are_functions_of_their_arguments_and_streams_differ(family: Any) -> None:
    task, again = family.sample(4, "train", 3), family.sample(2, "train", 3)
    assert torch.equal(task.hidden[:2], again.hidden)
    assert torch.equal(task.initial[:2], again.initial)
    for name, value in again.given.items():
        assert torch.equal(task.given[name][:2], value), name
    for stream in ("tune", "test"):
        assert not torch.equal(family.sample(2, stream, 3).initial, again.initial)


@each
def test_the_truth_has_no_error_and_the_start_has_one(family: Any) -> None:
    task = family.sample(3, "tune", 1)
    assert float(task.true_error(task.hidden).max()) < 1e-9
    assert float(task.image_error(task.hidden).max()) < 1e-9
    metrics = task.metrics(task.start())
    assert bool((metrics["parameter_error"] > 0.5 * family.failure_threshold).all())
    assert bool((metrics["image_error"] > 1e-3).all())


@each
def test_repeated_and_selected_instances_are_the_same_problems(family: Any) -> None:
    task = family.sample(3, "tune", 0)
    repeated, chosen = task.repeat(2), task.select([2, 0])
    errors = task.true_error(task.start())
    torch.testing.assert_close(repeated.true_error(repeated.start()), errors.repeat(2))
    torch.testing.assert_close(chosen.true_error(chosen.start()), errors[[2, 0]])
    torch.testing.assert_close(chosen.target, task.target[[2, 0]])


@each
def test_slopes_of_the_error_and_of_what_steps_are_measured_by(family: Any) -> None:
    task = family.sample(1, "tune", 2)
    start = task.start().clone().requires_grad_()
    assert torch.autograd.gradcheck(task.true_error, (start,), atol=1e-6)

    def parts(params: torch.Tensor) -> tuple[torch.Tensor, ...]:
        found = task.geometry(params)
        return found if isinstance(found, tuple) else (found,)

    along = torch.randn(start.shape, generator=torch.Generator().manual_seed(0)).to(start)
    slopes = torch.func.jvp(parts, (start.detach(),), (along,))[1]
    ends = [parts(start.detach() + sign * 1e-6 * along) for sign in (1, -1)]
    for slope, up, down in zip(slopes, *ends, strict=True):
        torch.testing.assert_close(slope, (up - down) / 2e-6, rtol=1e-5, atol=1e-7)


@each
def test_descents_bring_pictures_and_unknowns_together(family: Any) -> None:
    task = family.sample(2, "tune", 0)
    found = unroll(softening_method(tr.SofteningPolicy(), family, 15), task).params
    for measure in (task.image_error, task.true_error):
        ratio = (measure(found) / measure(task.start())).detach().median()
        assert float(ratio) < 0.85, measure.__name__


def test_a_rotation_vector_turns_as_scipy_says() -> None:
    vectors = torch.randn(20, 3, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    wanted = Rotation.from_rotvec(vectors.numpy()).as_matrix()
    np.testing.assert_allclose(rotation(vectors).numpy(), wanted, atol=1e-12)
    still = torch.zeros(3, dtype=torch.float64, requires_grad=True)
    np.testing.assert_allclose(rotation(still).detach().numpy(), np.eye(3), atol=1e-12)
    assert bool(torch.isfinite(torch.autograd.grad(rotation(still).sum(), still)[0]).all())


def test_the_calibrated_lens_is_brown_and_conradys() -> None:
    family = FAMILIES[0]
    task = family.sample(1, "tune", 0)
    log_focal, x, y, bending = task.hidden[0].tolist()
    corners = task.given["corners"].flatten(1, 2)
    forward = corners * corners.new_tensor([1.0, 1.0, -1.0])  # cameras have z forward
    camera = tr.PinholeCamera(
        torch.eye(4, dtype=torch.float64)[None],
        torch.full((1, 2), math.exp(log_focal), dtype=torch.float64),
        torch.tensor([[x, y]], dtype=torch.float64),
        lens=tr.BrownConradyLens((bending,)),
    )
    inside = camera.shows(forward)
    assert float(inside.double().mean()) > 0.5
    found = family.faces(task.given, task.hidden)[0].flatten(1, 2)
    torch.testing.assert_close(found[inside], camera.project(forward)[inside])


def test_the_painted_body_is_seen_by_cameras_that_stand_around_it() -> None:
    family = FAMILIES[2]
    task = family.sample(1, "tune", 0)
    found = family.faces(task.given, task.hidden)[0].flatten(1, 2)
    azimuths = torch.arange(4, dtype=torch.float64) * 90
    view = tr.orbit(DISTANCE, 0.0, azimuths)
    camera = tr.PerspectiveCamera(view, fov=2 * math.degrees(math.atan(1 / FOCAL)))
    wanted = camera.project(task.given["corners"].flatten(1, 2))
    distances = torch.cdist(found.flatten(1), wanted.flatten(1))
    assert float(distances.min(dim=1).values.max()) < 1e-9  # each view is one of these
    assert sorted(distances.argmin(dim=1).tolist()) == [0, 1, 2, 3]


def test_a_colour_counts_as_often_as_it_is_seen() -> None:
    task = FAMILIES[2].sample(1, "tune", 0)
    pixels = task.given["pixels"][0]
    assert float(pixels.sum()) > 30
    unseen = int(pixels.argmin())
    assert float(pixels[unseen]) == 0
    changed = task.hidden.clone()
    changed[0, 6 + 3 * unseen : 9 + 3 * unseen] += 1
    assert float(task.true_error(changed)[0]) < 1e-9
    best = int(pixels.argmax())
    changed[0, 6 + 3 * best : 9 + 3 * best] += 1
    wanted = math.sqrt(float(pixels[best] / pixels.sum()))
    assert float(task.true_error(changed)[0]) == pytest.approx(wanted)


def test_the_nearer_object_hides_the_other() -> None:
    family = Arrangement(objects=2, image_size=24)
    task = family.sample(1, "tune", 0)
    params = task.hidden.clone()
    params[:, :, :2] = 0.0  # one behind the other
    params[0, :, 2] = torch.tensor([1.5, 3.0]).log().to(params)
    both = task.sharp_image(params)[0]
    params[0, 1, 0] = 10.0  # out of the picture
    alone = task.sharp_image(params)[0]
    covered = alone[..., 3] > 1 - 1e-9
    assert int(covered.sum()) > 10
    torch.testing.assert_close(both[covered], alone[covered])
    assert float((both - alone).abs().max()) > 0.1  # elsewhere the other one shows


@pytest.mark.parametrize(
    ("family", "argument"),
    [
        (Calibration, {"image_size": 4}),
        (Calibration, {"seed": -1}),
        (Calibration, {"start_focal": math.nan}),
        (Calibration, {"start_centre": -1.0}),
        (Arrangement, {"objects": 0}),
        (Arrangement, {"start_angle": (30.0, 10.0)}),
        (Arrangement, {"start_depth": math.inf}),
        (Painted, {"image_size": True}),
        (Painted, {"start_angle": (0.0, 200.0)}),
        (Painted, {"start_shift": -0.1}),
    ],
)
def test_bad_arguments_are_refused_by_name(family: Any, argument: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match=f"^{next(iter(argument))} must be"):
        family(**argument)
