"""The sharp reference: exact areas, their derivatives, and what hides what."""

from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

import taichi_raster as tr
import twin
from scenes import like, random_faces, relative
from taichi_raster.engine import areas, sight, sight_by_tiles
from taichi_raster.runtime.lru_cache import LRUCache

SIZE = (9, 12)
# For Mesa's Vulkan, kernels of each number of channels take a while to compile, and its loops end
# after 65,535 turns: too few for hundreds of faces in a pixel.
NOT_MESA = pytest.mark.runs_on(arch=("cpu", "cuda"))
OPTIONS: dict[str, Any] = {"near": 0.5, "far": 10.0}


def crowd(seed: int, faces: int = 8, size: float = 0.7) -> tuple[Tensor, Tensor]:
    """Faces that overlap and pass through one another, each of one colour."""
    vertices, attributes = random_faces(seed, batch=1, faces=faces, size=(size / 2, size))
    generator = torch.Generator().manual_seed(seed)
    depths = 2 + 2 * torch.rand(1, faces, 3, generator=generator, dtype=torch.float64)
    vertices = torch.cat([vertices[..., :2], depths[..., None]], dim=-1)
    return vertices, attributes[:, :, :1].expand_as(attributes).contiguous()


def cut(vertices: Tensor, attributes: Tensor, face: int, t: float) -> tuple[Tensor, Tensor]:
    """The same surface with one face cut in two, from a corner to a point of the opposite edge."""
    w = 1 / vertices[0, face, :, 2:]
    whole = torch.cat([vertices[0, face, :, :2], w, attributes[0, face] * w], dim=-1)
    point = (1 - t) * whole[0] + t * whole[1]
    halves = [torch.stack([whole[0], point, whole[2]]), torch.stack([point, whole[1], whole[2]])]
    others = [i for i in range(vertices.shape[1]) if i != face]
    found = torch.stack(halves)
    xyz = torch.cat([found[..., :2], 1 / found[..., 2:3]], dim=-1)
    return (
        torch.cat([vertices[:, others], xyz[None]], dim=1),
        torch.cat([attributes[:, others], (found[..., 3:] / found[..., 2:3])[None]], dim=1),
    )


def samples(vertices: Tensor, attributes: Tensor, size: tuple[int, int], n: int) -> Tensor:
    """The average over n x n points a pixel, each of the colour of the nearest face there."""
    height, width = size
    buffers = tr.hard_buffers(vertices, (n * height, n * width), **OPTIONS)
    hit = buffers.face >= 0
    colour = attributes[0, buffers.face.clamp(min=0), 0] * hit[..., None]
    image = torch.cat([colour, hit[..., None].to(colour)], dim=-1)
    return image.unflatten(2, (width, n)).unflatten(1, (height, n)).mean((2, 4))


# --- values ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("seed", range(3))
def test_it_is_the_mean_of_many_samples(seed: int, dtype: torch.dtype) -> None:
    vertices, attributes = (x.to(dtype) for x in crowd(seed))
    image = tr.SharpRasterizer(SIZE, **OPTIONS)(vertices, attributes)
    error = (image - samples(vertices, attributes, SIZE, 32)).abs()
    assert error.max() < 0.02  # an edge goes through some 32 of a pixel's 1,024 points
    assert error.mean() < 5e-4


@NOT_MESA
@given(
    seed=st.integers(0, 999),
    faces=st.integers(1, 9),
    cuts=st.lists(st.tuples(st.integers(0, 99), st.floats(0.01, 0.99)), min_size=1, max_size=8),
)
@settings(max_examples=15, deadline=None)
def test_cutting_faces_changes_no_pixel(
    seed: int, faces: int, cuts: list[tuple[int, float]]
) -> None:
    dtype = tr.runtime().dtype
    vertices, attributes = crowd(seed, faces)
    sharp = tr.SharpRasterizer(SIZE, **OPTIONS)
    whole = sharp(vertices.to(dtype), attributes.to(dtype))
    for face, t in cuts:
        vertices, attributes = cut(vertices, attributes, face % vertices.shape[1], t)
    parts = sharp(vertices.to(dtype), attributes.to(dtype))
    assert (whole - parts).abs().max() < (1e-9 if dtype == torch.float64 else 1e-4)


