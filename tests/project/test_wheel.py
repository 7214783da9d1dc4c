"""The wheel holds the packages and nothing else, and works elsewhere, beside files of their names.

It is built without a network, installed into an environment that has the dependencies of this one
but not the checkout, and used from a folder with a `tasks.py` and a `meta.py` of its own.
"""

import os
import shutil
import subprocess
import sys
import sysconfig
import textwrap
import venv
import zipfile
from pathlib import Path

import pytest

from paths import ROOT

pytestmark = pytest.mark.runs_on(arch="cpu", precision="f32")

PACKAGES = ("taichi_raster", "meta", "tasks")
DATA = (".py", ".typed", ".safetensors")

# What a user's script sees, in a folder with files called like two of the packages.
SCRIPT = """
import importlib
import sys
from pathlib import Path

import torch

import taichi_raster as tr

here, installed = Path(__file__).resolve().parent, Path(sys.argv[1]).resolve()
assert Path(tr.__file__).is_relative_to(installed), tr.__file__
assert not {"meta", "tasks"} & set(sys.modules), "the renderer has imported them"

import meta
import tasks

# Python's rule: the script's folder comes first.
assert (meta.MINE, tasks.MINE) == ("my meta", "my tasks")

import taichi_raster.meta as learning
import taichi_raster.tasks as families
from taichi_raster.meta.inner.updates import Adam
from taichi_raster.tasks import Shape2D

for module in (learning, families):
    assert Path(module.__file__).is_relative_to(installed), module.__file__
assert Adam is learning.Adam and Shape2D is families.shape2d.Shape2D
assert sys.modules["tasks"] is tasks and sys.modules["meta"] is meta
assert importlib.import_module("tasks").MINE == "my tasks" and Path(tasks.__file__).parent == here

tr.init(arch="cpu")
method = learning.Method(tr.SoftRasterizer(16), Adam(), tr.Constant(0.05), 3)
task = Shape2D(image_size=16, triangles=1).sample(2, "test", 0)
run = learning.unroll(method, task)
assert run.losses.shape == (3, 2) and bool(torch.isfinite(run.params).all())
print("all is well")
"""

MINE = "MINE = 'my {}'\n"

# Whichever package comes first, and before the user's own modules: one module each, all reachable.
FIRST = """
import sys
import taichi_raster.{0}
import taichi_raster.tasks.reconstruction.training as training
from taichi_raster.meta.outer import checkpoint
import meta
import tasks

assert (meta.MINE, tasks.MINE) == ("my meta", "my tasks")
assert training.load_checkpoint is checkpoint.load_checkpoint
assert taichi_raster.tasks.reconstruction.training is training
assert not [name for name in sys.modules if name.startswith(("meta.", "tasks."))]
print("all is well")
"""

# Where only one of the names is taken, the other package is found as usual.
PLAIN = """
import sys
import meta
assert hasattr(meta, "OuterTrainer") and "tasks" not in sys.modules
import tasks
assert tasks.MINE == "my tasks"
import taichi_raster.meta
assert taichi_raster.meta is meta
print("all is well")
"""


def run(*command: str | Path, cwd: Path) -> str:
    """Output of a command in a folder, without what this run has put in the environment."""
    environment = {k: v for k, v in os.environ.items() if not k.startswith("PYTHON")}
    done = subprocess.run(
        [str(part) for part in command],
        cwd=cwd,
        env=environment,
        text=True,
        timeout=300,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        check=False,
    )
    assert done.returncode == 0, done.stdout
    return done.stdout


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Built from a copy, so that nothing is left in the checkout, and nothing old gets in."""
    source, folder = tmp_path_factory.mktemp("source"), tmp_path_factory.mktemp("wheel")
    for package in PACKAGES:
        shutil.copytree(
            ROOT / package, source / package, ignore=shutil.ignore_patterns("__pycache__")
        )
    for file in ("pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(ROOT / file, source)
    run(
        sys.executable,
        "-m",
        "pip",
        "wheel",
        "--no-deps",
        "--no-index",
        "--no-build-isolation",
        "--wheel-dir",
        folder,
        source,
        cwd=source,
    )
    (found,) = folder.glob("*.whl")
    return found


@pytest.fixture(scope="module")
def python(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An interpreter with the wheel, and with the dependencies of the one that runs this."""
    home = tmp_path_factory.mktemp("environment")
    venv.create(home, with_pip=False, symlinks=os.name != "nt")
    paths = sysconfig.get_paths(vars={"base": str(home), "platbase": str(home)})
    executable = Path(paths["scripts"]) / Path(sys.executable).name
    executable = executable if executable.exists() else Path(paths["scripts"]) / "python"
    run(
        sys.executable,
        "-m",
        "pip",
        "install",
        "--no-deps",
        "--no-index",
        "--target",
        paths["purelib"],
        wheel,
        cwd=home,
    )
    # A path in a .pth file is searched, but its own .pth files (editable installs) are not read.
    (Path(paths["purelib"]) / "dependencies.pth").write_text(sysconfig.get_path("purelib") + "\n")
    return executable


def test_the_wheel_holds_the_packages_whole_and_nothing_else(wheel: Path) -> None:
    assert wheel.name.endswith("-py3-none-any.whl")
    names = {name for name in zipfile.ZipFile(wheel).namelist() if ".dist-info/" not in name}
    expected = {
        str(path.relative_to(ROOT))
        for package in PACKAGES
        for path in (ROOT / package).rglob("*")
        if path.suffix in DATA
    }
    assert names == expected
    assert all(f"{package}/py.typed" in names for package in PACKAGES)


def test_it_works_beside_a_tasks_and_a_meta_of_the_users(python: Path, tmp_path: Path) -> None:
    (tmp_path / "tasks.py").write_text(MINE.format("tasks"))
    (tmp_path / "meta.py").write_text(MINE.format("meta"))
    (tmp_path / "use.py").write_text(textwrap.dedent(SCRIPT))
    assert "all is well" in run(python, "use.py", python.parent.parent, cwd=tmp_path)


@pytest.mark.parametrize("first", ["meta", "tasks"])
def test_what_one_package_uses_of_the_other_is_found(
    first: str, python: Path, tmp_path: Path
) -> None:
    (tmp_path / "tasks.py").write_text(MINE.format("tasks"))
    (tmp_path / "meta.py").write_text(MINE.format("meta"))
    (tmp_path / "use.py").write_text(FIRST.format(first))
    assert "all is well" in run(python, "use.py", cwd=tmp_path)


def test_a_meta_of_the_users_does_not_get_in_the_way_of_tasks(python: Path, tmp_path: Path) -> None:
    (tmp_path / "meta.py").write_text(MINE.format("meta"))
    (tmp_path / "use.py").write_text(
        "import meta\nimport tasks\nfrom taichi_raster.tasks import reconstruction\n"
        "assert meta.MINE == 'my meta' and tasks.reconstruction is reconstruction\n"
        "assert reconstruction.training.load_checkpoint\nprint('all is well')\n"
    )
    assert "all is well" in run(python, "use.py", cwd=tmp_path)


def test_a_tasks_of_the_users_does_not_get_in_the_way_of_meta(python: Path, tmp_path: Path) -> None:
    (tmp_path / "tasks.py").write_text(MINE.format("tasks"))
    (tmp_path / "use.py").write_text(PLAIN)
    assert "all is well" in run(python, "use.py", cwd=tmp_path)
