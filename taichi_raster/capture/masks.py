"""Masks of photos: from files, from alpha channels, or by the colour of what is behind.

A rule takes a photo (H, W, 3 or 4) in [0, 1] and gives its mask (H, W) in [0, 1].
"""

from __future__ import annotations

import io
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy import ndarray
from PIL import Image, ImageColor, ImageOps

from taichi_raster import checks
from taichi_raster.capture.readers.reading import to_be_turned, wrong
from taichi_raster.scene.files import images

_SPECK = 2e-3
"""Holes of a keyed mask below this share of its area are filled."""

_GREY = 8
"""By so much may the channels of a grey differ, of 255."""

_BLACK = 16
"""At most so bright is black, of 255."""

TOLERANCE = 1e-3
"""By so much may renderings overshoot [0, 1]."""

_INNER = 0.25
"""A part within the photo is preferred to one at its border that is up to 4 times as large."""


@dataclass(frozen=True)
class ColourKey:
    """The object is what differs in hue from the background's colour, whatever the shading.

    A pixel's score is how much of the key's hue it has, relative to its brightness; the threshold
    is Otsu's (IEEE Trans. SMC 9, 1979), for each photo. Of the parts found, the main one is kept,
    and small holes are filled. For a key without hue, such as black, the score is the distance.

    Attributes:
        colour: (r, g, b) in [0, 1]; or None for the median hue along the photo's border.
    """

    colour: tuple[float, float, float] | None = None

    @classmethod
    def of(cls, key: object) -> ColourKey:
        """From "auto", a name or #rrggbb as in CSS, or (r, g, b) in [0, 1]."""
        if isinstance(key, ColourKey):
            return key
        if isinstance(key, str):
            if key == "auto":
                return cls()
            try:
                r, g, b = ImageColor.getrgb(key)[:3]
            except ValueError as error:
                raise ValueError(
                    f"key: unknown colour {key!r}; give 'auto', a name such as 'green', '#00ff00' "
                    "or (r, g, b) in [0, 1]"
                ) from error
            return cls((r / 255, g / 255, b / 255))
        if not isinstance(key, Sequence | ndarray):
            raise TypeError(f"key: expected a colour, got {type(key).__name__}")
        found = [checks.number("key", part) for part in key]
        if len(found) != 3 or not all(0 <= part <= 1 for part in found):
            raise ValueError(f"key: must be (r, g, b) in [0, 1], got {key}")
        return cls((found[0], found[1], found[2]))

    def __call__(self, photo: ndarray) -> ndarray:
        """The mask (H, W), 0 or 1, of a photo (H, W, 3 or 4)."""
        pixels = photo[..., :3]
        hue = pixels - pixels.mean(-1, keepdims=True)
        brightness = pixels.max(-1) + 0.05  # in the dark, a hue is noise
        if self.colour is None:
            relative = hue / brightness[..., None]
            edges = (relative[:4], relative[-4:], relative[:, :4], relative[:, -4:])
            key = np.median(np.concatenate([edge.reshape(-1, 3) for edge in edges]), axis=0)
        else:
            key = np.array(self.colour) - np.mean(self.colour)
        strength = np.linalg.norm(key)
        if strength > 0.02:
            score = (hue * (key / strength)).sum(-1) / brightness
        elif self.colour is None:
            raise ValueError("the border of the photo has no hue to key by; give key a colour")
        else:
            score = -np.linalg.norm(pixels - np.array(self.colour), axis=-1)
        return _main_part(score < _otsu(score)).astype(np.float32)


@dataclass(frozen=True)
class AlphaChannel:
    """The mask is the photo's own alpha channel."""

    def __call__(self, photo: ndarray) -> ndarray:
        """The fourth channel of a photo (H, W, 4)."""
        if photo.shape[2] != 4:
            raise ValueError("has no alpha channel to be its mask")
        return photo[..., 3].astype(np.float32)


def read_mask(path: Path, image_size: tuple[int, int]) -> ndarray:
    """A mask (H, W) in [0, 1]: an alpha channel, grey values, or labels, of which 0 is none.

    A palette stands for its colours: greys as they are, and otherwise what is not black is the
    object. `image_size` is the photo's; see `to_be_turned`.
    """
    turned = to_be_turned(path, image_size)
    try:
        with Image.open(path) as opened:
            opened.load()
            picture: Image.Image = ImageOps.exif_transpose(opened) if turned else opened
    except Exception as error:  # Pillow's readers raise anything
        raise wrong(path, "", f"cannot be read as a mask: {error}") from error
    if "A" in picture.getbands() or "transparency" in picture.info:
        alpha = np.asarray(picture.convert("RGBA").getchannel("A"), dtype=np.float32) / 255
        if alpha.min() < 1:
            return alpha
    if picture.mode in ("P", "PA"):
        found = _of_palette(path, picture)
    elif picture.mode in ("1", "F") or picture.mode.startswith("I"):
        found = np.asarray(picture).astype(np.float32)
    else:
        found = np.asarray(picture.convert("L")).astype(np.float32)
    top = float(found.max())
    full = 1.0 if top <= 1 else 255.0 if top <= 255 else 65535.0
    return found / full


