"""Scenes on another device or in another precision, as torch's modules go there."""

from __future__ import annotations

from dataclasses import fields, replace
from typing import Any, TypeVar

import torch
from torch import Tensor

_M = TypeVar("_M", bound="Movable")


class Movable:
    """The base of dataclasses whose tensors move together."""

    def to(
        self: _M,
        device: torch.device | str | int | torch.dtype | None = None,
        dtype: torch.dtype | None = None,
    ) -> _M:
        """A copy on `device`, its floating-point tensors in `dtype`; as `torch.Tensor.to`.

        What is there already is shared, not copied, and gradients flow back.

        Example:
            >>> mesh = load_mesh("bunny.obj").to("cuda")
        """
        if isinstance(device, torch.dtype):
            device, dtype = None, device
        if dtype is not None and not dtype.is_floating_point:
            raise TypeError(f"dtype: expected a floating-point type, got {dtype}")

        def moved(value: Any) -> Any:
            if isinstance(value, tuple):
                return tuple(map(moved, value))
            if isinstance(value, Movable):
                return value.to(device, dtype)
            if not isinstance(value, Tensor):
                return value
            return value.to(device, dtype if value.is_floating_point() else None)

        mine = {field.name: getattr(self, field.name) for field in fields(self)}  # type: ignore[arg-type]
        changed = {name: moved(value) for name, value in mine.items()}
        return replace(self, **changed)  # type: ignore[type-var]
