"""Mesh files: nothing is invented or lost in silence, and mixed polygons are read."""

from __future__ import annotations

import struct
from pathlib import Path

import pytest
import torch

import taichi_raster as tr

pytestmark = pytest.mark.runs_on(arch="cpu", precision="f64")


@pytest.mark.parametrize("suffix", [".obj", ".ply", ".glb"])
def test_texture_coordinates_without_a_texture_come_back_without_one(
    tmp_path: Path, suffix: str
) -> None:
    path = tmp_path / f"torus{suffix}"
    tr.save_mesh(path, tr.torus(sides=4, sectors=5))
    back = tr.load_mesh(path)
    assert back.uv is not None and back.texture is None


def test_an_obj_without_a_material_has_no_texture(tmp_path: Path) -> None:
    path = tmp_path / "plain.obj"
    path.write_text("v 0 0 0\nv 1 0 0\nv 0 1 0\nvt 0 0\nvt 1 0\nvt 0 1\nf 1/1 2/2 3/3\n")
    assert tr.load_mesh(path).texture is None


def test_a_grey_texture_is_written_as_grey(tmp_path: Path) -> None:
    torus = tr.torus(sides=4, sectors=5)
    grey = torch.arange(12).reshape(3, 4, 1) / 255
    path = tmp_path / "grey.glb"
    tr.save_mesh(path, tr.Mesh(torus.vertices, torus.faces, torus.uv, torus.uv_faces, grey))
    back = tr.load_mesh(path).texture
    assert back is not None
    torch.testing.assert_close(back, grey.expand(3, 4, 3), atol=1e-6, rtol=0)


def test_colours_that_files_cannot_hold_are_refused(tmp_path: Path) -> None:
    box = tr.box()
    for channels in (1, 2, 5):
        mesh = tr.Mesh(box.vertices, box.faces, colours=torch.rand(8, channels))
        with pytest.raises(ValueError, match="colours"):
            tr.save_mesh(tmp_path / "box.ply", mesh)


def test_a_binary_ply_of_triangles_and_quads_is_read(tmp_path: Path) -> None:
    head = "ply\nformat binary_little_endian 1.0\nelement vertex 5\nproperty float x\n"
    head += "property float y\nproperty float z\nelement face 2\n"
    head += "property list uchar int vertex_indices\nend_header\n"
    places = [0, 0, 0, 1, 0, 0, 1, 1, 0, 0, 1, 0, 0.5, 2, 0]
    body = struct.pack("<15f", *places)
    body += b"\4" + struct.pack("<4i", 0, 1, 2, 3) + b"\3" + struct.pack("<3i", 3, 2, 4)
    path = tmp_path / "house.ply"
    path.write_bytes(head.encode() + body)
    mesh = tr.load_mesh(path, torch.float64)
    corners = mesh.vertices[mesh.faces]
    areas = torch.linalg.cross(corners[:, 1] - corners[:, 0], corners[:, 2] - corners[:, 0])
    assert float(areas[:, 2].sum()) / 2 == pytest.approx(1.5)


def test_meshes_of_different_sizes_are_shaded_in_one_batch() -> None:
    meshes = [tr.box(dtype=torch.float64), tr.torus(sides=4, sectors=5, dtype=torch.float64)]
    batch = tr.collate(meshes)
    lights = [tr.DirectionalLight((0.3, 0.5, 0.8), 1.0)]
    white = torch.ones(2, batch.faces.shape[1], 3, 1, dtype=torch.float64)
    together = tr.shade_gouraud(batch.vertices, batch.faces, white, lights)
    for i, mesh in enumerate(meshes):
        n = len(mesh.faces)
        alone = tr.shade_gouraud(mesh.vertices[None], mesh.faces, white[:1, :n], lights)
        torch.testing.assert_close(together[i, :n], alone[0])
