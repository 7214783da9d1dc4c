"""OBJ files and their materials show what the format says, however programs wrote them.

Expected values are closed forms: bilinear sampling of the image itself, areas by the shoelace
formula, and the colours that the files name.
"""

from __future__ import annotations

import logging
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

import taichi_raster as tr
from taichi_raster.scene.attributes import UVTexture
from taichi_raster.scene.sampling import sample

pytestmark = pytest.mark.runs_on(arch="cpu", precision="f64")
F64 = torch.float64
RNG = np.random.default_rng(0)
PIXELS = RNG.integers(0, 256, (6, 5, 3), dtype=np.uint8)
OTHER = RNG.integers(0, 256, (3, 8, 3), dtype=np.uint8)
INSIDE = torch.tensor(RNG.dirichlet(np.ones(3), 335))
CORNERS = "v 0 0 0\nv 1 0 0\nv 0 1 0\n"
UV = torch.tensor([[2.0, -1], [3, -1], [2, 0]], dtype=F64)
COORDINATES = "vt 2 -1\nvt 3 -1\nvt 2 0\n"


def bilinear(pixels: np.ndarray, uv: torch.Tensor, wrap: str = "repeat") -> torch.Tensor:
    values = torch.tensor(pixels / (65535 if pixels.dtype == np.uint16 else 255))
    faces = torch.zeros(1, 1, len(INSIDE), dtype=torch.int64)
    surface = UVTexture(uv[None, None], values[None], wrap)
    return sample(surface, faces, INSIDE[None, None])[0, 0]


def shown(mesh: tr.Mesh, face: int) -> torch.Tensor:
    return mesh.colour_at(torch.full((len(INSIDE),), face), INSIDE)


def close(found: torch.Tensor, expected: torch.Tensor) -> None:
    torch.testing.assert_close(found, expected, atol=1e-9, rtol=0)


def write(folder: Path, obj: str, mtl: str = "", **pictures: np.ndarray) -> Path:
    for name, pixels in pictures.items():
        Image.fromarray(pixels).save(folder / f"{name}.png")
    (folder / "m.mtl").write_text(mtl)
    (folder / "m.obj").write_text(f"mtllib m.mtl\n{CORNERS}{COORDINATES}{obj}")
    return folder / "m.obj"


def test_two_images_that_repeat(tmp_path: Path) -> None:
    path = write(
        tmp_path,
        "usemtl a\nf 1/1 2/2 3/3\nusemtl b\nf 1/1 3/3 2/2\nusemtl a\nf 2/2 3/3 1/1\n",
        "newmtl a\nmap_Kd a.png\nnewmtl b\nmap_Kd b.png\n",
        a=PIXELS,
        b=OTHER,
    )
    mesh = tr.load_mesh(path, F64)
    close(shown(mesh, 0), bilinear(PIXELS, UV))
    close(shown(mesh, 1), bilinear(OTHER, UV[[0, 2, 1]]))
    close(shown(mesh, 2), bilinear(PIXELS, UV[[1, 2, 0]]))
    assert mesh.faces.tolist() == [[0, 1, 2], [0, 2, 1], [1, 2, 0]]  # in the file's order


def test_colours_of_materials_with_and_without_images(tmp_path: Path) -> None:
    path = write(tmp_path, "usemtl a\nf 1 2 3\n", "newmtl a\nKd 0.8 0.2 0.1\n")
    one = tr.load_mesh(path, F64)
    assert one.colours is not None
    close(one.colours, torch.tensor([[0.8, 0.2, 0.1]], dtype=F64).expand(3, 3))
    two = "newmtl a\nKd 0.8 0.2 0.1\nnewmtl b\nKd 0 0 1\nd 0.5\n"
    mesh = tr.load_mesh(write(tmp_path, "usemtl a\nf 1 2 3\nusemtl b\nf 3 2 1\n", two), F64)
    close(shown(mesh, 0)[0], torch.tensor([0.8, 0.2, 0.1, 1], dtype=F64))
    close(shown(mesh, 1)[0], torch.tensor([0, 0, 1, 0.5], dtype=F64))
    image = "newmtl a\nKd 0.8 0.2 0.1\nnewmtl b\nmap_Kd b.png\n"
    parts = "usemtl a\nf 1 2 3\nusemtl b\nf 1/1 2/2 3/3\nf 1 2 3\n"
    mesh = tr.load_mesh(write(tmp_path, parts, image, b=OTHER), F64)
    close(shown(mesh, 0)[0], torch.tensor([0.8, 0.2, 0.1], dtype=F64))
    close(shown(mesh, 1), bilinear(OTHER, UV))


