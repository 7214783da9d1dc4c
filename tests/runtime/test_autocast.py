"""Under `torch.autocast`, everything is bit for bit what it is without: values and derivatives.

A case for each public name that computes with tensors; a new one gets a case, or a place in
`WITHOUT_TENSORS`.
"""

from __future__ import annotations

import ast
from collections.abc import Callable
from contextlib import nullcontext

import pytest
import torch
from torch import Tensor

import taichi_raster as tr
from paths import ROOT
from taichi_raster.runtime.precision import product
from taichi_raster.scene.sampling import sample

pytestmark = pytest.mark.runs_on(arch=("cpu", "cuda"), precision="f32")

PACKAGE = ROOT / "taichi_raster"
FACES = tr.icosphere(1).faces
Scene = dict[str, Tensor]


def scene(device: str) -> Scene:
    """Numbers to compute with, none of which bfloat16 or float16 can hold exactly."""
    g = torch.Generator().manual_seed(0)
    vertices = tr.icosphere(1).vertices[None] * torch.tensor([[[0.7]], [[0.9]]])
    made = {
        "vertices": vertices + 0.02 * torch.randn(vertices.shape, generator=g),
        "eye": torch.tensor([[0.3, 0.4, 2.7], [1.1, 0.2, 2.2]]),
        "colours": torch.rand((2, len(FACES), 3, 3), generator=g),
        "points": torch.randn((2, 30, 3), generator=g),
        "rotation": tr.orbit(1.0, [20.0, 30.0], [40.0, 50.0])[:, :3, :3],
        "translation": torch.tensor([[0.1, -0.2, 2.7], [0.05, 0.1, 2.9]]),
        "numbers": torch.tensor([2.7, 2.9]),
        "texels": torch.rand((1, len(FACES), 2, 2, 3), generator=g),
        "uv": torch.rand((1, len(FACES), 3, 2), generator=g),
        "image": torch.rand((1, 5, 6, 3), generator=g),
        "weights": tr.MLPSoftness((2, 2), init=None).weights.detach().float(),
    }
    return {name: value.to(device).requires_grad_() for name, value in made.items()}


def faces_of(x: Scene) -> Tensor:
    return tr.gather_faces(camera(x).project(x["vertices"]), FACES)


def camera(x: Scene) -> tr.PerspectiveCamera:
    return tr.PerspectiveCamera(tr.look_at(x["eye"]), 41.3)


def seen_by(make: Callable[[Scene], tr.Camera]) -> Callable[[Scene], Tensor]:
    def see(x: Scene) -> Tensor:
        seen = make(x)
        found = seen.project_faces(x["vertices"], FACES, x["colours"], near=1.9).vertices
        return torch.cat([found.flatten(1), seen.towards_eye(x["vertices"]).flatten(1)], 1)

    return see


def lit(shade: Callable[..., Tensor]) -> Callable[[Scene], Tensor]:
    def light(x: Scene) -> Tensor:
        lights = [tr.AmbientLight(0.2), tr.DirectionalLight((1.0, 2.0, 3.0)), tr.PointLight()]
        glossy = tr.Material(0.3, two_sided=True)
        return shade(x["vertices"], FACES, x["colours"], lights, camera(x).eye, glossy)

    return light


def plain(edge: tr.EdgeSoftness | None = None, antialias: int = 1) -> tr.SoftRasterizer:
    """Of few kernels, where it is another part that computes."""
    return tr.SoftRasterizer(6, edge, tr.HardDepth(), antialias=antialias)


def shaded_image(x: Scene) -> Tensor:
    surface = tr.surface_attributes(x["vertices"], FACES, x["colours"])
    seen = plain()(faces_of(x), surface)
    return tr.shade_image(seen, [tr.PointLight()], camera(x).eye, tr.Material(0.3))


def smoothed(x: Scene) -> Tensor:
    surface = tr.SmoothOffsets(tr.icosphere(1), 3.3).to(x["vertices"].device)
    return torch.func.functional_call(surface, {"offsets": x["vertices"][0]}, ())


