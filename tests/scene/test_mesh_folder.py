"""A folder of odd files, and assimp's: each is read as it should be, or refused by its name."""

from __future__ import annotations

import io
import json
import logging
import struct
import warnings
import zipfile
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

import taichi_raster as tr
from gltf_files import Gltf, packed

pytestmark = pytest.mark.runs_on(arch="cpu", precision="f64")
ASSIMP = Path("/usr/share/assimp/models")
T = "v 0 0 0\nv 1 0 0\nv 0 1 0\n"
PLY = "ply\nformat ascii 1.0\nelement vertex 3\n"
PLY += "property float x\nproperty float y\nproperty float z\n"
FACE = "element face 1\nproperty list uchar int vertex_indices\nend_header\n"
PLACES = "0 0 0\n1 0 0\n0 1 0\n"


def ply(body: str = "3 0 1 2\n", head: str = PLY, face: str = FACE, places: str = PLACES) -> bytes:
    return f"{head}{face}{places}{body}".encode()


def binary_ply(count: int, body: bytes) -> bytes:
    head = PLY.replace("ascii", "binary_little_endian").replace("vertex 3", f"vertex {count}")
    return (head + FACE).encode() + body


def gltf(**changes: object) -> bytes:
    """A triangle, with some of its JSON changed; a value of None removes an entry."""
    g = Gltf()
    g.part(np.eye(3), [0, 1, 2])
    described = {**g.done(), "buffers": [{"byteLength": len(g.data)}]}
    for key, value in changes.items():
        if value is None:
            described.pop(key, None)
        else:
            described[key] = value
    return packed(described, bytes(g.data))


def accessor(**changes: object) -> list[dict[str, object]]:
    whole = {"bufferView": 0, "componentType": 5126, "count": 3, "type": "VEC3"}
    index = {"bufferView": 1, "componentType": 5125, "count": 3, "type": "SCALAR"}
    return [{**whole, **changes}, index]


ZIP = io.BytesIO()
with zipfile.ZipFile(ZIP, "w") as packed_files:
    packed_files.writestr("m.obj", f"mtllib m.mtl\n{T}usemtl a\nf 1 2 3\n")
    packed_files.writestr("m.mtl", "newmtl a\nKd 1 0 0\n")

