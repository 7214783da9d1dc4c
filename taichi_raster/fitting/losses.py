"""What an optimisation of a scene descends: image losses, and priors on the shape of a mesh.

Each returns one value for each batch item, (B,), and is differentiable twice.
"""

from __future__ import annotations

from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from taichi_raster import checks
from taichi_raster.runtime.precision import product
from taichi_raster.scene.faces import check_faces
from taichi_raster.scene.normals import unit


def silhouette_iou_loss(
    predicted: Float[Tensor, "B H W"], target: Float[Tensor, "B H W"]
) -> Float[Tensor, " B"]:
    """1 - intersection over union of two soft masks: 0 when they agree, 1 when they are apart.

    With probabilities as masks, the intersection is the sum of p t, and the union the sum of
    p + t - p t (Liu et al. 2019, SoftRas). Two empty masks agree.

    Args:
        predicted, target: (B, H, W) coverage in [0, 1].

    Raises:
        ValueError: unless both have the same (B, H, W) shape.
    """
    _check_same(predicted, target, 3, "(B, H, W)")
    both = (predicted * target).sum((1, 2))
    either = (predicted + target).sum((1, 2)) - both
    empty = either <= 0
    return torch.where(empty, 0.0 * either, 1 - both / torch.where(empty, 1.0, either))


def coverage_iou_loss(
    predicted: Float[Tensor, "B H W"], target: Float[Tensor, "B H W"]
) -> Float[Tensor, " B"]:
    """1 - intersection over union of two coverages: 0 when they agree, 1 when they are apart.

    The intersection is the sum of the smaller coverages, the union that of the larger ones (the
    weighted Jaccard or Ruzicka index). So it is 0 for equal pictures alone, also where pixels are
    covered in part, as exact pictures are along outlines. `silhouette_iou_loss` is not: 0.5 and 0.5
    have an IoU of 1/3 there. Two empty pictures agree.

    Args:
        predicted, target: (B, H, W) coverage in [0, 1].

    Raises:
        ValueError: unless both have the same (B, H, W) shape.
    """
    _check_same(predicted, target, 3, "(B, H, W)")
    both = torch.minimum(predicted, target).sum((1, 2))
    either = torch.maximum(predicted, target).sum((1, 2))
    empty = either <= 0
    return torch.where(empty, 0.0 * either, 1 - both / torch.where(empty, 1.0, either))


def mse(
    predicted: Float[Tensor, " B *rest"], target: Float[Tensor, " B *rest"]
) -> Float[Tensor, " B"]:
    """The mean squared difference of each batch item, over all its pixels and channels.

    It is 0 where there is none.

    Raises:
        ValueError: unless both have the same shape, of rank 2 or more.
    """
    _check_same(predicted, target, None, "(B, ...)")
    return _mean((predicted - target).square().flatten(1))


class LaplacianLoss(nn.Module):
    """Smoothness: the squared distance of each vertex from the mean of its neighbours, summed.

    The uniform Laplacian term of Liu et al. 2019 (SoftRas): the sum over i of
    ||v_i - mean of the v_j that share an edge with v_i||^2, in squared world units. A vertex
    without neighbours adds nothing.

    Args:
        faces: (F, 3) integer indices.
        vertex_count: V.

    Raises:
        ValueError, TypeError: for other faces, indices outside [0, V), or vertices of another
            shape than (B, V, 3).
    """

    matrix: Tensor  # (V, V) sparse: vertices to their differences from their neighbours' mean

    def __init__(self, faces: Int[Tensor, "F 3"], vertex_count: int) -> None:
        super().__init__()
        faces = _checked(faces, vertex_count)
        edges = _undirected_edges(faces).unique(dim=0)
        edges = edges[edges[:, 0] != edges[:, 1]]
        i, j = torch.cat([edges, edges.flip(1)]).unbind(1)
        degree = torch.zeros(vertex_count, dtype=torch.float64, device=faces.device)
        degree = degree.index_add(0, i, torch.ones_like(i, dtype=torch.float64))
        diagonal = torch.arange(vertex_count, device=faces.device)
        matrix = torch.sparse_coo_tensor(
            torch.stack([torch.cat([diagonal, i]), torch.cat([diagonal, j])]),
            torch.cat([(degree > 0).double(), -1 / degree[i]]),
            (vertex_count, vertex_count),
            check_invariants=True,
        )
        self.register_buffer("matrix", matrix.coalesce(), persistent=False)

    def forward(self, vertices: Float[Tensor, "B V 3"]) -> Float[Tensor, " B"]:
        """The loss of each batch item."""
        _check_vertices(vertices, self.matrix.shape[0])
        # Differences do not depend on the origin; near the vertices, they lose no digits.
        centred = vertices - vertices.detach().mean(1, keepdim=True)
        columns = centred.transpose(0, 1).flatten(1)
        differences: Tensor = product(self.matrix.to(vertices.dtype), columns)
        return differences.square().sum(0).reshape(len(vertices), 3).sum(1)


