"""Pictures through a lens and back: against a picture whose every ray is known."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from torch import Tensor

import taichi_raster as tr
from taichi_raster.scene.resampling import pixel_centres

pytestmark = pytest.mark.runs_on(arch="cpu", precision="f64")
F64 = torch.float64
HOME = tr.look_at(torch.tensor([[0.0, 0.0, 0.0]], dtype=F64), (0.0, 0.0, -1.0))
SIZE = (60, 80)
PLAIN = tr.PinholeCamera(HOME, (1.5, 1.6), (0.05, -0.1))
LENSES: dict[str, tr.Lens] = {
    "brown": tr.BrownConradyLens((-0.15, 0.03), (0.004, -0.003)),
    "fisheye": tr.KannalaBrandtLens((-0.03, 0.01)),
}


def photo(camera: tr.Camera, size: tuple[int, int] = SIZE) -> Tensor:
    """What a camera sees of a wall with a smooth pattern on it, (1, H, W, 2)."""
    rays = camera.from_image(pixel_centres(*size, torch.zeros((), dtype=F64)))
    x, y, _ = rays.unbind(-1)
    pattern = torch.stack([(3 * x + y).sin(), (2 * y - x).cos()], dim=-1)
    return pattern.nan_to_num().unflatten(1, size)


@pytest.mark.parametrize("name", LENSES)
def test_a_photo_becomes_what_a_pinhole_had_seen_and_back(name: str) -> None:
    bent = replace(PLAIN, lens=LENSES[name])
    ways = [
        (photo(bent), bent, None, photo(PLAIN)),
        (photo(PLAIN), PLAIN, bent, photo(bent)),
    ]
    for picture, camera, target, expected in ways:
        found = tr.undistort(picture, camera, target, fill=9.0)
        shown = (found != 9).all(-1)
        assert shown.double().mean() > 0.6
        # Linear between pixel centres, but the nearest one's value along the border.
        assert (found - expected)[shown].abs().max() < 0.05
        inner = shown[:, 2:, 1:-1] & shown[:, :-2, 1:-1] & shown[:, 1:-1, 2:] & shown[:, 1:-1, :-2]
        assert (found - expected)[:, 1:-1, 1:-1][inner].abs().max() < 0.003
        assert (picture - expected)[shown].abs().max() > 0.05


def test_the_result_may_have_another_size_and_camera() -> None:
    bent = replace(PLAIN, lens=LENSES["brown"])
    target = tr.PerspectiveCamera(HOME, 30.0)
    found = tr.undistort(photo(bent), bent, target, image_size=(20, 20))
    torch.testing.assert_close(found, photo(target, (20, 20)), atol=2e-3, rtol=0)


def test_without_a_lens_the_picture_is_the_same() -> None:
    torch.testing.assert_close(tr.undistort(photo(PLAIN), PLAIN), photo(PLAIN))


def test_what_the_picture_does_not_show_is_filled() -> None:
    barrel = replace(PLAIN, lens=tr.BrownConradyLens((-0.6,)))
    # All rays of a wide target, of which the barrel's radius has but few.
    wide = tr.PerspectiveCamera(HOME, 140.0)
    found = tr.undistort(torch.ones(1, *SIZE, 1, dtype=F64), barrel, wide, fill=-1.0)
    assert found[0, 30, 40, 0] == 1 and found[0, 0, 0, 0] == -1
    assert set(found.flatten().tolist()) == {1.0, -1.0}


def test_it_is_twice_differentiable_in_picture_and_coefficients() -> None:
    picture = photo(PLAIN, (6, 8)).requires_grad_()
    radial = torch.tensor([-0.15, 0.03], dtype=F64, requires_grad=True)

    def straight(picture: Tensor, radial: Tensor) -> Tensor:
        return tr.undistort(picture, replace(PLAIN, lens=tr.BrownConradyLens(radial)))

    assert torch.autograd.gradcheck(straight, [picture, radial])
    assert torch.autograd.gradgradcheck(straight, [picture, radial])


def test_bad_pictures_are_refused_by_name() -> None:
    with pytest.raises(ValueError, match=r"^picture: must be"):
        tr.undistort(torch.zeros(6, 8, 3), PLAIN)
    with pytest.raises(TypeError, match=r"^camera: expected a Camera"):
        tr.undistort(torch.zeros(1, 6, 8, 3), None)  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="must agree in batch"):
        tr.undistort(torch.zeros(3, 6, 8, 3), PLAIN, tr.PerspectiveCamera(HOME.expand(2, 4, 4)))
