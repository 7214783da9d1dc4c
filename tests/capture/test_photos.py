"""Photos made by code, and odd files of pictures: what is no picture or mask is refused by name."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

import taichi_raster as tr
from captures import SIZE
from taichi_raster.capture.masks import AlphaChannel, ColourKey, read_mask, read_photo

pytestmark = pytest.mark.runs_on(arch="cpu", precision="f64")
H, W = SIZE
CAMERA = tr.PinholeCamera(tr.orbit(3.0, 0.0, 0.0))


def box() -> torch.Tensor:
    found = torch.zeros(H, W)
    found[10:20, 20:40] = 1
    return found


def photo(**changes: Any) -> tr.Photo:
    given = {"name": "mine", "camera": CAMERA, "image_size": SIZE}
    return tr.Photo(**{**given, **changes})


KINDS: dict[str, tuple[dict[str, Any], type[Exception], str]] = {
    "a text": ({"picture": "a.png"}, TypeError, r"^picture: .* got str; give pathlib.Path\('a"),
    "an array": (
        {"picture": np.zeros((H, W, 3))},
        TypeError,
        r"^picture: .* got ndarray; .*from_nu",
    ),
    "bytes": (
        {"picture": torch.zeros(H, W, 3).byte()},
        TypeError,
        "^picture: .*uint8; divide it by",
    ),
    "whole": (
        {"picture": torch.zeros(H, W, 3).long()},
        TypeError,
        "^picture: expected floats .*int64",
    ),
    "grey": (
        {"picture": torch.zeros(H, W)},
        ValueError,
        r"^picture: must have .* \(48, 64\); repeat",
    ),
    "grey, 1": (
        {"picture": torch.zeros(H, W, 1)},
        ValueError,
        r"^picture: .*\(48, 64, 1\); repeat gr",
    ),
    "planes": (
        {"picture": torch.zeros(3, H, W)},
        ValueError,
        r"^picture: .*\(3, 48, 64\); permute it",
    ),
    "batch": (
        {"picture": torch.zeros(1, H, W, 3)},
        ValueError,
        r"^picture: .*got \(1, 48, 64, 3\)$",
    ),
    "mask text": (
        {"silhouette": "m.png"},
        TypeError,
        r"^silhouette: .* got str; give pathlib.Path",
    ),
    "mask array": (
        {"silhouette": np.zeros(SIZE)},
        TypeError,
        r"^silhouette: .*ndarray; .*from_numpy",
    ),
    "mask, 1": (
        {"silhouette": torch.zeros(H, W, 1)},
        ValueError,
        r"^silhouette: must .*\(48, 64, 1\)",
    ),
    "complex": (
        {"silhouette": torch.zeros(SIZE) * 1j},
        TypeError,
        r"^silhouette: .*got torch.complex",
    ),
    "name": ({"name": 3}, TypeError, "^name: expected a str, got int"),
    "camera": ({"camera": None}, TypeError, "^camera: expected a PinholeCamera, got NoneType"),
    "cameras": (
        {"camera": tr.PinholeCamera(tr.orbit(3.0, [0.0, 10.0], [0.0, 0.0]))},
        ValueError,
        "^camera: must be of a batch of 1, got 2",
    ),
    "size": ({"image_size": "48 x 64"}, TypeError, "^image_size: expected an int or"),
}


@pytest.mark.parametrize("what", KINDS)
def test_what_a_photo_is_not_made_of(what: str) -> None:
    changes, kind, message = KINDS[what]
    with pytest.raises(kind, match=message):
        photo(**changes)


@pytest.mark.parametrize("scale", [255.0, -1.0, float("nan"), float("inf"), 1.1])
def test_values_of_a_photo_lie_between_0_and_1(scale: float) -> None:
    made = photo(picture=box()[..., None].expand(H, W, 3) * scale, silhouette=box() * scale)
    remedy = "; clamp it$" if scale == 1.1 else "; divide it by 255$" if scale == 255 else ""
    with pytest.raises(
        ValueError, match=rf"^mine: picture: must lie in \[0, 1\], and has .*{remedy}"
    ):
        made.image()
    with pytest.raises(ValueError, match=rf"^mine: silhouette: must lie in \[0, 1\], .*{remedy}"):
        made.mask()
    with pytest.raises(ValueError, match=r"^mine: silhouette: must lie in"):
        tr.visual_hull(tr.Capture((made,)))


@pytest.mark.parametrize(
    "dtype", [torch.float64, torch.float32, torch.float16, torch.bool, torch.uint8]
)
def test_masks_of_zeros_and_ones_may_be_of_any_type(dtype: torch.dtype) -> None:
    found = photo(silhouette=box().to(dtype)).mask()
    assert found.dtype == torch.float32 and torch.equal(found, box())


def test_renderings_may_overshoot_a_little() -> None:
    shown = (box() * (1 + 1e-5))[..., None].expand(H, W, 3)
    assert torch.equal(photo(picture=shown).image(), shown)


def test_a_photo_may_be_square_by_one_number() -> None:
    assert photo(image_size=8).image_size == (8, 8)
    assert photo(image_size=[H, W], picture=torch.zeros(H, W, 3)).image().shape == (H, W, 3)


# Files --------------------------------------------------------------------------------------------


def palette_of(values: np.ndarray, colours: list[int], path: Path) -> Path:
    made = Image.fromarray(values.astype(np.uint8), "P")
    made.putpalette(colours)
    made.save(path)
    return path


@pytest.mark.parametrize("suffix", ["png", "gif"])
def test_a_palette_stands_for_its_colours(suffix: str, tmp_path: Path) -> None:
    """Whatever the order of its entries: what a viewer shows white is the object."""
    path, truth = tmp_path / f"mask.{suffix}", box().numpy()
    soft = truth.copy()
    soft[30:33] = 20 / 255
    Image.fromarray((soft * 255).round().astype(np.uint8)).convert("P").save(path)
    np.testing.assert_allclose(read_mask(path, SIZE), soft, atol=1e-6)
    white_first = [255, 255, 255, 0, 0, 0]
    np.testing.assert_array_equal(read_mask(palette_of(1 - truth, white_first, path), SIZE), truth)
    black_first = [0, 0, 0, 255, 255, 255]
    np.testing.assert_array_equal(read_mask(palette_of(truth, black_first, path), SIZE), truth)
    three = Image.fromarray((truth * 255).astype(np.uint8)).convert("RGB").quantize(4)
    three.save(path)
    np.testing.assert_array_equal(read_mask(path, SIZE), truth)


@pytest.mark.parametrize("black", [0, 1])
def test_a_palette_of_colours_has_labels(black: int, tmp_path: Path) -> None:
    """As PASCAL VOC's: dark red, dark green, ... on black."""
    labels = box().numpy()
    labels[12:15] *= 2
    colours = [0, 0, 0, 128, 0, 0, 0, 128, 0]
    if black:
        labels = (labels + 1) % 3
        colours = [*colours[-3:], *colours[:-3]]
    path = palette_of(labels, colours, tmp_path / "mask.png")
    np.testing.assert_array_equal(read_mask(path, SIZE), box().numpy())
    path = palette_of(labels, [10, 0, 90, 128, 0, 0, 0, 128, 0], tmp_path / "mask.png")
    with pytest.raises(ValueError, match=r"mask.png: the mask has a palette of colours, and none"):
        read_mask(path, SIZE)


