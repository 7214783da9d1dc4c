"""Softnesses on disk: safetensors, with a description of the module in the metadata."""

from __future__ import annotations

import json
import os
import tempfile
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file

from taichi_raster.schedule import Constant, Geometric, Knots, Schedule, Shift
from taichi_raster.softness import registry
from taichi_raster.softness.edge import Distribution, EdgeSoftness
from taichi_raster.softness.mlp import MLPSoftness

_FORMAT = "taichi_raster.softness/1"
_SCHEDULES = ("scale", "shape", "shift")


def save_softness(
    path: str | Path, edge: EdgeSoftness, notes: dict[str, Any] | None = None
) -> None:
    """Write a softness to a safetensors file, all or nothing.

    Args:
        path: the file; its folder must exist.
        edge: a `Distribution` or `MLPSoftness`.
        notes: anything that JSON can hold, kept beside it (what it was trained for, say).
    """
    description = {"format": _FORMAT, "edge": _describe(edge), "notes": notes or {}}
    tensors = {
        f"{name}.{key}": value
        for name in _SCHEDULES
        if hasattr(edge, name)
        for key, value in _schedule_tensors(getattr(edge, name)).items()
    }
    for name, parameter in edge.named_parameters(recurse=False):
        tensors[name] = parameter
    tensors = {k: v.detach().to("cpu", torch.float64).contiguous() for k, v in tensors.items()}
    target = Path(path)
    handle, temporary = tempfile.mkstemp(dir=target.parent, prefix=target.name, suffix=".part")
    os.close(handle)
    try:
        save_file(tensors, temporary, metadata={"taichi_raster": json.dumps(description)})
        os.replace(temporary, target)
    except BaseException:
        Path(temporary).unlink(missing_ok=True)
        raise


def load_softness(path: str | Path) -> EdgeSoftness:
    """Read what `save_softness` wrote; the notes come as its attribute ``notes``.

    Raises:
        FileNotFoundError: if there is no such file.
        ValueError: if it is corrupt, or holds something else.
    """
    source = Path(path)
    if not source.is_file():
        raise FileNotFoundError(f"path: no softness file at {source}")
    try:
        with safe_open(source, framework="pt") as file:
            metadata = file.metadata() or {}
            tensors = {key: file.get_tensor(key) for key in file.keys()}  # noqa: SIM118
        description = json.loads(metadata["taichi_raster"])
        if description["format"] != _FORMAT:
            raise ValueError(f"unknown format {description['format']!r}")
        edge = _build(description["edge"], tensors)
    except (SafetensorError, KeyError, TypeError, ValueError, RuntimeError, OSError) as error:
        raise ValueError(f"path: {source} is not a usable softness file: {error}") from error
    edge.notes = description["notes"]
    return edge


def _describe(edge: EdgeSoftness) -> dict[str, Any]:
    scale = type(edge.scale).__name__
    if isinstance(edge, MLPSoftness):
        net = edge.network
        return {
            "kind": "mlp", "widths": list(net.widths), "residual": net.residual, "bias": net.bias,
            "input": "asinh" if net.asinh else "plain", "scale": scale,
            "progress": edge.progress_weights is not None,
        }  # fmt: skip
    if isinstance(edge, Distribution):
        schedules = {name: type(getattr(edge, name)).__name__ for name in _SCHEDULES}
        name, squared = edge.distribution, edge.squared
        return {"kind": "distribution", "name": name, "squared": squared, **schedules}
    raise TypeError(f"edge: cannot save a {type(edge).__name__}")


def _build(description: dict[str, Any], tensors: dict[str, torch.Tensor]) -> EdgeSoftness:
    schedules = {
        name: _build_schedule(description[name], _part(tensors, name))
        for name in _SCHEDULES
        if name in description
    }
    if description["kind"] == "distribution":
        if not registry.find(description["name"]).shaped:
            schedules.pop("shape", None)
        return Distribution(
            description["name"], squared=description.get("squared", False), **schedules
        )
    scale = schedules["scale"]
    edge = MLPSoftness(
        description["widths"], description["residual"], description["bias"], description["input"],
        scale=scale, init=None, progress=description["progress"],
    )  # fmt: skip
    own = {name: tensors[name] for name, _ in edge.named_parameters(recurse=False)}
    for name, tensor in own.items():
        if not bool(torch.isfinite(tensor).all()):
            raise ValueError(f"{name} holds an infinite or NaN value")
        getattr(edge, name).data.copy_(tensor)
    return edge


def _part(tensors: dict[str, torch.Tensor], name: str) -> dict[str, torch.Tensor]:
    lead = name + "."
    return {k.removeprefix(lead): v for k, v in tensors.items() if k.startswith(lead)}


def _schedule_tensors(schedule: Schedule) -> dict[str, torch.Tensor]:
    if isinstance(schedule, Constant | Shift):
        return {"value": schedule.value}
    if isinstance(schedule, Geometric):
        return {"start": schedule.start, "end": schedule.end}
    if isinstance(schedule, Knots):
        return {"values": schedule.log_values.exp(), "positions": schedule.positions}
    raise TypeError(f"scale: cannot save a {type(schedule).__name__}")


def _build_schedule(kind: str, tensors: dict[str, torch.Tensor]) -> Schedule:
    if kind == "Constant":
        return Constant(tensors["value"])
    if kind == "Shift":
        return Shift(tensors["value"])
    if kind == "Geometric":
        return Geometric(tensors["start"], tensors["end"])
    if kind == "Knots":
        return Knots(tensors["values"], tensors["positions"])
    raise ValueError(f"unknown schedule {kind!r}")
