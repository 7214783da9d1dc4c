"""Bad input: an error that names the argument, before any kernel runs."""

import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.func import functional_call

import taichi_raster as tr
from paths import ROOT
from scenes import random_faces
from taichi_raster import checks

pytestmark = pytest.mark.runs_on(arch="cpu", precision="f64")


@pytest.fixture
def faces(dtype: torch.dtype) -> tuple[Tensor, Tensor]:
    return random_faces(121, dtype=dtype)


@pytest.fixture
def renderer() -> tr.SoftRasterizer:
    return tr.SoftRasterizer(image_size=8, edge=tr.Distribution("logistic", scale=0.1))


def other(dtype: torch.dtype) -> torch.dtype:
    return torch.float32 if dtype == torch.float64 else torch.float64


def with_value(tensor: Tensor, value: float) -> Tensor:
    tensor = tensor.clone()
    tensor[0, 1, 2, 0] = value
    return tensor


# What is wrong, with the arguments that it makes of good ones, and what the message has to say.
TENSORS: dict[str, tuple[Callable[..., Any], Any, str]] = {
    "vertices of wrong rank": (lambda v, a: (v[0], a), ValueError, "face_vertices.*shape"),
    "vertices of wrong shape": (lambda v, a: (v[..., :2], a), ValueError, "face_vertices.*shape"),
    "attributes of wrong rank": (lambda v, a: (v, a[0]), ValueError, "face_attributes.*shape"),
    "attributes of another face count": (lambda v, a: (v, a[:, 1:]), ValueError, "face_attributes"),
    "attributes of another batch": (lambda v, a: (v, a[:1]), ValueError, "face_attributes"),
    "attributes without channels": (lambda v, a: (v, a[..., :0]), ValueError, "face_attributes"),
    "vertices of wrong dtype": (
        lambda v, a: (v.to(other(v.dtype)), a),
        TypeError,
        "face_vertices.*expected torch.float",
    ),
    "attributes of wrong dtype": (
        lambda v, a: (v, a.to(other(v.dtype))),
        TypeError,
        "face_attributes.*expected torch.float",
    ),
    "integer vertices": (lambda v, a: (v.int(), a), (TypeError, ValueError), "face_vertices"),
    "vertices that are no tensor": (lambda v, a: (v.tolist(), a), TypeError, "face_vertices"),
    "attributes that are no tensor": (lambda v, a: (v, a.numpy()), TypeError, "face_attributes"),
    "tensors on different devices": (lambda v, a: (v, a.to("meta")), ValueError, "device"),
    "vertices that are not a number": (
        lambda v, a: (with_value(v, float("nan")), a),
        ValueError,
        "face_vertices.*(?i:nan|finite)",
    ),
    "vertices that are infinite": (
        lambda v, a: (with_value(v, float("inf")), a),
        ValueError,
        "face_vertices.*(?i:inf)",
    ),
    "an empty batch": (lambda v, a: (v[:0], a[:0]), ValueError, "face_vertices.*(?i:empty|batch)"),
    "no faces": (lambda v, a: (v[:, :0], a[:, :0]), ValueError, "face_vertices.*(?i:empty|face)"),
    "everything before near": (
        lambda v, a: (v * v.new_tensor([1, 1, 1e-3]), a),
        ValueError,
        "near.*far",
    ),
    "everything beyond far": (
        lambda v, a: (v * v.new_tensor([1, 1, 1e3]), a),
        ValueError,
        "near.*far",
    ),
    "everything behind the eye": (
        lambda v, a: (v * v.new_tensor([1, 1, -1]), a),
        ValueError,
        "near.*far",
    ),
}


@pytest.fixture
def no_kernel(monkeypatch: pytest.MonkeyPatch) -> None:
    """Any launch of a Taichi kernel fails the test."""
    from taichi.lang.kernel_impl import Kernel

    from taichi_raster.runtime.launcher import Launcher

    def launched(self: object, *_: object) -> None:
        pytest.fail(f"a kernel ran before the error: {self}")

    monkeypatch.setattr(Kernel, "launch_kernel", launched)
    monkeypatch.setattr(Launcher, "__call__", launched)


