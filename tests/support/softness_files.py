"""What the tests of files save, and how they spoil it."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from safetensors import safe_open
from safetensors.torch import save_file
from torch import Tensor

import taichi_raster as tr

Tensors = dict[str, Tensor]
Spoil = Callable[[dict[str, Any], Tensors], object]

# 0.1 + 0.2 and the like: numbers that log and exp do not give back to the bit
SCALES = tr.Knots([0.1 + 0.2, 0.07, 0.023], [0.0, 0.35, 1.0])


def network(**options: Any) -> tr.MLPSoftness:
    edge = tr.MLPSoftness((3, 2, 3), scale=SCALES, progress=True, **options)
    g = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for weights in (edge.weights, edge.progress_weights):
            assert weights is not None
            weights.copy_(torch.randn(weights.shape, generator=g, dtype=torch.float64))
    return edge


def opened(path: Path) -> tuple[dict[str, Any], Tensors]:
    """A file's description and tensors."""
    with safe_open(path, framework="pt") as file:
        tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
        return json.loads(file.metadata()["taichi_raster"]), tensors


def rewrite(path: Path, spoil: Spoil) -> None:
    """Change a file as somebody with a wrong idea of it might."""
    description, tensors = opened(path)
    spoil(description, tensors)
    save_file(tensors, path, metadata={"taichi_raster": json.dumps(description)})


class Own(tr.Schedule):
    """A schedule that the package does not know."""

    def forward(self, u: Tensor) -> Tensor:
        return u + 1


def edit(*keys: str, to: Any) -> Spoil:
    """What sets one key of a description, in the objects that the keys before it name."""

    def spoil(description: dict[str, Any], _: Tensors) -> None:
        for key in keys[:-1]:
            description = description[key]
        description[keys[-1]] = to

    return spoil
