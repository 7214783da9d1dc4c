"""Images against the dense twin: every edge kind, depth mode and option of the renderer."""

from dataclasses import replace
from typing import Any

import pytest
import torch

import taichi_raster as tr
import twin
from scenes import (
    CHANNELS,
    DEPTHS,
    EDGES,
    ONLY_F64,
    Case,
    Inputs,
    kink_margin,
    leaves,
    random_faces,
)


def tolerance(dtype: torch.dtype) -> float:
    return 1e-11 if dtype == torch.float64 else 1e-4


def check(case: Case, x: Inputs, dtype: torch.dtype) -> torch.Tensor:
    """Renders in the run's precision, compares with the twin in float64, returns the image."""
    image = case.ours(leaves(x, dtype)).detach()  # the kernels that gradients use, compiled once
    expected = case.twin(x)
    assert image.dtype == dtype
    assert image.shape == expected.shape
    error = (image.double() - expected).abs().max().item()
    assert error < tolerance(dtype), f"largest error {error}"
    return image


@pytest.mark.parametrize("depth", DEPTHS)
@pytest.mark.parametrize("edge", EDGES)
def test_image_is_the_twins(edge: str, depth: str, dtype: torch.dtype) -> None:
    case = Case(edge, depth).but(image_size=(11, 14), threshold=1e-6)
    x = case.inputs(seed=21, batch=3, faces=6)
    assert kink_margin(x, case.view, edge) > 1e-6  # no choice hangs on a rounding
    image = check(case, x, dtype)
    alpha = image[..., -1]
    assert alpha.min() < 0.01 and alpha.max() > 0.99
    assert image[..., :-1].std() > 0.05


@pytest.mark.parametrize("depth", DEPTHS)
@pytest.mark.parametrize("edge", ["logistic", pytest.param("mlp", marks=ONLY_F64)])
def test_many_faces_over_many_tiles(edge: str, depth: str, dtype: torch.dtype) -> None:
    """Odd, non-square, no multiple of any tile size."""
    case = Case(edge, depth).but(image_size=(37, 61), threshold=1e-6)
    x = case.inputs(seed=22, batch=2, faces=120, size=(0.05, 0.3))
    x["scale"] = torch.tensor(0.02, dtype=torch.float64)
    check(case, x, dtype)


@pytest.mark.parametrize("size", [(1, 1), (1, 9), (9, 1), (8, 8), (16, 17)])
def test_any_image_size(size: tuple[int, int], dtype: torch.dtype) -> None:
    case = Case().but(image_size=size)
    check(case, case.inputs(seed=23), dtype)


def test_one_channel(dtype: torch.dtype) -> None:
    case = Case().but(image_size=(9, 8))
    assert check(case, case.inputs(seed=24, channels=1), dtype).shape[-1] == 2


OPTIONS: dict[str, dict[str, object]] = {
    "cull_backfaces": {"cull_backfaces": True},
    "short cutoff": {"cutoff": 0.07},
    "high threshold": {"threshold": 0.1},
    "no threshold": {"threshold": 0.0},
    "near plane": {"near": 2.4},
    "far plane": {"far": 2.9},
    "image-space attributes": {"perspective_correct": False},
    "antialias 2": {"antialias": 2},
    "antialias 3": {"antialias": 3},
}


@pytest.mark.parametrize("option", OPTIONS)
@pytest.mark.parametrize("depth", ["softmax", pytest.param("hard", marks=ONLY_F64)])
def test_option(option: str, depth: str, dtype: torch.dtype) -> None:
    """The option has its defined effect, and has one at all in this scene."""
    plain = Case("logistic", depth).but(image_size=(10, 9), threshold=1e-6)
    case = plain.but(**OPTIONS[option])
    x = plain.inputs(seed=25, batch=2, faces=5)
    check(case, x, dtype)
    if option != "no threshold":
        assert (case.twin(x) - plain.twin(x)).abs().max() > 1e-3


