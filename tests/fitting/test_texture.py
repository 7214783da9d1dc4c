"""The texture that photos show: exact mixtures of texels, exposures, and what disagrees."""

from __future__ import annotations

import sys
from dataclasses import replace

import numpy as np
import pytest
import torch
from torch import Tensor

import taichi_raster as tr
from taichi_raster.fitting.texture import TextureFit, texture_from_photos
from taichi_raster.fitting.texture_pixels import Pixels, photo_pixels, texture_size

pytestmark = pytest.mark.runs_on(arch="cpu", precision="f32")

SIZE = 96
CAMERAS = [
    tr.PerspectiveCamera(tr.orbit(2.7, elevation, azimuth), fov=38.0)
    for elevation in (-30.0, 30.0)
    for azimuth in (0.0, 72.0, 144.0, 216.0, 288.0)
]


def sphere() -> tr.Mesh:
    mesh = tr.uv_sphere(24, 48, radius=0.75)
    assert mesh.uv is not None
    return tr.Mesh(mesh.vertices.float(), mesh.faces, mesh.uv.float(), mesh.uv_faces, wrap="clamp")


def painted(mesh: tr.Mesh, side: int = 128) -> tr.Mesh:
    u = torch.linspace(0, 1, side)
    image = torch.stack(
        [
            0.5 + 0.3 * torch.sin(19 * u[:, None] + 7 * u),
            0.5 + 0.3 * torch.sin(13 * u[:, None] - 12.5664 * u),
            (0.4 + 0.2 * u[:, None]).expand(side, side),
        ],
        dim=-1,
    )
    return replace(mesh, texture=image)


def picture(mesh: tr.Mesh, camera: tr.Camera, size: int = SIZE) -> tuple[Tensor, Tensor]:
    """Colours and coverage by plain samples."""
    assert mesh.uv is not None and mesh.texture is not None
    index = mesh.faces if mesh.uv_faces is None else mesh.uv_faces
    texture = tr.UVTexture(tr.gather_faces(mesh.uv[None], index), mesh.texture[None], wrap="clamp")
    faces = tr.gather_faces(camera.project(mesh.vertices[None]), mesh.faces)
    image = tr.sampled_picture(faces, texture, size, 4, near=0.5, far=10.0)[0]
    return image[..., :3], image[..., 3]


def fitted(gains: Tensor | None = None) -> tuple[tr.Mesh, TextureFit]:
    truth = painted(sphere())
    shown = [picture(truth, camera) for camera in CAMERAS]
    gains = torch.ones(len(CAMERAS), 3) if gains is None else gains
    photos = [colour * gain for (colour, _), gain in zip(shown, gains, strict=True)]
    masks = [mask for _, mask in shown]
    return truth, texture_from_photos(sphere(), photos, CAMERAS, masks, size=128)


def psnr(fit: tr.Mesh, truth: tr.Mesh) -> float:
    """Of a view that none of the cameras has, within the outline."""
    camera = tr.PerspectiveCamera(tr.orbit(2.7, 5.0, 36.0), fov=38.0)
    (got, _), (want, mask) = picture(fit, camera), picture(truth, camera)
    error = (got - want)[mask > 0.99].square().mean()
    return -10 * float(torch.log10(error))


def test_a_view_that_was_held_out_is_reproduced() -> None:
    truth, fit = fitted()
    assert psnr(fit.mesh, truth) > 34
    assert fit.residual < 0.01
    assert float(fit.seen.float().mean()) > 0.7


def test_exposures_of_photos_are_found() -> None:
    generator = torch.Generator().manual_seed(3)
    gains = torch.exp(0.25 * torch.randn(len(CAMERAS), 3, generator=generator))
    gains = gains / gains.log().mean(0).exp()
    truth, fit = fitted(gains)
    torch.testing.assert_close(fit.exposure, gains, rtol=0.02, atol=0)
    assert psnr(fit.mesh, truth) > 32


def test_what_stands_before_the_object_in_one_photo_does_not_count() -> None:
    truth = painted(sphere())
    cameras = [tr.PerspectiveCamera(tr.orbit(2.7, 0.0, 15.0 * i), fov=38.0) for i in range(-4, 5)]
    shown = [picture(truth, camera) for camera in cameras]
    photos = [colour.clone() for colour, _ in shown]
    photos[4][36:60, 36:60] = torch.tensor([1.0, 0.0, 0.0])
    fit = texture_from_photos(sphere(), photos, cameras, [mask for _, mask in shown], size=128)
    again = picture(fit.mesh, cameras[4])[0][38:58, 38:58]
    assert float((again - shown[4][0][38:58, 38:58]).abs().mean()) < 0.03


