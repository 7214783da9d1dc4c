"""Numbers, faces and matrices as NumPy, Python or torch hold them: taken, or refused by name.

Whatever is taken means the same as the tensor or number of Python's that it stands for; whatever is
not is refused before a kernel runs, by an error that names the argument.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

import taichi_raster as tr

pytestmark = pytest.mark.runs_on(arch="cpu", precision="f32")

MESH = tr.icosphere(0)
VERTICES, FACES, COUNT = MESH.vertices[None], MESH.faces, len(MESH.vertices)
COLOURS = torch.rand(1, len(FACES), 3, 3, generator=torch.Generator().manual_seed(0))
CAMERA = tr.PerspectiveCamera(tr.look_at((0.3, 0.4, 2.5)))
LIGHTS = (tr.AmbientLight(0.3), tr.DirectionalLight())

# Faces --------------------------------------------------------------------------------------------

TAKE_FACES: dict[str, Callable[[Any], Any]] = {
    "Mesh": lambda f: tr.Mesh(VERTICES[0], f).faces,
    "Mesh.uv_faces": lambda f: tr.Mesh(VERTICES[0], FACES, VERTICES[0, :, :2], f).uv_faces,
    "EdgeLengthLoss": lambda f: tr.EdgeLengthLoss(f, COUNT)(VERTICES),
    "FlatteningLoss": lambda f: tr.FlatteningLoss(f, COUNT)(VERTICES),
    "LaplacianLoss": lambda f: tr.LaplacianLoss(f, COUNT)(VERTICES),
    "NormalConsistencyLoss": lambda f: tr.NormalConsistencyLoss(f, COUNT)(VERTICES),
    "SmoothOffsets": lambda f: tr.SmoothOffsets(tr.Mesh(VERTICES[0], f), 1.0).smooth(VERTICES),
    "collate": lambda f: tr.collate([tr.Mesh(VERTICES[0], f), tr.box()]).faces,
    "gather_faces": lambda f: tr.gather_faces(VERTICES, f),
    "project_faces": lambda f: CAMERA.project_faces(VERTICES, f).vertices,
    "sample_surface": lambda f: tr.sample_surface(VERTICES, f, 5, torch.Generator().manual_seed(0)),
    "shade_flat": lambda f: tr.shade_flat(VERTICES, f, COLOURS, LIGHTS),
    "shade_gouraud": lambda f: tr.shade_gouraud(VERTICES, f, COLOURS, LIGHTS),
    "surface_attributes": lambda f: tr.surface_attributes(VERTICES, f, COLOURS),
    "surface_distance": lambda f: tr.surface_distance(torch.ones(1, 2, 3), VERTICES, f),
    "subdivide": lambda f: tr.subdivide(tr.Mesh(VERTICES[0], f)).faces,
    "vertex_normals": lambda f: tr.vertex_normals(VERTICES, f),
    "volume": lambda f: tr.volume(VERTICES, f),
    "voxelise": lambda f: tr.voxelise(VERTICES, f, 4),
}


def as_array(faces: Tensor, kind: str) -> np.ndarray:
    return faces.numpy().astype(kind)


SAME_FACES: dict[str, Callable[[Tensor], Any]] = {
    **{
        str(dtype): partial(Tensor.to, dtype=dtype)
        for dtype in (
            torch.uint8,
            torch.int8,
            torch.int16,
            torch.int32,
            torch.uint16,
            torch.uint32,
            torch.uint64,
        )
    },
    **{
        f"numpy.{kind}": partial(as_array, kind=kind)
        for kind in (
            "uint8",
            "int8",
            "int16",
            "uint16",
            "int32",
            "uint32",
            "int64",
            "uint64",
            ">i4",
        )
    },
    "lists": Tensor.tolist,
    "tuples": lambda f: tuple(map(tuple, f.tolist())),
    "an array backwards": lambda f: f.flip(0).numpy()[::-1],
}


@pytest.mark.parametrize("name", TAKE_FACES)
@pytest.mark.parametrize("kind", SAME_FACES)
def test_faces_of_any_integers_mean_the_same(name: str, kind: str) -> None:
    expected = TAKE_FACES[name](FACES)
    assert torch.equal(TAKE_FACES[name](SAME_FACES[kind](FACES)), expected)


BAD_FACES: dict[str, Any] = {
    "floats": FACES.float(),
    "booleans": torch.ones(2, 3, dtype=torch.bool),
    "an array of floats": FACES.numpy().astype(float),
    "lists of floats": [[0.0, 1.0, 2.0]],
    "uneven lists": [[0, 1, 2], [0, 1]],
    "text": "faces",
    "None": None,
    "an index too large": FACES + COUNT,
    "a large unsigned one": np.full((1, 3), 2**32 - 1, "u4"),
    "one beyond int64": np.full((1, 3), 2**64 - 1, "u8"),
    "one beyond int64, of torch": torch.full((1, 3), 2**64 - 1, dtype=torch.uint64),
    "no faces": [],
    "quadrilaterals": [[0, 1, 2, 3]],
}


@pytest.mark.parametrize("name", TAKE_FACES)
@pytest.mark.parametrize("kind", BAD_FACES)
def test_other_faces_are_refused_by_name(name: str, kind: str) -> None:
    if name == "Mesh.uv_faces" and BAD_FACES[kind] is None:
        pytest.skip("None means the faces' own")
    with pytest.raises((TypeError, ValueError), match=r"^(uv_)?faces: "):
        TAKE_FACES[name](BAD_FACES[kind])


def test_all_that_takes_faces_is_tested() -> None:
    taking = {
        name
        for name in tr.__all__
        if callable(part := getattr(tr, name))
        and "faces" in inspect.signature(part).parameters
        and name not in ("MeshBatch", "ClippedFaces", "ProjectedFaces")
    }
    assert taking <= set(TAKE_FACES)


# Cameras ------------------------------------------------------------------------------------------

MATRIX = [[500, 0, 250], [0, 510, 260], [0, 0, 1]]
ROTATION, TRANSLATION = torch.eye(3).tolist(), [0.1, 0.2, 2.5]


def seen(camera: tr.Camera) -> Tensor:
    return camera.project(VERTICES)


@pytest.mark.parametrize(
    "matrix",
    [
        MATRIX,
        np.array(MATRIX),
        np.array(MATRIX, "f4"),
        np.array(MATRIX, float),
        torch.tensor(MATRIX),
        [MATRIX],
        np.array([MATRIX]),
        tuple(map(tuple, MATRIX)),
        (500, 510, 250, 260),
        np.array([500, 510, 250, 260]),
        torch.tensor([500, 510, 250, 260]),
        [np.float32(500), torch.tensor(510), 250, torch.tensor([260.0])],
    ],
    ids=lambda m: type(m).__name__,
)
def test_an_intrinsics_matrix_is_a_tensor_an_array_or_lists(matrix: Any) -> None:
    expected = seen(
        tr.conventions.from_opencv(
            torch.tensor([ROTATION]), torch.tensor([TRANSLATION]), torch.tensor(MATRIX).float(), 512
        )
    )
    makes: list[Callable[[Any], Any]] = [lambda v: v, np.array, torch.tensor]
    for make in makes:
        made = tr.conventions.from_opencv(make([ROTATION]), make([TRANSLATION]), matrix, 512)
        torch.testing.assert_close(seen(made), expected)


def test_four_matrices_in_a_list_are_not_four_numbers() -> None:
    view = tr.orbit(2.5, 10.0, [0.0, 10.0, 20.0, 30.0])
    made = tr.conventions.from_intrinsics(view, [MATRIX] * 4, 512)
    assert torch.equal(seen(made), seen(tr.conventions.from_intrinsics(view, MATRIX, 512)))


def test_tensors_in_a_sequence_keep_their_gradients() -> None:
    focal = torch.tensor([1.3, 1.7], requires_grad=True)
    camera = tr.PinholeCamera(tr.look_at([0.0, focal[0], 2.5]), (focal[0], focal[1]))
    (gradient,) = torch.autograd.grad(seen(camera).square().sum(), focal)
    assert bool((gradient != 0).all())


@pytest.mark.parametrize("matrix", ["K", None, 500.0, [1, 2, 3], [["a"] * 3] * 3, np.eye(4), True])
def test_another_intrinsics_matrix_is_refused_by_name(matrix: Any) -> None:
    with pytest.raises((TypeError, ValueError), match=r"^matrix: "):
        tr.conventions.from_intrinsics(CAMERA.view, matrix, 512)


# Numbers ------------------------------------------------------------------------------------------

HALF, FOUR, YES = np.float32(0.5), np.int64(4), np.bool_(True)


def renderer(**options: Any) -> dict[str, Any]:
    made = tr.SoftRasterizer(**options)
    assert all(type(value) is not np.bool_ for value in vars(made).values())
    names = ("image_size", "near", "far", "antialias", "threshold", "cutoff", "cull_backfaces")
    return {name: getattr(made, name) for name in names}


# What is made with a number, and the same with the number of Python's.
NUMBERS: dict[str, tuple[Callable[[Any], Any], Any]] = {
    "image_size": (lambda n: renderer(image_size=n), FOUR),
    "height and width": (lambda n: renderer(image_size=(n, n)), FOUR),
    "near": (lambda n: renderer(near=n), HALF),
    "cutoff": (lambda n: renderer(cutoff=n), HALF),
    "threshold": (lambda n: renderer(threshold=n), HALF),
    "antialias": (lambda n: renderer(antialias=n), FOUR),
    "cull_backfaces": (lambda n: renderer(cull_backfaces=n), YES),
    "background": (lambda n: tr.SoftRasterizer(background=n).background, HALF),
    "backgrounds": (lambda n: tr.SoftRasterizer(background=[n, n]).background, HALF),
    "Constant": (lambda n: tr.Constant(n).value, HALF),
    "Geometric": (lambda n: tr.Geometric(n, n).start, HALF),
    "Knots": (lambda n: tr.Knots([n, n]).log_values, HALF),
    "scale": (lambda n: tr.Distribution("logistic", n).scale.value, HALF),
    "shift": (lambda n: tr.Distribution("logistic", shift=n).shift.value, HALF),
    "squared": (lambda n: tr.Distribution("logistic", squared=n).squared, YES),
    "gamma": (lambda n: tr.SoftmaxDepth(n).gamma.value, HALF),
    "background_z": (lambda n: tr.SoftmaxDepth(background_z=n).background_z, HALF),
    "p": (lambda n: tr.TConorm("yager", n).at(torch.ones(())), HALF),
    "widths": (lambda n: tr.MLPDepth([n, n]).network, FOUR),
    "steps": (lambda n: tr.Softening(tr.Distribution("logistic"), steps=n).steps, FOUR),
    "progress": (
        lambda n: tr.Softening(
            tr.Distribution("logistic"), lr=tr.Geometric(1.0, 0.1)
        ).learning_rate(n),
        HALF,
    ),
    "fov": (lambda n: seen(tr.PerspectiveCamera(CAMERA.view, n)), HALF),
    "focal": (lambda n: seen(tr.PinholeCamera(CAMERA.view, (n, n))), HALF),
    "eye": (lambda n: tr.look_at((n, n, n)), HALF),
    "distance": (lambda n: tr.orbit(n, n, n), HALF),
    "radius": (lambda n: tr.normalise(MESH, n).vertices, HALF),
    "subdivisions": (lambda n: tr.icosphere(n).vertices, np.int8(1)),
    "sectors": (lambda n: tr.uv_sphere(n, n, np.float32(0.5)).faces, FOUR),
    "resolution": (lambda n: tr.voxelise(VERTICES, FACES, n), FOUR),
    "count": (
        lambda n: tr.sample_surface(VERTICES, FACES, n, torch.Generator().manual_seed(0)),
        FOUR,
    ),
    "vertex_count": (lambda n: tr.LaplacianLoss(FACES, n)(VERTICES), np.int64(COUNT)),
    "target": (lambda n: tr.EdgeLengthLoss(FACES, COUNT, n)(VERTICES), HALF),
    "smoothing": (lambda n: tr.SmoothOffsets(MESH, n).smooth(VERTICES), HALF),
    "specular": (
        lambda n: tr.shade_flat(
            VERTICES, FACES, COLOURS, LIGHTS, (0.0, 0.0, 3.0), tr.Material(n, n)
        ),
        HALF,
    ),
    "aspect_ratio": (
        lambda n: seen(
            tr.conventions.from_pytorch3d(torch.eye(3)[None], torch.ones(1, 3), 40.0, n)
        ),
        HALF,
    ),
    "viewing_angle": (lambda n: seen(tr.conventions.from_softras(2.5, n, n, n)), HALF),
    "dist_scale": (lambda n: tr.published.gendr(dist_scale=n).cutoff, HALF),
}


def same(a: Any, b: Any) -> bool:
    return torch.equal(a, b) if isinstance(a, Tensor) else a == b and type(a) is type(b)


@pytest.mark.parametrize("name", NUMBERS)
def test_numbers_of_numpys_mean_the_same(name: str) -> None:
    make, value = NUMBERS[name]
    assert same(make(value), make(value.item()))


@pytest.mark.parametrize("name", NUMBERS)
@pytest.mark.parametrize("value", ["0.5", "x", {}, b"1", 1j], ids=repr)
def test_what_is_no_number_is_refused_by_name(name: str, value: Any) -> None:
    with pytest.raises((TypeError, ValueError), match=r"^\w+: ") as caught:
        NUMBERS[name][0](value)
    known = {
        *name.split(),
        "image_size",
        "background",
        "start",
        "values",
        "value",
        "elevation",
        "rings",
        "scale",
        "shininess",
    }
    assert str(caught.value).partition(":")[0] in known


@pytest.mark.parametrize("option", ["edge", "depth", "alpha"])
@pytest.mark.parametrize("value", [0, 0.0, False, "", [], {}], ids=repr)
def test_what_python_takes_for_false_is_no_default(option: str, value: Any) -> None:
    for make in (
        lambda: tr.SoftRasterizer(**{option: value}),
        lambda: tr.Softening(**{"edge": tr.Distribution("logistic"), option: value}),
    ):
        with pytest.raises(TypeError, match=f"^{option}: expected a"):
            make()


def test_notes_are_not_dropped(tmp_path: Path) -> None:
    with pytest.raises(TypeError, match=r"^notes: "):
        tr.save_softness(tmp_path / "s.safetensors", tr.Distribution("logistic"), 0)  # type: ignore[arg-type]


# Files --------------------------------------------------------------------------------------------


def test_paths_are_texts_or_paths(tmp_path: Path) -> None:
    for kind in (str, Path):
        tr.save_mesh(kind(tmp_path / "m.obj"), MESH)
        tr.save_softness(kind(tmp_path / "s.safetensors"), tr.Distribution("logistic"))
        assert tr.load_mesh(kind(tmp_path / "m.obj")).faces.shape == FACES.shape
        tr.load_softness(kind(tmp_path / "s.safetensors"))
        tr.save_softening(
            kind(tmp_path / "g.safetensors"), tr.Softening(tr.Distribution("logistic"))
        )
        tr.load_softening(kind(tmp_path / "g.safetensors"))
        tr.save_policy(kind(tmp_path / "p.safetensors"), tr.SofteningPolicy())
        tr.load_policy(kind(tmp_path / "p.safetensors"))


@pytest.mark.parametrize("path", [None, 3, ["a"]], ids=repr)
def test_what_is_no_path_is_refused_by_name(path: Any) -> None:
    edge = tr.Distribution("logistic")
    for use in (
        tr.load_mesh,
        tr.load_softness,
        tr.load_softening,
        tr.load_policy,
        tr.load_capture,
        tr.load_camera,
        tr.read_video,
        lambda p: tr.save_mesh(p, MESH),
        lambda p: tr.save_softness(p, edge),
        lambda p: tr.save_softening(p, tr.Softening(edge)),
        lambda p: tr.save_policy(p, tr.SofteningPolicy()),
    ):
        with pytest.raises(TypeError, match=r"^path: "):
            use(path)


@pytest.mark.parametrize("value", [None, "mesh", VERTICES])
def test_what_is_no_mesh_is_refused_by_name(value: Any) -> None:
    for use in (
        tr.normalise,
        tr.subdivide,
        lambda m: tr.collate([m]),
        lambda m: tr.SmoothOffsets(m, 1.0),
        lambda m: tr.save_mesh("m.obj", m),
    ):
        with pytest.raises(TypeError, match=r"^mesh(es)?: "):
            use(value)


@pytest.mark.parametrize(
    ("name", "use"),
    [
        ("vertices", CAMERA.project),
        ("vertices", lambda v: tr.gather_faces(v, FACES)),
        ("vertices", lambda v: tr.Mesh(v, FACES)),
        ("vertices", lambda v: tr.volume(v, FACES)),
        ("vertices", tr.LaplacianLoss(FACES, COUNT)),
        ("vertices", lambda v: tr.vertex_normals(v, FACES)),
        ("vertices", lambda v: tr.voxelise(v, FACES)),
        ("corners", tr.face_normals),
        ("corners", tr.clip_near),
        ("points_a", lambda v: tr.chamfer_distance(v, VERTICES)),
        ("predicted", lambda v: tr.mse(v, VERTICES)),
        ("xy", lambda v: tr.lift_triangles(v, torch.ones(1))),
        ("image", lambda v: tr.shade_image(v, LIGHTS)),
        ("face_vertices", lambda v: tr.SharpRasterizer(4)(v, None)),
        ("face_vertices", lambda v: tr.hard_buffers(v, 4)),
        ("face_vertices", lambda v: tr.sampled_picture(v, None, 4)),
    ],
)
@pytest.mark.parametrize("value", [VERTICES.numpy(), VERTICES.tolist(), None], ids=type)
def test_positions_are_tensors(name: str, use: Callable[[Any], Any], value: Any) -> None:
    with pytest.raises(TypeError, match=f"^{name}: expected a torch.Tensor, got"):
        use(value)
