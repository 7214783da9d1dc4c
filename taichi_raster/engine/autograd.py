"""Makes what the kernels compute a function that torch can differentiate twice.

`Evaluate` computes y(x) by the kernels of a `Work`. Its derivatives are functions, too. With u a
tangent of x and v an adjoint of y, they are

    `_VJP`     J(x)^T v          tangent along (u, v'):   H u + J^T v'
    `_JVP`     J(x) u            adjoints of x and of u:  H u, J^T v
    `_Second`  H(x, v) u         adjoint of u:            H times the incoming adjoint

H is the Hessian of v . y(x), which is symmetric. Each function is a derivative of the others. So
torch can differentiate in reverse and forward mode, and with `torch.func`, until a third derivative
of y is asked for. That raises NotImplementedError.
"""

from __future__ import annotations

import inspect
from typing import Any, Protocol, TypeVar

import torch
from torch import Tensor

from taichi_raster.runtime.transforms import one_by_one

W = TypeVar("W", bound="Work")


class Work(Protocol):
    """A function y(x) that kernels compute, with its first and second derivatives."""

    @property
    def kept(self) -> tuple[Tensor, ...]:
        """Tensors that the derivatives need."""

    def keeping(self: W, kept: tuple[Tensor, ...]) -> W:
        """The same work with these instead of its own `kept`."""

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """y(x), and a second result, which has no derivative."""

    def vjp(self, x: Tensor, v: Tensor) -> Tensor:
        """J(x)^T v."""

    def jvp(self, x: Tensor, x_dot: Tensor) -> Tensor:
        """J(x) x_dot."""

    def second(self, x: Tensor, v: Tensor, x_dot: Tensor) -> Tensor:
        """The gradient of v . J(x) x_dot with respect to x."""

    def renewed(self: W) -> W:
        """The same work for another x, which then has data of its own in the engine."""


class Evaluate(torch.autograd.Function):
    """``(x, work) -> work.forward(x)``; only its first result has derivatives."""

    @staticmethod
    def forward(x: Tensor, work: Work) -> tuple[Tensor, ...]:
        return work.forward(x)

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: tuple[Any, ...]) -> None:
        ctx.mark_non_differentiable(output[1])
        _save(ctx, inputs)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor | None) -> tuple[Tensor | None, ...]:
        if grads[0] is None:
            return None, None
        x, work = _saved(ctx)
        return _VJP.apply(x, grads[0], work), None

    @staticmethod
    def jvp(ctx: Any, x_dot: Tensor | None, *_: Any) -> tuple[Tensor | None, ...]:
        if x_dot is None:
            return None, None
        x, work = _saved(ctx)
        return _JVP.apply(x, x_dot, work), None

    @staticmethod
    def vmap(info: Any, in_dims: tuple[Any, ...], x: Tensor, work: Work) -> tuple[Any, ...]:
        return _each(Evaluate, info, in_dims, x, work)


class _Linear(torch.autograd.Function):
    """The base of the derivatives; inputs are tensors, then the work."""

    @classmethod
    def vmap(cls, info: Any, in_dims: tuple[Any, ...], *inputs: Any) -> tuple[Any, ...]:
        return _each(cls, info, in_dims, *inputs)

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: Any) -> None:
        _save(ctx, inputs)


class _VJP(_Linear):
    """``(x, v) -> J(x)^T v``."""

    @staticmethod
    def forward(x: Tensor, v: Tensor, work: Work) -> Tensor:
        return work.vjp(x, v)

    @staticmethod
    def backward(ctx: Any, u: Tensor | None) -> tuple[Tensor | None, ...]:
        if u is None:
            return None, None, None
        x, v, work = _saved(ctx)
        by_x = _Second.apply(x, v, u, work) if ctx.needs_input_grad[0] else None
        by_v = _JVP.apply(x, u, work) if ctx.needs_input_grad[1] else None
        return by_x, by_v, None

    @staticmethod
    def jvp(ctx: Any, x_dot: Tensor | None, v_dot: Tensor | None, _: Any) -> Tensor | None:
        x, v, work = _saved(ctx)
        by_x = None if x_dot is None else _Second.apply(x, v, x_dot, work)
        by_v = None if v_dot is None else _VJP.apply(x, v_dot, work)
        return _sum(by_x, by_v)


