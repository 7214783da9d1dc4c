"""Silhouettes by Mitsuba 3, as a function that torch can differentiate (pip install '.[peers]').

Its derivatives are estimates by projective sampling (Zhang, Roussel and Jakob, "Projective Sampling
for Differentiable Rendering of Geometry", SIGGRAPH Asia 2023): `direct_projective`, in the variant
`llvm_ad_rgb`. It needs LLVM: where it does not find one, set DRJIT_LIBLLVM_PATH. Mitsuba 3.9 ends
with "Cannot select" by LLVM 14 or 15 on processors with AVX-512; 3.7.1 with drjit 1.2.0 works.
"""

from __future__ import annotations

import importlib.util
import math
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

HALF = 0.5
"""The tangent of half of the field of view; corners are moved to where it shows them alike."""


def why_not() -> str | None:
    """Why it cannot be used here; None if it can."""
    if importlib.util.find_spec("mitsuba") is None:
        return "it is not installed"
    import mitsuba as mi

    try:
        mi.set_variant("llvm_ad_rgb")
    except ImportError as error:
        return str(error).splitlines()[0]
    return None


class MitsubaSilhouettes:
    """From points (1, V, 3), x and y in NDC and z the distance, to coverage (1, H, H).

    Args:
        faces: (F, 3).
        size: H.
        samples: of each pixel, for the picture.
        edges: samples along the outline, for each pixel of the picture, for its derivatives; as
            many as of the pixel by default.
    """

    def __init__(
        self, faces: Tensor, size: int, samples: int = 16, edges: int | None = None
    ) -> None:
        self.faces, self.size, self.samples = faces.numpy().astype(np.uint32), size, samples
        self.edges = samples if edges is None else edges
        self.scene: Any = None
        self.seed = 0

    def __call__(self, points: Tensor) -> Tensor:
        x, y, z = points[0].unbind(-1)
        world = torch.stack([HALF * x * z, HALF * y * z, -z], dim=-1)
        drawn: Tensor = _Drawn.apply(world, self)
        return drawn[None]

    def moved(self, points: np.ndarray) -> Any:
        """The scene with these points (V, 3)."""
        import mitsuba as mi

        if self.scene is None:
            self.scene = self._scene(points)
            self.parameters = mi.traverse(self.scene)
        values = mi.Float(np.ascontiguousarray(points, dtype=np.float32).ravel())
        return self.scene, self.parameters, values

    def _scene(self, points: np.ndarray) -> Any:
        import mitsuba as mi

        mesh = mi.Mesh("mesh", len(points), len(self.faces))
        parameters = mi.traverse(mesh)
        parameters["vertex_positions"] = mi.Float(points.astype(np.float32).ravel())
        parameters["faces"] = mi.UInt32(self.faces.ravel())
        parameters.update()
        towards = mi.ScalarTransform4f().look_at([0, 0, 0], [0, 0, -1], [0, 1, 0])
        film = {"type": "hdrfilm", "width": self.size, "height": self.size}
        film |= {"rfilter": {"type": "box"}, "pixel_format": "luminance", "sample_border": True}
        with tempfile.TemporaryDirectory() as folder:
            path = str(Path(folder) / "mesh.ply")
            mesh.write_ply(path)
            return mi.load_dict(
                {
                    "type": "scene",
                    "integrator": {"type": "direct_projective", "sppc": 0, "sppi": 0}
                    | {"sppp": self.edges},
                    "sensor": {
                        "type": "perspective",
                        "fov": 2 * math.degrees(math.atan(HALF)),
                        "to_world": towards,
                        "film": film,
                        "sampler": {"type": "independent", "sample_count": self.samples},
                    },
                    "shape": {
                        "type": "ply",
                        "filename": path,
                        "face_normals": True,
                        "emitter": {"type": "area", "radiance": {"type": "rgb", "value": 1.0}},
                    },
                }
            )


class _Drawn(torch.autograd.Function):
    """Draws twice: without derivatives, and, by another seed, with those of the sum asked for."""

    @staticmethod
    def forward(ctx: Any, world: Tensor, renderer: MitsubaSilhouettes) -> Tensor:
        import mitsuba as mi

        ctx.renderer, ctx.world = renderer, world.detach()
        scene, parameters, values = renderer.moved(world.detach().numpy())
        parameters["shape.vertex_positions"] = values
        parameters.update()
        renderer.seed += 1
        image = np.array(mi.render(scene, spp=renderer.samples, seed=renderer.seed))
        return torch.from_numpy(image.reshape(renderer.size, -1)).to(world)

    @staticmethod
    def backward(ctx: Any, slope: Tensor) -> tuple[Tensor, None]:
        import drjit as dr
        import mitsuba as mi

        renderer = ctx.renderer
        scene, parameters, values = renderer.moved(ctx.world.numpy())
        dr.enable_grad(values)
        parameters["shape.vertex_positions"] = values
        parameters.update()
        renderer.seed += 1
        image = mi.render(scene, parameters, spp=renderer.edges, seed=renderer.seed)
        dr.backward(dr.sum(image * mi.TensorXf(slope.numpy()[..., None]), axis=None))
        found = torch.from_numpy(np.array(dr.grad(values)).reshape(-1, 3)).to(ctx.world)
        return found, None
