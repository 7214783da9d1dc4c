"""Coarse to fine: draw in few pixels while the softness is wide, and in all of them at the end.

A picture whose edges are spread over sigma holds nothing finer than that, so that most of its
pixels are drawn in vain. Three functions around any renderer let the resolution follow the
softness:

    for i in range(steps):
        size = tr.coarse_size(256, edge.scale, i / steps)
        image = tr.at_size(renderer, size)(geometry(pose), None, i / steps)
        loss = tr.mse(image[..., 0], tr.area_average(target, size))

`proxy_mesh` does the same for a mesh whose faces are much smaller than the softness.

Cameras need nothing: they project to NDC, whatever the number of pixels.
"""

from __future__ import annotations

import copy
import math
from typing import Any, TypeVar

import torch
from jaxtyping import Float
from torch import Tensor, nn

from taichi_raster import checks
from taichi_raster.scene.mesh import Mesh
from taichi_raster.scene.resampling import area_average
from taichi_raster.softness.schedule import Schedule, as_progress, as_schedule

Renderer = TypeVar("Renderer", bound=nn.Module)

_COLOUR_AT = ((4, 1, 1), (1, 4, 1), (1, 1, 4))  # sixths: the centres of a face's three parts


def coarse_size(
    image_size: int | tuple[int, int],
    scale: float | Float[Tensor, "*B"] | Schedule,
    progress: float | Float[Tensor, "*B"] | None = None,
    pixels: float = 1.0,
    smallest: int = 16,
) -> tuple[int, int]:
    """The size to draw at for a softness of this scale: the largest at which it spans few pixels.

    The scale is never above `pixels` pixels, unless the shorter side would fall below `smallest`.
    Once it is below that at full size, the full size it is.

    Args:
        image_size: pixels at full size: one number, or (height, width).
        scale: of the edge softness in NDC, positive: a number, 0-d, (B,), or a schedule; the
            smallest of a batch counts.
        progress: where a schedule is read, in [0, 1]; None is 1.
        pixels: what the scale may span, positive. A Gaussian of one pixel loses less than 1% of an
            edge to its samples.
        smallest: pixels of the shorter side.

    Returns:
        (height, width), of the aspect of the full size up to a rounding.

    Raises:
        TypeError, ValueError: naming the argument, for values out of range.

    Example:
        >>> coarse_size(256, 0.1)
        (20, 20)
    """
    height, width = checks.image_size(image_size)
    pixels = checks.positive("pixels", pixels)
    smallest = checks.whole("smallest", smallest, 1)
    batch = len(progress) if isinstance(progress, Tensor) and progress.ndim == 1 else 1
    spread = as_schedule("scale", scale)(as_progress(progress, batch)).detach().min()
    full = min(height, width)
    most = 2 * pixels / float(spread)
    short = full if most >= full else min(full, max(smallest, math.floor(most * (1 + 1e-6))))
    return round(height * short / full), round(width * short / full)


def at_size(renderer: Renderer, image_size: int | tuple[int, int]) -> Renderer:
    """The same renderer for another number of pixels; it shares all parameters.

    A background image is averaged. It shows the same part of the scene to the last bit: where the
    aspect is not quite the same, it squeezes the corners that it is given by as much.

    Args:
        renderer: a `SoftRasterizer`, a `SharpRasterizer`, or a module of your own that has an
            `image_size` and takes corners (B, F, 3, 3) in NDC first.
        image_size: pixels: one number, or (height, width). With a background image, at most its.

    Returns:
        A copy, or the renderer itself if the size is its own. Copies are cheap; changes of the
        renderer's attributes that follow do not reach them.

    Raises:
        TypeError, ValueError: naming the argument.
    """
    checks.instance("renderer", renderer, nn.Module)
    if not hasattr(renderer, "image_size"):
        raise TypeError(f"renderer: a {type(renderer).__name__} has no image_size")
    size, full = checks.image_size(image_size), checks.image_size(renderer.image_size)
    if size == full:
        return renderer
    made = copy.copy(renderer)
    for name in ("_parameters", "_buffers", "_modules", "_forward_pre_hooks"):
        setattr(made, name, copy.copy(getattr(renderer, name)))
    made._forward_pre_hooks_with_kwargs = copy.copy(renderer._forward_pre_hooks_with_kwargs)
    made.image_size = size  # type: ignore[assignment]
    behind = getattr(renderer, "background", None)
    if isinstance(behind, Tensor) and behind.ndim >= 3:
        own = behind if behind.ndim == 4 else behind[None]
        made._parameters.pop("background", None)
        made._buffers["background"] = area_average(own, size).reshape(
            *behind.shape[:-3], *size, behind.shape[-1]
        )
    squeeze = [n * min(full) / (min(size) * m) for n, m in zip(size, full, strict=True)]
    if squeeze != [1.0, 1.0]:
        made.register_forward_pre_hook(_Squeeze(*squeeze), with_kwargs=True)
    return made


