"""The sharp reference renderer: analytic and differentiable, for targets and for judging results.

A triangle's coverage of a pixel is a ramp of its signed distance, one pixel wide. Hidden fragments
are removed exactly. (Supersampling, the usual reference, has zero gradient almost everywhere.) A
kernel finds the fragments that each pixel sees, and torch composes them, so that the image can be
differentiated to any order.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from taichi_raster import checks
from taichi_raster.engine.fragment_lists import depth_layers
from taichi_raster.render.nearest import nearest_point, pixel_centres
from taichi_raster.render.packing import FAR_AWAY, Softness, View, pack, without_attributes
from taichi_raster.runtime.device import runtime
from taichi_raster.runtime.extremes import Extremes
from taichi_raster.runtime.layout import EarlyStop
from taichi_raster.runtime.variant import DepthVariant
from taichi_raster.scene.attributes import (
    SurfaceTexture,
    UVTexture,
    appearance,
    check_attributes,
    of_faces,
    sample,
)
from taichi_raster.softness.schedule import register_tensor


class SharpRasterizer(nn.Module):
    """Renders triangles sharply, as a reference: for targets, and to judge results.

    Fragments are taken front to back. With a_k = clamp(1/2 + d_k / pixel width, 0, 1), the first k
    of them cover A_k = min(1, max(sum of a over front faces, sum of a over back faces)). Fragment k
    is seen with weight A_k - A_(k-1). Coverages are summed so that neighbouring faces add up to
    full coverage at their common edge. The larger of front and back is taken so that the two sheets
    of a closed surface count once at its silhouette.

    Args:
        image_size: pixels, positive: one number, or (height, width).
        background: a number, C numbers, or a tensor, 0-d or (C,).
        near, far: depth range; fragments outside it vanish.
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
    ) -> Float[Tensor, "B H W C+1"]:
        """Render a batch.

        Args:
            face_vertices, face_attributes: as for `SoftRasterizer.forward`.

        Returns:
            (B, H, W, C + 1): attributes composited over the background, then alpha.

        Raises:
            TypeError, ValueError, MemoryError: as `SoftRasterizer.forward`.
        """
        later = Extremes()
        checks.vertices(face_vertices, runtime(), later)
        check_attributes(face_attributes, face_vertices, runtime(), later)
        checks.visible(face_vertices, self.near, self.far, later)
        later.fetch()
        shown = appearance(face_attributes, face_vertices, fixed_order=False)
        size = (len(face_vertices), *self.image_size)
        background = checks.background(self.background, shown.total or None, size)
        layers = self._layers(face_vertices.detach())
        corners = of_faces(face_vertices, layers)
        height, width = self.image_size
        points = pixel_centres(height, width).to(face_vertices)[:, :, None]
        distance, weights = nearest_point(points, corners[..., :2])
        coverage = (0.5 + distance * min(height, width) / 2).clamp(0, 1)
        coverage = coverage * (layers >= 0)
        if self.perspective_correct and not self.orthographic:
            weights = weights / corners[..., 2]
            weights = weights / weights.sum(-1, keepdim=True)
        covered = self._cumulative(coverage, corners)
        seen = torch.diff(covered, dim=-1, prepend=torch.zeros_like(covered[..., :1]))
        alpha = covered[..., -1:]
        if face_attributes is None:
            return alpha
        colour = sample(face_attributes, layers, weights)
        image = (seen[..., None] * colour).sum(-2) + (1 - alpha) * background.to(colour)
        return torch.cat([image, alpha], dim=-1)

    def _cumulative(self, coverage: Tensor, corners: Tensor) -> Tensor:
        """The cumulative coverages A_k, (B, H, W, K)."""
        edge, diagonal = (corners[..., i, :2] - corners[..., 0, :2] for i in (1, 2))
        front = edge[..., 0] * diagonal[..., 1] - edge[..., 1] * diagonal[..., 0] > 0
        sums = [torch.cumsum(coverage * mask, dim=-1) for mask in (front, ~front)]
        return torch.maximum(*sums).clamp(max=1)

    def _layers(self, vertices: Tensor) -> Int[Tensor, "B H W K"]:
        """The faces that each pixel sees, nearest first, then -1."""
        half_pixel = 1 / min(self.image_size)
        view = View(
            *self.image_size,
            self.near,
            self.far,
            self.cull_backfaces,
            self.front,
            self.orthographic,
        )
        softness = Softness.none(vertices, DepthVariant("none"), half_pixel, FAR_AWAY)
        call, x = pack(vertices, without_attributes(vertices), view, softness)
        return depth_layers(call, x, EarlyStop.SUM).long()
