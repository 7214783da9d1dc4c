"""Features of photos, their tracks, and the poses by them."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import pytest
import torch
from torch import Tensor

import taichi_raster as tr
from taichi_raster.fitting.bundle import Given
from taichi_raster.fitting.feature_bundle import FeatureBundle
from taichi_raster.fitting.features import (
    Features,
    Tracks,
    _clearly_nearest,
    _neighbours,
    _sift,
    matched,
)
from taichi_raster.fitting.refinement import in_given_world
from turntables import camera, mask_of

pytestmark = pytest.mark.runs_on(arch="cpu", precision="f32")

LENS = tr.BrownConradyLens.from_opencv([-0.2, 0.05, 0.001, -0.002, 0.0])
SIZE = (200, 240)


def dots(size: tuple[int, int], places: Tensor, sigmas: Sequence[float]) -> Tensor:
    """Round spots at (row, column); the first pixel's middle is 0."""
    rows = torch.arange(size[0], dtype=torch.float64)[:, None]
    columns = torch.arange(size[1], dtype=torch.float64)
    picture = torch.full(size, 0.2, dtype=torch.float64)
    for (row, column), sigma in zip(places.tolist(), sigmas, strict=True):
        distance = (rows - row).square() + (columns - column).square()
        picture += 0.6 * torch.exp(-distance / (2 * sigma**2))
    return picture.float()


PLACES = torch.tensor([[40.3, 50.6], [41.8, 120.2], [110.1, 60.9], [120.7, 130.4]])


def test_a_feature_is_in_the_middle_of_its_spot() -> None:
    places, descriptors = _sift(dots((160, 180), PLACES, [2.0, 3.0, 4.0, 6.0]) / 0.2)
    off = torch.cdist(PLACES.double(), places).amin(1)
    assert float(off.max()) < 0.06
    torch.testing.assert_close(descriptors.norm(dim=1), torch.ones(len(places)))


@pytest.mark.parametrize("enlarged", [1, 4])
def test_places_are_those_of_the_whole_photo(enlarged: int) -> None:
    """Of a part of a photo, also where it is made smaller first."""
    size = (160 * enlarged, 240 * enlarged)
    places = (PLACES + 0.5) * enlarged - 0.5
    picture = dots(size, places, [2.0 * enlarged, 3.0 * enlarged, 4.0 * enlarged, 6.0 * enlarged])
    mask = torch.zeros(size)
    mask[20 * enlarged : 150 * enlarged, 20 * enlarged : 170 * enlarged] = 1
    eye = camera(10.0, 0.0)
    found = Features.of(tr.Photo("a", eye, size, picture[..., None].expand(-1, -1, 3), mask))
    rows, columns = places.unbind(1)
    short = min(size)
    ndc = torch.stack([(2 * columns + 1 - size[1]) / short, (size[0] - 2 * rows - 1) / short], 1)
    off = torch.cdist(ndc.double(), found.at).amin(1) * short / 2 / enlarged
    assert float(off.max()) < 0.1
    back = eye.to_image((found.rays * torch.tensor([1.0, -1.0, 1.0]))[None])[0, :, :2]
    torch.testing.assert_close(back, found.at, atol=1e-9, rtol=0)
    # A pixel of the smaller photo, seen from the eye.
    pixels = min(1.0, 500 / (146 * enlarged)) * short / 2
    assert found.pixels == pytest.approx(pixels, rel=0.1)
    assert found.per_radian == pytest.approx(found.pixels * 3.0, rel=0.15)


def test_a_photo_without_features_has_none() -> None:
    mask = torch.zeros(64, 64)
    mask[16:48, 16:48] = 1
    plain = tr.Photo("a", camera(10.0, 0.0), (64, 64), torch.full((64, 64, 3), 0.5), mask)
    found = Features.of(plain)
    assert found.at.shape == (0, 2) and found.rays.shape == (0, 3)
    assert found.descriptors.shape == (0, 128)
    pose = tr.Pose(torch.eye(3), torch.tensor([0.0, 0.0, 5.0]))
    assert len(matched(found, found, pose, pose, 5.0)[0]) == 0


def test_tracks_with_two_features_of_a_photo_or_of_two_photos_are_left_out() -> None:
    first = np.array([0, 4, 8, 12])  # three photos of four features
    ends = np.array(
        [
            [0, 4],  # a track of three photos: 0, 4, 8
            [4, 8],
            [1, 5],  # of two
            [2, 6],  # of three, but two of the first: 2, 6, 10, 3
            [6, 10],
            [10, 3],
        ]
    ).T
    tracks = Tracks._joined(ends, first)
    assert tracks.count == 1
    assert tracks.photo.tolist() == [0, 1, 2] and tracks.feature.tolist() == [0, 0, 0]
    assert tracks.per_photo(4).tolist() == [1, 1, 1, 0]


