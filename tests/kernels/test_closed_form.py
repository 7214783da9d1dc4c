"""The closed forms' first and second derivatives equal those that Taichi's autodiff finds."""

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor

import taichi_raster as tr
from scenes import total

pytestmark = pytest.mark.runs_on(arch="cpu", precision="f64")


def number(value: float) -> Tensor:
    return torch.tensor(value, dtype=torch.float64, requires_grad=True)


def perturbed(module: Any) -> Any:
    g = torch.Generator().manual_seed(7)
    with torch.no_grad():
        module.weights += 0.3 * torch.randn(module.weights.shape, generator=g, dtype=torch.float64)
    return module


EDGES = {
    "logistic": lambda: tr.Distribution("logistic", number(0.1)),
    "uniform": lambda: tr.Distribution("uniform", number(0.2)),
    "squared": lambda: tr.Distribution("gaussian", number(0.05), squared=True, shift=number(0.2)),
    "mlp": lambda: perturbed(tr.MLPSoftness((2, 3, 2), scale=number(0.1))),
}
DEPTHS: dict[str, Callable[[], tr.DepthSoftness]] = {
    "softmax": lambda: tr.SoftmaxDepth(number(0.1)),
    "hard": tr.HardDepth,
    "distribution": lambda: tr.DistributionDepth("logistic", number(0.1), shift=number(-5.0)),
    "mlp": lambda: perturbed(tr.MLPDepth((2, 2), gamma=number(0.1))),
}
CASES = [
    ("logistic", "softmax", "probabilistic", None, "corners", {}),
    ("uniform", "hard", "hamacher", 0.5, "image", {"barycentrics": "clipped"}),
    ("mlp", "mlp", "probabilistic", None, "corners", {"perspective_correct": False}),
    ("squared", "distribution", "yager", 2.0, "surface", {}),
]


def appearance(kind: str, draw: dict[str, Any]) -> tuple[Any, list[Tensor]]:
    if kind == "none":
        return None, []
    if kind == "corners":
        colours = torch.rand(2, 5, 3, 3, **draw).requires_grad_()
        return colours, [colours]
    if kind == "surface":
        texels = torch.rand(1, 5, 3, 3, 2, **draw).requires_grad_()
        return tr.SurfaceTexture(texels), [texels]
    uv, image = torch.rand(2, 5, 3, 2, **draw), torch.rand(1, 4, 5, 2, **draw)
    return tr.UVTexture(uv.requires_grad_(), image.requires_grad_(), "repeat"), [uv, image]


@pytest.mark.parametrize(("edge", "depth", "conorm", "p", "kind", "options"), CASES)
def test_closed_forms_are_autodiffs(
    edge: str, depth: str, conorm: str, p: float | None, kind: str, options: dict[str, Any]
) -> None:
    draw: dict[str, Any] = {"generator": torch.Generator().manual_seed(5), "dtype": torch.float64}
    xy, z = torch.rand(2, 5, 3, 2, **draw) * 1.6 - 0.8, torch.rand(2, 5, 3, 1, **draw) + 1
    vertices = torch.cat([xy, z], dim=-1).requires_grad_()
    attributes, wanted = appearance(kind, draw)
    alpha = tr.TConorm(conorm, None if p is None else number(p))
    renderer = tr.SoftRasterizer(
        (19, 21),
        edge=EDGES[edge](),
        depth=DEPTHS[depth](),
        alpha=alpha,
        near=0.5,
        far=3.0,
        **options,
    )
    held = [*renderer.edge.modules(), *renderer.depth.modules(), alpha]
    for module in held:
        wanted += [v for v in vars(module).values() if isinstance(v, Tensor) and v.requires_grad]
        wanted += list(module.parameters(recurse=False))
    wanted = [vertices, *wanted]
    if kind == "none":  # alpha alone has no use for the depth softness
        wanted = [w for w in wanted if all(w is not v for v in renderer.depth.parameters())]

    def differentiate() -> list[Tensor]:
        image = renderer(vertices, attributes)
        seed = torch.randn(image.shape, generator=torch.Generator().manual_seed(3)).double()
        first = torch.autograd.grad((image * seed).sum(), wanted, create_graph=True)
        along = total((g * (i + 1)).sin().sum() for i, g in enumerate(first))
        return [*first, *torch.autograd.grad(along, wanted)]

    closed = differentiate()
    with tr.derivatives_by("autodiff"):
        reverse = differentiate()
    for ours, theirs in zip(closed, reverse, strict=True):
        assert theirs.norm() > 0
        assert (ours - theirs).norm() < 1e-10 * theirs.norm()
