"""Meshes made by code: closed, wound outwards, of the right topology; and batches of them."""

from __future__ import annotations

import math
from collections.abc import Callable

import pytest
import torch
import trimesh

import taichi_raster as tr

pytestmark = pytest.mark.runs_on(arch="cpu", precision="f64")
F64 = torch.float64

# (mesh, Euler characteristic, volume or None)
CLOSED: dict[str, tuple[Callable[[], tr.Mesh], int, float | None]] = {
    "icosphere": (lambda: tr.icosphere(4, 1.0, F64), 2, 4 / 3 * math.pi),
    "uv_sphere": (lambda: tr.uv_sphere(64, 128, 1.0, F64), 2, 4 / 3 * math.pi),
    "box": (lambda: tr.box(1.0, 2.0, 3.0, F64), 2, 6.0),
    "cylinder": (lambda: tr.cylinder(0.5, 2.0, 256, F64), 2, math.pi / 2),
    "cone": (lambda: tr.cone(0.5, 3.0, 256, F64), 2, math.pi / 4),
    "capsule": (lambda: tr.capsule(0.3, 1.0, 64, F64), 2, math.pi * 0.09 * (1 + 0.4)),
    "torus": (lambda: tr.torus(0.7, 0.3, 128, 128, F64), 0, 2 * math.pi**2 * 0.7 * 0.09),
    "torus_knot": (lambda: tr.torus_knot(dtype=F64), 0, None),
    "superquadric": (lambda: tr.superquadric(1.0, 1.0, 64, 128, 1.0, F64), 2, 4 / 3 * math.pi),
    "superquadric, sharp": (lambda: tr.superquadric(0.3, 1.6, dtype=F64), 2, None),
    "blob": (lambda: tr.blob(3, dtype=F64), 2, None),
    "star": (lambda: tr.star(5, 1.0, 0.4, 0.4, F64), 2, 5 * 0.4 * math.sin(math.pi / 5) * 0.4),
}


def as_trimesh(mesh: tr.Mesh) -> trimesh.Trimesh:
    return trimesh.Trimesh(mesh.vertices.numpy(), mesh.faces.numpy(), process=False)


@pytest.mark.parametrize("name", CLOSED)
def test_the_surface_is_closed_and_wound_outwards(name: str) -> None:
    make, euler, volume = CLOSED[name]
    mesh = make()
    found = as_trimesh(mesh)
    assert found.is_watertight
    assert found.is_winding_consistent
    assert found.euler_number == euler
    assert found.volume > 0
    assert float(found.area_faces.min()) > 0
    if volume is not None:
        assert found.volume == pytest.approx(volume, rel=5e-3)
    middle = (mesh.vertices.amin(0) + mesh.vertices.amax(0)) / 2
    assert float(middle.abs().max()) < (0.5 if name == "blob" else 0.2)


@pytest.mark.parametrize("name", ["uv_sphere", "torus", "torus_knot", "superquadric"])
def test_texture_coordinates_cover_the_square_without_folds(name: str) -> None:
    corners = CLOSED[name][0]().corner_uv()[0]
    edge, diagonal = corners[:, 1] - corners[:, 0], corners[:, 2] - corners[:, 0]
    area = (edge[:, 0] * diagonal[:, 1] - edge[:, 1] * diagonal[:, 0]) / 2
    assert float(area.min()) > 0
    assert 0.95 < float(area.sum()) <= 1 + 1e-9


def test_a_plane_faces_plus_z() -> None:
    mesh = tr.plane(3, 2, 4.0, 2.0, F64)
    normals = as_trimesh(mesh).face_normals
    assert (normals == [0, 0, 1]).all()
    assert as_trimesh(mesh).area == pytest.approx(8.0)


def test_a_blob_is_its_seeds() -> None:
    assert torch.equal(tr.blob(5).vertices, tr.blob(5).vertices)
    assert not torch.equal(tr.blob(5).vertices, tr.blob(6).vertices)


@pytest.mark.parametrize(
    ("call", "name"),
    [
        (lambda: tr.uv_sphere(1), "rings"),
        (lambda: tr.box(width=0.0), "width"),
        (lambda: tr.cylinder(sections=2), "sections"),
        (lambda: tr.cone(height=-1.0), "height"),
        (lambda: tr.torus(0.3, 0.3), "minor"),
        (lambda: tr.torus_knot(2, 4), "p, q"),
        (lambda: tr.blob(roughness=math.inf), "roughness"),
        (lambda: tr.star(1), "points"),
        (lambda: tr.plane(0), "columns"),
        (lambda: tr.superquadric(0.0), "e1"),
        (lambda: tr.capsule(radius=-1.0), "radius"),
        (lambda: tr.collate([]), "meshes"),
        (lambda: tr.collate([tr.box(), tr.box(dtype=F64)]), "meshes"),
    ],
)
def test_bad_arguments_are_named(call: Callable[[], object], name: str) -> None:
    with pytest.raises(ValueError, match=f"^{name}: "):
        call()


def test_a_batch_of_different_meshes_renders_each_as_if_alone() -> None:
    meshes = [tr.box(0.8, 0.8, 0.8, F64), tr.icosphere(1, 0.5, F64), tr.cone(dtype=F64)]
    batch = tr.collate(meshes)
    camera = tr.PerspectiveCamera(tr.orbit(torch.tensor(3.0, dtype=F64), 20.0, 30.0), 40.0)
    renderer = tr.SoftRasterizer(12, tr.Distribution("logistic", 0.05), near=0.5, far=9.0)
    together = renderer.silhouette(tr.gather_faces(camera.project(batch.vertices), batch.faces))
    cut = camera.project_faces(batch.vertices, batch.faces, near=0.5)
    torch.testing.assert_close(renderer.silhouette(cut.vertices), together)
    for i, mesh in enumerate(meshes):
        alone = tr.gather_faces(camera.project(mesh.vertices[None]), mesh.faces)
        torch.testing.assert_close(together[i], renderer.silhouette(alone)[0], rtol=0, atol=1e-12)
        assert torch.equal(batch.mesh(i).faces, mesh.faces)


def test_gradients_flow_back_to_each_mesh() -> None:
    vertices = [m.vertices.clone().requires_grad_() for m in (tr.box(dtype=F64), tr.cone())]
    vertices = [v.detach().double().requires_grad_() for v in vertices]
    meshes = [tr.Mesh(vertices[0], tr.box().faces), tr.Mesh(vertices[1], tr.cone().faces)]
    tr.collate(meshes).vertices.square().sum().backward()
    for v in vertices:
        torch.testing.assert_close(v.grad, 2 * v.detach())
