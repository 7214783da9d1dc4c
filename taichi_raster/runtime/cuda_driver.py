"""Asks CUDA's driver about the machine. Torch cannot tell: it may be built without CUDA."""

from __future__ import annotations

import ctypes
import sys

_NAMES = ("nvcuda.dll",) if sys.platform == "win32" else ("libcuda.so", "libcuda.so.1")


def gpu_count() -> int | None:
    """How many GPUs there are; None where there is no driver."""
    driver, count = _driver(), ctypes.c_int()
    if driver is None:
        return None
    if driver.cuInit(0) != 0 or driver.cuDeviceGetCount(ctypes.byref(count)) != 0:
        return 0
    return count.value


def free_memory() -> int | None:
    """Free bytes on the GPU whose context this thread has; None if it has none."""
    driver, free, total = _driver(), ctypes.c_size_t(), ctypes.c_size_t()
    if driver is None or driver.cuMemGetInfo_v2(ctypes.byref(free), ctypes.byref(total)) != 0:
        return None
    return free.value


def _driver() -> ctypes.CDLL | None:
    for name in _NAMES:
        try:
            return ctypes.CDLL(name)
        except OSError:
            continue
    return None
