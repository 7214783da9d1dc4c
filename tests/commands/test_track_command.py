"""`taichi-raster track`: what it writes, and what it keeps of a video that ends early."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import av
import pytest
import torch
from PIL import Image

import taichi_raster as tr
from clips import SIZE, drawn, painted, poses
from paths import ROOT
from taichi_raster.commands.app import main

pytestmark = pytest.mark.runs_on(arch="cpu", precision="f32")


def given(folder: Path, count: int, still: int) -> list[str]:
    """A mesh, a video of a few poses and then still, a start: their arguments."""
    mesh, truth = painted(), poses(count)
    tr.save_mesh(folder / "box.ply", mesh)
    with av.open(str(folder / "clip.mp4"), "w", options={"movflags": "faststart"}) as file:
        stream = file.add_stream("mpeg4", rate=25, options={"qscale": "2"})
        stream.height, stream.width = SIZE
        stream.pix_fmt = "yuv420p"
        pictures = [(drawn(mesh, pose) * 255).byte().numpy() for pose in truth]
        for picture in pictures + pictures[-1:] * still:
            file.mux(stream.encode(av.VideoFrame.from_ndarray(picture, format="rgb24")))
        file.mux(stream.encode())
    (folder / "start.json").write_text(json.dumps(truth[0].to_dict()[0]))
    intrinsics = {
        "camera_matrix": [[144.0, 0.0, 82.5], [0.0, 144.0, 61.3], [0.0, 0.0, 1.0]],
        "distortion_coefficients": [0.0] * 5,
    }
    (folder / "camera.json").write_text(json.dumps(intrinsics))
    names = ("box.ply", "clip.mp4", "--start", "start.json", "--camera", "camera.json")
    return [name if name[0] == "-" else str(folder / name) for name in names]


def test_a_video_that_ends_early_leaves_what_was_tracked(tmp_path: Path) -> None:
    arguments = given(tmp_path, 3, 20)
    clip, out = tmp_path / "clip.mp4", tmp_path / "out"
    clip.write_bytes(clip.read_bytes()[: clip.stat().st_size - 400])
    done = subprocess.run(
        [
            sys.executable,
            "-m",
            "taichi_raster",
            "track",
            *arguments,
            "--out",
            str(out),
            "--every",
            "2",
        ],
        capture_output=True,
        text=True,
        check=False,
        timeout=600,
        env={**os.environ, "PYTHONPATH": os.pathsep.join([str(ROOT), *sys.path])},
    )
    assert done.returncode == 1
    assert re.search(
        r"^taichi-raster: .*clip\.mp4: ends early, after frame", done.stderr, re.MULTILINE
    )
    found = json.loads((out / "poses.json").read_text())["poses"]
    assert len(found) > 2 and [one["frame"] for one in found[:3]] == [0, 2, 4]
    assert all(one["converged"] and len(one["covariance"]) == 6 for one in found)
    truth = poses(3)
    for one, pose in zip(found[:2], truth[::2], strict=True):
        error = tr.Pose(*(_tensor(one[name]) for name in ("rotation", "translation")))
        assert float(error.angle_to(pose)) < 0.7
    with Image.open(out / "overlay.gif") as gif:
        assert getattr(gif, "n_frames", 1) > 1


def _tensor(values: list[float]) -> torch.Tensor:
    return torch.tensor(values, dtype=torch.float64)


def test_what_is_missing_is_said_in_one_line(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    arguments = given(tmp_path, 1, 0)
    out = ["--out", str(tmp_path / "out")]
    assert main(["track", *arguments, "--focal", "100", *out]) == 1
    assert "--camera, --focal: give one of them" in capsys.readouterr().err
    assert main(["track", arguments[0], "none.mp4", *arguments[2:], *out]) == 1
    assert "none.mp4: there is no such video" in capsys.readouterr().err
    tr.save_mesh(tmp_path / "box.ply", tr.box())
    assert main(["track", *arguments, *out]) == 1
    assert "box.ply: has no texture and no colours" in capsys.readouterr().err
