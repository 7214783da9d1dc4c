"""A call's texture: where kernels read its texels, and where they add up their adjoints.

On a CPU and on CUDA, kernels read torch's memory where it is, so that nothing is copied, however
large the texture. Vulkan and Taichi's autodiff read a copy behind x in the scratch memory.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import taichi as ti
import torch
from jaxtyping import Float
from torch import Tensor

from taichi_raster.kernels.memory import IN_PLACE
from taichi_raster.runtime import transfer
from taichi_raster.runtime.call import Call
from taichi_raster.runtime.device import Runtime, runtime
from taichi_raster.runtime.scratch import Scratch
from taichi_raster.runtime.zeros import sparsely_used


@dataclass(frozen=True, eq=False)
class Texture:
    """The texels of a call, for one launch or several.

    Attributes:
        texels: flat.
        tangents, adjoints: of the texels; None where a launch takes or gives none.
        autodiff: whether Taichi differentiates the kernels.
    """

    texels: Tensor
    tangents: Tensor | None
    adjoints: Tensor | None
    autodiff: bool

    @staticmethod
    def of(
        texels: Float[Tensor, " T"] | None,
        call: Call,
        dots: Float[Tensor, " T"] | None = None,
        tangent: bool = False,
        adjoint: bool = False,
        autodiff: bool = False,
    ) -> Texture | None:
        """From the texels of a call.

        Args:
            texels: None without a texture.
            call: the call.
            dots: their tangents; None for zero.
            tangent: whether kernels take tangents.
            adjoint: whether kernels give adjoints.
            autodiff: whether Taichi differentiates the kernels.
        """
        if texels is None:
            return None
        flat = texels.detach().contiguous()
        tangents = adjoints = None
        if call.moving_texels and tangent:
            tangents = (
                sparsely_used(flat.shape, flat) if dots is None else dots.detach().contiguous()
            )
        if call.moving_texels and adjoint:
            adjoints = sparsely_used(flat.shape, flat)
        return Texture(flat, tangents, adjoints, autodiff)

    @property
    def in_place(self) -> bool:
        """Whether kernels read and write these tensors themselves."""
        return runtime().arch in IN_PLACE and not self.autodiff

    @property
    def arrays(self) -> tuple[Tensor, Tensor, Tensor]:
        """What kernels take: texels, tangents, adjoints; a single number for those not there."""
        nothing = self.texels[:1]
        tangents = nothing if self.tangents is None else self.tangents
        return self.texels, tangents, nothing if self.adjoints is None else self.adjoints

    def upload(self, scratch: Scratch, begin: int) -> None:
        """Copy them behind x, which has `begin` elements."""
        scratch.reserve(x=begin + len(self.texels))
        transfer.put(scratch, scratch.x, self.texels, begin)
        if self.autodiff:
            transfer.put(scratch, scratch.x_still, self.texels, begin)
        if self.adjoints is not None:
            transfer.put(scratch, scratch.x.grad, self.adjoints, begin)
        if self.tangents is not None:
            scratch.reserve(x_dot=begin + len(self.texels))
            transfer.put(scratch, scratch.x_dot, self.tangents, begin)

    def found(self, scratch: Scratch, begin: int) -> Tensor | None:
        """The adjoints that kernels have added up; None where they give none."""
        if self.adjoints is None or self.in_place:
            return self.adjoints
        return transfer.read(scratch, scratch.x.grad, self.texels, len(self.texels), begin)


def without_texture(settings: Runtime) -> tuple[Any, Any, Any]:
    """What kernels are given instead of a texture; for the owner's thread."""
    if settings.arch == "cpu":
        nothing: Any = torch.zeros(1, dtype=settings.dtype)
    else:  # in the device's memory, so that launches copy nothing
        nothing = ti.ndarray(settings.ti_float, 1)
    return nothing, nothing, nothing
