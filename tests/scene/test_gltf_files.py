"""glTF files show what the specification says: textures, factors, colours, nodes and skins.

Expected values are closed forms of the glTF 2.0 specification, or trimesh's own reading.
"""

from __future__ import annotations

import logging
import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import trimesh

import taichi_raster as tr
from gltf_files import Gltf
from taichi_raster.scene.attributes import UVTexture
from taichi_raster.scene.sampling import sample

pytestmark = pytest.mark.runs_on(arch="cpu", precision="f64")
F64 = torch.float64
TRIANGLE = np.array([[0.0, 0, 0], [1, 0, 0], [0, 1, 0]])
UV = np.array([[0.1, 0.2], [0.9, 0.3], [0.4, 0.8]])
RNG = np.random.default_rng(0)
PIXELS = RNG.integers(0, 256, (5, 7, 3), dtype=np.uint8)
OTHER = RNG.integers(0, 256, (4, 3, 3), dtype=np.uint8)
INSIDE = torch.tensor(RNG.dirichlet(np.ones(3), 50))


def bilinear(pixels: np.ndarray, uv: np.ndarray, wrap: str = "repeat") -> torch.Tensor:
    """What an image shows at INSIDE, in a triangle of glTF's coordinates, v down."""
    corners = torch.tensor(np.stack([uv[:, 0], 1 - uv[:, 1]], axis=1))[None, None]
    surface = UVTexture(corners, torch.tensor(pixels / 255)[None], wrap)
    faces = torch.zeros(1, 1, len(INSIDE), dtype=torch.int64)
    return sample(surface, faces, INSIDE[None, None])[0, 0]


def shown(mesh: tr.Mesh, face: int) -> torch.Tensor:
    return mesh.colour_at(torch.full((len(INSIDE),), face), INSIDE)


def close(found: torch.Tensor, expected: torch.Tensor, atol: float = 1e-6) -> None:
    torch.testing.assert_close(found, expected, atol=atol, rtol=0)


@pytest.mark.parametrize("suffix", [".glb", ".gltf"])
def test_two_textures_are_kept_and_a_texel_of_255_is_1(tmp_path: Path, suffix: str) -> None:
    g = Gltf()
    for pixels, x in ((PIXELS, 0), (OTHER, 2), (np.full((2, 2, 3), 255, np.uint8), 4)):
        material = g.material(g.texture(pixels), factor=[1, 1, 1, 1])
        g.part(TRIANGLE + [x, 0, 0], [0, 1, 2], material, TEXCOORD_0=g.accessor(UV))
    mesh = tr.load_mesh(g.write(tmp_path / f"two{suffix}"), F64)
    close(shown(mesh, 0), bilinear(PIXELS, UV))
    close(shown(mesh, 1), bilinear(OTHER, UV))
    assert float(shown(mesh, 2).min()) == 1


@pytest.mark.parametrize("beside", [True, False])
def test_a_factor_multiplies_the_texture(tmp_path: Path, beside: bool) -> None:
    g = Gltf()
    factor = [0.5, 0.25, 1.0, 1.0]
    g.part(
        TRIANGLE, [0, 1, 2], g.material(g.texture(PIXELS), factor=factor), TEXCOORD_0=g.accessor(UV)
    )
    if beside:
        g.part(TRIANGLE, [0, 1, 2], g.material(g.texture(PIXELS)), TEXCOORD_0=g.accessor(UV))
    mesh = tr.load_mesh(g.write(tmp_path / "factor.glb"), F64)
    close(shown(mesh, 0), bilinear(PIXELS, UV) * torch.tensor(factor[:3]))
    if beside:
        close(shown(mesh, 1), bilinear(PIXELS, UV))