@NOT_MESA
@pytest.mark.parametrize("side", [3, 4, 7, 9])
@pytest.mark.parametrize("first", [True, False])
def test_a_sheet_of_any_number_of_faces_is_hidden_by_what_is_before_it(
    side: int, first: bool, dtype: torch.dtype
) -> None:
    """All in one tile; fewer and more faces than are compared with one another at once."""
    t = torch.linspace(-0.9, 0.9, side + 1, dtype=torch.float64)
    x, y = torch.meshgrid(t, t, indexing="xy")
    grid = torch.stack([x, y, 6 + 0 * x], dim=-1)
    a, b, c, d = grid[:-1, :-1], grid[:-1, 1:], grid[1:, 1:], grid[1:, :-1]
    many = torch.stack([torch.stack([a, b, c], -2), torch.stack([a, c, d], -2)]).view(1, -1, 3, 3)
    corners = grid[[0, 0, -1, -1], [0, -1, -1, 0]]
    few = torch.stack([corners[[0, 1, 2]], corners[[0, 2, 3]]])[None]
    before, colours = crowd(7, faces=4)
    images = []
    for sheet in (many, few):
        shown = torch.full_like(sheet, 0.5)
        parts = [(before, colours), (sheet, shown)][:: 1 if first else -1]
        vertices, attributes = (
            torch.cat(part, dim=1).to(dtype) for part in zip(*parts, strict=True)
        )
        images.append(tr.SharpRasterizer(SIZE, **OPTIONS)(vertices, attributes))
    assert (images[0] - images[1]).abs().max() < (1e-9 if dtype == torch.float64 else 1e-4)
    assert (images[1] - samples(vertices, attributes, SIZE, 32)).abs().max() < 0.02


@NOT_MESA
@pytest.mark.parametrize("slices", [1, 2, 4, 8, 16])
def test_a_fan_covers_what_the_triangle_covers(slices: int, dtype: torch.dtype) -> None:
    """Seen by the pixels at the apex, where all slices meet. The area is that of the triangle."""
    x = torch.linspace(-0.6, 0.7, slices + 1, dtype=torch.float64)
    base = torch.stack([x, torch.full_like(x, -0.8), 2 + 0 * x], dim=-1)
    apex = torch.tensor([0.05, 0.61, 2.0], dtype=torch.float64).expand(slices, 3)
    vertices = torch.stack([base[:-1], base[1:], apex], dim=1)[None].to(dtype)
    alpha = tr.SharpRasterizer(16)(vertices, None)[..., 0]
    whole = vertices[:, :1].clone()
    whole[:, :, 1] = vertices[:, -1:, 1]
    single = tr.SharpRasterizer(16)(whole, None)[..., 0]
    assert (alpha - single).abs().max() < (1e-12 if dtype == torch.float64 else 1e-5)
    assert alpha.sum().item() / 64 == pytest.approx(1.3 * 1.41 / 2, rel=1e-5)


@NOT_MESA
@pytest.mark.parametrize(("subdivisions", "size"), [(1, 16), (3, 16), (4, 12)])
def test_a_sphere_has_the_area_of_its_samples(subdivisions: int, size: int) -> None:
    mesh = tr.icosphere(subdivisions, dtype=torch.float64)
    z = mesh.vertices[:, 2:] + 3
    corners = torch.cat([mesh.vertices[:, :2] * 2 / z, z], dim=-1)
    vertices = tr.gather_faces(corners[None], mesh.faces)
    area = tr.SharpRasterizer(size, **OPTIONS)(vertices.to(tr.runtime().dtype), None).sum()
    fine = tr.hard_buffers(vertices.to(tr.runtime().dtype), 48 * size, **OPTIONS)
    counted = (fine.face >= 0).sum() / 48**2
    assert area.item() == pytest.approx(counted.item(), rel=1e-3)


