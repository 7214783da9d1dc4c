"""Checkpoint one inner step: keep its inputs alone, and run it again when it is differentiated.

An unroll of such steps needs memory for the unknowns and the optimiser's state of each step,
whatever the renderer and the number of pixels. It costs one more inner run (Griewank and Walther
2000; Chen et al. 2016, arXiv:1604.06174). Steps that keep their graph save that run; `graph_bytes`
measures how much memory one takes.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import fields, is_dataclass, replace
from typing import Any, TypeAlias

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

Step: TypeAlias = Callable[
    [Tensor, Any, dict[str, Tensor], bool], tuple[Tensor, Any, Tensor]
]  # (unknowns, state, parameters, create_graph) -> (unknowns, state, loss)


def recomputed(
    step: Step, unknowns: Tensor, state: Any, parameters: dict[str, Tensor]
) -> tuple[Tensor, Any, Tensor]:
    """Run `step`, differentiable with respect to unknowns, state and parameters.

    Args:
        step: a pure function: the same arguments give the same result. Its loss is not
            differentiated.
        state: tensors, numbers and None, nested in tuples, lists, dicts and dataclasses.

    Raises TypeError if the state holds anything else.
    """
    leaves: list[Tensor] = []
    shape = flatten_state(state, leaves)
    run = _Run(step, shape, len(leaves), list(parameters))
    unknowns, loss, *leaves = _Recomputed.apply(run, unknowns, *leaves, *parameters.values())
    return unknowns, unflatten_state(run.shape_after, iter(leaves)), loss


class _Run:
    """A step on a flat list of tensors: the unknowns, those of the state, the parameters."""

    def __init__(self, step: Step, shape: Any, leaves: int, names: list[str]) -> None:
        self.step, self.shape, self.leaves, self.names = step, shape, leaves, names
        self.shape_after: Any = None

    def __call__(self, tensors: list[Tensor], create_graph: bool) -> tuple[Tensor, ...]:
        unknowns, rest = tensors[0], tensors[1:]
        state = unflatten_state(self.shape, iter(rest[: self.leaves]))
        parameters = dict(zip(self.names, rest[self.leaves :], strict=True))
        with torch.enable_grad():
            unknowns, state, loss = self.step(unknowns, state, parameters, create_graph)
        after: list[Tensor] = []
        self.shape_after = flatten_state(state, after)
        return unknowns, loss, *after


class _Recomputed(torch.autograd.Function):
    """``(run, unknowns, *state, *parameters) -> (unknowns, loss, *state)``."""

    @staticmethod
    def forward(ctx: Any, run: _Run, *tensors: Tensor) -> tuple[Tensor, ...]:
        ctx.run = run
        ctx.save_for_backward(*tensors)
        still = [tensor.detach() for tensor in tensors]
        still[0].requires_grad_()
        found = tuple(tensor.detach() for tensor in run(still, create_graph=False))
        ctx.mark_non_differentiable(found[1])
        return found

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *bars: Tensor) -> tuple[Tensor | None, ...]:
        wanted = ctx.needs_input_grad[1:]
        inputs = [
            tensor.detach().requires_grad_(wants or at == 0)
            for at, (tensor, wants) in enumerate(zip(ctx.saved_tensors, wanted, strict=True))
        ]
        found = ctx.run(inputs, create_graph=True)
        moving = [at for at, tensor in enumerate(found) if at != 1 and tensor.requires_grad]
        grads = torch.autograd.grad(
            [found[at] for at in moving],
            [tensor for tensor, wants in zip(inputs, wanted, strict=True) if wants],
            [bars[at] for at in moving],
            allow_unused=True,
        )
        each = iter(grads)
        return None, *(next(each) if wants else None for wants in wanted)


def graph_bytes(unknowns: Tensor, before: tuple[Tensor, ...]) -> int:
    """Bytes of the tensors that the graph of `unknowns` keeps, back to the tensors `before`."""
    kept: dict[int, int] = {}
    seen = {tensor.grad_fn for tensor in before}
    nodes = [unknowns.grad_fn]
    while nodes:
        node = nodes.pop()
        if node is None or node in seen:
            continue
        seen.add(node)
        nodes += [following for following, _ in node.next_functions]
        for tensor in _saved_by(node):
            for part in _dense(tensor):
                storage = part.untyped_storage()
                kept[storage.data_ptr()] = storage.nbytes()
    return sum(kept.values())


def tensors_in(state: Any) -> tuple[Tensor, ...]:
    """All tensors of a state; TypeError if it holds what `recomputed` does not allow."""
    leaves: list[Tensor] = []
    flatten_state(state, leaves)
    return tuple(leaves)


def _dense(tensor: Tensor) -> tuple[Tensor, ...]:
    """The dense tensors that store one: itself, or the parts of a sparse tensor.

    Those that forward mode makes of zeros alone have no storage.
    """
    if tensor._is_zerotensor():
        return ()
    if tensor.layout == torch.strided:
        return (tensor,)
    if tensor.layout == torch.sparse_coo:
        return tensor._indices(), tensor._values()
    if tensor.layout == torch.sparse_csr:
        return tensor.crow_indices(), tensor.col_indices(), tensor.values()
    return ()  # not counted


def _saved_by(node: Any) -> list[Tensor]:
    """The tensors that one node of a graph keeps."""
    saved = [getattr(node, name) for name in dir(node) if name.startswith("_saved_")]
    saved.append(getattr(node, "saved_tensors", ()))  # of a Function written in Python
    every = [part for value in saved for part in (value if isinstance(value, tuple) else [value])]
    return [part for part in every if isinstance(part, Tensor)]


class _Leaf:
    """Stands for a tensor in a flattened state."""


def flatten_state(state: Any, leaves: list[Tensor]) -> Any:
    """The state with each tensor replaced by a `_Leaf`; the tensors are appended to `leaves`."""
    if isinstance(state, Tensor):
        leaves.append(state)
        return _Leaf()
    if state is None or isinstance(state, (bool, int, float, str)):
        return state
    if isinstance(state, (tuple, list)):
        parts = [flatten_state(part, leaves) for part in state]
        return parts if isinstance(state, list) else tuple(parts)
    if isinstance(state, dict):
        return {name: flatten_state(part, leaves) for name, part in state.items()}
    if is_dataclass(state) and not isinstance(state, type):
        named = {f.name: flatten_state(getattr(state, f.name), leaves) for f in fields(state)}
        return replace(state, **named)
    raise TypeError(
        f"rule: its state holds a {type(state).__name__}; expected tensors and numbers, in "
        "tuples, lists, dicts or dataclasses (or unroll with recompute=False)"
    )


def unflatten_state(shape: Any, leaves: Any) -> Any:
    """The inverse of `flatten_state`: put the tensors of the iterator `leaves` back."""
    if isinstance(shape, _Leaf):
        return next(leaves)
    if isinstance(shape, (tuple, list)):
        parts = [unflatten_state(part, leaves) for part in shape]
        return parts if isinstance(shape, list) else tuple(parts)
    if isinstance(shape, dict):
        return {name: unflatten_state(part, leaves) for name, part in shape.items()}
    if is_dataclass(shape) and not isinstance(shape, type):
        named = {f.name: unflatten_state(getattr(shape, f.name), leaves) for f in fields(shape)}
        return replace(shape, **named)
    return shape