@pytest.mark.parametrize("kind", ["f4", "u1", "u2"])
def test_vertex_colours_multiply_texture_and_factor(tmp_path: Path, kind: str) -> None:
    g = Gltf()
    colours = np.array([[1.0, 0, 0.5], [0, 1, 0.5], [0.5, 0.25, 1]])
    scale = {"f4": 1, "u1": 255, "u2": 65535}[kind]
    whole = np.concatenate([np.round(colours * scale), np.full((3, 1), scale)], axis=1)
    rows = colours if kind == "f4" else whole
    number = g.accessor(rows, kind, normalized=kind != "f4")
    material = g.material(g.texture(PIXELS), factor=[0.5, 1, 1, 1])
    g.part(TRIANGLE, [0, 1, 2], material, TEXCOORD_0=g.accessor(UV), COLOR_0=number)
    mesh = tr.load_mesh(g.write(tmp_path / "colours.glb"), F64)
    expected = INSIDE @ torch.tensor(rows[:, :3] / scale)
    close(shown(mesh, 0), bilinear(PIXELS, UV) * expected * torch.tensor([0.5, 1, 1]))


def test_a_texture_beside_plain_and_coloured_parts(tmp_path: Path) -> None:
    g = Gltf()
    g.part(TRIANGLE, [0, 1, 2], g.material(factor=[0.2, 0.4, 0.6, 1]))
    g.part(TRIANGLE + 1, [0, 1, 2], g.material(g.texture(PIXELS)), TEXCOORD_0=g.accessor(UV))
    g.part(TRIANGLE + 2, [0, 1, 2], COLOR_0=g.accessor(np.eye(3)))
    g.part(TRIANGLE + 3, [0, 1, 2])
    mesh = tr.load_mesh(g.write(tmp_path / "beside.glb"), F64)
    close(shown(mesh, 0), torch.tensor([0.2, 0.4, 0.6], dtype=F64).expand(50, 3))
    close(shown(mesh, 1), bilinear(PIXELS, UV))
    close(shown(mesh, 2), INSIDE)
    close(shown(mesh, 3), torch.ones(50, 3, dtype=F64))


def test_factors_without_a_texture_are_colours(tmp_path: Path) -> None:
    g = Gltf()
    g.part(TRIANGLE, [0, 1, 2], g.material(factor=[0.2, 0.4, 0.6, 1]))
    mesh = tr.load_mesh(g.write(tmp_path / "plain.glb"), F64)
    assert mesh.texture is None and mesh.colours is not None
    close(mesh.colours, torch.tensor([0.2, 0.4, 0.6], dtype=F64).expand(3, 3))
    other: Any = trimesh.load(tmp_path / "plain.glb", force="mesh")
    seen = other.visual.material.main_color
    assert np.abs(seen[:3] / 255 - mesh.colours[0].numpy()).max() <= 0.5 / 255


def test_a_texture_transform_moves_coordinates(tmp_path: Path) -> None:
    """uv' = offset + rotation (scale uv); rotation turns as in KhronosGroup/glTF issue 1563."""
    g = Gltf()
    texture: dict[str, Any] = g.texture(PIXELS)
    move = {"offset": [0.3, -0.2], "rotation": 0.7, "scale": [2.0, 0.5], "texCoord": 1}
    texture["extensions"] = {"KHR_texture_transform": move}
    numbers: Any = {"TEXCOORD_0": g.accessor(UV[::-1]), "TEXCOORD_1": g.accessor(UV)}
    g.part(TRIANGLE, [0, 1, 2], g.material(texture), **numbers)
    mesh = tr.load_mesh(g.write(tmp_path / "moved.glb"), F64)
    c, s = math.cos(0.7), math.sin(0.7)
    x, y = UV[:, 0] * 2, UV[:, 1] * 0.5
    moved = np.stack([0.3 + c * x + s * y, -0.2 - s * x + c * y], axis=1)
    close(shown(mesh, 0), bilinear(PIXELS, moved), 1e-5)


