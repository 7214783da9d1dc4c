"""A UV atlas for a mesh that has none, by xatlas."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import torch

from taichi_raster import checks
from taichi_raster.fitting import inputs
from taichi_raster.scene.mesh import Mesh


def unwrap(mesh: Mesh, resolution: int = 1024, padding: int = 4) -> Mesh:
    """The same mesh with texture coordinates: charts that do not overlap, packed into a square.

    The work is that of xatlas (``pip install taichi-raster[photos]``), which builds on Levy et al.,
    *Least squares conformal maps for automatic texture atlas generation*, SIGGRAPH 2002. Vertices,
    faces and colours keep their order; a texture and texture coordinates that the mesh had are
    left out.

    Args:
        mesh: any mesh; only its vertices and faces count.
        resolution: the texture's side, in texels, 16 to 16,384: charts are packed for it.
        padding: texels between charts, 0 to 64, so that neither bilinear look-ups nor the first
            mipmaps reach over from one chart to the next.

    Returns:
        The mesh with `uv`, `uv_faces` and wrap "clamp".

    Raises:
        ImportError: if xatlas is not installed.
        TypeError, ValueError: naming the argument.
    """
    inputs.mesh("mesh", mesh)
    if not 16 <= checks.count("resolution", resolution) <= 16384:
        raise ValueError(f"resolution: expected 16 to 16384, got {resolution}")
    if type(padding) is not int or not 0 <= padding <= 64:
        raise ValueError(f"padding: expected a whole number from 0 to 64, got {padding!r}")
    xatlas = _xatlas()
    atlas = xatlas.Atlas()
    corners = mesh.vertices.detach().cpu().double().numpy()
    size = float(np.ptp(corners, axis=0).max()) or 1.0
    corners = (corners - corners.min(axis=0)) / size  # its tolerances are absolute
    faces = mesh.faces.cpu().numpy()
    atlas.add_mesh(corners.astype(np.float32), faces.astype(np.uint32))
    packing = xatlas.PackOptions()
    packing.resolution, packing.padding, packing.bilinear = resolution, padding, True
    packing.create_image = False
    atlas.generate(pack_options=packing)
    vertex, index, uv = atlas[0]
    index = index.astype(np.int64)
    if not np.array_equal(vertex[index], faces):
        raise ValueError("mesh: xatlas has left out some of its faces; remove those without area")
    if atlas.atlas_count > 1:  # they would lie on one another
        raise ValueError(f"resolution: the charts do not fit into {resolution} texels; take more")
    return replace(
        mesh,
        uv=torch.from_numpy(np.array(uv, dtype=np.float64)).to(mesh.vertices),
        uv_faces=torch.from_numpy(index).to(mesh.faces.device),
        texture=None,
        wrap="clamp",
    )


def _xatlas() -> Any:
    try:
        import xatlas
    except ImportError as error:
        raise ImportError(
            "a UV atlas needs xatlas: pip install 'taichi-raster[photos]', or give a mesh with uv"
        ) from error
    return xatlas