def joined(x: Scene) -> tr.Mesh:
    vertices = x["vertices"][0]
    image = vertices[:12].reshape(3, 4, 3)
    return tr.join([tr.Mesh(vertices, FACES, vertices[:, :2] + i, None, image + i) for i in (0, 1)])


def stepped(x: Scene) -> Tensor:
    def seen(vertices: Tensor) -> tuple[Tensor, Tensor]:
        return camera(x).project(vertices), product(vertices, x["rotation"])

    vertices = x["vertices"]
    return tr.image_steps(seen, [vertices], [vertices.sin()], 0.023, 0.31, depth_unit=1.7)[0]


def outlined(x: Scene) -> Tensor:
    eye = tr.PerspectiveCamera(tr.look_at(x["eye"][:1]), 41.3)

    def points(moves: Tensor) -> Tensor:
        return eye.project(x["vertices"][:1] + product(moves[:, None], x["rotation"][:1]))

    def draw(points: Tensor) -> Tensor:
        return tr.SharpRasterizer((5, 6))(tr.gather_faces(points, FACES), None)[..., 0]

    target = x["image"][..., 0]
    unknowns = torch.zeros_like(target[:, 0, :3])
    return tr.outline_step(points, unknowns, draw, target, tr.signed_distance(target)).step


def rendered(**parts: object) -> Callable[[Scene], Tensor]:
    def render(x: Scene) -> Tensor:
        return tr.SoftRasterizer(6, **parts)(faces_of(x), x["colours"])  # type: ignore[arg-type]

    return render


def textured(x: Scene) -> Tensor:
    faces = faces_of(x)
    draw = plain(antialias=2)
    flat = draw(faces, tr.SurfaceTexture(x["texels"]))
    return flat + draw(faces, tr.UVTexture(x["uv"], x["image"]))


def rendered_trilinearly(x: Scene) -> Tensor:
    kept = tr.mipmaps(x["image"])
    shown = tr.UVTexture(x["uv"], x["image"], filter="trilinear", mipmaps=kept)
    return plain()(faces_of(x), shown)


def by_network(edge: tr.EdgeSoftness, name: str) -> Callable[[Scene], Tensor]:
    def render(x: Scene) -> Tensor:
        draw = plain(edge)
        return torch.func.functional_call(draw, {name: x["weights"]}, (faces_of(x), x["colours"]))

    return render


def buffers(x: Scene) -> Tensor:
    found = tr.hard_buffers(faces_of(x), 6)
    return torch.cat([found.barycentrics, sample(x["colours"], found.face, found.barycentrics)], -1)


def intrinsics(x: Scene) -> tr.Camera:
    matrix = torch.tensor([[511.7, 0.3, 255.9], [0.0, 509.3, 257.1], [0.0, 0.0, 1.0]])
    return tr.conventions.from_opencv(x["rotation"], x["translation"], matrix, 512)


def through(make: Callable[[Tensor], tr.Lens]) -> Callable[[Scene], tr.Camera]:
    """A camera with a lens; all of its faces are within it."""
    return lambda x: tr.PerspectiveCamera(
        tr.look_at(2 * x["eye"]), 41.3, lens=make(-0.031 * x["numbers"])
    )


def moved(x: Scene) -> tr.Pose:
    pose = tr.Pose.from_six(x["points"][:, :2].flatten(1), x["translation"])
    unknowns = 0.1 * torch.cat([x["eye"], x["translation"]], dim=-1)
    return pose.moved(unknowns, *tr.centre_and_size(x["vertices"]))


