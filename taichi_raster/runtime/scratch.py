"""Scratch memory on the device: flat fields that grow by doubling.

The contents of the fields belong to one call at a time, in its turn (see thread.py). Only the
thread that owns the runtime makes them. They are fields, not ndarrays, because autodiff through
ndarray arguments is broken on Vulkan in Taichi 1.7.4 (taichi #8524).

On a GPU kernels compile anew when a field of theirs is replaced, so fields start large: 155 MB in
float32, for 58,000 faces with three colours, or 512 x 512 pixels.

On a CPU compiled kernels stay valid. Taichi puts fields into trees, and a compiled kernel finds a
tree by its number. It gives a new tree the number that was freed last, and a field at the beginning
of its tree is found without the sizes. So each field has a tree of its own there, and growth
destroys a group's trees, last one first, before it makes them anew.
"""

import ctypes
import logging
from typing import Any

import numpy as np
import taichi as ti
import torch
from taichi.lang import impl

from taichi_raster.runtime import cuda_driver
from taichi_raster.runtime.device import Runtime
from taichi_raster.runtime.launcher import Launcher, launches_directly
from taichi_raster.runtime.thread import owner

logger = logging.getLogger(__name__)

DIMS = 64  # elements of the integer field of a call; see layout.Dim

_INITIAL = {  # elements of each group of fields at first
    "dims": DIMS,
    "x": 1 << 20,
    "x_dot": 1 << 20,
    "y": 1 << 21,
    "y_dot": 1 << 21,
    "tile_begin": 1 << 16,
    "tile_faces": 1 << 21,
    "tile_order": 1 << 21,  # as many as tile_faces, which the default depth softness asks for
    "limits": 1 << 10,
    "state": 1 << 20,
    "pixels": 1 << 18,
    "layers": 1 << 20,
    "layer_depths": 1 << 20,
    "layer_covers": 1 << 20,
    "partials": 1 << 18,
    "strips": 1 << 18,
    "entries": 1 << 21,
    "entry_begin": 1 << 16,
    "cells": 1 << 12,
    "rows": 1 << 22,
    "row_lists": 1 << 18,  # what it asks for at least
}

_NUMBERS: dict[Any, Any] = {ti.i32: ctypes.c_int32, ti.f32: ctypes.c_float, ti.f64: ctypes.c_double}

_AT_ONCE = 24  # fields whose addresses one kernel finds: of more than 32, Taichi warns

# How many numbers a group of fields holds for each element: values, adjoints, copies.
_ELEMENTS = {"x": 3, "y": 2, "y_dot": 2, "pixels": 2, "cells": 4}


def free_memory(arch: str) -> int | None:
    """Free bytes for a new field; None where that is not known."""
    if arch == "cuda":  # Taichi always takes the first GPU
        if torch.cuda.is_available():
            return int(torch.cuda.mem_get_info(0)[0])
        return cuda_driver.free_memory()
    try:
        with open("/proc/meminfo") as file:
            lines = dict(line.split(":") for line in file)
        return int(lines["MemAvailable"].split()[0]) * 1024
    except (OSError, KeyError, ValueError):
        return None  # not Linux


