"""Videos frame by frame; one that ends early says so after what could be read."""

from __future__ import annotations

from pathlib import Path

import av
import numpy as np
import pytest

import taichi_raster as tr

pytestmark = pytest.mark.runs_on(arch="cpu", precision="f32")


def clip(path: Path, count: int = 24) -> Path:
    """Grey frames, each a little lighter, the file's index at its front."""
    with av.open(str(path), "w", options={"movflags": "faststart"}) as file:
        stream = file.add_stream("mpeg4", rate=25)
        stream.width, stream.height, stream.pix_fmt = 64, 48, "yuv420p"
        generator = np.random.default_rng(0)
        for i in range(count):
            pixels = np.full((48, 64, 3), 20 + 8 * i, np.uint8)
            pixels[::2] += generator.integers(0, 20, (24, 64, 3), dtype=np.uint8)
            file.mux(stream.encode(av.VideoFrame.from_ndarray(pixels, format="rgb24")))
        file.mux(stream.encode())
    return path


def test_frames_come_in_order(tmp_path: Path) -> None:
    path = clip(tmp_path / "clip.mp4")
    frames = list(tr.read_video(path))
    assert len(frames) == 24
    assert all(frame.shape == (48, 64, 3) and frame.dtype == np.uint8 for frame in frames)
    means = np.array([frame[1::2].mean() for frame in frames])
    np.testing.assert_allclose(means, 20 + 8 * np.arange(24), atol=6)
    assert len(list(tr.read_video(path, every=5))) == 5


def test_what_comes_before_a_broken_end_is_read(tmp_path: Path) -> None:
    path = clip(tmp_path / "clip.mp4")
    path.write_bytes(path.read_bytes()[: path.stat().st_size * 2 // 3])
    frames: list[np.ndarray] = []
    with pytest.raises(ValueError, match=r"clip.mp4: ends early, after frame \d+ of 24"):
        frames.extend(tr.read_video(path))
    assert 2 < len(frames) < 20


def test_what_is_no_video_is_said_at_once(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match=r"none.mp4: there is no such video"):
        tr.read_video(tmp_path / "none.mp4")
    (tmp_path / "text.mp4").write_text("hello" * 100)
    with pytest.raises(ValueError, match=r"text.mp4: is no video that FFmpeg reads"):
        tr.read_video(tmp_path / "text.mp4")
    with pytest.raises(ValueError, match="every: expected a positive integer"):
        tr.read_video(tmp_path / "text.mp4", every=0)
