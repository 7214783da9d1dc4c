"""Compiles kernels at their first use, keeps them, and launches them."""

from __future__ import annotations

from typing import Any

from taichi_raster.runtime.device import Runtime
from taichi_raster.runtime.launcher import Launcher
from taichi_raster.runtime.lru_cache import LRUCache
from taichi_raster.runtime.scratch import Scratch
from taichi_raster.runtime.thread import owner
from taichi_raster.runtime.variant import Variant


class KernelCache:
    """The compiled kernels for the current scratch fields, least recently used ones dropped.

    Kernels use fields by reference. Once a field is replaced, all kernels are dropped; launchers
    stay for as long as what they compiled finds the new fields.
    """

    def __init__(self, scratch: Scratch, settings: Runtime) -> None:
        self._scratch, self._settings = scratch, settings
        self._kernels: LRUCache[tuple[type, Variant], Any] = LRUCache(512)
        self._launchers: LRUCache[tuple[type, Variant, str], Launcher] = LRUCache(1024)
        self._version = self._layout = -1  # of the scratch fields that they were compiled for

    def launch(self, kind: type, variant: Variant, name: str, *arguments: Any) -> int:
        """Launch the kernel `name` of a kind, and return its result, or 0."""
        self._forget_stale()
        launcher = self._launchers.get((kind, variant, name))
        if launcher is None:
            launcher = owner.run(self._launcher, kind, variant, name)
        return launcher(*arguments)

    def _launcher(self, kind: type, variant: Variant, name: str) -> Launcher:
        method = getattr(self.kernels(kind, variant), name)
        launcher = self._launchers[kind, variant, name] = Launcher(method, self._settings.arch)
        return launcher

    def kernels(self, kind: type, variant: Variant) -> Any:
        """The kernels of a kind for a variant."""
        self._forget_stale()
        kernels = self._kernels.get((kind, variant))
        return owner.run(self._make, kind, variant) if kernels is None else kernels

    def _make(self, kind: type, variant: Variant) -> Any:
        kernels = self._kernels[kind, variant] = kind(variant, self._scratch, self._settings)
        return kernels

    def _forget_stale(self) -> None:
        """Drop what does not find the scratch fields any more."""
        if self._version != self._scratch.version:
            self._kernels.clear()
            self._version = self._scratch.version
        if self._layout != self._scratch.layout:
            self._launchers.clear()
            self._layout = self._scratch.layout
