"""Softenings come back from files as they were, and those that are shipped keep their word."""

from __future__ import annotations

import fnmatch
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import taichi_raster as tr
from paths import ROOT
from scenes import random_faces
from softness_files import Own, Spoil, edit, network, rewrite
from taichi_raster.presets.pretrained import CARD_KEYS

pytestmark = pytest.mark.runs_on(arch="cpu", precision="f64")

MODULE = sys.modules[
    "taichi_raster.presets.pretrained"
]  # the package exports a function of this name
LARGEST = 64 * 1024  # bytes of a shipped file
CARD = {
    "task": "a test",
    "units": {"unknowns": "NDC", "near": 0.5, "far": 10.0},
    "optimiser": {"name": "Adam", "betas": [0.9, 0.999]},
    "command": "make test",
    "seed": 0,
    "scores": {"mean error": 0.25},
}


def learned_depth() -> tr.MLPDepth:
    depth = tr.MLPDepth((3, 3), gamma=tr.Knots([0.3, 0.05]), background_z=0.1)
    g = torch.Generator().manual_seed(1)
    with torch.no_grad():
        depth.weights.copy_(torch.randn(depth.weights.shape, generator=g, dtype=torch.float64))
    return depth


def parameter(value: float) -> nn.Parameter:
    return nn.Parameter(torch.tensor(value, dtype=torch.float64))


WHOLE: dict[str, Callable[[], tr.Softening]] = {
    "all learned": lambda: tr.Softening(
        network(),
        learned_depth(),
        tr.TConorm("hamacher", tr.Knots([0.3, 2.0])),
        tr.Knots([0.1 + 0.2, 0.15, 0.01]),
        60,
        CARD,
    ),
    "distributions": lambda: tr.Softening(
        tr.Distribution("gumbel_min", tr.Geometric(0.16, 0.02)),
        tr.DistributionDepth("gamma", 0.3, 0.0, shape=1.5, shift=-0.2),
        tr.TConorm("schweizer_sklar", parameter(-0.7)),
        0.1,
        5,
    ),
    "softmax": lambda: tr.Softening(
        tr.Distribution("logistic", 0.1),
        tr.SoftmaxDepth(parameter(0.05), parameter(0.2)),
        tr.TConorm("frank", torch.tensor([0.5, 3.0])),
        tr.Geometric(0.2, 0.01),
    ),
    "hard": lambda: tr.Softening(
        tr.Distribution("uniform", 0.1),
        tr.HardDepth(),
        tr.TConorm("max"),
    ),
}


def picture(softening: tr.Softening, progress: float, vertices: Tensor | None = None) -> Tensor:
    faces, attributes = random_faces(7)
    renderer = softening.renderer((6, 7), near=0.5, far=10.0)
    return renderer(faces if vertices is None else vertices, attributes, progress)


@pytest.mark.parametrize("name", WHOLE)
def test_a_softening_renders_the_same_bits_after_a_file(name: str, tmp_path: Path) -> None:
    path = tmp_path / "softening.safetensors"
    before = WHOLE[name]()
    tr.save_softening(path, before)
    after = tr.load_softening(path)
    for progress in (0.0, 0.37, 1.0):
        with torch.no_grad():
            assert torch.equal(picture(after, progress), picture(before, progress))
        if before.lr is not None:
            assert after.learning_rate(progress) == before.learning_rate(progress)
    assert (after.steps, after.card) == (before.steps, before.card)
    assert after.describe() == before.describe()
    assert after.state_dict().keys() == before.state_dict().keys()
    assert not any(parameter.requires_grad for parameter in after.parameters())
    tr.save_softening(tmp_path / "again.safetensors", after)
    assert (tmp_path / "again.safetensors").read_bytes() == path.read_bytes()


