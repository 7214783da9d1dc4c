"""A mesh of one colour under one light, drawn and compared with a photo: see `hand_colours.py`.

Values and gradients are those of `SharpRasterizer`, with Gouraud shading. The Gauss-Newton matrix
is put together here.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import scipy.sparse as sp
import torch
from elastic_surface import Others, Surface, band, motions, outline_blocks, summed
from torch import Tensor

import taichi_raster as tr

NEAR, GAP = 0.2, 0.04
"""Of depths, in the mesh's units, where an edge is seen: see `Surface.outline`."""


@dataclass(frozen=True, eq=False)
class Hand:
    """What is unknown.

    Attributes:
        vertices: (V, 3) in the world.
        look: (7,) a colour, the light's direction times its strength, and the ambient light.
    """

    vertices: np.ndarray
    look: np.ndarray


@dataclass(frozen=True, eq=False)
class Level:
    """The photo in fewer pixels, and what differences are multiplied by from both sides.

    Attributes:
        rows: so many of the pixels' rows are compared.
    """

    side: int
    rows: int
    target: Tensor
    renderer: tr.SharpRasterizer
    band: Tensor | None
    weight: float

    @staticmethod
    def of(photo: np.ndarray, side: int, blur: float, background: tuple[float, ...]) -> Level:
        """Of a photo that is at most as high as wide; its last row is repeated below."""
        height, full = photo.shape[:2]
        square = np.pad(photo, ((0, full - height), (0, 0), (0, 0)), mode="edge")
        return Level(
            side,
            -(-height * side // full),
            tr.area_average(torch.from_numpy(square).float()[None], side)[0],
            tr.SharpRasterizer(side, background, perspective_correct=False, cull_backfaces=True),
            band(side, blur) if blur > 0 else None,
            (full / side) ** 2,
        )


@dataclass(frozen=True, eq=False)
class Value:
    """The energy, its gradients by vertices (V, 3) and by the look (7,), and the picture."""

    energy: float
    slope: np.ndarray
    slope_of_look: np.ndarray
    drawn: np.ndarray


@dataclass(frozen=True, eq=False)
class Curvature:
    """The data's Gauss-Newton matrix, of pixels within faces and, for a reach of 1, the outline."""

    inner: Any
    outline: Any
    others: Others


class ShadedSurface:
    """A surface before a camera."""

    def __init__(self, surface: Surface, camera: tr.PinholeCamera) -> None:
        self.surface, self.camera = surface, camera
        self.faces = torch.from_numpy(surface.faces)

    def evaluated(self, hand: Hand, level: Level) -> Value:
        """The energy, by the photo of a level."""
        vertices = torch.from_numpy(hand.vertices).requires_grad_()
        look = torch.from_numpy(hand.look).requires_grad_()
        faces = tr.gather_faces(self.camera.project(vertices[None]), self.faces)
        colours = (self.luminosity(vertices, look)[:, None] * look[:3])[self.faces]
        drawn = level.renderer(faces.float(), colours[None].float())[0, ..., :3]
        error = drawn - level.target
        if level.band is not None:
            error = torch.einsum("ij,jkc,lk->ilc", level.band, error, level.band)
        error = error[: level.rows]
        data = level.weight * error.square().sum()
        data.backward()
        rigid, slope, _ = self.surface.rigid(hand.vertices)
        assert vertices.grad is not None and look.grad is not None
        return Value(
            float(data.detach()) + rigid,
            vertices.grad.numpy() + slope,
            look.grad.numpy(),
            drawn.detach().numpy(),
        )

    def luminosity(self, vertices: Tensor, look: Tensor) -> Tensor:
        """(V,), of normals that are means of the faces', without weights."""
        normals = tr.face_normals(tr.gather_faces(vertices[None], self.faces))[0]
        index = self.faces.T.reshape(-1)
        total = torch.zeros_like(vertices).index_add(0, index, normals.repeat(3, 1))
        unit = torch.nn.functional.normalize(total, dim=1)
        return (-unit @ look[3:6]).clamp(min=0) + look[6]

    def curvature(self, hand: Hand, value: Value, level: Level) -> Curvature:
        """The data's Gauss-Newton matrix.

        A pixel's luminosity is the mean of its face's corners, by its barycentric coordinates. A
        vertex changes that of its corner, which slides along, and turns the normals around it.
        """
        faces, count = self.faces.numpy(), len(hand.vertices)
        seen, chain = motions(self.camera, hand.vertices)
        chain = chain[:, :2]
        place = seen.numpy()
        hard = tr.hard_buffers(seen[self.faces][None].float(), level.side, cull_backfaces=True)
        hit = hard.face[0] >= 0
        face, weight = hard.face[0][hit].numpy(), hard.barycentrics[0][hit].double().numpy()
        colour = hand.look[:3]
        used, face = np.unique(face, return_inverse=True)
        mass = np.zeros((len(used), 3, 3))
        np.add.at(mass, face, 2 * level.weight * weight[:, :, None] * weight[:, None])
        light, by_light, turning = self.shading(hand)
        corners = faces[used]
        index = corners.ravel()
        sliding = slopes(place[corners], light[corners])
        moving = -np.einsum("fa,fiab->fib", sliding, chain[corners]).reshape(-1, 3)
        at = 3 * index[:, None] + np.arange(3)
        first = np.arange(0, moving.size + 1, 3)
        rows: Any = sp.csr_array((moving.ravel(), at.ravel(), first), (len(index), 3 * count))
        rows = rows + turning[index]
        blocks = sp.bsr_array((mass, np.arange(len(used)), np.arange(len(used) + 1)))
        weighed = rows.T @ blocks.tocsr()
        inner = float(colour @ colour) * (weighed @ rows)
        beyond = np.where(hit, hard.depth[0], 1e6)
        outline = self.surface.outline(place, beyond, NEAR, GAP)
        jump = value.drawn[outline.outer] - value.drawn[outline.inner]
        strength = level.weight * (jump**2).sum(axis=1)
        edges = outline_blocks(outline, chain, strength, 2 / level.side, reach=1.0)
        # A channel is its colour times the luminosity: how both move with the look.
        known = np.column_stack([light, by_light])[index]
        mixed = np.zeros((3, 5, 7))
        mixed[range(3), 0, range(3)] = 1.0
        mixed[:, range(1, 5), range(3, 7)] = colour[:, None]
        own = np.einsum("kia,ij,kjb->ab", mixed, known.T @ (blocks @ known), mixed)
        beside = (weighed @ known) @ np.einsum("k,kij->ij", colour, mixed)
        return Curvature(inner, summed([(outline.edges, edges)], count), Others(own, beside))

    def shading(self, hand: Hand) -> tuple[np.ndarray, np.ndarray, Any]:
        """Luminosities (V,), their derivatives by light (V, 4), and by vertices (V, 3 V)."""
        faces, count = self.faces.numpy(), len(hand.vertices)
        corners = hand.vertices[faces]
        across = np.roll(corners, 1, axis=1) - np.roll(corners, -1, axis=1)  # the opposite edges
        normal = np.cross(across[:, 0], across[:, 1])
        area = np.linalg.norm(normal, axis=1, keepdims=True)
        normal /= area
        total = np.zeros((count, 3))
        np.add.at(total, faces.ravel(), np.repeat(normal, 3, axis=0))
        length = np.linalg.norm(total, axis=1, keepdims=True)
        unit = total / length
        cosine = -unit @ hand.look[3:6]
        lit = (cosine > 0)[:, None].astype(float)
        by_light = np.column_stack([-unit * lit, np.ones(count)])
        pull = -lit * (hand.look[3:6] + cosine[:, None] * unit) / length  # on sums of normals
        each = pull[faces]  # (F, corner, 3)
        each = each - (each * normal[:, None]).sum(-1, keepdims=True) * normal[:, None]
        blocks = np.cross((each / area[:, None])[:, :, None], across[:, None])  # by corner, vertex
        row = np.broadcast_to(faces[:, :, None, None], blocks.shape)
        column = np.broadcast_to((3 * faces[..., None] + np.arange(3))[:, None], blocks.shape)
        turning = sp.coo_array(
            (blocks.ravel(), (row.ravel(), column.ravel())), shape=(count, 3 * count)
        )
        return cosine * lit[:, 0] + hand.look[6], by_light, turning.tocsr()


def slopes(corners: np.ndarray, values: np.ndarray) -> np.ndarray:
    """(F, 2): of values (F, 3) at corners (F, 3, 2 or more), linear between them."""
    one, two = corners[:, 1] - corners[:, 0], corners[:, 2] - corners[:, 0]
    area = one[:, 0] * two[:, 1] - one[:, 1] * two[:, 0]
    area = np.where(np.abs(area) > 1e-12, area, 1e-12)
    up, beside = values[:, 1] - values[:, 0], values[:, 2] - values[:, 0]
    return np.stack(
        [
            (up * two[:, 1] - beside * one[:, 1]) / area,
            (beside * one[:, 0] - up * two[:, 0]) / area,
        ],
        axis=1,
    )
