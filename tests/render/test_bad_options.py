"""Bad values of the options that choose among rendering modes: an error that names the argument."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import pytest
import torch

import taichi_raster as tr
from modes import Mode

pytestmark = pytest.mark.runs_on(arch="cpu", precision="f64")
F64 = torch.float64


@pytest.mark.parametrize(
    ("option", "value", "match"),
    [
        ("front", "clockwise", "known: ccw, cw"),
        ("front", None, "known: ccw, cw"),
        ("barycentrics", "exact", "known: nearest, clipped"),
        ("unclipped_alpha", 1, "True or False"),
        ("orthographic", "yes", "True or False"),
        ("cull_backfaces", None, "True or False"),
        ("perspective_correct", 0, "True or False"),
        ("depth", tr.TConorm(), "expected a DepthSoftness"),
        ("alpha", tr.HardDepth(), "expected a TConorm"),
        ("edge", tr.HardDepth(), "expected a EdgeSoftness"),
        ("background", torch.zeros(4, 5), "shape"),
        ("background", torch.zeros(3, dtype=torch.int64), ""),
        ("background", torch.full((4, 5, 3), math.nan), "infinite or NaN"),
    ],
)
def test_bad_options_are_refused(option: str, value: Any, match: str) -> None:
    with pytest.raises((TypeError, ValueError), match=f"^{option}: .*{match}"):
        tr.SoftRasterizer(8, **{option: value})


@pytest.mark.parametrize(
    ("make", "match"),
    [
        (lambda: tr.Distribution("gamma"), "^shape: .*needs one, a positive"),
        (lambda: tr.Distribution("gamma_rev", shape=-1.0), "^shape: .*positive"),
        (lambda: tr.Distribution("gamma", shape=math.nan), "^shape: .*positive"),
        (lambda: tr.Distribution("gaussian", shape=2.0), "^shape: .*no shape"),
        (lambda: tr.Distribution("gaussian", shift=math.inf), "^shift: .*finite"),
        (lambda: tr.Distribution("gaussian", shift=torch.zeros(2, 2)), "^shift: "),
        (lambda: tr.Distribution("gaussian", squared=1), "^squared: .*True or False"),  # type: ignore[arg-type]
        (lambda: tr.Distribution("gaussian", shift="far"), "^shift: "),  # type: ignore[arg-type]
        (lambda: tr.Distribution("gamma", shape="round"), "^shape: "),  # type: ignore[arg-type]
    ],
)
def test_bad_distributions_are_refused(make: Callable[[], Any], match: str) -> None:
    with pytest.raises((TypeError, ValueError), match=match):
        make()


@pytest.mark.parametrize(
    "picture",
    [(4, 6, 2), (5, 4, 2), (4, 5, 3), (3, 4, 5, 2), (1, 4, 6, 2)],
    ids=["width", "height", "channels", "batch", "width in a batch"],
)
def test_a_background_picture_of_another_size_is_refused(picture: tuple[int, ...]) -> None:
    x = Mode().inputs()
    renderer = tr.SoftRasterizer((4, 5), background=torch.zeros(picture, dtype=F64))
    with pytest.raises(ValueError, match=r"^background: "):
        renderer(x["vertices"].expand(2, -1, -1, -1), x["colours"].expand(2, -1, -1, -1))


@pytest.mark.parametrize("name", ["scale", "shape", "shift", "p"])
def test_parameters_that_do_not_fit_the_batch_are_refused(name: str) -> None:
    x = Mode().inputs()
    three = torch.full((3,), 0.7, dtype=F64)
    edge: dict[str, Any] = {"shape": 0.7, **({name: three} if name != "p" else {})}
    alpha = tr.TConorm("yager", three if name == "p" else 0.7)
    renderer = tr.SoftRasterizer(8, tr.Distribution("gamma", **edge), alpha=alpha)
    with pytest.raises(ValueError, match=rf"{name}: .*shape \(2,\)"):
        renderer(x["vertices"].expand(2, -1, -1, -1), x["colours"].expand(2, -1, -1, -1))


def test_parameters_that_turned_bad_are_noticed() -> None:
    """By an optimiser's step, say."""
    x = Mode().inputs()
    shape, p = (torch.nn.Parameter(torch.tensor(0.7, dtype=F64)) for _ in range(2))
    renderer = tr.SoftRasterizer(
        8, tr.Distribution("gamma", shape=shape), alpha=tr.TConorm("yager", p)
    )
    for name, parameter in [("shape", shape), ("p", p)]:
        for value in (-0.5, math.nan):
            with torch.no_grad():
                parameter.fill_(value)
            with pytest.raises(ValueError, match=f"{name}: .*positive"):
                renderer(x["vertices"], x["colours"])
        with torch.no_grad():
            parameter.fill_(0.7)


def test_jvp_of_a_texture_is_refused_by_name() -> None:
    x = Mode(tensors=("texels",)).inputs()
    texture = tr.SurfaceTexture(x["texels"])
    with pytest.raises(TypeError, match=r"^face_attributes: "):
        tr.SoftRasterizer(8).jvp((x["vertices"], texture), (None, None))  # type: ignore[arg-type]