@NOT_MESA
def test_a_box_is_the_same_box_subdivided(dtype: torch.dtype) -> None:
    box = tr.box(dtype=torch.float64)
    fine = tr.subdivide(tr.subdivide(box))
    images = []
    for mesh in (box, fine):
        z = mesh.vertices[:, 2:] + 3
        corners = torch.cat([(mesh.vertices[:, :2] + 0.2 * z) / z, z], dim=-1)
        faces = tr.gather_faces(corners[None], mesh.faces).to(dtype)
        images.append(tr.SharpRasterizer(24, **OPTIONS)(faces, None))
    assert (images[0] - images[1]).abs().max() < (1e-9 if dtype == torch.float64 else 1e-4)


@NOT_MESA
def test_a_face_drawn_twice_counts_once(dtype: torch.dtype) -> None:
    vertices, attributes = (x.to(dtype) for x in crowd(5, faces=3))
    sharp = tr.SharpRasterizer(SIZE, **OPTIONS)
    once = sharp(vertices, attributes)
    for again in (vertices, vertices.roll(1, dims=2), vertices.flip(2)):
        twice = sharp(torch.cat([vertices, again], 1), torch.cat([attributes, attributes], 1))
        assert (once - twice).abs().max() < (1e-9 if dtype == torch.float64 else 1e-4)


def test_shared_edges_leave_no_seam(dtype: torch.dtype) -> None:
    """Two triangles of a square are as opaque as the square, and show nothing behind it."""
    square = [[-0.7, -0.6, 2.0], [0.7, -0.6, 2.0], [0.7, 0.6, 2.0], [-0.7, 0.6, 2.0]]
    behind = [[-3.0, -3.0, 5.0], [3.0, -3.0, 5.0], [0.0, 5.0, 5.0]]
    corners = [[square[i] for i in f] for f in ((0, 1, 2), (0, 2, 3))]
    vertices = torch.tensor([[*corners, behind]], dtype=dtype)
    attributes = torch.zeros(1, 3, 3, 3, dtype=dtype)  # of as many channels as most tests here
    attributes[:, 2] = 1.0
    image = tr.SharpRasterizer(16)(vertices, attributes)
    hidden = 1.4 * 1.2 / 4  # the share of the picture
    assert image[..., 0].mean().item() == pytest.approx(1 - hidden, abs=1e-6)
    assert (image[..., 3] - 1).abs().max() < 1e-6


@NOT_MESA
def test_faces_that_pass_through_each_other_hide_each_other_by_halves(dtype: torch.dtype) -> None:
    """Their depths are equal on the line x = 0, which goes through the middle of a pixel."""
    corners = [[-4.0, -4.0], [4.0, -4.0], [0.0, 8.0]]
    level = [[x, y, 3.0] for x, y in corners]
    tilted = [[x, y, 1 / (1 / 3 + 0.05 * x)] for x, y in corners]  # 1 / z is linear in the image
    vertices = torch.tensor([[level, tilted]], dtype=dtype)
    attributes = torch.tensor([0.0, 1.0], dtype=dtype).view(1, 2, 1, 1).expand(1, 2, 3, 1)
    image = tr.SharpRasterizer((3, 5))(vertices, attributes)
    expected = torch.tensor([0.0, 0.0, 0.5, 1.0, 1.0], dtype=dtype).expand(3, 5)
    assert (image[0, ..., 0] - expected).abs().max() < (1e-9 if dtype == torch.float64 else 1e-4)


@NOT_MESA
def test_near_and_far_cut_faces_off(dtype: torch.dtype) -> None:
    """1 / z is linear in the image: 1/2 on the left, 3/8 in the middle, 1/4 on the right."""
    corners = [[-1.0, -4.0, 2.0], [1.0, -4.0, 4.0], [1.0, 4.0, 4.0], [-1.0, 4.0, 2.0]]
    vertices = torch.tensor([[[corners[i] for i in f] for f in ((0, 1, 2), (0, 2, 3))]]).to(dtype)
    cases: list[tuple[dict[str, Any], list[float]]] = [
        ({"near": 8 / 3}, [0.0, 0.5, 1.0]),
        ({"far": 8 / 3}, [1.0, 0.5, 0.0]),
        ({"near": 2.4, "far": 8 / 3}, [0.0, 0.5, 0.0]),  # 1 / 2.4 is a third of the way
    ]
    for options, expected in cases:
        sharp = tr.SharpRasterizer((1, 3), **options)
        alpha = sharp(vertices * vertices.new_tensor([3, 1, 1]), None)
        assert (alpha[0, 0, :, 0] - vertices.new_tensor(expected)).abs().max() < 1e-5


