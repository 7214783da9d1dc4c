"""Normals and lights, from closed forms on planes and spheres."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor

import taichi_raster as tr
from taichi_raster.scene.normals import face_normals, unit, vertex_normals

pytestmark = pytest.mark.runs_on(arch="cpu", precision="f64")
F64 = torch.float64
SQUARE = torch.tensor([[[-1.0, -1, 0], [1, -1, 0], [1, 1, 0], [-1, 1, 0]]], dtype=F64)
SQUARE_FACES = torch.tensor([[0, 1, 2], [0, 2, 3]])


def colours(value: float = 1.0) -> Tensor:
    return torch.full((1, 2, 3, 3), value, dtype=F64)


def test_a_counter_clockwise_square_faces_plus_z() -> None:
    expected = torch.tensor([0.0, 0, 1], dtype=F64)
    normals = face_normals(tr.gather_faces(SQUARE, SQUARE_FACES))
    torch.testing.assert_close(normals, expected.expand(1, 2, 3))
    for weighting in ("area", "angle"):
        at = vertex_normals(SQUARE, SQUARE_FACES, weighting)
        torch.testing.assert_close(at, expected.expand(1, 4, 3))


@pytest.mark.parametrize("weighting", ["area", "angle"])
def test_a_spheres_vertex_normals_are_its_radii(weighting: str) -> None:
    mesh = tr.icosphere(3, 2.0, dtype=F64)
    normals = vertex_normals(mesh.vertices[None], mesh.faces, weighting)[0]
    assert float((normals - mesh.vertices / 2).norm(dim=-1).max()) < 0.02


def test_angle_weights_do_not_see_how_a_cube_is_cut() -> None:
    cube = tr.box(dtype=F64)
    merged, index = cube.vertices.unique(dim=0, return_inverse=True)
    normals = vertex_normals(merged[None], index[cube.faces], "angle")[0]
    torch.testing.assert_close(normals, merged / merged.norm(dim=-1, keepdim=True))


@pytest.mark.parametrize("size", [1e-30, 1e-12, 1e-5, 1e10, 1e30])
def test_normals_have_no_unit_of_length(size: float) -> None:
    sphere = tr.icosphere(2, dtype=torch.float32)
    for weighting in ("area", "angle"):
        found = vertex_normals(size * sphere.vertices[None], sphere.faces, weighting)[0]
        assert float((found - sphere.vertices).abs().max()) < 0.05
    normals = face_normals(tr.gather_faces(size * sphere.vertices[None], sphere.faces))
    assert float((normals.norm(dim=-1) - 1).abs().max()) < 1e-5


def test_a_degenerate_triangle_has_normal_zero_and_no_gradient() -> None:
    corners = torch.zeros(1, 1, 3, 3, dtype=F64, requires_grad=True)
    normals = face_normals(corners)
    (gradient,) = torch.autograd.grad(normals.sum(), corners)
    assert float(normals.abs().sum() + gradient.abs().sum()) == 0


def test_lamberts_cosine() -> None:
    angle = math.radians(60)
    light = tr.DirectionalLight((math.sin(angle), 0.0, math.cos(angle)), 0.8)
    lit = tr.shade_flat(SQUARE, SQUARE_FACES, colours(0.5), [light, tr.AmbientLight(0.1)])
    torch.testing.assert_close(lit, colours(0.5 * (0.8 * 0.5 + 0.1)))
    from_behind = tr.DirectionalLight((0.0, 0.0, -1.0))
    assert float(tr.shade_flat(SQUARE, SQUARE_FACES, colours(), [from_behind]).abs().max()) == 0


def test_a_point_light_falls_off_and_slants() -> None:
    light = tr.PointLight((0.0, 0.0, 2.0), (1.0, 0.5, 0.25), (0.0, 0.0, 1.0))
    lit = tr.shade_gouraud(SQUARE, SQUARE_FACES, colours(), [light])
    square = 1 + 1 + 4  # distance from a corner
    expected = torch.tensor([1.0, 0.5, 0.25], dtype=F64) / square * (2 / math.sqrt(square))
    torch.testing.assert_close(lit, expected.expand(1, 2, 3, 3))


def test_blinns_highlight_peaks_at_the_mirror_direction() -> None:
    normal = torch.tensor([[[0.0, 0.0, 1.0]]], dtype=F64)
    place = torch.zeros(1, 1, 3, dtype=F64)
    light = tr.DirectionalLight((1.0, 0.0, 1.0), 1.0)
    shiny = tr.Material(specular=0.7, shininess=10.0)
    black = torch.zeros(1, 1, 3, dtype=F64)
    mirror = tr.illuminate(black, normal, place, [light], torch.tensor([-5.0, 0, 5]), shiny)
    torch.testing.assert_close(mirror, torch.full_like(black, 0.7))
    # The eye above: half way to the light is 22.5 degrees from the normal.
    above = tr.illuminate(black, normal, place, [light], torch.tensor([0.0, 0, 5]), shiny)
    expected = 0.7 * math.cos(math.radians(22.5)) ** 10
    torch.testing.assert_close(above, torch.full_like(black, expected))


def test_two_sided_materials_are_lit_from_behind_as_well() -> None:
    eye, light = torch.tensor([0.0, 0.0, -3.0]), tr.DirectionalLight((0.0, 0.0, -1.0), 1.0)
    lit = tr.shade_flat(SQUARE, SQUARE_FACES, colours(), [light], eye, tr.Material(two_sided=True))
    torch.testing.assert_close(lit, colours())


def test_phong_shading_of_a_sphere_is_the_spheres_own() -> None:
    mesh = tr.icosphere(4, 1.0, dtype=F64)
    camera = tr.OrthographicCamera(tr.look_at(torch.tensor([[0.0, 0, 3]], dtype=F64)), 1.2)
    faces = tr.gather_faces(camera.project(mesh.vertices[None]), mesh.faces)
    white = torch.ones(1, len(mesh.faces), 3, 1, dtype=F64)
    attributes = tr.surface_attributes(mesh.vertices[None], mesh.faces, white)
    renderer = tr.SoftRasterizer(
        24, tr.Distribution("uniform", 1e-3), tr.HardDepth(), near=1.0, far=5.0, orthographic=True
    )
    direction = torch.tensor([0.3, 0.5, 0.8], dtype=F64)
    picture = tr.shade_image(renderer(faces, attributes), [tr.DirectionalLight(direction, 1.0)])
    at = (torch.arange(24, dtype=F64) * 2 - 23) / 24 * 1.2
    y, x = torch.meshgrid(-at, at, indexing="ij")
    inside = x**2 + y**2 < 0.9
    z = (1 - x**2 - y**2).clamp(min=0).sqrt()
    cosine = (torch.stack([x, y, z], -1) @ (direction / direction.norm())).clamp(min=0)
    assert float((picture[0, ..., 0] - cosine)[inside].abs().max()) < 0.02


def test_light_has_first_and_second_derivatives() -> None:
    g = torch.Generator().manual_seed(0)
    place = torch.randn(1, 4, 3, generator=g, dtype=F64)
    normals = unit(torch.tensor([0.1, 0.2, 1.0], dtype=F64) + 0.1 * place)
    albedo = torch.rand(1, 4, 3, generator=g, dtype=F64)
    at, towards = torch.tensor([0.5, 1.0, 6.0]).double(), torch.tensor([0.2, 0.1, 1.0]).double()

    def light(a: Tensor, n: Tensor, p: Tensor, at: Tensor, d: Tensor, k: Tensor) -> Tensor:
        lights = (tr.PointLight(at, k, (1.0, 0.1, 0.2)), tr.DirectionalLight(d, k))
        material = tr.Material(specular=k, shininess=k[0] * 8)
        return tr.illuminate(a, n, p, lights, torch.tensor([0.0, 0.0, 9.0]), material)

    k = torch.tensor([0.5, 0.6, 0.7], dtype=F64)
    inputs = [v.detach().requires_grad_() for v in (albedo, normals, place, at, towards, k)]
    assert torch.autograd.gradcheck(light, inputs)
    assert torch.autograd.gradgradcheck(light, inputs)


def test_normals_have_first_and_second_derivatives() -> None:
    vertices = SQUARE + 0.3 * torch.randn(SQUARE.shape, generator=torch.Generator().manual_seed(1))
    for weighting in ("area", "angle"):
        inputs = (vertices.double().requires_grad_(),)
        assert torch.autograd.gradcheck(
            lambda v, w=weighting: vertex_normals(v, SQUARE_FACES, w), inputs
        )
        assert torch.autograd.gradgradcheck(
            lambda v, w=weighting: vertex_normals(v, SQUARE_FACES, w), inputs
        )


def test_bad_input_is_refused_by_name() -> None:
    n = torch.zeros(1, 2, 3, dtype=F64)
    with pytest.raises(ValueError, match="eye"):
        tr.illuminate(n, n, n, [], material=tr.Material(specular=1.0))
    with pytest.raises(ValueError, match="normals"):
        tr.illuminate(n, n[:, :1], n, [])
    with pytest.raises(ValueError, match="direction"):
        tr.illuminate(n, n, n, [tr.DirectionalLight((0.0, 0.0, 0.0))])
    with pytest.raises(TypeError, match="lights"):
        tr.illuminate(n, n, n, [0.5])  # type: ignore[list-item]
    with pytest.raises(ValueError, match="weighting"):
        vertex_normals(SQUARE, SQUARE_FACES, "fair")
    with pytest.raises(ValueError, match="image"):
        tr.shade_image(torch.zeros(1, 4, 4, 7), [])
