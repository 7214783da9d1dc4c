"""Saves and loads softenings: edge, depth, T-conorm, learning rate, steps and card in one file."""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch

from taichi_raster.depth.base import KINDS, DepthSoftness
from taichi_raster.presets.softening import Softening
from taichi_raster.softness import archive
from taichi_raster.softness.archive import Entry
from taichi_raster.softness.conorm import TConorm, generator
from taichi_raster.softness.edge import EdgeSoftness
from taichi_raster.softness.serialization import (
    SOFTENING,
    SOFTNESS,
    Stored,
    built_edge,
    built_schedule,
    stored_edge,
    stored_schedules,
)
from taichi_raster.softness.tabulated import tabulate


def save_softening(path: str | Path, softening: Softening) -> None:
    """Write a softening to one safetensors file.

    The file is written completely or not at all.

    Args:
        path: the file; its folder must exist.
        softening: what to save.

    Raises:
        TypeError: for a part or a schedule of a type of your own.
        ValueError: for values that are not finite, or a card that JSON cannot hold.
        FileNotFoundError: if the folder does not exist.
    """
    if not isinstance(softening, Softening):
        raise TypeError(f"softening: expected a Softening, got {type(softening).__name__}")
    try:
        json.dumps(softening.card, allow_nan=False)
    except (TypeError, ValueError) as error:
        raise ValueError(f"card: must be what JSON can hold: {error}") from error
    parts = {
        "edge": stored_edge(softening.edge),
        "depth": _stored_depth(softening.depth),
        "alpha": _stored_alpha(softening.alpha),
    }
    rate = [] if softening.lr is None else ["lr"]
    kinds, tensors = stored_schedules(softening, "softening", *rate)
    for name, (_, own) in parts.items():
        tensors |= {f"{name}.{key}": value for key, value in own.items()}
    description = {name: described for name, (described, _) in parts.items()}
    rest: dict[str, Any] = {"lr": None, "steps": softening.steps, "card": softening.card}
    if softening.sharp_from is not None:
        rest["sharp_from"] = softening.sharp_from
    if softening.table is not None:
        rest["table"] = asdict(softening.table)
    archive.write(path, {"format": SOFTENING, **description, **rest, **kinds}, tensors)


def load_softening(path: str | Path) -> Softening:
    """Read what `save_softening` wrote, bit for bit.

    The softening is frozen: its parameters do not require grad, so that renders take no time for
    their gradients. ``load_softening(path).requires_grad_()`` makes it learnable.

    Args:
        path: the file.

    Raises:
        FileNotFoundError: if there is no such file.
        ValueError: if the file is damaged or holds something else; the message says what is wrong.

    Example:
        >>> renderer = tr.load_softening("pose.safetensors").renderer(64, near=1.0, far=5.0)
    """
    with archive.reading(path, "softening", SOFTENING, SOFTNESS) as file:
        if file.description["format"] == SOFTNESS:
            raise ValueError("it holds an edge softness alone; use load_softness")
        rate = file.description.get("lr")
        steps = file.description.get("steps")
        softening = Softening(
            _built_table(file, built_edge(file.part("edge"))),
            _built_depth(file.part("depth")),
            _built_alpha(file.part("alpha")),
            None if rate is None else built_schedule(file, "lr"),
            steps,
            file.get("card", dict),
            file.description.get("sharp_from"),
        )
        file.all_taken()
    return softening.requires_grad_(False)


def _built_table(file: Entry, edge: EdgeSoftness) -> EdgeSoftness:
    """The table of `edge` that the file describes, or `edge`."""
    if file.description.get("table") is None:
        return edge
    sizes = file.get("table", dict)
    if sizes.keys() != {"width", "octaves", "subdivision"}:
        raise ValueError(f"table: expected width, octaves and subdivision, got {sorted(sizes)}")
    return tabulate(edge, **sizes)


def _stored_depth(depth: DepthSoftness) -> Stored:
    kind = depth.kind
    if kind is None or KINDS[kind] is not type(depth):  # a subclass may do something else
        raise TypeError(f"depth: cannot save a {type(depth).__name__}")
    description, tensors = depth.stored()
    return {"kind": kind} | description, tensors


def _built_depth(entry: Entry) -> DepthSoftness:
    kind = entry.get("kind", str)
    if kind not in KINDS:
        raise ValueError(f"depth.kind: unknown {kind!r}; known: {', '.join(sorted(KINDS))}")
    depth = KINDS[kind].built(entry)
    entry.all_taken()
    return depth


def _stored_alpha(alpha: TConorm) -> Stored:
    if type(alpha) is not TConorm:
        raise TypeError(f"alpha: cannot save a {type(alpha).__name__}")
    if alpha.generator.domain is None:
        return {"name": alpha.name}, {}
    kinds, tensors = stored_schedules(alpha, "alpha", "p")
    return {"name": alpha.name, **kinds}, tensors


def _built_alpha(entry: Entry) -> TConorm:
    name = entry.get("name", str)
    p = None
    if generator(name).domain is not None:
        numeric = entry.get("p", str) == "number"  # a constant p in the first files
        p = entry.tensor("p") if numeric else built_schedule(entry, "p", signed=True)
    alpha = TConorm(name, p)
    alpha.at(torch.zeros((), device="cpu"))
    entry.all_taken()
    return alpha