def test_what_is_nearer_hides_what_is_behind(dtype: torch.dtype) -> None:
    def triangle(z: float) -> list[list[float]]:
        return [[-3.0, -3.0, z], [3.0, -3.0, z], [0.0, 5.0, z]]

    vertices = torch.tensor([[triangle(3.0), triangle(2.0), triangle(4.0)]], dtype=dtype)
    attributes = torch.tensor([0.2, 0.9, 0.5], dtype=dtype).reshape(1, 3, 1, 1).expand(1, 3, 3, 3)
    image = tr.SharpRasterizer(6)(vertices, attributes)
    assert torch.allclose(image[..., 0], torch.full_like(image[..., 0], 0.9), atol=1e-6)
    culled = tr.SharpRasterizer(6, cull_backfaces=True)(vertices.flip(2), attributes)
    assert culled.abs().max() == 0
    turned = tr.SharpRasterizer(6, cull_backfaces=True, front="cw")(vertices.flip(2), attributes)
    assert torch.allclose(turned, image)


@NOT_MESA
def test_many_small_faces_in_one_pixel(dtype: torch.dtype) -> None:
    """Hundreds of faces before one: the sum of what shows is one."""
    mesh = tr.icosphere(3, dtype=torch.float64)
    corners = torch.cat([0.9 * mesh.vertices[:, :2], mesh.vertices[:, 2:] + 3], dim=-1)
    ball = tr.gather_faces(corners[None], mesh.faces)
    wall = torch.tensor([[[[-9.0, -9, 5], [9, -9, 5], [0, 9, 5]]]], dtype=torch.float64)
    vertices = torch.cat([wall, ball], dim=1).to(dtype)
    attributes = torch.ones_like(vertices[..., :1])
    attributes[:, 0] = 0
    image = tr.SharpRasterizer(2)(vertices, attributes)
    alone = tr.SharpRasterizer(2)(vertices[:, 1:], None)
    tolerance = 1e-9 if dtype == torch.float64 else 1e-4
    assert (image[..., 0] - alone[..., 0]).abs().max() < tolerance
    assert (image[..., 1] - 1).abs().max() < tolerance


# --- the house bias that this ended ---------------------------------------------------------------


def box_faces(turn: float, dtype: torch.dtype) -> tuple[Tensor, Tensor]:
    """A closed box, turned about an axis, in perspective; green fronts."""
    mesh = tr.box(dtype=torch.float64)
    axis = torch.tensor([0.3, 0.8, 0.5], dtype=torch.float64)
    x, y, z = axis / axis.norm() * turn
    zero = torch.zeros((), dtype=torch.float64)
    cross = torch.stack([zero, -z, y, z, zero, -x, -y, x, zero]).view(3, 3)
    turned = 0.7 * mesh.vertices @ torch.matrix_exp(cross).T
    depth = 3 - turned[:, 2:]
    corners = torch.cat([turned[:, :2] * 2 / depth, depth], dim=-1)
    vertices = tr.gather_faces(corners[None], mesh.faces).to(dtype)
    edge, diagonal = (vertices[:, :, i, :2] - vertices[:, :, 0, :2] for i in (1, 2))
    front = edge[..., 0] * diagonal[..., 1] - edge[..., 1] * diagonal[..., 0] > 0
    colours = torch.stack([~front, front, front & ~front], dim=-1).to(dtype)
    return vertices, colours[:, :, None].expand(-1, -1, 3, -1).contiguous()


@pytest.mark.parametrize("turn", [0.0, 0.4, 1.1])
def test_backs_do_not_show_at_silhouettes(turn: float, dtype: torch.dtype) -> None:
    vertices, colours = box_faces(turn, dtype)
    sharp = tr.SharpRasterizer(48)
    image = sharp(vertices, colours)
    assert image[..., 0].max() < (1e-9 if dtype == torch.float64 else 1e-4)
    if dtype == torch.float64:
        moved = sharp(box_faces(turn + 1e-9, dtype)[0], colours)
        assert (moved - image).abs().max() < 1e-6


