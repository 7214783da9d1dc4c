"""Chooses the backend and the precision of the kernels, once per process.

Taichi has one runtime per process. Calling ``ti.init`` again frees every field of the earlier one,
and touching such a field crashes the process. So `init` is the only place that calls ``ti.init``,
in a thread of its own (see thread.py). `init` may be repeated with equal arguments. It refuses
other arguments, and detects a ``ti.init`` by anybody else.
"""

from __future__ import annotations

import logging
import os
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import taichi as ti
import torch
from taichi.lang import impl

from taichi_raster.runtime import cuda_driver
from taichi_raster.runtime.cores import spread_workers
from taichi_raster.runtime.thread import owner
from taichi_raster.runtime.tracing_costs import spare_tracing

logger = logging.getLogger(__name__)

_ARCHES = {"cpu": ti.cpu, "cuda": ti.cuda, "vulkan": ti.vulkan}
_PRECISIONS = {"f32": torch.float32, "f64": torch.float64}


@dataclass(frozen=True)
class Runtime:
    """The settings that every kernel of this process is compiled for; see `init`.

    Attributes:
        arch: ``"cpu"``, ``"cuda"`` or ``"vulkan"``.
        precision: ``"f32"`` or ``"f64"``.
        deterministic: whether sums are taken in a fixed order (see `init`).
    """

    arch: str
    precision: str
    deterministic: bool
    _program: object = field(repr=False, compare=False)

    @property
    def dtype(self) -> torch.dtype:
        """The torch dtype of inputs and outputs."""
        return _PRECISIONS[self.precision]

    @property
    def ti_float(self) -> Any:
        """The Taichi type of the kernels' floating-point numbers."""
        return ti.f32 if self.precision == "f32" else ti.f64

    @property
    def ti_bits(self) -> Any:
        """The Taichi integer type as wide as `ti_float`."""
        return ti.i32 if self.precision == "f32" else ti.i64


_current: Runtime | None = None


def init(arch: str = "auto", precision: str = "f32", deterministic: bool = False) -> Runtime:
    """Choose backend and precision for this process; call it once, before rendering.

    Without it, the first render calls ``init()``.

    Args:
        arch: ``"cpu"``, ``"cuda"``, ``"vulkan"``, or ``"auto"``: CUDA if available, else the CPU.
        precision: ``"f32"``, or ``"f64"`` to check derivatives (CPU and CUDA only).
        deterministic: take every sum in a fixed order, so that equal inputs give equal bits. On a
            CPU this slows down gradients of textures (one thread per batch item), and on a GPU
            also all others (one thread per face).

    Returns:
        The `Runtime` now in force.

    Raises:
        TypeError: for a `deterministic` that is not a bool.
        ValueError: for an unknown name, or Vulkan with ``"f64"``.
        RuntimeError: if the machine lacks the backend, if the process already runs with other
            settings, if somebody else called ``ti.init``, or in a child that was forked from a
            process with a runtime.

    Example:
        >>> tr.init(arch="cpu", precision="f64")
    """
    if arch not in (*_ARCHES, "auto"):
        raise ValueError(f"arch: unknown backend {arch!r}; known: auto, {', '.join(_ARCHES)}")
    if precision not in _PRECISIONS:
        raise ValueError(f"precision: unknown {precision!r}; known: {', '.join(_PRECISIONS)}")
    if not isinstance(deterministic, bool):
        raise TypeError(f"deterministic: expected a bool, got {deterministic!r}")
    if arch == "vulkan" and precision == "f64":
        raise ValueError("precision: 'f64' is not available on Vulkan; use 'f32' or arch='cpu'")
    return owner.run(_begin, arch, precision, deterministic)


def _begin(arch: str, precision: str, deterministic: bool) -> Runtime:
    """Start Taichi in this thread, the owner's, unless it is started.

    Only here is the runtime set. So it stands even if the caller was interrupted, and two callers
    get the same one.
    """
    global _current
    if _current is not None:
        _refuse_change(_current, arch, precision, deterministic)
        return runtime()
    if impl.get_runtime().prog is not None:
        raise RuntimeError(
            "ti.init() was called before taichi_raster.init(), which has to own Taichi's runtime; "
            "remove that call and use taichi_raster.init(arch=..., precision=...) instead"
        )
    chosen = _started(arch, precision)
    _current = Runtime(chosen, precision, deterministic, impl.get_runtime().prog)
    logger.info("taichi_raster runs on %s in %s", chosen, precision)
    return _current