@pytest.mark.parametrize("what", TENSORS)
@pytest.mark.usefixtures("no_kernel")
def test_bad_tensors_are_refused(
    what: str, faces: tuple[Tensor, Tensor], renderer: tr.SoftRasterizer
) -> None:
    spoil, error, message = TENSORS[what]
    bad = spoil(*faces)
    with pytest.raises(error, match=message):
        renderer(*bad)
    with pytest.raises(error, match=message):
        tr.SharpRasterizer(image_size=8)(*bad)
    with pytest.raises(error, match=message):
        renderer.jvp(bad, faces)


@pytest.mark.usefixtures("no_kernel")
def test_the_guard_of_these_tests_works(
    faces: tuple[Tensor, Tensor], renderer: tr.SoftRasterizer
) -> None:
    with pytest.raises(pytest.fail.Exception, match="a kernel ran"):
        renderer(*faces)


NUMBERS: dict[str, list[Any]] = {
    "image_size": [0, -3, (8, 0), (8, 8, 8), 7.5, "8", True],
    "antialias": [0, -1, 1.5],
    "near": [0.0, -1.0, float("nan"), 200.0],
    "far": [0.0, -1.0, 0.05, float("nan")],
    "threshold": [-0.1, 1.0, float("nan")],
    "cutoff": [-0.1, float("nan")],
    "background": [(0.1, float("nan"), 0.2), float("inf"), "black"],
}


@pytest.mark.parametrize(("name", "value"), [(n, v) for n, vs in NUMBERS.items() for v in vs])
def test_bad_settings_are_refused(name: str, value: object) -> None:
    settings: dict[str, Any] = {
        "image_size": 8,
        "edge": tr.Distribution("logistic", scale=0.1),
        name: value,
    }
    with pytest.raises((TypeError, ValueError), match=name):
        tr.SoftRasterizer(**settings)
    if name in ("image_size", "near", "far", "background"):
        sharp: dict[str, Any] = {"image_size": 8, name: value}
        with pytest.raises((TypeError, ValueError), match=name):
            tr.SharpRasterizer(**sharp)


@pytest.mark.parametrize("value", [0.0, -0.1, float("nan"), float("inf")])
def test_scale_and_gamma_must_be_positive(value: float) -> None:
    with pytest.raises(ValueError, match=r"scale.*positive"):
        tr.Distribution("logistic", scale=value)
    with pytest.raises(ValueError, match=r"scale.*positive"):
        tr.Distribution("logistic", scale=torch.tensor(value))
    with pytest.raises(ValueError, match=r"scale.*positive"):
        tr.MLPSoftness(scale=value)
    with pytest.raises(ValueError, match=r"gamma.*positive"):
        tr.SoftmaxDepth(gamma=value)


@pytest.mark.usefixtures("no_kernel")
def test_a_scale_that_turned_bad_is_noticed(faces: tuple[Tensor, Tensor]) -> None:
    """By an optimiser's step, or a schedule of the user's own."""
    scale = torch.nn.Parameter(torch.tensor(0.1))
    renderer = tr.SoftRasterizer(image_size=8, edge=tr.Distribution("logistic", scale=scale))
    for value in (-0.1, 0.0, float("nan")):
        with torch.no_grad():
            scale.fill_(value)
        with pytest.raises(ValueError, match="scale"):
            renderer(*faces)
    gamma = torch.nn.Parameter(torch.tensor(0.1))
    renderer = tr.SoftRasterizer(
        image_size=8, edge=tr.Distribution("logistic", scale=0.1), depth=tr.SoftmaxDepth(gamma)
    )
    with torch.no_grad():
        gamma.fill_(-0.1)
    with pytest.raises(ValueError, match="gamma"):
        renderer(*faces)


@pytest.mark.usefixtures("no_kernel")
def test_weights_that_are_not_finite_are_noticed(faces: tuple[Tensor, Tensor]) -> None:
    edge = tr.MLPSoftness()
    with torch.no_grad():
        edge.weights[0] = float("nan")
    with pytest.raises(ValueError, match="weights"):
        tr.SoftRasterizer(image_size=8, edge=edge)(*faces)


