"""A mesh with fewer faces."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch import Tensor

from taichi_raster import checks
from taichi_raster.fitting import inputs
from taichi_raster.scene.mesh import Mesh


def simplified(mesh: Mesh, face_count: int) -> Mesh:
    """A mesh with at most so many faces, by fast-simplification (Garland and Heckbert 1997).

    Raises:
        ImportError: if fast-simplification is not installed.
        TypeError, ValueError: naming the argument.
    """
    inputs.mesh("mesh", mesh)
    checks.count("face_count", face_count)
    if len(mesh.faces) <= face_count:
        return mesh
    try:
        import fast_simplification
    except ImportError as error:
        raise ImportError(
            "simplifying a mesh needs fast-simplification: pip install 'taichi-raster[photos]'"
        ) from error
    corners = mesh.vertices.detach().cpu().double()
    low, size = corners.amin(0), float((corners.amax(0) - corners.amin(0)).max())
    local = ((corners - low) / size).numpy().astype(np.float32)
    vertices, index = fast_simplification.simplify(
        local, mesh.faces.cpu().numpy().astype(np.int32), target_count=face_count
    )
    found = torch.from_numpy(np.array(vertices, dtype=np.float64)) * size + low
    return Mesh(found.to(mesh.vertices), _tensor(index).to(mesh.faces.device))


def _tensor(index: Any) -> Tensor:
    return torch.from_numpy(np.array(index, dtype=np.int64))
