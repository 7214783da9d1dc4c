"""`load_mesh(save_mesh(m))` is m where the format can hold it; else a warning names the loss."""

from __future__ import annotations

import logging
import os
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import trimesh
from PIL import Image

import taichi_raster as tr

pytestmark = pytest.mark.runs_on(arch="cpu", precision="f64")
F32, F64 = torch.float32, torch.float64
SUFFIXES = (".obj", ".ply", ".glb", ".off", ".stl")


def shuffled(dtype: torch.dtype) -> tr.Mesh:
    """A torus whose vertices are in no order at all."""
    mesh = tr.torus(sides=4, sectors=5, dtype=dtype)
    order = torch.randperm(len(mesh.vertices), generator=torch.Generator().manual_seed(3))
    faces = torch.empty_like(order).scatter_(0, order, torch.arange(len(order)))[mesh.faces]
    return replace(mesh, vertices=mesh.vertices[order] / 3, faces=faces, uv=None, uv_faces=None)


def kinds(dtype: torch.dtype) -> dict[str, tr.Mesh]:
    g = torch.Generator().manual_seed(0)
    plain, source = shuffled(dtype), tr.torus(sides=4, sectors=5, dtype=dtype)
    assert source.uv is not None
    whole = torch.randint(0, 256, (500, 4), generator=g).to(dtype) / 255
    picture = whole[:42].reshape(6, 7, 4)
    uv: dict[str, Any] = {"uv": source.uv / 3, "uv_faces": source.uv_faces}
    n, f = len(plain.vertices), len(plain.faces)
    return {
        "plain": plain,
        "uv": replace(plain, **uv),
        "texture": replace(plain, **uv, texture=picture[..., :3]),
        "alpha, clamped": replace(plain, **uv, texture=picture, wrap="clamp"),
        "colours": replace(plain, colours=whole[:n, :3]),
        "clear colours": replace(plain, colours=whole[:n]),
        "fine colours": replace(plain, colours=torch.rand(n, 3, generator=g, dtype=dtype)),
        "face colours": replace(
            plain, colours=whole[:f, :3], colour_faces=torch.arange(f)[:, None].expand(f, 3)
        ),
        "all": replace(plain, **uv, texture=picture[..., :3], colours=whole[:n, :3]),
    }


def differences(a: tr.Mesh, b: tr.Mesh) -> set[str]:
    """What differs beyond the rounding that a change from v up to v down costs."""
    found = set()
    if not torch.equal(a.faces, b.faces):
        return {"order"}
    if a.vertices.shape != b.vertices.shape or not torch.equal(a.vertices, b.vertices):
        found.add("vertices")
    for name, corners, atol in (
        ("uv", lambda m: m.corner_uv(), 1e-7),
        ("colours", lambda m: m.corner_colours(), 1e-7 if a.vertices.dtype == F32 else 1e-9),
    ):
        x, y = getattr(a, name), getattr(b, name)
        if (x is None) != (y is None):
            found.add(name)
        elif x is not None:
            u, v = corners(a), corners(b)
            if u.shape != v.shape or not torch.allclose(u, v, atol=atol, rtol=0):
                found.add(name)
    if (a.texture is None) != (b.texture is None):
        found.add("texture")
    elif a.texture is not None and b.texture is not None:
        same = torch.allclose(a.texture, b.texture, atol=1e-7, rtol=0) and a.wrap == b.wrap
        found |= set() if same else {"texture"}
    return found


WORDS = {
    "order": ("order",),
    "vertices": ("float32",),
    "uv": ("texture", "float32"),
    "colours": ("colours", "float32"),
    "texture": ("texture", "wrap"),
}