def test_a_picture_of_nothing_is_the_background(dtype: torch.dtype) -> None:
    vertices, attributes = (x.to(dtype) for x in random_faces(6, batch=2, faces=4))
    vertices[1, ..., 2] = -vertices[1, ..., 2]  # a view that looks away
    vertices[0, 0, 1, 2] = 0  # a face with a corner in the camera's plane
    vertices.requires_grad_()
    attributes.requires_grad_()
    image = tr.SharpRasterizer(SIZE, background=0.25, **OPTIONS)(vertices, attributes)
    assert torch.equal(image[1, ..., :-1], torch.full_like(image[1, ..., :-1], 0.25))
    assert not image[1, ..., -1].any() and image.isfinite().all()
    image.square().sum().backward()
    assert vertices.grad is not None and vertices.grad.isfinite().all()
    assert attributes.grad is not None and attributes.grad.isfinite().all()
    assert not vertices.grad[1].any() and not vertices.grad[0, 0].any()


# --- derivatives ----------------------------------------------------------------------------------

VIEWS: dict[str, dict[str, Any]] = {
    "perspective": {},
    "affine": {"perspective_correct": False},
    "orthographic": {"orthographic": True},
    "clipped": {"near": 2.5, "far": 3.5},
    "background": {"background": (0.3, 0.5, 0.7)},
}


@pytest.mark.runs_on(precision="f64")
@pytest.mark.parametrize("name", VIEWS)
@pytest.mark.parametrize("faces", [1, 3, 8])
def test_gradients_are_central_differences(faces: int, name: str) -> None:
    """Also where faces pass through one another. A step of 1e-6 makes no edge appear or vanish."""
    vertices, attributes = crowd(20 + faces, faces)
    attributes = attributes + 0.3 * torch.rand(
        attributes.shape, generator=torch.Generator().manual_seed(0), dtype=torch.float64
    )
    sharp = tr.SharpRasterizer(SIZE, **(OPTIONS | VIEWS[name]))
    weights = like(sharp(vertices, attributes))

    def loss(v: Tensor, a: Tensor) -> Tensor:
        return (sharp(v, a) * weights).sum()

    for seed in range(3):
        along = like(vertices, seed), like(attributes, seed + 9)
        inputs = [vertices.clone().requires_grad_(), attributes.clone().requires_grad_()]
        found = torch.autograd.grad(loss(*inputs), inputs)
        slopes = [(g * d).sum() for g, d in zip(found, along, strict=True)]
        step = 1e-6
        for i, slope in enumerate(slopes):
            moved = [
                loss(*(x + s * step * d * (i == j) for j, (x, d) in enumerate(
                    zip((vertices, attributes), along, strict=True)
                )))
                for s in (1, -1)
            ]  # fmt: skip
            expected = (moved[0] - moved[1]) / (2 * step)
            assert slope.item() == pytest.approx(expected.item(), rel=1e-6, abs=1e-7)


@pytest.mark.runs_on(precision="f32")
def test_single_precision_has_the_gradients_of_double_precision_s_differences() -> None:
    vertices, attributes = crowd(31, 6)
    sharp = tr.SharpRasterizer(SIZE, **OPTIONS)
    v = vertices.float().requires_grad_()
    image = sharp(v, attributes.float())
    weights = like(image)
    (image * weights).sum().backward()
    assert v.grad is not None
    step = 3e-3
    for seed in range(3):
        along = like(vertices, seed).float()
        ahead, behind = (sharp(v.detach() + s * step * along, attributes.float()) for s in (1, -1))
        expected = ((ahead - behind) * weights).sum() / (2 * step)
        slope = (v.grad * along).sum()
        assert slope.item() == pytest.approx(expected.item(), rel=0.03, abs=0.03)


