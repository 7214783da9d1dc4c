"""`join` and its atlas: every point of a joined mesh shows what it showed on its own."""

from __future__ import annotations

import logging
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch import Tensor

import taichi_raster as tr
from taichi_raster.scene import atlas

pytestmark = pytest.mark.runs_on(arch="cpu", precision="f64")
F64 = torch.float64


def points(mesh: tr.Mesh, count: int = 200) -> tuple[Tensor, Tensor]:
    """Random points, corners and middles of edges among them."""
    g = torch.Generator().manual_seed(1)
    faces = torch.randint(0, len(mesh.faces), (count,), generator=g)
    weights = torch.rand(count, 3, generator=g, dtype=F64)
    weights[: count // 4] = torch.eye(3, dtype=F64).repeat(count, 1)[: count // 4]
    weights[count // 4 : count // 2, 0] = 0
    return faces, weights / weights.sum(1, keepdim=True)


def picture(height: int, width: int, channels: int = 3, seed: int = 0) -> Tensor:
    g = torch.Generator().manual_seed(seed)
    return torch.rand(height, width, channels, generator=g, dtype=F64)


def torus(uv_scale: float = 1.0, **fields: object) -> tr.Mesh:
    mesh = tr.torus(sides=5, sectors=6, dtype=F64)
    assert mesh.uv is not None
    return replace(mesh, uv=mesh.uv * uv_scale - 0.3, **fields)  # type: ignore[arg-type]


KINDS = {
    "within": torus(0.7, texture=picture(9, 5)),
    "repeated": torus(3.0, texture=picture(6, 7, seed=1)),
    "clamped": torus(3.0, texture=picture(4, 3, seed=2), wrap="clamp"),
    "with alpha": torus(2.0, texture=picture(3, 8, 4, seed=3)),
    "grey": torus(texture=picture(5, 5, 1, seed=4)),
    "one texel": torus(9.0, texture=picture(1, 1, seed=5)),
    "both": torus(texture=picture(4, 4, seed=6), colours=picture(30, 3)[:, :, 0]),
    "coloured": replace(tr.box(dtype=F64), colours=picture(8, 3)[:, :, 0]),
    "flat": replace(
        tr.box(dtype=F64),
        colours=picture(12, 3, seed=7)[:, :, 0],
        colour_faces=torch.arange(12)[:, None].expand(12, 3),
    ),
    "plain": tr.box(dtype=F64),
}


def shown(mesh: tr.Mesh, faces: Tensor, weights: Tensor) -> Tensor:
    """RGBA; a mesh without either is white."""
    if mesh.texture is None and mesh.colours is None:
        return torch.ones(len(faces), 4, dtype=F64)
    return atlas.with_channels(mesh.colour_at(faces, weights), 4)


@pytest.mark.parametrize("names", [tuple(KINDS), tuple(reversed(KINDS)), ("repeated", "plain")])
def test_a_joined_mesh_shows_what_its_parts_show(names: tuple[str, ...]) -> None:
    meshes = [KINDS[name] for name in names]
    together = tr.join(meshes)
    start = first = 0
    for name, mesh in zip(names, meshes, strict=True):
        faces, weights = points(mesh)
        expected, found = shown(mesh, faces, weights), shown(together, faces + start, weights)
        torch.testing.assert_close(found, expected, atol=1e-11, rtol=0, msg=name)
        n = len(mesh.vertices)
        assert torch.equal(together.vertices[first : first + n], mesh.vertices)
        assert torch.equal(together.faces[start : start + len(mesh.faces)] - first, mesh.faces)
        start, first = start + len(mesh.faces), first + n


def test_one_texture_that_all_share_stays_as_it_is() -> None:
    mesh = KINDS["repeated"]
    together = tr.join([mesh, replace(mesh, vertices=mesh.vertices + 3)])
    assert together.texture is not None and together.uv is not None and mesh.uv is not None
    assert torch.equal(together.texture, mesh.texture)  # type: ignore[arg-type]
    assert torch.equal(together.uv, torch.cat([mesh.uv, mesh.uv]))


def test_meshes_without_appearance_are_joined_without() -> None:
    box = tr.box(dtype=F64)
    together = tr.join([box, box])
    assert together.uv is together.texture is together.colours is None
    assert together.faces.shape == (24, 3)


def test_what_joining_loses_is_said(caplog: pytest.LogCaptureFixture) -> None:
    bare = replace(KINDS["within"], texture=None)
    with caplog.at_level(logging.WARNING):
        tr.join([KINDS["within"], bare])
    assert caplog.text.count("texture coordinates of meshes without a texture") == 1


def test_gradients_reach_textures_coordinates_colours_and_vertices() -> None:
    mesh = KINDS["repeated"]
    leaves = [mesh.vertices, mesh.uv, mesh.texture, torch.rand(len(mesh.vertices), 3, dtype=F64)]
    vertices, uv, texture, colours = (
        leaf.clone().requires_grad_() for leaf in leaves if leaf is not None
    )
    own = replace(mesh, vertices=vertices, uv=uv, texture=texture, colours=colours)
    faces, weights = points(own)
    alone = torch.autograd.grad(
        own.colour_at(faces, weights).square().sum(), (uv, texture, colours)
    )
    together = tr.join([own, KINDS["within"]])
    joined = torch.autograd.grad(
        together.colour_at(faces, weights).square().sum(), (uv, texture, colours), retain_graph=True
    )
    for a, b in zip(alone, joined, strict=True):
        torch.testing.assert_close(a, b, atol=1e-8, rtol=1e-8)
    assert torch.autograd.grad(together.vertices.sum(), vertices)[0].sum() == vertices.numel()


def test_an_atlas_that_would_be_too_large_is_made_smaller_and_says_so(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """Averaging keeps the mean: a checkerboard becomes grey, the small picture stays sharp."""
    monkeypatch.setattr(atlas, "MOST", 128)
    board = ((torch.arange(64)[:, None] + torch.arange(64)) % 2).double()[..., None]
    corners = torch.tensor([[0.0, 0.0], [7.0, 0.0], [0.0, 7.0]], dtype=F64)
    face = torch.tensor([[0, 1, 2]])
    small = atlas.Picture(picture(5, 5, 1), corners / 7, face)
    found = atlas.atlas([atlas.Picture(board, corners, face), small])
    assert max(found.image.shape[:2]) <= 128
    assert 0 < found.shrunk < 128 / 448
    uv, index = found.coordinates[0]
    mesh = tr.Mesh(torch.eye(3, dtype=F64), face, uv, index, found.image)
    faces, weights = points(mesh)
    assert float((mesh.colour_at(faces, weights) - 0.5).abs().max()) < 0.1
    uv, index = found.coordinates[1]
    mesh = tr.Mesh(torch.eye(3, dtype=F64), face, uv, index, found.image)
    alone = tr.Mesh(torch.eye(3, dtype=F64), face, small.uv, face, small.image)
    torch.testing.assert_close(mesh.colour_at(faces, weights), alone.colour_at(faces, weights))
    tiled = tr.Mesh(torch.eye(3, dtype=F64), face, corners, face, board.expand(-1, -1, 3))
    with caplog.at_level(logging.WARNING):
        tr.join([tiled, KINDS["within"]])
        tr.save_mesh(tmp_path / "a.obj", tiled)
        text = "mtllib a.mtl\nv 0 0 0\nv 1 0 0\nv 0 1 0\nvt 0 0\nvt 9 0\nvt 0 9\n"
        faces_of_both = "usemtl textured\nf 1/1 2/2 3/3\nusemtl absent\nf 3 2 1\n"
        (tmp_path / "b.obj").write_text(text + faces_of_both)
        tr.load_mesh(tmp_path / "b.obj")
    assert [("smaller" in record.getMessage()) for record in caplog.records] == [True, True]


def test_a_mirrored_texture_goes_back_and_forth() -> None:
    """At u = 1 + x, the mirrored image shows what it shows at 1 - x."""
    image = picture(4, 6)
    face = torch.tensor([[0, 1, 2]])
    corners = torch.tensor([[0.0, 0.0], [1.0, 0.0], [0.0, 1.0]], dtype=F64) * 0.9 + 0.05
    there = torch.stack([2 - corners[:, 0], corners[:, 1] + 2], dim=1)
    found = atlas.atlas([atlas.Picture(image, there, face, ("mirror", "mirror"))])
    uv, index = found.coordinates[0]
    mirrored = tr.Mesh(torch.eye(3, dtype=F64), face, uv, index, found.image)
    alone = tr.Mesh(torch.eye(3, dtype=F64), face, corners, face, image, wrap="clamp")
    at = points(alone)
    torch.testing.assert_close(mirrored.colour_at(*at), alone.colour_at(*at))


@pytest.mark.parametrize(
    ("meshes", "complaint"),
    [
        ([], "at least one"),
        ([tr.box(dtype=F64), tr.box()], "dtype"),
        (
            [replace(KINDS["plain"], colours=torch.ones(8, n, dtype=F64)) for n in (2, 3)],
            "channels",
        ),
        ([torus(texture=picture(4, 4, n)) for n in (2, 3)], "channels"),
    ],
)
def test_what_cannot_be_joined_is_refused(meshes: list[tr.Mesh], complaint: str) -> None:
    with pytest.raises(ValueError, match=complaint):
        tr.join(meshes)
    with pytest.raises(TypeError, match=r"^meshes: "):
        tr.join([torch.ones(3)])  # type: ignore[list-item]


def test_the_texture_and_even_colours_multiply() -> None:
    image, tint = picture(4, 4), torch.tensor([[0.5, 0.25, 1.0]], dtype=F64)
    mesh = torus(texture=image, colours=tint, colour_faces=torch.zeros(60, 3, dtype=torch.int64))
    torch.testing.assert_close(mesh.uv_texture().image[0], image * tint)
    faces, weights = points(mesh)
    plain = torus(texture=image)
    torch.testing.assert_close(
        mesh.colour_at(faces, weights), plain.colour_at(faces, weights) * tint
    )


def test_colours_that_a_texture_cannot_hold_are_said(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.WARNING):
        KINDS["both"].uv_texture()
    assert "multiply" in caplog.text


def test_subdividing_keeps_what_the_mesh_shows() -> None:
    for mesh in (KINDS["both"], KINDS["flat"], KINDS["repeated"]):
        fine = tr.subdivide(mesh)
        middle = torch.full((len(mesh.faces), 3), 1 / 3, dtype=F64)
        faces = torch.arange(len(mesh.faces))
        torch.testing.assert_close(
            fine.colour_at(4 * faces + 3, middle), mesh.colour_at(faces, middle)
        )
