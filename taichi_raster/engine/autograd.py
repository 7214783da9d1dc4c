"""Makes what the kernels compute a function that torch can differentiate twice.

`Evaluate` computes y(x) by the kernels of a `Work`. Its derivatives are functions, too. With u a
tangent of x and v an adjoint of y, they are

    `_VJP`     J(x)^T v          tangent along (u, v'):   H u + J^T v'
    `_JVP`     J(x) u            adjoints of x and of u:  H u, J^T v
    `_Second`  H(x, v) u         adjoint of u:            H times the incoming adjoint

H is the Hessian of v . y(x), which is symmetric. Each function is a derivative of the others. So
torch can differentiate in reverse and forward mode, and with `torch.func`, until a third derivative
of y is asked for. That raises NotImplementedError.

x comes in two tensors: what is packed for the call, and the texels of its texture, which kernels
read where they are; None without a texture. So do its tangents and adjoints. Texels that have no
derivatives have None for both.
"""

from __future__ import annotations

from typing import Any, Protocol, TypeAlias, TypeVar

import torch
from torch import Tensor
from torch._functorch.utils import unwrap_dead_wrappers as _alive

from taichi_raster.runtime.transforms import is_differentiated, one_by_one

W = TypeVar("W", bound="Work")

Two: TypeAlias = tuple[Tensor, Tensor | None]
"""An adjoint of x, and that of its texels."""


class Work(Protocol):
    """A function y(x) that kernels compute, with its first and second derivatives."""

    @property
    def kept(self) -> tuple[Tensor, ...]:
        """Tensors that the derivatives need."""

    def keeping(self: W, kept: tuple[Tensor, ...]) -> W:
        """The same work with these instead of its own `kept`."""

    def forward(self, x: Tensor, texels: Tensor | None) -> tuple[Tensor, Tensor]:
        """y(x), and a second result, which has no derivative."""

    def vjp(self, x: Tensor, texels: Tensor | None, v: Tensor) -> Two:
        """J(x)^T v."""

    def jvp(
        self, x: Tensor, texels: Tensor | None, x_dot: Tensor, texels_dot: Tensor | None
    ) -> Tensor:
        """J(x) x_dot."""

    def second(
        self,
        x: Tensor,
        texels: Tensor | None,
        v: Tensor,
        x_dot: Tensor,
        texels_dot: Tensor | None,
    ) -> Two:
        """The gradient of v . J(x) x_dot with respect to x."""

    def renewed(self: W) -> W:
        """The same work for another x, which then has data of its own in the engine."""


class Function(torch.autograd.Function):
    """A function whose arguments all come by position.

    Torch binds arguments to the signature of `forward` at each call, which takes as long as a
    launch.
    """

    @classmethod
    def apply(cls, *inputs: Any) -> Any:
        if torch._C._are_functorch_transforms_active():
            return super().apply(*inputs)
        # What torch.autograd.Function.apply does next.
        base: Any = super(torch.autograd.Function, cls)
        return base.apply(*_alive(inputs))


class Evaluate(Function):
    """``(x, texels, work) -> work.forward(x, texels)``; only its first result has derivatives."""

    @staticmethod
    def forward(x: Tensor, texels: Tensor | None, work: Work) -> tuple[Tensor, ...]:
        return work.forward(x, texels)

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: tuple[Any, ...]) -> None:
        ctx.mark_non_differentiable(output[1])
        _save(ctx, inputs)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor | None) -> tuple[Tensor | None, ...]:
        if grads[0] is None:
            return None, None, None
        x, texels, work = _saved(ctx)
        # Torch need not know of a function that it will not differentiate.
        vjp = _VJP.apply if is_differentiated() else _VJP.forward
        return *vjp(x, texels, grads[0], work), None

    @staticmethod
    def jvp(
        ctx: Any, x_dot: Tensor | None, texels_dot: Tensor | None, _: Any
    ) -> tuple[Tensor | None, ...]:
        if x_dot is None and texels_dot is None:
            return None, None
        x, texels, work = _saved(ctx)
        return _JVP.apply(x, texels, or_zero(x_dot, x), texels_dot, work), None

    @staticmethod
    def vmap(info: Any, in_dims: tuple[Any, ...], *inputs: Any) -> tuple[Any, ...]:
        return _each(Evaluate, info, in_dims, *inputs)