def _started(arch: str, precision: str) -> str:
    """Start Taichi, and return the backend that it runs on."""
    chosen = ("cuda" if _supported("cuda") else "cpu") if arch == "auto" else arch
    if not _supported(chosen):
        no_gpu = chosen == "cuda" and cuda_driver.gpu_count() == 0
        why = ": CUDA's driver finds no GPU (see nvidia-smi, and CUDA_VISIBLE_DEVICES)"
        raise RuntimeError(
            f"arch: this machine has no working {chosen!r} backend{why if no_gpu else ''}"
        )
    try:
        _start_taichi(chosen, precision)
    except RuntimeError as error:
        if arch != "auto" or chosen == "cpu":
            raise RuntimeError(
                f"arch: this machine has no working {chosen!r} backend: it is there, but does not "
                f"start: {error}"
            ) from error
        logger.warning("CUDA is there, but does not start, so the CPU is used: %s", error)
        chosen = "cpu"
        _start_taichi(chosen, precision)
    return chosen


def _start_taichi(arch: str, precision: str) -> None:
    if arch == "cpu":
        spread_workers(partial(_init_taichi, arch, precision))
    else:
        _init_taichi(arch, precision)


def _init_taichi(arch: str, precision: str) -> None:
    spare_tracing()
    ti.init(
        arch=_ARCHES[arch],
        default_fp=ti.f32 if precision == "f32" else ti.f64,
        default_ip=ti.i32,
        fast_math=False,
        # LLVM repeats these optimisations on a CPU: they would only slow down compilation.
        advanced_optimization=arch != "cpu",
        cfg_optimization=arch != "cpu",
        short_circuit_operators=False,  # `and` as an expression: autodiff stacks branches
        log_level=ti.WARN,
    )


def runtime() -> Runtime:
    """The runtime in force; the first call initialises with the defaults unless `init` did.

    Raises:
        RuntimeError: if somebody called ``ti.init`` or ``ti.reset`` since `init`, or in a child
            that was forked from a process with a runtime.

    Example:
        >>> faces = faces.to(tr.runtime().dtype)
    """
    owner.refuse_forked()
    if _current is None:
        return owner.run(_current_or_default)
    if impl.get_runtime().prog is not _current._program:
        raise RuntimeError(
            "Taichi was re-initialised (ti.init or ti.reset) after taichi_raster.init(); that "
            "frees the renderer's memory. Remove the other call: taichi_raster.init(arch=..., "
            "precision=...) has to be the only one in a process"
        )
    return _current


def _current_or_default() -> Runtime:
    """The runtime, which another thread may have started meanwhile."""
    return init() if _current is None else runtime()


def _refuse_change(current: Runtime, arch: str, precision: str, deterministic: bool) -> None:
    asked = (current.arch if arch == "auto" else arch, precision, deterministic)
    have = (current.arch, current.precision, current.deterministic)
    if asked != have:
        raise RuntimeError(
            f"taichi_raster already runs with arch={have[0]!r}, precision={have[1]!r}, "
            f"deterministic={have[2]}; it cannot change to arch={asked[0]!r}, "
            f"precision={asked[1]!r}, deterministic={asked[2]} in one process: start another"
        )


def _supported(arch: str) -> bool:
    if arch == "cpu":
        return True
    # Where there is no driver, Taichi warns as if one were needed.
    ti.set_logging_level("error")
    try:
        known = bool(ti.lang.misc.is_arch_supported(_ARCHES[arch]))
    except Exception:  # noqa: BLE001 - a driver that fails while it is probed is not supported
        return False
    finally:
        ti.set_logging_level(os.environ.get("TI_LOG_LEVEL", "info"))
    if known and arch == "cuda" and cuda_driver.gpu_count() == 0:  # Taichi asks for a driver alone
        logger.info("CUDA's driver is there, but finds no GPU")
        return False
    return known
