"""Masks from files, alpha channels and colour keys; and those that cannot be right."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from numpy import ndarray
from PIL import Image
from torch import Tensor

import captures
import taichi_raster as tr
from capture_files import nerfstudio, transforms

pytestmark = pytest.mark.runs_on(arch="cpu", precision="f64")
TRUTH = [captures.pixels(view)[..., 3] > 0 for view in captures.views()]


def same(capture: tr.Capture) -> None:
    for photo, truth in zip(capture, TRUTH, strict=True):
        np.testing.assert_array_equal(photo.mask().numpy() > 0.5, truth)


@pytest.mark.parametrize("name", ["{stem}.png", "{name}.png", "{stem}.tif", "images/{name}"])
def test_masks_lie_in_a_folder_under_the_photos_names(name: str, tmp_path: Path) -> None:
    nerfstudio(tmp_path)
    target = tmp_path / "elsewhere"
    (target / name).parent.mkdir(parents=True, exist_ok=True)
    captures.write_masks(target, name)
    same(tr.load_capture(tmp_path, masks=target))
    target.rename(tmp_path / "masks")
    same(tr.load_capture(tmp_path))
    assert not tr.load_capture(tmp_path, masks="none").has_masks


def test_a_file_of_cameras_may_name_its_masks(tmp_path: Path) -> None:
    nerfstudio(tmp_path)
    captures.write_masks(tmp_path / "parts")
    data = transforms()
    for frame in data["frames"]:
        frame["mask_path"] = "parts/" + Path(frame["file_path"]).name
    (tmp_path / "transforms.json").write_text(json.dumps(data))
    same(tr.load_capture(tmp_path))
    (tmp_path / "parts" / "0002.png").unlink()
    with pytest.raises(FileNotFoundError, match=r"frames\[2\].*mask_path: there is no"):
        tr.load_capture(tmp_path)


def test_alpha_channels_are_masks(tmp_path: Path) -> None:
    nerfstudio(tmp_path)
    captures.write_photos(tmp_path / "images", alpha=True)
    same(tr.load_capture(tmp_path))
    same(tr.load_capture(tmp_path, masks="alpha"))
    captures.write_photos(tmp_path / "images")
    assert not tr.load_capture(tmp_path).has_masks
    with pytest.raises(ValueError, match=r"0000.png: has no alpha channel"):
        tr.load_capture(tmp_path, masks="alpha").masks()


def as_file(mask: ndarray, kind: str) -> Image.Image:
    if kind == "labels":
        return Image.fromarray(mask.astype(np.uint8))
    if kind == "bits":
        return Image.fromarray(mask)
    if kind == "palette":
        made = Image.fromarray(mask.astype(np.uint8), "P")
        made.putpalette([0, 0, 0, 200, 30, 30])
        return made
    if kind == "16 bits":
        return Image.fromarray(mask.astype(np.uint16) * 65535)
    grey = Image.fromarray(mask.astype(np.uint8) * 255)
    if kind == "alpha":
        white = Image.new("L", grey.size, 255)
        return Image.merge("RGBA", (white, white, white, grey))
    return grey.convert("RGB") if kind == "colour" else grey


@pytest.mark.parametrize(
    "kind", ["grey", "labels", "bits", "palette", "16 bits", "alpha", "colour"]
)
def test_masks_may_be_stored_in_many_ways(kind: str, tmp_path: Path) -> None:
    nerfstudio(tmp_path)
    (tmp_path / "masks").mkdir()
    for view, truth in zip(captures.views(), TRUTH, strict=True):
        as_file(truth, kind).save(tmp_path / "masks" / view.name)
    capture = tr.load_capture(tmp_path)
    same(capture)
    assert set(capture[0].mask().unique().tolist()) == {0.0, 1.0}


@pytest.mark.parametrize("key", ["auto", "blue", "#2040ff", (0.1, 0.2, 0.9)])
def test_a_colour_key_finds_what_is_not_the_background(key: str, tmp_path: Path) -> None:
    nerfstudio(tmp_path)
    same(tr.load_capture(tmp_path, key=key))


def test_a_colour_key_withstands_shadows_noise_and_a_dark_corner(tmp_path: Path) -> None:
    nerfstudio(tmp_path)
    g = np.random.default_rng(0)
    for view in captures.views():
        photo = captures.pixels(view)[..., :3].astype(float)
        photo *= np.linspace(0.4, 1, captures.SIZE[1])[:, None]
        photo[:, :4] = 3  # the black border of a video frame
        photo = (photo + 4 * g.standard_normal(photo.shape)).clip(0, 255)
        Image.fromarray(photo.astype(np.uint8)).save(tmp_path / "images" / view.name)
    for keyed, truth in zip(tr.load_capture(tmp_path, key="blue"), TRUTH, strict=True):
        found = keyed.mask().numpy() > 0.5
        assert (found & truth).sum() / (found | truth).sum() > 0.98


def test_white_and_black_are_keys_too(tmp_path: Path) -> None:
    nerfstudio(tmp_path)
    for view, truth in zip(captures.views(), TRUTH, strict=True):
        photo = captures.pixels(view)[..., :3]
        photo[~truth] = 250
        Image.fromarray(photo).save(tmp_path / "images" / view.name)
    same(tr.load_capture(tmp_path, key="white"))
    with pytest.raises(ValueError, match=r"0000.png: the border of the photo has no hue"):
        tr.load_capture(tmp_path, key="auto").masks()


def test_masks_in_fewer_pixels_are_shares(tmp_path: Path) -> None:
    nerfstudio(tmp_path)
    captures.write_masks(tmp_path / "masks")
    capture = tr.load_capture(tmp_path)
    small = capture.masks((12, 16))
    expected = torch.tensor(np.array(TRUTH)).float().unflatten(1, (12, 4)).unflatten(3, (16, 4))
    torch.testing.assert_close(small, expected.mean((2, 4)))


def broken(mask: Tensor, how: str) -> Tensor:
    return {"empty": 0 * mask, "whole": 0 * mask + 1, "inverted": 1 - mask}[how]


@pytest.mark.parametrize(
    ("how", "message"),
    [("empty", "is empty"), ("whole", "covers the whole photo"), ("inverted", "to be inverted")],
)
def test_masks_that_cannot_be_right_are_refused_with_their_file(
    how: str, message: str, tmp_path: Path
) -> None:
    nerfstudio(tmp_path)
    captures.write_masks(tmp_path / "masks")
    mask = broken(torch.tensor(TRUTH[1]).float(), how)
    Image.fromarray((mask * 255).byte().numpy()).save(tmp_path / "masks" / "0001.png")
    capture = tr.load_capture(tmp_path)
    with pytest.raises(ValueError, match=rf"masks/0001.png: the mask .*{message}"):
        capture.masks()
    photo = tr.Photo("mine", capture[1].camera, captures.SIZE, None, mask)
    with pytest.raises(ValueError, match=rf"mine: the mask .*{message}"):
        photo.mask()


def test_masks_of_another_size_and_missing_ones_are_named_at_once(tmp_path: Path) -> None:
    nerfstudio(tmp_path)
    captures.write_masks(tmp_path / "masks")
    Image.fromarray(TRUTH[2].T).save(tmp_path / "masks" / "0002.png")
    with pytest.raises(ValueError, match=r"masks/0002.png: the mask has 48 x 64 pixels \(width"):
        tr.load_capture(tmp_path)
    (tmp_path / "masks" / "0002.png").unlink()
    with pytest.raises(FileNotFoundError, match=r"masks: there is no mask of .*images/0002.png"):
        tr.load_capture(tmp_path)
    with pytest.raises(FileNotFoundError, match=r"^masks: there is no folder"):
        tr.load_capture(tmp_path, masks=tmp_path / "nothing")
    with pytest.raises(ValueError, match=r"^key: unknown colour 'bleu'"):
        tr.load_capture(tmp_path, key="bleu")
    with pytest.raises(ValueError, match=r"^key: must be \(r, g, b\)"):
        tr.load_capture(tmp_path, key=(0, 0, 255))
    with pytest.raises(TypeError, match=r"^key: expected a colour"):
        tr.load_capture(tmp_path, key=3)  # type: ignore[arg-type]
    with pytest.raises(ValueError, match=r"^key: give masks or key"):
        tr.load_capture(tmp_path, masks="alpha", key="blue")
