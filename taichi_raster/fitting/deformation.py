"""Deforming a mesh by gradients without tearing it: smoothed offsets, and an Adam to match.

Both after Nicolet et al. 2021, "Large Steps in Inverse Rendering of Geometry".
"""

from __future__ import annotations

import math

import torch
from jaxtyping import Float
from torch import Tensor, nn

from taichi_raster import checks
from taichi_raster.runtime.precision import product
from taichi_raster.scene.mesh import Mesh


class SmoothOffsets(nn.Module):
    """A mesh whose vertices move by smoothed offsets: v = v0 + (I + s L)^-1 x.

    L is the graph Laplacian, and x, (V, 3), what is optimised. A pull on one vertex so moves its
    neighbours too, which lets large steps keep the surface from folding into spikes. The inverse
    is dense: V squared numbers, so meant for up to some 10,000 vertices.

    Args:
        mesh: where the deformation starts (x = 0), and its faces.
        smoothing: s, in [0, inf): a pull reaches about sqrt(s) edges far; 0 moves each vertex on
            its own.

    Raises:
        ValueError: if `smoothing` is negative or not finite.
    """

    start: Tensor  # (V, 3)
    spread: Tensor  # (V, V), the inverse

    def __init__(self, mesh: Mesh, smoothing: float) -> None:
        super().__init__()
        checks.instance("mesh", mesh, Mesh)
        if not 0 <= checks.number("smoothing", smoothing) < math.inf:
            raise ValueError(f"smoothing: must be finite and not negative, got {smoothing}")
        count = len(mesh.vertices)
        adjacent = torch.zeros(count, count, dtype=torch.float64, device=mesh.vertices.device)
        for a, b in ((0, 1), (1, 2), (2, 0)):
            adjacent[mesh.faces[:, a], mesh.faces[:, b]] = 1.0
            adjacent[mesh.faces[:, b], mesh.faces[:, a]] = 1.0
        adjacent.fill_diagonal_(0.0)
        system = torch.diag(1 + smoothing * adjacent.sum(1)) - smoothing * adjacent
        self.register_buffer("start", mesh.vertices.detach())
        self.register_buffer("spread", torch.linalg.inv(system).to(mesh.vertices))
        self.offsets = nn.Parameter(torch.zeros_like(mesh.vertices))

    def forward(self) -> Float[Tensor, "V 3"]:
        """The vertices as they are now."""
        return self.start + product(self.spread, self.offsets)


class UniformAdam:
    """Adam with one step size for all coordinates, from the largest gradient among them.

    Ordinary Adam makes every coordinate move as fast as any other: a vertex inside all silhouettes,
    which has next to no gradient, would wander at full speed and cave the surface in.

    Args:
        parameter: what `step` changes in place.
        betas: decay of the averages of the gradient and of its largest square.
    """

    def __init__(self, parameter: Tensor, betas: tuple[float, float] = (0.9, 0.99)) -> None:
        self.parameter = parameter
        self.betas = betas
        self.mean = torch.zeros_like(parameter)
        self.square = parameter.new_zeros(())
        self.steps = 0

    @torch.no_grad()
    def step(self, gradient: Tensor, learning_rate: float) -> None:
        """Descend along `gradient`; no coordinate moves by much more than `learning_rate`."""
        self.steps += 1
        self.mean.lerp_(gradient, 1 - self.betas[0])
        self.square.lerp_(gradient.abs().max().square(), 1 - self.betas[1])
        mean = self.mean / (1 - self.betas[0] ** self.steps)
        root = (self.square / (1 - self.betas[1] ** self.steps)).sqrt()
        self.parameter -= learning_rate * mean / root.clamp_min(1e-12)
