"""Moving a mesh until its silhouettes are the masks of photos."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from taichi_raster import checks
from taichi_raster.capture.capture import Capture
from taichi_raster.fitting.deformation import SmoothOffsets, UniformAdam
from taichi_raster.fitting.drawing import drawn
from taichi_raster.fitting.losses import LaplacianLoss, NormalConsistencyLoss
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


def fitted_to(
    local: LocalMesh,
    targets: list[Tensor],
    steps: int,
    seed: int,
    done: Callable[[int, int, float], None] | None,
) -> tuple[Mesh, Tensor]:
    """The mesh after so many steps, in the world, and the loss before each of them."""
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
            corners, near, far = projected(world, mesh, local.cameras[i])
            size = targets[i].shape[0], targets[i].shape[1]
            draw = SharpRasterizer(size, near=near, far=far)
            error = (drawn(draw, corners)[0, ..., 0] - targets[i]).square()
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


def silhouettes(capture: Capture, longest: int) -> list[Float[Tensor, "H W"]]:
    """All masks, smaller where they are larger than that, averaged by area."""
    found = []
    for photo in capture:
        mask = photo.mask()
        shrink = min(1.0, checks.count("image_size", longest) / max(mask.shape))
        size = max(1, round(mask.shape[0] * shrink)), max(1, round(mask.shape[1] * shrink))
        found.append(area_average(mask[None], size)[0])
    return found


@dataclass(frozen=True, eq=False)
class LocalMesh:
    """A mesh in units of its own size, about its own centre, and the cameras that see it."""

    mesh: Mesh
    centre: Tensor
    size: float
    cameras: list[Camera]

    @staticmethod
    def of(mesh: Mesh, cameras: list[Camera]) -> LocalMesh:
        """From a mesh in the world."""
        low, high = mesh.vertices.amin(0).double(), mesh.vertices.amax(0).double()
        centre, size = (low + high) / 2, 0.5 * float((high - low).norm())
        local = Mesh(((mesh.vertices - centre) / size).float(), mesh.faces)
        return LocalMesh(local, centre, size, cameras)

    def world(self, vertices: Tensor) -> Tensor:
        """Vertices (V, 3) of this mesh, in the world and in double precision."""
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


def projected(vertices: Tensor, mesh: Mesh, camera: Camera) -> tuple[Tensor, float, float]:
    """(faces (1, F, 3, 3) in float32, near, far)."""
    seen = camera.project(vertices[None].to(camera.view.dtype))
    z = seen[..., 2].detach()
    scale = float(z.abs().median())
    seen = torch.cat(
        [seen[..., :2], seen[..., 2:] / scale], dim=-1
    ).float()  # any unit fits float32
    near, far = max(0.5 * float(z.min()) / scale, 1e-3), 2 * float(z.max()) / scale
    return gather_faces(seen, mesh.faces), near, max(far, 2 * near)