class _JVP(_Linear):
    """``(x, u) -> J(x) u``."""

    @staticmethod
    def forward(x: Tensor, u: Tensor, work: Work) -> Tensor:
        return work.jvp(x, u)

    @staticmethod
    def backward(ctx: Any, v: Tensor | None) -> tuple[Tensor | None, ...]:
        if v is None:
            return None, None, None
        x, u, work = _saved(ctx)
        by_x = _Second.apply(x, v, u, work) if ctx.needs_input_grad[0] else None
        by_u = _VJP.apply(x, v, work) if ctx.needs_input_grad[1] else None
        return by_x, by_u, None

    @staticmethod
    def jvp(ctx: Any, x_dot: Tensor | None, u_dot: Tensor | None, _: Any) -> Tensor | None:
        if x_dot is not None:
            raise NotImplementedError(
                "forward mode over forward mode is not available for the rasterizer: take one of "
                "the two derivatives in reverse mode (torch.func.jacrev, torch.autograd.grad)"
            )
        x, _, work = _saved(ctx)
        return None if u_dot is None else _JVP.apply(x, u_dot, work)


class _Second(_Linear):
    """``(x, v, u) -> H(x, v) u``, the gradient of v . J(x) u with respect to x."""

    @staticmethod
    def forward(x: Tensor, v: Tensor, u: Tensor, work: Work) -> Tensor:
        return work.second(x, v, u)

    @staticmethod
    def backward(ctx: Any, w: Tensor | None) -> tuple[Tensor | None, ...]:
        if w is None:
            return None, None, None, None
        if _asked(ctx, 0) or _asked(ctx, 1):
            raise _third()
        x, v, _, work = _saved(ctx)
        return None, None, _Second.apply(x, v, w, work), None

    @staticmethod
    def jvp(
        ctx: Any, x_dot: Tensor | None, v_dot: Tensor | None, u_dot: Tensor | None, _: Any
    ) -> Tensor | None:
        if x_dot is not None:
            raise _third()
        x, v, u, work = _saved(ctx)
        by_v = None if v_dot is None else _Second.apply(x, v_dot, u, work)
        by_u = None if u_dot is None else _Second.apply(x, v, u_dot, work)
        return _sum(by_v, by_u)


# torch asks for the signature at each call; kept here, it is not worked out anew.
for _function in (Evaluate, _VJP, _JVP, _Second):
    _forward: Any = _function.forward
    _forward.__signature__ = inspect.signature(_forward)


def _save(ctx: Any, inputs: tuple[Any, ...]) -> None:
    """Save an operation's tensors, and those that its work keeps, where torch frees them."""
    *tensors, work = inputs
    ctx.inputs, ctx.work = len(tensors), work.keeping((None,) * len(work.kept))
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
    try:
        return torch._C._will_engine_execute_node(ctx.next_functions[i][0])
    except (AttributeError, RuntimeError, TypeError):  # torch.func's own graph
        return True


def _third() -> NotImplementedError:
    return NotImplementedError(
        "third derivatives of the rasterizer are not available: only first and second ones are "
        "exact; do not differentiate a second derivative again (drop the outermost "
        "create_graph=True)"
    )


def _sum(first: Tensor | None, second: Tensor | None) -> Tensor | None:
    if first is None or second is None:
        return second if first is None else first
    return first + second


def _each(function: Any, info: Any, in_dims: tuple[Any, ...], *inputs: Any) -> tuple[Any, Any]:
    """Call the function for each entry of a mapped axis, and stack the results.

    Where x, the first input, is mapped, each call is another render, with its own data in the
    engine. The work is the last input.
    """

    def call(*entry: Any) -> Any:
        work = entry[-1] if in_dims[0] is None else entry[-1].renewed()
        return function.apply(*entry[:-1], work)

    return one_by_one(call, info, in_dims, *inputs)
