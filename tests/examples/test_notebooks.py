"""The notebooks run from their first cell to their last in a kernel of their own, in small."""

import os
from pathlib import Path

import jupytext
import nbclient
import pytest

from paths import ROOT

pytestmark = [
    pytest.mark.runs_on(arch="cpu", precision="f32"),
    pytest.mark.timeout(420),
    pytest.mark.filterwarnings("ignore::DeprecationWarning"),
]

FOLDER = ROOT / "examples" / "notebooks"
SMALL = {
    "quickstart": "size, steps = 32, 30",
    "photos_to_mesh": "folder = None\ncount, size, steps, face_count, cells = 8, 48, 4, 500, 32",
    "learn_your_own": "steps, iterations, batch, judged = 6, 2, 2, 4",
}
SAYS = {"quickstart": "found", "photos_to_mesh": "faces; masks", "learn_your_own": "octagon"}
PICTURES = {"quickstart": 3, "photos_to_mesh": 1, "learn_your_own": 1}


def test_every_notebook_is_run() -> None:
    assert {path.stem for path in FOLDER.glob("*.py")} == set(SMALL)
    assert all(f"{name}.py" in (FOLDER / "README.md").read_text() for name in SMALL)


@pytest.mark.parametrize("name", SMALL)
def test_a_notebook_runs(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    book = jupytext.read(FOLDER / f"{name}.py")
    tagged = {tag: cell for cell in book.cells for tag in cell.metadata.get("tags", [])}
    assert tagged["install"].source.startswith("%pip install")
    tagged["install"].source = ""
    tagged["parameters"].source = SMALL[name]
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join([str(ROOT), os.environ.get("PYTHONPATH", "")]))
    nbclient.NotebookClient(
        book, timeout=300, kernel_name="python3", resources={"metadata": {"path": str(tmp_path)}}
    ).execute()
    outputs = [out for cell in book.cells if cell.cell_type == "code" for out in cell.outputs]
    assert not [out for out in outputs if out.output_type == "error"]
    text = "".join(out.get("text", "") for out in outputs)
    assert SAYS[name] in text
    shown = [out for out in outputs if "image/png" in out.get("data", {})]
    assert len(shown) >= PICTURES[name]
    if name == "photos_to_mesh":
        assert any("srcdoc" in out.get("data", {}).get("text/html", "") for out in outputs)