# Points that cameras see, without pictures --------------------------------------------------------


def eyes(count: int) -> list[tr.PinholeCamera]:
    return [replace(camera(20.0, 12.0 * i, 5.0), lens=LENS) for i in range(count)]


def seen_points(cameras: Sequence[tr.PinholeCamera], points: Tensor) -> list[Features]:
    """Each camera's features are the points, in the same order, with descriptors of their own."""
    generator = torch.Generator().manual_seed(1)
    descriptors = torch.rand(len(points), 128, generator=generator).square()
    descriptors /= descriptors.norm(dim=1, keepdim=True)
    found = []
    for each in cameras:
        at = each.project(points[None])[0, :, :2]
        place = each.from_image(torch.cat([at, torch.ones_like(at[:, :1])], 1)[None])[0]
        ray = torch.nn.functional.normalize(place * torch.tensor([1.0, -1.0, 1.0]), dim=1)
        found.append(Features(at, ray, descriptors, 200.0, 600.0))
    return found


def scattered(count: int) -> Tensor:
    generator = torch.Generator().manual_seed(5)
    return torch.rand(count, 3, generator=generator, dtype=torch.float64) - 0.5


def perturbed(cameras: Sequence[tr.PinholeCamera], degrees: float) -> list[tr.Pose]:
    generator = torch.Generator().manual_seed(2)
    found = []
    for each in cameras:
        row = torch.randn(1, 6, generator=generator, dtype=torch.float64)
        row[:, :3] *= math.radians(degrees) / row[:, :3].norm()
        row[:, 3:] *= 0.01 * degrees
        found.append(tr.Pose.from_view(each.view).moved(row))
    return found


def angles(poses: Sequence[tr.Pose], cameras: Sequence[tr.PinholeCamera]) -> Tensor:
    right = [tr.Pose.from_view(each.view) for each in cameras]
    aligned = in_given_world(poses, right)
    return torch.cat([a.angle_to(b) for a, b in zip(aligned, right, strict=True)])


def test_only_what_rays_allow_is_matched() -> None:
    cameras, points = eyes(2), scattered(80)
    one, two = seen_points(cameras, points)
    first, second = (tr.Pose.from_view(each.view) for each in cameras)
    a, b = matched(one, two, first, second, 1.0)
    assert a.tolist() == b.tolist() == list(range(80))
    # Descriptors of another point's: near enough to match, but rays do not meet.
    order = torch.arange(80).roll(1)
    other = replace(two, descriptors=two.descriptors[order])
    a, b = matched(one, other, first, second, 1.0)
    assert len(a) < 8
    # Meeting far from the object does not count.
    aside = tr.Pose(second.rotation, second.translation + torch.tensor([1.5, 0.0, 0.0]))
    assert len(matched(one, two, first, second, 1e3)[0]) == 80
    assert len(matched(one, two, first, aside, 1e3)[0]) == 0


def test_each_view_is_compared_with_a_few_that_are_near() -> None:
    poses = [tr.Pose.from_view(camera(20.0, a).view) for a in (0.0, 0.1, 20.0, 40.0, 90.0)]
    assert _neighbours(poses) == [(2, 0), (2, 1), (3, 2)]  # neither the same nor far away
    many = [tr.Pose.from_view(camera(0.0, float(a)).view) for a in range(0, 360, 2)]
    pairs = _neighbours(many)
    of_one = [abs(i - j) for i, j in pairs if 90 in (i, j)]
    assert min(of_one) == 1 and max(of_one) >= 17  # 2 degrees to 36
    assert len(pairs) <= 8 * len(many)


def test_the_nearest_descriptor_has_to_be_clearly_nearer_than_the_next() -> None:
    distance = torch.tensor(
        [
            [0.3, 0.5, 0.9],  # clear
            [0.45, 0.5, 0.9],  # the next is as near
            [0.7, 1.2, 1.3],  # far from all
            [torch.inf, 0.5, torch.inf],  # the only one that rays allow
            [1e-3, 0.0, 0.9],  # alike but for rounding
            [torch.inf, torch.inf, torch.inf],
        ]
    )
    assert _clearly_nearest(distance).tolist() == [0, -1, -1, 1, -1, -1]
    assert _clearly_nearest(distance[:, :1]).tolist() == [0, 0, -1, -1, 0, -1]


