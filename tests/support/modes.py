"""Every rendering mode as a function of all its differentiable inputs, for the tests to check."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

import taichi_raster as tr
import twin_modes
from taichi_raster.softness.distributions import registry

Inputs = dict[str, Tensor]
Build = Callable[[Inputs], Any]

SHAPED = ("gamma", "gamma_rev")
WIDE = ("uniform", "cubic_hermite", "wigner_semicircle")  # finite supports
SMOOTH = [name for name in registry.known() if name != "heaviside"]


@dataclass(frozen=True)
class Mode:
    """One choice of every ingredient; `numbers` are the differentiable parameters."""

    edge: Build = lambda x: tr.Distribution("logistic", 0.13)
    depth: Build = lambda x: tr.SoftmaxDepth(0.08, 0.6)
    alpha: Build = lambda x: tr.TConorm()
    attributes: Build = lambda x: x["colours"]
    numbers: dict[str, float] = field(default_factory=dict)
    tensors: tuple[str, ...] = ("colours",)
    options: dict[str, Any] = field(default_factory=dict)
    turned: tuple[int, ...] = ()  # faces that are clockwise

    def inputs(self, dtype: torch.dtype = torch.float64, seed: int = 0) -> Inputs:
        g = torch.Generator().manual_seed(seed)

        def draw(*shape: int) -> Tensor:
            return torch.rand(*shape, generator=g, dtype=torch.float64)

        angle = draw(1, 3, 1) * 6 + torch.arange(3) * 2.1 + draw(1, 3, 3) - 0.5
        spokes = torch.stack([angle.cos(), angle.sin()], -1) * (0.5 + 0.5 * draw(1, 3, 1, 1))
        xy = (draw(1, 3, 1, 2) - 0.5) + spokes
        z = 1.5 + 2 * draw(1, 3, 1, 1) + 0.5 * draw(1, 3, 3, 1)
        every = {
            "colours": draw(1, 3, 3, 2),
            "texels": draw(1, 3, 2, 2, 2),
            "uv": draw(1, 3, 3, 2) * 1.6 - 0.3,
            "image": draw(1, 4, 3, 2),
            "picture": draw(4, 5, 2),
        }
        found = {"vertices": torch.cat([xy, z], -1)}
        for face in self.turned:
            found["vertices"][:, face] = found["vertices"][:, face].flip(1)
        found |= {name: every[name] for name in self.tensors if name in every}
        if "edge_weights" in self.tensors:
            found["edge_weights"] = _weights(tr.MLPSoftness((3, 3)), g)
        if "depth_weights" in self.tensors:
            found["depth_weights"] = _weights(tr.MLPDepth((3, 3)), g)
        found |= {k: torch.tensor(v, dtype=torch.float64) for k, v in self.numbers.items()}
        return {k: v.to(dtype) for k, v in found.items()}

    def renderer(self, x: Inputs) -> tr.SoftRasterizer:
        settings: dict[str, Any] = {"near": 0.5, "far": 10.0, "threshold": 0.0}
        settings |= {"background": x.get("picture", 0.3), **self.options}
        return tr.SoftRasterizer((4, 5), self.edge(x), self.depth(x), self.alpha(x), **settings)

    def render(self, x: Inputs) -> Tensor:
        """(B,H,W,C+1) by the kernels."""
        image: Tensor = self.renderer(x)(x["vertices"], self.attributes(x))
        return image

    def twin(self, x: Inputs) -> Tensor:
        """(B,H,W,C+1) by the dense twin, from float64 inputs."""
        return twin_modes.render(self.renderer(x), x["vertices"], self.attributes(x))


def _weights(module: Any, g: torch.Generator) -> Tensor:
    noise = torch.randn(module.weights.shape, generator=g, dtype=torch.float64)
    start: Tensor = module.weights.detach()
    return start + 0.3 * noise


def with_weights(module: Any, weights: Tensor) -> Any:
    """The module with its weights replaced by a tensor that derivatives reach."""
    del module.weights
    module.weights = weights
    return module


def distribution(name: str, squared: bool = False) -> Mode:
    numbers = {"scale": 0.4 if name in WIDE else 0.13, "shift": 0.2}
    if squared:
        numbers["scale"] **= 2
    if name in SHAPED:
        numbers["shape"] = 1.7
    return Mode(
        edge=lambda x: tr.Distribution(name, x["scale"], squared, x.get("shape"), x["shift"]),
        numbers=numbers,
    )


def conorm(name: str, p: float | None) -> Mode:
    numbers = {} if p is None else {"p": p}
    return Mode(alpha=lambda x: tr.TConorm(name, x.get("p")), numbers=numbers)


CONORMS: dict[str, float | None] = {
    "max": None,
    "probabilistic": None,
    "einstein": None,
    "hamacher": 0.6,
    "frank": 4.0,
    "yager": 1.6,
    "aczel_alsina": 0.8,
    "dombi": 1.3,
    "schweizer_sklar": -1.5,
}


def distribution_depth(name: str, shift: float) -> Mode:
    numbers = {"gamma": 0.1, "background_z": 0.5, "depth_shift": shift}
    if name in SHAPED:
        numbers["depth_shape"] = 2.5
    return Mode(
        depth=lambda x: tr.DistributionDepth(
            name, x["gamma"], x["background_z"], x.get("depth_shape"), x["depth_shift"]
        ),
        numbers=numbers,
    )


DEPTHS = {
    "softmax": Mode(
        depth=lambda x: tr.SoftmaxDepth(x["gamma"], x["background_z"]),
        numbers={"gamma": 0.08, "background_z": 0.6},
    ),
    "hard": Mode(depth=lambda x: tr.HardDepth()),
    "logistic": distribution_depth("logistic", -5.0),
    "cauchy": distribution_depth("cauchy", -5.0),
    "gamma": distribution_depth("gamma", 0.0),
    "levy_rev": distribution_depth("levy_rev", 9.0),
    "network": Mode(
        depth=lambda x: with_weights(
            tr.MLPDepth((3, 3), gamma=x["gamma"], background_z=x["background_z"]),
            x["depth_weights"],
        ),
        numbers={"gamma": 0.1, "background_z": 0.5},
        tensors=("colours", "depth_weights"),
    ),
    "over": Mode(depth=lambda x: tr.OverDepth()),
    "over by the product": Mode(depth=lambda x: tr.OverDepth(union="product")),
    "over softly": Mode(depth=lambda x: tr.OverDepth(x["gamma"]), numbers={"gamma": 0.08}),
    "none": Mode(attributes=lambda x: None, tensors=()),
}

TEXTURES = {
    "surface": Mode(
        attributes=lambda x: tr.SurfaceTexture(x["texels"], x["colours"]),
        tensors=("texels", "colours"),
    ),
    "clamp": Mode(
        attributes=lambda x: tr.UVTexture(x["uv"], x["image"], "clamp", x["colours"]),
        tensors=("uv", "image", "colours"),
    ),
    "repeat": Mode(
        attributes=lambda x: tr.UVTexture(x["uv"], x["image"], "repeat"), tensors=("uv", "image")
    ),
    "trilinear": Mode(
        attributes=lambda x: tr.UVTexture(
            x["uv"], x["image"], "repeat", x["colours"], filter="trilinear"
        ),
        tensors=("uv", "image", "colours"),
    ),
    "screen": Mode(
        attributes=lambda x: tr.UVTexture(x["uv"], x["image"], "clamp"),
        tensors=("uv", "image"),
        options={"perspective_correct": False},
    ),
}

OPTIONS = {
    "orthographic": Mode(options={"orthographic": True}),
    "clipped": Mode(
        options={
            "barycentrics": "clipped",
            "unclipped_alpha": True,
            "front": "cw",
            "cull_backfaces": True,
            "perspective_correct": False,
            "near": 2.787,
        },
        turned=(0, 2),
    ),
    "picture behind": Mode(tensors=("colours", "picture"), options={"antialias": 2}),
}

NETWORK = Mode(
    edge=lambda x: with_weights(tr.MLPSoftness((3, 3), scale=x["scale"]), x["edge_weights"]),
    numbers={"scale": 0.13},
    tensors=("colours", "edge_weights"),
)

TABLE = Mode(
    edge=lambda x: tr.tabulate(NETWORK.edge(x), width=2.0, octaves=6, subdivision=2),
    numbers={"scale": 0.13},
    tensors=("colours", "edge_weights"),
)


def together(*modes: Mode) -> Mode:
    """The choices of several modes at once; where more than one chooses, the last."""
    chosen: dict[str, Any] = {}
    numbers: dict[str, float] = {}
    for mode in modes:
        for name in ("edge", "depth", "alpha", "attributes"):
            if getattr(mode, name) is not getattr(Mode, name):
                chosen[name] = getattr(mode, name)
        clash = set(numbers) & set(mode.numbers)
        assert not clash, clash
        numbers |= mode.numbers
    tensors = dict.fromkeys(name for mode in modes for name in mode.tensors)
    painted = [mode for mode in modes if mode.attributes is not Mode.attributes]
    if painted and "colours" not in painted[-1].tensors:
        del tensors["colours"]  # which the others have by default
    options = {name: value for mode in modes for name, value in mode.options.items()}
    return Mode(
        **chosen,
        numbers=numbers,
        tensors=tuple(tensors),
        options=options,
        turned=tuple(face for mode in modes for face in mode.turned),
    )


# Every choice of an ingredient is in one of these. Many are in one mode together: each mode
# compiles kernels of its own, and they hold the same formulas.
ALL: dict[str, Mode] = {
    "logistic, softmax": together(distribution("logistic"), DEPTHS["softmax"]),
    "logistic, squared, orthographic": together(
        distribution("logistic", True), OPTIONS["orthographic"]
    ),
    "gaussian, squared": distribution("gaussian", True),
    "cauchy, einstein": together(distribution("cauchy"), conorm("einstein", None)),
    "cubic_hermite, logistic depth, surface": together(
        distribution("cubic_hermite"), DEPTHS["logistic"], TEXTURES["surface"]
    ),
    "exponential, hamacher, clipped": together(
        distribution("exponential"), conorm("hamacher", CONORMS["hamacher"]), OPTIONS["clipped"]
    ),
    "exponential_rev, cauchy depth, repeat": together(
        distribution("exponential_rev"), DEPTHS["cauchy"], TEXTURES["repeat"]
    ),
    "gamma, frank, clamp": together(
        distribution("gamma"), conorm("frank", CONORMS["frank"]), TEXTURES["clamp"]
    ),
    "gamma_rev, schweizer_sklar, levy_rev depth": together(
        distribution("gamma_rev"),
        conorm("schweizer_sklar", CONORMS["schweizer_sklar"]),
        DEPTHS["levy_rev"],
    ),
    "gaussian, yager, gamma depth": together(
        distribution("gaussian"), conorm("yager", CONORMS["yager"]), DEPTHS["gamma"]
    ),
    "gudermannian, aczel_alsina, none": together(
        distribution("gudermannian"),
        conorm("aczel_alsina", CONORMS["aczel_alsina"]),
        DEPTHS["none"],
    ),
    "gumbel_max, max": together(distribution("gumbel_max"), conorm("max", None)),
    "gumbel_min, screen": together(distribution("gumbel_min"), TEXTURES["screen"]),
    "laplace, over by the product": together(
        distribution("laplace"), DEPTHS["over by the product"]
    ),
    "levy, picture behind": together(distribution("levy"), OPTIONS["picture behind"]),
    "levy_rev, hard depth": together(distribution("levy_rev"), DEPTHS["hard"]),
    "reciprocal, over softly": together(distribution("reciprocal"), DEPTHS["over softly"]),
    "uniform, dombi, surface, orthographic": together(
        distribution("uniform"),
        conorm("dombi", CONORMS["dombi"]),
        TEXTURES["surface"],
        OPTIONS["orthographic"],
    ),
    "wigner_semicircle": distribution("wigner_semicircle"),
    "network, network depth": together(NETWORK, DEPTHS["network"]),
    "table, surface": together(TABLE, TEXTURES["surface"]),
    "over, picture behind, fronts and backs": together(
        DEPTHS["over"], OPTIONS["picture behind"], Mode(turned=(1,))
    ),
    "trilinear, orthographic": together(TEXTURES["trilinear"], OPTIONS["orthographic"]),
}

# Choices of the above again, beside others.
PAIRS = {
    "over softly, gamma": together(distribution("gamma"), DEPTHS["over softly"]),
    "over softly, table, orthographic": together(
        TABLE, DEPTHS["over softly"], OPTIONS["orthographic"]
    ),
    "over, trilinear": together(TEXTURES["trilinear"], DEPTHS["over"]),
    "over, clamp, frank": together(
        TEXTURES["clamp"], DEPTHS["over"], conorm("frank", CONORMS["frank"])
    ),
    "over, uniform, culled": together(
        distribution("uniform"),
        DEPTHS["over"],
        Mode(
            options={
                "front": "cw",
                "cull_backfaces": True,
                "perspective_correct": False,
                "near": 2.787,
            },
            turned=(0, 2),
        ),
    ),
}
