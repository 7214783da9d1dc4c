"""Meshes survive a trip through files, come out at the asked size, and bad files say so."""

import math
import os

import pytest
import torch

from taichi_raster.scene.mesh import Mesh, normalise, subdivide
from taichi_raster.scene.mesh_files import load_mesh, save_mesh
from taichi_raster.scene.procedural import icosphere

pytestmark = pytest.mark.runs_on(arch="cpu", precision="f64")

# A unit cube of six quads, with a texture seam: the first corner is listed twice.
CUBE = """
v 0 0 0
v 1 0 0
v 1 1 0
v 0 1 0
v 0 0 1
v 1 0 1
v 1 1 1
v 0 1 1
v 0 0 0
vt 0 0
vt 1 0
f 1/1 4/1 3/2 2/2
f 5/1 6/1 7/2 8/2
f 9/2 2/1 6/1 5/1
f 2/1 3/1 7/1 6/1
f 3/1 4/1 8/1 7/1
f 4/1 9/2 5/1 8/1
"""


def volume(mesh: Mesh) -> float:
    """Signed volume by the divergence theorem: positive where faces are wound outwards."""
    a, b, c = mesh.vertices[mesh.faces].unbind(1)
    return float((a * torch.linalg.cross(b, c)).sum() / 6)


def edge_uses(mesh: Mesh) -> torch.Tensor:
    edges = mesh.faces[:, [[0, 1], [1, 2], [2, 0]]].reshape(-1, 2).sort(dim=1).values
    return edges.unique(dim=0, return_counts=True)[1]


def test_polygons_are_cut_and_seams_closed(tmp_path):
    (tmp_path / "cube.obj").write_text(CUBE)
    cube = load_mesh(tmp_path / "cube.obj", dtype=torch.float64)
    assert cube.vertices.shape == (8, 3)
    assert cube.faces.shape == (12, 3)
    assert (edge_uses(cube) == 2).all()
    assert volume(cube) == pytest.approx(1.0)


@pytest.mark.parametrize("suffix", [".obj", ".off", ".ply", ".stl", ".glb"])
def test_a_mesh_written_and_read_is_the_same(tmp_path, suffix):
    sphere = icosphere(1, 0.5)
    path = tmp_path / f"sphere{suffix}"
    save_mesh(path, sphere)
    back = load_mesh(path)
    assert back.vertices.shape == sphere.vertices.shape
    assert [entry.name for entry in tmp_path.iterdir()] == [path.name]
    torch.testing.assert_close(
        back.vertices[back.faces].sum((1, 2)).sort().values,
        sphere.vertices[sphere.faces].sum((1, 2)).sort().values,
        atol=1e-5,
        rtol=0,
    )
    assert volume(back) == pytest.approx(volume(sphere), rel=1e-5)


def test_a_failed_write_leaves_the_old_file(tmp_path, monkeypatch):
    path = tmp_path / "sphere.obj"
    save_mesh(path, icosphere(0))
    before = path.read_bytes()

    def fail(*_):
        raise OSError("disk full")

    monkeypatch.setattr(os, "replace", fail)
    with pytest.raises(OSError, match="disk full"):
        save_mesh(path, icosphere(1))
    assert path.read_bytes() == before
    assert [entry.name for entry in tmp_path.iterdir()] == [path.name]


@pytest.mark.parametrize("content", [b"", b"not a mesh\n", bytes(range(256)) * 8, b"v 0 0 0\n"])
@pytest.mark.parametrize("suffix", [".obj", ".ply", ".stl", ".glb", ".off", ".unknown"])
def test_a_corrupt_file_is_a_clear_error(tmp_path, suffix, content):
    path = tmp_path / f"broken{suffix}"
    path.write_bytes(content)
    with pytest.raises(ValueError, match=f"broken{suffix}: "):
        load_mesh(path)


