"""Transfers between torch tensors and scratch memory.

On a CPU the fields' memory is viewed as arrays, and NumPy copies it in microseconds. Torch would
start a second pool of threads for it, whose idle threads take cores from Taichi's. On a GPU kernels
copy, as much as possible in one launch.
"""

# mypy: disable-error-code="no-untyped-def, valid-type"

from typing import Any

import numpy as np
import taichi as ti
import torch
from torch import Tensor

from taichi_raster.runtime.layout import Dim, Limit
from taichi_raster.runtime.scratch import Scratch


def place(scratch: Scratch, x: Tensor, sizes: Tensor, limits: Tensor, background: Tensor) -> None:
    """Upload a call's inputs, sizes and limits; `background` goes behind the limits."""
    values, rest = x.detach(), background.detach()
    if not scratch.views:
        fields = scratch.x, scratch.dims, scratch.limits
        tensors = values.contiguous(), rest.to(values).contiguous()
        dims = sizes.tolist()
        counts = len(values), len(rest), _Sizes(dims[: Dim.LEVELS]), _Levels(dims[Dim.LEVELS :])
        threads = _threads(len(values))
        _place(*fields, *tensors, *counts, *limits.tolist(), threads)
        return
    n = len(limits)
    scratch.views[scratch.x][: len(values)] = values.numpy()
    scratch.views[scratch.dims][: len(sizes)] = sizes.numpy()
    scratch.views[scratch.limits][:n] = limits.numpy()
    scratch.views[scratch.limits][n : n + len(rest)] = rest.numpy()


def place_cells(scratch: Scratch, weights: Tensor) -> None:
    """Upload the four weights of each cell of a table, on a CPU."""
    scratch.views[scratch.cells[0]][: len(weights)] = weights.detach().numpy()


def seed(
    scratch: Scratch, *copies: tuple[Any, Tensor], clear: tuple[Any, int] | None = None
) -> None:
    """Upload tensors to the starts of fields, and zero the first elements of another.

    Args:
        scratch: the fields.
        *copies: a field, and what goes there; two at a time take one launch on a GPU.
        clear: a field, and how many of its elements are zeroed.
    """
    flat = [(field, values.detach().reshape(-1)) for field, values in copies]
    if scratch.views:
        for field, values in flat:
            scratch.views[field][: len(values)] = values.numpy()
        if clear is not None:
            scratch.views[clear[0]][: clear[1]] = 0
        return
    for i in range(0, len(flat), 2):
        sizes = [(field, values.contiguous(), len(values)) for field, values in flat[i : i + 2]]
        first, second = sizes[0], sizes[1] if len(sizes) == 2 else (*sizes[0][:2], 0)
        third = (first[0], 0) if clear is None or i > 0 else clear
        _seed(*first, *second, *third, _threads(max(first[2], second[2], third[1])))


def clear(scratch: Scratch, field: Any, n: int) -> None:
    """Zero the first `n` elements of a field."""
    if scratch.views:
        scratch.views[field][:n] = 0
    else:
        _clear(field, n, _threads(n))


def put(scratch: Scratch, field: Any, values: Tensor, begin: int) -> None:
    """Upload a flat tensor to a field, from element `begin` on."""
    if scratch.views:
        scratch.views[field][begin : begin + len(values)] = values.numpy()
    else:
        _put(field, values, begin, len(values), _threads(len(values)))


def read(scratch: Scratch, field: Any, like: Tensor, n: int, begin: int = 0) -> Tensor:
    """Download `n` elements of a field, from `begin` on, to the device of `like`."""
    if scratch.views:
        source = scratch.views[field][begin : begin + n]
        dtype = torch.int32 if source.dtype == np.int32 else like.dtype
        found = torch.empty(n, dtype=dtype, device=like.device)
        found.numpy()[:] = source
        return found
    integer = field.dtype == ti.i32
    target = torch.empty(n, dtype=torch.int32 if integer else like.dtype, device=like.device)
    _read(target, field, begin, n, _threads(n))
    return target