class FlatteningLoss(nn.Module):
    """Flatness: (1 + cos of the dihedral angle)^2 of each inner edge, summed; 0 for a plane.

    The flattening term of Liu et al. 2019 (SoftRas). The angle between the two faces of an edge is
    that between the heights from the edge to the two opposite corners: its cosine is -1 where the
    faces continue each other, and 1 where one is folded onto the other. Edges of one face, or of
    more than two, are left out.

    Args:
        faces: (F, 3) integer indices.
        vertex_count: V.
        smallest: a length in world units; heights and edges well below it count as having no
            direction (cosine 0), so that degenerate faces have finite gradients. None for 1e-5 of
            the mean length of each item's edges, which makes the loss the same at every size.

    Raises:
        ValueError, TypeError: for other faces, indices outside [0, V), or vertices of another
            shape than (B, V, 3).
    """

    hinges: Tensor  # (E, 4) each inner edge's ends and the corners opposite to it

    def __init__(
        self, faces: Int[Tensor, "F 3"], vertex_count: int, smallest: float | None = None
    ) -> None:
        super().__init__()
        faces = _checked(faces, vertex_count)
        self.vertex_count = vertex_count
        self.smallest = None if smallest is None else checks.positive("smallest", smallest)
        self.register_buffer("hinges", _hinges(faces), persistent=False)

    def forward(self, vertices: Float[Tensor, "B V 3"]) -> Float[Tensor, " B"]:
        """The loss of each batch item."""
        _check_vertices(vertices, self.vertex_count)
        index = self.hinges.reshape(1, -1, 1).expand(len(vertices), -1, 3)
        corners = vertices.gather(1, index).reshape(len(vertices), -1, 4, 3)
        mean = _mean((corners[:, :, 1] - corners[:, :, 0]).detach().norm(dim=-1))
        mean = torch.where(mean > 0, mean, torch.ones_like(mean))[:, None, None]
        start, end, left, right = (corners / mean[..., None]).unbind(2)
        along = end - start
        epsilon = (_SMALLEST if self.smallest is None else self.smallest / mean) ** 2

        def height(corner: Tensor) -> Tensor:
            """The direction from the edge to the corner, at right angles to the edge."""
            side = corner - start
            square = along.square().sum(-1, keepdim=True)
            across = side - (side * along).sum(-1, keepdim=True) / (square + epsilon) * along
            return across / (across.square().sum(-1, keepdim=True) + epsilon).sqrt()

        cosine = (height(left) * height(right)).sum(-1)
        return (1 + cosine).square().sum(1)


_SMALLEST = 1e-5  # of the mean length of edges


class NormalConsistencyLoss(nn.Module):
    """Smoothness: 1 - cos of the angle between the normals of two neighbours, averaged.

    As PyTorch3D's ``mesh_normal_consistency``: over all edges that two faces share; 0 for a plane.
    A face without area has no normal: its edges count as 1, without gradient. Edges of one face, or
    of more than two, are left out; where no other is left, the loss is 0.

    Args:
        faces: (F, 3) integer indices, with consistent winding.
        vertex_count: V.

    Raises:
        ValueError, TypeError: for other faces, indices outside [0, V), or vertices of another
            shape than (B, V, 3).
    """

    hinges: Tensor

    def __init__(self, faces: Int[Tensor, "F 3"], vertex_count: int) -> None:
        super().__init__()
        faces = _checked(faces, vertex_count)
        self.vertex_count = vertex_count
        self.register_buffer("hinges", _hinges(faces), persistent=False)

    def forward(self, vertices: Float[Tensor, "B V 3"]) -> Float[Tensor, " B"]:
        """The loss of each batch item."""
        _check_vertices(vertices, self.vertex_count)
        index = self.hinges.reshape(1, -1, 1).expand(len(vertices), -1, 3)
        corners = vertices.gather(1, index).reshape(len(vertices), -1, 4, 3)
        start, end, left, right = corners.unbind(2)
        along = end - start
        # The edge runs one way in one face and the other way in the other.
        one = unit(torch.linalg.cross(along, left - start))
        other = unit(torch.linalg.cross(right - start, along))
        return _mean(1 - (one * other).sum(-1))


