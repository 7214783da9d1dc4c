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
    numbers = {"gamma": 0.1, "background_z": 0.5, "shift": shift}
    if name in SHAPED:
        numbers["shape"] = 2.5
    return Mode(
        depth=lambda x: tr.DistributionDepth(
            name, x["gamma"], x["background_z"], x.get("shape"), x["shift"]
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


def paired(a: Mode, b: Mode) -> Mode:
    """Two modes' choices at once; where both choose, the second."""
    default = Mode()
    chosen = {
        name: getattr(b if getattr(b, name) is not getattr(Mode, name) else a, name)
        for name in ("edge", "depth", "alpha", "attributes")
    }
    clash = set(a.numbers) & set(b.numbers)
    assert not clash, clash
    return Mode(
        **chosen,
        numbers={**a.numbers, **b.numbers},
        tensors=tuple(dict.fromkeys((*a.tensors, *b.tensors))) or default.tensors,
        options={**a.options, **b.options},
        turned=a.turned + b.turned,
    )


PAIRS = {
    "gaussian, yager": paired(distribution("gaussian"), conorm("yager", 1.6)),
    "gamma_rev, schweizer_sklar": paired(
        distribution("gamma_rev"), conorm("schweizer_sklar", -1.5)
    ),
    "uniform, dombi": paired(distribution("uniform"), conorm("dombi", 1.3)),
    "frank, image": paired(conorm("frank", 4.0), TEXTURES["clamp"]),
    "network edge, network depth": paired(NETWORK, DEPTHS["network"]),
    "table, surface": paired(TABLE, TEXTURES["surface"]),
    "orthographic, surface": paired(OPTIONS["orthographic"], TEXTURES["surface"]),
    "over, uniform": paired(distribution("uniform"), DEPTHS["over"]),
    "over softly, gamma": paired(distribution("gamma"), DEPTHS["over softly"]),
    "over softly, table": paired(TABLE, DEPTHS["over softly"]),
    "over, trilinear": paired(TEXTURES["trilinear"], DEPTHS["over"]),
    "orthographic, trilinear": paired(OPTIONS["orthographic"], TEXTURES["trilinear"]),
    "over, image, frank": paired(paired(TEXTURES["clamp"], DEPTHS["over"]), conorm("frank", 4.0)),
    "over softly, orthographic": paired(OPTIONS["orthographic"], DEPTHS["over softly"]),
    "over, picture behind": paired(OPTIONS["picture behind"], DEPTHS["over"]),
    "over, fronts and backs": paired(DEPTHS["over"], Mode(turned=(1,))),
    "over, culled": Mode(
        depth=lambda x: tr.OverDepth(),
        options={
            "front": "cw",
            "cull_backfaces": True,
            "perspective_correct": False,
            "near": 2.787,
        },
        turned=(0, 2),
    ),
    "clipped, hamacher": paired(OPTIONS["clipped"], conorm("hamacher", 0.6)),
}

ALL: dict[str, Mode] = {f"edge {name}": distribution(name) for name in SMOOTH}
ALL |= {f"edge {name}, squared": distribution(name, True) for name in ("logistic", "gaussian")}
ALL |= {f"alpha {name}": conorm(name, p) for name, p in CONORMS.items()}
ALL |= {f"depth {name}": mode for name, mode in DEPTHS.items()}
ALL |= {f"texture {name}": mode for name, mode in TEXTURES.items()}
ALL |= {f"option {name}": mode for name, mode in OPTIONS.items()}
ALL |= {"edge network": NETWORK, "edge table": TABLE}