CASES: dict[str, Callable[[Scene], Tensor]] = {
    "BrownConradyLens": seen_by(through(tr.BrownConradyLens)),
    "DistributionDepth": rendered(depth=tr.DistributionDepth("gaussian", 0.1)),
    "EdgeLengthLoss": lambda x: tr.EdgeLengthLoss(FACES, 42, None)(x["vertices"]),
    "FlatteningLoss": lambda x: tr.FlatteningLoss(FACES, 42)(x["vertices"]),
    "HardDepth": rendered(depth=tr.HardDepth()),
    "KannalaBrandtLens": seen_by(through(tr.KannalaBrandtLens)),
    "LaplacianLoss": lambda x: tr.LaplacianLoss(FACES, 42)(x["vertices"]),
    "MLPDepth": rendered(depth=tr.MLPDepth((2, 2), gamma=0.1)),
    "MLPSoftness": by_network(tr.MLPSoftness((2, 2)), "edge.weights"),
    "NormalConsistencyLoss": lambda x: tr.NormalConsistencyLoss(FACES, 42)(x["vertices"]),
    "OrthographicCamera": seen_by(lambda x: tr.OrthographicCamera(tr.look_at(x["eye"]), 1.3)),
    "OverDepth": rendered(depth=tr.OverDepth(0.1)),
    "PerspectiveCamera": seen_by(camera),
    "Pose": lambda x: moved(x).opengl,
    "PinholeCamera": seen_by(lambda x: tr.PinholeCamera(tr.look_at(x["eye"]), (1.3, 1.7))),
    "SharpRasterizer": lambda x: tr.SharpRasterizer(6)(faces_of(x), x["colours"]),
    "SoftRasterizer": rendered(),
    "SurfaceTexture": textured,
    "TConorm": rendered(alpha=tr.TConorm("yager", 1.7)),
    "TabulatedSoftness": by_network(tr.tabulate(tr.MLPSoftness((2, 2))), "edge.edge.weights"),
    "area_average": lambda x: tr.area_average(x["image"], (3, 4)),
    "at_size": lambda x: tr.at_size(tr.SoftRasterizer((7, 9)), (5, 6))(faces_of(x), x["colours"]),
    "mipmaps": rendered_trilinearly,
    "pad_texture": lambda x: tr.pad_texture(x["image"], x["uv"]),
    "chamfer_distance": lambda x: tr.chamfer_distance(x["points"], x["vertices"]),
    "clip_near": lambda x: tr.clip_near(tr.gather_faces(x["vertices"], FACES), (), 0.1).corners,
    "face_normals": lambda x: tr.face_normals(tr.gather_faces(x["vertices"], FACES)),
    "from_opencv": seen_by(intrinsics),
    "from_opengl": seen_by(
        lambda x: tr.conventions.from_opengl(
            torch.linalg.inv(tr.look_at(x["eye"])).mT,
            torch.tensor([[1.7, 0, 0.1, 0], [0, 1.3, 0.1, 0], [0, 0, -1.1, -0.2], [0, 0, -1, 0]]),
            (64, 48),
        )
    ),
    "from_projections": seen_by(
        lambda x: tr.conventions.from_projections(
            torch.cat([x["rotation"], x["translation"][..., None]], dim=-1), 512, left_handed=False
        )[0]
    ),
    "from_pytorch3d": seen_by(
        lambda x: tr.conventions.from_pytorch3d(x["rotation"], x["translation"], 40.3)
    ),
    "from_softras": seen_by(lambda x: tr.conventions.from_softras(x["numbers"], 20.3, 31.7)),
    "hard_buffers": buffers,
    "join": lambda x: joined(x).uv_texture().uv,
    "image_steps": stepped,
    "lift_triangles": lambda x: tr.lift_triangles(
        x["vertices"][:, FACES, :2], x["numbers"][:, None].expand(2, len(FACES))
    ),
    "mse": lambda x: tr.mse(x["points"], x["points"].flip(1)),
    "normalise": lambda x: tr.normalise(tr.Mesh(x["vertices"][0], FACES)).vertices,
    "orbit": seen_by(lambda x: tr.PerspectiveCamera(tr.orbit(x["numbers"], 20.3, 31.7))),
    "outline_step": outlined,
    "GuidedSoftening": lambda x: tr.GuidedSoftening(
        tr.SofteningPolicy(), x["colours"][:1, ..., 0], x["colours"][1:, ..., 0]
    ).edge.scale(torch.tensor(0.5)),
    "picture_start": lambda x: (
        tr.picture_start(x["colours"][:1, ..., 0], x["colours"][1:, ..., 0], 7).distance
    ),
    "product": lambda x: product(x["vertices"], x["rotation"]),
    "proxy_mesh": lambda x: tr.proxy_mesh(tr.Mesh(x["vertices"][0], FACES), 0.4).vertices,
    "sample_surface": lambda x: tr.sample_surface(
        x["vertices"], FACES, 20, torch.Generator().manual_seed(1)
    ),
    "sampled_picture": lambda x: tr.sampled_picture(faces_of(x), x["colours"], 6, 2),
    "shade_flat": lit(tr.shade_flat),
    "shade_gouraud": lit(tr.shade_gouraud),
    "shade_image": shaded_image,
    "coverage_iou_loss": lambda x: tr.coverage_iou_loss(*x["colours"][..., 0].split(1)),
    "silhouette_iou_loss": lambda x: tr.silhouette_iou_loss(*x["colours"][..., 0].split(1)),
    "SmoothOffsets": smoothed,
    "subdivide": lambda x: tr.subdivide(tr.Mesh(x["vertices"][0], FACES)).vertices,
    "surface_distance": lambda x: tr.surface_distance(x["points"], x["vertices"], FACES),
    "undistort": lambda x: tr.undistort(x["image"], through(tr.BrownConradyLens)(x)),
    "untuned_softening": lambda x: tr.untuned_softening(
        x["colours"][:1, ..., 0], x["colours"][1:, ..., 0]
    ).edge.scale(torch.tensor(0.5)),
    "vertex_normals": lambda x: tr.vertex_normals(x["vertices"], FACES, "angle"),
    "volume": lambda x: tr.volume(x["vertices"], FACES),
    "voxelise": lambda x: tr.voxelise(x["vertices"], FACES, 8).float(),
}