class EdgeLengthLoss(nn.Module):
    """The mean over edges of (length - target)^2, as PyTorch3D's ``mesh_edge_loss``.

    Args:
        faces: (F, 3) integer indices.
        vertex_count: V.
        target: in world units, >= 0; None for each mesh's own mean length, which makes it the
            variance of lengths.

    Raises:
        ValueError, TypeError: for other faces, indices outside [0, V), a negative target, or
            vertices of another shape than (B, V, 3).
    """

    edges: Tensor  # (E, 2)

    def __init__(
        self, faces: Int[Tensor, "F 3"], vertex_count: int, target: float | None = 0.0
    ) -> None:
        super().__init__()
        faces = _checked(faces, vertex_count)
        target = None if target is None else checks.number("target", target)
        if target is not None and not 0 <= target < float("inf"):
            raise ValueError(f"target: must be finite and at least 0, or None, got {target}")
        self.vertex_count, self.target = vertex_count, target
        edges = _undirected_edges(faces).unique(dim=0)
        self.register_buffer("edges", edges, persistent=False)

    def forward(self, vertices: Float[Tensor, "B V 3"]) -> Float[Tensor, " B"]:
        """The loss of each batch item."""
        _check_vertices(vertices, self.vertex_count)
        start, end = vertices[:, self.edges[:, 0]], vertices[:, self.edges[:, 1]]
        square = (end - start).square().sum(-1)
        if self.target == 0:
            return _mean(square)
        some = square > 0
        length = torch.where(some, square, torch.ones_like(square)).sqrt() * some
        target = length.mean(1, keepdim=True) if self.target is None else self.target
        return _mean((length - target).square())


def _mean(values: Float[Tensor, "B N"]) -> Float[Tensor, " B"]:
    """The mean of each batch item; 0 of nothing."""
    return values.sum(1) / max(values.shape[1], 1)


def _checked(faces: Any, vertex_count: int) -> Int[Tensor, "F 3"]:
    return check_faces(faces, checks.whole("vertex_count", vertex_count, 1))


def _undirected_edges(faces: Tensor) -> Tensor:
    """(3F, 2): the edges of each face in turn, each with its smaller index first."""
    return faces[:, [[0, 1], [1, 2], [2, 0]]].reshape(-1, 2).sort(dim=1).values


def _hinges(faces: Tensor) -> Tensor:
    """(E, 4): the two ends of each edge that exactly two faces share, and their other corners."""
    unique, index, count = _undirected_edges(faces).unique(
        dim=0, return_inverse=True, return_counts=True
    )
    opposite = faces[:, [2, 0, 1]].reshape(-1)
    by_edge = torch.argsort(index, stable=True)
    first = (count.cumsum(0) - count)[count == 2]
    pairs = torch.stack([opposite[by_edge[first]], opposite[by_edge[first + 1]]], dim=1)
    return torch.cat([unique[count == 2], pairs], dim=1)


def _check_same(predicted: Tensor, target: Tensor, rank: int | None, layout: str) -> None:
    checks.tensor("predicted", predicted)
    checks.tensor("target", target)
    if predicted.ndim < 2 or (rank is not None and predicted.ndim != rank):
        raise ValueError(f"predicted: must be {layout}, got {tuple(predicted.shape)}")
    if predicted.shape != target.shape:
        raise ValueError(
            f"target: must have the shape of predicted, {tuple(predicted.shape)}, "
            f"got {tuple(target.shape)}"
        )


def _check_vertices(vertices: Tensor, count: int) -> None:
    checks.floats("vertices", vertices)
    if vertices.ndim != 3 or vertices.shape[1:] != (count, 3):
        raise ValueError(f"vertices: must be (B, {count}, 3), got {tuple(vertices.shape)}")