@pytest.mark.runs_on(precision="f64")
def test_the_gradient_of_an_area_is_the_shoelace_formula_s() -> None:
    vertices = torch.tensor(
        [[[[-0.61, -0.53, 2.0], [0.72, -0.41, 3.0], [0.13, 0.67, 2.5]]]], dtype=torch.float64
    ).requires_grad_()
    alpha = tr.SharpRasterizer(32)(vertices, None).sum() * (2 / 32) ** 2
    (found,) = torch.autograd.grad(alpha, vertices)
    edge, diagonal = (vertices[0, 0, i, :2] - vertices[0, 0, 0, :2] for i in (1, 2))
    area = (edge[0] * diagonal[1] - edge[1] * diagonal[0]) / 2
    (expected,) = torch.autograd.grad(area, vertices)
    assert alpha.item() == pytest.approx(area.item(), rel=1e-12)
    assert relative(found, expected) < 1e-12


@pytest.mark.runs_on(precision="f64")
@pytest.mark.parametrize("wrap", ["clamp", "repeat", "surface"])
def test_textures_have_gradients(wrap: str) -> None:
    vertices, _ = crowd(41, 4)
    generator = torch.Generator().manual_seed(1)

    def texture(values: Tensor) -> tr.UVTexture | tr.SurfaceTexture:
        if wrap == "surface":
            return tr.SurfaceTexture(values)
        uv = torch.rand(1, 4, 3, 2, generator=generator.manual_seed(2), dtype=torch.float64)
        return tr.UVTexture(uv, values, wrap)

    shape = (1, 4, 3, 3, 2) if wrap == "surface" else (1, 5, 6, 2)
    values = torch.rand(shape, generator=generator, dtype=torch.float64).requires_grad_()
    sharp = tr.SharpRasterizer(SIZE, background=0.2, **OPTIONS)
    image = sharp(vertices, texture(values))
    assert torch.allclose(image[..., -1], sharp(vertices, None)[..., 0])
    weights = like(image)
    (found,) = torch.autograd.grad((image * weights).sum(), values)
    along = like(values)
    expected = ((sharp(vertices, texture(values.detach() + along)) - image) * weights).sum()
    assert (found * along).sum().item() == pytest.approx(expected.item(), rel=1e-9)


@NOT_MESA
def test_vertices_made_in_inference_mode(dtype: torch.dtype) -> None:
    with torch.inference_mode():
        vertices, _ = crowd(3)
        vertices = vertices.to(dtype)
    colours = crowd(3)[1].to(dtype).requires_grad_()
    image = tr.SharpRasterizer(8)(vertices, colours)
    image.sum().backward()
    assert colours.grad is not None and float(colours.grad.abs().sum()) > 0
    with torch.inference_mode():
        assert torch.equal(tr.SharpRasterizer(8)(vertices, colours), image)


def test_func_and_vmap(dtype: torch.dtype) -> None:
    vertices, attributes = (x.to(dtype) for x in random_faces(51, batch=3, faces=3))
    sharp = tr.SharpRasterizer(6, **OPTIONS)

    def loss(v: Tensor, a: Tensor) -> Tensor:
        return sharp(v[None], a[None]).square().sum()

    by_func = torch.vmap(torch.func.grad(loss, argnums=(0, 1)))(vertices, attributes)
    leaves = vertices.clone().requires_grad_(), attributes.clone().requires_grad_()
    expected = torch.autograd.grad(sharp(*leaves).square().sum(), leaves)
    for one, other in zip(by_func, expected, strict=True):
        assert relative(one, other) < 1e-5
    with pytest.raises(NotImplementedError, match="SharpRasterizer has"):
        torch.func.hessian(loss)(vertices[0], attributes[0])
    with pytest.raises(NotImplementedError, match="no forward mode"):
        torch.func.jvp(lambda v: loss(v, attributes[0]), (vertices[0],), (vertices[0],))