ELSEWHERE = {
    "AmbientLight": "shade_flat",
    "Camera": "PerspectiveCamera",
    "ClippedFaces": "clip_near",
    "Constant": "SoftRasterizer",
    "Descent": "image_steps",  # what a step computes is torch's, and the user's
    "Step": "image_steps",
    "Setting": "GuidedSoftening",
    "SofteningPolicy": "GuidedSoftening",
    "DepthSoftness": "SoftRasterizer",
    "DirectionalLight": "shade_flat",
    "Distribution": "SoftRasterizer",
    "EdgeSoftness": "SoftRasterizer",
    "HardBuffers": "hard_buffers",
    "ImageSteps": "image_steps",
    "Lens": "BrownConradyLens",
    "Material": "shade_flat",
    "Mesh": "normalise",
    "PictureStart": "picture_start",
    "PointLight": "shade_flat",
    "ProjectedFaces": "PerspectiveCamera",
    "SoftmaxDepth": "SoftRasterizer",
    "UVTexture": "SurfaceTexture",
    "centre_and_size": "Pose",
    "conventions": "from_opencv",
    "gather_faces": "SoftRasterizer",
    "illuminate": "shade_flat",
    "nearest_texels": "pad_texture",
    "look_at": "PerspectiveCamera",
    "OutlineStep": "outline_step",
    "outline_distance": "picture_start",
    "signed_distance": "outline_step",
    "surface_attributes": "shade_image",
    "tabulate": "TabulatedSoftness",
}
WITHOUT_TENSORS = {
    # of schedules, numbers; of files; of meshes, by NumPy; of booleans
    "Capture",
    "Geometric",
    "Knots",
    "Rest",
    "ReportView",
    "PoseFit",
    "PosesFit",
    "fit_pose",
    "TrackedPose",
    "track_pose",
    "read_video",
    "fit_poses",
    "ShapeFit",
    "TextureFit",
    "fit_mesh",
    "fit_texture",
    "refine_cameras",
    "outline_iou",
    "simplified",
    "texture_from_photos",
    "visual_hull",
    "write_report",
    "unwrap",
    "UniformAdam",  # without products of matrices
    "Schedule",
    "coarse_size",
    "Softening",
    "MeshBatch",
    "collate",
    "in_runtime_thread",
    "load_camera",
    "load_capture",
    "load_mesh",
    "Photo",
    "save_capture",
    "save_mesh",
    "load_policy",
    "load_softening",
    "load_softness",
    "save_policy",
    "save_softening",
    "save_softness",
    "pretrained",
    "pretrained_names",
    "universal_policy",
    "published",
    "Runtime",
    "init",
    "runtime",
    "derivatives_by",
    "blob",
    "box",
    "capsule",
    "cone",
    "cylinder",
    "icosphere",
    "plane",
    "star",
    "superquadric",
    "torus",
    "torus_knot",
    "uv_sphere",
    "voxel_iou",
}