class Scratch:
    """The fields, by purpose.

    Attributes:
        dims, limits: sizes and limits of the current call (see layout.Dim and layout.Limit).
        x: inputs, flat, with adjoints; x_still: a copy without adjoints; x_dot: their tangents.
        y, y_dot: per-pixel sums and their tangents, flat, with adjoints.
        tile_begin, tile_faces: the faces of each tile, and where each tile's list begins.
        tile_order: on a CPU, the same faces, sorted by depth.
        state: values of each pixel that have no derivative (see layout.State).
        nearest, top: faces of each pixel.
        partials: adjoints of what faces share, one set for each run of faces.
        cells: on a CPU, the four weights of each cell of a table, in four interleaved fields.
        layers, layer_depths, layer_covers: the faces of each pixel, nearest first, with their
            depths and coverages.
        entries, entry_begin: listed fragments (see layout.Entry), and where each face's begin.
        strips: on a CPU, adjoints of the faces' inputs, one set for each run of tiles.
        rows, row_lists: on a CPU, the faces that a thread composes (see kernels/front_to_back.py).
        views: on a CPU, the memory of each field and adjoint as a NumPy array; empty on a GPU.
        version: rises whenever a field is replaced: what was in it is gone.
        layout: rises whenever compiled kernels no longer find the fields; see `Launcher`. Kernels
            that are launched through Taichi have to compile anew whenever the version rises.
    """

    dims: Any
    x: Any
    x_still: Any
    x_dot: Any
    y: Any
    y_dot: Any
    tile_begin: Any
    tile_faces: Any
    tile_order: Any
    limits: Any
    state: Any
    nearest: Any
    top: Any
    layers: Any
    layer_depths: Any
    layer_covers: Any
    entries: Any
    entry_begin: Any
    rows: Any
    row_lists: Any
    partials: Any
    strips: Any
    cells: list[Any]

    def __init__(self, runtime: Runtime) -> None:
        self._float = runtime.ti_float
        self._arch = runtime.arch
        self._keeps_kernels = launches_directly(self._arch)
        self.views: dict[Any, np.ndarray] = {}
        self._capacity: dict[str, int] = {}
        self._trees: dict[str, list[Any]] = {}
        self._fields: dict[str, list[Any]] = {}
        self._finders: list[Launcher] = []
        self._findable = -1  # the layout that the finders are for
        self.version = self.layout = 0
        self.reserve(**dict.fromkeys(_INITIAL, 1))

    def capacity(self, name: str) -> int:
        """How many elements a named group of fields can hold."""
        return self._capacity[name]

    def reserve(self, **sizes: int) -> None:
        """Make room for at least `sizes` elements in each named group of fields.

        Raises:
            MemoryError: if the device cannot hold them; the message says how many bytes it takes.
        """
        if not all(self._capacity.values()):  # memory ran out while a group grew
            sizes = {**dict.fromkeys(self._capacity, 1), **sizes}
        capacities = {
            name: max(_INITIAL[name], 1 << (size - 1).bit_length())
            for name, size in sizes.items()
            if size > self._capacity.get(name, 0)
        }
        if capacities:
            owner.run(self._grow_all, capacities)

    def _grow_all(self, capacities: dict[str, int]) -> None:
        try:
            for name, capacity in capacities.items():
                self._grow(name, capacity)
        finally:
            self._share()

    def _grow(self, name: str, capacity: int) -> None:
        if capacity >= 1 << 31:
            raise MemoryError(
                f"one call needs {self._bytes(name, capacity) / 2**30:.0f} GiB for {name!r}, and "
                "more than the 2^31 elements that Taichi can index: render fewer batch items, "
                "pixels or channels at a time"
            )
        self._check_memory(name, capacity)
        old = self._trees.get(name, [])
        numbers = [tree.id for tree in old]
        if self._keeps_kernels:
            self._capacity[name], self._trees[name] = 0, []  # this stays if the rest fails
            self.version += 1
            _free(old)
        made = self._make(name)
        fields = [field for group in made.values() for field in group]
        if name == "cells":  # interleaved, so that the first field's memory is that of all
            placed, layouts = fields[:1], [[fields]]
        else:
            placed = [*fields, *_adjoints(fields)]
            each = [[field] for field in placed]
            layouts = [[alone] for alone in each] if self._keeps_kernels else [each]
        trees = _make_trees(layouts, capacity)
        self._trees[name], self._fields[name], self._capacity[name] = trees, placed, capacity
        for attribute, group in made.items():
            setattr(self, attribute, group if name == "cells" else group[0])
        self.version += 1
        if [tree.id for tree in trees] != numbers:
            self.layout += 1
        if not self._keeps_kernels:
            _free(old)

    def _share(self) -> None:
        """On a CPU, view fields' numbers as arrays, so that transfers need no kernel."""
        self.views = {}
        if self._arch != "cpu" or not all(self._capacity.values()):
            return
        counts = {
            field: self._capacity[name] * (4 if name == "cells" else 1)
            for name, fields in self._fields.items()
            for field in fields
        }
        fields = list(counts)
        if self._findable != self.layout:
            parts = (fields[i : i + _AT_ONCE] for i in range(0, len(fields), _AT_ONCE))
            self._finders = [Launcher(_Addresses(part).write, self._arch) for part in parts]
            self._findable = self.layout
        found = torch.zeros(len(fields), dtype=torch.int64)
        for part, find in zip(found.split(_AT_ONCE), self._finders, strict=True):
            find(part)
        for field, address in zip(fields, found.tolist(), strict=True):
            numbers = (_NUMBERS[field.dtype] * counts[field]).from_address(address)
            self.views[field] = np.ctypeslib.as_array(numbers)

    def _bytes(self, name: str, capacity: int) -> int:
        width = 8 if self._float == ti.f64 else 4
        return capacity * width * _ELEMENTS.get(name, 1)

    def _check_memory(self, name: str, capacity: int) -> None:
        """Raise MemoryError, before anything is allocated, if the device has too little memory."""
        needed = self._bytes(name, capacity)
        free = free_memory(self._arch)
        if free is not None and needed > free:
            raise MemoryError(
                f"one call needs about {needed / 2**30:.1f} GiB for {name!r}, and "
                f"{free / 2**30:.1f} GiB are free: render fewer batch items, pixels or channels at "
                "a time"
            )

    def _make(self, name: str) -> dict[str, list[Any]]:
        """The unplaced fields of a group, by attribute."""
        if name == "x":
            return {
                "x": [ti.field(self._float, needs_grad=True)],
                "x_still": [ti.field(self._float)],
            }
        if name == "cells":
            return {"cells": [ti.field(self._float) for _ in range(4)]}
        if name == "pixels":
            return {"nearest": [ti.field(ti.i32)], "top": [ti.field(ti.i32)]}
        integer = name.startswith(("tile", "entr")) or name in ("dims", "layers", "row_lists")
        adjoint = name in ("y", "y_dot")
        return {name: [ti.field(ti.i32 if integer else self._float, needs_grad=adjoint)]}


