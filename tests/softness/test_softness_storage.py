"""Edge softnesses in files: exactly what was saved comes back, or an error says what is wrong."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file
from torch import nn

import taichi_raster as tr
from softness_files import Own, Spoil, edit, network, rewrite

pytestmark = pytest.mark.runs_on(arch="cpu", precision="f64")

EDGES = {
    "network": network(),
    "plain network": network(residual=False, input="plain"),
    "annealed": tr.Distribution("cauchy", tr.Geometric(0.3, 0.01), squared=True),
    "shaped": tr.Distribution("gamma_rev", 0.1, shape=tr.Geometric(1.7, 2.0), shift=-0.3),
    "float32": tr.Distribution("logistic", tr.Constant(torch.tensor([0.1, 0.3]))),
}


@pytest.mark.parametrize("name", EDGES)
def test_an_edge_comes_back_to_the_bit(name: str, tmp_path: Path) -> None:
    path = tmp_path / "edge.safetensors"
    tr.save_softness(path, EDGES[name], {"for": "tests"})
    loaded = tr.load_softness(path)
    assert type(loaded) is type(EDGES[name]) and loaded.notes == {"for": "tests"}
    for u in (0.0, 0.2, 0.8, 1.0):
        before, after = (
            edge.at(torch.tensor(u, dtype=torch.float64), 1e-6) for edge in (EDGES[name], loaded)
        )
        for part in ("scale", "shape", "shift", "weights"):
            one, other = getattr(before, part), getattr(after, part)
            assert one is other is None or (one.dtype == other.dtype and torch.equal(one, other))
        assert before.reach == after.reach


def test_a_softening_also_gives_its_edge(tmp_path: Path) -> None:
    path = tmp_path / "whole.safetensors"
    card = {"task": "none", "seed": 3}
    tr.save_softening(
        path, tr.Softening(network(), tr.MLPDepth(), tr.TConorm("yager", 2.0), card=card)
    )
    edge = tr.load_softness(path)
    d = torch.linspace(-0.5, 0.5, 11, dtype=torch.float64)
    assert torch.equal(edge.value(d, 0.3), network().value(d, 0.3)) and edge.notes == card


def test_what_is_loaded_is_frozen_and_can_learn_again(tmp_path: Path) -> None:
    path = tmp_path / "edge.safetensors"
    learned = nn.Parameter(torch.tensor(0.2, dtype=torch.float64))
    tr.save_softness(path, tr.Distribution("logistic", tr.Geometric(learned, 0.01)))
    loaded = tr.load_softness(path)
    names = [name for name, _ in loaded.named_parameters()]
    assert names == ["scale.start"]  # what was a parameter is one again, and nothing else
    assert not loaded.scale.start.requires_grad
    assert loaded.requires_grad_().scale.start.requires_grad


def test_files_with_plain_knot_values_are_still_read(tmp_path: Path) -> None:
    """As the first files had them, beside a shape that a logistic does not have."""
    path = tmp_path / "old.safetensors"
    description = {
        "format": "taichi_raster.softness/1",
        "notes": {},
        "edge": {
            "kind": "distribution",
            "name": "logistic",
            "squared": False,
            "scale": "Knots",
            "shape": "Constant",
            "shift": "Shift",
        },
    }
    one = torch.ones((), dtype=torch.float64)
    knots = torch.tensor([0.2, 0.05], dtype=torch.float64)
    tensors = {
        "scale.values": knots,
        "scale.positions": torch.tensor([0.0, 1.0]).double(),
        "shape.value": one,
        "shift.value": 0 * one,
    }
    save_file(tensors, path, metadata={"taichi_raster": json.dumps(description)})
    scale = tr.load_softness(path).scale(torch.tensor(0.5))
    assert float(scale.detach()) == pytest.approx(0.1)  # the geometric mean


def test_an_interrupted_or_refused_save_leaves_what_was_there(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "edge.safetensors"
    tr.save_softness(path, EDGES["annealed"])
    before = path.read_bytes()
    spoilt = network()
    with torch.no_grad():
        spoilt.weights[3] = torch.nan
    with pytest.raises(ValueError, match=r"^weights: holds an infinite or NaN value"):
        tr.save_softness(path, spoilt)
    with pytest.raises(ValueError, match=r"^description: must be what JSON can hold"):
        tr.save_softness(path, network(), {"bad": torch.ones(1)})

    def full(self: Path, content: bytes) -> int:
        with open(self, "wb") as file:
            file.write(content[:100])
        raise OSError("no space left")

    monkeypatch.setattr(Path, "write_bytes", full)
    with pytest.raises(OSError, match="no space left"):
        tr.save_softness(path, network())
    assert path.read_bytes() == before and list(tmp_path.iterdir()) == [path]


@pytest.mark.parametrize(
    ("edge", "named"),
    [
        (tr.Distribution("logistic", Own()), "edge.scale: cannot save a Own; only Constant"),
        (tr.tabulate(tr.Distribution("logistic")), "edge: cannot save a TabulatedSoftness; save"),
        (tr.HardDepth(), "edge: cannot save a HardDepth"),
    ],
)
def test_what_cannot_be_saved_is_named(edge: Any, named: str, tmp_path: Path) -> None:
    with pytest.raises(TypeError, match=named):
        tr.save_softness(tmp_path / "edge.safetensors", edge)


def test_a_missing_folder_is_named(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match=r"^path: no folder at .*nowhere"):
        tr.save_softness(tmp_path / "nowhere" / "edge.safetensors", network())


SPOILT: dict[str, tuple[Spoil, str]] = {
    "future": (edit("format", to="taichi_raster.softness/9"), "unknown format 'taichi_raster.soft"),
    "no edge": (lambda d, t: d.pop("edge"), "lacks 'edge'"),
    "edge is a list": (edit("edge", to=[1]), r"file.edge: expected an object, got \[1\]"),
    "kind": (edit("edge", "kind", to="spline"), "edge.kind: unknown 'spline'; known: dist"),
    "schedule": (edit("edge", "scale", to="Cosine"), "edge.scale: unknown schedule 'Cosine'"),
    "flag": (edit("edge", "bias", to="yes"), "edge.bias: expected true or false, got 'yes'"),
    "input": (edit("edge", "input", to="tan"), "input: unknown 'tan'"),
    "widths": (edit("edge", "widths", to=[3, 99, 3]), "widths: expected integers from 1 to 16"),
    "architecture": (
        edit("edge", "widths", to=[3, 3, 3]),
        r"edge.weights: expected shape \(34,\), as described",
    ),
    "one weight": (
        lambda d, t: t.update(weights=t["weights"][:1].clone()),
        r"edge.weights: expected shape .* got \(1,\)",
    ),
    "nan": (lambda d, t: t["weights"].__setitem__(0, torch.nan), "weights: holds an infinite"),
    "huge": (lambda d, t: t["scale.log_values"].add_(1e4), "edge.scale: values: expected"),
    "negative": (
        lambda d, t: (
            d["edge"].update(scale="Shift"),
            [t.pop(name) for name in list(t)],
            t.update({"scale.value": -torch.ones(())}),
        ),
        "edge.scale: expected positive values",
    ),
    "integers": (
        lambda d, t: t.update(weights=t["weights"].long()),
        "weights: expected float32 or float64",
    ),
    "missing": (lambda d, t: t.pop("weights"), "edge: the tensor 'weights' is missing"),
    "left over": (lambda d, t: t.update(more=torch.ones(1)), "edge: unexpected tensors more"),
    "disorder": (lambda d, t: t["scale.positions"].neg_(), "edge.scale: positions: expected 3"),
}


@pytest.mark.parametrize("name", SPOILT)
def test_a_spoilt_file_is_refused_and_the_spoilt_part_named(name: str, tmp_path: Path) -> None:
    spoil, named = SPOILT[name]
    path = tmp_path / "edge.safetensors"
    tr.save_softness(path, network())
    rewrite(path, spoil)
    with pytest.raises(ValueError, match=f"^path: .*edge.safetensors is not a usable.*{named}"):
        tr.load_softness(path)


def test_an_unknown_distribution_is_named_with_the_known_ones(tmp_path: Path) -> None:
    path = tmp_path / "edge.safetensors"
    tr.save_softness(path, EDGES["annealed"])
    rewrite(path, edit("edge", "name", to="normal"))
    with pytest.raises(ValueError, match="unknown distribution 'normal'; known: cauchy"):
        tr.load_softness(path)


def test_infinity_in_a_description_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "edge.safetensors"
    tr.save_softness(path, EDGES["annealed"])
    rewrite(path, edit("notes", "score", to=float("inf")))
    with pytest.raises(ValueError, match="the description holds Infinity"):
        tr.load_softness(path)


def test_foreign_torn_and_pickled_files_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "edge.safetensors"
    tr.save_softening(path, tr.Softening(network()))
    whole = path.read_bytes()
    spoilt = [whole[: int(k * len(whole) / 20)] for k in range(20)]
    spoilt += [b"hello", b"\xff" * 200, whole + b"more"]
    for content in spoilt:
        path.write_bytes(content)
        for load in (tr.load_softness, tr.load_softening):
            with pytest.raises(ValueError, match=r"edge.safetensors is not a usable soft"):
                load(path)
    save_file({"weights": torch.ones(3)}, path)
    with pytest.raises(ValueError, match="taichi_raster did not write it"):
        tr.load_softening(path)

    class Evil:
        def __reduce__(self) -> Any:
            return (tmp_path.joinpath("ran").touch, ())

    torch.save({"edge": Evil()}, path)
    with pytest.raises(ValueError, match="not a usable"):
        tr.load_softening(path)
    assert not (tmp_path / "ran").exists()