def read_both(
    scratch: Scratch, first: Any, n: int, second: Any, m: int, like: Tensor
) -> tuple[Tensor, Tensor]:
    """Download the first `n` elements of one field, and the first `m` of another."""
    if scratch.views:
        return read(scratch, first, like, n), read(scratch, second, like, m)
    one, other = (torch.empty(size, dtype=like.dtype, device=like.device) for size in (n, m))
    _read_both(one, first, n, other, second, m, _threads(n))
    return one, other


# Sizes and limits are passed as a kernel's arguments. As tensors they would be copied to a GPU and
# back at each call, and the host would wait for that.
_Sizes: Any = ti.types.vector(Dim.LEVELS, ti.i32)
_Levels: Any = ti.types.vector(Dim.COUNT - Dim.LEVELS, ti.i32)


@ti.kernel
def _place(
    x: ti.template(),
    dims: ti.template(),
    limits: ti.template(),
    numbers: ti.types.ndarray(),
    background: ti.types.ndarray(),
    n: ti.i32,
    m: ti.i32,
    sizes: _Sizes,
    levels: _Levels,
    near: float,
    far: float,
    threshold: float,
    cutoff: float,
    reach: float,
    hidden: float,
    threads: ti.template(),
):
    for thread in range(threads):
        if thread == 0:
            for i in ti.static(range(_Sizes.n)):
                dims[i] = sizes[i]
            for i in ti.static(range(_Levels.n)):
                dims[_Sizes.n + i] = levels[i]
            for i, limit in ti.static(enumerate((near, far, threshold, cutoff, reach, hidden))):
                limits[i] = limit
        for turn in range(_turns(thread, n, threads)):
            x[thread + turn * threads] = numbers[thread + turn * threads]
        for turn in range(_turns(thread, m, threads)):
            limits[Limit.COUNT + thread + turn * threads] = background[thread + turn * threads]


@ti.kernel
def _seed(
    target: ti.template(),
    source: ti.types.ndarray(),
    n: ti.i32,
    other: ti.template(),
    another: ti.types.ndarray(),
    k: ti.i32,
    zero: ti.template(),
    m: ti.i32,
    threads: ti.template(),
):
    for thread in range(threads):
        for turn in range(_turns(thread, n, threads)):
            target[thread + turn * threads] = source[thread + turn * threads]
        for turn in range(_turns(thread, k, threads)):
            other[thread + turn * threads] = another[thread + turn * threads]
        for turn in range(_turns(thread, m, threads)):
            zero[thread + turn * threads] = 0


@ti.kernel
def _clear(field: ti.template(), n: ti.i32, threads: ti.template()):
    for thread in range(threads):
        for turn in range(_turns(thread, n, threads)):
            field[thread + turn * threads] = 0


@ti.kernel
def _put(
    target: ti.template(),
    source: ti.types.ndarray(),
    begin: ti.i32,
    n: ti.i32,
    threads: ti.template(),
):
    for thread in range(threads):
        for turn in range(_turns(thread, n, threads)):
            target[begin + thread + turn * threads] = source[thread + turn * threads]


@ti.kernel
def _read(
    target: ti.types.ndarray(),
    source: ti.template(),
    begin: ti.i32,
    n: ti.i32,
    threads: ti.template(),
):
    for thread in range(threads):
        for turn in range(_turns(thread, n, threads)):
            target[thread + turn * threads] = source[begin + thread + turn * threads]


@ti.kernel
def _read_both(
    target: ti.types.ndarray(),
    source: ti.template(),
    n: ti.i32,
    other: ti.types.ndarray(),
    another: ti.template(),
    m: ti.i32,
    threads: ti.template(),
):
    for thread in range(threads):
        for turn in range(_turns(thread, n, threads)):
            target[thread + turn * threads] = source[thread + turn * threads]
        for turn in range(_turns(thread, m, threads)):
            other[thread + turn * threads] = another[thread + turn * threads]


@ti.func
def _turns(thread, n, threads: ti.template()):
    """How many of n elements a thread copies."""
    return (n - thread + (threads - 1)) // threads


def _threads(n: int) -> int:
    """How many threads copy n elements.

    One of two numbers, because each is a kernel. It is known when the kernel is compiled, so that
    Taichi launches one kernel, and not another that stores the number.
    """
    return 1 << 10 if n <= 1 << 14 else 1 << 17