def _of_palette(path: Path, picture: Image.Image) -> ndarray:
    """Greys, 0 to 255; or 0 and 1 where some pixels are coloured, as labels are."""
    colours = np.asarray(picture.convert("RGB")).astype(np.float32)
    brightest: ndarray = colours.max(-1)
    if (brightest - colours.min(-1)).max() <= _GREY:
        return brightest
    if brightest.min() > _BLACK:
        raise wrong(
            path,
            "",
            "the mask has a palette of colours, and none of them is black, so that nothing says "
            "what is the object; make it white, and the rest black",
        )
    labels: ndarray = brightest > _BLACK
    return labels.astype(np.float32)


def mask_of(path: Path, rule: AlphaChannel | ColourKey, image_size: tuple[int, int]) -> ndarray:
    """The mask of a photo by a rule; errors name the photo."""
    photo = read_photo(path, image_size)
    try:
        return rule(photo)
    except ValueError as error:
        raise wrong(path, "", str(error)) from error


def read_photo(path: Path, image_size: tuple[int, int] | None = None) -> ndarray:
    """(H, W, 3 or 4) in [0, 1], float32.

    `image_size` is its camera's, which decides about an EXIF orientation; see `to_be_turned`.
    Without it, the photo is read upright.

    Raises:
        ValueError: naming the photo, if it cannot be read, or has numbers of which nothing says
            what is white: floats beyond 1, or whole numbers of 32 bits.
    """
    turned = image_size is None or to_be_turned(path, image_size)
    try:
        data = path.read_bytes()
        found = images.values(images.decoded(data, turned)).astype(np.float32)
        unknown = _without_white(data)
    except Exception as error:  # Pillow's readers raise anything
        raise wrong(path, "", f"cannot be read as a picture: {error}") from error
    if unknown is not None:
        raise wrong(path, "", f"{unknown}; store it with 8 or 16 bits")
    return found


def _without_white(data: bytes) -> str | None:
    """What is wrong with a picture whose numbers do not say what is white."""
    with Image.open(io.BytesIO(data)) as picture:
        if picture.mode == "I" and picture.format == "TIFF":
            return "has whole numbers of 32 bits, of which nothing says what is white"
        if picture.mode == "F":
            low, high = (float(end) for end in (np.min(picture), np.max(picture)))
            if not (low >= -TOLERANCE and high <= 1 + TOLERANCE):
                return f"has floats from {low:.4g} to {high:.4g}, which must lie in [0, 1]"
    return None


def check_mask(where: str, mask: ndarray) -> None:
    """ValueError for a mask that shows nothing, everything, or what is around the object."""
    low, high = float(mask.min()), float(mask.max())
    if not (low >= -TOLERANCE and high <= 1 + TOLERANCE):
        raise ValueError(f"{where}: the mask must lie in [0, 1], and has {low:.4g} to {high:.4g}")
    inside = float((mask > 0.5).mean())
    if inside == 0:
        raise ValueError(f"{where}: the mask is empty: no pixel is above a half")
    if inside == 1:
        raise ValueError(f"{where}: the mask covers the whole photo: there is no outline")
    border = np.concatenate([mask[0], mask[-1], mask[:, 0], mask[:, -1]])
    if float((border > 0.5).mean()) > 0.95:
        raise ValueError(
            f"{where}: the mask covers the photo's border, and {1 - inside:.0%} of the photo is "
            "outside of it: it seems to be inverted; the object must be white"
        )


def _otsu(score: ndarray) -> float:
    """The threshold between two classes with the largest variance between them."""
    counts, edges = np.histogram(score, bins=256)
    centres = (edges[:-1] + edges[1:]) / 2
    weight, moment = np.cumsum(counts), np.cumsum(counts * centres)
    below, above = weight[:-1], weight[-1] - weight[:-1]
    product = np.maximum(below * above, 1)
    between = (moment[-1] * below / weight[-1] - moment[:-1]) ** 2 / product
    return float(edges[1 + int(np.where(below * above > 0, between, 0).argmax())])


def _main_part(mask: ndarray) -> ndarray:
    """The largest connected part, its small holes filled.

    A part that touches the image's border is taken only if none within is a quarter as large: often
    it is a dark corner or the edge of a cloth.
    """
    from scipy import ndimage  # here, as SciPy takes a while to import

    labels, count = ndimage.label(mask)
    if count == 0:
        return mask
    sizes = np.bincount(labels.ravel())
    sizes[0] = 0
    touching = np.unique(np.concatenate([labels[0], labels[-1], labels[:, 0], labels[:, -1]]))
    inner = sizes.copy()
    inner[touching] = 0
    chosen = inner.argmax() if inner.max() > _INNER * sizes.max() else sizes.argmax()
    found: ndarray = labels == chosen
    holes, _ = ndimage.label(~found)
    small = np.bincount(holes.ravel()) < _SPECK * found.sum()
    small[0] = False
    filled: ndarray = found | small[holes]
    return filled
