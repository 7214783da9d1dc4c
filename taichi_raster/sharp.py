"""The sharp reference: an analytic, differentiable picture, to make targets and to judge results.

Each triangle's coverage of a pixel is a ramp one pixel wide over its signed distance, and what is
behind is hidden exactly. (Supersampling, the usual reference, has zero gradient almost everywhere.)
Which fragments a pixel sees is found by a kernel; the picture is then composed in torch from those
few fragments alone, so it can be differentiated as often as wanted.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from taichi_raster import checks, streams
from taichi_raster.attributes import (
    SurfaceTexture,
    UVTexture,
    appearance,
    of_faces,
    sample,
)
from taichi_raster.engine import engine
from taichi_raster.extremes import Extremes
from taichi_raster.layout import Call, DepthVariant, EdgeVariant, Hides, Slot, Variant
from taichi_raster.runtime import runtime


class SharpRasterizer(nn.Module):
    """Renders triangles sharply.

    Fragments are taken front to back. With a_k = clamp(1/2 + d_k / pixel width, 0, 1), the first k
    of them cover A_k = min(1, max(sum of a over front faces, sum of a over back faces)), and
    fragment k is seen with weight A_k - A_(k-1). Sums, so that the two sides of an edge between
    neighbours add up to full coverage; the larger of front and back, so that the two sheets of a
    closed surface that meet at its silhouette count once.

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
    """

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
        self.background = checks.background(background)
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
        """Render a batch; inputs, output and errors are those of `SoftRasterizer.forward`."""
        later = Extremes()
        checks.vertices(face_vertices, runtime(), later)
        checks.appearance(face_attributes, face_vertices, runtime(), later)
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
        """A_k: (B, H, W, K)."""
        edge, diagonal = (corners[..., i, :2] - corners[..., 0, :2] for i in (1, 2))
        front = edge[..., 0] * diagonal[..., 1] - edge[..., 1] * diagonal[..., 0] > 0
        sums = [torch.cumsum(coverage * mask, dim=-1) for mask in (front, ~front)]
        return torch.maximum(*sums).clamp(max=1)

    def _layers(self, vertices: Tensor) -> Int[Tensor, "B H W K"]:
        """Which faces each pixel sees, nearest first, -1 where there are no more."""
        batch, n_faces = vertices.shape[:2]
        height, width = self.image_size
        half_pixel = 1 / min(height, width)
        variant = Variant(
            EdgeVariant("uniform"), DepthVariant("none"), cull=self.cull_backfaces,
            clockwise=self.front == "cw", orthographic=self.orthographic,
        )  # fmt: skip
        table = vertices.new_ones(batch, Slot.COUNT)
        table[:, Slot.SCALE] = half_pixel
        table[:, Slot.SHIFT] = 0
        sizes = (vertices.numel(), 0, 0, 0, 0, 0, table.numel())
        call = Call(
            variant, batch, n_faces, height, width, sizes, self.near, self.far, 0.0, 1e30,
            half_pixel, runtime().deterministic,
        )  # fmt: skip
        x = torch.cat([vertices.reshape(-1), table.reshape(-1)])
        with streams.ordered(x) as order:
            layers = engine().layers(call, x, Hides.SUM)
            order.outputs(layers)
        return layers.long()


def pixel_centres(height: int, width: int) -> Float[Tensor, "H W 2"]:
    """Pixel centres in NDC: x right, y up, in units of half the shorter side; row 0 is the top."""
    short = min(height, width)
    x = (2 * torch.arange(width, dtype=torch.float64) + 1 - width) / short
    y = (height - 1 - 2 * torch.arange(height, dtype=torch.float64)) / short
    return torch.stack(torch.meshgrid(y, x, indexing="ij")[::-1], dim=-1)


def nearest_point(
    points: Float[Tensor, "*n 2"], triangles: Float[Tensor, "*n 3 2"]
) -> tuple[Float[Tensor, "*n"], Float[Tensor, "*n 3"]]:
    """Signed distance to each triangle (positive inside), and its nearest point's barycentrics."""
    # Coordinates and corners first: sums of two or three numbers each take torch far longer.
    x, y = (triangles[..., i].movedim(-1, 0).contiguous() for i in (0, 1))  # (3, *n)
    edge_x, edge_y = x.roll(-1, dims=0) - x, y.roll(-1, dims=0) - y
    offset_x, offset_y = points[..., 0] - x, points[..., 1] - y
    length2 = edge_x.square() + edge_y.square()
    is_point = length2 < 1e-20
    t = (offset_x * edge_x + offset_y * edge_y) / torch.where(is_point, 1.0, length2)
    t = torch.where(is_point, 0.0, t.clamp(0, 1))
    foot2 = (offset_x - t * edge_x).square() + (offset_y - t * edge_y).square()
    first, second, third = foot2.detach()
    which = torch.where(second <= third, 1, 2)
    which = torch.where(first <= torch.minimum(second, third), 0, which)[None]
    distance2, t = foot2.gather(0, which)[0], t.gather(0, which)
    cross = edge_x * offset_y - edge_y * offset_x
    area = cross.sum(0)
    solid = area.abs() > 1e-6 * length2.amax(0)
    turned = cross.detach() * torch.where(area >= 0, 1.0, -1.0)
    inside = solid & (turned.amin(0) >= 0)
    apart = distance2 > 0
    distance = torch.where(apart, distance2, 1.0).sqrt() * apart
    distance = torch.where(inside, distance, -distance)
    along = torch.zeros_like(cross).scatter(0, which, 1 - t)
    along = along.scatter(0, (which + 1) % 3, t)
    within = cross.roll(-1, dims=0) / torch.where(solid, area, 1.0)
    return distance, torch.where(inside, within, along).movedim(0, -1)