def test_options_of_images(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    moved = UV * torch.tensor([0.3, 0.7], dtype=F64) + torch.tensor([0.2, 0.1], dtype=F64)
    mtl = "newmtl a\nmap_Kd -s 0.3 0.7 1 -o 0.2 0.1 -mm 0.1 0.5 -blendu on -clamp on -bm 1 a.png\n"
    mesh = tr.load_mesh(write(tmp_path, "usemtl a\nf 1/1 2/2 3/3\n", mtl, a=PIXELS), F64)
    assert mesh.wrap == "clamp"
    close(shown(mesh, 0), 0.1 + 0.5 * bilinear(PIXELS, moved, "clamp"))
    assert not caplog.records
    caplog.clear()
    with caplog.at_level(logging.WARNING):
        mtl = "newmtl a\nKd 0.5 0.5 0.5\nmap_Kd -t 1 1 1 a.png\nmap_d b.png\n"
        tr.load_mesh(write(tmp_path, "usemtl a\nf 1/1 2/2 3/3\n", mtl))
    (record,) = caplog.records
    for word in ("Kd beside an image", "-t", "map_d", "(a)"):
        assert word in record.getMessage()


@pytest.mark.parametrize(
    "name",
    [
        '"a b.png"',
        "a b.png",
        "pics\\a b.png",
        "C:\\Users\\me\\a b.png",
        "/elsewhere/a b.png",
        "A B.PNG",
        ".\\A b.png",
        "-s 1 1 1 a b.png",
        "a%20b.png",
    ],
)
def test_names_of_images_as_programs_write_them(tmp_path: Path, name: str) -> None:
    mtl = f"newmtl my paint\nmap_Kd {name}\n"
    path = write(tmp_path, "usemtl my paint\nf 1/1 2/2 3/3\n", mtl)
    Image.fromarray(PIXELS).save(tmp_path / "a b.png")
    close(shown(tr.load_mesh(path, F64), 0), bilinear(PIXELS, UV))


def test_images_of_all_kinds(tmp_path: Path) -> None:
    grey16 = RNG.integers(0, 65536, (4, 4), dtype=np.uint16)
    grey = RNG.integers(0, 256, (4, 4), dtype=np.uint8)
    both = np.stack([grey, grey.T], axis=-1)
    palette = Image.fromarray(PIXELS).quantize(4)
    clear = np.array(palette.convert("RGBA"))
    clear[np.asarray(palette) == 1, 3] = 0
    ones = np.full((4, 4), 255, np.uint8)
    cases: dict[str, tuple[Image.Image, np.ndarray]] = {
        "I;16": (Image.fromarray(grey16), np.stack([grey16] * 3, -1)),
        "L": (Image.fromarray(grey), np.stack([grey] * 3, -1)),
        "LA": (Image.fromarray(both, "LA"), np.stack([grey, grey, grey, grey.T], -1)),
        "1": (Image.fromarray(grey > 100), np.stack([ones * (grey > 100)] * 3, -1)),
        "P": (palette, np.array(palette.convert("RGB"))),
        "P, a clear colour": (palette, clear),
        "RGBA": (Image.fromarray(clear), clear),
    }
    for kind, (picture, expected) in cases.items():
        path = write(tmp_path, "usemtl a\nf 1/1 2/2 3/3\n", "newmtl a\nmap_Kd a.png\n")
        if "clear" in kind:
            picture.save(tmp_path / "a.png", transparency=1)
        else:
            picture.save(tmp_path / "a.png")
        mesh = tr.load_mesh(path, F64)
        assert mesh.texture is not None and mesh.texture.shape == expected.shape, kind
        close(shown(mesh, 0), bilinear(expected, UV))


def test_a_concave_pentagon_is_cut_within_its_outline(tmp_path: Path) -> None:
    """Its area is 10 by the shoelace formula; the fan of its first corner has 4, -2 and 8."""
    path = tmp_path / "pentagon.obj"
    path.write_text("v 0 0 0\nv 4 0 0\nv 4 2 0\nv 1 1 0\nv 4 6 0\nf 1 2 3 4 5\n")
    mesh = tr.load_mesh(path, F64)
    assert areas(mesh).sum() == pytest.approx(shoelace([(0, 0), (4, 0), (4, 2), (1, 1), (4, 6)]))
    assert (areas(mesh) > 0).all()


def shoelace(outline: list[tuple[float, float]]) -> float:
    a = np.array(outline)
    b = np.roll(a, -1, axis=0)
    return float((a[:, 0] * b[:, 1] - a[:, 1] * b[:, 0]).sum() / 2)


def areas(mesh: tr.Mesh) -> torch.Tensor:
    """Signed, as seen from z."""
    c = mesh.vertices[mesh.faces]
    return torch.linalg.cross(c[:, 1] - c[:, 0], c[:, 2] - c[:, 0])[:, 2] / 2


@pytest.mark.parametrize("seed", range(6))
def test_star_shaped_and_winding_outlines_are_cut_exactly(tmp_path: Path, seed: int) -> None:
    rng = np.random.default_rng(seed)
    if seed % 2:
        angles = np.sort(rng.uniform(0, 2 * np.pi, 25))
        radii = rng.uniform(0.2, 2, 25)
        outline = np.stack([radii * np.cos(angles), radii * np.sin(angles)], axis=1)
    else:  # a comb, with corners in line
        tooth = [(0, 0.2), (0, 3), (0.5, 3), (0.5, 0.2)]
        teeth = [(i + x, y) for i in range(6) for x, y in tooth]
        outline = np.array([(6, -1), (3, -1), (0, -1), *teeth])[::-1]
    tilt = np.linalg.qr(rng.standard_normal((3, 3)))[0]
    places = np.concatenate([outline, np.zeros((len(outline), 1))], axis=1)
    rows = "".join(f"v {x} {y} {z}\n" for x, y, z in (places @ tilt.T).tolist())
    path = tmp_path / "outline.obj"
    path.write_text(rows + "f " + " ".join(str(i + 1) for i in range(len(outline))) + "\n")
    mesh = tr.load_mesh(path, F64)
    flat = tr.Mesh(mesh.vertices @ torch.tensor(tilt), mesh.faces)
    expected = shoelace([(x, y) for x, y in outline.tolist()])
    assert float(areas(flat).sum()) == pytest.approx(expected)
    assert float(areas(flat).abs().sum()) == pytest.approx(abs(expected))
    assert len(mesh.faces) == len(outline) - 2


def test_lines_continue_indices_count_back_and_colours_follow_vertices(tmp_path: Path) -> None:
    path = tmp_path / "odd.obj"
    path.write_bytes(
        b"\xef\xbb\xbf# mark\r\nv 0 0 0 1 0 0\r\nv 1 0 0 0 1 0\r\n"
        b"v 0 1 0 0 0 1\r\nf -3 \\\r\n-2 -1 # end\r\n"
    )
    mesh = tr.load_mesh(path, F64)
    assert mesh.faces.tolist() == [[0, 1, 2]]
    assert mesh.colours is not None and torch.equal(mesh.colours, torch.eye(3, dtype=F64))


@pytest.mark.parametrize(
    "face",
    [
        "1/ 2/ 3/",
        "1/1/ 2/2/ 3/3/",
        "1// 2// 3//",
        "1/1 2/2/ 3/3",
        "1 2 3#a",
        "1/1 2/2 3/3# a",
        "-3/ 2 3",
    ],
)
def test_faces_as_programs_write_them(tmp_path: Path, face: str) -> None:
    mesh = tr.load_mesh(write(tmp_path, f"f {face}\n"), F64)
    close(mesh.vertices[mesh.faces[0]], torch.tensor([[0, 0, 0], [1, 0, 0], [0, 1, 0]], dtype=F64))
    assert (mesh.uv is not None) == ("/1" in face)


@pytest.mark.parametrize("index", [2**63, 10**23, -(10**23), 2**62])
def test_an_index_that_no_file_has(tmp_path: Path, index: int) -> None:
    with pytest.raises(ValueError, match=r"m\.obj: cannot be read as a mesh: has "):
        tr.load_mesh(write(tmp_path, f"f 1 2 {index}\n"), F64)


@pytest.mark.parametrize(
    ("colours", "expected"),
    [
        ("1.001 0 0", [1.001, 0, 0]),
        ("1.5 0.25 -0.1", [1.5, 0.25, -0.1]),
        ("1 0 1", [1, 0, 1]),
        ("255 0 51", [1, 0, 0.2]),
        ("2 0 0", [2 / 255, 0, 0]),
        ("127.5 0 51.0", [0.5, 0, 0.2]),
    ],
)
@pytest.mark.parametrize("suffix", [".obj", ".ply", ".off"])
def test_colours_up_to_1_and_up_to_255(
    tmp_path: Path, suffix: str, colours: str, expected: list[float]
) -> None:
    """A shade a little brighter than white makes the others no darker."""
    rows = [f"{place} {colours}" for place in ("0 0 0", "1 0 0", "0 1 0")]
    head = "ply\nformat ascii 1.0\nelement vertex 3\n"
    head += "".join(f"property float {name}\n" for name in ("x", "y", "z", "red", "green", "blue"))
    head += "element face 1\nproperty list uchar int vertex_indices\nend_header"
    text = {
        ".obj": "\n".join([*("v " + row for row in rows), "f 1 2 3"]),
        ".ply": "\n".join([head, *rows, "3 0 1 2"]),
        ".off": "\n".join(["COFF", "3 1 0", *rows, "3 0 1 2"]),
    }[suffix]
    (tmp_path / f"m{suffix}").write_text(text + "\n")
    if suffix == ".off" and colours == "1 0 1":  # in OFF, whole numbers always count up to 255
        expected = [value / 255 for value in expected]
    found = tr.load_mesh(tmp_path / f"m{suffix}", F64).corner_colours()
    assert found is not None
    torch.testing.assert_close(found[0, 0, 0, :3], torch.tensor(expected, dtype=F64))
