"""`taichi-raster view`: a window opens, turns and closes; a page is shown in the browser."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import webbrowser
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

import taichi_raster as tr
from paths import ROOT
from taichi_raster.commands.app import main

pytestmark = pytest.mark.runs_on(arch="cpu", precision="f32")


def test_a_window_shows_the_mesh_of_a_folder(tmp_path: Path) -> None:
    """In a process of its own, on a virtual display."""
    if shutil.which("xvfb-run") is None:
        if os.environ.get("TAICHI_RASTER_REQUIRE_VULKAN"):
            pytest.fail("xvfb-run is not installed")
        pytest.skip("xvfb-run is not installed")
    tr.save_mesh(tmp_path / "mesh.obj", tr.icosphere(2))
    shown = tmp_path / "shown.png"
    command = ["xvfb-run", "-a", "-s", "-screen 0 640x480x24", sys.executable, "-m"]
    command += ["taichi_raster", "view", str(tmp_path), "--size", "96", "--frames", "3"]
    done = subprocess.run(
        [*command, "--screenshot", str(shown)],
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
    )
    assert done.returncode == 0, done.stderr[-2000:]
    image = np.asarray(Image.open(shown).convert("L")).astype(float)
    assert image.shape == (96, 96) and image[48, 48] < 230 and image[2, 2] > 250


def test_a_report_is_opened_and_a_mesh_gets_a_page(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    opened: list[str] = []

    def remember(url: str) -> bool:
        opened.append(url)
        return True

    monkeypatch.setattr(webbrowser, "open", remember)
    tr.save_mesh(tmp_path / "ball.obj", tr.icosphere(1))
    for _ in range(2):  # the second time over its own page
        assert main(["view", str(tmp_path / "ball.obj"), "--browser"]) == 0
    assert opened[0] == (tmp_path / "ball.html").as_uri()
    assert "ball.obj" in (tmp_path / "ball.html").read_text()
    (tmp_path / "report.html").write_text("a report")
    assert main(["view", str(tmp_path), "--browser"]) == 0
    assert opened[-1] == (tmp_path / "report.html").as_uri()
    assert (tmp_path / "report.html").read_text() == "a report"
    (tmp_path / "ball.html").write_text("somebody's own")
    assert main(["view", str(tmp_path / "ball.obj"), "--browser"]) == 1
    assert "ball.html: is there already" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("arguments", "text"),
    [
        (["nothing"], "nothing: there is no such file or folder"),
        ([".", "--size", "3"], "--size: expected 32 to 4096, got 3"),
        (["tests", "--browser"], "tests: has none of mesh.glb, mesh.obj, mesh.ply"),
    ],
)
def test_what_cannot_be_shown_is_named(
    arguments: list[str],
    text: str,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(ROOT)
    assert main(["view", *arguments]) == 1
    assert text in capsys.readouterr().err


def test_without_a_display_it_says_so(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    tr.save_mesh(tmp_path / "ball.obj", tr.icosphere(1))
    monkeypatch.setattr(sys, "platform", "linux")
    monkeypatch.delenv("DISPLAY", raising=False)
    assert main(["view", str(tmp_path / "ball.obj")]) == 1
    assert "there is no display" in capsys.readouterr().err
