"""Launches kernels without Taichi's look-up at each call.

At every call Taichi looks up the compiled kernel by its arguments, in Python. That takes 200
microseconds, five to ten times as long as the launch, and a small render launches nine kernels in a
few milliseconds. A kernel whose arguments are all integers, and whose fields never change, is
always the same one.

Only the first launch, which compiles, has to be in the thread that owns Taichi.
"""

from typing import Any

import taichi as ti
from taichi.lang import impl
from torch import Tensor

from taichi_raster.runtime.compile_notice import patience
from taichi_raster.runtime.thread import owner

# Versions of Taichi whose internals are used below; others launch as usual.
_KNOWN = ti.__version__[:2] == (1, 7)


def launches_directly(arch: str) -> bool:
    """Whether a `Launcher` launches what it once compiled, without asking Taichi.

    Such a kernel stays valid while the numbers of the trees of its fields do; see scratch.py. On a
    GPU results may have to be waited for, which Taichi's own way does.
    """
    return _KNOWN and arch == "cpu"


class Launcher:
    """Launches one kernel method.

    Its arguments are integers, and contiguous tensors that always come in the same places and have
    the same dtypes. The kernel sees flat arrays; on a GPU tensors have to be flat and detached. It
    returns an integer or nothing.
    """

    def __init__(self, method: Any, arch: str) -> None:
        self._method = method
        self._kernel: Any = None
        self._used = False
        self._direct = launches_directly(arch)

    def __call__(self, *arguments: int | Tensor) -> int:
        """Launch the kernel, and return its number, or 0 if it has none."""
        if self._kernel is None:
            return owner.run(self._in_owner, arguments)
        return self._launch(arguments)

    def _in_owner(self, arguments: tuple[int | Tensor, ...]) -> int:
        """A first launch, or one as usual; in the thread that owns Taichi."""
        if not self._direct:
            return self._method(*arguments) if self._used else self._first(arguments)
        with patience.while_compiling():
            self._find(tuple(map(_flat, arguments)))
        return self._launch(arguments)

    def _launch(self, arguments: tuple[int | Tensor, ...]) -> int:
        context, given = self._context, self._given
        for i, argument in enumerate(arguments):  # most are those of the last launch
            if isinstance(argument, Tensor):
                place = argument.data_ptr(), argument.numel()
                if place != given[i]:
                    given[i] = None  # Ctrl-C may come between the next two lines
                    context.set_arg_external_array_with_shape(
                        (i,), place[0], argument.nbytes, place[1:], 0
                    )
                    given[i] = place
            elif argument != given[i]:
                given[i] = None
                context.set_arg_int((i,), argument)
                given[i] = argument
        self._program.launch_kernel(self._compiled, context)
        return context.get_struct_ret_int((0,)) if self._returns else 0

    def _first(self, arguments: tuple[int | Tensor, ...]) -> int:
        """The first launch, which compiles."""
        with patience.while_compiling():
            result = self._method(*arguments)
        self._used = True
        return result

    def _find(self, arguments: tuple[int | Tensor, ...]) -> None:
        """Find the compiled kernel."""
        kernel = self._method._primal
        key = kernel.ensure_compiled(self._method._kernel_owner, *arguments)
        self._program = impl.get_runtime().prog
        self._returns = kernel.return_type is not None
        self._compiled = self._program.compile_kernel(
            self._program.config(), self._program.get_device_caps(), kernel.compiled_kernels[key]
        )
        self._context = kernel.compiled_kernels[key].make_launch_context()
        self._given: list[Any] = [None] * len(arguments)
        self._kernel = kernel.compiled_kernels[key]


def _flat(argument: int | Tensor) -> int | Tensor:
    return argument.detach().view(-1) if isinstance(argument, Tensor) else argument