@pytest.mark.parametrize("p", [torch.tensor([0.5, 3.0]).double(), parameter(0.7)])
def test_files_with_a_conorms_parameter_itself_still_load(
    p: Tensor, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    softening = tr.Softening(tr.Distribution("logistic"), alpha=tr.TConorm("frank", p))
    old = lambda alpha: ({"name": alpha.name, "p": "number"}, {"p": alpha.p.value})  # noqa: E731
    monkeypatch.setattr("taichi_raster.presets.serialization._stored_alpha", old)
    tr.save_softening(tmp_path / "old.safetensors", softening)
    alpha = tr.load_softening(tmp_path / "old.safetensors").alpha
    assert isinstance(alpha.p, tr.Schedule) and torch.equal(alpha.at(torch.ones(())), p)
    assert len(list(alpha.parameters())) == isinstance(p, nn.Parameter)


def test_parts_that_share_a_tensor_can_be_saved(tmp_path: Path) -> None:
    shared = torch.tensor(0.1, dtype=torch.float64)
    softening = tr.Softening(tr.Distribution("logistic", shared), tr.SoftmaxDepth(shared, shared))
    tr.save_softening(tmp_path / "shared.safetensors", softening)
    loaded = tr.load_softening(tmp_path / "shared.safetensors")
    assert loaded.edge.scale.value == loaded.depth.gamma.value == loaded.depth.background_z == 0.1


def test_the_renderer_shares_the_softenings_parts_and_takes_options() -> None:
    softening = WHOLE["all learned"]()
    renderer = softening.renderer((6, 7), near=0.5, far=10.0, antialias=2)
    assert (renderer.edge, renderer.depth, renderer.alpha) == (
        softening.edge,
        softening.depth,
        softening.alpha,
    )
    assert (renderer.image_size, renderer.far, renderer.antialias) == ((6, 7), 10.0, 2)
    with pytest.raises(TypeError, match="edge"):
        softening.renderer(6, edge=tr.Distribution("logistic"))


def test_a_softening_that_was_learned_through_a_table_is_drawn_by_it(tmp_path: Path) -> None:
    table = tr.tabulate(network(), octaves=4, subdivision=1)  # so coarse that it is seen
    softening = tr.Softening(table)
    assert softening.edge is table.edge
    tr.save_softening(tmp_path / "table.safetensors", softening)
    loaded = tr.load_softening(tmp_path / "table.safetensors")
    assert loaded.drawn_edge.table == table.table and loaded.describe() == softening.describe()
    expected = tr.SoftRasterizer((6, 7), table, near=0.5, far=10.0)(*random_faces(3), 0.5)
    found = loaded.renderer((6, 7), near=0.5, far=10.0)(*random_faces(3), 0.5)
    assert torch.equal(found, expected)
    raw = tr.Softening(table.edge).renderer((6, 7), near=0.5, far=10.0)(*random_faces(3), 0.5)
    assert (raw - expected).abs().max() > 1e-4


def test_a_description_says_what_it_is_made_of() -> None:
    text = WHOLE["all learned"]().describe()
    for part in (
        "network 1-3-2-3-1, moving with progress, scale 0.3 -> 0.023 by 3 knots",
        "network 1-3-3-1, gamma 0.3 -> 0.05",
        "hamacher, p 0.3 -> 2",
        "60",
        "make test",
        '{"mean error": 0.25}',
    ):
        assert part in text
    text = repr(WHOLE["distributions"]())
    for part in (
        "gumbel_min, scale 0.16 -> 0.02",
        "gamma, gamma 0.3, shape 1.5, shift -0.2",
        "schweizer_sklar, p -0.7",
        "lr: 0.1",
        "steps: 5",
    ):
        assert part in text
    assert "depth: hard; alpha: max; lr: none; steps: any" in repr(WHOLE["hard"]())


@pytest.mark.parametrize(
    ("make", "named"),
    [
        (lambda edge: tr.Softening("logistic"), "edge: expected a EdgeSoftness, got str"),  # type: ignore[arg-type]
        (lambda edge: tr.Softening(edge, depth=edge), "depth: "),
        (lambda edge: tr.Softening(edge, alpha="max"), "alpha: "),  # type: ignore[arg-type]
        (lambda edge: tr.Softening(edge, lr=-1.0), "lr: expected positive"),
        (lambda edge: tr.Softening(edge, steps=0), "steps: expected a whole number >= 1"),
        (lambda edge: tr.Softening(edge, steps=True), "steps: "),
        (lambda edge: tr.Softening(edge, card=["task"]), "card: "),  # type: ignore[arg-type]
        (lambda edge: tr.Softening(edge).learning_rate(0.5), "lr: this softening has no"),
        (lambda edge: tr.Softening(edge, lr=0.1).learning_rate(1.5), "progress: "),
    ],
)
def test_bad_arguments_are_named(make: Callable[[Any], object], named: str) -> None:
    with pytest.raises((TypeError, ValueError), match=f"^{named}"):
        make(tr.Distribution("logistic"))


class OwnDepth(tr.SoftmaxDepth):
    pass


@pytest.mark.parametrize(
    ("softening", "named"),
    [
        (tr.Softening(network(), OwnDepth()), "depth: cannot save a OwnDepth"),
        (tr.Softening(network(), tr.SoftmaxDepth(Own())), "depth.gamma: cannot save a Own"),
        (tr.Softening(network(), alpha=tr.TConorm("yager", Own())), "alpha.p: cannot save a Own"),
        (tr.Softening(network(), lr=Own()), "softening.lr: cannot save a Own"),
        (tr.Softening(network(), card={"x": torch.ones(1)}), "card: must be what JSON can hold"),
        (tr.Softening(network(), card={"x": float("nan")}), "card: must be what JSON can hold"),
        (network(), "softening: expected a Softening, got MLPSoftness"),
    ],
)
def test_what_cannot_be_saved_is_named(softening: Any, named: str, tmp_path: Path) -> None:
    with pytest.raises((TypeError, ValueError), match=f"^{named}"):
        tr.save_softening(tmp_path / "softening.safetensors", softening)
    assert not list(tmp_path.iterdir())


_ONE = torch.ones((), dtype=torch.float64)
SPOILT: dict[str, tuple[Spoil, str]] = {
    "steps": (edit("steps", to=2.5), "steps: expected a whole number"),
    "card": (edit("card", to="x"), "file.card: expected an object"),
    "lr kind": (edit("lr", to="Cosine"), "file.lr: unknown schedule 'Cosine'"),
    "no lr": (edit("lr", to=None), "file: unexpected tensors lr.log_values, lr.positions"),
    "conorm": (edit("alpha", "name", to="sum"), "unknown T-conorm 'sum'"),
    "no p": (edit("alpha", "name", to="max"), "alpha: unexpected tensors alpha.p"),
    "p": (
        lambda d, t: (edit("alpha", "p", to="number")(d, t), t.update({"alpha.p": -_ONE})),
        "'hamacher' needs a finite p",
    ),
    "depth kind": (edit("depth", "kind", to="psi"), "depth.kind: unknown 'psi'"),
    "no depth": (lambda d, t: d.pop("depth"), "lacks 'depth'"),
    "depth network": (edit("depth", "widths", to=[4, 4]), "depth.weights: expected shape"),
    "gamma": (
        lambda d, t: (
            edit("depth", "gamma", to="Constant")(d, t),
            t.update({"depth.gamma.value": -_ONE}),
        ),
        "depth.gamma: value: expected positive",
    ),
    "background": (lambda d, t: t.update({"depth.background_z": -_ONE}), "background_z: expected"),
    "edge scale": (
        lambda d, t: (
            edit("edge", "scale", to="Shift")(d, t),
            t.update({"edge.scale.value": -_ONE}),
        ),
        "edge.scale: expected positive",
    ),
    "learned": (edit("learned", to=3), "learned: expected a list"),
}


@pytest.mark.parametrize("name", SPOILT)
def test_a_spoilt_file_is_refused_and_the_spoilt_part_named(name: str, tmp_path: Path) -> None:
    spoil, named = SPOILT[name]
    path = tmp_path / "whole.safetensors"
    tr.save_softening(path, WHOLE["all learned"]())
    rewrite(path, spoil)
    with pytest.raises(ValueError, match=f"^path: .*whole.safetensors is not a usable.*{named}"):
        tr.load_softening(path)


def test_a_depth_distribution_that_nobody_knows_is_named(tmp_path: Path) -> None:
    path = tmp_path / "whole.safetensors"
    tr.save_softening(path, WHOLE["distributions"]())
    rewrite(path, edit("depth", "name", to="normal"))
    with pytest.raises(ValueError, match="unknown distribution 'normal'; known: cauchy"):
        tr.load_softening(path)


def test_an_edge_alone_is_no_softening_and_the_error_says_what_to_do(tmp_path: Path) -> None:
    path = tmp_path / "edge.safetensors"
    tr.save_softness(path, network())
    with pytest.raises(ValueError, match="holds an edge softness alone; use load_softness"):
        tr.load_softening(path)
    with pytest.raises(FileNotFoundError, match=r"^path: no softening file at .*none"):
        tr.load_softening(tmp_path / "none.safetensors")


# --- what is shipped ------------------------------------------------------------------------------


def test_pretrained_softenings_are_found_by_name(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(MODULE, "_folder", lambda: tmp_path)
    with pytest.raises(ValueError, match=r"^name: no pretrained softening 'pose'; known: none"):
        tr.pretrained("pose")
    for name in ("shape3d", "pose"):
        tr.save_softening(tmp_path / f"{name}.safetensors", WHOLE["all learned"]())
    (tmp_path / "notes.txt").touch()
    assert tr.pretrained_names() == ["pose", "shape3d"]
    assert tr.pretrained("pose").describe() == WHOLE["all learned"]().describe()
    for name in ("posture", "../pose", "", "pose.safetensors"):
        with pytest.raises(ValueError, match="known: pose, shape3d"):
            tr.pretrained(name)


def test_a_folder_that_is_missing_holds_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(MODULE, "_folder", lambda: tmp_path / "files")
    assert tr.pretrained_names() == []


def test_every_shipped_softening_keeps_its_word() -> None:
    """They load, say where they come from, are small, and render with finite gradients."""
    for name in tr.pretrained_names():
        softening = tr.pretrained(name)
        assert not [key for key in CARD_KEYS if not str(softening.card.get(key, ""))], name
        assert softening.steps is not None and softening.lr is not None, name
        assert isinstance(softening.card["optimiser"], dict), name
        assert softening.card["optimiser"].get("name"), name
        for progress in (0.0, 0.5, 1.0):
            vertices = random_faces(7)[0].requires_grad_()
            image = picture(softening, progress, vertices)
            (gradient,) = torch.autograd.grad(image.square().sum(), vertices)
            assert bool(torch.isfinite(image).all() and torch.isfinite(gradient).all()), name
            assert image[..., -1].max() > 0.1 and gradient.abs().max() > 0, name
            assert softening.learning_rate(progress) > 0, name
        assert (ROOT / "taichi_raster/presets/files" / f"{name}.safetensors").stat().st_size < (
            LARGEST
        ), name


def test_every_file_in_the_shipped_folders_is_packaged() -> None:
    text = (ROOT / "pyproject.toml").read_text()
    patterns = ["presets/files/*.safetensors", "presets/policies/*.safetensors"]
    assert 'taichi_raster = ["' + '", "'.join(patterns) + '"]' in text
    for pattern in patterns:
        folder = ROOT / "taichi_raster" / pattern.rpartition("/")[0]
        for path in folder.iterdir() if folder.is_dir() else []:
            assert fnmatch.fnmatch(f"{folder.name}/{path.name}", pattern.partition("/")[2]), path


def test_the_shipped_policy_stays_near_its_start_and_answers_what_it_is_shown() -> None:
    policy, plain = tr.universal_policy(), tr.SofteningPolicy()
    assert policy.has_feedback and not any(p.requires_grad for p in policy.parameters())
    assert not [key for key in CARD_KEYS if not str(policy.card.get(key, ""))]
    u, distance = (torch.tensor(v, dtype=torch.float64) for v in (0.5, [0.3, 0.3]))
    pixel = torch.full_like(distance, 1 / 16)
    start = plain.at(u, distance, pixel)
    near, far = -3.0, -1.0  # the logarithm of the distance that is left
    signals = torch.tensor([[near, -2.0, -2.0, 0.3], [far, 0.0, 0.0, 0.3]], dtype=torch.float64)
    shown = policy.at(u, distance, pixel, signals)
    for part in ("scale", "eta", "gamma"):
        factors = getattr(shown, part) / getattr(start, part)
        assert bool((factors > 1 / 3).all() and (factors < 3).all())  # a guide, not a rudder
        assert float((factors[0] - factors[1]).abs()) > 0.01