def test_images_go_on_as_their_samplers_say(tmp_path: Path) -> None:
    g = Gltf()
    wide = UV * 3 - 1
    clamp, mirror = 33071, 33648
    for sampler in ({"wrapS": clamp, "wrapT": clamp}, {"wrapS": mirror, "wrapT": mirror}, {}):
        g.part(
            TRIANGLE,
            [0, 1, 2],
            g.material(g.texture(PIXELS, **sampler)),
            TEXCOORD_0=g.accessor(wide),
        )
    mesh = tr.load_mesh(g.write(tmp_path / "wraps.glb"), F64)
    four = np.concatenate([PIXELS, PIXELS[:, ::-1]], axis=1)
    four = np.concatenate([four, four[::-1]], axis=0)  # of which mirroring is a repeat
    close(shown(mesh, 0), bilinear(PIXELS, wide, "clamp"), 1e-5)
    close(shown(mesh, 1), bilinear(four, wide / 2), 1e-5)
    close(shown(mesh, 2), bilinear(PIXELS, wide), 1e-5)
    lone = Gltf()
    clamped = lone.material(lone.texture(PIXELS, wrapS=clamp, wrapT=clamp))
    lone.part(TRIANGLE, [0, 1, 2], clamped, TEXCOORD_0=lone.accessor(wide))
    mesh = tr.load_mesh(lone.write(tmp_path / "lone.glb"), F64)
    assert mesh.wrap == "clamp" == mesh.uv_texture().wrap
    close(shown(mesh, 0), bilinear(PIXELS, wide, "clamp"), 1e-5)


@pytest.mark.parametrize("mode", ["OPAQUE", "BLEND", "MASK"])
def test_opacity_is_kept_unless_the_material_is_opaque(
    tmp_path: Path, mode: str, caplog: pytest.LogCaptureFixture
) -> None:
    g = Gltf()
    pixels = RNG.integers(0, 256, (3, 4, 4), dtype=np.uint8)
    material = g.material(g.texture(pixels), factor=[1, 1, 1, 0.5], alphaMode=mode)
    g.part(TRIANGLE, [0, 1, 2], material, TEXCOORD_0=g.accessor(UV))
    with caplog.at_level(logging.WARNING):
        mesh = tr.load_mesh(g.write(tmp_path / "alpha.glb"), F64)
    expected = bilinear(pixels, UV) * torch.tensor([1, 1, 1, 0.5])
    close(shown(mesh, 0), expected[:, :3] if mode == "OPAQUE" else expected)
    assert ("opacity" in caplog.text) == (mode != "BLEND")


def test_nodes_place_their_meshes_and_a_mirrored_one_stays_outside_out(tmp_path: Path) -> None:
    """As trimesh places them; the volume of a closed body stays positive."""
    g = Gltf()
    box = tr.box(dtype=F64)
    turn = [0.0, 0.0, math.sin(0.3), math.cos(0.3)]
    g.part(
        box.vertices.numpy(), box.faces.numpy(), node={"translation": [1, 2, 3], "rotation": turn}
    )
    g.part(box.vertices.numpy(), box.faces.numpy(), node={"scale": [-1, 1, 1], "children": [0]})
    mesh = tr.load_mesh(g.write(tmp_path / "nodes.glb", roots=[1]), F64)
    expected: Any = trimesh.load(tmp_path / "nodes.glb", force="mesh")
    assert np.allclose(
        np.sort(mesh.vertices.numpy(), axis=0),
        np.sort(np.unique(expected.vertices, axis=0), axis=0),
        atol=1e-6,
    )
    assert float(tr.volume(mesh.vertices[None], mesh.faces)) == pytest.approx(
        2 * float(tr.volume(box.vertices[None], box.faces))
    )


