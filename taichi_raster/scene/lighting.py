"""Light on surfaces, in torch: ambient, directional and point lights; flat, Gouraud, Phong shading.

Diffuse light follows Lambert, highlights Blinn (SIGGRAPH 1977). Flat and Gouraud shading give
colours at face corners, for the renderer to interpolate. Phong shading lights every pixel: render
the surface itself (`surface_attributes`), then light the picture (`shade_image`). All is in world
space, and differentiable twice, with respect to lights, materials, normals and places.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Float, Int
from torch import Tensor

from taichi_raster import checks
from taichi_raster.scene.faces import gather_faces
from taichi_raster.scene.movable import Movable
from taichi_raster.scene.normals import face_normals, unit, vertex_normals

Colour = float | Sequence[float] | Tensor


@dataclass(frozen=True, eq=False)
class AmbientLight(Movable):
    """Light from everywhere: a number, (3,) or (B, 3)."""

    colour: Colour = 0.5


@dataclass(frozen=True, eq=False)
class DirectionalLight(Movable):
    """Light from far away.

    Attributes:
        direction: towards the light, (3,) or (B, 3), of any length but 0.
        colour: a number, (3,) or (B, 3).
    """

    direction: Sequence[float] | Tensor = (0.0, 1.0, 0.0)
    colour: Colour = 0.5


@dataclass(frozen=True, eq=False)
class PointLight(Movable):
    """Light from a point.

    Attributes:
        position: (3,) or (B, 3).
        colour: a number, (3,) or (B, 3).
        attenuation: (a, b, c): light falls off as 1 / (a + b r + c r^2) with the distance r.
    """

    position: Sequence[float] | Tensor = (0.0, 3.0, 0.0)
    colour: Colour = 0.5
    attenuation: tuple[float, float, float] = (1.0, 0.0, 0.0)


Light = AmbientLight | DirectionalLight | PointLight


@dataclass(frozen=True, eq=False)
class Material(Movable):
    """How a surface answers light.

    Attributes:
        specular: strength of highlights: a number, (3,) or (B, 3); 0 for none.
        shininess: their exponent, positive.
        two_sided: light backs as fronts: normals are turned towards the eye.
    """

    specular: Colour = 0.0
    shininess: float | Tensor = 32.0
    two_sided: bool = False


MATTE = Material()


def illuminate(
    albedo: Float[Tensor, "B *n C"],
    normals: Float[Tensor, "B *n 3"],
    positions: Float[Tensor, "B *n 3"],
    lights: Sequence[Light],
    eye: Float[Tensor, "*B 3"] | Sequence[float] | None = None,
    material: Material = MATTE,
) -> Float[Tensor, "B *n C"]:
    """The light that surface points send to the eye.

    Args:
        albedo: diffuse colours in [0, 1]; C is 1 or 3, or anything for lights without colour.
        normals: unit normals, or 0, which only ambient light reaches.
        positions: of the points, in world space.
        lights: any number of them.
        eye: (3,) or (B, 3), the eye's place; needed for highlights and two-sided materials.
        material: see `Material`.

    Raises:
        ValueError: if the eye is missing, shapes do not match, or a direction is 0.
        TypeError: for something else than a light.
    """
    for name, value in (("albedo", albedo), ("normals", normals), ("positions", positions)):
        checks.floats(name, value)
    if normals.shape != positions.shape or normals.shape[:-1] != albedo.shape[:-1]:
        raise ValueError(
            f"normals: must be of the shape of positions {tuple(positions.shape)} and like albedo "
            f"{tuple(albedo.shape)}, got {tuple(normals.shape)}"
        )
    shines = not (checks.is_number(material.specular) and material.specular == 0)
    if eye is None and (shines or material.two_sided):
        raise ValueError("eye: is needed for highlights and for two-sided materials")
    to_eye = None if eye is None else unit(_spread("eye", eye, normals) - positions)
    if material.two_sided:
        assert to_eye is not None
        facing = (normals * to_eye).sum(-1, keepdim=True)
        normals = torch.where(facing < 0, -normals, normals)
    shininess = _spread("shininess", material.shininess, positions)
    diffuse = torch.zeros_like(albedo)
    highlight = torch.zeros_like(albedo)
    for light in lights:
        colour, towards = _arriving(light, positions)
        if towards is None:
            diffuse = diffuse + colour
            continue
        cosine = (normals * towards).sum(-1, keepdim=True).clamp(min=0)
        diffuse = diffuse + colour * cosine
        if shines:
            assert to_eye is not None
            half = (normals * unit(towards + to_eye)).sum(-1, keepdim=True)
            lit = (cosine > 0) & (half > 0)
            strength = torch.where(lit, half, torch.ones_like(half)).log() * shininess
            shine = _spread("specular", material.specular, positions) * strength.exp() * colour
            highlight = highlight + torch.where(lit, shine, torch.zeros_like(shine))
    return albedo * diffuse + highlight


def shade_flat(
    vertices: Float[Tensor, "B V 3"],
    faces: Int[Tensor, "F 3"],
    face_colours: Float[Tensor, "B F 3 C"],
    lights: Sequence[Light],
    eye: Float[Tensor, "*B 3"] | Sequence[float] | None = None,
    material: Material = MATTE,
) -> Float[Tensor, "B F 3 C"]:
    """Colours at corners where each face has one normal, and is lit at its centre."""
    corners = gather_faces(vertices, faces)
    normals = face_normals(corners)[:, :, None].expand_as(corners)
    centres = corners.mean(2, keepdim=True).expand_as(corners)
    return illuminate(face_colours, normals, centres, lights, eye, material)


def shade_gouraud(
    vertices: Float[Tensor, "B V 3"],
    faces: Int[Tensor, "F 3"],
    face_colours: Float[Tensor, "B F 3 C"],
    lights: Sequence[Light],
    eye: Float[Tensor, "*B 3"] | Sequence[float] | None = None,
    material: Material = MATTE,
    weighting: str = "area",
) -> Float[Tensor, "B F 3 C"]:
    """Colours at corners, lit there with vertex normals (Gouraud, 1971)."""
    corners = gather_faces(vertices, faces)
    normals = gather_faces(vertex_normals(vertices, faces, weighting), faces)
    return illuminate(face_colours, normals, corners, lights, eye, material)


def surface_attributes(
    vertices: Float[Tensor, "B V 3"],
    faces: Int[Tensor, "F 3"],
    face_colours: Float[Tensor, "B F 3 C"] | None = None,
    smooth: bool = True,
) -> Float[Tensor, "B F 3 C+6"]:
    """Colour, normal and world position at face corners, to render and then light.

    Args:
        face_colours: (B, F, 3, C); None leaves them out, for a texture that comes before
            (``UVTexture(uv, image, corners=surface_attributes(vertices, faces))``).
        smooth: vertex normals, instead of each face's own.
    """
    corners = gather_faces(vertices, faces)
    if smooth:
        normals = gather_faces(vertex_normals(vertices, faces), faces)
    else:
        normals = face_normals(corners)[:, :, None].expand_as(corners)
    colours = [] if face_colours is None else [face_colours]
    return torch.cat([*colours, normals, corners], dim=-1)


def shade_image(
    image: Float[Tensor, "B H W C+7"],
    lights: Sequence[Light],
    eye: Float[Tensor, "*B 3"] | Sequence[float] | None = None,
    material: Material = MATTE,
    background: Colour = 0.0,
) -> Float[Tensor, "B H W C+1"]:
    """Phong shading (1975): light a rendered picture of `surface_attributes`, pixel by pixel.

    Args:
        image: (B, H, W, C + 6 + 1): colour, normal, position, alpha, rendered over background 0.
        background: of the lit picture: a number, (C,), or (H, W, C).

    Positions and colours of soft pixels are mixtures with the background's 0: they are divided by
    alpha, which is exact where a pixel sees one surface, and the lit colour is composited by alpha.
    """
    checks.floats("image", image)
    channels = image.shape[-1] - 7
    if channels < 1:
        raise ValueError(f"image: expected at least 8 channels, got {image.shape[-1]}")
    alpha = image[..., -1:]
    some = alpha > 1e-4
    solid = image[..., :-1] / torch.where(some, alpha, torch.ones_like(alpha))
    albedo, normals, positions = solid.split([channels, 3, 3], dim=-1)
    lit = illuminate(albedo, unit(normals), positions, lights, eye, material)
    behind = checks.array("background", background, image.dtype, image.device)
    weight = torch.where(some, alpha, torch.zeros_like(alpha))
    return torch.cat([weight * lit + (1 - weight) * behind, alpha], dim=-1)


def _arriving(light: Light, positions: Tensor) -> tuple[Tensor, Tensor | None]:
    """A light's colour at points, and the unit direction towards it; None from everywhere."""
    if not isinstance(light, AmbientLight | DirectionalLight | PointLight):
        raise TypeError(f"lights: expected lights, got a {type(light).__name__}")
    colour = _spread("colour", light.colour, positions)
    if isinstance(light, AmbientLight):
        return colour, None
    if isinstance(light, DirectionalLight):
        direction = _spread("direction", light.direction, positions)
        if not bool((direction.norm(dim=-1) > 0).all()):
            raise ValueError("direction: must not be 0")
        # Of any length: `unit` takes short vectors for none.
        return colour, unit(direction / direction.abs().amax(dim=-1, keepdim=True))
    offset = _spread("position", light.position, positions) - positions
    a, b, c = light.attenuation
    if not a + b + c > 0:
        raise ValueError(f"attenuation: must not be 0 in all, got {light.attenuation}")
    square = offset.square().sum(-1, keepdim=True)
    # At the light itself, which shines from nowhere there, any distance will do.
    square = torch.where(square > 0, square, torch.ones_like(square))
    distance = square.sqrt()
    return colour / (a + b * distance + c * square), unit(offset)


def _spread(name: str, value: Colour, like: Tensor) -> Tensor:
    """A number, (D,) or (B, D), ready to broadcast against (B, *n, D)."""
    tensor = checks.array(name, value, like.dtype, like.device)
    if tensor.ndim == 2:
        return tensor.reshape(len(tensor), *([1] * (like.ndim - 2)), tensor.shape[1])
    return tensor