@pytest.mark.parametrize("dtype", [F32, F64], ids=["float32", "float64"])
@pytest.mark.parametrize("suffix", SUFFIXES)
def test_what_comes_back_is_what_was_saved_or_is_named(
    tmp_path: Path, suffix: str, dtype: torch.dtype, caplog: pytest.LogCaptureFixture
) -> None:
    for kind, mesh in kinds(dtype).items():
        caplog.clear()
        path = tmp_path / f"mesh{suffix}"
        with caplog.at_level(logging.WARNING):
            tr.save_mesh(path, mesh)
            assert len(caplog.records) <= 1, kind
            found = differences(mesh, tr.load_mesh(path, dtype))
        assert len(caplog.records) <= 1, (kind, caplog.text)
        for what in found:
            assert any(word in caplog.text for word in WORDS[what]), (kind, what, caplog.text)
        if not found:
            lossless = {".obj", ".ply"} | ({".glb"} if dtype == F32 else set())
            assert not caplog.records or suffix not in lossless or "clear" in kind, caplog.text
        if suffix in (".obj", ".ply") or (suffix == ".glb" and dtype == F32):
            allowed = {
                (".obj", "clear colours"): {"colours"},
                (".ply", "fine colours"): {"colours"},
                (".ply", "alpha, clamped"): {"texture"},
            }
            assert found == allowed.get((suffix, kind), set()), (kind, found)


@pytest.mark.parametrize("suffix", [".obj", ".ply", ".glb", ".off"])
def test_two_poses_of_a_body_have_the_same_faces(tmp_path: Path, suffix: str) -> None:
    for kind, mesh in kinds(F32).items():
        faces = []
        for pose in (mesh.vertices, -mesh.vertices[:, [2, 0, 1]] * 2 + 1):
            tr.save_mesh(tmp_path / f"pose{suffix}", replace(mesh, vertices=pose))
            back = tr.load_mesh(tmp_path / f"pose{suffix}")
            assert torch.equal(back.vertices, pose), kind
            faces.append(back.faces)
        assert torch.equal(faces[0], mesh.faces) and torch.equal(faces[1], mesh.faces), kind


