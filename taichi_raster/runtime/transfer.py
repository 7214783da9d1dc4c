"""Copies between torch tensors and the renderer's memory.

On a CPU the fields' memory is seen as arrays, and NumPy copies it in microseconds. (Torch would
put several threads to it: the owner's thread would get a second pool of them, whose idle threads
take the cores from Taichi's.) Elsewhere kernels do, which take and give as much as one launch can.
"""

# mypy: disable-error-code="no-untyped-def, valid-type"

from typing import Any

import taichi as ti
import torch
from torch import Tensor

from taichi_raster.runtime.layout import Dim, Limit, Part
from taichi_raster.runtime.scratch import Scratch


def place(scratch: Scratch, x: Tensor, sizes: Tensor, limits: Tensor, background: Tensor) -> None:
    """Copy a call's inputs and numbers to their fields; `background` goes behind `limits`."""
    values, rest = x.detach(), background.detach()
    if not scratch.views:
        _place(
            scratch.x, scratch.dims, scratch.limits, values.contiguous(),
            rest.to(values).contiguous(), len(values), len(rest), _Sizes(sizes.tolist()),
            *limits.tolist(),
        )  # fmt: skip
        return
    n = len(limits)
    scratch.views[scratch.x][: len(values)] = values.numpy()
    scratch.views[scratch.dims][: len(sizes)] = sizes.numpy()
    scratch.views[scratch.limits][:n] = limits.numpy()
    scratch.views[scratch.limits][n : n + len(rest)] = rest.numpy()


def place_cells(scratch: Scratch, weights: Tensor) -> None:
    """Copy the weights of a table's cells, all four of each, to where a CPU looks for them."""
    scratch.views[scratch.cells[0]][: len(weights)] = weights.detach().numpy()


def seed(scratch: Scratch, field: Any, values: Tensor, cleared: Any, n: int) -> None:
    """Copy a tensor into the beginning of a field, and zero the first `n` of another."""
    flat = values.detach().reshape(-1)
    if not scratch.views:
        _seed(field, flat.contiguous(), len(flat), cleared, n)
        return
    scratch.views[field][: len(flat)] = flat.numpy()
    if n > 0:
        scratch.views[cleared][:n] = 0


def clear(scratch: Scratch, field: Any, n: int) -> None:
    """Zero the first `n` elements of a field."""
    if scratch.views:
        scratch.views[field][:n] = 0
    else:
        _clear(field, n)


def read(scratch: Scratch, field: Any, like: Tensor, n: int) -> Tensor:
    """The first `n` elements of a field, on the device of `like`."""
    integer = field.dtype == ti.i32
    target = torch.empty(n, dtype=torch.int32 if integer else like.dtype, device=like.device)
    if scratch.views:
        target.numpy()[:] = scratch.views[field][:n]
    else:
        _read(target, field, n)
    return target


def read_both(
    scratch: Scratch, first: Any, n: int, second: Any, m: int, like: Tensor
) -> tuple[Tensor, Tensor]:
    """The first `n` elements of a field, and the first `m` of another."""
    if scratch.views:
        return read(scratch, first, like, n), read(scratch, second, like, m)
    one, other = (torch.empty(size, dtype=like.dtype, device=like.device) for size in (n, m))
    _read_both(one, first, n, other, second, m)
    return one, other


# Of a call's sizes and limits, a kernel's arguments: as tensors, they would be copied to a GPU and
# back at each call, which the host waits for.
_Sizes: Any = ti.types.vector(Dim.PARTS + Part.COUNT, ti.i32)


@ti.kernel
def _place(
    x: ti.template(), dims: ti.template(), limits: ti.template(), numbers: ti.types.ndarray(),
    background: ti.types.ndarray(), n: ti.i32, m: ti.i32, sizes: _Sizes,
    near: float, far: float, threshold: float, cutoff: float, reach: float,
):  # fmt: skip
    for i in ti.static(range(_Sizes.n)):
        dims[i] = sizes[i]
    for i, limit in ti.static(enumerate((near, far, threshold, cutoff, reach))):
        limits[i] = limit
    for i in range(n):
        x[i] = numbers[i]
    for i in range(m):
        limits[Limit.COUNT + i] = background[i]


@ti.kernel
def _seed(
    target: ti.template(), source: ti.types.ndarray(), n: ti.i32, zero: ti.template(), m: ti.i32
):
    for i in range(n):
        target[i] = source[i]
    for i in range(m):
        zero[i] = 0


@ti.kernel
def _clear(field: ti.template(), n: ti.i32):
    for i in range(n):
        field[i] = 0


@ti.kernel
def _read(target: ti.types.ndarray(), source: ti.template(), n: ti.i32):
    for i in range(n):
        target[i] = source[i]


@ti.kernel
def _read_both(
    target: ti.types.ndarray(), source: ti.template(), n: ti.i32,
    other: ti.types.ndarray(), another: ti.template(), m: ti.i32,
):  # fmt: skip
    for i in range(n):
        target[i] = source[i]
    for i in range(m):
        other[i] = another[i]
