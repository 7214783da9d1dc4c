"""PLY, OFF and STL files, text and binary, with all that they hold; values are the files' own."""

from __future__ import annotations

import struct
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

import taichi_raster as tr

pytestmark = pytest.mark.runs_on(arch="cpu", precision="f64")
F64 = torch.float64
HOUSE = [(0, 0, 0), (1, 0, 0), (1, 1, 0), (0, 1, 0), (0.5, 2, 0)]
RGB = "property uchar red\nproperty uchar green\nproperty uchar blue"
MIDDLE = torch.full((1, 3), 1 / 3, dtype=F64)


def header(form: str, vertex: str, face: str, counts: tuple[int, int] = (5, 2)) -> str:
    lines = ["ply", f"format {form} 1.0", f"element vertex {counts[0]}", "property float x"]
    lines += ["property float y", "property float z", *vertex.splitlines()]
    lines += [f"element face {counts[1]}", "property list uchar int vertex_indices"]
    return "\n".join([*lines, *face.splitlines(), "end_header", ""])


def area(mesh: tr.Mesh) -> float:
    c = mesh.vertices[mesh.faces]
    return float(torch.linalg.cross(c[:, 1] - c[:, 0], c[:, 2] - c[:, 0])[:, 2].sum() / 2)


@pytest.mark.parametrize("end", ["\n", "\r\n", "\r"])
@pytest.mark.parametrize("form", ["ascii", "binary_little_endian", "binary_big_endian"])
def test_mixed_polygons_with_colours_of_faces(tmp_path: Path, form: str, end: str) -> None:
    """A square of 1 and a gable of 1/2, each in a colour of its own."""
    head = header(form, "", RGB).replace("\n", end).encode()
    if form == "ascii":
        rows = [" ".join(map(str, place)) for place in HOUSE]
        body = end.join([*rows, "4 0 1 2 3 255 0 51", "3 3 2 4 0 102 0", ""]).encode()
    else:
        order = "<" if "little" in form else ">"
        body = struct.pack(f"{order}15f", *sum(HOUSE, ()))
        body += b"\4" + struct.pack(f"{order}4i", 0, 1, 2, 3) + bytes([255, 0, 51])
        body += b"\3" + struct.pack(f"{order}3i", 3, 2, 4) + bytes([0, 102, 0])
    path = tmp_path / "house.ply"
    path.write_bytes(head + body)
    mesh = tr.load_mesh(path, F64)
    assert area(mesh) == pytest.approx(1.5)
    seen = [mesh.colour_at([i], MIDDLE)[0].tolist() for i in range(3)]  # type: ignore[arg-type]
    assert seen == [pytest.approx([1, 0, 0.2])] * 2 + [pytest.approx([0, 0.4, 0])]


def test_coordinates_beside_colours_and_an_image(tmp_path: Path) -> None:
    pixels = np.random.default_rng(0).integers(0, 256, (4, 4, 3), dtype=np.uint8)
    Image.fromarray(pixels).save(tmp_path / "paint.png")
    more = "property float s\nproperty float t\nproperty uchar red\nproperty uchar green\n"
    head = header("ascii", more + "property uchar blue\nproperty uchar alpha", "", (3, 1))
    head = head.replace("element vertex", "comment TextureFile paint.png\nelement vertex")
    rows = "0 0 0 .125 .875 255 0 0 255\n1 0 0 .125 .875 255 0 0 255\n0 1 0 .125 .875 255 0 0 51\n"
    (tmp_path / "m.ply").write_text(head + rows + "3 0 1 2\n")
    mesh = tr.load_mesh(tmp_path / "m.ply", F64)
    assert mesh.uv is not None and mesh.colours is not None
    assert mesh.colours.tolist() == [[1, 0, 0, 1], [1, 0, 0, 1], [1, 0, 0, pytest.approx(0.2)]]
    found = mesh.colour_at([0], MIDDLE)[0]  # type: ignore[arg-type]
    expected = [pixels[0, 0, 0] / 255, 0, 0, (1 + 1 + 0.2) / 3]
    assert found.tolist() == pytest.approx(expected)


