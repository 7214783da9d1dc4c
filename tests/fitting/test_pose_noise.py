"""The noise of a pose's terms: what is left of errors says as much as all of them did."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from taichi_raster.fitting.photometric import exposure
from taichi_raster.fitting.pose_matching import blurred, gaussian
from taichi_raster.fitting.pose_noise import Field, normal_of
from taichi_raster.fitting.pose_problem import mismatches

pytestmark = pytest.mark.runs_on(arch="cpu", precision="f32")

SIZE, DRAWS = 72, 40


def smooth(generator: torch.Generator, width: float) -> Tensor:
    """White noise through a Gaussian, of standard deviation 1."""
    white = torch.randn(1, SIZE, SIZE, generator=generator, dtype=torch.float64)
    return blurred(white, gaussian(width))[0] * 2 * width * torch.pi**0.5


def places() -> tuple[Tensor, Tensor]:
    at = torch.arange(SIZE, dtype=torch.float64) - (SIZE - 1) / 2
    return at[None].expand(SIZE, SIZE), at[:, None].expand(SIZE, SIZE)


def square_of_errors(field: Field, error: Tensor) -> float:
    """Mahalanobis' distance, squared, of what least squares makes of the errors."""
    flat = field.slopes.flatten(1)
    matrix = flat @ flat.T
    off = torch.linalg.solve(matrix, flat @ error.flatten())
    left = Field(
        error - (off[:, None, None, None] * field.slopes).sum(0),
        field.slopes,
        field.valid,
        field.robust,
        field.least,
        field.gradient,
        field.blur,
        field.values,
    )
    normal = normal_of(left, last=True)
    bread = torch.linalg.inv(normal.bread)
    return float(off @ torch.linalg.solve(bread @ normal.noise @ bread, off))


@pytest.mark.parametrize("kind", ["wobbling", "rounded", "noisy"])
def test_an_outline_that_is_off_says_how_uncertain_its_place_is(kind: str) -> None:
    """A disc's place and radius: of 40 draws, 90% are to be within 6.25 (chi-squared of three)."""
    generator = torch.Generator().manual_seed(0)
    x, y = places()
    radius = (x.square() + y.square()).sqrt()
    width = 0.0 if kind == "noisy" else 1.5
    # The coverage of an edge: a ramp of a pixel, or a Gaussian's.
    slope = (
        -(1 - (radius - 22).abs()).clamp(min=0)
        if width == 0
        else -torch.exp(-0.5 * ((radius - 22) / width).square()) / (width * (2 * torch.pi) ** 0.5)
    )
    gradient = torch.stack([slope * x / radius, slope * y / radius])[:, None]
    slopes = torch.stack([-gradient[0], -gradient[1], -slope[None]])
    valid, values = torch.ones(1, SIZE, SIZE, dtype=torch.bool), 0.02 if kind == "noisy" else 0.0
    field = Field(slopes[0], slopes, valid, "squares", 1e-3, gradient, width, values)
    squares = []
    for _ in range(DRAWS):
        if kind == "noisy":
            noise = torch.randn(1, SIZE, SIZE, generator=generator, dtype=torch.float64)
            error = values**0.5 * noise
        else:
            moves = [0.7 * smooth(generator, 3.0) for _ in range(2)]
            if kind == "rounded":
                moves = [(move + radius).round() - radius for move in moves]
            error = sum(g * move for g, move in zip(gradient, moves, strict=True))
        squares.append(square_of_errors(field, error))
    within = sum(square < 6.25 for square in squares) / DRAWS
    assert within >= 0.75
    assert sum(squares) / DRAWS > 1.2  # 3 by a right covariance: it is not too large by far


def test_smooth_errors_of_distances_say_how_uncertain_a_plane_is() -> None:
    """Height and slopes of a plane: errors that are alike over 4 pixels."""
    generator = torch.Generator().manual_seed(1)
    x, y = places()
    slopes = torch.stack([torch.ones_like(x), x / 20, y / 20])[:, None]
    valid = ((x.abs() < 22) & (y.abs() < 16))[None]
    field = Field(slopes[0], slopes * valid, valid, "tukey", 1e-4)
    squares = [square_of_errors(field, smooth(generator, 2.0)[None] * valid) for _ in range(DRAWS)]
    within = sum(square < 6.25 for square in squares) / DRAWS
    assert within >= 0.75
    assert sum(squares) / DRAWS > 1.2


