"""Saves and loads edge softnesses, and the schedules of any softness."""

from __future__ import annotations

from pathlib import Path
from typing import Any, TypeAlias

import torch
from torch import Tensor, nn

from taichi_raster import checks
from taichi_raster.softness import archive
from taichi_raster.softness.archive import Entry
from taichi_raster.softness.distributions import registry
from taichi_raster.softness.edge import Distribution, EdgeSoftness
from taichi_raster.softness.mlp import MLPSoftness
from taichi_raster.softness.schedule import Constant, Geometric, Knots, Schedule, Shift
from taichi_raster.softness.tabulated import TabulatedSoftness

Stored: TypeAlias = "tuple[dict[str, Any], dict[str, Tensor]]"
"""What a file keeps of a module: a description for JSON, and tensors by name."""

SOFTNESS = "taichi_raster.softness/1"
SOFTENING = "taichi_raster.softening/1"

_TENSORS: dict[type[Schedule], tuple[str, ...]] = {
    Constant: ("value",),
    Shift: ("value",),
    Geometric: ("start", "end"),
    Knots: ("log_values", "positions"),
}
_KINDS = {kind.__name__: kind for kind in _TENSORS}


def save_softness(
    path: str | Path, edge: EdgeSoftness, notes: dict[str, Any] | None = None
) -> None:
    """Write an edge softness to a safetensors file, completely or not at all.

    To save a depth softness, a T-conorm or a learning rate with it, see `save_softening`.

    Args:
        path: the file; its folder must exist.
        edge: a `Distribution` or `MLPSoftness`.
        notes: anything that JSON can hold, such as what it was trained for.

    Raises:
        TypeError: for a softness or schedule of another type.
        ValueError: for values that are not finite, or notes that JSON cannot hold.
        FileNotFoundError: if the folder does not exist.
    """
    notes = {} if notes is None else checks.instance("notes", notes, dict)
    description, tensors = stored_edge(edge)
    archive.write(path, {"format": SOFTNESS, "edge": description, "notes": notes}, tensors)


def load_softness(path: str | Path) -> EdgeSoftness:
    """Read an edge softness from a file of `save_softness` or `save_softening`.

    It is bit for bit what was saved. It is frozen: its parameters do not require grad, so that
    renders take no time for their gradients. ``.requires_grad_()`` makes them learnable again.

    Args:
        path: the file.

    Returns:
        The softness. Its attribute ``notes`` holds the notes, or the softening's card.

    Raises:
        FileNotFoundError: if there is no such file.
        ValueError: if the file is damaged or holds something else; the message says what is wrong.

    Example:
        >>> renderer = tr.SoftRasterizer(64, edge=tr.load_softness("edge.safetensors"))
    """
    with archive.reading(path, "softness", SOFTNESS, SOFTENING) as file:
        alone = file.description["format"] == SOFTNESS
        notes = file.get("notes" if alone else "card", dict)
        edge = built_edge(file.part("edge", "" if alone else "edge."))
    edge.notes = notes
    return edge.requires_grad_(False)


def stored_edge(edge: EdgeSoftness) -> Stored:
    """What a file keeps of an edge softness; TypeError if it cannot be stored."""
    if type(edge) is MLPSoftness:
        kinds, tensors = stored_schedules(edge, "edge", "scale")
        net = edge.network
        description = {
            "kind": "mlp",
            "widths": list(net.widths),
            "residual": net.residual,
            "bias": net.bias,
            "input": "asinh" if net.asinh else "plain",
            "progress": edge.progress_weights is not None,
        }
        return description | kinds, tensors | dict(edge.named_parameters(recurse=False))
    if type(edge) is Distribution:
        shaped = ("shape",) if edge.formulas.shaped else ()
        kinds, tensors = stored_schedules(edge, "edge", "scale", "shift", *shaped)
        name, squared = edge.distribution, edge.squared
        return {"kind": "distribution", "name": name, "squared": squared, **kinds}, tensors
    remedy = (
        "; save the softness it was made of, its attribute `edge`, and tabulate after loading"
        if isinstance(edge, TabulatedSoftness)
        else ""
    )
    raise TypeError(f"edge: cannot save a {type(edge).__name__}{remedy}")


