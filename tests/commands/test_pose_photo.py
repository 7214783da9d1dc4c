"""The photo of ``pose`` is read upright, and its mask is that of the same pixels."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image

import taichi_raster as tr
from taichi_raster.commands import pose
from taichi_raster.commands.app import main

pytestmark = pytest.mark.runs_on(arch="cpu", precision="f32")

STORED = {
    1: None,
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    6: Image.Transpose.ROTATE_90,
    8: Image.Transpose.ROTATE_270,
}
"""What a camera that is held so does to the picture that a viewer then shows upright."""


@pytest.mark.parametrize("orientation", STORED)
@pytest.mark.parametrize("rule", [[], ["--key", "blue"], ["--mask", "mask.png"]])
def test_a_photo_that_is_stored_sideways(
    rule: list[str], orientation: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    tr.save_mesh("box.ply", tr.box())
    picture = Image.new("RGBA", (40, 32), (0, 0, 255, 0))
    picture.paste((200, 150, 90, 255), (5, 4, 20, 15))
    picture.getchannel("A").save("mask.png")
    stored = STORED[orientation]
    exif = Image.Exif()
    exif[0x0112] = orientation
    (picture if stored is None else picture.transpose(stored)).save("photo.png", exif=exif)
    seen: list[Any] = []

    def fit(_: object, __: object, mask: torch.Tensor, *___: object, **____: object) -> tr.PoseFit:
        seen.append(mask)
        found = tr.Pose.from_view(tr.orbit(3.0, 0.0, 0.0))
        return tr.PoseFit(found, torch.eye(6), True, 0.0, torch.zeros(0))

    monkeypatch.setattr(pose, "fit_pose", fit)
    monkeypatch.setattr(pose.Pose, "_write", lambda *_: None)
    assert main(["pose", "box.ply", "photo.png", "--focal", "50", "--out", "out", *rule]) == 0
    expected = torch.zeros(32, 40)
    expected[4:15, 5:20] = 1
    assert torch.equal(seen[0], expected)


def test_an_error_names_the_photo_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    tr.save_mesh("box.ply", tr.box())
    Image.new("RGB", (40, 32), "grey").save("photo.png")
    arguments = ["pose", "box.ply", "photo.png", "--focal", "50", "--out", "out"]
    assert main([*arguments, "--key", "auto"]) == 1
    error = capsys.readouterr().err
    assert error.count("photo.png") == 1 and "the border of the photo has no hue" in error