def test_noise_that_few_errors_tell_is_taken_as_larger() -> None:
    """A plane over as few as 784 pixels, of which about 30 are independent: 90% within 90%."""
    generator = torch.Generator().manual_seed(3)
    x, y = places()
    valid = torch.zeros(1, SIZE, SIZE, dtype=torch.bool)
    valid[:, :28, :28] = True
    slopes = torch.stack([torch.ones_like(x), x / 36, y / 36])[:, None] * valid
    field = Field(slopes[0], slopes, valid, "squares", 1e-3)
    count = 5 * DRAWS
    errors = [smooth(generator, 2.0)[None] * valid for _ in range(count)]
    within = sum(square_of_errors(field, error) < 6.25 for error in errors) / count
    assert 0.86 < within < 0.94  # 0.83 by chi-squared


@pytest.mark.parametrize("hidden", [0.3, 0.6])
def test_what_stands_before_an_object_does_not_make_its_errors_large(hidden: float) -> None:
    """Also where it hides more than half of it."""
    generator = torch.Generator().manual_seed(4)
    error = 0.01 * torch.randn(1, SIZE, SIZE, generator=generator, dtype=torch.float64)
    error[:, : int(hidden * SIZE)] = -0.5
    valid = torch.ones(1, SIZE, SIZE, dtype=torch.bool)
    field = Field(error, error[None], valid, "tukey", 1e-4, most=0.05)
    assert 0.008 < field.scale() < 0.03


def test_three_channels_that_are_alike_say_no_more_than_one() -> None:
    """As those of a grey photo."""
    generator = torch.Generator().manual_seed(2)
    x, y = places()
    slopes = torch.stack([torch.ones_like(x), x / 20, y / 20])[:, None]
    valid = ((x.abs() < 22) & (y.abs() < 16))[None]
    error = smooth(generator, 1.0)[None] * valid
    found = []
    for count in (1, 3):
        off, moving, shown = (
            z.expand(*z.shape[:-3], count, SIZE, SIZE) for z in (error, slopes * valid, valid)
        )
        normal = normal_of(Field(off, moving, shown, "cauchy", 1e-4), last=True)
        bread = torch.linalg.inv(normal.bread)
        found.append(bread @ normal.noise @ bread)
    torch.testing.assert_close(found[1], found[0], rtol=1e-6, atol=0)


def test_exposures_are_found_though_a_third_of_the_pixels_do_not_fit() -> None:
    generator = torch.Generator().manual_seed(3)
    ours = (torch.rand(3000, 3, generator=generator, dtype=torch.float64) > 0.5).double()
    theirs = 0.8 * ours + 0.05 + 0.01 * torch.randn(3000, 3, generator=generator)
    theirs[:1000] = 0.1
    gains, offsets = exposure(ours, theirs)
    torch.testing.assert_close(gains, torch.full((3,), 0.8).double(), rtol=0, atol=0.02)
    torch.testing.assert_close(offsets, torch.full((3,), 0.05).double(), rtol=0, atol=0.02)


def test_noise_in_every_pixel_is_no_mismatch_but_a_wrong_shape_is() -> None:
    generator = torch.Generator().manual_seed(0)
    x, y = places()
    disc = (x.square() + y.square() < 400).float()
    known = torch.ones(SIZE, SIZE, dtype=torch.bool)
    noisy = disc + 0.15 * torch.randn(SIZE, SIZE, generator=generator)
    plain, beyond = mismatches(disc, noisy, known)
    assert plain > 0.3 and beyond < 0.01
    other = (x.square() + y.square() < 250).float()
    plain, beyond = mismatches(other, noisy, known)
    assert beyond == pytest.approx(1 - 250 / 400, abs=0.05)
    plain, beyond = mismatches(other, disc, known)
    assert plain == pytest.approx(beyond)