def test_faces_with_a_vertex_behind_the_eye_are_dropped(dtype: torch.dtype) -> None:
    case = Case().but(image_size=(9, 8))
    x = case.inputs(seed=26, faces=4)
    x["vertices"][:, 1, 2, 2] = -1.0
    x["vertices"][:, 2, 0, 2] = 0.0
    image = check(case, x, dtype)
    without = {**x, "vertices": x["vertices"][:, [0, 3]], "attributes": x["attributes"][:, [0, 3]]}
    expected = case.ours({k: v.to(dtype) for k, v in without.items()})
    assert torch.allclose(image, expected, atol=1e-6)


def test_an_empty_image_is_the_background(dtype: torch.dtype) -> None:
    for depth in DEPTHS:
        case = Case("uniform", depth)
        x = case.inputs(seed=27)
        x["vertices"][..., :2] += 30.0
        image = check(case, x, dtype)
        assert torch.equal(image[..., -1], torch.zeros_like(image[..., -1]))
        assert torch.allclose(image[..., :-1], x["background"].to(dtype).expand_as(image[..., :-1]))


def test_background_may_be_a_number_a_tuple_or_a_tensor(dtype: torch.dtype) -> None:
    vertices, attributes = random_faces(28, dtype=dtype)
    edge = tr.Distribution("logistic", scale=0.1)

    def image(background: Any) -> torch.Tensor:
        return tr.SoftRasterizer(image_size=8, edge=edge, background=background)(
            vertices, attributes
        )

    values = torch.tensor([0.2, 0.4, 0.6], dtype=dtype)
    assert torch.equal(image((0.2, 0.4, 0.6)), image(values))
    assert torch.equal(image(0.2), image((0.2, 0.2, 0.2)))


def test_the_defaults_are_those_of_the_docstring(dtype: torch.dtype) -> None:
    """Every argument left out, against the twin with the values spelt out."""
    vertices, attributes = random_faces(29)
    renderer = tr.SoftRasterizer(image_size=12, edge=tr.Distribution("logistic", scale=0.05))
    image = renderer(vertices.to(dtype), attributes.to(dtype))
    expected = twin.render(
        vertices,
        attributes,
        edge=twin.logistic,
        scale=0.05,
        gamma=None,
        over=True,
        view=twin.View(image_size=(12, 12), near=0.1, far=100.0, threshold=1e-6),
    )
    # What at most a thousandth of the light reaches is left out.
    assert (image.double() - expected).abs().max() < 1e-3
    assert (image.double() - expected)[..., -1].abs().max() < 10 * tolerance(dtype)


def test_batch_items_do_not_see_each_other(dtype: torch.dtype) -> None:
    case = Case("mlp").but(image_size=(9, 8))
    x = case.inputs(seed=30, batch=3, dtype=dtype)
    together = case.ours(x)
    for b in range(3):
        part = {**x, "vertices": x["vertices"][b : b + 1], "attributes": x["attributes"][b : b + 1]}
        assert torch.allclose(together[b : b + 1], case.ours(part), atol=1e-6)


def test_the_order_of_the_faces_does_not_matter(dtype: torch.dtype) -> None:
    for depth in DEPTHS:
        case = Case("gaussian", depth).but(image_size=(9, 8))
        x = case.inputs(seed=31, faces=6, dtype=dtype)
        order = torch.tensor([4, 2, 0, 5, 1, 3])
        other = {**x, "vertices": x["vertices"][:, order], "attributes": x["attributes"][:, order]}
        assert torch.allclose(case.ours(x), case.ours(other), atol=1e-5)


def test_expanded_and_strided_inputs_are_read_as_they_look(dtype: torch.dtype) -> None:
    case = Case().but(image_size=(9, 8))
    x = case.inputs(seed=32, batch=1, dtype=dtype)
    twice = {**x, "vertices": x["vertices"].expand(2, -1, -1, -1)}
    twice["attributes"] = (
        x["attributes"].transpose(2, 3).contiguous().transpose(2, 3).expand(2, -1, -1, -1)
    )
    assert not twice["attributes"].is_contiguous()
    image = case.ours(twice)
    assert torch.allclose(image, case.ours(x).expand_as(image), atol=1e-6)