@pytest.mark.usefixtures("no_kernel")
def test_per_instance_parameters_must_fit_the_batch(faces: tuple[Tensor, Tensor]) -> None:
    def renderer(scale: Any = 0.1, gamma: Any = 0.1) -> tr.SoftRasterizer:
        edge = tr.MLPSoftness(scale=scale)
        return tr.SoftRasterizer(image_size=8, edge=edge, depth=tr.SoftmaxDepth(gamma))

    with pytest.raises(ValueError, match="scale"):
        renderer(scale=torch.full((3,), 0.1))(*faces)
    with pytest.raises(ValueError, match="gamma"):
        renderer(gamma=torch.full((3,), 0.1))(*faces)
    weights = renderer().edge.weights
    for bad in (weights[:-1], weights.expand(3, -1), weights[None, None]):
        with pytest.raises(ValueError, match="weights"):
            functional_call(renderer(), {"edge.weights": bad}, faces)


@pytest.mark.usefixtures("no_kernel")
def test_background_must_fit_the_channels(faces: tuple[Tensor, Tensor]) -> None:
    edge = tr.Distribution("logistic", scale=0.1)
    with pytest.raises(ValueError, match="background"):
        tr.SoftRasterizer(image_size=8, edge=edge, background=(0.1, 0.2))(*faces)
    with pytest.raises(ValueError, match="background"):
        tr.SharpRasterizer(image_size=8, background=(0.1, 0.2))(*faces)


@pytest.mark.parametrize("progress", [-0.1, 1.1, float("nan"), torch.zeros(3), torch.zeros(2, 1)])
@pytest.mark.usefixtures("no_kernel")
def test_bad_progress_is_refused(
    progress: object, faces: tuple[Tensor, Tensor], renderer: tr.SoftRasterizer
) -> None:
    with pytest.raises(ValueError, match="progress"):
        renderer(*faces, progress=progress)


def test_unknown_names_list_the_known_ones() -> None:
    with pytest.raises(ValueError, match=r"nonesuch.*gaussian.*logistic.*uniform"):
        tr.Distribution("nonesuch", scale=0.1)
    with pytest.raises(ValueError, match=r"nonesuch.*probabilistic"):
        tr.TConorm("nonesuch")
    with pytest.raises(ValueError, match=r"input.*nonesuch.*asinh.*plain"):
        tr.MLPSoftness(input="nonesuch")
    with pytest.raises(ValueError, match=r"nonesuch.*gaussian.*logistic.*uniform"):
        tr.MLPSoftness(init="nonesuch")
    with pytest.raises(ValueError, match=r"nonesuch.*cpu.*cuda.*vulkan"):
        tr.init(arch="nonesuch")
    with pytest.raises(ValueError, match=r"f16.*f32.*f64"):
        tr.init(precision="f16")


@pytest.mark.parametrize("widths", [(), (4, 0), (4, 5, 3), (4.5,), 4])
def test_bad_networks_are_refused(widths: Any) -> None:
    """The residual joins first and last hidden layer: equal widths."""
    with pytest.raises((TypeError, ValueError), match="widths"):
        tr.MLPSoftness(widths=widths)


def test_modules_of_the_wrong_kind_are_refused() -> None:
    edge = tr.Distribution("logistic", scale=0.1)
    with pytest.raises(TypeError, match="edge"):
        tr.SoftRasterizer(image_size=8, edge="logistic")  # type: ignore[arg-type]
    with pytest.raises(TypeError, match="depth"):
        tr.SoftRasterizer(image_size=8, edge=edge, depth="hard")  # type: ignore[arg-type]
    with pytest.raises(TypeError, match="alpha"):
        tr.SoftRasterizer(image_size=8, edge=edge, alpha="probabilistic")  # type: ignore[arg-type]