def test_vertices_that_a_file_numbers_are_kept_on_request(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    box = tr.box()
    vertices = torch.cat([torch.ones(1, 3), box.vertices, box.vertices[:1]])
    extra = replace(box, vertices=vertices, faces=box.faces + 1)
    for suffix in (".obj", ".ply", ".off", ".glb"):
        path = tmp_path / f"extra{suffix}"
        with caplog.at_level(logging.WARNING):
            caplog.clear()
            tr.save_mesh(path, extra)
            assert len(tr.load_mesh(path).vertices) == 8
        assert "no face uses" in caplog.text
        kept = tr.load_mesh(path, merge=False)
        assert torch.equal(kept.vertices, extra.vertices) and torch.equal(kept.faces, extra.faces)


@pytest.mark.parametrize("kind", ["texture", "colours"])
def test_trimesh_reads_the_same_from_what_is_written(tmp_path: Path, kind: str) -> None:
    mesh = kinds(F32)[kind]
    for suffix in (".obj", ".ply", ".glb"):
        path = tmp_path / f"m{suffix}"
        tr.save_mesh(path, mesh)
        other: Any = trimesh.load(path, force="mesh", process=False)
        assert np.allclose(other.triangles, mesh.vertices[mesh.faces], atol=1e-6), suffix
        if kind == "colours":
            assert mesh.colours is not None
            seen = other.visual.vertex_colors[other.faces][..., :3] / 255
            assert np.allclose(seen, mesh.corner_colours()[0], atol=1 / 255), suffix
        else:
            assert np.allclose(other.visual.uv[other.faces], mesh.corner_uv()[0], atol=1e-6), suffix
            material = other.visual.material
            image = getattr(material, "baseColorTexture", None) or material.image
            assert mesh.texture is not None
            assert np.allclose(np.asarray(image) / 255, mesh.texture, atol=1e-6), suffix


# Files beside a mesh ------------------------------------------------------------------------------


def painted(red: float, blue: float) -> tr.Mesh:
    return replace(kinds(F32)["texture"], texture=torch.tensor([red, 0.0, blue]).expand(2, 2, 3))


def colour(path: Path) -> list[float]:
    texture = tr.load_mesh(path).texture
    assert texture is not None
    return texture[0, 0].tolist()


@pytest.mark.parametrize("suffix", [".obj", ".ply"])
def test_meshes_in_one_folder_keep_their_own_textures(tmp_path: Path, suffix: str) -> None:
    tr.save_mesh(tmp_path / f"red{suffix}", painted(1, 0))
    tr.save_mesh(tmp_path / f"blue{suffix}", painted(0, 1))
    assert colour(tmp_path / f"red{suffix}") == [1, 0, 0]
    assert colour(tmp_path / f"blue{suffix}") == [0, 0, 1]
    names = {entry.name for entry in tmp_path.iterdir()}
    assert names <= {f"{stem}{end}" for stem in ("red", "blue") for end in (suffix, ".mtl", ".png")}
    tr.save_mesh(tmp_path / f"red{suffix}", painted(0, 1))  # over its own files
    assert colour(tmp_path / f"red{suffix}") == [0, 0, 1]
    assert {entry.name for entry in tmp_path.iterdir()} == names


def test_files_of_others_are_left_alone(tmp_path: Path) -> None:
    Image.new("RGB", (3, 3), (1, 2, 3)).save(tmp_path / "red.png")
    (tmp_path / "red.mtl").write_text("newmtl mine\nmap_Kd red.png\n")
    before = {entry.name: entry.read_bytes() for entry in tmp_path.iterdir()}
    for _ in range(2):
        for suffix in (".obj", ".ply"):
            tr.save_mesh(tmp_path / f"red{suffix}", painted(1, 0))
            assert colour(tmp_path / f"red{suffix}") == [1, 0, 0]
    for name, data in before.items():
        assert (tmp_path / name).read_bytes() == data
    assert len(list(tmp_path.iterdir())) == 2 + 3 + 2


@pytest.mark.parametrize("at", [0, 1, 2])
def test_a_save_that_fails_leaves_all_files_as_they_were(
    tmp_path: Path, at: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    rename = os.replace
    for old in (False, True):
        if old:
            tr.save_mesh(tmp_path / "m.obj", painted(1, 0))
        before = {entry.name: entry.read_bytes() for entry in tmp_path.iterdir()}
        calls = iter(range(9))

        def fail(a: Any, b: Any, calls: Any = calls) -> None:
            if next(calls) == at:
                raise OSError("disk full")
            rename(a, b)

        with monkeypatch.context() as patch:
            patch.setattr(os, "replace", fail)
            with pytest.raises(OSError, match="disk full"):
                tr.save_mesh(tmp_path / "m.obj", painted(0, 1))
        assert {entry.name: entry.read_bytes() for entry in tmp_path.iterdir()} == before


def test_a_ply_is_as_precise_as_its_mesh(tmp_path: Path) -> None:
    for dtype, word in ((F32, b"property float x"), (F64, b"property double x")):
        mesh = shuffled(dtype)
        tr.save_mesh(tmp_path / "m.ply", mesh)
        assert word in (tmp_path / "m.ply").read_bytes()
        assert torch.equal(tr.load_mesh(tmp_path / "m.ply", dtype).vertices, mesh.vertices)


def test_a_fitted_texture_is_saved_without_a_warning(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """Its values are rounded to 8 bits, as those of any picture; beyond [0, 1] they are lost."""
    mesh = tr.torus(sides=4, sectors=5)
    values = torch.rand(6, 7, 3, generator=torch.Generator().manual_seed(0))
    with caplog.at_level(logging.WARNING):
        tr.save_mesh(tmp_path / "a.glb", replace(mesh, texture=values))
        assert not caplog.records
        kept = tr.load_mesh(tmp_path / "a.glb").texture
        assert kept is not None and float((kept[..., :3] - values).abs().max()) < 0.51 / 255
        tr.save_mesh(tmp_path / "b.glb", replace(mesh, texture=2 * values))
    assert "b.glb: the file does not hold: values of the texture beyond [0, 1]" in caplog.text


@pytest.mark.parametrize("suffix", [".obj", ".off", ".ply", ".glb"])
def test_colours_beyond_1_are_clipped_and_said(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, suffix: str
) -> None:
    """The others stay as they are, in each format."""
    sphere = tr.icosphere(1)
    colours = (torch.arange(42 * 3).view(42, 3) % 52 / 51).float()
    bright = colours.clone()
    bright[0, 0], bright[1, 1] = 1.001, -2.0
    with caplog.at_level(logging.WARNING):
        tr.save_mesh(tmp_path / f"a{suffix}", replace(sphere, colours=bright))
    assert "colours beyond [0, 1]" in caplog.text
    found = tr.load_mesh(tmp_path / f"a{suffix}").corner_colours()
    expected = replace(sphere, colours=bright.clamp(0, 1)).corner_colours()
    assert found is not None and expected is not None
    torch.testing.assert_close(found[..., :3].float(), expected, atol=1e-6, rtol=0)
