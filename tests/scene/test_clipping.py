"""Cutting at the near plane: geometry from closed forms, derivatives from finite differences."""

import pytest
import torch

import taichi_raster as tr
from taichi_raster.scene.camera import OrthographicCamera, PerspectiveCamera, look_at
from taichi_raster.scene.clipping import clip_near

pytestmark = pytest.mark.runs_on(arch="cpu", precision="f64")
F64 = torch.float64


def face(*corners):
    return torch.tensor([[corners]], dtype=F64)


def random_faces(batch=2, faces=40, seed=0):
    """Corners around the plane z = 1, on both sides."""
    generator = torch.Generator().manual_seed(seed)
    corners = torch.randn(batch, faces, 3, 3, generator=generator, dtype=F64)
    return corners + torch.tensor([0.0, 0.0, 1.0], dtype=F64)


def area_vectors(corners):
    a, b, c = corners.unbind(-2)
    return torch.linalg.cross(b - a, c - a) / 2


def test_one_corner_in_front_leaves_one_triangle():
    clipped = clip_near(face([0, 0, 3], [2, 0, -1], [0, 2, -1]), near=1.0)
    torch.testing.assert_close(clipped.corners, face([0, 0, 3], [1, 0, 1], [0, 1, 1]))
    assert clipped.source.tolist() == [[0]]


def test_two_corners_in_front_leave_two_triangles():
    corners = face([0, 0, -1], [2, 0, 3], [0, 2, 3])
    clipped = clip_near(corners, near=1.0)
    assert clipped.corners.shape == (1, 2, 3, 3)
    assert clipped.source.tolist() == [[0, 0]]
    # The part behind is similar to the whole with half its sides: 3/4 of the area is left.
    torch.testing.assert_close(
        area_vectors(clipped.corners).sum(1), 0.75 * area_vectors(corners).sum(1)
    )


def test_pieces_lie_in_front_within_their_face_and_wind_the_same_way():
    corners = random_faces()
    clipped = clip_near(corners, near=1.0)
    real = clipped.source >= 0
    assert (clipped.corners[real][..., 2] >= 1).all()
    assert (clipped.corners[~real] == 0).all()
    index = clipped.source.clamp(min=0)[..., None, None].expand(-1, -1, 3, 3)
    whole = area_vectors(corners.gather(1, index))[real]
    piece = area_vectors(clipped.corners)[real]
    share = (piece * whole).sum(-1) / whole.square().sum(-1)
    torch.testing.assert_close(piece, share[:, None] * whole)  # in the same plane
    assert ((share > 0) & (share <= 1 + 1e-12)).all()


def test_what_is_left_of_each_face_is_what_lies_in_front():
    # z is linear on a face, so the corner that the plane cuts off is similar to the whole in two
    # directions: its share of the area is the product of its shares of the two edges cut.
    corners = random_faces()
    clipped = clip_near(corners, near=1.0)
    left = torch.zeros(corners.shape[:2], dtype=F64)
    area = area_vectors(clipped.corners).norm(dim=-1)
    left = left.scatter_add(1, clipped.source.clamp(min=0), area)
    above = corners[..., 2] - 1
    ordered = above.sort(dim=-1).values
    low, middle, high = ordered.unbind(-1)
    one_behind = 1 - low**2 / ((low - middle) * (low - high))
    one_in_front = high**2 / ((high - middle) * (high - low))
    share = torch.where(low > 0, torch.ones_like(low), torch.where(middle > 0, one_behind, 0.0))
    share = torch.where((middle <= 0) & (high > 0), one_in_front, share)
    torch.testing.assert_close(left, share * area_vectors(corners).norm(dim=-1))


def test_attributes_are_linear_in_camera_space():
    corners = random_faces()
    generator = torch.Generator().manual_seed(1)
    matrix = torch.randn(3, 4, generator=generator, dtype=F64)
    clipped = clip_near(corners, [corners @ matrix, corners[..., :1]], near=1.0)
    torch.testing.assert_close(clipped.attributes[0], clipped.corners @ matrix)
    torch.testing.assert_close(clipped.attributes[1], clipped.corners[..., :1])


def test_where_nothing_is_cut_the_inputs_come_back():
    corners = random_faces().abs() + 1
    clipped = clip_near(corners, corners, near=1.0)
    assert clipped.corners is corners and clipped.attributes[0] is corners
    assert clipped.source.tolist() == [list(range(40))] * 2


def test_faces_behind_go_and_batch_items_are_padded():
    front, behind = [[0, 0, 2], [1, 0, 2], [0, 1, 2]], [[0, 0, -2], [1, 0, -2], [0, 1, -2]]
    corners = torch.tensor([[front, behind, front], [behind, behind, front]], dtype=F64)
    clipped = clip_near(corners, near=1.0)
    assert clipped.source.tolist() == [[0, 2], [2, -1]]
    assert (clipped.corners[1, 1] == 0).all()
    gone = clip_near(corners[:1, 1:2], near=1.0)
    assert gone.source.tolist() == [[-1]]