def _make_trees(layouts: list[list[list[Any]]], capacity: int) -> list[Any]:
    """Memory for fields, all or none.

    Args:
        layouts: for each tree its groups of fields; those of a group are interleaved.
        capacity: elements of each field.
    """
    builders = [ti.FieldsBuilder() for _ in layouts]
    for builder, groups in zip(builders, layouts, strict=True):
        for fields in groups:
            builder.dense(ti.i, capacity).place(*fields)
    trees: list[Any] = []
    try:
        for builder in builders:
            trees.append(builder.finalize())  # noqa: PERF401 (a failure frees those made so far)
    except BaseException:
        for builder in builders:  # Taichi must not finish them later
            impl.get_runtime().unfinalized_fields_builder.pop(builder, None)
        _free(trees)
        raise
    return trees


def _free(trees: list[Any]) -> None:
    """Give trees' memory back, the last one's first.

    Taichi cannot if another thread compiled kernels of its own after a tree was made. It looks for
    the tree among what it keeps for each such thread, and fails an assertion.
    """
    for tree in reversed(trees):
        try:
            tree.destroy()
        except RuntimeError as error:
            logger.warning(
                "taichi_raster: some memory is not given back, because Taichi was used in another "
                "thread; use taichi_raster.in_runtime_thread for that (%s)",
                str(error).splitlines()[0],
            )


def _adjoints(fields: list[ti.Field]) -> list[ti.Field]:
    return [field.grad for field in fields if field.grad is not None]


@ti.data_oriented
class _Addresses:
    """Where fields begin in memory: one kernel for all of them, as each has to be compiled."""

    def __init__(self, fields: list[Any]) -> None:
        self._fields = fields

    @ti.kernel
    def write(self, found: ti.types.ndarray(dtype=ti.i64, ndim=1)):
        for i, field in ti.static(enumerate(self._fields)):
            found[i] = ti.cast(ti.get_addr(field, [0]), ti.i64)
