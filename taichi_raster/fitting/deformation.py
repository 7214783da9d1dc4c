"""Deforming a mesh by gradients without tearing it: smoothed offsets, and an Adam to match.

Both after Nicolet et al. 2021, "Large Steps in Inverse Rendering of Geometry".
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from taichi_raster import checks
from taichi_raster.runtime.precision import product
from taichi_raster.scene.mesh import Mesh

_KEPT = 1e-3  # relative error of a uniform shift, above which the system is called singular


class SmoothOffsets(nn.Module):
    """A mesh whose vertices move by smoothed offsets: v = v0 + (I + s L)^-1 x.

    L is the graph Laplacian, and x, (V, 3), what is optimised. A
    pull on one vertex so moves its neighbours too, which lets large steps keep the surface from
    folding into spikes.

    The system is sparse. It is factorised once (SciPy's SuperLU), and solved on the CPU in float64,
    whatever the dtype and device of x; the result comes back in those. On a GPU, the host waits
    for that.

    Args:
        mesh: where the deformation starts (x = 0), and its faces. Components that share no edge
            are smoothed apart, and a vertex without faces moves on its own.
        smoothing: s, in [0, inf): a pull reaches about sqrt(s) edges far; 0 moves each vertex on
            its own.

    Attributes:
        start: buffer (V, 3), v0.
        offsets: parameter (V, 3), x; zeros at first.

    Raises:
        TypeError: if `mesh` is not a mesh, or `smoothing` not a number.
        ValueError: if `smoothing` is negative or not finite, or so large that the system is
            singular in float64.

    Example:
        >>> surface = SmoothOffsets(mesh, smoothing=10.0)
        >>> faces = gather_faces(camera.project(surface()[None]), mesh.faces)
    """

    start: Tensor  # (V, 3)
    edges: Tensor  # (2, E), each once

    def __init__(self, mesh: Mesh, smoothing: float) -> None:
        super().__init__()
        checks.instance("mesh", mesh, Mesh)
        self.smoothing = checks.number("smoothing", smoothing)
        if not 0 <= self.smoothing < math.inf:
            raise ValueError(f"smoothing: must be finite and not negative, got {smoothing}")
        self.register_buffer("start", mesh.vertices.detach())
        # What follows from the arguments is no state.
        self.register_buffer("edges", _edges(mesh.faces), persistent=False)
        self.offsets = nn.Parameter(torch.zeros_like(mesh.vertices))
        self._factor: Any = None
        self._factorised()

    def forward(self) -> Float[Tensor, "V 3"]:
        """The vertices as they are now."""
        return self.start + self.smooth(self.offsets)

    def smooth(self, x: Float[Tensor, "*n V C"]) -> Float[Tensor, "*n V C"]:
        """(I + s L)^-1 x, in the dtype and on the device of `x`.

        Differentiable to any order, in either mode. It is its own adjoint.

        Args:
            x: (..., V, C) values at the vertices, of any floating-point dtype.

        Raises:
            TypeError: if `x` is not a tensor of floating-point numbers.
            ValueError: for another shape, or a tensor without values (on the meta device).
        """
        if not isinstance(x, Tensor):
            raise TypeError(f"x: expected a torch.Tensor, got {type(x).__name__}")
        if not x.is_floating_point():
            raise TypeError(f"x: expected floating-point numbers, got {x.dtype}")
        if x.ndim < 2 or x.shape[-2] != len(self.start):
            raise ValueError(f"x: must be (..., {len(self.start)}, C), got {tuple(x.shape)}")
        if x.device.type == "meta":
            raise ValueError("x: is on the meta device and has no values")
        return _solve(x, self._factorised())

    def extra_repr(self) -> str:
        """What `repr` shows."""
        return f"vertices={len(self.start)}, smoothing={self.smoothing}"

    def _factorised(self) -> Any:
        """The factors of I + s L; found anew where a copy or a pickle came without them."""
        if self._factor is None:
            if self.edges.device.type == "meta":
                raise ValueError("edges: are on the meta device and have no values")
            self._factor = _factorise(_system(len(self.start), self.edges, self.smoothing))
        return self._factor

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_factor": None}  # SuperLU's cannot be copied

    def __setstate__(self, state: dict[str, Any]) -> None:
        if "spread" in state["_buffers"]:
            raise ValueError(
                "SmoothOffsets: this one was pickled whole by a version with a dense inverse, "
                "without its edges; make it from its mesh, and load its state dict"
            )
        super().__setstate__(state)

    def _load_from_state_dict(
        self, state_dict: Mapping[str, Any], prefix: str, *rest: Any, **named: Any
    ) -> None:
        """Earlier state dicts hold the dense inverse, "spread", which must be of this system."""
        name = prefix + "spread"
        if name in state_dict:
            spread, count = state_dict[name], len(self.start)
            probe = torch.linspace(-1, 1, count, dtype=torch.float64)[:, None]
            if spread.shape != (count, count) or not torch.allclose(
                product(spread.cpu().double(), probe), self.smooth(probe), rtol=1e-3, atol=1e-3
            ):
                raise ValueError(f"{name}: is of another mesh or smoothing than this module")
            state_dict = {key: value for key, value in state_dict.items() if key != name}
        super()._load_from_state_dict(state_dict, prefix, *rest, **named)


class _Solve(torch.autograd.Function):
    """``(x, factor) -> S^-1 x`` along the last but one dimension, for a symmetric matrix S."""

    @staticmethod
    def forward(x: Tensor, factor: Any) -> Tensor:
        columns = x.detach().cpu().double().movedim(-2, 0).flatten(1).numpy()
        solved = torch.from_numpy(np.ascontiguousarray(factor.solve(np.asfortranarray(columns))))
        rest = (*x.shape[:-2], x.shape[-1])
        shaped: Tensor = solved.unflatten(1, rest).movedim(0, -2)
        return shaped.to(x.dtype).to(x.device).contiguous()

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Tensor, Any], output: Tensor) -> None:
        ctx.factor = inputs[1]

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, None]:
        return _solve(grad, ctx.factor), None

    @staticmethod
    def jvp(ctx: Any, dot: Tensor, _: None) -> Tensor:
        return _solve(dot, ctx.factor)

    @staticmethod
    def vmap(info: Any, in_dims: tuple[Any, ...], x: Tensor, factor: Any) -> tuple[Tensor, int]:
        return _solve(x.movedim(in_dims[0], 0), factor), 0


_solve: Callable[[Tensor, Any], Tensor] = _Solve.apply


def _edges(faces: Int[Tensor, "F 3"]) -> Int[Tensor, "2 E"]:
    """Each edge once, lower end first, without those from a vertex to itself."""
    ends = torch.stack([faces, faces.roll(-1, dims=1)]).flatten(1).sort(dim=0).values
    edges: Tensor = ends[:, ends[0] != ends[1]].unique(dim=1)
    return edges


def _system(count: int, edges: Tensor, smoothing: float) -> Any:
    """I + s L as a sparse matrix of SciPy's."""
    from scipy import sparse  # here, as SciPy takes a while to import

    i, j = edges.detach().cpu().numpy()
    adjacent = sparse.coo_matrix((np.ones(len(i)), (i, j)), (count, count))
    adjacent = adjacent + adjacent.T
    laplacian = sparse.diags(np.asarray(adjacent.sum(axis=1)).ravel()) - adjacent
    return (sparse.eye(count) + smoothing * laplacian).tocsc()


def _factorise(system: Any) -> Any:
    """SuperLU's factors.

    Raises ValueError where rounding loses what smoothing has to keep: a shift of all vertices.
    """
    from scipy.sparse.linalg import splu

    ones = np.ones(system.shape[0])
    try:
        factor = splu(system)
        kept = bool(np.abs(factor.solve(ones) - ones).max() < _KEPT)
    except RuntimeError:  # "Factor is exactly singular"
        kept = False
    if not kept:
        raise ValueError("smoothing: is too large: I + s L is singular in float64")
    return factor


class UniformAdam(torch.optim.Optimizer):
    """Adam with one step size for all coordinates, from the largest gradient among them.

    Ordinary Adam makes every coordinate move as fast as any other: a vertex inside all silhouettes,
    which has next to no gradient, would wander at full speed and cave the surface in. Here no
    coordinate of a tensor moves by much more than the learning rate, and others in proportion.

    Args:
        params: tensors, or groups of them, as for any optimiser of torch.
        lr: learning rate, positive.
        betas: decay of the averages of the gradient and of its largest square, in [0, 1).

    Raises:
        TypeError, ValueError: for a number out of range.

    Example:
        >>> optimiser = UniformAdam([surface.offsets], lr=0.3)
    """

    def __init__(
        self, params: Any, lr: float = 1e-2, betas: tuple[float, float] = (0.9, 0.99)
    ) -> None:
        for beta in betas:
            if not 0 <= checks.number("betas", beta) < 1:
                raise ValueError(f"betas: must lie in [0, 1), got {betas}")
        super().__init__(params, {"lr": checks.positive("lr", lr), "betas": betas})

    @torch.no_grad()
    def step(self, closure: None = None) -> None:  # type: ignore[override]
        """Descend along the gradients; a tensor without one stays as it is."""
        for group in self.param_groups:
            for x in group["params"]:
                if x.grad is not None:
                    self._move(x, x.grad, group["lr"], *group["betas"])

    def _move(self, x: Tensor, gradient: Tensor, lr: float, first: float, second: float) -> None:
        state = self.state[x]
        if not state:
            state.update(steps=0, mean=torch.zeros_like(x), square=x.new_zeros(()))
        state["steps"] += 1
        state["mean"].lerp_(gradient, 1 - first)
        state["square"].lerp_(gradient.abs().max().square(), 1 - second)
        mean = state["mean"] / (1 - first ** state["steps"])
        root = (state["square"] / (1 - second ** state["steps"])).sqrt()
        x -= lr * mean / root.clamp_min(1e-12)
