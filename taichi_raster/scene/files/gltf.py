"""glTF 2.0 (Khronos, 2021): the triangles of the scene that it shows, with their base colours."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from numpy import ndarray

from taichi_raster.scene.files import images
from taichi_raster.scene.files.gltf_buffers import Document, Json
from taichi_raster.scene.files.matrices_numpy import matrix_of, moved, product, transformed
from taichi_raster.scene.files.soup import Builder, Notes, Soup, Surface, polygons, rgba

_UNDERSTOOD = {
    "KHR_texture_transform",
    "KHR_mesh_quantization",
    "EXT_texture_webp",
    "KHR_materials_unlit",
    "KHR_materials_pbrSpecularGlossiness",
}
_WRAPS = {33071: "clamp", 33648: "mirror", 10497: "repeat"}
_TRIANGLES, _STRIP, _FAN = 4, 5, 6
_MODES = {0: "points", 1: "lines", 2: "lines", 3: "lines"}


def read(path: Path, notes: Notes) -> Soup:
    """All triangles of the default scene, in the order of its nodes."""
    try:
        return _Reader(Document(path), notes).read()
    except (AttributeError, IndexError, KeyError, TypeError) as error:
        raise ValueError(f"is not valid glTF ({type(error).__name__}: {error})") from error


class _Reader:
    def __init__(self, document: Document, notes: Notes) -> None:
        self.document = document
        self.notes = notes
        self.builder = Builder()
        self.images: dict[int, ndarray | None] = {}
        self.surfaces: dict[int | None, tuple[Surface, Json]] = {}
        self.opaque: dict[int, ndarray] = {}

    def read(self) -> Soup:
        required = self.document.json.get("extensionsRequired", [])
        missing = sorted(
            name
            for name in set(required) - _UNDERSTOOD
            if name.startswith(("KHR_draco", "EXT_meshopt", "KHR_meshopt", "EXT_mesh_gpu"))
            or not name.startswith(("KHR_materials", "KHR_texture", "KHR_lights", "EXT_texture"))
        )
        if missing:
            raise ValueError(f"needs extensions of glTF that are not read: {', '.join(missing)}")
        for node, matrix in self._nodes():
            if "mesh" not in node:
                continue
            mesh = self.document.item("meshes", node["mesh"])
            if "EXT_mesh_gpu_instancing" in node.get("extensions", {}):
                self.notes.add("instances of EXT_mesh_gpu_instancing, but for one each")
            for primitive in mesh.get("primitives", []):
                self._primitive(node, mesh, primitive, matrix)
        return self.builder.soup(split=True)

    # Nodes ----------------------------------------------------------------------------------------

    def _nodes(self) -> list[tuple[Json, ndarray]]:
        """The nodes of the scene with their matrices (4, 4), parents before children."""
        nodes = self.document.items("nodes")
        scenes = self.document.items("scenes")
        if scenes:
            shown = self.document.json.get("scene", 0)
            roots = self.document.item("scenes", shown).get("nodes", [])
            if len(scenes) > 1:
                self.notes.add(f"{len(scenes) - 1} further scenes")
        else:
            children = {c for node in nodes for c in node.get("children", [])}
            roots = [i for i in range(len(nodes)) if i not in children]
        self.world: dict[int, ndarray] = {}
        found = []
        waiting = [(index, np.eye(4)) for index in reversed(roots)]
        while waiting:
            index, above = waiting.pop()
            node = self.document.item("nodes", index)
            if index in self.world:
                raise ValueError("has a node that is below itself, or below two others")
            self.world[index] = product(above, matrix_of(node))
            found.append((node, self.world[index]))
            children = node.get("children", [])
            waiting += [(child, self.world[index]) for child in reversed(children)]
        return found

    # Shapes ---------------------------------------------------------------------------------------

    def _primitive(self, node: Json, mesh: Json, primitive: Json, matrix: ndarray) -> None:
        mode = primitive.get("mode", _TRIANGLES)
        if mode in _MODES:
            self.notes.add(_MODES[mode])
            return
        if "KHR_draco_mesh_compression" in primitive.get("extensions", {}):
            raise ValueError("is compressed with Draco (KHR_draco_mesh_compression): not read")
        attributes = primitive.get("attributes", {})
        if "POSITION" not in attributes:
            return
        local = self._values(attributes, "POSITION", 3)
        local = self._morphed(node, mesh, primitive, local)
        places = self._placed(node, attributes, local, matrix)
        index = np.arange(len(places))
        if "indices" in primitive:
            index = self.document.accessor(primitive["indices"])[:, 0].astype(np.int64)
        faces = _faces(index, mode)
        if np.linalg.det(matrix[:3, :3]) < 0 and "skin" not in node:
            faces = faces[:, ::-1]
        polygons(places, np.full(len(faces), 3), faces.reshape(-1), self.notes)  # checks them
        surface, texture = self._surface(primitive.get("material"))
        uv = self._coordinates(attributes, texture, surface)
        colours = None
        if "COLOR_0" in attributes:
            colours = rgba(_as_colours(self.document.accessor(attributes["COLOR_0"])))
            if colours is not None and self._is_opaque(primitive.get("material")):
                colours = np.concatenate([colours[:, :3], np.ones((len(colours), 1))], axis=1)
        for name, values in (("TEXCOORD", uv), ("COLOR_0", colours)):
            if values is not None and len(values) != len(places):
                raise ValueError(f"has {len(values)} {name} for {len(places)} vertices")
        first = self.builder.vertices(places)
        self.builder.triangles(
            faces + first,
            surface,
            None if uv is None else uv[faces],
            None if colours is None else colours[faces],
        )

    def _values(self, attributes: Json, name: str, width: int) -> ndarray:
        found = self.document.accessor(attributes[name])
        if found.shape[1] != width:
            raise ValueError(f"has {name} of {found.shape[1]} numbers instead of {width}")
        return found.astype(np.float64)

    def _morphed(self, node: Json, mesh: Json, primitive: Json, places: ndarray) -> ndarray:
        weights: Any = node.get("weights", mesh.get("weights", []))
        for weight, target in zip(weights, primitive.get("targets", []), strict=False):
            if weight and "POSITION" in target:
                offsets = self._values(target, "POSITION", 3)
                if offsets.shape != places.shape:
                    raise ValueError("has a morph target of another number of vertices")
                places = places + weight * offsets
        return places

    def _placed(self, node: Json, attributes: Json, local: ndarray, matrix: ndarray) -> ndarray:
        """In the world: by the node's matrix, or by the joints of its skin."""
        if "skin" not in node or "JOINTS_0" not in attributes or "WEIGHTS_0" not in attributes:
            return moved(matrix, local)
        skin = self.document.item("skins", node["skin"])
        joints = skin.get("joints", [])
        if not set(joints) <= set(self.world):
            raise ValueError("has a skin whose joints are not in the scene")
        stack = np.stack([self.world[joint] for joint in joints])
        if "inverseBindMatrices" in skin:
            inverse = self.document.accessor(skin["inverseBindMatrices"]).astype(np.float64)
            if inverse.shape != (len(joints), 16):
                raise ValueError("has a skin with a matrix too few or too many")
            stack = product(stack, inverse.reshape(-1, 4, 4).transpose(0, 2, 1))
        places, total = np.zeros_like(local), np.zeros((len(local), 1))
        for number in range(8):
            names = f"JOINTS_{number}", f"WEIGHTS_{number}"
            if not set(names) <= set(attributes):
                break
            index, weights = (self.document.accessor(attributes[name]) for name in names)
            if len(index) != len(local) or len(weights) != len(local):
                raise ValueError("has joints and weights of another number of vertices")
            if int(index.max(initial=0)) >= len(joints):
                raise ValueError("has vertices of joints that its skin lacks")
            for column in range(4):
                there = moved(stack[index[:, column].astype(np.int64)], local)
                weight = weights[:, column : column + 1].astype(np.float64)
                places, total = places + weight * there, total + weight
        return np.asarray(places / np.where(total > 0, total, 1.0))

    # Materials ------------------------------------------------------------------------------------

    def _is_opaque(self, index: Any) -> bool:
        if index is None:
            return True
        return bool(self.document.item("materials", index).get("alphaMode", "OPAQUE") == "OPAQUE")

    def _surface(self, index: Any) -> tuple[Surface, Json]:
        """A material's surface, and what its image's coordinates are."""
        if index is None:
            return _PLAIN, {}
        if index not in self.surfaces:
            self.surfaces[index] = self._made_surface(index)
        return self.surfaces[index]

    def _made_surface(self, index: Any) -> tuple[Surface, Json]:
        material = self.document.item("materials", index)
        pbr = material.get("pbrMetallicRoughness", {})
        extra = material.get("extensions", {})
        old = extra.get("KHR_materials_pbrSpecularGlossiness")
        if old is not None:
            pbr = {
                "baseColorFactor": old.get("diffuseFactor", [1, 1, 1, 1]),
                "baseColorTexture": old.get("diffuseTexture"),
            }
        name = material.get("name", index)
        if any(material.get("emissiveFactor", [0])):
            self.notes.add("the emitted light of materials", name)
        factor = tuple(min(max(float(v), 0.0), 1.0) for v in pbr.get("baseColorFactor", [1] * 4))
        if len(factor) != 4:
            raise ValueError(f"has a baseColorFactor of {len(factor)} numbers")
        opaque = self._is_opaque(index)
        if opaque:
            factor = (*factor[:3], 1.0)
        given = "baseColorFactor" in pbr
        texture = pbr.get("baseColorTexture")
        image = None if texture is None else self._image(texture.get("index"))
        if image is None:
            return Surface(factor=factor, given=given), {}
        if image.shape[-1] == 4:
            most = np.iinfo(image.dtype).max if image.dtype.kind == "u" else 1
            if opaque:
                if (image[..., 3] != most).any():
                    self.notes.add("the opacity of images in materials of alphaMode OPAQUE", name)
                image = self.opaque.setdefault(id(image), image[..., :3])
            elif material.get("alphaMode") == "MASK":
                self.notes.add("the cut-off of opacity (alphaMode MASK), kept as it is, of", name)
        surface = Surface(image, factor, self._wrap(texture["index"]), given=True)
        return surface, texture

    def _texture(self, index: Any) -> Json:
        texture = self.document.item("textures", index)
        webp = texture.get("extensions", {}).get("EXT_texture_webp", {})
        return {**texture, **webp}

    def _wrap(self, index: Any) -> tuple[str, str]:
        texture = self._texture(index)
        if "sampler" not in texture:
            return "repeat", "repeat"
        sampler = self.document.item("samplers", texture["sampler"])
        if sampler.get("magFilter") == 9728:
            self.notes.add("nearest-texel sampling (magFilter 9728): textures are interpolated")
        u, v = (_WRAPS.get(sampler.get(name, 10497), "repeat") for name in ("wrapS", "wrapT"))
        return u, v

    def _image(self, texture: Any) -> ndarray | None:
        index = self._texture(texture).get("source")
        if index is None:
            self.notes.add("a texture in a format that is not read (KHR_texture_basisu, say)")
            return None
        if index not in self.images:
            self.images[index] = self._read_image(index)
        return self.images[index]

    def _read_image(self, index: Any) -> ndarray | None:
        image = self.document.item("images", index)
        name = str(image.get("name", image.get("uri", index)))[:80]
        if "bufferView" in image:
            data = self.document.view(image["bufferView"])[0]
        elif "uri" in image:
            try:
                data = self.document.resource(image["uri"])
            except ValueError:
                self.notes.add("textures that are not there", name)
                return None
        else:
            return None
        return images.read_bytes(data, name, self.notes)

    def _coordinates(self, attributes: Json, texture: Json, surface: Surface) -> ndarray | None:
        """(V, 2) with v up, as the texture takes them; the first set where there is no texture."""
        transform = texture.get("extensions", {}).get("KHR_texture_transform", {})
        number = transform.get("texCoord", texture.get("texCoord", 0))
        name = f"TEXCOORD_{number}"
        if name not in attributes:
            return None
        uv = self._values(attributes, name, 2)
        if not np.isfinite(uv).all():
            self.notes.add("texture coordinates that are NaN or infinite")
            uv = np.where(np.isfinite(uv), uv, np.nan)
        if transform and surface.image is not None:
            uv = transformed(transform, uv)
        return np.stack([uv[:, 0], 1 - uv[:, 1]], axis=1)


_PLAIN = Surface()


def _as_colours(values: ndarray) -> ndarray:
    """COLOR_0, of which integers ought to be normalised and may not be said to be."""
    return values.clip(0, 1) if values.dtype.kind == "f" else values


def _faces(index: ndarray, mode: int) -> ndarray:
    """(F, 3) of triangles, a strip or a fan."""
    if mode == _TRIANGLES:
        return index[: len(index) // 3 * 3].reshape(-1, 3)
    n = max(len(index) - 2, 0)
    if mode == _FAN:
        return np.stack([index[:1].repeat(n), index[1 : 1 + n], index[2 : 2 + n]], axis=1)
    if mode != _STRIP:
        raise ValueError(f"has a primitive of unknown mode {mode}")
    faces = np.stack([index[:n], index[1 : 1 + n], index[2 : 2 + n]], axis=1)
    faces[1::2] = faces[1::2, [1, 0, 2]]
    return faces