def test_corners_on_the_plane_leave_no_empty_triangles():
    touching = torch.tensor(
        [
            [
                [[0, 0, 1], [1, 0, 0], [0, 1, 0]],  # from behind: gone
                [[0, 0, 1], [1, 0, 1], [0, 1, 0]],  # from behind, along an edge: gone
                [[0, 0, 1], [1, 0, 2], [0, 1, 2]],  # from the front: whole
                [[0, 0, 1], [1, 0, 1], [0, 1, 1]],  # in the plane: whole
                [[0, 0, 1], [1, 0, 2], [0, 1, 0]],  # halved at its corner
            ]
        ],
        dtype=F64,
    )
    clipped = clip_near(touching, near=1.0)
    assert clipped.source.tolist() == [[2, 3, 4]]
    area = area_vectors(clipped.corners).norm(dim=-1)[0]
    whole = area_vectors(touching).norm(dim=-1)[0, 2:]
    torch.testing.assert_close(area, whole * torch.tensor([1, 1, 0.5], dtype=F64))


def test_derivatives_are_exact():
    corners = random_faces(faces=6, seed=3).requires_grad_()
    values = torch.randn(2, 6, 3, 2, dtype=F64, generator=torch.Generator().manual_seed(4))

    def clip(corners, values):
        clipped = clip_near(corners, values, near=1.0)
        return clipped.corners, clipped.attributes[0]

    inputs = (corners, values.requires_grad_())
    assert {0, 1, 2, 3} <= set((corners[..., 2] > 1).sum(-1).flatten().tolist())
    assert torch.autograd.gradcheck(clip, inputs)
    assert torch.autograd.gradgradcheck(clip, inputs)


@pytest.mark.parametrize("kind", [PerspectiveCamera, OrthographicCamera])
def test_projected_faces_are_the_projections_of_the_pieces(kind):
    camera = kind(look_at([0.3, 0.2, 1.0]))
    vertices = torch.tensor([[[0, 0, 2], [1, 0, -2], [0, 1, -2], [-1, 0, -1]]], dtype=F64)
    faces = torch.tensor([[0, 1, 2], [1, 3, 2]])
    ones = torch.ones(1, 2, 3, 1, dtype=F64)
    projected = camera.project_faces(vertices, faces, ones, near=0.5)
    assert projected.source.tolist() == [[0, 0, 1]]
    expected = clip_near(camera.to_camera(vertices)[:, faces], near=0.5).corners
    expected = camera.to_image(expected.flatten(1, 2)).view_as(expected)
    torch.testing.assert_close(projected.vertices, expected)
    torch.testing.assert_close(projected.attributes, torch.ones(1, 3, 3, 1, dtype=F64))


def test_a_floor_below_the_eye_reaches_the_bottom_of_the_image():
    # An endless floor at y = -1, seen by a level eye: all below the horizon, nothing above. Its far
    # edge, at z = 60, is 1/60 below the eye's height.
    corners = torch.tensor([[[-90, -1, 60], [90, -1, 60], [90, -1, -60], [-90, -1, -60]]])
    faces = torch.tensor([[0, 1, 2], [0, 2, 3]])
    camera = PerspectiveCamera(look_at([0.0, 0.0, 0.0], [0.0, 0.0, 1.0]), fov=90.0)
    projected = camera.project_faces(corners.to(F64), faces, near=0.1)
    image = tr.SharpRasterizer(16)(projected.vertices, torch.ones_like(projected.vertices))
    alpha = image[0, ..., -1]
    torch.testing.assert_close(alpha[:8], torch.zeros(8, 16, dtype=F64))
    torch.testing.assert_close(alpha[9:], torch.ones(7, 16, dtype=F64))


@pytest.mark.parametrize(
    ("call", "argument"),
    [
        (lambda: clip_near(torch.ones(1, 3, 3)), "corners"),
        (lambda: clip_near(torch.full((1, 1, 3, 3), float("nan"))), "corners"),
        (lambda: clip_near(torch.ones(1, 1, 3, 3), near=0.0), "near"),
        (lambda: clip_near(torch.ones(1, 1, 3, 3), near=float("nan")), "near"),
        (lambda: clip_near(torch.ones(1, 1, 3, 3), torch.ones(1, 2, 3, 1)), "attributes"),
        (lambda: clip_near(torch.ones(1, 1, 3, 3), torch.ones(1, 1, 3, 1).double()), "attributes"),
    ],
)
def test_bad_arguments_are_named(call, argument):
    with pytest.raises(ValueError, match=f"^{argument}: "):
        call()
