"""The matrices of files, in NumPy's float64: of nodes, joints and texture coordinates."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from numpy import ndarray


def product(a: ndarray, b: ndarray) -> ndarray:
    """a b, for matrices or stacks of them."""
    return np.asarray(a @ b)


def moved(matrix: ndarray, places: ndarray) -> ndarray:
    """Places (V, 3) by one affine matrix (4, 4), or each by its own (V, 4, 4)."""
    with np.errstate(invalid="ignore", over="ignore"):  # what comes out is checked
        turned = (matrix[..., :3, :3] @ places[:, :, None])[..., 0]
        return np.asarray(turned + matrix[..., :3, 3])


def matrix_of(node: dict[str, Any]) -> ndarray:
    """(4, 4) from a node's matrix, or its translation, rotation and scale."""
    if "matrix" in node:
        return np.asarray(np.array(node["matrix"], dtype=np.float64).reshape(4, 4).T)
    found = np.eye(4)
    x, y, z, w = map(float, node.get("rotation", (0, 0, 0, 1)))
    turn = np.array(
        [
            [1 - 2 * (y * y + z * z), 2 * (x * y - z * w), 2 * (x * z + y * w)],
            [2 * (x * y + z * w), 1 - 2 * (x * x + z * z), 2 * (y * z - x * w)],
            [2 * (x * z - y * w), 2 * (y * z + x * w), 1 - 2 * (x * x + y * y)],
        ]
    )
    found[:3, :3] = turn * np.array(node.get("scale", (1, 1, 1)), dtype=np.float64)
    found[:3, 3] = node.get("translation", (0, 0, 0))
    return found


def transformed(transform: dict[str, Any], uv: ndarray) -> ndarray:
    """Texture coordinates (V, 2), v down, by KHR_texture_transform.

    offset + rotation (scale uv), where the rotation is counter-clockwise as one looks at the image:
    what programs do (KhronosGroup/glTF, issue 1563).
    """
    scale = np.array(transform.get("scale", [1, 1]), dtype=np.float64)
    offset = np.array(transform.get("offset", [0, 0]), dtype=np.float64)
    angle = float(transform.get("rotation", 0))
    c, s = math.cos(angle), math.sin(angle)
    return np.asarray((uv * scale) @ np.array([[c, s], [-s, c]]).T + offset)