def test_coordinates_of_faces_with_several_images(tmp_path: Path) -> None:
    """As MeshLab writes them: a list of each face, and the number of its image."""
    for name, colour in (("a", (255, 0, 0)), ("b", (0, 0, 255))):
        Image.new("RGB", (2, 2), colour).save(tmp_path / f"{name}.png")
    face = "property list uchar float texcoord\nproperty int texnumber"
    images = "comment TextureFile a.png\ncomment TextureFile b.png\n"
    head = header("ascii", "", face, (4, 2)).replace("element vertex", f"{images}element vertex")
    rows = "0 0 0\n1 0 0\n1 1 0\n0 1 0\n"
    rows += "3 0 1 2 6 0 0 1 0 1 1 1\n3 0 2 3 6 0 0 1 1 0 1 0\n"
    (tmp_path / "m.ply").write_text(head + rows)
    mesh = tr.load_mesh(tmp_path / "m.ply", F64)
    found = mesh.colour_at([0, 1], MIDDLE.expand(2, 3))  # type: ignore[arg-type]
    assert found.tolist() == [pytest.approx([0, 0, 1]), pytest.approx([1, 0, 0])]


def test_coincident_vertices_of_two_colours_stay_of_two_colours(tmp_path: Path) -> None:
    """Two triangles meet at an edge; the second's corners there are green, the first's red."""
    head = header(
        "ascii", "property uchar red\nproperty uchar green\nproperty uchar blue", "", (6, 2)
    )
    rows = (
        "0 0 0 255 0 0\n1 0 0 255 0 0\n0 1 0 255 0 0\n1 0 0 0 255 0\n1 1 0 0 255 0\n0 1 0 0 255 0\n"
    )
    (tmp_path / "m.ply").write_text(head + rows + "3 0 1 2\n3 3 4 5\n")
    mesh = tr.load_mesh(tmp_path / "m.ply", F64)
    assert mesh.vertices.tolist() == [[0, 0, 0], [1, 0, 0], [0, 1, 0], [1, 1, 0]]
    colours = mesh.corner_colours()[0]
    assert (colours[0] == torch.tensor([1, 0, 0])).all()
    assert (colours[1] == torch.tensor([0, 1, 0])).all()


def test_strips_are_read(tmp_path: Path) -> None:
    head = "ply\nformat ascii 1.0\nelement vertex 4\nproperty float x\nproperty float y\n"
    head += (
        "property float z\nelement tristrips 1\nproperty list int int vertex_indices\nend_header\n"
    )
    strips = "9 0 1 2 3 -1 0 1 2 3\n"  # two strips of two triangles, all wound alike
    (tmp_path / "m.ply").write_text(head + "0 0 0\n1 0 0\n0 1 0\n1 1 0\n" + strips)
    mesh = tr.load_mesh(tmp_path / "m.ply", F64)
    assert len(mesh.faces) == 4 and area(mesh) == pytest.approx(2)


COFF = """COFF
# a comment
3 1 0
0 0 0 255 0 0 255
1 0 0 0 255 0 255
0 1 0 0 0 255 255
3 0 1 2
"""


@pytest.mark.parametrize(
    ("text", "colours"),
    [
        ("OFF\n3 1 0\n0 0 0\n1 0 0\n0 1 0\n3 0 1 2 255 51 0\n", [[1, 0.2, 0]] * 3),
        ("OFF 3 1 0\n0 0 0\n1 0 0\n0 1 0\n3 0 1 2 1.0 0.2 0.0 0.5\n", [[1, 0.2, 0, 0.5]] * 3),
        (COFF, [[1, 0, 0], [0, 1, 0], [0, 0, 1]]),
        ("NOFF\n3 1 0\n0 0 0 0 0 1\n1 0 0 0 0 1\n0 1 0 0 0 1\n3 0 1 2\n", None),
    ],
)
def test_colours_of_off_files(tmp_path: Path, text: str, colours: list[list[float]] | None) -> None:
    (tmp_path / "m.off").write_text(text)
    mesh = tr.load_mesh(tmp_path / "m.off", F64)
    if colours is None:
        assert mesh.colours is None
    else:
        assert mesh.colours is not None
        torch.testing.assert_close(mesh.colours, torch.tensor(colours, dtype=F64))


@pytest.mark.parametrize("maker", ["Magics", "VisCAM"])
def test_colours_of_stl_files(tmp_path: Path, maker: str) -> None:
    """15 bits: red lowest after `COLOR=`, else blue lowest where the highest bit is set."""
    bits = (31, 31 | 0x8000) if maker == "Magics" else (31 << 10 | 0x8000, 0)
    body = b"COLOR=\0\xff\0\xff".ljust(80) if maker == "Magics" else b"\0" * 80
    body += struct.pack("<I", 2)
    for k, word in enumerate(bits):
        body += struct.pack("<12fH", 0, 0, 1, 0, 0, k, 1, 0, k, 0, 1, k, word)
    (tmp_path / "m.stl").write_bytes(body)
    found = tr.load_mesh(tmp_path / "m.stl", F64).corner_colours()[0, :, 0]
    assert found.tolist() == [[1, 0, 0], [0, 1, 0] if maker == "Magics" else [1, 1, 1]]
