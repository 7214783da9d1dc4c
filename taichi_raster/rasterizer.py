"""The soft rasterizer as a torch module."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace

import torch
from jaxtyping import Float
from torch import Tensor, nn

from taichi_raster import checks, per_item, streams
from taichi_raster.aggregation import TConorm
from taichi_raster.attributes import Appearance, SurfaceTexture, UVTexture, appearance
from taichi_raster.autograd import Evaluate, PixelSums
from taichi_raster.depth import DepthSoftness, DepthState, HardDepth, OverDepth, SoftmaxDepth
from taichi_raster.engine import Sums, engine
from taichi_raster.extremes import Extremes
from taichi_raster.layout import Call, DepthVariant, Hides, Part, Slot, State, Variant
from taichi_raster.measures import PairMeasures
from taichi_raster.over import mean_colours
from taichi_raster.runtime import runtime
from taichi_raster.schedule import as_progress
from taichi_raster.softness import registry
from taichi_raster.softness.edge import Distribution, EdgeSoftness, EdgeState

_FAR_AWAY = 1e30  # stands for an infinite distance in the kernels


class SoftRasterizer(nn.Module):
    """Renders triangles softly, so that images have useful derivatives, first and second.

    With a_k = F(d_k / scale) the coverage of face k at a pixel and z_k its depth there,

        alpha  = 1 - prod_k (1 - a_k)                                      (for the default `alpha`)
        colour = (sum_k a_k psi_k c_k + psi_b background) / (sum_k a_k psi_k + psi_b)

    with psi = exp(z_norm / gamma) for `SoftmaxDepth` (Liu et al., ICCV 2019; Wu et al., EGSR 2024).
    For `OverDepth`, psi_k is what the fragments in front of k let through, and alpha times the mean
    of the c_k is laid over the background.

    Args:
        image_size: pixels, positive: one number, or (height, width).
        edge: the edge softness; by default a logistic of scale 0.05.
        depth: the depth softness: `SoftmaxDepth`, `HardDepth`, `DistributionDepth`, `MLPDepth`,
            `OverDepth`.
        alpha: how coverages combine: a `TConorm`.
        background: a number, C numbers, or a tensor (0-d, (C,), or an image (H, W, C) or
            (B, H, W, C); may require grad).
        near, far: depth range, positive; fragments outside it vanish from colour and alpha, and so
            does a face with a vertex at z <= 0.
        cull_backfaces: drop faces that show their back.
        perspective_correct: interpolate attributes perspective-correctly; depth always is.
        antialias: render this many times larger each way, and average.
        threshold: a fragment counts when F exceeds it; 0 keeps all (slow: every pixel meets every
            face). An `OverDepth` also leaves out what is behind less than that of light.
        cutoff: and when it is no farther outside than this distance in NDC; None for no limit.
        front: which faces show their front: ``"ccw"``, counter-clockwise in NDC, or ``"cw"``.
        barycentrics: of a pixel outside a triangle: ``"nearest"``, those of the triangle's nearest
            point, or ``"clipped"``, its own clipped to [0, 1] and renormalised (as published).
        unclipped_alpha: what near, far and culling take from colour stays in alpha (as published).
        orthographic: the faces come from an `OrthographicCamera`: depth and attributes are linear
            in the image.

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
        depth: DepthSoftness | None = None,
        alpha: TConorm | None = None,
        background: float | Sequence[float] | Tensor = 0.0,
        near: float = 0.1,
        far: float = 100.0,
        cull_backfaces: bool = False,
        perspective_correct: bool = True,
        antialias: int = 1,
        threshold: float = 1e-6,
        cutoff: float | None = None,
        front: str = "ccw",
        barycentrics: str = "nearest",
        unclipped_alpha: bool = False,
        orthographic: bool = False,
    ) -> None:
        super().__init__()
        self.image_size = checks.image_size(image_size)
        self.edge = checks.instance("edge", edge or Distribution("logistic"), EdgeSoftness)
        self.depth = checks.instance("depth", depth or SoftmaxDepth(), DepthSoftness)
        self.alpha = checks.instance("alpha", alpha or TConorm(), TConorm)
        self.background = checks.background(background)
        self.near, self.far = checks.depth_range(near, far)
        self.cull_backfaces = checks.flag("cull_backfaces", cull_backfaces)
        self.perspective_correct = checks.flag("perspective_correct", perspective_correct)
        self.front = checks.choice("front", front, "ccw", "cw")
        self.barycentrics = checks.choice("barycentrics", barycentrics, "nearest", "clipped")
        self.unclipped_alpha = checks.flag("unclipped_alpha", unclipped_alpha)
        self._check_over()
        self.orthographic = checks.flag("orthographic", orthographic)
        self.antialias = checks.count("antialias", antialias)
        self.threshold = checks.fraction("threshold", threshold)
        self.cutoff = None if cutoff is None else checks.positive("cutoff", cutoff)

    def forward(
        self,
        face_vertices: Float[Tensor, "B F 3 3"],
        face_attributes: Float[Tensor, "B F 3 C"] | SurfaceTexture | UVTexture | None,
        progress: float | Tensor | None = None,
        views: int = 1,
    ) -> Float[Tensor, "B H W C+1"]:
        """Render a batch.

        Args:
            face_vertices: (B, F, 3, 3): x right and y up in NDC, z the positive distance along the
                view axis, of each face's corners.
            face_attributes: colours, or anything else: (B, F, 3, C) at each face's corners, or a
                texture; None for alpha alone.
            progress: for a softness that depends on it: a number or (B,), in [0, 1]; None is 1.
            views: so many neighbouring batch items are views of one scene and share a softness:
                progress and every per-item parameter then have one entry for each scene,
                (B / views,), and item b uses entry b // views.

        Returns:
            (B, H, W, C + 1): attributes composited over the background, then alpha. Row 0 is the
            top.

        Raises:
            TypeError, ValueError: for inputs of another shape, dtype or device, with values that
                are not finite, with nothing in them, or wholly outside [near, far].
            MemoryError: for more than this machine or Taichi can hold; the message says how much.
        """
        later = Extremes()
        checks.vertices(face_vertices, runtime(), later)
        checks.appearance(face_attributes, face_vertices, runtime(), later)
        if not self.unclipped_alpha:
            checks.visible(face_vertices, self.near, self.far, later)
        later.fetch()
        shown = appearance(face_attributes, face_vertices, runtime().deterministic)
        size = (len(face_vertices), *self.image_size)
        background = checks.background(self.background, shown.total or None, size)
        u = as_progress(progress, checks.scenes(size[0], views))
        image = self._render(face_vertices, face_attributes, shown, u, background, views)
        if self.antialias == 1:
            return image
        pooled = nn.functional.avg_pool2d(image.permute(0, 3, 1, 2), self.antialias)
        return pooled.permute(0, 2, 3, 1)

    def silhouette(
        self,
        face_vertices: Float[Tensor, "B F 3 3"],
        progress: float | Tensor | None = None,
        views: int = 1,
    ) -> Float[Tensor, "B H W"]:
        """Alpha alone, which is cheaper than colour; arguments and errors are `forward`'s."""
        return self(face_vertices, None, progress, views)[..., 0]

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
        checks.vertices(primals[0], runtime())
        checks.instance("face_attributes", primals[1], Tensor)
        checks.appearance(primals[1], primals[0], runtime())
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

    def _render(
        self,
        vertices: Tensor,
        attributes: Tensor | SurfaceTexture | UVTexture | None,
        shown: Appearance,
        u: Tensor,
        background: Tensor,
        views: int,
    ) -> Tensor:
        """The image at full size, before antialiasing averages it."""
        batch = len(vertices)
        in_order = isinstance(self.depth, OverDepth) and attributes is not None
        coloured = shown
        if in_order:  # alpha alone at first
            self._check_over()  # again: the parts of a renderer may be replaced
            shown = appearance(None, vertices, runtime().deterministic)
        edge, depth = self.edge.at(u, self.threshold), self.depth.at(u)
        p = self.alpha.at(u)
        if views > 1:
            scenes = batch // views
            edge, depth = (per_item.for_views(state, scenes, views) for state in (edge, depth))
            p = per_item.repeated("alpha.p", p, 0, scenes, views)
        call, x, table = self._pack(vertices, shown, edge, depth, p)
        checks.fits_batch("depth.background_z", depth.background_z, batch)
        if isinstance(self.depth, SoftmaxDepth):
            floor = per_item.on(depth.background_z, vertices).expand(batch)
        else:
            floor = per_item.on(self.depth.background(depth, batch), vertices)
        work = PixelSums(call, engine().ticket(), floor.detach())
        sums = Sums(*Evaluate.apply(x, work))
        total, weight, colours = sums.y.split([1, 1, shown.total])
        alpha = self._resolve(total[0], sums.state, table[:, Slot.P])
        if in_order:
            colour = self._over(vertices, coloured, edge, depth, p, work, x)
            behind = self._behind(background, alpha)
            image = alpha[..., None] * colour
            if behind is not None:
                image = image + (1 - alpha[..., None]) * behind.movedim(0, -1)
            return torch.cat([image, alpha[..., None]], dim=-1)
        if shown.total == 0:
            return alpha[..., None]
        gamma = per_item.on(depth.gamma, vertices).expand(batch)[:, None, None]
        behind = self._behind(background, alpha)
        colour = self._colour(weight, colours, sums.state, gamma, floor[:, None, None], behind)
        return torch.cat([colour.movedim(0, -1), alpha[..., None]], dim=-1)

    def _check_over(self) -> None:
        """`OverDepth` lays its colours over the background by alpha, so both see the same faces."""
        if not isinstance(self.depth, OverDepth):
            return
        if self.barycentrics == "clipped":
            raise ValueError("barycentrics: 'clipped' is not for OverDepth, which knows 'nearest'")
        if self.unclipped_alpha:
            raise ValueError("unclipped_alpha: not for OverDepth, whose colours go by alpha")

    def _over(
        self, vertices: Tensor, shown: Appearance, edge: EdgeState, depth: DepthState, p: Tensor,
        sums: PixelSums, x: Tensor,
    ) -> Tensor:  # fmt: skip
        """The mean colour of each pixel's fragments, (B, H, W, C); alpha is of `sums` at `x`."""
        assert isinstance(self.depth, OverDepth)
        # In a soft order, what is behind may be in front.
        hides = Hides.PRODUCT if self.depth.gamma is None else Hides.NOTHING
        with streams.ordered(x) as order:
            listing = engine().listing(sums.call, sums.ticket, x.detach(), sums.background, hides)
            order.outputs(listing.entries, listing.begin, listing.slots)
        call, packed, _ = self._pack(vertices, shown, edge, depth, p)
        # The T-conorm is of no account: so all share the kernels.
        call = replace(call, variant=replace(call.variant, conorm="probabilistic"))
        measured, _ = Evaluate.apply(packed, PairMeasures(call, listing))
        gamma = None
        if self.depth.gamma is not None:
            gamma = per_item.on(depth.gamma, vertices).expand(len(vertices))
            gamma = gamma * (self.far - self.near)
            gamma = gamma.repeat_interleave(call.height * call.width)
        colours = mean_colours(measured, listing.slots, listing.depth, call.pixels, gamma)
        return colours.unflatten(1, (call.batch, call.height, call.width)).movedim(0, -1)

    def _resolve(self, total: Tensor, state: Tensor, p: Tensor) -> Tensor:
        """Alpha from the T-conorm's sum."""
        generator, peak = self.alpha.generator, state[State.PEAK]
        saturates = registry.find(self.edge.variant.distribution).saturates_at < math.inf
        if saturates and not generator.largest_alone:
            return self.alpha.resolve(total, peak, state[State.SATURATED] > 0, p)
        return generator.inverse(total, peak, p[:, None, None])

    def _behind(self, background: Tensor, like: Tensor) -> Tensor | None:
        """The background at full size, channels first; None where it is still and zero."""
        if background.ndim == 0 and not per_item.moves(background) and float(background) == 0:
            return None
        if background.ndim >= 3:
            for axis in (-3, -2):
                background = background.repeat_interleave(self.antialias, dim=axis)
        background = per_item.on(background, like)
        lead = background.reshape((1,) * (4 - background.ndim) + background.shape)
        return lead.movedim(-1, 0)

    def _colour(
        self, weight: Tensor, colours: Tensor, state: Tensor, gamma: Tensor, floor: Tensor,
        background: Tensor | None,
    ) -> Tensor:  # fmt: skip
        """The composited attributes, channels first, from the per-pixel sums."""
        if isinstance(self.depth, HardDepth):
            return colours if background is None else colours + (1 - weight) * background
        if isinstance(self.depth, SoftmaxDepth):
            floor = (floor - state[State.REFERENCE]) / gamma
        rest = torch.exp(floor - state[State.OFFSET])
        if background is not None:
            colours = colours + rest * background
        return colours * (weight + rest).reciprocal()

    def _pack(
        self, vertices: Tensor, shown: Appearance, edge: EdgeState, depth: DepthState, p: Tensor
    ) -> tuple[Call, Tensor, Tensor]:
        """The call, its inputs in one flat vector, and the parameters among these, (B, n)."""
        batch, n_faces = vertices.shape[:2]
        table = per_item.table(
            {
                "edge.scale": edge.scale, "edge.shape": edge.shape, "edge.shift": edge.shift,
                "alpha.p": p, "depth.gamma": depth.gamma, "depth.shape": depth.shape,
                "depth.shift": depth.shift,
            },
            vertices,
        )  # fmt: skip
        edge_weights, depth_weights = (
            per_item.weights(f"{name}.weights", state.weights, softness.variant, vertices)
            for name, state, softness in (("edge", edge, self.edge), ("depth", depth, self.depth))
        )
        parts = [
            vertices, shown.corners, shown.uv, shown.texels, edge_weights, depth_weights, table,
        ]  # fmt: skip
        height, width = (side * self.antialias for side in self.image_size)
        cutoff = _FAR_AWAY if self.cutoff is None else self.cutoff
        call = Call(
            self._variant(shown, [*map(per_item.moves, parts)]), batch, n_faces, height, width,
            tuple(part.numel() for part in parts), self.near, self.far, self.threshold, cutoff,
            min(edge.reach, cutoff, _FAR_AWAY), runtime().deterministic,
            (*shown.size, shown.stride),
        )  # fmt: skip
        flat = [part.reshape(-1) for part in parts if part.numel() > 0]
        return call, torch.cat(flat), table

    def _variant(self, shown: Appearance, moves: list[bool]) -> Variant:
        depth = self.depth.variant if shown.total else DepthVariant("none")
        appearance_moves = any(moves[Part.CORNERS : Part.TEXELS + 1])
        # A render without derivatives shares the kernels of one with respect to vertices.
        vertices_move = moves[Part.VERTICES] or not any(moves)
        return Variant(
            self.edge.variant, depth, self.alpha.generator.name, shown.corners.shape[3],
            shown.texture, shown.channels, self.perspective_correct, self.cull_backfaces,
            self.front == "cw", self.barycentrics == "clipped", self.unclipped_alpha,
            self.orthographic,
            (vertices_move, appearance_moves, any(moves[Part.EDGE_WEIGHTS :])),
        )  # fmt: skip