def test_strips_fans_sparse_values_and_morphs(tmp_path: Path) -> None:
    g = Gltf()
    square = np.array([[0.0, 0, 0], [1, 0, 0], [0, 1, 0], [1, 1, 0]])
    g.part(square, None, mode=5)
    g.part(square[[0, 1, 3, 2]] + [2, 0, 0], None, mode=6)
    g.part(square, None, mode=5)
    indices, values = (
        g.view(np.array([3], "<u2").tobytes()),
        g.view(np.array([5, 5, 0], "<f4").tobytes()),
    )
    number = g.json["meshes"][2]["primitives"][0]["attributes"]["POSITION"]
    g.json["accessors"][number]["sparse"] = {
        "count": 1,
        "indices": {"bufferView": indices, "componentType": 5123},
        "values": {"bufferView": values},
    }
    g.part(square, None, mode=5)
    moved = g.accessor(np.full((4, 3), 2.0))
    g.json["meshes"][3] |= {"weights": [0.5]}
    g.json["meshes"][3]["primitives"][0]["targets"] = [{"POSITION": moved}]
    mesh = tr.load_mesh(g.write(tmp_path / "kinds.glb"), F64)
    corners = mesh.vertices[mesh.faces]
    normals = torch.linalg.cross(corners[:, 1] - corners[:, 0], corners[:, 2] - corners[:, 0])
    assert (normals[:, 2] > 0).all()
    assert normals[:4, 2].tolist() == [1, 1, 1, 1]
    assert normals[4:6, 2].tolist() == [1, 9]  # to (5, 5): 1/2 + 9/2
    assert torch.equal(corners[6:], corners[:2] + 1)


def test_a_skin_moves_its_vertices_by_their_joints(tmp_path: Path) -> None:
    """Half of each joint's translation; the mesh's own node does not count.

    Inverse bind matrices come first: here, moves by (0, 0, 1) and (0, 0, 3).
    """
    g = Gltf()
    joints, weights = np.array([[0, 1, 0, 0]] * 3), np.array([[0.5, 0.5, 0, 0]] * 3)
    numbers: Any = {"JOINTS_0": g.accessor(joints, "u1"), "WEIGHTS_0": g.accessor(weights)}
    g.part(TRIANGLE, [0, 1, 2], node={"skin": 0, "translation": [9, 9, 9]}, **numbers)
    g.json["nodes"] += [{"translation": [2, 0, 0]}, {"translation": [0, 4, 0]}]
    g.json["skins"] = [{"joints": [1, 2]}]
    mesh = tr.load_mesh(g.write(tmp_path / "skin.glb"), F64)
    assert torch.equal(mesh.vertices, torch.tensor(TRIANGLE + [1, 2, 0]))
    bind = np.tile(np.eye(4), (2, 1, 1))
    bind[:, 3, 2] = 1, 3  # by columns, as the file has them
    g.json["skins"][0]["inverseBindMatrices"] = g.accessor(bind.reshape(2, 16))
    mesh = tr.load_mesh(g.write(tmp_path / "bound.glb"), F64)
    assert torch.equal(mesh.vertices, torch.tensor(TRIANGLE + [1, 2, 2]))


def test_what_is_not_read_is_named_once(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    g = Gltf()
    texture = g.texture(PIXELS, magFilter=9728)
    g.part(
        TRIANGLE,
        [0, 1, 2],
        g.material(texture, emissiveFactor=[1, 0, 0]),
        TEXCOORD_0=g.accessor(UV),
    )
    g.part(TRIANGLE, [0, 1, 2], g.material(texture))
    g.part(TRIANGLE, None, mode=0)
    g.json["images"].append({"uri": "absent.png"})
    g.json["textures"].append({"source": 1})
    g.part(TRIANGLE, [0, 1, 2], g.material({"index": 1}), TEXCOORD_0=g.accessor(UV))
    with caplog.at_level(logging.WARNING):
        tr.load_mesh(g.write(tmp_path / "odd.glb"))
    (record,) = caplog.records
    assert record.name == "taichi_raster.scene.mesh_files"
    for word in (
        "odd.glb",
        "emitted",
        "magFilter",
        "points",
        "absent.png",
        "without texture coord",
    ):
        assert word in record.getMessage()