def test_soft_render_tends_to_the_sharp_one(dtype: torch.dtype) -> None:
    """Away from edges small scale and gamma give the same picture."""
    vertices, attributes = random_faces(105, batch=1, faces=4, dtype=dtype)
    sharp = tr.SharpRasterizer((13, 17), background=(0.3, 0.5, 0.7), **OPTIONS)
    soft = tr.SoftRasterizer(
        (13, 17),
        edge=tr.Distribution("logistic", scale=1e-4),
        depth=tr.SoftmaxDepth(gamma=1e-4, background_z=0.0),
        background=(0.3, 0.5, 0.7),
        **OPTIONS,
    )
    images: list[Tensor] = [r(vertices, attributes) for r in (sharp, soft)]
    away = (twin.pairs(vertices, 13, 17).distance.abs() > 1.5 / 13).all(-1)
    assert away.sum() > 30
    assert (images[0] - images[1])[away].abs().max() < 1e-2


@pytest.mark.runs_on(arch="cpu")  # GPUs: tests/engine/test_determinism.py
def test_equal_inputs_give_equal_bits() -> None:
    dtype = tr.runtime().dtype
    vertices, attributes = (x.to(dtype) for x in crowd(61, 12))

    def run() -> list[Tensor]:
        leaves = [vertices.clone().requires_grad_(), attributes.clone().requires_grad_()]
        image = tr.SharpRasterizer(24, **OPTIONS)(*leaves)
        return [image, *torch.autograd.grad(image.square().sum(), leaves)]

    assert all(map(torch.equal, run(), run()))


@NOT_MESA
@pytest.mark.parametrize("perspective", [True, False])
def test_a_face_over_the_whole_picture_is_interpolated_at_centres(
    perspective: bool, dtype: torch.dtype
) -> None:
    """Against barycentric interpolation at the pixels' centres, differentiated by torch."""
    corners = [[-3.1, -2.2, 2.0], [4.0, -1.9, 3.0], [-0.3, 5.0, 4.5]]
    vertices = torch.tensor(corners, dtype=torch.float64)[None, None]
    generator = torch.Generator().manual_seed(5)
    colours = torch.rand(1, 1, 3, 3, dtype=torch.float64, generator=generator)
    weights = torch.randn(1, 20, 37, 4, dtype=torch.float64, generator=generator)

    def interpolated(vertices: Tensor, colours: Tensor) -> Tensor:
        x, y, z = vertices[0, 0].unbind(-1)
        columns = (2 * torch.arange(37, dtype=torch.float64) + 1 - 37) / 20
        rows = (20 - 1 - 2 * torch.arange(20, dtype=torch.float64)) / 20
        inverse = torch.linalg.inv(torch.stack([x, y, torch.ones_like(x)]))
        points = torch.stack(
            [columns.expand(20, 37), rows[:, None].expand(20, 37), torch.ones(20, 37)], dim=-1
        )
        shares = points.double() @ inverse.T
        if perspective:
            shares = shares / z
            shares = shares / shares.sum(-1, keepdim=True)
        alpha = torch.ones(20, 37, 1, dtype=torch.float64)
        return torch.cat([shares @ colours[0, 0], alpha], dim=-1)[None]

    def sharp(vertices: Tensor, colours: Tensor) -> Tensor:
        renderer = tr.SharpRasterizer((20, 37), perspective_correct=perspective, **OPTIONS)
        return renderer(vertices.to(dtype), colours.to(dtype)).double()

    found = []
    for picture in (sharp, interpolated):
        leaves = [vertices.clone().requires_grad_(), colours.clone().requires_grad_()]
        image = picture(*leaves)
        found.append([image, *torch.autograd.grad((image * weights).sum(), leaves)])
    for ours, theirs in zip(*found, strict=True):
        assert relative(ours, theirs) < (1e-12 if dtype == torch.float64 else 2e-5)


def test_edges_between_faces_pass_nothing_on_where_they_lie_on_pixel_borders() -> None:
    side = torch.linspace(-0.41, 0.41, 9)  # 2.05 pixels each; the middle ones are between pixels
    x, y = torch.meshgrid(side, side, indexing="xy")
    points = torch.stack([x, y, torch.ones_like(x)], dim=-1).view(1, 81, 3)
    i = torch.arange(81).view(9, 9)
    a, b, c, d = (x.flatten() for x in (i[:-1, :-1], i[:-1, 1:], i[1:, :-1], i[1:, 1:]))
    faces = torch.cat([torch.stack([a, b, d], 1), torch.stack([a, d, c], 1)])
    points = points.to(tr.runtime().dtype).requires_grad_()
    corners = tr.gather_faces(points, faces)
    image = tr.SharpRasterizer(40)(corners, torch.ones_like(corners))
    (grad,) = torch.autograd.grad(image.sum(), points)
    inner = grad.view(9, 9, 3)[1:-1, 1:-1]
    assert float(inner.abs().max()) < 1e-5 * float(grad.abs().max())


