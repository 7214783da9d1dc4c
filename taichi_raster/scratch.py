"""The renderer's memory on the device: flat fields that grow by doubling.

Fields rather than ndarrays, because autodiff through ndarray arguments is broken on Vulkan in
Taichi 1.7.4 (taichi #8524). They are scratch: their contents belong to one call at a time.
Replacing a field makes the kernels that use it compile anew, so they start large: 70 MB in float32,
for 58,000 faces with three colours, or 512 x 512 pixels.
"""

from typing import Any

import taichi as ti
import torch
from torch import Tensor

from taichi_raster.arithmetic import types
from taichi_raster.runtime import Runtime

_INITIAL = {
    "x": 1 << 20, "x_dot": 1 << 20, "y": 1 << 21, "y_dot": 1 << 21,
    "tile_begin": 1 << 16, "tile_faces": 1 << 21, "group_begin": 1 << 12,
    "group_faces": 1 << 18, "limits": 1 << 10, "state": 1 << 20, "pixels": 1 << 18,
    "layers": 1 << 20, "partials": 1 << 18,
}  # fmt: skip


# How many numbers each group of fields holds for one element: values, adjoints, mirrors.
_ELEMENTS = {"x": 3, "y": 2, "y_dot": 2, "pixels": 2}


def free_memory(arch: str) -> int | None:
    """Bytes that a new field may take, where that can be told."""
    if arch == "cuda":
        return int(torch.cuda.mem_get_info()[0]) if torch.cuda.is_available() else None
    try:
        with open("/proc/meminfo") as file:
            lines = dict(line.split(":") for line in file)
        return int(lines["MemAvailable"].split()[0]) * 1024
    except (OSError, KeyError, ValueError):
        return None  # not Linux


class Scratch:
    """Fields by purpose.

    Attributes:
        dims, limits: the sizes and numbers of the call at hand (see layout.py).
        x: inputs, flat, with adjoints; `x_still` mirrors them without; x_dot: their tangents.
        y, y_dot: per-pixel sums and their tangents, flat, with adjoints.
        tile_begin: where each tile's face list begins, and last the total; tile_faces: the lists;
            group_begin, group_faces: likewise for groups of tiles.
        state: what `Forward` finds for each pixel besides (see layout.State); nearest, top: faces.
        partials: adjoints of a table's knots, from each run of faces.
        layers: faces of each pixel, nearest first, for the sharp reference.
        version: rises whenever a field was replaced, so that kernels know to compile anew.
    """

    x: Any
    x_dot: Any
    y: Any
    y_dot: Any
    tile_begin: Any
    tile_faces: Any
    group_begin: Any
    group_faces: Any
    limits: Any
    state: Any
    layers: Any
    partials: Any

    def __init__(self, runtime: Runtime) -> None:
        self._float = runtime.ti_float
        self._arch = runtime.arch
        self.dims = ti.field(ti.i32, shape=32)
        self._capacity: dict[str, int] = {}
        self._trees: dict[str, object] = {}
        self.version = 0
        self.reserve(**dict.fromkeys(_INITIAL, 1))

    def reserve(self, **sizes: int) -> None:
        """Make room for at least `sizes` elements of each named group of fields."""
        for name, size in sizes.items():
            if size > self._capacity.get(name, 0):
                self._grow(name, max(_INITIAL[name], 1 << (size - 1).bit_length()))

    def _grow(self, name: str, capacity: int) -> None:
        if capacity >= 1 << 31:
            raise MemoryError(
                f"one call needs {self._bytes(name, capacity) / 2**30:.0f} GiB for {name!r}, and "
                "more than the 2^31 elements that Taichi can index: render fewer batch items, "
                "pixels or channels at a time"
            )
        self._check_memory(name, capacity)
        if name in self._trees:
            self._trees[name].destroy()  # type: ignore[attr-defined]
        builder = ti.FieldsBuilder()
        for field in self._make(name):
            builder.dense(ti.i, capacity).place(field)
            if field.grad is not None:
                builder.dense(ti.i, capacity).place(field.grad)
        self._trees[name] = builder.finalize()
        self._capacity[name] = capacity
        self.version += 1

    def _bytes(self, name: str, capacity: int) -> int:
        width = 8 if self._float == ti.f64 else 4
        return capacity * width * _ELEMENTS.get(name, 1)

    def _check_memory(self, name: str, capacity: int) -> None:
        """Refuse, before anything is allocated, what the machine cannot hold."""
        needed = self._bytes(name, capacity)
        free = free_memory(self._arch)
        if free is not None and needed > free:
            raise MemoryError(
                f"one call needs about {needed / 2**30:.1f} GiB for {name!r}, and "
                f"{free / 2**30:.1f} GiB are free: render fewer batch items, pixels or channels at "
                "a time"
            )

    def _make(self, name: str) -> list[ti.Field]:
        if name == "x":
            self.x = ti.field(self._float, needs_grad=True)
            self.x_still = ti.field(self._float)
            return [self.x, self.x_still]
        if name == "pixels":
            self.nearest, self.top = ti.field(ti.i32), ti.field(ti.i32)
            return [self.nearest, self.top]
        integer = name.startswith(("tile", "group")) or name == "layers"
        adjoint = name in ("y", "y_dot")
        field = ti.field(ti.i32 if integer else self._float, needs_grad=adjoint)
        setattr(self, name, field)
        return [field]


