"""`taichi-raster learn TASK.py`: from a user's own file to a softening, or one line of why not."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch

import taichi_raster as tr
from meta.commands.learn import check, family_of
from paths import ROOT

pytestmark = pytest.mark.runs_on(arch="cpu", precision="f32")

TASK = '''
from __future__ import annotations

from dataclasses import dataclass

import torch
import taichi_raster as tr

SIZE = 12
SHARP = tr.SharpRasterizer(SIZE)


def picture(centre, renderer, **options):
    corners = torch.tensor([[-0.3, -0.3], [0.3, -0.3], [0.0, 0.4]]) + centre[:, None]
    return renderer(tr.lift_triangles(corners[:, None], torch.ones(1)), None, **options)


@dataclass(frozen=True)
class Batch:
    hidden: torch.Tensor
    initial: torch.Tensor

    batch_size = property(lambda self: len(self.hidden))

    def start(self):
        return self.initial

    def loss(self, params, renderer, progress):
        target = picture(self.hidden, SHARP).detach()
        return (picture(params, renderer, progress=progress) - target).square().mean((1, 2, 3))

    def true_error(self, params):
        return ((params - self.hidden).square().sum(1) + 1e-24).sqrt()

    def image_error(self, params):
        return (picture(params, SHARP) - picture(self.hidden, SHARP)).square().mean((1, 2, 3))

    def metrics(self, params):
        return {"distance": self.true_error(params)}

    def repeat(self, copies):
        return self.select(list(range(self.batch_size)) * copies)

    def select(self, instances):
        return Batch(self.hidden[instances], self.initial[instances])


@dataclass(frozen=True)
class Triangles:
    """A triangle's place from its silhouette."""

    failure_threshold = 0.1
    error_floor = 1e-3
    error_name = "distance (NDC)"

    def renderer(self, edge, depth=None, alpha=None):
        return tr.SoftRasterizer(SIZE, edge, depth, alpha)

    def sample(self, batch_size, stream, index):
        seed = {"tune": 0, "train": 1, "test": 2}[stream] * 1_000_003 + index
        g = torch.Generator().manual_seed(seed)
        return Batch(*(torch.rand(2, batch_size, 2, generator=g) - 0.5))
'''


def written(folder: Path, text: str = TASK, old: str = "", new: str = "") -> Path:
    assert old in text
    path = folder / "triangles.py"
    path.write_text(text.replace(old, new, 1) if old else text)
    return path


def test_a_users_own_task_becomes_a_softening(tmp_path: Path) -> None:
    task, out = written(tmp_path), tmp_path / "out"
    command = [sys.executable, "-m", "taichi_raster", "learn", str(task), "--out", str(out)]
    few = ["--tiny", "--steps", "4", "--iterations", "2", "--tasks", "2", "--unseen", "4"]
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    for more in ([], ["--resume"]):
        done = subprocess.run(
            [*command, *few, *more],
            capture_output=True,
            text=True,
            check=False,
            timeout=300,
            env=environment,
        )
        assert done.returncode == 0, done.stderr[-2000:]
    softening = tr.load_softening(out / "softening.safetensors")
    assert softening.steps == 4
    told = "Triangles of triangles.py: A triangle's place from its silhouette."
    assert softening.card["task"] == told
    assert "unseen tasks" in (out / "results.md").read_text()
    assert (out / "softness.png").stat().st_size > 1000


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("import torch\n", "import torch torch\n", r"cannot be imported: SyntaxError: .*line 6"),
        ("SIZE = 12", "SIZE = 1 / 0", r"cannot be imported: ZeroDivisionError"),
        ("def sample", "def draw", r"must have one class with a method sample.*it has none"),
        ("    error_floor = 1e-3\n", "", r"Triangles: has no error_floor. docs/writing_a_task.md"),
        ("    def repeat(", "    def again(", r"Triangles.sample: has no repeat"),
        (".mean((1, 2, 3))\n", ".mean()\n", r"Batch.loss: must give one number an instance"),
        ("+ 1e-24).sqrt()", "* torch.nan).sqrt()", r"Batch.true_error: is not finite at the start"),
        ("return tr.SoftRasterizer(SIZE,", "return tr.SoftRasterizer(0,", r"Triangles.renderer: "),
    ],
)
def test_what_is_wrong_with_a_task_is_said_by_file_and_method(
    old: str, new: str, message: str, tmp_path: Path
) -> None:
    path = written(tmp_path, old=old, new=new)
    with pytest.raises(ValueError, match=message) as caught:
        check(path, family_of(path))
    assert str(caught.value).startswith(f"{path}: ") and "\n" not in str(caught.value)


def test_a_family_is_found_by_name(tmp_path: Path) -> None:
    path = written(tmp_path, TASK + "\n\nclass Others(Triangles):\n    pass\n")
    with pytest.raises(ValueError, match=r"it has several: Triangles, Others; choose one"):
        family_of(path)
    assert type(family_of(path, "Others")).__name__ == "Others"
    with pytest.raises(ValueError, match=r"has no Circles; --family must be a name in it"):
        family_of(path, "Circles")
    with pytest.raises(FileNotFoundError, match=r"none.py: there is no such file"):
        family_of(tmp_path / "none.py")
    assert torch.isfinite(family_of(path, "Triangles").sample(2, "test", 0).hidden).all()
