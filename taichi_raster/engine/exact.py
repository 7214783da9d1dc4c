"""Makes exact areas functions that torch can differentiate once, in reverse mode."""

from __future__ import annotations

from typing import Any, TypeVar

import torch
from jaxtyping import Float
from torch import Tensor

from taichi_raster.engine.areas import see, see_vjp
from taichi_raster.engine.autograd import Function
from taichi_raster.engine.engine import on_engine_here
from taichi_raster.engine.sight import Scene, Sight
from taichi_raster.runtime.transforms import is_differentiated, one_by_one


class Drawing:
    """What one picture leaves for its derivatives.

    Attributes:
        scene: what it is drawn of.
        sight: what its pixels see, once it is drawn.
    """

    def __init__(self, scene: Scene) -> None:
        self.scene = scene
        self.sight: Sight | None = None


def draw(
    vertices: Float[Tensor, "B F 3 3"], attributes: Float[Tensor, "B F 3 C"] | None, scene: Scene
) -> tuple[Tensor, Drawing]:
    """`areas.see`, differentiable in both. The second result has what the pixels see."""
    drawing = Drawing(scene)
    found = _Draw.apply(_saveable(vertices), _saveable(attributes), drawing)
    return found, drawing


_Given = TypeVar("_Given", Tensor, "Tensor | None")


def _saveable(tensor: _Given) -> _Given:
    """A copy of one that was made in inference mode, which torch would not save for a backward."""
    if tensor is None or torch.is_inference_mode_enabled() or not tensor.is_inference():
        return tensor
    return tensor.clone()


class _Draw(Function):
    """``(vertices, attributes, drawing) -> see(vertices, attributes)``."""

    @staticmethod
    def forward(vertices: Tensor, attributes: Tensor | None, drawing: Drawing) -> Tensor:
        found, drawing.sight, *_ = on_engine_here(see, vertices, attributes, drawing.scene)
        return found

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
        vertices, attributes, ctx.drawing = inputs
        ctx.save_for_backward(vertices, attributes)

    @staticmethod
    def backward(ctx: Any, grad: Tensor | None) -> tuple[Tensor | None, ...]:
        if grad is None:
            return None, None, None
        vertices, attributes = ctx.saved_tensors
        # Torch need not know of a function that it will not differentiate.
        vjp = _VJP.apply if is_differentiated() else _VJP.forward
        return *vjp(vertices, attributes, grad, ctx.drawing), None

    @staticmethod
    def jvp(ctx: Any, *_: Any) -> None:
        raise NotImplementedError(
            "SharpRasterizer has no forward mode: use reverse mode, or SoftRasterizer"
        )

    @staticmethod
    def vmap(info: Any, in_dims: tuple[Any, ...], *inputs: Any) -> Any:
        scene = inputs[2].scene
        return one_by_one(lambda v, a, _: _Draw.apply(v, a, Drawing(scene)), info, in_dims, *inputs)


class _VJP(Function):
    """``(vertices, attributes, adjoint, drawing) -> adjoints of vertices and attributes``."""

    @staticmethod
    def forward(
        vertices: Tensor, attributes: Tensor | None, grad: Tensor, drawing: Drawing
    ) -> tuple[Tensor, Tensor | None]:
        sight = drawing.sight
        if sight is None:
            sight = on_engine_here(see, vertices, attributes, drawing.scene)[1]
        return on_engine_here(see_vjp, sight, attributes, grad)

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: Any) -> None:
        pass

    @staticmethod
    def backward(ctx: Any, *_: Any) -> None:
        raise NotImplementedError(
            "SharpRasterizer has first derivatives only: use SoftRasterizer for second ones"
        )

    @staticmethod
    def jvp(ctx: Any, *_: Any) -> None:
        raise NotImplementedError(
            "SharpRasterizer has first derivatives only: use SoftRasterizer for second ones"
        )

    @staticmethod
    def vmap(info: Any, in_dims: tuple[Any, ...], *inputs: Any) -> Any:
        drawing = inputs[3]

        def one(v: Tensor, a: Tensor | None, g: Tensor, _: Any) -> Any:
            # Other vertices have another sight.
            own = drawing if in_dims[0] is None else Drawing(drawing.scene)
            return _VJP.apply(v, a, g, own)

        return one_by_one(one, info, in_dims, *inputs)
