"""Metrics of shapes, against closed forms, trimesh and brute force."""

import math

import numpy as np
import pytest
import torch
import trimesh

import taichi_raster as tr
from taichi_raster.fitting.metrics import (
    chamfer_distance,
    sample_surface,
    surface_distance,
    volume,
    voxel_iou,
    voxelise,
)

pytestmark = pytest.mark.runs_on(arch="cpu", precision="f64")
F64 = torch.float64


def random_points(batch, count, seed=0):
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(batch, count, 3, dtype=F64, generator=generator)


def as_trimesh(mesh):
    return trimesh.Trimesh(mesh.vertices.numpy(), mesh.faces.numpy(), process=False)


def turned(mesh, seed=0):
    """Rotated at random, so that nothing is aligned with the voxels."""
    q, _ = torch.linalg.qr(random_points(1, 3, seed)[0])
    q = q * torch.linalg.det(q)
    return tr.Mesh(mesh.vertices @ q.T, mesh.faces)


SOLIDS = {
    "box": tr.box(1.0, 0.7, 0.5, dtype=F64),
    "blob": tr.blob(3, 0.3, 2, dtype=F64),
    "star": tr.star(5, dtype=F64),
    "torus": tr.torus(0.7, 0.25, dtype=F64),
    "knot": tr.torus_knot(dtype=F64),
}


# Chamfer distance -------------------------------------------------------------------------------


def test_chamfer_distance_equals_a_search_in_numpy():
    a, b = random_points(3, 20), random_points(3, 33, 1)
    for i in range(3):
        table = np.linalg.norm(a[i, :, None].numpy() - b[i].numpy(), axis=-1)
        wanted = (table.min(0).mean() + table.min(1).mean()) / 2
        assert float(chamfer_distance(a, b)[i]) == pytest.approx(wanted, rel=1e-12)
    torch.testing.assert_close(chamfer_distance(a, b), chamfer_distance(b, a))


def test_a_shift_less_than_half_the_spacing_is_the_chamfer_distance():
    grid = torch.cartesian_prod(*[torch.arange(4, dtype=F64)] * 3)[None]
    shift = torch.tensor([0.2, -0.1, 0.2], dtype=F64)
    assert float(chamfer_distance(grid, grid + shift)) == pytest.approx(0.3)


def test_chamfer_distance_has_the_right_and_a_finite_slope():
    a, b = random_points(2, 6).requires_grad_(), random_points(2, 5, 1).requires_grad_()
    assert torch.autograd.gradcheck(chamfer_distance, (a, b))
    (slope,) = torch.autograd.grad(chamfer_distance(a, a.detach()).sum(), a)
    assert torch.isfinite(slope).all()


# Distance to a surface --------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["box", "blob", "star", "knot"])
def test_surface_distance_equals_trimesh(name):
    mesh = SOLIDS[name]
    points = random_points(1, 200)
    distance = surface_distance(points, mesh.vertices[None], mesh.faces)[0]
    _, wanted, _ = trimesh.proximity.closest_point_naive(as_trimesh(mesh), points[0].numpy())
    np.testing.assert_allclose(distance.numpy(), wanted, atol=1e-12)


def test_surface_distance_of_a_batch_is_that_of_each_padded_or_not(monkeypatch):
    meshes = [SOLIDS["box"], SOLIDS["star"], SOLIDS["blob"]]
    batch, points = tr.collate(meshes), random_points(3, 30)
    together = surface_distance(points, batch.vertices, batch.faces)
    for i, mesh in enumerate(meshes):
        alone = surface_distance(points[i : i + 1], mesh.vertices[None], mesh.faces)
        torch.testing.assert_close(together[i : i + 1], alone)
    monkeypatch.setattr("taichi_raster.fitting.metrics._PAIRS_AT_ONCE", 1)
    torch.testing.assert_close(surface_distance(points, batch.vertices, batch.faces), together)


def test_points_of_the_surface_are_at_distance_zero_with_a_finite_slope():
    mesh = SOLIDS["blob"]
    vertices = mesh.vertices[None].clone().requires_grad_()
    generator = torch.Generator().manual_seed(0)
    points = sample_surface(mesh.vertices[None], mesh.faces, 100, generator)
    distance = surface_distance(points, vertices, mesh.faces)
    assert distance.max() < 1e-11
    corner = surface_distance(mesh.vertices[None], vertices, mesh.faces)
    (slope,) = torch.autograd.grad((distance.sum() + corner.sum()), vertices)
    assert corner.max() < 1e-11 and torch.isfinite(slope).all()


def test_surface_distance_has_the_right_slope():
    mesh = SOLIDS["box"]
    points = random_points(1, 12).requires_grad_()
    vertices = mesh.vertices[None].clone().requires_grad_()
    assert torch.autograd.gradcheck(
        lambda p, v: surface_distance(p, v, mesh.faces), (points, vertices)
    )


