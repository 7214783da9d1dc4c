"""What fits are given: anything wrong is named at once; derivatives of it do not matter."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import fields, replace
from typing import Any

import pytest
import torch
from torch import Tensor

import taichi_raster as tr
from posed import CLOSE, SIZE, body, camera, mask_of, near_truth, painted, photo_of, truth
from taichi_raster.fitting.drawing import drawn
from taichi_raster.fitting.inputs import detached
from taichi_raster.fitting.texture import texture_from_photos
from turntables import ALL_ROUND
from turntables import camera as eye_of

pytestmark = pytest.mark.runs_on(arch="cpu", precision="f32")

BALL = tr.icosphere(1, 0.5)


def of_a_ball() -> tr.Capture:
    """Photos of a disc about where `BALL` is seen: without a kernel, as no backend is asked yet."""
    height, width = 72, 96
    y = 1 - (2 * torch.arange(height) + 1)[:, None] / height
    x = (2 * torch.arange(width) + 1) / width - 1
    disc = ((x - 0.05).square() + (y + 0.03).square() < 0.25).float()
    photo = disc[..., None] * torch.tensor([0.8, 0.5, 0.3])
    eyes = [eye_of(*angles) for angles in ALL_ROUND[:4]]
    size = (height, width)
    photos = [tr.Photo(f"{i:02d}", eye, size, photo, disc) for i, eye in enumerate(eyes)]
    return tr.Capture(tuple(photos))


CAPTURE = of_a_ball()
SHOWN = torch.zeros(SIZE)
SHOWN[20:40, 20:60] = 1
GREY = torch.full((*SIZE, 3), 0.5)
NOISE = torch.rand(*SIZE, 3, generator=torch.Generator().manual_seed(0))
PAINTED = painted(body())
IN_WORLD = tr.Pose(torch.eye(3).double(), torch.tensor([0.01, -0.02, 0.01]).double())


def of_one(**change: Any) -> tr.Capture:
    """The capture with one photo changed."""
    return tr.Capture((replace(CAPTURE[0], **change), *CAPTURE.photos[1:]))


def fit_pose(**given: Any) -> Any:
    return tr.fit_pose(**{"mesh": PAINTED, "camera": camera(), "mask": SHOWN, **given})


def fit_poses(**given: Any) -> Any:
    return tr.fit_poses(**{"meshes": PAINTED, "cameras": camera(), "masks": [SHOWN], **given})


def fit_mesh(**given: Any) -> Any:
    return tr.fit_mesh(**{"capture": CAPTURE, "steps": 1, "cells": 8, **given})


def refine_cameras(**given: Any) -> Any:
    return tr.refine_cameras(**{"capture": CAPTURE, **given})


def fit_texture(**given: Any) -> Any:
    return tr.fit_texture(**{"mesh": BALL, "capture": CAPTURE, "size": 32, **given})


def of_photos(**given: Any) -> Any:
    usual = {
        "mesh": BALL,
        "photos": [photo.image() for photo in CAPTURE],
        "cameras": [photo.camera for photo in CAPTURE],
        "size": 32,
    }
    return texture_from_photos(**{**usual, **given})


def track_pose(**given: Any) -> Any:
    usual = {"mesh": PAINTED, "frames": [GREY], "camera": camera(), "start": truth()}
    return list(tr.track_pose(**{**usual, **given}))


def outline_iou(**given: Any) -> Any:
    return tr.outline_iou(**{"mesh": BALL, "camera": CAPTURE[0].camera, "mask": SHOWN, **given})


FITS: dict[str, Callable[..., Any]] = {
    made.__name__: made
    for made in (
        fit_pose,
        fit_poses,
        fit_mesh,
        refine_cameras,
        fit_texture,
        of_photos,
        track_pose,
        outline_iou,
    )
}

# Pictures -----------------------------------------------------------------------------------------

MASK = "(capture: the mask of 00|silhouette)"
PICTURE = "(capture: the picture of 00|picture)"
PICTURES: list[tuple[str, str, Callable[[Any], dict[str, Any]], Tensor, bool]] = [
    # fit, what its errors begin with, the argument, a picture that is right, of a mask
    ("fit_pose", "mask", lambda p: {"mask": p}, SHOWN, True),
    ("fit_pose", "photo", lambda p: {"photo": p}, GREY, False),
    ("fit_poses", "mask 0", lambda p: {"masks": [p]}, SHOWN, True),
    ("fit_poses", "photo 0", lambda p: {"photos": [p]}, GREY, False),
    ("track_pose", r"frames\[0\]", lambda p: {"frames": [p]}, GREY, False),
    ("track_pose", r"masks\[0\]", lambda p: {"masks": [p]}, SHOWN, True),
    ("fit_mesh", MASK, lambda p: {"capture": of_one(silhouette=p)},
     CAPTURE[0].mask(), True),
    ("refine_cameras", MASK, lambda p: {"capture": of_one(silhouette=p)},
     CAPTURE[0].mask(), True),
    ("refine_cameras", PICTURE, lambda p: {"capture": of_one(picture=p)},
     CAPTURE[0].image(), False),
    ("fit_texture", MASK, lambda p: {"capture": of_one(silhouette=p)},
     CAPTURE[0].mask(), True),
    ("fit_texture", PICTURE, lambda p: {"capture": of_one(picture=p)},
     CAPTURE[0].image(), False),
    ("of_photos", r"photos\[0\]",
     lambda p: {"photos": [p, *(one.image() for one in CAPTURE.photos[1:])]},
     CAPTURE[0].image(), False),
    ("of_photos", r"masks\[0\]",
     lambda p: {"masks": [p, *(one.mask() for one in CAPTURE.photos[1:])]},
     CAPTURE[0].mask(), True),
    ("outline_iou", "mask", lambda p: {"mask": p}, SHOWN, True),
]  # fmt: skip


def wrong_pictures(right: Tensor) -> Iterator[tuple[Any, str]]:
    hole = right.clone()
    hole[3, 3] = math.nan
    yield right * 255, r"must be in \[0, 1\], got values from .*; divide by 255"
    yield right - 3, r"must be in \[0, 1\], got values from -"
    yield hole, "must be finite"
    yield right[None], "must (be|have)|expected"
    yield right[0], "must (be|have)|expected"


@pytest.mark.parametrize(
    ("name", "use"),
    [
        ("mask", tr.signed_distance),
        ("drawn", lambda mask: tr.outline_distance(mask, SHOWN[None])),
        ("target", lambda mask: tr.outline_distance(SHOWN[None], mask)),
    ],
)
def test_distances_of_masks_of_0_to_255_are_refused(name: str, use: Callable[..., Any]) -> None:
    with pytest.raises(ValueError, match=rf"^{name}: must be in \[0, 1\], got .*; divide by 255"):
        use(255 * SHOWN[None])


@pytest.mark.parametrize("case", PICTURES, ids=lambda case: f"{case[0]}, {case[1]}")
def test_pictures_that_cannot_be_used_are_named(case: Any) -> None:
    fit, name, given, right, mask = case
    for wrong, text in wrong_pictures(right):
        with pytest.raises((TypeError, ValueError), match=f"^{name}: .*({text})"):
            FITS[fit](**given(wrong))
    others: list[Any] = ["a.png"]
    if fit != "track_pose":  # it takes arrays of bytes, as videos have them
        others += [right.numpy(), (right * 255).byte(), (right * 255).int()]
        if not mask:
            others.append(right > 0.4)
    for other in others:
        if fit == "fit_poses" and mask and isinstance(other, Tensor):
            continue  # integers are labels there
        with pytest.raises((TypeError, ValueError), match=f"^{name}: (expected|must (be|have))"):
            FITS[fit](**given(other))


def test_a_mask_of_a_video_is_of_floats_bool_or_bytes() -> None:
    """Bytes of 0 and 1 are no mask of 1/255."""
    mesh, pose = body(), truth()
    mask = (mask_of(mesh, pose) > 0.5).float()
    found = [
        track_pose(mesh=mesh, frames=[GREY + 0.1 * mask[..., None]], masks=[each], start=pose)[0]
        for each in (mask, mask > 0.5, mask.byte().numpy())
    ]
    assert all(one.converged for one in found)
    assert len({one.mismatch for one in found}) == 1


def test_noise_may_leave_the_range() -> None:
    noisy = SHOWN + 0.2 * torch.randn(SIZE, generator=torch.Generator().manual_seed(0))
    assert float(noisy.min()) < 0 and float(noisy.max()) > 1
    assert outline_iou(mask=noisy) <= 1


# Numbers ------------------------------------------------------------------------------------------

NUMBERS: dict[tuple[str, str], tuple[Any, ...]] = {
    ("fit_pose", "starts"): (0, -1, 1.5, "x"),
    ("fit_mesh", "face_count"): (0, 7, -1, 100.0, math.nan, None),
    ("fit_mesh", "steps"): (-1, 1.5, None),
    ("fit_mesh", "cells"): (0, 7, -1, 16.0, None),
    ("fit_mesh", "image_size"): (0, -1, 15, 64.0, "x"),
    ("refine_cameras", "uncertainty"): (0, -1.0, math.nan, math.inf, None),
    ("fit_texture", "size"): (0, 1, 15, -4, 20_000, 32.0),
    ("fit_texture", "smoothness"): (0, -1.0, math.nan, math.inf, None),
    ("fit_texture", "margin"): (-1, 1.5, None),
    ("of_photos", "size"): (0, 1, 15, -4, 20_000, 32.0),
    ("of_photos", "smoothness"): (0, -1.0, math.nan, math.inf, None),
    ("of_photos", "margin"): (-1, 1.5, None),
    ("of_photos", "near"): (0, -1.0, math.nan, math.inf),
    ("track_pose", "tries"): (0, -1, 1.5, None),
    ("outline_iou", "samples"): (0, -1, 1.5),
    **{
        (name, "seed"): (-1, 1.5, "x", None, 2**64)
        for name in ("fit_pose", "fit_poses", "fit_mesh", "refine_cameras", "track_pose")
    },
}


@pytest.mark.parametrize(("fit", "name"), NUMBERS, ids=lambda part: part)
def test_numbers_out_of_range_are_named(fit: str, name: str) -> None:
    for value in NUMBERS[fit, name]:
        with pytest.raises((TypeError, ValueError), match=f"^{name}: "):
            FITS[fit](**{name: value})


@pytest.mark.parametrize(
    ("fit", "given", "text"),
    [
        ("fit_poses", {"meshes": None}, "meshes: expected a Mesh or several, got NoneType"),
        ("fit_poses", {"cameras": 3}, "cameras: expected a Camera or several, got int"),
        ("of_photos", {"photos": 3}, "photos: expected a list"),
        ("of_photos", {"cameras": 3}, "cameras: expected a list"),
        ("of_photos", {"masks": 3}, "masks: expected a list"),
        ("fit_texture", {"mesh": 3}, "mesh: expected a Mesh, got int"),
        ("fit_mesh", {"start": 3}, "start: expected a Mesh, got int"),
        ("fit_mesh", {"refine_cameras": 1}, "refine_cameras: expected True or False"),
        ("outline_iou", {"mesh": 3}, "mesh: expected a Mesh, got int"),
        ("outline_iou", {"camera": 3}, "camera: expected a Camera, got int"),
        ("outline_iou", {"camera": CAPTURE.camera}, "camera: expected one camera, got 4"),
    ],
)
def test_other_arguments_are_named(fit: str, given: dict[str, Any], text: str) -> None:
    with pytest.raises((TypeError, ValueError), match=f"^{text}"):
        FITS[fit](**given)


# Meshes -------------------------------------------------------------------------------------------


MESHES = {**FITS, "unwrap": tr.unwrap, "simplified": lambda mesh: tr.simplified(mesh, 8)}


@pytest.mark.parametrize(
    "fit",
    ["fit_pose", "fit_poses", "track_pose", "fit_mesh", "of_photos", "unwrap", "simplified"],
)
def test_meshes_of_which_nothing_can_be_seen_are_named(fit: str) -> None:
    name = {"fit_poses": "meshes", "fit_mesh": "start"}.get(fit, "mesh")
    colours = torch.rand(3, 3)
    line = torch.tensor([[0.0, 0, 0], [1, 0, 0], [2, 0, 0]])
    for vertices, text in ((line, "none of its faces has an area"), (0 * line, "in one point")):
        mesh = tr.Mesh(vertices, torch.tensor([[0, 1, 2]]), colours=colours)
        with pytest.raises(ValueError, match=f"^{name}: .*{text}"):
            MESHES[fit](**{name: mesh})


@pytest.mark.parametrize("started", [False, True])
def test_a_single_face_is_a_mesh_that_may_not_be_found(started: bool) -> None:
    """While it is looked for, all of it may get behind the eye."""
    face = tr.Mesh(torch.tensor([[0.0, 0, 0], [1, 0, 0], [0, 1, 0]]), torch.tensor([[0, 1, 2]]))
    start = tr.Pose(torch.eye(3).double(), torch.tensor([0.0, 0.0, 0.3]).double())
    given = {"start": start} if started else {"starts": 1}
    mask = torch.zeros(SIZE)
    mask[5:90, 5:120] = 1
    found = fit_pose(mesh=face, mask=mask, **given)
    assert not found.converged and 0 < found.mismatch <= 1
    assert bool(torch.isfinite(found.pose.translation).all())


def test_what_is_behind_the_eye_is_an_empty_picture_without_a_slope() -> None:
    corners = torch.tensor([[[[0.0, 0.0, -1.0], [1.0, 0.0, 2.0], [0.0, 1.0, 2.0]]]])
    corners.requires_grad_()
    picture = drawn(tr.SharpRasterizer((5, 6)), corners)
    assert picture.shape == (1, 5, 6, 1) and not bool(picture.any())
    assert drawn(tr.SharpRasterizer(4), corners, torch.rand(1, 1, 3, 2)).shape == (1, 4, 4, 3)
    (slope,) = torch.autograd.grad(picture.sum(), corners)
    assert not bool(slope.any())
    with torch.no_grad():
        corners[..., 2] = 2.0
    usual = tr.SharpRasterizer((5, 6))(corners, None)
    assert torch.equal(drawn(tr.SharpRasterizer((5, 6)), corners), usual) and bool(usual.any())


def test_an_outline_behind_the_camera_shares_nothing() -> None:
    behind = tr.Mesh(BALL.vertices + 10 * CAPTURE[0].camera.eye[0].float(), BALL.faces)
    assert outline_iou(mesh=behind, mask=CAPTURE[0].mask()) == 0


# Derivatives --------------------------------------------------------------------------------------


def requiring(thing: Any) -> Any:
    """A copy all of whose floats require derivatives."""
    if isinstance(thing, Tensor):
        found = thing.detach().clone()
        return found.requires_grad_() if found.is_floating_point() else found
    if isinstance(thing, list | tuple):
        return type(thing)(requiring(part) for part in thing)
    if isinstance(thing, tr.Capture):
        return tr.Capture(tuple(requiring(photo) for photo in thing))
    if isinstance(thing, float):
        return torch.tensor(thing, dtype=torch.float64, requires_grad=True)
    if hasattr(thing, "__dataclass_fields__"):
        made = {f.name: requiring(getattr(thing, f.name)) for f in fields(thing)}
        return replace(thing, **made)
    return thing


def bent(eye: tr.PinholeCamera) -> tr.PinholeCamera:
    return replace(eye, lens=tr.BrownConradyLens.from_opencv([0.01, 0.0, 0.0, 0.0]))


LENSES = tr.Capture(tuple(replace(photo, camera=bent(photo.camera)) for photo in CAPTURE))


def same(one: Any, two: Any) -> bool:
    """Whether two results are equal but for rounding, tensor by tensor."""
    if isinstance(one, Tensor):
        return torch.allclose(one.detach(), two.detach(), rtol=1e-4, atol=1e-6, equal_nan=True)
    if isinstance(one, list | tuple):
        return all(same(a, b) for a, b in zip(one, two, strict=True))
    if hasattr(one, "__dataclass_fields__"):
        return all(same(getattr(one, f.name), getattr(two, f.name)) for f in fields(one))
    if isinstance(one, float):
        return math.isclose(one, two, rel_tol=1e-4) or (math.isnan(one) and math.isnan(two))
    return bool(one == two)


@pytest.mark.parametrize(
    ("fit", "given"),
    [
        ("fit_pose", {"photo": True}),
        ("fit_poses", {"masks": [CAPTURE[0].mask()]}),
        ("track_pose", {}),
        ("fit_mesh", {"capture": LENSES}),
        ("fit_texture", {"capture": LENSES}),
        ("of_photos", {"masks": [photo.mask() for photo in CAPTURE]}),
        ("outline_iou", {}),
    ],
)
def test_derivatives_of_what_is_given_change_nothing(fit: str, given: dict[str, Any]) -> None:
    every: dict[str, dict[str, Any]] = {
        "fit_pose": {"mesh": PAINTED, "camera": bent(camera()), "start": near_truth(), "starts": 1},
        "fit_poses": {"meshes": [BALL], "cameras": [CAPTURE[0].camera], "start": IN_WORLD},
        "track_pose": {"mesh": PAINTED, "camera": camera(), "frames": [NOISE], "start": truth(),
                       "tries": 2},
        "fit_mesh": {},
        "fit_texture": {"mesh": BALL},
        "of_photos": {"mesh": BALL, "cameras": [photo.camera for photo in CAPTURE],
                      "photos": [photo.image() for photo in CAPTURE]},
        "outline_iou": {"mesh": BALL, "camera": CAPTURE[0].camera, "mask": SHOWN},
    }  # fmt: skip
    given = {**every[fit], **given}
    if given.get("photo"):
        given["photo"] = photo_of(PAINTED, near_truth())
        given["mask"] = mask_of(body(), near_truth(), CLOSE)
    held = {key: value if key == "starts" else requiring(value) for key, value in given.items()}
    assert same(FITS[fit](**given), FITS[fit](**held))


def test_only_what_has_derivatives_is_copied() -> None:
    eye = bent(camera())
    assert detached(eye) is eye
    held = replace(eye, lens=requiring(eye.lens))
    plain = detached(held)
    assert plain is not held and plain.lens is not None and eye.lens is not None
    assert not plain.lens.rows().requires_grad and torch.equal(plain.lens.rows(), eye.lens.rows())