def test_a_transparent_colour_of_a_palette_is_around_the_object(tmp_path: Path) -> None:
    path = palette_of(box().numpy(), [255, 255, 255, 90, 90, 90], tmp_path / "mask.png")
    with Image.open(path) as opened:
        opened.load()
    opened.save(path, transparency=0)
    np.testing.assert_array_equal(read_mask(path, SIZE), box().numpy())


@pytest.mark.parametrize(
    ("value", "message"), [(np.nan, "has nan to nan"), (-1.0, "has -1 to -?0")]
)
def test_masks_of_floats_that_are_none(value: float, message: str, tmp_path: Path) -> None:
    path = tmp_path / "mask.tif"
    Image.fromarray(box().numpy() * np.float32(value)).save(path)
    made = photo(silhouette=path)
    with pytest.raises(
        ValueError, match=rf"mask.tif: the mask must lie in \[0, 1\], and {message}"
    ):
        made.mask()


def test_pictures_that_do_not_say_what_is_white(tmp_path: Path) -> None:
    path = tmp_path / "photo.tif"
    floats = box().numpy()
    Image.fromarray(floats).save(path)
    np.testing.assert_array_equal(read_photo(path)[..., 0], floats)
    for scale in (255, np.nan):
        Image.fromarray(floats * np.float32(scale)).save(path)
        with pytest.raises(
            ValueError, match=r"photo.tif: has floats from .*; store it with 8 or 16"
        ):
            photo(picture=path).image()
    Image.fromarray((floats * 255).astype(np.int32)).save(path)
    with pytest.raises(ValueError, match=r"photo.tif: has whole numbers of 32 bits, of which"):
        photo(picture=path).image()
    for kind in ("tif", "png"):
        path = tmp_path / f"photo.{kind}"
        Image.fromarray((floats * 65535).astype(np.uint16)).save(path)
        np.testing.assert_array_equal(photo(picture=path).image()[..., 0], floats)


@pytest.mark.parametrize("rule", [AlphaChannel(), None])
def test_an_error_names_the_photo_once(rule: AlphaChannel | None, tmp_path: Path) -> None:
    path = tmp_path / "photo.png"
    exif = Image.Exif()
    exif[0x0112] = 3
    Image.new("RGBA", (W, H)).save(path, exif=exif)
    with pytest.raises(ValueError, match="EXIF orientation") as raised:
        photo(picture=path, silhouette=rule).mask() if rule else photo(picture=path).image()
    assert str(raised.value).count(str(path)) == 1


def test_a_rule_that_finds_no_mask_names_the_photo() -> None:
    grey = torch.full((H, W, 3), 0.5)
    with pytest.raises(ValueError, match=r"^mine: has no alpha channel"):
        photo(picture=grey, silhouette=AlphaChannel()).mask()
    with pytest.raises(ValueError, match=r"^mine: the border of the photo has no hue"):
        photo(picture=grey, silhouette=ColourKey()).mask()