# On a CPU, waking threads would take longer than these copies.


@ti.kernel
def _place(
    x: ti.template(), dims: ti.template(), limits: ti.template(), numbers: ti.types.ndarray(),
    sizes: ti.types.ndarray(), bounds: ti.types.ndarray(), n: ti.i32, k: ti.i32, m: ti.i32,
):  # fmt: skip
    ti.loop_config(serialize=types.on_cpu)
    for i in range(n):
        x[i] = numbers[i]
    ti.loop_config(serialize=types.on_cpu)
    for i in range(k):
        dims[i] = sizes[i]
    ti.loop_config(serialize=types.on_cpu)
    for i in range(m):
        limits[i] = bounds[i]


@ti.kernel
def _seed(
    target: ti.template(), source: ti.types.ndarray(), n: ti.i32, zero: ti.template(), m: ti.i32
):
    ti.loop_config(serialize=types.on_cpu)
    for i in range(n):
        target[i] = source[i]
    ti.loop_config(serialize=types.on_cpu)
    for i in range(m):
        zero[i] = 0


@ti.kernel
def _clear(field: ti.template(), n: ti.i32):
    ti.loop_config(serialize=types.on_cpu)
    for i in range(n):
        field[i] = 0


@ti.kernel
def _read(target: ti.types.ndarray(), source: ti.template(), n: ti.i32):
    ti.loop_config(serialize=types.on_cpu)
    for i in range(n):
        target[i] = source[i]


@ti.kernel
def _read_both(
    target: ti.types.ndarray(), source: ti.template(), n: ti.i32,
    other: ti.types.ndarray(), another: ti.template(), m: ti.i32,
):  # fmt: skip
    ti.loop_config(serialize=types.on_cpu)
    for i in range(n):
        target[i] = source[i]
    ti.loop_config(serialize=types.on_cpu)
    for i in range(m):
        other[i] = another[i]


def place(scratch: Scratch, x: Tensor, sizes: Tensor, limits: Tensor) -> None:
    """Copy a call's inputs and numbers to their fields."""
    values = x.detach().contiguous()
    _place(
        scratch.x, scratch.dims, scratch.limits, values, sizes, limits, len(values), len(sizes),
        len(limits),
    )  # fmt: skip


def seed(field: ti.Field, values: Tensor, cleared: ti.Field, n: int) -> None:
    """Copy a flat tensor into the beginning of a field, and zero the first `n` of another."""
    _seed(field, values.detach().contiguous(), values.numel(), cleared, n)


def clear(field: ti.Field, n: int) -> None:
    """Zero the first `n` elements of a field."""
    _clear(field, n)


def read(field: ti.Field, like: Tensor, n: int) -> Tensor:
    """The first `n` elements of a field, on the device of `like`."""
    integer = field.dtype == ti.i32
    target = torch.empty(n, dtype=torch.int32 if integer else like.dtype, device=like.device)
    _read(target, field, n)
    return target


def read_both(
    first: ti.Field, n: int, second: ti.Field, m: int, like: Tensor
) -> tuple[Tensor, Tensor]:
    """The first `n` elements of a field, and the first `m` of another."""
    one, other = (torch.empty(size, dtype=like.dtype, device=like.device) for size in (n, m))
    _read_both(one, first, n, other, second, m)
    return one, other