class _Linear(Function):
    """The base of the derivatives; inputs are tensors, then the work."""

    @classmethod
    def vmap(cls, info: Any, in_dims: tuple[Any, ...], *inputs: Any) -> tuple[Any, ...]:
        return _each(cls, info, in_dims, *inputs)

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: Any) -> None:
        _save(ctx, inputs)


class _VJP(_Linear):
    """``(x, texels, v) -> J(x)^T v``."""

    @staticmethod
    def forward(x: Tensor, texels: Tensor | None, v: Tensor, work: Work) -> Two:
        return work.vjp(x, texels, v)

    @staticmethod
    def backward(ctx: Any, u: Tensor | None, s: Tensor | None) -> tuple[Tensor | None, ...]:
        if u is None and s is None:
            return None, None, None, None
        x, texels, v, work = _saved(ctx)
        u = or_zero(u, x)
        by_x: tuple[Tensor | None, Tensor | None] = (None, None)
        if ctx.needs_input_grad[0] or ctx.needs_input_grad[1]:
            by_x = _Second.apply(x, texels, v, u, s, work)
        by_v = _JVP.apply(x, texels, u, s, work) if ctx.needs_input_grad[2] else None
        return *by_x, by_v, None

    @staticmethod
    def jvp(
        ctx: Any, x_dot: Tensor | None, texels_dot: Tensor | None, v_dot: Tensor | None, _: Any
    ) -> tuple[Tensor | None, ...]:
        x, texels, v, work = _saved(ctx)
        by_x = by_v = (None, None)
        if x_dot is not None or texels_dot is not None:
            by_x = _Second.apply(x, texels, v, or_zero(x_dot, x), texels_dot, work)
        if v_dot is not None:
            by_v = _VJP.apply(x, texels, v_dot, work)
        return tuple(map(_sum, by_x, by_v))


class _JVP(_Linear):
    """``(x, texels, u, s) -> J(x) u``, s the tangent of texels."""

    @staticmethod
    def forward(
        x: Tensor, texels: Tensor | None, u: Tensor, s: Tensor | None, work: Work
    ) -> Tensor:
        return work.jvp(x, texels, u, s)

    @staticmethod
    def backward(ctx: Any, v: Tensor | None) -> tuple[Tensor | None, ...]:
        if v is None:
            return None, None, None, None, None
        x, texels, u, s, work = _saved(ctx)
        by_x: tuple[Tensor | None, Tensor | None] = (None, None)
        by_u: tuple[Tensor | None, Tensor | None] = (None, None)
        if ctx.needs_input_grad[0] or ctx.needs_input_grad[1]:
            by_x = _Second.apply(x, texels, v, u, s, work)
        if ctx.needs_input_grad[2] or ctx.needs_input_grad[3]:
            by_u = _where_given(_VJP.apply(x, texels, v, work), s)
        return *by_x, *by_u, None

    @staticmethod
    def jvp(
        ctx: Any,
        x_dot: Tensor | None,
        texels_dot: Tensor | None,
        u_dot: Tensor | None,
        s_dot: Tensor | None,
        _: Any,
    ) -> Tensor | None:
        if x_dot is not None or texels_dot is not None:
            raise NotImplementedError(
                "forward mode over forward mode is not available for the rasterizer: take one of "
                "the two derivatives in reverse mode (torch.func.jacrev, torch.autograd.grad)"
            )
        if u_dot is None and s_dot is None:
            return None
        x, texels, _, _, work = _saved(ctx)
        return _JVP.apply(x, texels, or_zero(u_dot, x), s_dot, work)


