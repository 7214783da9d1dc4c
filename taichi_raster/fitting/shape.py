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
from taichi_raster.fitting.deformation import SmoothOffsets, UniformAdam
from taichi_raster.fitting.losses import LaplacianLoss, NormalConsistencyLoss
from taichi_raster.fitting.simplification import simplified
from taichi_raster.render.sampled import sampled_picture
from taichi_raster.render.sharp import SharpRasterizer
from taichi_raster.scene.camera import Camera
from taichi_raster.scene.faces import gather_faces
from taichi_raster.scene.mesh import Mesh
from taichi_raster.scene.resampling import area_average

BATCH = 6
"""Photos that each step looks at."""

PIXELS = (1.0, 0.1)
"""How far a vertex moves in a step, in pixels of the silhouettes: at first, and at the end."""

SMOOTHING = 12.0
LAPLACIAN, NORMALS = 0.02, 0.001


@dataclass(frozen=True, eq=False)
class ShapeFit:
    """The result of `fit_mesh`.

    Attributes:
        mesh: in the capture's world, float32; `Capture.given_world` takes it to that of the file.
        hull: where the fit started.
        losses: of each step, before it: the mean squared difference of coverage and mask.
        ious: of each photo's mask and the mesh's outline, by samples.
    """

    mesh: Mesh
    hull: Mesh
    losses: Float[Tensor, " S"]
    ious: Float[Tensor, " B"]


def fit_mesh(
    capture: Capture,
    face_count: int = 10_000,
    steps: int = 120,
    cells: int = 128,
    image_size: int | None = None,
    start: Mesh | None = None,
    seed: int = 0,
    done: Callable[[int, int, float], None] | None = None,
) -> ShapeFit:
    """Find the mesh whose silhouettes are the masks.

    It starts at the visual hull, so that holes and limbs are there. Then the surface moves by the
    exact derivative of its coverage (`SharpRasterizer`), a few photos at a time, with offsets that
    are smoothed over the surface (Nicolet et al. 2021). Nothing has to be set: steps are measured
    in pixels, and all else in units of the object's size.

    Args:
        capture: photos with masks; two or more, better a dozen from all sides.
        face_count: faces of the mesh, at most.
        steps: of the fit; 0 gives the hull.
        cells: of the hull, see `visual_hull`.
        image_size: the longer side of the silhouettes, in pixels; by default that of the photos, at
            most 360.
        start: a closed mesh in the capture's world to start with, instead of the hull.
        seed: of the order of the photos.
        done: called after each step with its number from 1, how many there are, and its loss.

    Raises:
        ImportError: if scikit-image or fast-simplification is not installed.
        TypeError, ValueError: naming the argument; see `visual_hull` for what masks and cameras
            that do not fit together give.

    Example:
        >>> capture = tr.load_capture("dino")
        >>> fit = tr.fit_mesh(capture)
        >>> tr.save_mesh("dino.obj", capture.given_world(fit.mesh))
    """
    checks.instance("capture", capture, Capture)
    checks.count("face_count", face_count)
    if type(steps) is not int or steps < 0:
        raise ValueError(f"steps: expected a whole number from 0 on, got {steps!r}")
    if len(capture) < 2:
        raise ValueError("capture: a shape needs two photos or more")
    hull = visual_hull(capture, cells) if start is None else start
    mesh = simplified(hull, face_count)
    targets = _targets(capture, 360 if image_size is None else image_size)
    local = _Local.of(mesh, [photo.camera for photo in capture])
    mesh, losses = _fitted(local, targets, steps, seed, done)
    ious = torch.tensor(
        [
            outline_iou(mesh, photo.camera, target)
            for photo, target in zip(capture, targets, strict=True)
        ]
    )
    return ShapeFit(mesh, hull, losses, ious)


def outline_iou(mesh: Mesh, camera: Camera, mask: Float[Tensor, "H W"], samples: int = 4) -> float:
    """The intersection over union of a mask and a mesh's outline, by samples, both above a half."""
    corners, near, far = _projected(mesh.vertices.detach(), mesh, camera)
    size = mask.shape[0], mask.shape[1]
    shown = sampled_picture(corners, None, size, samples, near=near, far=far)[0, ..., 0]
    one, two = shown > 0.5, mask.to(shown) > 0.5
    return float((one & two).sum() / (one | two).sum().clamp(min=1))


