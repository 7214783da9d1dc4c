"""A mesh's texture from photos whose cameras are known."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from jaxtyping import Bool, Float
from numpy.typing import NDArray
from torch import Tensor

from taichi_raster import checks
from taichi_raster.capture.capture import Capture
from taichi_raster.fitting import inputs
from taichi_raster.fitting.texture_pixels import Pixels, photo_pixels, texture_size
from taichi_raster.fitting.unwrapping import unwrap
from taichi_raster.scene.camera import Camera
from taichi_raster.scene.mesh import Mesh

if TYPE_CHECKING:
    from scipy.sparse import csr_array

Array = NDArray[np.float64]

ITERATIONS = (12, 12, 30)
"""Of conjugate gradients, in each round of robust weights and exposures."""

BLOCKS = 64
"""Blocks of texels on a side, whose mean colours tell the photos' exposures."""


@dataclass(frozen=True, eq=False)
class TextureFit:
    """The result of `fit_texture` and `texture_from_photos`.

    Attributes:
        mesh: with the texture, (S, S, 3) in [0, 1], and its texture coordinates.
        exposure: (N, 3) by what each photo's channels exceed the texture's: its geometric mean over
            the photos is 1.
        seen: (S, S) texels that some photo shows; the others are filled from their neighbours.
        residual: root mean square of photo minus texture, over what the photos show, in [0, 1].
    """

    mesh: Mesh
    exposure: Float[Tensor, "N 3"]
    seen: Bool[Tensor, "S S"]
    residual: float


def fit_texture(
    mesh: Mesh,
    capture: Capture,
    size: int | None = None,
    smoothness: float = 0.02,
    margin: int = 2,
    done: Callable[[str], None] | None = None,
) -> TextureFit:
    """Find the texture that a capture's photos show of a mesh; see `texture_from_photos`.

    Args:
        mesh: in the capture's world.
        capture: photos, with masks if it has them: then only what they show of the object counts.
        size, smoothness, margin, done: as for `texture_from_photos`.

    Raises:
        TypeError, ValueError, ImportError: as `texture_from_photos`.

    Example:
        >>> capture = tr.load_capture("dino")
        >>> shape = tr.fit_mesh(capture)
        >>> fit = tr.fit_texture(shape.mesh, capture)
        >>> tr.save_mesh("dino.glb", capture.given_world(fit.mesh))
    """
    mesh = checks.instance("mesh", mesh, Mesh)
    _check_numbers(mesh, size, smoothness, margin, None)
    capture = inputs.capture(capture, pictures=True)
    masks = [photo.mask() for photo in capture] if capture.has_masks else None
    return texture_from_photos(
        mesh,
        [photo.image() for photo in capture],
        [photo.camera for photo in capture],
        masks,
        size,
        smoothness,
        margin,
        done=done,
    )


def texture_from_photos(
    mesh: Mesh,
    photos: Sequence[Float[Tensor, "H W 3"]],
    cameras: Sequence[Camera],
    masks: Sequence[Float[Tensor, "H W"]] | None = None,
    size: int | None = None,
    smoothness: float = 0.02,
    margin: int = 2,
    near: float | None = None,
    done: Callable[[str], None] | None = None,
) -> TextureFit:
    """Find the texture that photos show of a mesh.

    Each photo's pixel sees a point of the surface, and so a mixture of four texels. The texels are
    the least squares solution of all of these together, so that they are as sharp as the photos
    allow. Pixels that look along the surface count less. So do pixels that disagree with the
    others, as where something stands before the object (Cauchy weights). Each photo has an exposure
    for each channel. Texels that no photo shows are filled smoothly.

    Args:
        mesh: with texture coordinates whose charts do not overlap; without any, they are made (see
            `unwrap`). A texture and colours that it has do not count, and are left out.
        photos: (H, W, 3) in [0, 1], of any sizes.
        cameras: for each photo one, of a batch of 1.
        masks: (H, W) for each photo, of bool or of floats in [0, 1], where it shows the object:
            above a half.
        size: texels on a side, 16 to 16,384, or from 2 for a mesh with texture
            coordinates; by default as many as make a texel about as large as a pixel of the photo
            that shows it best, from 64 to 4096.
        smoothness: how much neighbouring texels are drawn together, against a pixel that sees them;
            positive.
        margin: pixels along outlines that are left out, since they mix surfaces; 0 or more.
        near: faces nearer to the eye than that are cut, positive; by default a thousandth
            of the distance.
        done: called with a line of text as parts are done.

    Raises:
        TypeError, ValueError: naming the argument; also if no photo shows any of the mesh.
        ImportError: if the mesh has no texture coordinates and xatlas is not installed.
    """
    _check_numbers(mesh, size, smoothness, margin, near)
    cameras = _checked(mesh, photos, cameras, masks)
    say = done or (lambda text: None)
    if size is None:
        size = texture_size(mesh, photos, cameras)
    if mesh.uv is None:
        mesh = unwrap(mesh, size)
        say(f"texture coordinates for {size} x {size} texels")
    mesh = replace(mesh, texture=None, colours=None, colour_faces=None)
    views = []
    for i, (photo, camera) in enumerate(zip(photos, cameras, strict=True)):
        mask = None if masks is None else masks[i]
        views.append(photo_pixels(mesh, photo, camera, mask, size, margin, near))
        say(f"photo {i + 1} of {len(photos)}")
    if sum(len(view.weight) for view in views) == 0:
        raise ValueError("photos: none shows any of the mesh; are cameras and mesh in one world?")
    pixels = Pixels.of(views)
    texels, exposure, residual = _solve(pixels, len(views), size, smoothness, say)
    seen = np.asarray(pixels.spread.sum(axis=1)).ravel() > 0
    texture = torch.from_numpy(texels.reshape(size, size, 3)).to(mesh.vertices).clamp(0, 1)
    return TextureFit(
        replace(mesh, texture=texture, wrap="clamp"),
        torch.from_numpy(exposure).to(mesh.vertices),
        torch.from_numpy(seen.reshape(size, size)),
        residual,
    )


