"""The soft rasterizer, a torch module."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace

import torch
from jaxtyping import Float
from torch import Tensor, nn

from taichi_raster import checks
from taichi_raster.depth.base import DepthSoftness, DepthState, PixelColours, WeightedDepth
from taichi_raster.depth.over import (
    EARLY_STOP,
    OverDepth,
    PixelFragments,
    mean,
    weighted_sums,
)
from taichi_raster.engine.autodiff import by_autodiff
from taichi_raster.engine.autograd import Evaluate
from taichi_raster.engine.composite import Composite
from taichi_raster.engine.engine import engine
from taichi_raster.engine.fragment_lists import fragment_list
from taichi_raster.engine.fragment_values import FragmentValues
from taichi_raster.engine.pixel_sums import PixelSums, Sums
from taichi_raster.engine.soft_order import sums_in_soft_order
from taichi_raster.render import channels, mixing, settled
from taichi_raster.render.packing import Softness, View, for_alpha, pack, without_attributes
from taichi_raster.render.sharp import SharpRasterizer
from taichi_raster.runtime import transforms
from taichi_raster.runtime.device import runtime
from taichi_raster.runtime.extremes import Extremes
from taichi_raster.runtime.layout import EarlyStop, Slot, State
from taichi_raster.scene.attributes import (
    Appearance,
    SurfaceTexture,
    UVTexture,
    appearance,
    check_attributes,
)
from taichi_raster.softness import parameters
from taichi_raster.softness.conorm import TConorm
from taichi_raster.softness.distributions import registry
from taichi_raster.softness.edge import Distribution, EdgeSoftness, EdgeState
from taichi_raster.softness.schedule import as_progress, register_tensor


class SoftRasterizer(nn.Module):
    """Renders triangles softly, so that images have useful first and second derivatives.

    With a_k = F(d_k / scale) the coverage of face k at a pixel and z_k its depth there,

        alpha  = 1 - prod_k (1 - a_k)                                      (for the default `alpha`)
        colour = alpha (sum_k w_k c_k) / (sum_k w_k) + (1 - alpha) background

    with w_k what face k adds to the coverage of those in front of it, for the default `OverDepth`.
    There, faces cover the sum of the two largest coverages, and at most 1: of those that show their
    front, or of those that show their back. For `SoftmaxDepth`
    (Liu et al., ICCV 2019; Wu et al., EGSR 2024), psi = exp(z_norm / gamma), and

        colour = (sum_k a_k psi_k c_k + psi_b background) / (sum_k a_k psi_k + psi_b)

    Args:
        image_size: pixels, positive: one number, or (height, width).
        edge: the edge softness; by default a logistic of scale 0.05.
        depth: the depth softness: `OverDepth` (the default, in a hard order), `SoftmaxDepth`,
            `HardDepth`, `DistributionDepth`, `MLPDepth`.
        alpha: how coverages combine: a `TConorm`.
        background: a number, C numbers, or a tensor: 0-d, (C,), or an image (H, W, C) or
            (B, H, W, C). A tensor may require grad.
        near, far: depth range, positive. Fragments outside it, and faces with a vertex at z <= 0,
            are dropped from colour and alpha.
        cull_backfaces: drop faces that show their back.
        perspective_correct: interpolate attributes perspective-correctly; depth always is.
        antialias: supersampling: render this many times larger each way, and average. Where the
            softness is narrower than a pixel, 2 makes gradients of colours much more accurate.
        threshold: a fragment counts if F exceeds it, in [0, 1). With 0 every pixel meets every
            face, which is slow.
        cutoff: a fragment counts if it is no farther outside than this distance in NDC; None for
            no limit.
        front: which faces show their front: ``"ccw"``, counter-clockwise in NDC, or ``"cw"``.
        barycentrics: for a pixel outside a triangle: those of the triangle's nearest point
            (``"nearest"``), or its own, clipped to [0, 1] and renormalised (``"clipped"``, as
            published).
        unclipped_alpha: keep in alpha what near, far and culling drop from colour (as published).
        orthographic: the faces come from an `OrthographicCamera`: depth and attributes are linear
            in the image.
        sharp_from: the progress, in [0, 1), from which pictures are those of a `SharpRasterizer`;
            None for never. Where things overlap their target, exact gradients lead closer to it
            than soft ones, and cost less. They are of first order and in reverse mode alone.

    Raises:
        TypeError, ValueError: for arguments out of range; the message names the argument.

    Example:
        >>> renderer = SoftRasterizer(64, edge=Distribution("logistic", scale=0.02))
        >>> rgba = renderer(face_vertices, face_attributes)  # (B, 64, 64, C + 1)
    """

    background: Tensor

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
        sharp_from: float | None = None,
    ) -> None:
        super().__init__()
        self.image_size = checks.image_size(image_size)
        edge = Distribution("logistic") if edge is None else edge
        depth = OverDepth() if depth is None else depth
        alpha = TConorm() if alpha is None else alpha
        self.edge = checks.instance("edge", edge, EdgeSoftness)
        self.depth = checks.instance("depth", depth, DepthSoftness)
        self.alpha = checks.instance("alpha", alpha, TConorm)
        register_tensor(self, "background", checks.background(background))
        self.near, self.far = checks.depth_range(near, far)
        self.cull_backfaces = checks.flag("cull_backfaces", cull_backfaces)
        self.perspective_correct = checks.flag("perspective_correct", perspective_correct)
        self.front = checks.choice("front", front, "ccw", "cw")
        self.barycentrics = checks.choice("barycentrics", barycentrics, "nearest", "clipped")
        self.unclipped_alpha = checks.flag("unclipped_alpha", unclipped_alpha)
        self._check_fragments()
        self.orthographic = checks.flag("orthographic", orthographic)
        self.antialias = checks.count("antialias", antialias)
        self.threshold = checks.fraction("threshold", threshold)
        self.cutoff = None if cutoff is None else checks.positive("cutoff", cutoff)
        self.sharp_from = None if sharp_from is None else checks.fraction("sharp_from", sharp_from)
        if self.sharp_from is not None:
            self._sharp()  # refuses what sharp pictures do not know

    def forward(
        self,
        face_vertices: Float[Tensor, "B F 3 3"],
        face_attributes: Float[Tensor, "B F 3 C"] | SurfaceTexture | UVTexture | None,
        progress: float | Tensor | None = None,
        views: int = 1,
    ) -> Float[Tensor, "B H W C+1"]:
        """Render a batch.

        Args:
            face_vertices: (B, F, 3, 3), each face's corners: x right and y up in NDC, z the
                positive distance along the view axis.
            face_attributes: colours or other values: (B, F, 3, C) at each face's corners, or a
                texture; None for alpha only.
            progress: for softnesses that depend on it: a number or (B,), in [0, 1]; None is 1.
            views: how many neighbouring batch items are views of one scene, and share its
                softness. Progress and per-item parameters then have one entry per scene,
                (B / views,): item b uses entry b // views.

        Returns:
            (B, H, W, C + 1): attributes composited over the background, then alpha. Row 0 is the
            top.

        Raises:
            TypeError, ValueError: for inputs of a wrong shape, dtype or device, that hold a value
                that is not finite, that are empty, or that lie wholly outside [near, far].
            MemoryError: if the machine or Taichi cannot hold the call; the message says how much
                it takes.
        """
        if self.sharp_from is None:
            return self._softly(face_vertices, face_attributes, progress, views)
        if not isinstance(progress, Tensor):
            u = as_progress(progress, 1)
            draw = self._sharp() if float(u) >= self.sharp_from else self._softly
            return draw(face_vertices, face_attributes, progress, views)
        checks.vertices(face_vertices, runtime(), Extremes())
        late = as_progress(progress, checks.scenes(len(face_vertices), views)) >= self.sharp_from
        if not bool(late.any()):
            return self._softly(face_vertices, face_attributes, progress, views)
        sharp = self._sharp()(face_vertices, face_attributes)
        if bool(late.all()):
            return sharp
        late = late.repeat_interleave(views).to(sharp.device)
        soft = self._softly(face_vertices, face_attributes, progress, views)
        return torch.where(late[:, None, None, None], sharp, soft)

    def _softly(
        self,
        face_vertices: Tensor,
        face_attributes: Tensor | SurfaceTexture | UVTexture | None,
        progress: float | Tensor | None,
        views: int,
    ) -> Tensor:
        later, settings = Extremes(), runtime()
        checks.vertices(face_vertices, settings, later)
        check_attributes(face_attributes, face_vertices, settings, later)
        if not self.unclipped_alpha:
            checks.visible(face_vertices, self.near, self.far, later)
        later.fetch()
        shown = appearance(face_attributes, face_vertices, settings.deterministic)
        size = (len(face_vertices), *self.image_size)
        background = checks.background(self.background, shown.total or None, size)
        scenes = checks.scenes(size[0], views)
        u = None if progress is None else as_progress(progress, scenes)
        if face_attributes is None or shown.total <= channels.MOST:
            image = self._render(face_vertices, face_attributes, shown, u, background, views)
        else:
            images, first = [], 0
            for part in channels.parts(face_attributes):
                shown = appearance(part, face_vertices, settings.deterministic)
                behind = channels.of_background(background, first, shown.total)
                images.append(self._render(face_vertices, part, shown, u, behind, views))
                first += shown.total
            image = channels.joined(images)
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
        """Render alpha only, (B, H, W), which is cheaper than colour.

        Arguments and errors are those of `forward`.
        """
        return self(face_vertices, None, progress, views)[..., 0]

    def jvp(
        self,
        primals: tuple[Tensor, Tensor],
        tangents: tuple[Tensor | None, Tensor | None],
        progress: float | Tensor | None = None,
        views: int = 1,
    ) -> tuple[Tensor, Tensor]:
        """Render in forward mode: the image, and its derivative along the tangents.

        Args:
            primals: face_vertices and face_attributes, as for `forward`.
            tangents: tangents of the primals, of the same shapes and dtypes; None for zero.
            progress, views: as for `forward`.

        Returns:
            The image and its tangent, both (B, H, W, C + 1).

        Raises:
            TypeError, ValueError, MemoryError: as `forward`, and for tangents of another shape or
                dtype.
        """
        checks.vertices(primals[0], runtime())
        checks.instance("face_attributes", primals[1], Tensor)
        check_attributes(primals[1], primals[0], runtime())
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
        # Inference mode would drop the tangents.
        with torch.inference_mode(False), torch.autograd.forward_ad.dual_level():
            dual = [
                p if t is None else torch.autograd.forward_ad.make_dual(_ordinary(p), _ordinary(t))
                for p, t in zip(primals, tangents, strict=True)
            ]
            image = torch.autograd.forward_ad.unpack_dual(
                self(*dual, progress=progress, views=views)
            )
            tangent = image.tangent
            return image.primal, torch.zeros_like(image.primal) if tangent is None else tangent

    def _sharp(self) -> SharpRasterizer:
        if self.barycentrics == "clipped" or self.unclipped_alpha:
            raise ValueError(
                "sharp_from: not for barycentrics='clipped' nor for unclipped_alpha, which sharp "
                "pictures do not know"
            )
        return SharpRasterizer(
            self.image_size,
            self.background,
            self.near,
            self.far,
            self.cull_backfaces,
            self.perspective_correct,
            self.front,
            self.orthographic,
        )

    def _render(
        self,
        vertices: Tensor,
        attributes: Tensor | SurfaceTexture | UVTexture | None,
        shown: Appearance,
        u: Tensor | None,
        background: Tensor,
        views: int,
    ) -> Tensor:
        """The image at full size, before the average of antialiasing."""
        batch = len(vertices)
        self._check_fragments()  # again: a renderer's parts may have been replaced
        depth, softness = self._softness(vertices, u, views)
        by_fragments = self.depth.by_fragments and attributes is not None
        if by_fragments and self._by_tiles():
            return self._by_composite(vertices, shown, softness, depth, background)
        if by_fragments or shown.total == 0:  # alpha only; colours follow
            summed, sums_shown = softness.of_alpha(), without_attributes(vertices)
        else:
            summed, sums_shown = softness, shown
        call, x, texels = pack(vertices, sums_shown, self._view(), summed)
        checks.fits_batch("depth.background_z", depth.background_z, batch)
        floor = parameters.to_like(self.depth.background(depth, batch), vertices)
        self._refuse_mapped(x, depth, floor, by_fragments)
        work = PixelSums(call, engine().ticket(), floor.detach(), by_autodiff())
        sums = Sums(*Evaluate.apply(x, texels, work))
        behind = None if attributes is None else self._behind(background, vertices)
        if (
            attributes is not None
            and behind is None
            and isinstance(self.depth, WeightedDepth)
            and type(self.depth).compose is WeightedDepth.compose
            and self._is_usual(floor, depth.gamma)
        ):
            offset, reference = sums.state[State.OFFSET], sums.state[State.REFERENCE]
            rest = self.depth.rest(offset, reference, depth, floor)
            return mixing.by_softmax(sums.y, rest, self._full(sums.state))
        total, weight, colours = sums.y.split([1, 1, sums_shown.total])
        alpha = self._resolve(total[0], sums.state, softness.parameters[:, Slot.P])
        if attributes is None:
            return alpha[..., None]
        if by_fragments:
            colour = alpha * self._of_fragments(vertices, shown, softness, depth, work, x)
            colour = _over(colour, alpha, behind)
        else:
            found = PixelColours(
                weight, colours, sums.state[State.OFFSET], sums.state[State.REFERENCE]
            )
            colour = self.depth.compose(found, depth, floor, behind)
        return torch.cat([colour.movedim(0, -1), alpha[..., None]], dim=-1)

    def _by_composite(
        self,
        vertices: Tensor,
        shown: Appearance,
        softness: Softness,
        depth: DepthState,
        background: Tensor,
    ) -> Tensor:
        """`_render` where fragments are composed tile by tile: alpha and colours in one call."""
        view = self._view()
        # The composition does not use the T-conorm: all T-conorms share its kernels.
        alike = softness.but_conorm("probabilistic")
        call, x, texels = pack(vertices, shown, view, alike)
        of_alpha, moves = for_alpha(call, vertices, view, softness)
        checks.fits_batch("depth.background_z", depth.background_z, call.batch)
        floor = parameters.to_like(self.depth.background(depth, call.batch), vertices)
        self._refuse_mapped(x, depth, floor, by_fragments=False)
        sums = PixelSums(of_alpha, engine().ticket(), floor.detach(), by_autodiff())
        assert isinstance(self.depth, OverDepth)
        union = self.depth.union
        y, state = Evaluate.apply(x, texels, Composite(call, sums, union, moves))
        behind = self._behind(background, vertices)
        if behind is None and self._is_usual():
            return mixing.in_order(y, self._full(state))
        total, _, colours = y.split([1, 1, 1 + shown.total])
        alpha = self._resolve(total[0], state, softness.parameters[:, Slot.P])
        colour = _over(alpha * mean(colours), alpha, behind)
        return torch.cat([colour.movedim(0, -1), alpha[..., None]], dim=-1)

    def _softness(
        self, vertices: Tensor, u: Tensor | None, views: int
    ) -> tuple[DepthState, Softness]:
        """The softness at progress `u`, with one entry for each batch item."""
        limits = self.threshold, self.cutoff
        key = settled.key_of(self.edge, self.depth, self.alpha, vertices, limits)
        found = settled.look_up(key)
        if found is not None:
            return found
        scenes = len(vertices) // views
        edge, depth, p = self._at(as_progress(None, scenes) if u is None else u, scenes, views)
        softness = Softness.of(
            vertices,
            (self.edge.variant, edge),
            (self.depth.variant, depth),
            (self.alpha.generator.name, p),
            *limits,
        )
        if isinstance(self.depth, OverDepth):
            softness = replace(softness, hidden=self.depth.hidden)
        settled.keep(key, depth, softness)
        return depth, softness

    def _at(self, u: Tensor, scenes: int, views: int) -> tuple[EdgeState, DepthState, Tensor]:
        """Edge, depth and the T-conorm's p at progress `u`, with one entry for each batch item."""
        edge, depth, p = self.edge.at(u, self.threshold), self.depth.at(u), self.alpha.at(u)
        if views > 1:
            edge, depth = (parameters.for_views(state, scenes, views) for state in (edge, depth))
            p = parameters.repeated("alpha.p", p, 0, scenes, views)
        return edge, depth, p

    def _view(self) -> View:
        height, width = (side * self.antialias for side in self.image_size)
        return View(
            height,
            width,
            self.near,
            self.far,
            self.cull_backfaces,
            self.front,
            self.orthographic,
            self.perspective_correct,
            self.barycentrics,
            self.unclipped_alpha,
        )

    def _check_fragments(self) -> None:
        """Refuse options under which alpha and colours of fragments would see different faces."""
        if not self.depth.by_fragments:
            return
        name = type(self.depth).__name__
        if self.barycentrics == "clipped":
            raise ValueError(
                f"barycentrics: 'clipped' is not for {name}, which knows 'nearest'; take another "
                "depth, such as SoftmaxDepth()"
            )
        if self.unclipped_alpha:
            raise ValueError(
                f"unclipped_alpha: not for {name}, whose colours go by alpha; take another depth, "
                "such as SoftmaxDepth()"
            )

    def _refuse_mapped(
        self, x: Tensor, depth: DepthState, floor: Tensor, by_fragments: bool
    ) -> None:
        """Refuse `torch.vmap` where it is not available."""
        listed = by_fragments and not self._by_tiles()
        if listed and (transforms.is_vmapped(x) or transforms.is_vmapped(depth.gamma)):
            raise NotImplementedError(
                f"torch.vmap over the scene is not available for {type(self.depth).__name__} in a "
                "soft order, nor on a GPU: put the mapped axis into the batch"
            )
        if transforms.is_vmapped(floor):
            raise NotImplementedError(
                "torch.vmap over the background's depth or weight is not available: put the "
                "mapped axis into the batch (background_z of shape (B,))"
            )

    def _by_tiles(self) -> bool:
        """Whether fragments are composed tile by tile, without a list of them."""
        hard = isinstance(self.depth, OverDepth) and self.depth.gamma is None
        return hard and not engine().on_gpu and not by_autodiff()

    def _of_fragments(
        self,
        vertices: Tensor,
        shown: Appearance,
        softness: Softness,
        state: DepthState,
        sums: PixelSums,
        x: Tensor,
    ) -> Tensor:
        """The mean colour of each pixel's fragments, (C, B, H, W)."""
        depth = self.depth
        assert isinstance(depth, OverDepth)
        # These kernels do not use the T-conorm: all T-conorms share them.
        call, packed, texels = pack(
            vertices, shown, self._view(), softness.but_conorm("probabilistic")
        )
        # In a soft order no fragment is surely hidden.
        stop = EARLY_STOP[depth.union] if depth.gamma is None else EarlyStop.NEVER
        listing = fragment_list(sums, x.detach(), stop)
        measured, _ = Evaluate.apply(
            packed, texels, FragmentValues(call, listing.entries, listing.begin, by_autodiff())
        )
        fragments = PixelFragments(measured, listing.slots, listing.depth, call.pixels)
        if depth.gamma is None:
            fronts = listing.fronts(packed, call.variant.clockwise)
            colours = mean(weighted_sums(replace(fragments, fronts=fronts), depth.union))
        else:
            gamma = parameters.to_like(state.gamma, vertices).expand(len(vertices))
            gamma = gamma * (self.far - self.near)  # from units of the depth range to those of z
            gamma = gamma.repeat_interleave(call.height * call.width)
            colours = mean(sums_in_soft_order(fragments, gamma))
        return colours.unflatten(1, (call.batch, call.height, call.width))

    def _resolve(self, total: Tensor, state: Tensor, p: Tensor) -> Tensor:
        """Alpha (B, H, W) from the T-conorm's sum."""
        generator, peak, full = self.alpha.generator, state[State.PEAK], self._full(state)
        if full is not None:
            return self.alpha.resolve(total, peak, full, p)
        return generator.inverse(total, peak, p[:, None, None])

    def _full(self, state: Tensor) -> Tensor | None:
        """Where a coverage is exactly 1, and so is alpha; None if it never is."""
        saturates = registry.find(self.edge.variant.distribution).saturates_at < math.inf
        counted = saturates and not self.alpha.generator.largest_alone
        return state[State.SATURATED] > 0 if counted else None

    def _is_usual(self, *constants: Tensor) -> bool:
        """Whether alpha and colours are mixed as in `mixing`; `constants` are what else is."""
        return self.alpha.name == "probabilistic" and mixing.known(*constants)

    def _behind(self, background: Tensor, like: Tensor) -> Tensor | None:
        """The background at full size, channels first; None if it is a constant 0."""
        constant = background.ndim == 0 and not transforms.has_derivatives(background)
        if constant and float(background) == 0:
            return None
        if background.ndim >= 3:
            for axis in (-3, -2):
                background = background.repeat_interleave(self.antialias, dim=axis)
        background = parameters.to_like(background, like)
        lead = background.reshape((1,) * (4 - background.ndim) + background.shape)
        return lead.movedim(-1, 0)


def _over(colour: Tensor, alpha: Tensor, behind: Tensor | None) -> Tensor:
    """Colours times alpha, over the background."""
    return colour if behind is None else colour + (1 - alpha) * behind


def _ordinary(value: Tensor) -> Tensor:
    """The numbers of a tensor; a copy of one that was made in inference mode."""
    return value.clone() if value.is_inference() else value.detach()