@pytest.mark.parametrize("wrong", [0.0, 0.15])
def test_cameras_come_back_by_points(wrong: float) -> None:
    """Through a lens; some features are far off their places."""
    cameras, points = eyes(8), scattered(120)
    features = seen_points(cameras, points)
    generator = torch.Generator().manual_seed(3)
    for i, each in enumerate(features):
        chosen = torch.rand(120, 1, generator=generator) < wrong
        off = 0.05 * torch.randn(120, 2, generator=generator, dtype=torch.float64)
        features[i] = replace(each, at=each.at + chosen * off)  # rays stay: all are matched
    poses = perturbed(cameras, 1.0)
    assert float(angles(poses, cameras).mean()) > 0.7
    given = Given.within(poses, 20.0, 1.0)
    bundle = FeatureBundle.of(cameras, features, poses, 60.0, given)
    assert bundle.tracks.count > 100
    for _ in range(8):
        bundle, poses = bundle.stepped(poses)
    assert float(angles(poses, cameras).max()) < 0.02


def test_a_step_is_that_of_all_unknowns_together() -> None:
    """Against the dense normal equations, by automatic derivatives."""
    cameras, points = eyes(4), scattered(12)
    features = seen_points(cameras, points)
    poses = perturbed(cameras, 0.3)
    near = Given.within(perturbed(cameras, 0.5), 1.0, 0.03)
    bundle = FeatureBundle.of(cameras, features, poses, 30.0, near)
    tracks = bundle.tracks
    assert tracks.count > 6

    def error(unknowns: Tensor) -> Tensor:
        rows, shift = unknowns[:24].reshape(4, 6), unknowns[24:].reshape(-1, 3)
        found = []
        for n in range(len(tracks.photo)):
            i = int(tracks.photo[n])
            place = bundle.places[tracks.track[n]] + shift[tracks.track[n]]
            pose = poses[i].moved(rows[i][None])
            at = (pose.rotation[0] @ place + pose.translation[0]) * place.new_tensor([1, -1, 1])
            seen = cameras[i].to_image(at[None, None])[0, 0, :2]
            found.append(200.0 * (seen - features[i].at[tracks.feature[n]]))
        return torch.stack(found)

    zero = torch.zeros(24 + 3 * tracks.count, dtype=torch.float64)
    value = error(zero)
    torch.testing.assert_close(bundle.errors(poses), value, atol=1e-9, rtol=0)
    jacobian = torch.autograd.functional.jacobian(error, zero, vectorize=True)
    spread = bundle.spread(poses)
    weight = 1 / (1 + value.square().sum(1) / (2 * spread) ** 2) / spread**2
    matrix = torch.einsum("n,nri,nrj->ij", weight, jacobian, jacobian)
    slope = torch.einsum("n,nri,nr->i", weight, jacobian, value)
    for i, pose in enumerate(poses):
        own = slice(6 * i, 6 * i + 6)
        matrix[own, own] += near.precision.diag()
        slope[own] += near.precision * near.poses[i].unknowns_to(pose)[0]
    matrix[24:, 24:] += 0.3**-2 * torch.eye(3 * tracks.count)
    wanted = -torch.linalg.solve(matrix, slope)
    new, moved = bundle.stepped(poses)
    found = torch.cat([a.unknowns_to(b)[0] for a, b in zip(poses, moved, strict=True)])
    torch.testing.assert_close(found, wanted[:24], atol=1e-6, rtol=1e-3)
    torch.testing.assert_close(
        (new.places - bundle.places).flatten(), wanted[24:], atol=1e-6, rtol=1e-3
    )


# Photos -------------------------------------------------------------------------------------------


def test_photos_of_a_textured_toy_bring_cameras_back() -> None:
    mesh = tr.blob(seed=1, subdivisions=5)
    vertices = 0.75 * mesh.vertices / mesh.vertices.abs().max()
    generator = torch.Generator().manual_seed(0)
    colours = torch.rand(len(vertices), 1, generator=generator).round().expand(-1, 3)
    photos = []
    for i in range(7):
        eye = camera(15.0, 12.0 * i)
        faces = tr.gather_faces(eye.project(vertices[None].double()).float(), mesh.faces)
        seen = tr.sampled_picture(
            faces, tr.gather_faces(colours[None], mesh.faces), SIZE, 4, near=0.5, far=10.0
        )
        mask = mask_of(tr.Mesh(vertices, mesh.faces), eye, SIZE)
        photos.append(tr.Photo(f"{i}", eye, SIZE, seen[0, ..., :3], mask))
    off = [
        replace(photo, camera=replace(photo.camera, view=pose.view))
        for photo, pose in zip(photos, perturbed([p.camera for p in photos], 1.0), strict=True)
    ]
    said: list[str] = []
    found = tr.refine_cameras(tr.Capture(tuple(off)), done=said.append)
    assert any("by features, step" in line for line in said)
    assert not any("by colours" in line for line in said)
    before = angles([photo.pose for photo in off], [p.camera for p in photos])
    after = angles([photo.pose for photo in found], [p.camera for p in photos])
    assert float(before.mean()) > 0.7
    assert float(after.mean()) < 0.2
