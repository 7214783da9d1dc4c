"""Alpha is the pairwise fold of the T-conorm's definition, in any order of the faces."""

from __future__ import annotations

import functools

import numpy as np
import pytest
import torch
from torch import Tensor

import published_twin
import taichi_raster as tr
from modes import CONORMS, Mode

F64 = pytest.mark.runs_on(arch="cpu", precision="f64")
PARAMETERS = [
    (name, p)
    for name, default in CONORMS.items()
    for p in {
        "hamacher": (0.0, 1e-4, 0.6, 8.0),
        "frank": (1e-3, 0.5, 4.0, 1e3),
        "yager": (0.5, 1.6, 9.0),
        "aczel_alsina": (0.4, 1.0, 5.0),
        "dombi": (0.4, 1.0, 5.0),
        "schweizer_sklar": (-0.05, -1.5, -9.0),
    }.get(name, (default,))
]


def silhouette(faces: Tensor, name: str, p: float | None, edge: str = "logistic") -> Tensor:
    scale = 0.5 if edge == "uniform" else 0.13
    renderer = tr.SoftRasterizer(
        (7, 6),
        tr.Distribution(edge, scale),
        alpha=tr.TConorm(name, p),
        near=0.5,
        far=10.0,
        threshold=0.0,
    )
    return renderer.silhouette(faces)


@F64
@pytest.mark.parametrize("edge", ["logistic", "uniform"])
@pytest.mark.parametrize(("name", "p"), PARAMETERS)
def test_alpha_is_the_pairwise_fold_of_the_definition(
    name: str, p: float | None, edge: str
) -> None:
    faces = Mode().inputs()["vertices"]
    single = [silhouette(faces[:, i : i + 1], "max", None, edge)[0].numpy() for i in range(3)]
    fold = functools.partial(published_twin.conorm, name, p=p or 0.0)
    expected = functools.reduce(fold, single)
    found = silhouette(faces, name, p, edge)[0].numpy()
    np.testing.assert_allclose(found, expected, rtol=0, atol=1e-10)


@F64
@pytest.mark.parametrize(("name", "p"), PARAMETERS)
def test_the_order_of_faces_does_not_matter(name: str, p: float | None) -> None:
    faces = Mode().inputs()["vertices"]
    first = silhouette(faces, name, p)
    for order in ([1, 2, 0], [2, 1, 0]):
        torch.testing.assert_close(silhouette(faces[:, order], name, p), first, rtol=0, atol=1e-13)


@pytest.mark.runs_on(precision="f32")  # where a coverage is 1 to rounding sooner
@pytest.mark.parametrize(("name", "p"), [(n, p) for n, p in CONORMS.items() if n != "max"])
def test_deep_inside_many_faces_alpha_is_one_with_finite_gradients(
    name: str, p: float | None, dtype: torch.dtype
) -> None:
    """Where every coverage is 1 to rounding, generators are infinite or overflow."""
    xy = torch.tensor([[-3.0, -3.0], [3.0, -3.0], [0.0, 4.0]], dtype=dtype)
    faces = torch.cat([xy, torch.full((3, 1), 2.0, dtype=dtype)], 1).expand(1, 5, 3, 3).clone()
    faces.requires_grad_()
    for edge in ("logistic", "gaussian"):
        renderer = tr.SoftRasterizer(
            3, tr.Distribution(edge, 0.01), alpha=tr.TConorm(name, p), near=0.5, far=10.0
        )
        alpha = renderer.silhouette(faces)
        (gradient,) = torch.autograd.grad(alpha.sum(), faces)
        torch.testing.assert_close(alpha, torch.ones_like(alpha))
        assert bool(gradient.isfinite().all())


@F64
def test_hard_is_any_coverage_above_one_half() -> None:
    faces = Mode().inputs()["vertices"].requires_grad_()
    alpha = silhouette(faces, "hard", None)
    largest = silhouette(faces, "max", None)
    assert torch.equal(alpha, (largest > 0.5).double())
    (gradient,) = torch.autograd.grad(alpha.sum() + 0 * faces.sum(), faces)
    assert float(gradient.abs().max()) == 0


@F64
def test_p_may_differ_from_item_to_item() -> None:
    faces = Mode().inputs()["vertices"].expand(3, -1, -1, -1)
    p = torch.tensor([0.5, 1.5, 4.0], dtype=torch.float64)
    renderer = tr.SoftRasterizer(6, alpha=tr.TConorm("yager", p), near=0.5, far=10.0)
    together = renderer.silhouette(faces)
    for i in range(3):
        one = tr.SoftRasterizer(6, alpha=tr.TConorm("yager", float(p[i])), near=0.5, far=10.0)
        torch.testing.assert_close(together[i], one.silhouette(faces[:1])[0])


@F64
@pytest.mark.parametrize(
    ("name", "p", "match"),
    [
        ("sum", None, "unknown T-conorm"),
        ("max", 1.0, "has no parameter"),
        ("frank", None, "needs a parameter"),
        ("frank", 0.0, "positive"),
        ("hamacher", -0.1, ">= 0"),
        ("yager", -1.0, "positive"),
        ("dombi", float("nan"), "finite"),
        ("schweizer_sklar", 0.5, "negative"),
        ("yager", torch.ones(2, 2), "number or"),
    ],
)
def test_bad_parameters_are_refused(name: str, p: float | Tensor | None, match: str) -> None:
    with pytest.raises(ValueError, match=match):
        tr.TConorm(name, p)
    if name == "frank":
        with pytest.raises(TypeError, match=r"^p: "):
            tr.TConorm("frank", "three")  # type: ignore[arg-type]