def _targets(capture: Capture, longest: int) -> list[Float[Tensor, "H W"]]:
    """All masks, smaller where they are larger than that, averaged by area."""
    found = []
    for photo in capture:
        mask = photo.mask()
        shrink = min(1.0, checks.count("image_size", longest) / max(mask.shape))
        size = max(1, round(mask.shape[0] * shrink)), max(1, round(mask.shape[1] * shrink))
        found.append(area_average(mask[None], size)[0])
    return found


@dataclass(frozen=True, eq=False)
class _Local:
    """A mesh in units of its own size, about its own centre, and the cameras that see it."""

    mesh: Mesh
    centre: Tensor
    size: float
    cameras: list[Camera]

    @staticmethod
    def of(mesh: Mesh, cameras: list[Camera]) -> _Local:
        low, high = mesh.vertices.amin(0).double(), mesh.vertices.amax(0).double()
        centre, size = (low + high) / 2, 0.5 * float((high - low).norm())
        local = Mesh(((mesh.vertices - centre) / size).float(), mesh.faces)
        return _Local(local, centre, size, cameras)

    def world(self, vertices: Tensor) -> Tensor:
        return vertices.double() * self.size + self.centre

    def pixel(self, targets: list[Tensor]) -> float:
        """The size of a pixel at the object, in these units: the median over the photos."""
        sizes = []
        for camera, target in zip(self.cameras, targets, strict=True):
            shift = 1e-3 * self.size * torch.eye(3, dtype=torch.float64)
            points = self.centre + torch.cat([torch.zeros(1, 3, dtype=torch.float64), shift])
            seen = camera.project(points[None])[0, :, :2] * min(target.shape) / 2
            sizes.append(1e-3 / float((seen[1:] - seen[0]).norm(dim=1).max()))
        return float(torch.tensor(sizes).median())


def _projected(vertices: Tensor, mesh: Mesh, camera: Camera) -> tuple[Tensor, float, float]:
    """(faces (1, F, 3, 3) in float32, near, far)."""
    seen = camera.project(vertices[None].to(camera.view.dtype))
    z = seen[..., 2].detach()
    scale = float(z.abs().median())
    seen = torch.cat(
        [seen[..., :2], seen[..., 2:] / scale], dim=-1
    ).float()  # any unit fits float32
    near, far = max(0.5 * float(z.min()) / scale, 1e-3), 2 * float(z.max()) / scale
    return gather_faces(seen, mesh.faces), near, max(far, 2 * near)


def _fitted(
    local: _Local,
    targets: list[Tensor],
    steps: int,
    seed: int,
    done: Callable[[int, int, float], None] | None,
) -> tuple[Mesh, Tensor]:
    mesh, pixel = local.mesh, local.pixel(targets)
    surface = SmoothOffsets(mesh, SMOOTHING)
    optimiser = UniformAdam([surface.offsets], lr=pixel)
    count = len(mesh.vertices)
    laplacian = LaplacianLoss(mesh.faces, count)
    normals = NormalConsistencyLoss(mesh.faces, count)
    generator = torch.Generator().manual_seed(seed)
    chosen: list[int] = []
    losses = torch.zeros(steps)
    for step in range(steps):
        progress = step / max(steps - 1, 1)
        for group in optimiser.param_groups:
            group["lr"] = pixel * PIXELS[0] * (PIXELS[1] / PIXELS[0]) ** progress
        if len(chosen) < BATCH:  # all photos come before one comes again
            chosen += torch.randperm(len(targets), generator=generator).tolist()
        batch, chosen = chosen[:BATCH], chosen[BATCH:]
        optimiser.zero_grad()
        vertices = surface()
        world = local.world(vertices)
        loss = torch.zeros(())
        for i in batch:
            corners, near, far = _projected(world, mesh, local.cameras[i])
            size = targets[i].shape[0], targets[i].shape[1]
            draw = SharpRasterizer(size, near=near, far=far)
            error = (draw(corners, None)[0, ..., 0] - targets[i]).square()
            loss = loss + error.sum() / targets[i].sum()
        losses[step] = loss.detach() / len(batch)
        prior = (
            LAPLACIAN * laplacian(vertices[None]).sum() + NORMALS * normals(vertices[None]).sum()
        )
        (loss / len(batch) + prior).backward()
        optimiser.step()
        if done is not None:
            done(step + 1, steps, float(losses[step]))
    return Mesh(local.world(surface().detach()).float(), mesh.faces), losses