def found(name: str, x: Scene, forward: object, backward: object) -> list[Tensor | None]:
    """The value; the gradients of a sum of it; and the gradients of a sum of these."""
    case, first_alone = CASES[name], name == "SharpRasterizer"
    with forward:  # type: ignore[attr-defined]
        value = case(x)
    with backward:  # type: ignore[attr-defined]
        if not value.requires_grad:
            return [value]
        inputs = list(x.values())
        weight = torch.linspace(0.3, 1.7, value.numel(), device=value.device).view(value.shape)
        first = torch.autograd.grad(
            (weight * value).sum(), inputs, create_graph=True, allow_unused=True
        )
        total = sum(((g + 0.3) ** 2).sum() for g in first if g is not None)
        second: tuple[Tensor | None, ...] = (None,) * len(inputs)
        if isinstance(total, Tensor) and total.requires_grad:
            if first_alone:
                with pytest.raises(NotImplementedError):
                    torch.autograd.grad(total, inputs, allow_unused=True)
            else:
                second = torch.autograd.grad(total, inputs, allow_unused=True)
        return [value, *first, *second]


def assert_same(expected: Tensor, value: Tensor, name: str) -> None:
    """Equal to the last bit, except where threads add in whatever order they get there."""
    if name in ("SurfaceTexture", "mipmaps") or expected.is_cuda:
        size = float(expected.detach().abs().max())
        torch.testing.assert_close(value, expected, rtol=0, atol=1e-5 * size)
    else:
        assert torch.equal(value, expected)


def on_a_gpu() -> bool:
    """Whether tensors can be: torch may have no CUDA where Taichi has."""
    return tr.runtime().arch == "cuda" and torch.cuda.is_available()


def autocast() -> torch.autocast:
    on_gpu = on_a_gpu()
    dtype = torch.float16 if on_gpu else torch.bfloat16
    return torch.autocast("cuda" if on_gpu else "cpu", dtype=dtype)


@pytest.mark.parametrize("inside", ["both passes", "forward", "backward"])
@pytest.mark.parametrize("name", CASES)
def test_autocast_changes_nothing(name: str, inside: str) -> None:
    x = scene("cuda" if on_a_gpu() else "cpu")
    plain = found(name, x, nullcontext(), nullcontext())
    forward = nullcontext() if inside == "backward" else autocast()
    backward = nullcontext() if inside == "forward" else autocast()
    for expected, value in zip(plain, found(name, x, forward, backward), strict=True):
        assert (expected is None) == (value is None)
        if expected is not None and value is not None:
            assert_same(expected, value, name)


def test_every_public_name_has_a_case() -> None:
    named = set(CASES) | set(ELSEWHERE) | WITHOUT_TENSORS
    public = {*tr.__all__, *(n for n in vars(tr.conventions) if n.startswith("from_"))}
    assert not public - named - {"from_intrinsics"} and set(ELSEWHERE.values()) <= set(CASES)