class _Second(_Linear):
    """``(x, texels, v, u, s) -> H(x, v) u``, the gradient of v . J(x) u with respect to x."""

    @staticmethod
    def forward(
        x: Tensor, texels: Tensor | None, v: Tensor, u: Tensor, s: Tensor | None, work: Work
    ) -> Two:
        return work.second(x, texels, v, u, s)

    @staticmethod
    def backward(ctx: Any, w: Tensor | None, t: Tensor | None) -> tuple[Tensor | None, ...]:
        if w is None and t is None:
            return None, None, None, None, None, None
        if any(_asked(ctx, i) for i in range(3)):
            raise _third()
        x, texels, v, _, s, work = _saved(ctx)
        by_u = _where_given(_Second.apply(x, texels, v, or_zero(w, x), t, work), s)
        return None, None, None, *by_u, None

    @staticmethod
    def jvp(
        ctx: Any,
        x_dot: Tensor | None,
        texels_dot: Tensor | None,
        v_dot: Tensor | None,
        u_dot: Tensor | None,
        s_dot: Tensor | None,
        _: Any,
    ) -> tuple[Tensor | None, ...]:
        if x_dot is not None or texels_dot is not None:
            raise _third()
        x, texels, v, u, s, work = _saved(ctx)
        by_v = by_u = (None, None)
        if v_dot is not None:
            by_v = _Second.apply(x, texels, v_dot, u, s, work)
        if u_dot is not None or s_dot is not None:
            by_u = _Second.apply(x, texels, v, or_zero(u_dot, x), s_dot, work)
        return tuple(map(_sum, by_v, by_u))


def _save(ctx: Any, inputs: tuple[Any, ...]) -> None:
    """Save an operation's tensors, and those that its work keeps, where torch frees them."""
    *tensors, work = inputs
    ctx.inputs, ctx.work = len(tensors), work.keeping((None,) * len(work.kept))
    ctx.given = [tensor is not None for tensor in tensors]
    ctx.save_for_backward(*tensors, *work.kept)
    ctx.save_for_forward(*tensors, *work.kept)
    ctx.set_materialize_grads(False)


def _saved(ctx: Any) -> tuple[Any, ...]:
    """An operation's tensors, and its work."""
    saved = ctx.saved_tensors
    return *saved[: ctx.inputs], ctx.work.keeping(saved[ctx.inputs :])


def _asked(ctx: Any, i: int) -> bool:
    """Whether this backward has to give the adjoint of input `i`, as far as torch tells.

    `needs_input_grad` says only whether the input has derivatives.
    """
    if not ctx.needs_input_grad[i]:
        return False
    node = sum(ctx.given[:i])  # torch counts tensors alone
    try:
        return torch._C._will_engine_execute_node(ctx.next_functions[node][0])
    except (AttributeError, RuntimeError, TypeError):  # torch.func's own graph
        return True


def _where_given(two: Two, tangent: Tensor | None) -> Two:
    """The adjoints of two tangents, of which the second may not have been given."""
    return two[0], None if tangent is None else two[1]


def _third() -> NotImplementedError:
    return NotImplementedError(
        "third derivatives of the rasterizer are not available: only first and second ones are "
        "exact; do not differentiate a second derivative again (drop the outermost "
        "create_graph=True)"
    )


def or_zero(value: Tensor | None, like: Tensor) -> Tensor:
    """`value`, or zeros like another tensor."""
    return torch.zeros_like(like) if value is None else value


def _sum(first: Tensor | None, second: Tensor | None) -> Tensor | None:
    if first is None or second is None:
        return second if first is None else first
    return first + second


def _each(function: Any, info: Any, in_dims: tuple[Any, ...], *inputs: Any) -> tuple[Any, Any]:
    """Call the function for each entry of a mapped axis, and stack the results.

    Where x, the first two inputs, is mapped, each call is another render, with its own data in the
    engine. The work is the last input.
    """

    def call(*entry: Any) -> Any:
        work = entry[-1] if in_dims[:2] == (None, None) else entry[-1].renewed()
        return function.apply(*entry[:-1], work)

    return one_by_one(call, info, in_dims, *inputs)
