"""The sharp reference renderer, by exact areas: for targets, for judging, and to end a descent."""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache

import torch
from jaxtyping import Float
from torch import Tensor, nn

from taichi_raster import checks
from taichi_raster.engine.exact import draw
from taichi_raster.engine.sight import Scene
from taichi_raster.kernels.areas.layout import View
from taichi_raster.render import channels
from taichi_raster.runtime import transforms
from taichi_raster.runtime.device import runtime
from taichi_raster.runtime.extremes import Extremes
from taichi_raster.scene.attributes import (
    SurfaceTexture,
    UVTexture,
    check_attributes,
)
from taichi_raster.scene.sampling import Seen, sample
from taichi_raster.softness.schedule import register_tensor


class SharpRasterizer(nn.Module):
    """Renders triangles sharply: each pixel is the exact average over its square.

    Coverage is the area of the union of what is seen within the pixel. So it does not depend on how
    a surface is cut into faces, and a face that is drawn twice counts once. What is nearer hides
    what is behind it, exactly, also where faces pass through each other. Where two are equally far
    (at a silhouette, say), the one that shows its front is seen; of two that show the same side,
    the first. A face's colour is that at the centroid of what is seen of it, so that attributes
    that are linear in the image are averaged exactly.

    Derivatives are those of the exact areas: an integral along each visible edge, of what is on its
    one side less what is on its other (Li et al., SIGGRAPH Asia 2018, who sample it). They are
    exact as long as no edge becomes visible or hidden. There are first derivatives in reverse mode;
    forward mode and second ones raise NotImplementedError.

    Args:
        image_size: pixels, positive: one number, or (height, width).
        background: as for `SoftRasterizer`.
        near, far: depth range. What is outside it is cut off.
        cull_backfaces: drop faces that show their back.
        perspective_correct: interpolate attributes perspective-correctly.
        front: which faces show their front: ``"ccw"``, counter-clockwise in NDC, or ``"cw"``.
        orthographic: the faces come from an `OrthographicCamera`.

    Raises:
        TypeError, ValueError: for arguments out of range; the message names the argument.

    Example:
        >>> target = SharpRasterizer(64)(face_vertices, face_attributes)  # (B, 64, 64, C + 1)
    """

    background: Tensor

    def __init__(
        self,
        image_size: int | tuple[int, int] = 64,
        background: float | Sequence[float] | Tensor = 0.0,
        near: float = 0.1,
        far: float = 100.0,
        cull_backfaces: bool = False,
        perspective_correct: bool = True,
        front: str = "ccw",
        orthographic: bool = False,
    ) -> None:
        super().__init__()
        self.image_size = checks.image_size(image_size)
        register_tensor(self, "background", checks.background(background))
        self.near, self.far = checks.depth_range(near, far)
        self.cull_backfaces = checks.flag("cull_backfaces", cull_backfaces)
        self.perspective_correct = checks.flag("perspective_correct", perspective_correct)
        self.front = checks.choice("front", front, "ccw", "cw")
        self.orthographic = checks.flag("orthographic", orthographic)

    def forward(
        self,
        face_vertices: Float[Tensor, "B F 3 3"],
        face_attributes: Float[Tensor, "B F 3 C"] | SurfaceTexture | UVTexture | None,
        progress: float | Tensor | None = None,
        views: int = 1,
    ) -> Float[Tensor, "B H W C+1"]:
        """Render a batch.

        Args:
            face_vertices, face_attributes: as for `SoftRasterizer.forward`.
            progress, views: not used. They are there so that it can be called like a soft one.

        Returns:
            (B, H, W, C + 1): attributes composited over the background, then alpha.

        Raises:
            TypeError, ValueError, MemoryError: as `SoftRasterizer.forward`.
        """
        later, settings = Extremes(), runtime()
        checks.vertices(face_vertices, settings, later)
        check_attributes(face_attributes, face_vertices, settings, later)
        checks.visible(face_vertices, self.near, self.far, later)
        later.fetch()
        background = None if _black(self.background) else self.background
        if background is not None:
            size = (len(face_vertices), *self.image_size)
            background = checks.background(background, _channels(face_attributes), size)
        if face_attributes is None:
            return self._draw(face_vertices, face_vertices[..., :0])
        if isinstance(face_attributes, Tensor):
            image = self._draw(face_vertices, face_attributes)
        else:
            image = self._draw_textured(face_vertices, face_attributes)
        if background is None:
            return image
        colour, alpha = image[..., :-1], image[..., -1:]
        return torch.cat([colour + (1 - alpha) * background.to(colour), alpha], dim=-1)

    def silhouette(
        self,
        face_vertices: Float[Tensor, "B F 3 3"],
        progress: float | Tensor | None = None,
        views: int = 1,
    ) -> Float[Tensor, "B H W"]:
        """Render coverage only, (B, H, W). Arguments and errors are those of `forward`."""
        return self(face_vertices, None)[..., 0]

    def _draw(self, vertices: Tensor, attributes: Tensor) -> Tensor:
        parts = channels.of_corners(attributes)
        return channels.joined([draw(vertices, a, self._scene(a.shape[3]))[0] for a in parts])

    def _draw_textured(
        self, vertices: Tensor, attributes: SurfaceTexture | UVTexture
    ) -> Float[Tensor, "B H W C+1"]:
        weights, drawing = draw(vertices, None, self._scene(-1))
        assert drawing.sight is not None
        fragments, pixels, faces = drawing.sight.fragments()
        weights = weights[fragments]
        batch, count = vertices.shape[:2]
        height, width = self.image_size
        area = weights.sum(-1)
        seen = (area.detach() > 0).nonzero()[:, 0]
        area, pixels, faces = area[seen], pixels[seen], faces[seen]
        shares = weights[seen] / area[:, None]
        # As many for each batch item, as `sample` takes them.
        item = faces // count
        many = item.bincount(minlength=batch)
        first = many.cumsum(0) - many
        place = item, torch.arange(len(item), device=item.device) - first[item]
        most = int(many.max()) if len(item) else 0
        listed = faces.new_zeros(batch, most).index_put(place, faces - item * count)
        mixed = shares.new_full((batch, most, 3), 1 / 3).index_put(place, shares)
        seen_in = Seen(
            vertices, self.image_size, self.perspective_correct and not self.orthographic
        )
        colour = sample(attributes, listed, mixed, seen_in)[place]
        values = torch.cat([area[:, None] * colour, area[:, None]], dim=-1)
        image = values.new_zeros(batch * height * width, values.shape[1])
        image = image.index_add(0, pixels, values).view(batch, height, width, -1)
        # Rounding may have added up to a little more than a pixel.
        return image - (image.detach()[..., -1:] - 1).clamp(min=0) * _last(image)

    def _scene(self, channels: int) -> Scene:
        return _scene(
            *self.image_size,
            self.near,
            self.far,
            self.perspective_correct,
            self.orthographic,
            self.cull_backfaces,
            self.front == "cw",
            channels,
        )


@lru_cache(maxsize=256)
def _scene(
    height: int,
    width: int,
    near: float,
    far: float,
    perspective: bool,
    orthographic: bool,
    cull: bool,
    clockwise: bool,
    channels: int,
) -> Scene:
    view = View(perspective, orthographic, cull, clockwise, channels)
    return Scene(height, width, near, far, view)


def _black(background: Tensor) -> bool:
    """Whether a background is a number that adds nothing; without waiting for a GPU."""
    if background.ndim > 0 or background.device.type != "cpu":
        return False
    return not transforms.has_derivatives(background) and float(background) == 0


def _last(image: Tensor) -> Tensor:
    """1 for the last channel, 0 for the others."""
    return torch.arange(image.shape[-1], device=image.device) == image.shape[-1] - 1


def _channels(attributes: Tensor | SurfaceTexture | UVTexture | None) -> int | None:
    if attributes is None or isinstance(attributes, Tensor):
        return None if attributes is None else attributes.shape[3]
    texture = attributes.texels if isinstance(attributes, SurfaceTexture) else attributes.image
    corners = 0 if attributes.corners is None else attributes.corners.shape[3]
    return texture.shape[-1] + corners