def built_edge(entry: Entry) -> EdgeSoftness:
    """Build the edge softness that `stored_edge` described; ValueError for invalid entries."""
    scale = built_schedule(entry, "scale")
    kind = entry.get("kind", str)
    edge: EdgeSoftness
    if kind == "distribution":
        name = entry.get("name", str)
        shaped = registry.find(name).shaped
        shape = built_schedule(entry, "shape") if "shape" in entry.description else None
        shift = built_schedule(entry, "shift", signed=True)
        edge = Distribution(
            name, scale, entry.get("squared", bool), shape if shaped else None, shift
        )
    elif kind == "mlp":
        flags = {name: entry.get(name, bool) for name in ("residual", "bias", "progress")}
        edge = MLPSoftness(
            entry.get("widths", list),
            scale=scale,
            input=entry.get("input", str),
            init=None,
            **flags,
        )
        moving = ["progress_weights"] if flags["progress"] else []
        fill_parameters(entry, edge, "weights", *moving)
    else:
        raise ValueError(f"{entry.name}.kind: unknown {kind!r}; known: distribution, mlp")
    entry.all_taken()
    return edge


def stored_schedules(module: nn.Module, owner: str, *names: str) -> Stored:
    """What a file keeps of a module's schedules: their kinds and tensors."""
    kinds: dict[str, Any] = {}
    tensors: dict[str, Tensor] = {}
    for name in names:
        schedule = getattr(module, name)
        if type(schedule) not in _TENSORS:
            raise TypeError(
                f"{owner}.{name}: cannot save a {type(schedule).__name__}; only {', '.join(_KINDS)}"
            )
        kinds[name] = type(schedule).__name__
        for part in _TENSORS[type(schedule)]:
            tensors[f"{name}.{part}"] = getattr(schedule, part)
    return kinds, tensors


def built_schedule(entry: Entry, name: str, signed: bool = False) -> Schedule:
    """Build the schedule `name`; ValueError if its value is not positive, unless `signed`."""
    kind = entry.get(name, str)
    if kind not in _KINDS:
        raise ValueError(
            f"{entry.name}.{name}: unknown schedule {kind!r}; known: {', '.join(_KINDS)}"
        )
    try:
        schedule = _built_schedule(entry, name, kind)
        if not signed and not bool((schedule(torch.zeros((), device="cpu")) > 0).all()):
            raise ValueError("expected positive values")
    except ValueError as error:
        where = f"{entry.name}.{name}"
        text = str(error)
        raise ValueError(text if text.startswith(entry.name) else f"{where}: {text}") from None
    return schedule


def fill_parameters(entry: Entry, module: nn.Module, *names: str) -> None:
    """Replace a module's parameters by the file's tensors, which must have the same shapes."""
    for name in names:
        shape = tuple(getattr(module, name).shape)
        setattr(module, name, nn.Parameter(entry.tensor(name, shape).detach()))


def _built_schedule(entry: Entry, name: str, kind: str) -> Schedule:
    if kind != "Knots":
        kept = [entry.tensor(f"{name}.{part}") for part in _TENSORS[_KINDS[kind]]]
        return _KINDS[kind](*kept)
    positions = entry.tensor(f"{name}.positions").detach()
    if entry.has(f"{name}.values"):  # as in the first files
        return Knots(entry.tensor(f"{name}.values").detach(), positions)
    logs = entry.tensor(f"{name}.log_values", tuple(positions.shape)).detach()
    schedule = Knots(logs.exp(), positions)
    schedule.log_values = nn.Parameter(logs)  # exactly: log(exp(x)) is not always x
    return schedule
