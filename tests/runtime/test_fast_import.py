"""The import is fast by a shortcut of `inspect`, which gives what inspect gives and is undone."""

import importlib
import inspect
import sys

import pytest

from programs import run_program
from taichi_raster.runtime import fast_import

pytestmark = pytest.mark.runs_on(arch="cpu", precision="f32")


def test_lines_around_declarations_are_those_of_inspect(tmp_path, monkeypatch) -> None:
    (tmp_path / "framed.py").write_text(
        "import sys\nframes = [sys._getframe(0)]\n"
        "importing = sys._getframe(1)\n"
        "class Inside:\n    frames.append(sys._getframe(1))\n    own = sys._getframe(0)\n"
    )
    monkeypatch.syspath_prepend(tmp_path)
    framed = importlib.import_module("framed")
    assert framed.importing.f_code.co_filename.startswith("<frozen ")
    for frame in (*framed.frames, framed.importing, framed.Inside.own, sys._getframe(0)):
        wanted, found = inspect.getframeinfo(frame), fast_import._quick(frame)
        assert found[:5] == wanted[:5]
    assert inspect.getframeinfo is fast_import._getframeinfo  # once the package is imported
    assert fast_import._quick(sys._getframe(0), 3) == inspect.getframeinfo(sys._getframe(0), 3)


def test_an_import_that_fails_leaves_pythons_own_functions_alone() -> None:
    run_program(
        """
import inspect, sys
own = inspect.getframeinfo
sys.modules["taichi_raster.fitting.metrics"] = None
try:
    import taichi_raster
    raise AssertionError("imported")
except ImportError:
    pass
assert inspect.getframeinfo is own
""",
        start="",
    )


def test_libraries_that_take_long_are_imported_by_those_who_need_them() -> None:
    """roma alone imports torch's compiler: 1.3 of the 4 seconds that an import once took."""
    run_program(
        """
import sys
import taichi_raster, tasks
slow = {"scipy", "trimesh", "roma", "torch._dynamo", "matplotlib", "skimage", "sympy"}
assert not slow & set(sys.modules), slow & set(sys.modules)
""",
        start="",
    )