def test_missing_and_corrupt_softness_files_are_named(tmp_path: Path) -> None:
    missing = tmp_path / "missing.safetensors"
    with pytest.raises(FileNotFoundError, match=r"missing.safetensors"):
        tr.load_softness(missing)
    whole = tmp_path / "whole.safetensors"
    tr.save_softness(whole, tr.MLPSoftness())
    content = whole.read_bytes()
    for name, spoilt in {
        "empty": b"",
        "noise": b"\xff" * 200,
        "cut": content[: len(content) // 2],
        "text": b"hello",
    }.items():
        path = tmp_path / f"{name}.safetensors"
        path.write_bytes(spoilt)
        with pytest.raises(ValueError, match=f"{name}.safetensors"):
            tr.load_softness(path)


def test_a_file_of_something_else_is_named(tmp_path: Path) -> None:
    from safetensors.torch import save_file

    path = tmp_path / "other.safetensors"
    save_file({"anything": torch.zeros(3)}, path)
    with pytest.raises(ValueError, match=r"other.safetensors"):
        tr.load_softness(path)


# --- the runtime ----------------------------------------------------------------------------------


def test_init_may_be_repeated_but_not_changed(pytestconfig: pytest.Config) -> None:
    arch, precision = (pytestconfig.getoption(f"--{k}") for k in ("arch", "precision"))
    assert tr.init(arch=arch, precision=precision) is tr.runtime()
    different = "f32" if precision == "f64" else "f64"
    with pytest.raises(RuntimeError, match="already runs"):
        tr.init(arch=arch, precision=different)
    with pytest.raises(RuntimeError, match="already runs"):
        tr.init(arch=arch, precision=precision, deterministic=True)
    with pytest.raises(ValueError, match=r"(?i)f64.*vulkan|vulkan.*f64"):
        tr.init(arch="vulkan", precision="f64")


def test_finite_values_are_taken_whatever_their_sum(dtype: torch.dtype) -> None:
    """Their sum may be infinite, or that of infinite ones NaN."""
    most = torch.full((3, 4), torch.finfo(dtype).max, dtype=dtype)
    assert not torch.isfinite(most.sum())
    checks.finite("an infinite or NaN value", "x", most)
    both = torch.tensor([torch.inf, -torch.inf], dtype=dtype)
    for bad in (both, both[:1], torch.tensor([0.0, torch.nan], dtype=dtype)):
        with pytest.raises(ValueError, match="x: holds an infinite or NaN value"):
            checks.finite("an infinite or NaN value", "x", bad)


SCRIPTS = {
    "a missing backend, then ti.init before": (
        """
import taichi as ti, torch
import taichi_raster as tr
if not torch.cuda.is_available():
    try:
        tr.init(arch="cuda")
    except RuntimeError as error:
        assert "this machine has no working 'cuda' backend" in str(error), error
    else:
        raise AssertionError("a backend that this machine lacks")
ti.init(arch=ti.cpu)
tr.init(arch="cpu")
""",
        r"RuntimeError: ti.init\(\) was called before",
    ),
    "ti.init after": (
        """
import taichi as ti, torch
import taichi_raster as tr
tr.init(arch="cpu")
faces = torch.tensor([[[[-0.5, -0.5, 2.0], [0.5, -0.5, 2.0], [0.0, 0.5, 2.0]]]], requires_grad=True)
renderer = tr.SoftRasterizer(image_size=8, edge=tr.Distribution("logistic", scale=0.1))
image = renderer(faces, torch.ones(1, 1, 3, 1))
ti.init(arch=ti.cpu)
for use in (lambda: renderer(faces, torch.ones(1, 1, 3, 1)), lambda: image.sum().backward()):
    try:
        use()
    except RuntimeError as error:
        assert "re-initialised" in str(error), error
    else:
        raise AssertionError("not noticed")
tr.init(arch="cpu")
""",
        "RuntimeError: Taichi was re-initialised",
    ),
}


@pytest.mark.parametrize("what", SCRIPTS)
def test_a_runtime_that_cannot_work_is_refused(what: str) -> None:
    """In a process of its own, which must end by the error and not by a crash."""
    script, message = SCRIPTS[what]
    done = subprocess.run(
        [sys.executable, "-c", script],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert done.returncode == 1, (done.returncode, done.stdout, done.stderr)
    # Taichi may still log a line of its own as the process ends.
    assert re.search(rf"^{message}", done.stderr, re.MULTILINE), done.stderr
