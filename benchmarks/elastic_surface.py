"""A surface that bends as DEODR's does: its energy, Gauss-Newton steps, and the outline's part.

What `hand.py` and `hand_colours.py` share. The energy is half of `RIGIDITY` times the squared
change of the Laplacian, in the best pose: a turn of the whole costs nothing. A step solves for all
vertices at once. How the whole turns, and what else is unknown, is eliminated (Woodbury).
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, TypeVar

import numpy as np
import scipy.sparse as sp
import torch
from scipy.sparse.linalg import splu
from scipy.spatial.transform import Rotation
from torch import Tensor

import taichi_raster as tr

RIGIDITY = 1000.0
T = TypeVar("T")


@dataclass(frozen=True, eq=False)
class Others:
    """Unknowns beside the vertices: colours and lights, say.

    Attributes:
        own: (m, m) their Gauss-Newton matrix.
        beside: (3 V, m) that of the vertices and them.
    """

    own: np.ndarray
    beside: np.ndarray


def none(count: int) -> Others:
    return Others(np.zeros((0, 0)), np.zeros((3 * count, 0)))


Steps = Callable[[np.ndarray, np.ndarray], tuple[np.ndarray, np.ndarray]]
"""From the gradients by vertices (V, 3) and by the others (m,) to their Gauss-Newton steps."""


@dataclass(frozen=True, eq=False)
class Outline:
    """Edges where the surface ends before something that is farther away.

    Attributes:
        edges: (n, 2) vertices.
        normals: (n, 2) outwards, in NDC.
        lengths: (n,) in NDC.
        inner, outer: rows and columns of pixels a little to both sides.
    """

    edges: np.ndarray
    normals: np.ndarray
    lengths: np.ndarray
    inner: tuple[np.ndarray, np.ndarray]
    outer: tuple[np.ndarray, np.ndarray]


class Surface:
    """A mesh at rest.

    Args:
        rest: (V, 3).
        faces: (F, 3).
        laplacian: (V, V) sparse.
        rigidity: what the squared change of the Laplacian is multiplied by, twice.
    """

    def __init__(
        self,
        rest: np.ndarray,
        faces: np.ndarray,
        laplacian: Any,
        rigidity: float = RIGIDITY,
    ) -> None:
        self.rest, self.faces, self.rigidity = rest, faces, rigidity
        self.laplacian: Any = sp.csc_array(laplacian)
        stiff: Any = sp.kron(rigidity * (self.laplacian.T @ self.laplacian), sp.eye(3)).tocsc()
        self.stiff = stiff
        edges = np.sort(faces[:, [0, 1, 1, 2, 2, 0]].reshape(-1, 2), axis=1)
        self.edges, which = np.unique(edges, axis=0, return_inverse=True)
        order = np.argsort(which.ravel(), kind="stable")
        first = np.searchsorted(which.ravel()[order], np.arange(len(self.edges)))
        count = np.bincount(which.ravel())
        self.sides = np.stack(  # of each edge, one face and the other: the same at a border
            [order[first] // 3, order[first + np.minimum(count, 2) - 1] // 3], axis=1
        )

    @classmethod
    def of(cls, mesh: Any, rigidity: float = RIGIDITY) -> Surface:
        """Of one of DEODR's meshes."""
        faces = np.asarray(mesh.faces).astype(np.int64)
        return cls(mesh.vertices, faces, mesh.adjacencies.laplacian, rigidity)

    def rigid(self, vertices: np.ndarray) -> tuple[float, np.ndarray, np.ndarray]:
        """(DEODR's rigid energy in the best pose, its gradient, the turned rest's Laplacian)."""
        now, before = self.laplacian @ vertices, self.laplacian @ self.rest
        turn = Rotation.align_vectors(now, before)[0]
        turned = turn.apply(before)
        rest = now - turned
        energy = 0.5 * self.rigidity * float((rest**2).sum())
        return energy, self.rigidity * (self.laplacian.T @ rest), turned

    def pose_steps(self, vertices: np.ndarray, data: Any, others: Others | None = None) -> Steps:
        """Of the pose and of the others: the surface stays as it is."""
        away = vertices - vertices.mean(0)
        turns = [np.cross(axis, away).ravel() for axis in np.eye(3)]
        shifts = [np.tile(axis, len(vertices)) for axis in np.eye(3)]
        basis = np.stack(turns + shifts, axis=1)
        others = none(len(vertices)) if others is None else others
        between = basis.T @ others.beside
        small = np.block([[basis.T @ (data @ basis), between], [between.T, others.own]])
        small += 1e-3 * np.diag(small.diagonal())

        def steps(gradient: np.ndarray, slope: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
            found = np.linalg.solve(small, -np.concatenate([basis.T @ gradient.ravel(), slope]))
            turn = Rotation.from_rotvec(found[:3])
            return np.asarray(turn.apply(away) - away + found[3:6]), found[6:]

        return steps

    def steps(
        self, vertices: np.ndarray, data: Any, others: Others | None = None, damping: float = 1e-3
    ) -> Steps:
        """Of all vertices and of the others.

        Args:
            data: (3 V, 3 V) the data's Gauss-Newton matrix.
            damping: of the data's diagonal, that is added.
        """
        count = len(vertices)
        others = none(count) if others is None else others
        turned = self.rigid(vertices)[2]
        cross = np.zeros((count, 3, 3))  # how the residual moves as the rest turns: [a]x
        cross[:, 0, 1], cross[:, 0, 2], cross[:, 1, 2] = -turned[:, 2], turned[:, 1], -turned[:, 0]
        cross -= cross.transpose(0, 2, 1)
        turning = -self.rigidity * (self.laplacian.T @ cross.reshape(count, 9))
        beside = np.column_stack([turning.reshape(3 * count, 3), others.beside])
        own = np.zeros((beside.shape[1], beside.shape[1]))
        own[:3, :3] = self.rigidity * np.einsum("nij,nik->jk", cross, cross) * (1 + 1e-6)
        own[3:, 3:] = others.own + damping * np.diag(others.own.diagonal())
        lift = sp.diags_array(damping * (data.diagonal() + 1.0))
        factor = splu(
            (self.stiff + data + lift).tocsc(),
            permc_spec="MMD_AT_PLUS_A",
            diag_pivot_thresh=0.0,
            options={"SymmetricMode": True},
        )
        solved = factor.solve(beside)
        inner = own - beside.T @ solved

        def steps(gradient: np.ndarray, slope: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
            alone = factor.solve(-gradient.ravel())
            outer = np.concatenate([np.zeros(3), -slope]) - beside.T @ alone
            rest = np.linalg.solve(inner, outer)
            return np.asarray((alone - solved @ rest).reshape(count, 3)), rest[3:]

        return steps

    def outline(self, place: np.ndarray, depths: np.ndarray, near: float, gap: float) -> Outline:
        """The edges where the depth jumps.

        Args:
            place: (V, 3) in NDC, and the depth.
            depths: (H, W) a picture of the depth.
            near: an edge is seen where its depth differs by less from that a little inwards.
            gap: what lies a little outwards is at least so much farther.
        """
        corners = place[self.faces]
        one, two = corners[:, 1] - corners[:, 0], corners[:, 2] - corners[:, 0]
        front = one[:, 0] * two[:, 1] - one[:, 1] * two[:, 0] > 0
        sides, border = self.sides, self.sides[:, 0] == self.sides[:, 1]
        first, second = front[sides[:, 0]], front[sides[:, 1]]
        chosen = np.where(border, first, first != second)
        edges = self.edges[chosen]
        shown = np.where(first, sides[:, 0], sides[:, 1])[chosen]
        a, b = place[edges[:, 0], :2], place[edges[:, 1], :2]
        length = np.linalg.norm(b - a, axis=1)
        normal = np.stack([b[:, 1] - a[:, 1], a[:, 0] - b[:, 0]], axis=1)
        normal /= np.maximum(length, 1e-12)[:, None]
        middle = (a + b) / 2
        within = place[self.faces[shown], :2].mean(axis=1) - middle
        normal *= np.where((normal * within).sum(1) > 0, -1, 1)[:, None]
        away = 3 / depths.shape[1] * normal
        inner, outer = (pixels(middle + k * away, depths.shape) for k in (-1, 1))
        depth = place[edges, 2].mean(axis=1)
        seen = (np.abs(depths[inner] - depth) < near) & (depths[outer] - depths[inner] > gap)
        return Outline(
            edges[seen],
            normal[seen],
            length[seen],
            (inner[0][seen], inner[1][seen]),
            (outer[0][seen], outer[1][seen]),
        )


def motions(camera: tr.Camera, vertices: np.ndarray) -> tuple[Tensor, np.ndarray]:
    """Vertices in NDC and z, (V, 3), and how these move with the world's, (V, 3, 3)."""
    small = 1e-5
    axes = torch.cat([torch.zeros(1, 3), small * torch.eye(3)])[:, None].double()
    seen, *moved = camera.project(torch.from_numpy(vertices) + axes)
    return seen, torch.stack([(place - seen) / small for place in moved], dim=-1).numpy()


def band(side: int, blur: float) -> Tensor:
    """What pictures are multiplied by from both sides, to blur them by a Gaussian, in pixels."""
    places = torch.arange(side)
    weights = torch.exp(-((places[:, None] - places) ** 2) / (2 * blur**2))
    return weights / weights.sum(1).max()


def pixels(place: np.ndarray, size: tuple[int, ...]) -> tuple[np.ndarray, np.ndarray]:
    """Rows and columns of places in NDC, (n, 2 or more)."""
    height, width = size
    column = np.clip(np.round((place[:, 0] * width + width - 1) / 2), 0, width - 1)
    row = np.clip(np.round((height - 1 - place[:, 1] * height) / 2), 0, height - 1)
    return row.astype(int), column.astype(int)


def outline_blocks(
    outline: Outline, chain: np.ndarray, jump: np.ndarray, pixel: float, reach: float
) -> np.ndarray:
    """(n, 2, 3, 2, 3): the edges' Gauss-Newton matrices, as if the picture were blurred.

    Args:
        chain: (V, 2, 3) how places in NDC move with the world's.
        jump: (n,) squared, of the picture, from one side to the other.
        pixel: its width in NDC.
        reach: pixels that the picture is blurred over.
    """
    push = np.einsum("ea,eiab->eib", outline.normals, chain[outline.edges])
    strength = 2 * jump * outline.lengths / (reach * pixel**3)
    share = strength[:, None, None] * (np.eye(2) / 6 + 1 / 6)
    return np.asarray(share[:, :, None, :, None] * np.einsum("eia,ejb->eiajb", push, push))


def summed(parts: list[tuple[np.ndarray, np.ndarray]], count: int) -> Any:
    """A sparse (3 V, 3 V) matrix of blocks (n, k, 3, k, 3), each between vertices (n, k)."""
    total: Any = sp.csc_array((3 * count, 3 * count))
    for index, blocks in parts:
        at = (3 * index[..., None] + np.arange(3)).reshape(len(index), -1)
        size = at.shape[1]
        i, j = np.repeat(at, size, axis=1).ravel(), np.tile(at, (1, size)).ravel()
        total = total + sp.coo_array((blocks.ravel(), (i, j)), shape=total.shape).tocsc()
    return total


def in_turn(
    methods: Mapping[str, Callable[[], T]], repeats: int
) -> dict[str, tuple[T, float, float]]:
    """What each gives in the end, its least seconds, and those of the processor."""
    found: dict[str, tuple[T, float, float]] = {}
    for _ in range(repeats):
        for name, run in methods.items():
            begin = time.perf_counter(), time.process_time()
            result = run()
            taken = time.perf_counter() - begin[0], time.process_time() - begin[1]
            least = found[name][1:] if name in found else taken
            found[name] = result, min(taken[0], least[0]), min(taken[1], least[1])
    return found