def test_faces_that_a_file_winds_the_other_way_round_are_textured_as_well() -> None:
    truth = painted(sphere())
    photo, mask = picture(truth, CAMERAS[1])
    mesh = sphere()
    assert mesh.uv_faces is not None
    flipped = [index.clone() for index in (mesh.faces, mesh.uv_faces)]
    for index in flipped:
        index[::2] = index[::2].flip(-1)
    other = replace(mesh, faces=flipped[0], uv_faces=flipped[1])
    one, two = (
        texture_from_photos(each, [photo], CAMERAS[1:2], [mask], size=64) for each in (mesh, other)
    )
    assert torch.equal(one.seen, two.seen)
    torch.testing.assert_close(one.mesh.texture, two.mesh.texture, atol=1e-3, rtol=0)


def test_a_pixel_is_the_mixture_of_texels_that_the_renderer_takes() -> None:
    """The mixtures of a photo, times the texels, against the renderer's own sample there."""
    truth = painted(sphere(), side=32)
    assert truth.texture is not None
    photo, mask = picture(truth, CAMERAS[1], 48)
    seen = Pixels.of([photo_pixels(truth, photo, CAMERAS[1], mask, 32, 0, None)])
    texels = truth.texture.reshape(-1, 3).double().numpy()
    index = truth.faces if truth.uv_faces is None else truth.uv_faces
    assert truth.uv is not None
    uv = tr.gather_faces(truth.uv[None], index)
    faces = tr.gather_faces(CAMERAS[1].project(truth.vertices[None]), truth.faces)
    texture = tr.UVTexture(uv, truth.texture[None], wrap="clamp")
    single = tr.sampled_picture(faces, texture, 48, 1, near=0.5, far=10.0)[0, ..., :3].numpy()
    values = seen.mixing @ texels
    nearest = np.abs(values[:, None] - single.reshape(1, -1, 3)).max(-1).min(1)
    assert nearest.max() < 2e-5 and len(values) > 300


def test_texels_that_nobody_sees_are_filled_from_their_neighbours() -> None:
    truth = painted(sphere())
    shown = [picture(truth, camera) for camera in CAMERAS[:1]]
    fit = texture_from_photos(sphere(), [shown[0][0]], CAMERAS[:1], [shown[0][1]], size=64)
    assert fit.mesh.texture is not None
    hidden = fit.mesh.texture[~fit.seen]
    assert 0.3 < float((~fit.seen).float().mean()) < 0.9
    assert bool(torch.isfinite(hidden).all()) and float(hidden.min()) > 0.05


def test_a_texel_is_about_as_large_as_a_pixel() -> None:
    """A square that fills a picture of 100 x 100 pixels needs 100 / sqrt(0.6) texels a side."""
    corners = torch.tensor([[-1.0, -1, 0], [1, -1, 0], [1, 1, 0], [-1, 1, 0]])
    square = tr.Mesh(corners, torch.tensor([[0, 1, 2], [0, 2, 3]]))
    camera = tr.PerspectiveCamera(tr.orbit(1.0, 0.0, 0.0), fov=90.0)
    assert abs(texture_size(square, [torch.zeros(100, 100, 3)], [camera]) - 129.1) <= 4


def test_bad_input_is_named() -> None:
    mesh, photo = sphere(), torch.rand(16, 16, 3)
    with pytest.raises(ValueError, match="photos: expected at least one"):
        texture_from_photos(mesh, [], [])
    with pytest.raises(ValueError, match="cameras: expected 1, one a photo, got 2"):
        texture_from_photos(mesh, [photo], CAMERAS[:2])
    with pytest.raises(ValueError, match=r"masks\[0\]: must be \(16, 16\), got \(8, 8\)"):
        texture_from_photos(mesh, [photo], CAMERAS[:1], [torch.ones(8, 8)])
    with pytest.raises(ValueError, match=r"photos\[0\]: must be finite"):
        texture_from_photos(mesh, [photo * torch.nan], CAMERAS[:1])
    with pytest.raises(ValueError, match="none shows any of the mesh"):
        texture_from_photos(mesh, [photo], CAMERAS[:1], [torch.zeros(16, 16)], size=64)


def test_a_mesh_without_texture_coordinates_gets_some() -> None:
    mesh = tr.icosphere(2, 0.7)
    found = tr.unwrap(tr.Mesh(mesh.vertices, mesh.faces), 256)
    assert found.uv is not None and found.uv_faces is not None
    assert torch.equal(found.faces, mesh.faces) and torch.equal(found.vertices, mesh.vertices)
    assert float(found.uv.min()) >= 0 and float(found.uv.max()) <= 1
    corners = found.uv[found.uv_faces].double()
    one, two = corners[:, 1] - corners[:, 0], corners[:, 2] - corners[:, 0]
    area = 0.5 * (one[:, 0] * two[:, 1] - one[:, 1] * two[:, 0]).abs()
    assert 0.3 < float(area.sum()) < 1  # charts overlap nowhere, or they could fill more
    for size, text in ((8, "resolution: expected 16"), (256.0, "resolution")):
        with pytest.raises((TypeError, ValueError), match=text):
            tr.unwrap(found, size)  # type: ignore[arg-type]


def test_without_xatlas_the_error_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "xatlas", None)
    with pytest.raises(ImportError, match=r"taichi-raster\[photos\]"):
        tr.unwrap(tr.icosphere(0))