def _solve(
    pixels: Pixels, photos: int, size: int, smoothness: float, say: Callable[[str], None]
) -> tuple[Array, Array, float]:
    """(texels (size^2, 3), exposure (N, 3), residual)."""
    roughness = _roughness(size)
    trust = np.ones_like(pixels.weight)
    texels, residual = np.zeros((0, 3)), math.nan
    for turn, iterations in enumerate(ITERATIONS):
        weight = pixels.weight * trust
        exposure = _exposure(pixels, weight, photos, size)
        gain = exposure[pixels.photo]
        if turn == 0:
            texels = _fill(pixels, weight, gain, size)
        texels = _texels(pixels, weight, gain, roughness, smoothness, texels, iterations)
        error = pixels.mixing @ texels * gain - pixels.colour
        residual = math.sqrt(float(np.mean(error**2)))
        say(f"texels, round {turn + 1} of {len(ITERATIONS)}: residual {residual:.4f}")
        size_of_error = np.abs(error).mean(axis=1)
        width = max(2.0 * 1.4826 * float(np.median(size_of_error)), 0.01)
        trust = 1 / (1 + (size_of_error / width) ** 2)
    return texels, exposure, residual


def _exposure(pixels: Pixels, weight: Array, photos: int, size: int) -> Array:
    """(N, 3): the gains by which photos of the same places differ; geometric means of 1.

    Least squares of the logarithms of the mean colours of blocks of texels, weighted by how often
    and how brightly each is seen: one unknown a photo, once those of the blocks are eliminated.
    """
    block = -(-size // BLOCKS)
    first = pixels.mixing.indices[::4].astype(np.int64)  # the upper left of each pixel's texels
    cell = first // size // block * BLOCKS + first % size // block
    place = pixels.photo * BLOCKS**2 + cell
    shape = photos, BLOCKS**2
    total = np.bincount(place, weight, photos * BLOCKS**2).reshape(shape)
    gains = np.ones((photos, 3))
    for channel in range(3):
        colour = np.bincount(place, weight * pixels.colour[:, channel], photos * BLOCKS**2)
        mean = colour.reshape(shape) / np.maximum(total, 1e-12)
        share = np.where(mean > 0.02, total * mean**2, 0.0)
        log = np.log(np.maximum(mean, 1e-6))
        every = np.maximum(share.sum(axis=0), 1e-12)
        # Gradient of sum of share (log - gain - place)^2, with the best place of each block.
        matrix = np.diag(share.sum(axis=1)) - (share / every) @ share.T
        right = (share * (log - (share * log).sum(axis=0) / every)).sum(axis=1)
        # Photos that have nothing to do with the others stay at 1.
        matrix += 1e-6 * max(float(np.trace(matrix)) / photos, 1e-12) * np.eye(photos)
        solved = np.linalg.solve(matrix, right)
        gains[:, channel] = np.exp(np.clip(solved - solved.mean(), -2, 2))
    return gains


def _texels(
    pixels: Pixels,
    weight: Array,
    gain: Array,
    roughness: csr_array,
    smoothness: float,
    start: Array,
    iterations: int,
) -> Array:
    """The least squares solution by conjugate gradients, all channels side by side."""
    along = (weight[:, None] * gain * gain).astype(np.float32)
    squares = pixels.spread.power(2)
    diagonal = squares @ along + smoothness * roughness.diagonal()[:, None]

    def apply(x: Any) -> Any:
        return pixels.spread @ (along * (pixels.mixing @ x)) + smoothness * (roughness @ x)

    x: Any = start.astype(np.float32)
    target = (weight[:, None] * gain * pixels.colour).astype(np.float32)
    rest = pixels.spread @ target - apply(x)
    step = rest / diagonal
    old = (rest * step).sum(axis=0)
    for _ in range(iterations):
        image = apply(step)
        length = old / np.maximum((step * image).sum(axis=0), 1e-20)
        x = x + length * step
        rest = rest - length * image
        scaled = rest / diagonal
        new = (rest * scaled).sum(axis=0)
        step = scaled + new / np.maximum(old, 1e-20) * step
        old = new
    return np.asarray(x)


def _roughness(size: int) -> csr_array:
    """(size^2, size^2): the graph's Laplacian of a grid of texels."""
    from scipy.sparse import csr_array, diags_array  # here, as SciPy takes a while to import

    place = np.arange(size * size).reshape(size, size)
    one = np.concatenate([place[:, :-1].ravel(), place[:-1].ravel()])
    two = np.concatenate([place[:, 1:].ravel(), place[1:].ravel()])
    value = np.ones(len(one))
    beside = csr_array((value, (one, two)), shape=(size * size, size * size))
    beside = beside + beside.T
    return csr_array(diags_array(beside.sum(axis=1)) - beside, dtype=np.float32)


def _fill(pixels: Pixels, weight: Array, gain: Array, size: int) -> Array:
    """Weighted means of what is seen at each texel; elsewhere, of coarser and coarser levels.

    Gortler et al., *The lumigraph*, SIGGRAPH 1996 (pull and push).
    """
    total = pixels.spread @ weight
    colour = pixels.spread @ (weight[:, None] * pixels.colour / gain)
    image = torch.from_numpy(np.concatenate([colour, total[:, None]], axis=1))
    return _pull_push(image.view(size, size, 4).permute(2, 0, 1)[None]).reshape(-1, 3).numpy()


def _pull_push(sums: Tensor) -> Tensor:
    """(1, 4, H, W) colours times weights, and weights, to (H, W, 3) colours everywhere."""
    colours, weight = sums[:, :3], sums[:, 3:]
    mean = colours / weight.clamp(min=1e-12)
    height, width = sums.shape[2:]
    if height * width > 1:
        capped = torch.cat([mean * weight.clamp(max=1), weight.clamp(max=1)], dim=1)
        coarse = torch.nn.functional.avg_pool2d(capped, 2, ceil_mode=True, count_include_pad=False)
        below = _pull_push(4 * coarse).permute(2, 0, 1)[None]
        below = torch.nn.functional.interpolate(
            below, (height, width), mode="bilinear", align_corners=False
        )
        share = weight.clamp(max=1)
        mean = share * mean + (1 - share) * below
    return mean[0].permute(1, 2, 0)


def _check_numbers(mesh: Any, size: Any, smoothness: Any, margin: Any, near: Any) -> None:
    checks.instance("mesh", mesh, Mesh)
    if size is not None:
        checks.whole("size", size, 16 if mesh.uv is None else 2, 16384)
    checks.positive("smoothness", smoothness)
    checks.whole("margin", margin, 0)
    if near is not None:
        checks.positive("near", near)


def _checked(
    mesh: Mesh,
    photos: Sequence[Tensor],
    cameras: Sequence[Camera],
    masks: Sequence[Tensor] | None,
) -> list[Camera]:
    """The cameras, without derivatives."""
    inputs.mesh("mesh", mesh)
    for name, given in (("photos", photos), ("cameras", cameras), ("masks", masks)):
        if given is not None and not isinstance(given, Sequence | Tensor):
            raise TypeError(f"{name}: expected a list, one for each photo, got {type(given)}")
    if len(photos) == 0:
        raise ValueError("photos: expected at least one")
    if len(cameras) != len(photos):
        raise ValueError(f"cameras: expected {len(photos)}, one a photo, got {len(cameras)}")
    if masks is not None and len(masks) != len(photos):
        raise ValueError(f"masks: expected {len(photos)}, one a photo, got {len(masks)}")
    for i, (photo, camera) in enumerate(zip(photos, cameras, strict=True)):
        checks.tensor(f"photos[{i}]", photo)
        if photo.ndim != 3 or photo.shape[2] != 3 or min(photo.shape[:2]) < 2:
            raise ValueError(f"photos[{i}]: must be (H, W, 3), got {tuple(photo.shape)}")
        inputs.picture(f"photos[{i}]", photo)
        inputs.one_camera(f"cameras[{i}]", camera)
        if masks is not None:
            inputs.picture(f"masks[{i}]", masks[i], yes_or_no=True)
            if masks[i].shape != photo.shape[:2]:
                raise ValueError(
                    f"masks[{i}]: must be {tuple(photo.shape[:2])}, got {tuple(masks[i].shape)}"
                )
    return [inputs.detached(camera) for camera in cameras]
