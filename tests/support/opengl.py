"""OpenGL's projection matrices, as its reference pages give them."""

import torch
from torch import Tensor


def frustum(
    left: float, right: float, bottom: float, top: float, near: float, far: float
) -> Tensor:
    """glFrustum's reference page."""
    return torch.tensor(
        [
            [2 * near / (right - left), 0, (right + left) / (right - left), 0],
            [0, 2 * near / (top - bottom), (top + bottom) / (top - bottom), 0],
            [0, 0, -(far + near) / (far - near), -2 * far * near / (far - near)],
            [0, 0, -1, 0],
        ],
        dtype=torch.float64,
    )


def ortho(left: float, right: float, bottom: float, top: float, near: float, far: float) -> Tensor:
    """glOrtho's reference page."""
    return torch.tensor(
        [
            [2 / (right - left), 0, 0, -(right + left) / (right - left)],
            [0, 2 / (top - bottom), 0, -(top + bottom) / (top - bottom)],
            [0, 0, -2 / (far - near), -(far + near) / (far - near)],
            [0, 0, 0, 1],
        ],
        dtype=torch.float64,
    )
