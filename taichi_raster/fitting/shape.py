"""A mesh from photos with masks: the visual hull, then a fit of its silhouettes."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from taichi_raster import checks
from taichi_raster.capture.capture import Capture
from taichi_raster.capture.hull import visual_hull
from taichi_raster.fitting import inputs
from taichi_raster.fitting.drawing import reaching
from taichi_raster.fitting.refinement import refine_cameras as refined
from taichi_raster.fitting.silhouette_fit import LocalMesh, fitted_to, projected, silhouettes
from taichi_raster.fitting.simplification import simplified
from taichi_raster.render.sampled import sampled_picture
from taichi_raster.scene.camera import Camera
from taichi_raster.scene.mesh import Mesh


@dataclass(frozen=True, eq=False)
class ShapeFit:
    """The result of `fit_mesh`.

    Attributes:
        mesh: in the capture's world, float32; `Capture.given_world` takes it to that of the file.
        hull: where the fit started.
        losses: of each step, before it: the mean squared difference of coverage and mask.
        ious: of each photo's mask and the mesh's outline, by samples.
        capture: the photos that were given, with the cameras that the mesh was fitted by.
    """

    mesh: Mesh
    hull: Mesh
    losses: Float[Tensor, " S"]
    ious: Float[Tensor, " B"]
    capture: Capture


def fit_mesh(
    capture: Capture,
    face_count: int = 10_000,
    steps: int = 120,
    cells: int = 128,
    image_size: int | None = None,
    start: Mesh | None = None,
    seed: int = 0,
    done: Callable[[int, int, float], None] | None = None,
    refine_cameras: bool = False,
) -> ShapeFit:
    """Find the mesh whose silhouettes are the masks.

    It starts at the visual hull, so that holes and limbs are there. Then the surface moves by the
    exact derivative of its coverage (`SharpRasterizer`), a few photos at a time, with offsets that
    are smoothed over the surface (Nicolet et al. 2021). Nothing has to be set: steps are measured
    in pixels, and all else in units of the object's size.

    Cameras that are off by a degree or so can be refined first; see `refine_cameras`.

    Args:
        capture: photos with masks; two or more, better a dozen from all sides.
        face_count: faces of the mesh, at most; 8 or more.
        steps: of the fit; 0 gives the hull.
        cells: of the hull, 8 or more, see `visual_hull`.
        image_size: the longer side of the silhouettes, 16 pixels or more; by default that of the
            photos, at most 360.
        start: a closed mesh in the capture's world to start with, instead of the hull.
        seed: of the order of the photos.
        done: called after each step with its number from 1, how many there are, and its loss.
        refine_cameras: whether to find the cameras' poses, too, beginning at those given.

    Raises:
        ImportError: if scikit-image or fast-simplification is not installed.
        TypeError, ValueError: naming the argument; see `visual_hull` for what masks and cameras
            that do not fit together give.

    Example:
        >>> capture = tr.load_capture("dino")
        >>> fit = tr.fit_mesh(capture)
        >>> tr.save_mesh("dino.obj", capture.given_world(fit.mesh))
    """
    face_count = checks.whole("face_count", face_count, 8)
    if not checks.is_whole(steps) or steps < 0:
        raise ValueError(f"steps: expected a whole number from 0 on, got {steps!r}")
    cells, steps = checks.whole("cells", cells, 8), int(steps)
    image_size = 360 if image_size is None else checks.whole("image_size", image_size, 16)
    start = None if start is None else inputs.mesh("start", start)
    inputs.seed(seed)
    checks.flag("refine_cameras", refine_cameras)
    if len(checks.instance("capture", capture, Capture)) < 2:
        raise ValueError("capture: a shape needs two photos or more")
    capture = inputs.capture(capture, refine_cameras)
    if refine_cameras:
        capture = refined(capture, seed=seed)
    hull = visual_hull(capture, cells) if start is None else start
    mesh = simplified(hull, face_count)
    targets = silhouettes(capture, image_size)
    local = LocalMesh.of(mesh, [photo.camera for photo in capture])
    mesh, losses = fitted_to(local, targets, steps, seed, done)
    ious = torch.tensor(
        [
            outline_iou(mesh, photo.camera, target)
            for photo, target in zip(capture, targets, strict=True)
        ]
    )
    return ShapeFit(mesh, hull, losses, ious, capture)


def outline_iou(mesh: Mesh, camera: Camera, mask: Float[Tensor, "H W"], samples: int = 4) -> float:
    """The intersection over union of a mask and a mesh's outline, by samples, both above a half.

    Args:
        mesh: in the camera's world.
        camera: of one view.
        mask: (H, W) of bool, or of floats in [0, 1].
        samples: along each side of a pixel, 1 to 256.

    Raises:
        TypeError, ValueError: naming the argument.
    """
    mesh = inputs.detached(checks.instance("mesh", mesh, Mesh))
    camera = inputs.one_camera("camera", camera)
    if inputs.picture("mask", mask, yes_or_no=True).ndim != 2 or mask.numel() == 0:
        raise ValueError(f"mask: must be (H, W), got {tuple(mask.shape)}")
    corners, near, far = projected(mesh.vertices, mesh, camera)
    size = mask.shape[0], mask.shape[1]
    if not bool(reaching(corners, near, far).any()):
        return 0.0
    shown = sampled_picture(corners, None, size, samples, near=near, far=far)[0, ..., 0]
    one, two = shown > 0.5, mask.to(shown) > 0.5
    return float((one & two).sum() / (one | two).sum().clamp(min=1))