class _Squeeze:
    """Stretches y and x of the corners that a renderer is given."""

    def __init__(self, y: float, x: float) -> None:
        self.factors = (x, y, 1.0)

    def __call__(
        self, _: nn.Module, given: tuple[Any, ...], named: dict[str, Any]
    ) -> tuple[tuple[Any, ...], dict[str, Any]]:
        if given:
            return (self._of(given[0]), *given[1:]), named
        return given, {**named, "face_vertices": self._of(named.get("face_vertices"))}

    def _of(self, corners: Any) -> Any:
        if not isinstance(corners, Tensor) or corners.shape[-1:] != (3,):
            return corners  # the renderer says what is wrong
        return corners * corners.new_tensor(self.factors)


def proxy_mesh(mesh: Mesh, cell: float) -> Mesh:
    """A mesh with fewer faces, to stand for this one while the softness is wide.

    All vertices in one cube of a grid become one, at their mean by area, and faces with two corners
    in one cube vanish (Rossignac and Borrel, "Multi-resolution 3D approximations for rendering
    complex scenes", 1993). Nothing moves farther than the diagonal of a cube. A closed surface
    stays closed, though parts thinner than a cube may become two sheets in one place.

    Args:
        mesh: its texture and colours become colours of vertices.
        cell: the side of a cube in world units. Half the softness is a good one: a scale in NDC
            times half the height that the picture shows at the mesh, z tan(fov / 2).

    Returns:
        The mesh, or itself if that has no fewer faces.

    Raises:
        TypeError, ValueError: naming the argument; also where a cube holds so much of the mesh that
            no face is left.
    """
    checks.instance("mesh", mesh, Mesh)
    side = checks.positive("cell", cell)
    low = mesh.vertices.detach().amin(dim=0)
    _, cube = torch.unique(
        ((mesh.vertices.detach() - low) / side).floor(), dim=0, return_inverse=True
    )
    faces = _distinct(cube[mesh.faces])
    if len(faces) == 0:
        raise ValueError(f"cell: no face of this mesh is left with cubes of {cell}; take a smaller")
    if len(faces) >= len(mesh.faces):
        return mesh
    used, index = torch.unique(faces, return_inverse=True)
    corners = mesh.vertices[mesh.faces]  # (F, 3, 3)
    across = torch.linalg.cross(corners[:, 1] - corners[:, 0], corners[:, 2] - corners[:, 0])
    area = across.detach().norm(dim=1)
    area = area + 1e-6 * area.max()  # vertices of faces without an area still have a mean
    weights, cubes = area.repeat_interleave(3), cube[mesh.faces].flatten()
    count = int(cube.max()) + 1

    def mean(values: Float[Tensor, "N C"]) -> Float[Tensor, "K C"]:
        total = values.new_zeros(count, values.shape[1])
        total = total.index_add(0, cubes, values * weights.to(values)[:, None])
        whole = weights.new_zeros(count).index_add(0, cubes, weights)
        found: Tensor = total[used] / whole.to(values)[used, None]
        return found

    colours = None
    if mesh.colours is not None or (mesh.texture is not None and mesh.uv is not None):
        each = torch.arange(len(mesh.faces), device=mesh.faces.device).repeat_interleave(3)
        inside = mesh.vertices.new_tensor(_COLOUR_AT) / 6
        colours = mean(mesh.colour_at(each, inside.repeat(len(mesh.faces), 1)))
    return Mesh(mean(corners.flatten(0, 1)), index, colours=colours)


def _distinct(faces: Tensor) -> Tensor:
    """Faces of three different corners, each once; two of opposite fronts are different."""
    a, b, c = faces.unbind(1)
    faces = faces[(a != b) & (b != c) & (c != a)]
    if len(faces) == 0:
        return faces  # argmin needs some
    first = faces.argmin(dim=1, keepdim=True)
    turned = faces.gather(1, (first + torch.arange(3, device=faces.device)) % 3)
    distinct: Tensor = torch.unique(turned, dim=0)
    return distinct