def test_per_instance_parameters_equal_single_calls(dtype: torch.dtype) -> None:
    """One call with B scales, gammas and networks is B calls."""
    for edge in ("gaussian", "mlp"):
        case = Case(edge).but(image_size=(9, 8))
        x = case.inputs(seed=33, batch=3, dtype=dtype)
        many = {**x, "scale": torch.tensor([0.05, 0.1, 0.3], dtype=dtype)}
        many["gamma"] = torch.tensor([0.05, 0.2, 0.1], dtype=dtype)
        many["background_z"] = torch.tensor([0.3, 0.6, 0.9], dtype=dtype)
        if edge == "mlp":
            many["weights"] = torch.stack([x["weights"] * s for s in (0.5, 1.0, -1.0)])
        together = case.ours(many)
        varying = set(many) - {"background"}
        for b in range(3):
            lead = {"vertices", "attributes"}
            one = {
                k: v[b : b + 1] if k in lead else v[b] if k in varying else v
                for k, v in many.items()
            }
            assert torch.allclose(together[b : b + 1], case.ours(one), atol=1e-6)
            wide = {k: v.double() for k, v in one.items()}
            assert (together[b : b + 1].double() - case.twin(wide)).abs().max() < tolerance(dtype)


def test_progress_reaches_scale_and_gamma(dtype: torch.dtype) -> None:
    vertices, attributes = random_faces(34, batch=3)
    view = twin.View(image_size=(9, 8), near=0.5, far=10.0, threshold=0.0)
    renderer = tr.SoftRasterizer(
        edge=tr.Distribution("logistic", scale=tr.Geometric(0.4, 0.1)),
        depth=tr.SoftmaxDepth(gamma=tr.Knots([0.4, 0.1, 0.2]), background_z=0.5),
        **vars(view),
    )

    def expected(scale: torch.Tensor, gamma: torch.Tensor) -> torch.Tensor:
        return twin.render(
            vertices,
            attributes,
            edge=twin.logistic,
            scale=scale,
            gamma=gamma,
            background_z=0.5,
            view=view,
        )

    def ours(progress: float | torch.Tensor | None) -> torch.Tensor:
        return renderer(vertices.to(dtype), attributes.to(dtype), progress=progress).double()

    u = torch.tensor([0.0, 0.25, 1.0], dtype=torch.float64)
    gamma = torch.tensor([0.4, 0.2, 0.2], dtype=torch.float64)
    each = expected(0.4 * 0.25**u, gamma)
    assert (ours(u) - each).abs().max() < tolerance(dtype)
    assert (ours(0.25)[1] - each[1]).abs().max() < tolerance(dtype)
    assert torch.equal(ours(None), ours(1.0))


def test_a_softness_without_schedule_ignores_progress(dtype: torch.dtype) -> None:
    case = Case("mlp")
    x = case.inputs(seed=35, dtype=dtype)
    renderer = case.renderer(x)
    images = [renderer(x["vertices"], x["attributes"], progress=p) for p in (None, 0.0, 0.7)]
    assert torch.equal(images[0], images[1]) and torch.equal(images[0], images[2])


def test_image_size_may_be_one_number(dtype: torch.dtype) -> None:
    vertices, attributes = random_faces(36, dtype=dtype)
    edge = tr.Distribution("logistic", scale=0.1)
    square = tr.SoftRasterizer(image_size=8, edge=edge)(vertices, attributes)
    assert square.shape == (2, 8, 8, CHANNELS + 1)
    assert torch.equal(
        square, tr.SoftRasterizer(image_size=(8, 8), edge=edge)(vertices, attributes)
    )


def test_the_view_of_a_case_is_the_signature_of_the_renderer() -> None:
    """So that no option of the renderer goes untested."""
    import inspect

    arguments = set(inspect.signature(tr.SoftRasterizer.__init__).parameters)
    assert arguments == {
        *vars(replace(twin.View())),
        "self",
        "edge",
        "depth",
        "alpha",
        "background",
        *("front", "barycentrics", "unclipped_alpha", "orthographic"),  # in test_agreement.py
        "sharp_from",  # in test_sharp_end.py
    }
