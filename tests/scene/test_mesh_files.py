"""Textures and colours survive a trip through files; broken files are refused clearly."""

from __future__ import annotations

import struct
from pathlib import Path
from typing import Any

import pytest
import torch

import taichi_raster as tr

pytestmark = pytest.mark.runs_on(arch="cpu", precision="f64")
F64 = torch.float64


def textured() -> tr.Mesh:
    torus = tr.torus(sides=4, sectors=5, dtype=F64)
    g = torch.Generator().manual_seed(0)
    picture = torch.randint(0, 256, (6, 7, 3), generator=g) / 255
    return tr.Mesh(torus.vertices, torus.faces, torus.uv, torus.uv_faces, picture.double())


def key(mesh: tr.Mesh) -> torch.Tensor:
    """Faces with places and texture coordinates, in an order that files cannot change."""
    corners = torch.cat([mesh.vertices[mesh.faces], mesh.corner_uv()[0]], dim=-1)
    start = (corners[..., 0] + 10 * corners[..., 1] + 100 * corners[..., 3]).argmin(1)
    order = (start[:, None] + torch.arange(3)) % 3
    turned = corners.gather(1, order[..., None].expand_as(corners)).flatten(1)
    weights = 3.0 ** torch.arange(15, dtype=F64)
    return turned[(turned @ weights).argsort()]


@pytest.mark.parametrize("suffix", [".obj", ".glb"])
def test_texture_and_seams_survive(tmp_path: Path, suffix: str) -> None:
    mesh = textured()
    path = tmp_path / f"torus{suffix}"
    tr.save_mesh(path, mesh)
    back = tr.load_mesh(path, F64)
    assert len(back.vertices) == len(mesh.vertices)  # seams are in the coordinates alone
    torch.testing.assert_close(key(back), key(mesh), atol=2e-6, rtol=0)
    assert back.texture is not None
    torch.testing.assert_close(back.texture, mesh.texture, atol=1e-6, rtol=0)
    colour = back.uv_texture()
    assert colour.image.shape == (1, 6, 7, 3)


@pytest.mark.parametrize("suffix", [".obj", ".ply", ".glb"])
def test_vertex_colours_survive(tmp_path: Path, suffix: str) -> None:
    box = tr.box(dtype=F64)
    colours = (box.vertices * 0.8 + 0.5).clamp(0, 1)
    path = tmp_path / f"box{suffix}"
    tr.save_mesh(path, tr.Mesh(box.vertices, box.faces, colours=colours))
    back = tr.load_mesh(path, F64)
    expected = (back.vertices * 0.8 + 0.5).clamp(0, 1)
    assert back.colours is not None
    torch.testing.assert_close(back.colours, expected, atol=0.003, rtol=0)
    assert back.corner_colours().shape == (1, 12, 3, 3)


def test_polygons_become_triangles(tmp_path: Path) -> None:
    path = tmp_path / "pentagon.obj"
    path.write_text("v 0 0 0\nv 2 0 0\nv 3 1 0\nv 1 2 0\nv -1 1 0\nf 1 2 3 4 5\n")
    mesh = tr.load_mesh(path)
    assert mesh.faces.shape == (3, 3)
    corners = mesh.vertices[mesh.faces]
    areas = torch.linalg.cross(corners[:, 1] - corners[:, 0], corners[:, 2] - corners[:, 0])
    assert float(areas[:, 2].sum()) / 2 == pytest.approx(5.0)  # the shoelace formula


def ply(count: int, body: bytes) -> bytes:
    head = f"ply\nformat binary_little_endian 1.0\nelement vertex {count}\n"
    head += "property float x\nproperty float y\nproperty float z\nelement face 1\n"
    return (head + "property list uchar int vertex_indices\nend_header\n").encode() + body


BROKEN = {
    "huge.ply": ply(4_000_000_000, b"\0" * 36),
    "huge.stl": b"\0" * 80 + struct.pack("<I", 4_000_000_000) + b"\0" * 50,
    "huge.off": b"OFF\n3000000000 3000000000 0\n0 0 0\n",
    "short.ply": ply(3, b"\0" * 20),
    "short.stl": b"\0" * 80 + struct.pack("<I", 2) + b"\0" * 60,
    "range.ply": ply(3, b"\0" * 36 + b"\3" + struct.pack("<iii", 0, 1, 9)),
    "range.obj": b"v 0 0 0\nv 1 0 0\nv 0 1 0\nf 1 2 9\n",
    "negative.obj": b"v 0 0 0\nv 1 0 0\nv 0 1 0\nf 1 2 -9\n",
    "zero.obj": b"v 0 0 0\nv 1 0 0\nv 0 1 0\nf 0 1 2\n",
    "words.obj": b"v zero one two\nf 1 1 1\n",
    "cut.glb": b"glTF\2\0\0\0\xff\xff\xff\xff",
    "empty.ply": b"",
}


@pytest.mark.parametrize("name", BROKEN)
def test_broken_files_are_refused_by_name(tmp_path: Path, name: str) -> None:
    path = tmp_path / name
    path.write_bytes(BROKEN[name])
    with pytest.raises(ValueError, match=name):
        tr.load_mesh(path)


@pytest.mark.parametrize("suffix", [".obj", ".ply", ".stl", ".glb"])
@pytest.mark.parametrize("share", [0.1, 0.5, 0.9])
def test_a_truncated_file_is_refused_or_gives_a_valid_mesh(
    tmp_path: Path, suffix: str, share: float
) -> None:
    whole = tmp_path / f"whole{suffix}"
    tr.save_mesh(whole, tr.icosphere(1))
    data = whole.read_bytes()
    path = tmp_path / f"cut{suffix}"
    path.write_bytes(data[: int(len(data) * share)])
    try:
        mesh = tr.load_mesh(path)
    except ValueError as error:
        refusal = str(error)
    else:  # text formats may end at a line's end
        assert suffix == ".obj"
        assert int(mesh.faces.max()) < len(mesh.vertices)
        return
    assert path.name in refusal


def test_a_folder_is_not_a_mesh(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match="no such mesh file"):
        tr.load_mesh(tmp_path)


TRIANGLE = (torch.eye(3), torch.tensor([[0, 1, 2]]))


@pytest.mark.parametrize(
    ("fields", "name"),
    [
        ({"uv": torch.zeros(3, 3)}, "uv"),
        ({"uv": torch.zeros(2, 2)}, "uv_faces"),
        ({"uv_faces": torch.zeros(1, 3).long()}, "uv_faces"),
        ({"uv": torch.zeros(3, 2), "uv_faces": torch.zeros(2, 3).long()}, "uv_faces"),
        ({"uv": torch.zeros(3, 2), "texture": torch.zeros(4, 4)}, "texture"),
        ({"colours": torch.zeros(2, 3)}, "colours"),
    ],
)
def test_bad_fields_are_named(fields: dict[str, Any], name: str) -> None:
    with pytest.raises(ValueError, match=f"^{name}: "):
        tr.Mesh(*TRIANGLE, **fields)