READ = {
    # a name: what is in the file, and how many triangles it has
    "normals.obj": (f"{T}f 1//1 2//1 3//1\n".encode(), 1),
    "no_end.obj": (f"{T}f 1 2 3".encode(), 1),
    "tabs.obj": (f"{T}f\t1\t2\t3\n".encode(), 1),
    "relative.obj": (f"{T}f -3 -2 -1\n".encode(), 1),
    "mixed.obj": (f"{T}vt 0 0\nf 1/1 2/1/1 3/1/1\nf 1//1 2 3/1\n".encode(), 2),
    "quad.obj": (f"{T}v 1 1 0\nf 1 2 4 3\n".encode(), 2),
    "weights.obj": (b"v 0 0 0 1\nv 1 0 0 1\nv 0 1 0 1\nf 1 2 3\n", 1),
    "mac.obj": (f"{T}f 1 2 3\n".replace("\n", "\r").encode(), 1),
    "latin.obj": (f"{T}usemtl ".encode() + b"\xe9t\xe9\nf 1 2 3\n", 1),
    "utf16.obj": (f"{T}f 1 2 3\n".encode("utf-16"), 1),
    "two_corners.obj": (f"{T}f 1 2\nf 1 2 3\n".encode(), 1),
    "lines.obj": (f"{T}l 1 2 3\nf 1 2 3\n".encode(), 1),
    "half_uv.obj": (f"{T}vt 0 0\nf 1/1 2 3\nf 1/1 2/1 3/1\n".encode(), 2),
    "no_library.obj": (f"mtllib absent.mtl\n{T}usemtl a\nf 1 2 3\n".encode(), 1),
    "bow.obj": (b"v 0 0 0\nv 1 1 0\nv 1 0 0\nv 0 1 0\nf 1 2 3 4\n", 2),
    "repeated.obj": (f"{T}f 1 2 2\n".encode(), 1),
    "spaces.ply": (ply("  3   0 1\t2  \n"), 1),
    "extra.ply": (ply() + b"more words at its end\n", 1),
    "edges.ply": (ply(face=FACE.replace("end", "element edge 0\nproperty int a\nend")), 1),
    "vertex_index.ply": (ply(face=FACE.replace("indices", "index")), 1),
    "no_corners.ply": (ply("0\n3 0 1 2\n", face=FACE.replace("face 1", "face 2")), 1),
    "one_line.off": (b"OFF 3 1 0 \n0 0 0\n1 0 0\n0 1 0\n3 0 1 2\n", 1),
    "glued.off": (b"OFF3 1 0\n0 0 0\n1 0 0\n0 1 0\n3 0 1 2\n", 1),
    "blank.off": (b"\nOFF\n\n3 1 0\n\n0 0 0\n1 0 0\n\n0 1 0\n3 0 1 2", 1),
    "capitals.stl": (
        b"SOLID A\nOUTER LOOP\nVERTEX 0 0 0\nVERTEX 1 0 0\nVERTEX 0 1 0\nENDLOOP\nENDSOLID\n",
        1,
    ),
    "solid_binary.stl": (b"solid but not".ljust(80) + struct.pack("<I12fH", 1, *range(12), 0), 1),
    "trailing.stl": (b"\0" * 80 + struct.pack("<I12fH", 1, *range(12), 0) + b"\0\0", 1),
    "plain.glb": (gltf(), 1),
    "no_scene.glb": (gltf(scene=None, scenes=None), 1),
    "archive.zip": (ZIP.getvalue(), 1),
    "extension.glb": (gltf(extensionsUsed=["KHR_unheard_of"]), 1),
}  # fmt: skip
REFUSED = {
    # a name: what is in the file, and what is said
    "empty.obj": (b"", "no triangle"),
    "words.obj": (f"{T}f a b c\n".encode(), "text where a number"),
    "flat.obj": (b"v 0 0\nv 1 0\nv 0 1\nf 1 2 3\n", "fewer than three"),
    "zero.obj": (f"{T}f 0 1 2\n".encode(), "count from 1"),
    "beyond.obj": (f"{T}f 1 2 4\n".encode(), "not in the file"),
    "uv_beyond.obj": (f"{T}vt 0 0\nf 1/1 2/2 3/1\n".encode(), "texture coordinates"),
    "nan.obj": (f"{T}v nan 0 0\nf 1 2 4\n".encode(), "NaN"),
    "points.ply": (f"{PLY}end_header\n{PLACES}".encode(), "no triangle"),
    "short.ply": (ply("3 0 1\n"), "ends before"),
    "unknown.ply": (ply(face=FACE.replace("uchar", "ushrt")), "unknown type"),
    "no_z.ply": (ply(head=PLY.replace("property float z\n", "")), "x, y and z|ends before"),
    "no_list.ply": (ply(face=FACE.replace("vertex_indices", "corners")), "list of vertex"),
    "negative.ply": (ply("3 0 1 -2\n"), "not in the file"),
    "no_header.ply": (b"plywood\n", "header"),
    "compressed.ply": (ply().replace(b"ascii", b"zipped"), "unknown format"),
    "many.ply": (binary_ply(4_000_000_000, b"\0" * 36), "announces"),
    "cut.ply": (binary_ply(3, b"\0" * 36 + b"\3\0\0\0\0"), "ends before"),
    "long_list.ply": (binary_ply(3, b"\0" * 36 + b"\xff"), "list of 255"),
    "many.off": (b"OFF\n3000000000 3000000000 0\n", "announces"),
    "few.off": (b"OFF\n3 1 0\n0 0 0\n1 0 0\n0 1 0\n", "lines for 4"),
    "binary.off": (b"OFF BINARY\n\0\0\0\3", "binary"),
    "four.off": (b"4OFF\n3 1 0\n", "dimensions"),
    "short_face.off": (b"OFF\n3 1 0\n0 0 0\n1 0 0\n0 1 0\n3 0 1\n", "fewer vertices"),
    "many.stl": (b"\0" * 80 + struct.pack("<I", 4_000_000_000), "triangles"),
    "open.stl": (b"solid a\nvertex 0 0 0\nvertex 1 0 0\nendsolid\n", "within a triangle"),
    "nan.stl": (b"\0" * 80 + struct.pack("<I12fH", 1, *[float("nan")] * 12, 0), "NaN"),
    "cut.glb": (gltf()[:-9], "cut off"),
    "one.glb": (b"glTF" + struct.pack("<II", 1, 12), "glTF 1"),
    "json.gltf": (b"{", "JSON"),
    "list.gltf": (b"[]", "glTF"),
    "one.gltf": (json.dumps({"asset": {"version": "1.0"}}).encode(), "glTF 2"),
    "draco.glb": (gltf(extensionsRequired=["KHR_draco_mesh_compression"]), "draco"),
    "loop.glb": (gltf(nodes=[{"children": [0], "mesh": 0}]), "below itself"),
    "lost.glb": (gltf(nodes=[{"mesh": 7}]), r"meshes\[7\]"),
    "huge.glb": (gltf(accessors=accessor(count=1 << 40)), "announces"),
    "void.glb": (gltf(accessors=accessor(bufferView=None, count=1 << 40)), "refers|no data"),
    "type.glb": (gltf(accessors=accessor(componentType=5130)), "unknown type"),
    "strings.glb": (gltf(nodes="nodes"), "list of objects"),
    "matrix.glb": (gltf(nodes=[{"mesh": 0, "matrix": [1, 2]}]), "matrix.glb"),
    "no_buffer.gltf": (
        json.dumps({"asset": {"version": "2.0"}, "buffers": [{"uri": "a.bin", "byteLength": 9}],
                    "bufferViews": [{"buffer": 0, "byteLength": 9}], "nodes": [{"mesh": 0}],
                    "accessors": accessor(),
                    "meshes": [{"primitives": [{"attributes": {"POSITION": 0}}]}]}).encode(),
        "a.bin",
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", READ)
def test_odd_files_are_read(tmp_path: Path, name: str) -> None:
    data, count = READ[name]
    (tmp_path / name).write_bytes(data)
    mesh = tr.load_mesh(tmp_path / name)
    assert len(mesh.faces) == count


@pytest.mark.parametrize("name", REFUSED)
def test_bad_files_are_refused_by_name_with_the_reason(tmp_path: Path, name: str) -> None:
    data, complaint = REFUSED[name]
    (tmp_path / name).write_bytes(data)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        with pytest.raises(ValueError, match=complaint) as caught:
            tr.load_mesh(tmp_path / name)
    assert str(caught.value).startswith(f"{tmp_path / name}: ")


def attempt(path: Path) -> tuple[tr.Mesh | None, str]:
    """The mesh, or the words of its refusal."""
    try:
        return tr.load_mesh(path), ""
    except ValueError as error:
        return None, str(error)


def test_every_cut_of_a_file_is_read_or_refused(tmp_path: Path) -> None:
    """A cut file gives a mesh only if what is left of it is whole."""
    box = tr.box()
    mesh = tr.Mesh(box.vertices, box.faces, colours=torch.ones(8, 3))
    for suffix in (".obj", ".ply", ".off", ".stl", ".glb"):
        whole = tmp_path / f"whole{suffix}"
        tr.save_mesh(whole, mesh)
        data = whole.read_bytes()
        for size in range(0, len(data) - 1, max(1, len(data) // 60)):
            (tmp_path / f"cut{suffix}").write_bytes(data[:size])
            found, refusal = attempt(tmp_path / f"cut{suffix}")
            assert f"cut{suffix}: " in refusal or (suffix == ".obj" and found is not None)


def test_images_that_are_absent_or_broken_are_named(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    (tmp_path / "m.obj").write_text(f"mtllib m.mtl\n{T}vt 0 0\nusemtl a\nf 1/1 2/1 3/1\n")
    (tmp_path / "m.mtl").write_text("newmtl a\nKd 1 0 0\nmap_Kd a.png\n")
    for data in (None, b"", b"no picture", "cut"):
        if data == "cut":
            Image.new("RGB", (40, 40)).save(tmp_path / "a.png")
            data = (tmp_path / "a.png").read_bytes()[:60]
        if isinstance(data, bytes):
            (tmp_path / "a.png").write_bytes(data)
        caplog.clear()
        with caplog.at_level(logging.WARNING):
            mesh = tr.load_mesh(tmp_path / "m.obj")
        assert mesh.texture is None and mesh.colours is not None
        assert mesh.colours[0].tolist() == [1, 0, 0]
        assert "a.png" in caplog.text and len(caplog.records) == 1


@pytest.mark.skipif(not ASSIMP.is_dir(), reason="needs Debian's assimp-testmodels")
def test_assimps_files_are_read_or_refused(caplog: pytest.LogCaptureFixture) -> None:
    """Those of the formats that are read here; each in at most one warning."""
    read = 0
    suffixes = (".obj", ".ply", ".off", ".stl", ".gltf", ".glb")
    files = [path for path in sorted(ASSIMP.rglob("*")) if path.suffix.lower() in suffixes]
    for path in files:
        if path.stat().st_size > 1_500_000:
            continue
        caplog.clear()
        mesh, refusal = attempt(path)
        assert mesh is not None or refusal.startswith(f"{path}: ")
        read += mesh is not None
        assert len(caplog.records) <= 1
    assert read >= len(files) // 2