def test_matrices_are_multiplied_by_product_alone() -> None:
    """Whatever autocast would round: `@`, and torch's functions that come to the same."""
    rounded = {
        "matmul",
        "mm",
        "bmm",
        "mv",
        "addmm",
        "baddbmm",
        "addmv",
        "einsum",
        "tensordot",
        "linear",
        "Linear",
        "chain_matmul",
        "multi_dot",
        "conv1d",
        "conv2d",
    }
    numpy = {"procedural.py", "network_numpy.py", "matrices_numpy.py"}
    numpy |= {"texture.py"}
    for path in PACKAGE.rglob("*.py"):
        if path.name in {"precision.py", *numpy} or "kernels" in path.parts:
            continue
        for node in ast.walk(ast.parse(path.read_text())):
            where = f"{path.name}:{getattr(node, 'lineno', 0)}"
            assert not (isinstance(node, ast.BinOp) and isinstance(node.op, ast.MatMult)), where
            assert not (isinstance(node, ast.Attribute) and node.attr in rounded), where


def test_products_are_differentiated_in_either_mode() -> None:
    g = torch.Generator().manual_seed(0)
    a, b = (
        torch.rand(shape, generator=g, dtype=torch.float64, requires_grad=True)
        for shape in ((5, 3), (2, 3, 4))
    )
    assert torch.equal(product(a, b), a @ b)
    assert torch.autograd.gradcheck(product, (a, b), check_forward_ad=True)
    assert torch.autograd.gradgradcheck(product, (a, b), check_fwd_over_rev=True)
    sparse = torch.eye(5, dtype=torch.float64).to_sparse()
    assert torch.autograd.gradcheck(lambda x: product(sparse, x), (a,), check_forward_ad=True)
    hessian = torch.func.hessian(lambda a: product(a, b.detach()).sin().sum())(a.detach())
    expected = torch.func.hessian(lambda a: (a @ b.detach()).sin().sum())(a.detach())
    torch.testing.assert_close(hessian, expected)


COARSE: dict[str, Callable[[Tensor], object]] = {
    "project": lambda x: tr.PerspectiveCamera(tr.look_at((0, 0, 3.0))).project(x),
    "gather_faces": lambda x: tr.gather_faces(x, FACES),
    "LaplacianLoss": tr.LaplacianLoss(FACES, 42),
    "FlatteningLoss": tr.FlatteningLoss(FACES, 42),
    "Mesh": lambda x: tr.Mesh(x[0], FACES),
    "volume": lambda x: tr.volume(x, FACES),
    "vertex_normals": lambda x: tr.vertex_normals(x, FACES),
    "surface_distance": lambda x: tr.surface_distance(torch.rand(1, 3, 3), x, FACES),
}


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
@pytest.mark.parametrize("name", COARSE)
def test_what_a_network_gives_under_autocast_is_refused(name: str, dtype: torch.dtype) -> None:
    with pytest.raises(TypeError, match=r"^vertices: .*vertices.float\(\).*autocast"):
        COARSE[name](tr.icosphere(1).vertices[None].to(dtype))


@pytest.mark.parametrize(
    ("name", "make"),
    [
        ("eye", tr.look_at),
        ("view", lambda x: tr.PerspectiveCamera(x.expand(1, 4, 3))),
        ("predicted", lambda x: tr.mse(x[None], x[None])),
        ("face_vertices", lambda x: tr.SoftRasterizer(4)(x.expand(1, 1, 3, 3), None)),
        ("points_a", lambda x: tr.chamfer_distance(x.expand(1, 2, 3), x.expand(1, 2, 3))),
        ("corners", lambda x: tr.clip_near(x.expand(1, 1, 3, 3))),
        ("xy", lambda x: tr.lift_triangles(x.expand(1, 1, 3, 3)[..., :2], torch.ones(1))),
    ],
)
def test_the_error_names_the_argument(name: str, make: Callable[[Tensor], object]) -> None:
    with pytest.raises(TypeError, match=rf"^{name}: .*bfloat16.*convert it"):
        make(torch.tensor([0.1, 0.2, 3.0], dtype=torch.bfloat16))
