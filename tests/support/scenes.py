"""Seeded scenes for the tests, and the same question put to the renderer and to its twin.

A ``Case`` is a softness, a depth mode and a view. ``Case.ours`` and ``Case.twin`` are the same
function of the same named tensors (vertices, attributes, scale, weights, gamma, background,
background_z), so that a test can compare values, gradients of any order and tangents of the two.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.func import functional_call

import taichi_raster as tr
import twin

WIDTHS = (3, 2, 3)
# Few networks for all tests, because each is a set of kernels to compile.
NETWORKS: dict[str, dict[str, Any]] = {
    "mlp": {"widths": WIDTHS, "residual": True, "bias": True, "input": "asinh"},
    "bare mlp": {"widths": (3,), "residual": False, "bias": False, "input": "plain"},
}
CHANNELS = 3
Inputs = dict[str, Tensor]


def random_faces(
    seed: int,
    batch: int = 2,
    faces: int = 4,
    channels: int = CHANNELS,
    dtype: torch.dtype = torch.float64,
    size: tuple[float, float] = (0.3, 1.0),
) -> tuple[Tensor, Tensor]:
    """(B,F,3,3) overlapping triangles and (B,F,3,C) attributes.

    The first face is large, so that pixels lie deep inside it; the last lies outside the image;
    odd ones are clockwise; z differs between vertices by tens of per cent. No angle is tiny.
    """
    g = torch.Generator().manual_seed(seed)

    def between(low: float, high: float, *shape: int) -> Tensor:
        return low + (high - low) * torch.rand(*shape, generator=g, dtype=torch.float64)

    radius = between(*size, batch, faces, 1)
    radius[:, 0] = 1.3
    angle = between(0, 2 * math.pi, batch, faces, 1) + between(-0.5, 0.5, batch, faces, 3)
    angle = angle + torch.arange(3) * 2 * math.pi / 3
    centre = between(-0.7, 0.7, batch, faces, 1, 2)
    centre[:, 0] *= 0.3
    if faces > 2:
        centre[:, -1] += torch.tensor([2.5, 2.0], dtype=torch.float64)
    xy = centre + radius[..., None] * torch.stack([angle.cos(), angle.sin()], -1)
    z = between(1.5, 4.0, batch, faces, 1) * between(0.7, 1.4, batch, faces, 3)
    vertices = torch.cat([xy, z[..., None]], -1)
    vertices[:, 1::2] = vertices[:, 1::2].flip(2)
    attributes = between(0, 1, batch, faces, 3, channels)
    return vertices.to(dtype), attributes.to(dtype)


DEGENERATE: dict[str, list[list[float]]] = {
    "a point": [[0.1, 0.2, 2.0]] * 3,
    "a repeated vertex": [[-0.5, -0.3, 2.0], [-0.5, -0.3, 2.0], [0.6, 0.4, 3.0]],
    "another repeated vertex": [[-0.5, -0.3, 2.0], [0.6, 0.4, 3.0], [0.6, 0.4, 3.0]],
    "edge-on": [[-0.5, -0.5, 2.0], [0.5, 0.5, 2.0], [0.0, 0.0, 3.0]],
    "collinear, level": [[-0.5, 0.0, 2.0], [0.0, 0.0, 2.0], [0.7, 0.0, 2.0]],
    "a sliver": [[-0.8, 0.1, 2.0], [0.8, 0.1, 2.0], [0.0, 0.1 + 1e-9, 2.0]],
    "right-angled": [[-0.5, -0.5, 2.0], [0.5, -0.5, 2.0], [-0.5, 0.5, 2.0]],
    "edges through pixel centres": [[-0.75, -0.625, 2.0], [0.75, -0.625, 2.5], [0.125, 0.875, 2.0]],
    "pixel centres on vertices": [[-0.625, -0.625, 2.0], [0.625, -0.625, 2.5], [0.125, 0.625, 2.0]],
    "tiny": [[0.1, 0.1, 2.0], [0.1 + 1e-7, 0.1, 2.0], [0.1, 0.1 + 1e-7, 2.0]],
    "huge": [[-1e4, -1e4, 2.0], [1e4, -1e4, 2.0], [0.0, 2e4, 2.0]],
}
"""For an 8 x 8 image, whose pixel centres are the odd multiples of 1/8."""


def degenerate_faces(name: str, dtype: torch.dtype = torch.float64) -> tuple[Tensor, Tensor]:
    """(1,2,3,3): the degenerate triangle in front of an ordinary one."""
    ordinary = [[-0.7, -0.6, 4.0], [0.8, -0.5, 4.5], [0.05, 0.75, 4.0]]
    vertices = torch.tensor([[DEGENERATE[name], ordinary]], dtype=dtype)
    attributes = torch.linspace(0.1, 0.9, 18, dtype=dtype).reshape(1, 2, 3, 3)
    return vertices, attributes


VIEW = twin.View(image_size=(6, 7), threshold=0.0, near=0.5, far=10.0)


@dataclass(frozen=True)
class Case:
    """An edge kind (a distribution or a network), a depth mode and what is not differentiated."""

    edge: str = "logistic"
    depth: str = "softmax"
    view: twin.View = VIEW

    def but(self, **view: object) -> Case:
        return replace(self, view=replace(self.view, **view))  # type: ignore[arg-type]

    def inputs(self, seed: int, dtype: torch.dtype = torch.float64, **faces: object) -> Inputs:
        """Every differentiable input this case has, with typical values."""
        vertices, attributes = random_faces(seed, dtype=dtype, **faces)  # type: ignore[arg-type]
        named = {"vertices": vertices, "attributes": attributes}
        named["scale"] = torch.tensor(0.13, dtype=dtype)
        if self.edge in NETWORKS:
            named["weights"] = mlp_weights(seed, dtype, self.edge)
        if self.depth == "softmax":
            named["gamma"] = torch.tensor(0.08, dtype=dtype)
            named["background_z"] = torch.tensor(0.6, dtype=dtype)
        named["background"] = torch.linspace(0.2, 0.7, attributes.shape[-1], dtype=dtype)
        return named

    def renderer(self, x: Inputs) -> tr.SoftRasterizer:
        if self.edge in NETWORKS:
            edge: tr.EdgeSoftness = tr.MLPSoftness(**NETWORKS[self.edge], scale=x["scale"])
        else:
            edge = tr.Distribution(self.edge, scale=x["scale"])
        depth = (
            tr.SoftmaxDepth(x["gamma"], x["background_z"])
            if self.depth == "softmax"
            else tr.HardDepth()
        )
        return tr.SoftRasterizer(
            edge=edge, depth=depth, background=x["background"], **vars(self.view)
        )

    def ours(self, x: Inputs) -> Tensor:
        """(B,H,W,C+1) by the kernels."""
        renderer = self.renderer(x)
        weights = {"edge.weights": x["weights"]} if self.edge in NETWORKS else {}
        image: Tensor = functional_call(renderer, weights, (x["vertices"], x["attributes"]))
        return image

    def twin(self, x: Inputs) -> Tensor:
        """(B,H,W,C+1) by the twin, in the dtype of the inputs."""
        if self.edge in NETWORKS:
            network = dict(NETWORKS[self.edge])
            edge = twin.mlp(x["weights"], asinh=network.pop("input") == "asinh", **network)
        else:
            edge = twin.DISTRIBUTIONS[self.edge]
        soft = (
            {"gamma": x["gamma"], "background_z": x["background_z"]}
            if self.depth == "softmax"
            else {"gamma": None}
        )
        return twin.render(
            x["vertices"],
            x["attributes"],
            edge=edge,
            scale=x["scale"],
            background=x["background"],
            view=self.view,
            **soft,
        )


def mlp_weights(seed: int, dtype: torch.dtype = torch.float64, network: str = "mlp") -> Tensor:
    """(P,) random weights, well away from the start, so that no layer is idle."""
    count = tr.MLPSoftness(**NETWORKS[network]).weights.numel()
    g = torch.Generator().manual_seed(seed)
    return (0.5 * torch.randn(count, generator=g, dtype=torch.float64)).to(dtype)


EDGES = ("logistic", "gaussian", "uniform", "mlp")
DEPTHS = ("softmax", "hard")
ONLY_F64 = pytest.mark.runs_on(precision="f64")


def modes(in_float32: set[str]) -> pytest.MarkDecorator:
    """Parametrises a test by (edge, depth): six pairs in float64, the named ones elsewhere too."""
    mixed = ["logistic-softmax", "logistic-hard", "gaussian-hard"]
    mixed += ["uniform-softmax", "mlp-softmax", "bare mlp-hard"]
    return pytest.mark.parametrize(
        ("edge", "depth"),
        [
            pytest.param(*mode.split("-"), marks=() if mode in in_float32 else ONLY_F64)
            for mode in mixed
        ],
    )


# Each mode is a set of kernels to compile: 3 to 7 s for first derivatives, 6 to 16 s for second.
MODES = modes({"logistic-softmax", "gaussian-hard", "uniform-softmax", "mlp-softmax"})
SECOND_ORDER_MODES = modes({"logistic-softmax", "gaussian-hard", "mlp-softmax"})


# --- comparing ------------------------------------------------------------------------------------


def relative(a: Tensor, b: Tensor) -> float:
    """|a - b| / |b| by norm; absolute where b vanishes."""
    b = b.to(torch.float64)
    error, size = float((a.to(torch.float64) - b).norm()), float(b.norm())
    return error / size if size > 1e-12 else error


def leaves(x: Inputs, dtype: torch.dtype | None = None) -> Inputs:
    return {k: v.detach().clone().to(dtype or v.dtype).requires_grad_() for k, v in x.items()}


def like(tensor: Tensor, seed: int = 0) -> Tensor:
    g = torch.Generator().manual_seed(seed)
    return torch.randn(tensor.shape, generator=g, dtype=torch.float64).to(tensor.dtype)


def total(parts: Iterable[Tensor]) -> Tensor:
    """The sum of 0-d tensors."""
    return sum(parts, torch.zeros(()))


def grad(leaf: Tensor) -> Tensor:
    """What `backward` has left at a leaf."""
    assert leaf.grad is not None
    return leaf.grad


def gradients(render: Callable[[Inputs], Tensor], x: Inputs, seed: int = 0) -> Inputs:
    """Of a random linear function of the image, for each named input."""
    x = leaves(x)
    image = render(x)
    (image * like(image, seed)).sum().backward()
    return {k: v.grad if v.grad is not None else torch.zeros_like(v) for k, v in x.items()}


def hessian_vector_products(render: Callable[[Inputs], Tensor], x: Inputs, seed: int = 0) -> Inputs:
    """Of a random quadratic function of the image, along a random direction in all inputs."""
    x = leaves(x)
    image = render(x)
    loss = (image * like(image, seed)).sum() + 0.5 * (image * image).sum()
    first = torch.autograd.grad(loss, list(x.values()), create_graph=True, materialize_grads=True)
    directional = total((g * like(g, seed + 1 + i)).sum() for i, g in enumerate(first))
    second = torch.autograd.grad(directional, list(x.values()), materialize_grads=True)
    return dict(zip(x, second, strict=True))


def kink_margin(x: Inputs, view: twin.View, edge: str) -> float:
    """How far (NDC) the scene is from a place where the image's derivative jumps.

    The image is only piecewise smooth: in which edge is nearest, in where the foot of the
    perpendicular passes a vertex, in inside and outside, in the support of the uniform, and (hard
    depth) in which face is in front. Finite differences step 1e-6: a margin of 1e-4 keeps them on
    one piece.
    """
    v = x["vertices"].double()
    height, width = (side * view.antialias for side in view.image_size)
    pair = twin.pairs(v, height, width)
    inside = pair.distance >= 0
    p = twin.pixel_centres(height, width, v)[None, :, :, None, None]
    a = v[:, None, None, :, :, :2]
    b = a.roll(-1, dims=-2)
    t = twin.segment_parameter(p, a, b)
    gap = (p - a - t.clamp(0, 1)[..., None] * (b - a)).norm(dim=-1)
    # Inside, two edges may be equally near; outside, the nearest point may reach a vertex.
    nearest = gap.sort(-1).values
    tie = torch.where(inside, nearest[..., 1] - nearest[..., 0], math.inf)
    foot = torch.minimum(t.abs(), (1 - t).abs()) * (b - a).norm(dim=-1)
    foot = torch.where(~inside[..., None] & (gap < nearest[..., :1] + 1e-3), foot, math.inf)
    margins = [foot.min(), tie.min(), pair.distance.abs().min()]
    if edge == "uniform":
        scaled = pair.distance / twin.per_instance(x["scale"].double(), v, 3)
        margins.append((scaled.abs() - 1).abs().min())
    in_order = torch.where(pair.distance >= 0, pair.z, math.inf).sort(-1).values
    behind = in_order.diff(dim=-1)[..., :1]
    margins.append(
        behind[behind.isfinite()].min() if behind.isfinite().any() else torch.tensor(math.inf)
    )
    if view.cutoff is not None:
        margins.append((pair.distance + view.cutoff).abs().min())
    return min(m.item() for m in margins)


def questions(dtype: torch.dtype) -> list[tuple[Case, Inputs]]:
    """Scenes that differ in size, face count, softness and mode."""
    return [
        (case, case.inputs(seed=80 + i, batch=1 + i % 2, faces=faces, dtype=dtype))
        for i, (case, faces) in enumerate(
            [
                (Case("logistic").but(image_size=(9, 8)), 4),
                (Case("mlp").but(image_size=(17, 20)), 30),
                (Case("gaussian", "hard").but(image_size=(5, 6)), 3),
                (Case("logistic").but(image_size=(30, 8)), 12),
            ]
        )
    ]


def assert_same(mine: Inputs, expected: Inputs) -> None:
    for name in expected:
        assert relative(mine[name], expected[name]) < 1e-5, name


def checkable(edge: str, depth: str) -> tuple[Case, Inputs]:
    """Overlapping faces, saturated fragments (uniform) and empty pixels, far from every kink."""
    case = Case(edge, depth).but(image_size=(4, 5))
    x = case.inputs(seed=52, batch=1, faces=3)
    if edge != "uniform":
        case = case.but(cutoff=0.4)
    assert kink_margin(x, case.view, edge) > 1e-4
    alpha = case.twin(x)[..., -1]
    assert (alpha == 0).any(), "no empty pixel"
    assert (alpha == 1).any() == (edge == "uniform")
    return case, x
