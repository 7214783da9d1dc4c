"""The soft rasterizer as a torch module."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from jaxtyping import Float
from torch import Tensor, nn

from taichi_raster import checks
from taichi_raster.aggregation import TConorm
from taichi_raster.autograd import Accumulate
from taichi_raster.depth import HardDepth, SoftmaxDepth
from taichi_raster.engine import engine
from taichi_raster.layout import Call, Variant
from taichi_raster.runtime import runtime
from taichi_raster.schedule import as_progress
from taichi_raster.softness.edge import Distribution, EdgeSoftness

_FAR_AWAY = 1e30  # stands for an infinite distance in the kernels


class SoftRasterizer(nn.Module):
    """Renders triangles softly, so that images have useful derivatives, first and second.

    With a_k = F(d_k / scale) the coverage of face k at a pixel and z_k its depth there,

        alpha  = 1 - prod_k (1 - a_k)                                      (for the default `alpha`)
        colour = (sum_k a_k psi_k c_k + psi_b background) / (sum_k a_k psi_k + psi_b)

    with psi = exp(z_norm / gamma) for `SoftmaxDepth` (Liu et al., ICCV 2019; Wu et al., EGSR 2024).

    Args:
        image_size: pixels, positive: one number, or (height, width).
        edge: the edge softness; by default a logistic of scale 0.05.
        depth: the depth softness: `SoftmaxDepth` or `HardDepth`.
        alpha: how coverages combine: a `TConorm`.
        background: a number, C numbers, or a tensor (0-d or (C,), may require grad).
        near, far: depth range, positive; fragments outside it vanish from colour and alpha, and so
            does a face with a vertex at z <= 0.
        cull_backfaces: drop faces that are clockwise in NDC.
        perspective_correct: interpolate attributes perspective-correctly; depth always is.
        antialias: render this many times larger each way, and average.
        threshold: a fragment counts when F exceeds it; 0 keeps all (slow: every pixel meets every
            face).
        cutoff: and when it is no farther outside than this distance in NDC; None for no limit.

    Raises:
        TypeError, ValueError: for arguments out of range; the message names the argument.

    Example:
        >>> renderer = SoftRasterizer(64, edge=Distribution("logistic", scale=0.02))
        >>> rgba = renderer(face_vertices, face_attributes)  # (B, 64, 64, C + 1)
    """

    def __init__(
        self,
        image_size: int | tuple[int, int] = 64,
        edge: EdgeSoftness | None = None,
        depth: SoftmaxDepth | HardDepth | None = None,
        alpha: TConorm | None = None,
        background: float | Sequence[float] | Tensor = 0.0,
        near: float = 0.1,
        far: float = 100.0,
        cull_backfaces: bool = False,
        perspective_correct: bool = True,
        antialias: int = 1,
        threshold: float = 1e-6,
        cutoff: float | None = None,
    ) -> None:
        super().__init__()
        self.image_size = checks.image_size(image_size)
        self.edge = checks.instance("edge", edge or Distribution("logistic"), EdgeSoftness)
        self.depth = checks.instance("depth", depth or SoftmaxDepth(), SoftmaxDepth, HardDepth)
        self.alpha = checks.instance("alpha", alpha or TConorm(), TConorm)
        self.background = checks.background(background)
        self.near, self.far = checks.depth_range(near, far)
        self.cull_backfaces = cull_backfaces
        self.perspective_correct = perspective_correct
        self.antialias = checks.count("antialias", antialias)
        self.threshold = checks.fraction("threshold", threshold)
        self.cutoff = None if cutoff is None else checks.positive("cutoff", cutoff)

    def forward(
        self,
        face_vertices: Float[Tensor, "B F 3 3"],
        face_attributes: Float[Tensor, "B F 3 C"],
        progress: float | Tensor | None = None,
    ) -> Float[Tensor, "B H W C+1"]:
        """Render a batch.

        Args:
            face_vertices: (B, F, 3, 3): x right and y up in NDC, z the positive distance along the
                view axis, of each face's corners.
            face_attributes: (B, F, 3, C): colours, or anything else, at each face's corners.
            progress: for a softness that depends on it: a number or (B,), in [0, 1]; None is 1.

        Returns:
            (B, H, W, C + 1): attributes composited over the background, then alpha. Row 0 is the
            top.

        Raises:
            TypeError, ValueError: for inputs of another shape, dtype or device, with values that
                are not finite, with nothing in them, or wholly outside [near, far].
        """
        checks.faces(face_vertices, face_attributes, runtime())
        checks.visible(face_vertices, self.near, self.far)
        background = checks.background(self.background, face_attributes.shape[3])
        u = as_progress(progress, len(face_vertices))
        call, x, floor = self._pack(face_vertices, face_attributes, u)
        y, offset, saturated = Accumulate.apply(x, floor.detach(), call, engine().ticket())
        image = self._resolve(y, offset, saturated, floor, background.to(x))
        if self.antialias == 1:
            return image
        pooled = nn.functional.avg_pool2d(image.permute(0, 3, 1, 2), self.antialias)
        return pooled.permute(0, 2, 3, 1)

    def jvp(
        self,
        primals: tuple[Tensor, Tensor],
        tangents: tuple[Tensor | None, Tensor | None],
        progress: float | Tensor | None = None,
    ) -> tuple[Tensor, Tensor]:
        """Forward mode: the image, and its directional derivative along the tangents.

        Args:
            primals: face_vertices and face_attributes, as for `forward`.
            tangents: their directions, of the same shapes; None for zero.
        """
        checks.faces(*primals, runtime())
        for name, primal, tangent in zip(
            ("vertices", "attributes"), primals, tangents, strict=True
        ):
            if tangent is not None and (tangent.shape, tangent.dtype) != (
                primal.shape,
                primal.dtype,
            ):
                raise ValueError(
                    f"tangents: face_{name}'s is {tuple(tangent.shape)} in {tangent.dtype}, "
                    f"expected {tuple(primal.shape)} in {primal.dtype}"
                )
        with torch.autograd.forward_ad.dual_level():
            dual = [
                p if t is None else torch.autograd.forward_ad.make_dual(p.detach(), t)
                for p, t in zip(primals, tangents, strict=True)
            ]
            image = torch.autograd.forward_ad.unpack_dual(self(*dual, progress=progress))
            tangent = image.tangent
            return image.primal, torch.zeros_like(image.primal) if tangent is None else tangent

    def _pack(self, vertices: Tensor, attributes: Tensor, u: Tensor) -> tuple[Call, Tensor, Tensor]:
        """The call, its inputs in one flat vector, and the background's log-weights (B,)."""
        batch, n_faces, _, channels = attributes.shape
        state = self.edge.at(u, self.threshold)
        scale = _per_item("edge.scale", state.scale, vertices)
        gamma, floor = torch.ones_like(scale), torch.zeros_like(scale)
        if (depth := self.depth.at(u)) is not None:
            gamma = _per_item("depth.gamma", depth[0], vertices)
            floor = depth[1].to(vertices).expand(batch) / gamma
        weights = scale.new_empty(batch, 0)
        if state.weights is not None:
            expected = self.edge.network.size if self.edge.network else 0
            checks.weights("edge.weights", state.weights, batch, expected)
            weights = state.weights.to(vertices).expand(batch, -1)
        parts = [vertices, attributes, weights, scale, gamma]
        # A render without derivatives shares the kernels of one with respect to vertices.
        moves = [p.requires_grad for p in parts]
        variant = Variant(
            self.edge.distribution, self.edge.network, self.alpha.generator.name, self.depth.mode,
            channels, self.perspective_correct, self.cull_backfaces,
            (moves[0] or not any(moves), moves[1], any(moves[2:])),
        )  # fmt: skip
        cutoff = _FAR_AWAY if self.cutoff is None else self.cutoff
        reach = state.reach * float(scale.detach().max())
        height, width = (side * self.antialias for side in self.image_size)
        call = Call(
            variant, batch, n_faces, height, width,
            tuple(p.numel() for p in parts),  # type: ignore[arg-type]
            self.near, self.far, self.threshold, cutoff, min(reach, cutoff, _FAR_AWAY),
            runtime().deterministic,
        )  # fmt: skip
        return call, torch.cat([p.reshape(-1) for p in parts]), floor

    def _resolve(
        self, y: Tensor, offset: Tensor, saturated: Tensor, floor: Tensor, background: Tensor
    ) -> Tensor:
        """The image from the per-pixel sums."""
        alpha = self.alpha.resolve(y[..., 0], saturated > 0)
        weight, colour = y[..., 1:2], y[..., 2:]
        if isinstance(self.depth, HardDepth):
            colour = colour + (1 - weight) * background
        else:
            rest = torch.exp(floor[:, None, None] - offset)[..., None]
            colour = (colour + rest * background) / (weight + rest)
        return torch.cat([colour, alpha[..., None]], dim=-1)


def _per_item(name: str, value: Tensor, like: Tensor) -> Tensor:
    """`value` as (B,) in the dtype and on the device of `like`, checked to be positive."""
    batch = len(like)
    if value.shape not in ((), (1,), (batch,)):
        raise ValueError(f"{name}: expected a scalar or shape ({batch},), got {tuple(value.shape)}")
    item = value.to(like).expand(batch)
    detached = item.detach()
    if not bool((torch.isfinite(detached) & (detached > 0)).all()):
        raise ValueError(f"{name}: expected positive finite values, got {value.tolist()}")
    return item