def test_degenerate_faces_do_no_harm():
    vertices = torch.tensor([[0, 0, 0], [1, 0, 0], [2, 0, 0], [0, 0, 0]], dtype=F64)[None]
    faces = torch.tensor([[0, 1, 2], [0, 3, 0]])
    points = torch.tensor([[[0.5, 1, 0], [3, 0, 0]]], dtype=F64, requires_grad=True)
    distance = surface_distance(points, vertices, faces)
    torch.testing.assert_close(distance, torch.ones(1, 2, dtype=F64))
    (slope,) = torch.autograd.grad(distance.sum(), points)
    assert torch.isfinite(slope).all()


# Samples ----------------------------------------------------------------------------------------


def test_samples_lie_on_the_surface_in_proportion_to_area():
    # Two sides of 1 x 4 stand opposite two of 1 x 2 and two of 2 x 4: shares by area.
    box = tr.box(1.0, 2.0, 4.0, dtype=F64)
    generator = torch.Generator().manual_seed(0)
    points = sample_surface(box.vertices[None], box.faces, 2800, generator)[0]
    on = [(points[:, axis].abs() - half).abs() < 1e-9 for axis, half in enumerate((0.5, 1.0, 2.0))]
    shares = [int(side.sum()) for side in on]
    np.testing.assert_allclose(shares, [1600, 800, 400], atol=12)  # strata: a few at the borders
    centroid = points[on[0]].mean(dim=0).abs()
    assert centroid.max() < 4 * 4 / math.sqrt(12 * 1600)  # four standard errors


def test_what_a_mesh_gets_does_not_depend_on_the_rest_of_the_batch():
    batch = tr.collate([SOLIDS["box"], SOLIDS["blob"]])
    together = sample_surface(batch.vertices, batch.faces, 50, torch.Generator().manual_seed(3))
    box = SOLIDS["box"]
    alone = sample_surface(box.vertices[None], box.faces, 50, torch.Generator().manual_seed(3))
    torch.testing.assert_close(together[:1], alone)


# Volumes and voxels -----------------------------------------------------------------------------


def test_volumes_of_a_box_and_a_fine_sphere_and_torus():
    box = tr.box(1.0, 2.0, 3.0, dtype=F64)
    assert float(volume(box.vertices[None] + 5, box.faces)) == pytest.approx(6)
    assert float(volume(box.vertices[None], box.faces.flip(1))) == pytest.approx(-6)
    sphere = tr.icosphere(5, 0.8, dtype=F64)
    wanted = 4 / 3 * math.pi * 0.8**3
    assert float(volume(sphere.vertices[None], sphere.faces)) == pytest.approx(wanted, rel=2e-3)
    torus = tr.torus(0.7, 0.3, 64, 128, dtype=F64)
    wanted = 2 * math.pi**2 * 0.7 * 0.3**2
    assert float(volume(torus.vertices[None], torus.faces)) == pytest.approx(wanted, rel=3e-3)


def test_padding_has_no_volume():
    batch = tr.collate([SOLIDS["box"], SOLIDS["blob"]])
    box = SOLIDS["box"]
    assert float(volume(batch.vertices, batch.faces)[0]) == pytest.approx(0.35)
    assert float(volume(box.vertices[None], box.faces)) == pytest.approx(0.35)


def test_a_box_on_the_voxels_borders_fills_just_its_voxels():
    box = tr.box(1.0, 1.0, 1.0, dtype=F64)  # [-0.5, 0.5]^3 in [-1, 1]^3 of 8^3 voxels
    voxels = voxelise(box.vertices[None], box.faces, 8)[0]
    wanted = torch.zeros(8, 8, 8, dtype=torch.bool)
    wanted[2:6, 2:6, 2:6] = True
    assert torch.equal(voxels, wanted)


def test_axes_are_x_y_z():
    box = tr.box(0.5, 1.0, 2.0, dtype=F64)
    voxels = voxelise(box.vertices[None] + 0.01, box.faces, 16)[0]
    assert [int(voxels.any(dim=d).any(dim=e).sum()) for d, e in ((1, 1), (0, 1), (0, 0))] == [
        4,
        8,
        16,
    ]


@pytest.mark.parametrize("name", SOLIDS)
def test_voxels_are_those_whose_centres_have_a_winding_number_of_one(name):
    mesh = turned(SOLIDS[name])
    voxels = voxelise(mesh.vertices[None], mesh.faces, 12, (-1.2, 1.2))[0]
    centres = (torch.arange(12, dtype=F64) + 0.5) * 0.2 - 1.2
    grid = torch.cartesian_prod(centres, centres, centres)
    assert torch.equal(voxels.flatten(), winding_numbers(grid, mesh) > 0.5)
    assert voxels.any()


