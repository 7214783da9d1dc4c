"""A forked child is told at once that it cannot render; a spawned one renders."""

from pathlib import Path

import pytest

from programs import run_program

pytestmark = pytest.mark.runs_on(arch="cpu", precision="f64")

FORK = """
import multiprocessing, os, signal
def render(_=None):
    v = torch.tensor([[[[-0.5, -0.5, 2.0], [0.5, -0.5, 2.0], [0.0, 0.5, 2.0]]]], dtype=DTYPE)
    return float(tr.SoftRasterizer(8).silhouette(v).sum())
def told(_=None):
    try:
        render()
    except RuntimeError as error:
        return str(error)
    return "rendered"
"""


def test_a_forked_worker_is_told_at_once_and_ends() -> None:
    """Render, init and runtime; and the child's exit does not wait for Taichi's threads."""
    printed = run_program(
        FORK
        + """
tr.init(ARCH, PRECISION)
render()
with multiprocessing.get_context("fork").Pool(2) as pool:
    for message in pool.map_async(told, range(4)).get(30):
        assert "fork" in message and "spawn" in message, message
for call in (tr.runtime, lambda: tr.init(ARCH, PRECISION), lambda: tr.pretrained("pose")):
    child = os.fork()
    if child == 0:
        signal.alarm(30)  # a child that hangs is killed
        try:
            call()
        except RuntimeError as error:
            sys.exit(0 if "spawn" in str(error) else 2)
        sys.exit(1)
    status = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    assert status in (0, 1) if call is not tr.runtime else status == 0, status
child = os.fork()
if child == 0:
    signal.alarm(30)
    sys.exit(0)
assert os.waitpid(child, 0)[1] == 0, "a child that renders nothing hangs at its end"
render()
print("parent goes on")
"""
    )
    assert "parent goes on" in printed


def test_a_loader_with_forked_workers_is_told_and_with_spawned_ones_renders(tmp_path: Path) -> None:
    module = tmp_path / "dataset_of_renders.py"
    module.write_text(
        FORK.replace("import multiprocessing", "import torch, multiprocessing")
        + """
import taichi_raster as tr
DTYPE = torch.float32
class Renders(torch.utils.data.Dataset):
    def __len__(self):
        return 2
    def __getitem__(self, i):
        return render()
"""
    )
    run_program(
        f"sys.path.insert(0, {str(tmp_path)!r})"
        """
from dataset_of_renders import Renders, render
expected = render()
def load(context):
    loader = torch.utils.data.DataLoader(
        Renders(), num_workers=1, multiprocessing_context=context, timeout=120
    )
    return [float(each) for each in loader]
try:
    load("fork")
    raise AssertionError("a forked worker rendered")
except RuntimeError as error:
    assert "spawn" in str(error), error
for context in ("spawn", "forkserver"):
    assert load(context) == [expected] * 2
"""
    )


def test_forking_before_the_first_render_is_right() -> None:
    run_program(
        FORK
        + """
with multiprocessing.get_context("fork").Pool(2) as pool:
    found = pool.map_async(render, range(3)).get(120)
tr.init("cpu", "f32")
assert [abs(each - found[0]) < 1e-6 for each in found] == [True] * 3
""".replace("tr.init(", "tr.init("),
        start="PRECISION = 'f32'\nDTYPE = torch.float32\nimport taichi_raster as tr, sys\n",
    )
