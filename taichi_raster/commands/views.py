"""Pictures of a mesh from a capture's cameras, and from all round."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
from jaxtyping import Float
from PIL import Image
from torch import Tensor

from taichi_raster.capture.capture import Capture, Photo
from taichi_raster.fitting.drawing import reaching
from taichi_raster.render.sampled import sampled_picture
from taichi_raster.scene.attributes import SurfaceTexture, UVTexture
from taichi_raster.scene.camera import Camera, PerspectiveCamera
from taichi_raster.scene.faces import gather_faces
from taichi_raster.scene.mesh import Mesh
from taichi_raster.scene.views import look_at

GREY = 0.75
"""Of a mesh that has no colour."""


def picture(
    mesh: Mesh,
    camera: Camera,
    image_size: tuple[int, int],
    samples: int = 2,
    background: float = 0.0,
) -> Float[Tensor, "H W 4"]:
    """The mesh as a camera sees it: its texture or colours, or a light from the eye on grey."""
    seen = camera.project(mesh.vertices[None].to(camera.view.dtype))
    unit = float(seen[..., 2].median().abs()) or 1.0
    seen = torch.cat([seen[..., :2], seen[..., 2:] / unit], dim=-1).float()
    near, far = max(0.5 * float(seen[..., 2].min()), 1e-3), 2 * float(seen[..., 2].max())
    corners = gather_faces(seen, mesh.faces)
    if not bool(reaching(corners, near, max(far, 2 * near)).any()):  # the camera looks away
        nothing = torch.full((*image_size, 4), background)
        nothing[..., 3] = 0
        return nothing
    return sampled_picture(
        corners,
        _appearance(mesh, camera),
        image_size,
        samples,
        background,
        near=near,
        far=max(far, 2 * near),
    )[0]


def _appearance(mesh: Mesh, camera: Camera) -> Tensor | SurfaceTexture | UVTexture:
    if mesh.uv is not None and mesh.texture is not None:
        index = mesh.faces if mesh.uv_faces is None else mesh.uv_faces
        texture = mesh.texture.float()
        colours = texture[..., :3].expand(*texture.shape[:2], 3)
        return UVTexture(gather_faces(mesh.uv[None].float(), index), colours[None], wrap=mesh.wrap)
    if mesh.colours is not None:
        index = mesh.faces if mesh.colour_faces is None else mesh.colour_faces
        return gather_faces(mesh.colours[None, :, :3].float(), index)
    corners = mesh.vertices.double()[mesh.faces]
    normal = torch.linalg.cross(corners[:, 1] - corners[:, 0], corners[:, 2] - corners[:, 0])
    way = camera.eye[0].double() - corners.mean(1)
    facing = torch.nn.functional.cosine_similarity(normal, way, dim=1).abs()
    shade = GREY * (0.25 + 0.75 * facing)
    return shade[None, :, None, None].expand(1, -1, 3, 3).float().contiguous()


def psnr(mesh: Mesh, photo: Photo, image_size: tuple[int, int]) -> float:
    """Of photo and picture, in dB, over the pixels of the photo's mask."""
    shown = picture(mesh, photo.camera, image_size, samples=4)[..., :3]
    inside = photo.mask(image_size) > 0.5
    error = (shown - photo.image(image_size))[inside].square().mean()
    return -10 * math.log10(max(float(error), 1e-10))


def up_of(capture: Capture) -> Float[Tensor, " 3"]:
    """The mean of what is up for the cameras."""
    up = torch.cat([photo.camera.view[:, 1, :3] for photo in capture]).double().mean(0)
    if float(up.norm()) < 0.1:  # they are all about: the axis that most of them turn about
        up = capture[0].camera.view[0, 1, :3].double()
    return torch.nn.functional.normalize(up, dim=0)


def turntable(
    mesh: Mesh, up: Float[Tensor, " 3"], path: Path, frames: int = 36, size: int = 360
) -> None:
    """A GIF of the mesh, turning about an axis."""
    low, high = mesh.vertices.amin(0).double(), mesh.vertices.amax(0).double()
    centre, radius = (low + high) / 2, 0.5 * float((high - low).norm())
    side = torch.linalg.cross(up, torch.eye(3, dtype=torch.float64)[int(up.abs().argmin())])
    side = torch.nn.functional.normalize(side, dim=0)
    front = torch.linalg.cross(side, up)
    local = replace(mesh, vertices=((mesh.vertices.double() - centre) / radius))
    images = []
    for frame in range(frames):
        angle = 2 * math.pi * frame / frames
        eye = 3.2 * (math.cos(angle) * front + math.sin(angle) * side + 0.25 * up)
        camera = PerspectiveCamera(look_at(eye, up=up), fov=42.0)
        shown = picture(local, camera, (size, size), 2, background=1.0)[..., :3]
        images.append(as_image(shown))
    save_gif(path, images)


def as_image(values: Float[Tensor, "H W C"]) -> Image.Image:
    """A picture in [0, 1] as Pillow's."""
    return Image.fromarray(np.asarray((values.clamp(0, 1) * 255).round().byte()))


def save_gif(path: Path, images: Sequence[Image.Image]) -> None:
    """All frames with one palette."""
    palette = images[0].quantize(255)
    frames = [image.quantize(palette=palette, dither=Image.Dither.NONE) for image in images]
    frames[0].save(path, save_all=True, append_images=frames[1:], duration=80, loop=0)