def winding_numbers(points, mesh):
    """Generalised winding numbers, by solid angles (Van Oosterom and Strackee 1983)."""
    a, b, c = (mesh.vertices[mesh.faces] - points[:, None, None]).unbind(dim=2)
    la, lb, lc = (x.norm(dim=-1) for x in (a, b, c))
    top = (a * torch.linalg.cross(b, c)).sum(-1)
    bottom = la * lb * lc + (a * b).sum(-1) * lc + (b * c).sum(-1) * la + (c * a).sum(-1) * lb
    return torch.atan2(top, bottom).sum(dim=1) / (2 * math.pi)


def test_voxels_fill_the_volume():
    for mesh in (tr.icosphere(4, 0.9, dtype=F64), turned(tr.torus(0.65, 0.3, 32, 64, dtype=F64))):
        voxels = voxelise(mesh.vertices[None], mesh.faces, 48)
        filled = float(voxels.sum()) * (2 / 48) ** 3
        assert filled == pytest.approx(float(volume(mesh.vertices[None], mesh.faces)), rel=5e-3)


def test_lines_through_vertices_and_edges_do_not_slip_through():
    # The vertices of an octahedron, its edges' projections and the diagonals of a box' sides all
    # lie on lines of voxel centres.
    octahedron = tr.superquadric(1.0, 1.0, 2, 4, radius=0.75, dtype=F64)
    voxels = voxelise(octahedron.vertices[None], octahedron.faces, 3, (-0.75, 0.75))[0]
    assert bool(voxels[1, 1, 1]) and voxels.sum() == 7  # |x| + |y| + |z| < 0.75 in steps of 0.5
    box = tr.box(1.0, 1.0, 1.0, dtype=F64)
    assert voxelise(box.vertices[None], box.faces, 5).sum() == 27  # centres at 0, +-0.4, +-0.8


def test_overlapping_and_inward_surfaces_are_solid():
    box = tr.box(1.0, 1.0, 1.0, dtype=F64)
    twice = tr.Mesh(
        torch.cat([box.vertices, box.vertices + 0.25]), torch.cat([box.faces, box.faces + 8])
    )
    one = voxelise(box.vertices[None], box.faces, 16)
    other = voxelise(box.vertices[None] + 0.25, box.faces, 16)
    assert torch.equal(voxelise(twice.vertices[None], twice.faces, 16), one | other)
    assert torch.equal(voxelise(box.vertices[None], box.faces.flip(1), 16), one)


def test_voxels_of_a_padded_batch_are_those_of_each():
    meshes = [turned(mesh, i) for i, mesh in enumerate(SOLIDS.values())]
    batch = tr.collate(meshes)
    together = voxelise(batch.vertices, batch.faces, 10)
    for mesh, voxels in zip(meshes, together, strict=True):
        assert torch.equal(voxelise(mesh.vertices[None], mesh.faces, 10)[0], voxels)


def test_voxel_iou_by_hand():
    a = torch.tensor([[1, 1, 0, 0], [1, 1, 1, 1], [0, 0, 0, 0]], dtype=torch.bool)
    b = torch.tensor([[1, 0, 1, 0], [1, 1, 1, 1], [0, 0, 0, 0]], dtype=torch.bool)
    torch.testing.assert_close(voxel_iou(a, b), torch.tensor([1 / 3, 1.0, 1.0]))


POINTS = torch.zeros(2, 4, 3)
BOX = tr.box()


@pytest.mark.parametrize(
    ("make", "named"),
    [
        (lambda: chamfer_distance(POINTS[0], POINTS), "points_a"),
        (lambda: chamfer_distance(POINTS, POINTS[:, :0]), "points_b"),
        (lambda: chamfer_distance(POINTS, POINTS[:1]), "points_b: has batch 1"),
        (lambda: surface_distance(POINTS, BOX.vertices[None], BOX.faces), "vertices: has batch 1"),
        (lambda: sample_surface(POINTS, BOX.faces[:0], 3, torch.Generator()), "faces"),
        (lambda: sample_surface(POINTS, torch.tensor([[0, 1, 2]]), 3, torch.Generator()), "area"),
        (lambda: sample_surface(BOX.vertices[None], BOX.faces, 0, torch.Generator()), "count"),
        (lambda: voxelise(BOX.vertices[None], BOX.faces[1:]), "faces: the surface is open.*3 edg"),
        (lambda: voxelise(BOX.vertices[None], BOX.faces, 0), "resolution"),
        (lambda: voxelise(BOX.vertices[None], BOX.faces, 4, (1, 1)), "bounds"),
        (lambda: voxel_iou(POINTS > 0, POINTS[:1] > 0), "b: must have the shape of a"),
    ],
)
def test_wrong_arguments_are_refused_by_name(make, named):
    with pytest.raises(ValueError, match=named):
        make()


def test_voxels_are_booleans():
    with pytest.raises(TypeError, match=r"^a: must hold booleans"):
        voxel_iou(POINTS, POINTS)