# --- memory on a CPU ------------------------------------------------------------------------------


def picture_and_gradients(sharp: tr.SharpRasterizer, seed: int, faces: int) -> list[Tensor]:
    leaves = [x.to(tr.runtime().dtype).requires_grad_() for x in crowd(seed, faces)]
    image = sharp(*leaves)
    return [image.detach(), *torch.autograd.grad(image.square().sum(), leaves)]


@pytest.mark.runs_on(arch="cpu")
def test_a_picture_that_did_not_fit_is_drawn_again(monkeypatch: pytest.MonkeyPatch) -> None:
    expected = picture_and_gradients(tr.SharpRasterizer(SIZE, **OPTIONS), 73, 30)
    tight: list[Any] = []

    def guess(shape: Any) -> Any:
        tight.append(shape)
        return sight_by_tiles.Plan(shape, 1, 1, 1)

    monkeypatch.setattr(sight_by_tiles, "_plans", LRUCache(2))
    monkeypatch.setattr(sight_by_tiles.Plan, "first", staticmethod(guess))
    for _ in range(2):
        found = picture_and_gradients(tr.SharpRasterizer(SIZE, **OPTIONS), 73, 30)
        assert all(map(torch.equal, found, expected))
    assert len(tight) == 1  # the second picture is given what was enough for the first


@pytest.mark.runs_on(arch="cpu")
def test_faces_listed_by_one_thread_or_by_several_give_the_same_bits(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    sharp = tr.SharpRasterizer((70, 40), **OPTIONS)
    expected = picture_and_gradients(sharp, 74, 40)
    monkeypatch.setattr(sight_by_tiles, "FEW", 0)
    assert all(map(torch.equal, picture_and_gradients(sharp, 74, 40), expected))


def test_a_picture_keeps_its_memory_until_its_derivatives_are_taken() -> None:
    sharp = tr.SharpRasterizer(SIZE, **OPTIONS)
    expected = picture_and_gradients(sharp, 75, 20)
    leaves = [x.to(tr.runtime().dtype).requires_grad_() for x in crowd(75, 20)]
    image = sharp(*leaves)
    for seed in (76, 77):
        picture_and_gradients(sharp, seed, 20)
    found = [image.detach(), *torch.autograd.grad(image.square().sum(), leaves)]
    assert all(map(torch.equal, found, expected))


# --- what is refused ------------------------------------------------------------------------------


def test_more_than_taichi_can_index_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    vertices, attributes = (x.to(tr.runtime().dtype) for x in crowd(71, 5))
    monkeypatch.setattr(sight, "MOST", 50)
    with pytest.raises(MemoryError, match=r"more than 2\^31 numbers"):
        tr.SharpRasterizer(SIZE, **OPTIONS)(vertices, attributes)


def test_a_render_within_a_render_is_refused_and_does_no_harm(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """As a finalizer's that Python runs in the owner's thread: it would overwrite the memory."""
    vertices, attributes = (x.to(tr.runtime().dtype) for x in crowd(72, 5))
    sharp = tr.SharpRasterizer(SIZE, **OPTIONS)
    expected = sharp(vertices, attributes)
    complaints: list[str] = []
    launch = sight.launch

    def disturbed(*arguments: Any) -> int:
        if not complaints:
            complaints.append("begun")
            with pytest.raises(RuntimeError, match="finalizer"):
                sharp(vertices[:, :2], attributes[:, :2])
        return launch(*arguments)

    for module in (areas, sight_by_tiles):
        monkeypatch.setattr(module, "launch", disturbed)
    assert torch.equal(sharp(vertices, attributes), expected) and complaints
