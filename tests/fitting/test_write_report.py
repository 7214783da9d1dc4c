"""A report is one page that holds what it shows, and needs no network."""

from __future__ import annotations

import base64
import html
import io
import os
import re
import shutil
import subprocess
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import trimesh
from PIL import Image

import taichi_raster as tr
from taichi_raster.fitting.report import _standing

pytestmark = pytest.mark.runs_on(arch="cpu", precision="f64")

CHROMIUM = shutil.which("chromium") or shutil.which("google-chrome")


def coloured_box() -> tr.Mesh:
    mesh = tr.box()
    return tr.Mesh(mesh.vertices, mesh.faces, colours=mesh.vertices.sigmoid())


def written(path: Path, **parts: object) -> str:
    generator = torch.Generator().manual_seed(0)
    photo = torch.rand(24, 32, 3, generator=generator)
    render = torch.rand(12, 16, 4, generator=generator)
    arguments: dict[str, object] = {
        "views": [tr.ReportView("photo <4>", photo, render, "IoU 0.97")],
        "mesh": coloured_box(),
        "numbers": {"held-out IoU": 0.971234, "faces": 12, "a & b": torch.tensor(0.5)},
        "settings": {"steps": 60},
        **parts,
    }
    tr.write_report(path, "Fit & report", **arguments)  # type: ignore[arg-type]
    return path.read_text()


def test_a_page_loads_nothing_from_elsewhere(tmp_path: Path) -> None:
    page = written(tmp_path / "report.html")
    inner = html.unescape(re.findall(r'srcdoc="([^"]*)"', page)[0])
    for text in (page.split("<iframe")[0], inner):
        addresses = re.findall(r"(?:src|href)=[\"']([^\"']*)", text)
        assert all(address.startswith("data:") for address in addresses), addresses
        assert "@import" not in text and "url(http" not in text


def test_pictures_are_those_that_were_given(tmp_path: Path) -> None:
    photo = torch.linspace(0, 1, 24 * 32).view(24, 32, 1)
    render = torch.rand(10, 8, 4, generator=torch.Generator().manual_seed(1))
    page = written(tmp_path / "r.html", views=[tr.ReportView("one", photo, render)], quality=95)
    found = [
        np.asarray(Image.open(io.BytesIO(base64.b64decode(data))))
        for data in re.findall(r'src="data:image/\w+;base64,([^"]*)"', page)
    ]
    assert abs(found[0] / 255 - photo[..., 0].numpy()).max() < 0.03  # JPEG
    assert (found[1] == (render * 255).round().numpy()).all()  # PNG


def test_the_mesh_is_in_the_viewer(tmp_path: Path) -> None:
    mesh = coloured_box()
    page = written(tmp_path / "r.html", mesh=mesh)
    inner = html.unescape(re.findall(r'srcdoc="([^"]*)"', page)[0])
    models = [
        base64.b64decode(text)
        for text in re.findall(r"[\"']([A-Za-z0-9+/=]{200,})[\"']", inner)
        if base64.b64decode(text[:8]).startswith(b"glTF")
    ]
    assert len(models) == 1
    shown: Any = trimesh.load(io.BytesIO(models[0]), file_type="glb", force="mesh")
    assert len(shown.faces) == len(mesh.faces)
    # Moved to the origin, its diagonal 1.
    size = mesh.vertices.max(0).values - mesh.vertices.min(0).values
    assert np.allclose(shown.bounds[1], (0.5 * size / size.norm()).numpy(), atol=1e-6)


def test_the_mesh_stands_upright_and_faces_the_viewer() -> None:
    corners = torch.tensor([[0.0, 0, 2], [1, 0, 0], [0, 1, 0], [0, 0, 0]])  # tall along z
    mesh = tr.Mesh(corners, torch.tensor([[0, 1, 2], [0, 2, 3]]))
    up, eye = torch.tensor([0.0, 0, 1]), torch.tensor([5.0, 0, 1])
    standing = _standing(mesh, up, eye).vertices
    assert int(standing[:, 1].argmax()) == 0 and int(standing[:, 2].argmax()) == 1
    assert abs(float((standing.amax(0) - standing.amin(0)).norm()) - 1) < 1e-6
    above = _standing(mesh, up, up)  # from above: any turn will do
    assert bool(torch.isfinite(above.vertices).all())


def test_names_and_numbers_are_shown_as_text(tmp_path: Path) -> None:
    page = written(tmp_path / "r.html")
    assert "<title>Fit &amp; report</title>" in page and "photo &lt;4&gt;" in page
    for name, value in (("held-out IoU", "0.9712"), ("faces", "12"), ("a &amp; b", "0.5")):
        assert f"<td>{name}</td><td>{value}</td>" in page


def test_a_page_may_have_a_heading_alone(tmp_path: Path) -> None:
    tr.write_report(tmp_path / "r.html", "Nothing yet")
    assert "<section" not in (tmp_path / "r.html").read_text()


def test_bad_input_leaves_the_old_page(tmp_path: Path) -> None:
    path = tmp_path / "r.html"
    before = written(path)
    picture = torch.rand(4, 4, 3)
    with pytest.raises(ValueError, match=r"render: must be finite \('a'\)"):
        tr.ReportView("a", picture, picture * torch.nan)
    with pytest.raises(ValueError, match=r"photo: must be \(H, W, 1, 3 or 4\), got \(4, 4, 2\)"):
        tr.ReportView("a", picture[..., :2], picture)
    with pytest.raises(ValueError, match=r"path: must end in \.html, got 'r\.txt'"):
        tr.write_report(tmp_path / "r.txt", "t")
    with pytest.raises(FileNotFoundError, match="no such folder"):
        tr.write_report(tmp_path / "none" / "r.html", "t")
    for quality in (0, 96, 88.5, None, "high"):
        with pytest.raises(ValueError, match=f"quality: expected 1 to 95, got {quality}"):
            written(path, quality=quality)
    with pytest.raises(TypeError, match="views"):
        written(path, views=[picture])
    assert path.read_text() == before and [p.name for p in tmp_path.iterdir()] == ["r.html"]


def test_a_browser_shows_the_page(tmp_path: Path) -> None:
    """The slider's middle shows the photo, red, on its left and the render, blue, on its right."""
    if CHROMIUM is None and os.environ.get("TAICHI_RASTER_REQUIRE_BROWSER"):
        pytest.fail("there is no Chromium")
    if CHROMIUM is None:
        pytest.skip("there is no Chromium")
    red, blue = torch.zeros(60, 90, 3), torch.zeros(60, 90, 3)
    red[..., 0], blue[..., 2] = 1, 1
    tr.write_report(tmp_path / "r.html", "Colours", [tr.ReportView("one", red, blue)])
    command = [
        str(CHROMIUM),
        "--headless",
        "--no-sandbox",
        "--disable-gpu",
        "--window-size=400,600",
        f"--user-data-dir={tmp_path / 'profile'}",
        f"--screenshot={tmp_path / 'shot.png'}",
        (tmp_path / "r.html").as_uri(),
    ]
    subprocess.run(command, check=True, capture_output=True, timeout=120)
    shot = np.asarray(Image.open(tmp_path / "shot.png").convert("RGB")).astype(int)
    reds = (shot[..., 0] > 200) & (shot[..., 1:].max(-1) < 60)
    blues = (shot[..., 2] > 200) & (shot[..., :2].max(-1) < 60)
    assert reds.sum() > 5000 and blues.sum() > 5000
    assert np.nonzero(reds)[1].max() < np.nonzero(blues)[1].min() + 4