@pytest.mark.parametrize(
    ("obj", "complaint"),
    [
        ("v 0 0 0\nv 1 0 nan\nv 0 1 0\nf 1 2 3\n", "NaN or infinite"),
        ("v 0 0 0\nv 1 0 inf\nv 0 1 0\nf 1 2 3\n", "NaN or infinite"),
        ("v 0 0 0\nv 1 0 0\nv 0 1 0\n", "no triangle|cannot be read"),
        ("v 0 0 0\nv 1 0 0\nf 1 2 7\n", "not in the file|cannot be read"),
    ],
)
def test_a_useless_mesh_is_a_clear_error(tmp_path, obj, complaint):
    path = tmp_path / "bad.obj"
    path.write_text(obj)
    with pytest.raises(ValueError, match=complaint):
        load_mesh(path)


def test_missing_files_and_folders_are_named(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"absent.obj"):
        load_mesh(tmp_path / "absent.obj")
    with pytest.raises(FileNotFoundError, match="absent"):
        save_mesh(tmp_path / "absent" / "sphere.obj", icosphere(0))
    with pytest.raises(ValueError, match=r"sphere.nothing"):
        save_mesh(tmp_path / "sphere.nothing", icosphere(0))


def test_normalise_fits_the_asked_size():
    generator = torch.Generator().manual_seed(0)
    vertices = torch.randn(20, 3, generator=generator) * torch.tensor([3.0, 1.0, 0.5]) + 7
    mesh = Mesh(vertices, torch.tensor([[0, 1, 2]]))
    by_radius = normalise(mesh, radius=0.8).vertices
    by_extent = normalise(mesh, half_extent=0.6).vertices
    assert float(by_radius.norm(dim=1).amax()) == pytest.approx(0.8)
    for vertices in (by_radius, by_extent):
        torch.testing.assert_close(vertices.amin(0), -vertices.amax(0))
    assert float(by_extent.amax()) == pytest.approx(0.6)


def test_icosphere_is_a_closed_sphere_wound_outwards():
    sphere = icosphere(3, 0.5, dtype=torch.float64)
    assert sphere.vertices.shape == (642, 3)
    assert sphere.faces.shape == (1280, 3)
    assert (edge_uses(sphere) == 2).all()
    torch.testing.assert_close(
        sphere.vertices.norm(dim=1), torch.full((642,), 0.5, dtype=torch.float64)
    )
    assert volume(sphere) == pytest.approx(4 / 3 * math.pi * 0.5**3, rel=0.02)


def test_subdivision_keeps_the_surface():
    coarse = icosphere(1, dtype=torch.float64)
    fine = subdivide(coarse)
    assert fine.faces.shape == (4 * 80, 3)
    assert (edge_uses(fine) == 2).all()
    assert torch.equal(fine.vertices[: len(coarse.vertices)], coarse.vertices)
    assert volume(fine) == pytest.approx(volume(coarse))


TRIANGLE = (torch.eye(3), torch.tensor([[0, 1, 2]]))


@pytest.mark.parametrize(
    ("call", "argument"),
    [
        (lambda: Mesh(torch.ones(3, 2), TRIANGLE[1]), "vertices"),
        (lambda: Mesh(torch.full((3, 3), float("nan")), TRIANGLE[1]), "vertices"),
        (lambda: Mesh(TRIANGLE[0], torch.tensor([[0, 1, 3]])), "faces"),
        (lambda: Mesh(TRIANGLE[0], torch.zeros(0, 3, dtype=torch.int64)), "faces"),
        (lambda: normalise(Mesh(*TRIANGLE), radius=0.0), "radius"),
        (lambda: normalise(Mesh(*TRIANGLE), half_extent=-1.0), "half_extent"),
        (lambda: normalise(Mesh(*TRIANGLE), 1.0, 1.0), "radius, half_extent"),
        (lambda: normalise(Mesh(torch.ones(3, 3), TRIANGLE[1])), "mesh"),
        (lambda: icosphere(-1), "subdivisions"),
        (lambda: icosphere(8), "subdivisions"),
        (lambda: icosphere(1, 0.0), "radius"),
    ],
)
def test_bad_arguments_are_named(call, argument):
    with pytest.raises(ValueError, match=f"^{argument}: "):
        call()
