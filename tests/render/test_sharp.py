"""The sharp reference: against its twin, against supersampled truth, and its gradient."""

import pytest
import torch
from torch import Tensor
from torch.autograd import gradcheck

import taichi_raster as tr
import twin
from scenes import grad, kink_margin, like, random_faces, relative

VIEW = twin.View(image_size=(13, 17), near=0.5, far=10.0)
BACKGROUND = torch.tensor([0.3, 0.5, 0.7], dtype=torch.float64)


def ours(vertices: Tensor, attributes: Tensor, view: twin.View = VIEW) -> Tensor:
    sharp = tr.SharpRasterizer(
        view.image_size,
        background=BACKGROUND.to(vertices),
        near=view.near,
        far=view.far,
        cull_backfaces=view.cull_backfaces,
    )
    return sharp(vertices, attributes)


def truth(vertices: Tensor, attributes: Tensor, view: twin.View = VIEW) -> Tensor:
    return twin.render_sharp(vertices, attributes, background=BACKGROUND, view=view)


@pytest.mark.parametrize("cull", [False, True])
@pytest.mark.parametrize("faces", [1, 5, 40])
def test_image_and_gradients_are_the_twins(faces: int, cull: bool, dtype: torch.dtype) -> None:
    view = twin.View(image_size=VIEW.image_size, near=0.5, far=10.0, cull_backfaces=cull)
    vertices, attributes = random_faces(101, faces=faces, size=(0.2, 0.8))
    exact = vertices.clone().requires_grad_(), attributes.clone().requires_grad_()
    mine = tuple(v.detach().to(dtype).requires_grad_() for v in exact)
    expected, image = truth(*exact, view), ours(mine[0], mine[1], view)
    assert image.shape == (2, 13, 17, 4) and image.dtype == dtype
    double = dtype == torch.float64
    assert (image.double() - expected).abs().max() < (1e-11 if double else 1e-4)
    (expected * like(expected)).sum().backward()
    (image * like(image)).sum().backward()
    for a, b in zip(mine, exact, strict=True):
        assert grad(b).norm() > 1e-2
        assert relative(grad(a), grad(b)) < (1e-9 if double else 1e-3)


@pytest.mark.runs_on(precision="f64")
def test_gradcheck() -> None:
    view = twin.View(image_size=(5, 6), near=0.5, far=10.0)
    vertices, attributes = random_faces(102, batch=1, faces=3, size=(0.3, 0.8))
    assert kink_margin({"vertices": vertices}, view, "sharp") > 1e-4
    inputs = (vertices.requires_grad_(), attributes.requires_grad_())
    assert gradcheck(lambda v, a: ours(v, a, view), inputs)


def supersampled(vertices: Tensor, attributes: Tensor, view: twin.View, n: int = 16) -> Tensor:
    """The box-filtered truth: the nearest face that contains each of n x n points a pixel."""
    height, width = view.image_size
    fine = twin.View(image_size=(n * height, n * width), near=view.near, far=view.far)
    pair = twin.pairs(vertices, *fine.image_size)
    alive = twin.kept(pair, vertices, view.near, view.far, False)
    c = twin.attributes_at(pair, vertices, attributes, True)
    colour = twin.nearest_inside(pair, alive, c, BACKGROUND)
    alpha = ((pair.distance >= 0) & alive).any(-1, keepdim=True)
    image = torch.cat([colour, alpha.to(colour.dtype)], -1)
    return image.unflatten(2, (width, n)).unflatten(1, (height, n)).mean((2, 4))


def test_it_is_close_to_the_supersampled_truth(dtype: torch.dtype) -> None:
    """A ramp along the normal and a box filter differ by at most (sqrt 2 - 1) / 4 = 0.10 along an
    edge (at 45 degrees), and by more only where corners or crossing edges share a pixel.
    """
    vertices, attributes = random_faces(103, batch=1, faces=3, size=(0.5, 1.0))
    view = twin.View(image_size=(24, 24), near=0.5, far=10.0)
    image = ours(vertices.to(dtype), attributes.to(dtype), view).double()
    error = (image - supersampled(vertices, attributes, view)).abs()
    assert error.mean() < 0.005
    assert error.quantile(0.99) < 0.12


def test_area_is_that_of_the_triangle(dtype: torch.dtype) -> None:
    vertices, attributes = random_faces(104, batch=1, faces=2, size=(0.5, 0.8), dtype=dtype)
    vertices, attributes = vertices[:, 1:], attributes[:, 1:]
    image = tr.SharpRasterizer(image_size=64)(
        vertices * vertices.new_tensor([0.6, 0.6, 1]), attributes
    )
    area = twin.pairs(vertices * vertices.new_tensor([0.6, 0.6, 1]), 1, 1).area.abs().item() / 2
    assert image[..., -1].sum().item() * (2 / 64) ** 2 == pytest.approx(area, rel=0.01)


def test_shared_edges_leave_no_seam(dtype: torch.dtype) -> None:
    """Two triangles of a square are as opaque as the square, and show nothing behind it."""
    square = [[-0.7, -0.6, 2.0], [0.7, -0.6, 2.0], [0.7, 0.6, 2.0], [-0.7, 0.6, 2.0]]
    behind = [[-3.0, -3.0, 5.0], [3.0, -3.0, 5.0], [0.0, 5.0, 5.0]]
    corners = [[square[i] for i in f] for f in ((0, 1, 2), (0, 2, 3))]
    vertices = torch.tensor([[*corners, behind]], dtype=dtype)
    attributes = torch.zeros(1, 3, 3, 1, dtype=dtype)
    attributes[:, 2] = 1.0
    image = tr.SharpRasterizer(image_size=16)(vertices, attributes)
    p = twin.pixel_centres(16, 16, vertices)
    deep = (p[..., 0].abs() < 0.6) & (p[..., 1].abs() < 0.5)
    assert image[0, ..., 0][deep].abs().max() < 1e-6
    assert (image[0, ..., 1][deep] - 1).abs().max() < 1e-6


def test_what_is_nearer_hides_what_is_behind(dtype: torch.dtype) -> None:
    def triangle(z: float) -> list[list[float]]:
        return [[-3.0, -3.0, z], [3.0, -3.0, z], [0.0, 5.0, z]]

    vertices = torch.tensor([[triangle(3.0), triangle(2.0), triangle(4.0)]], dtype=dtype)
    attributes = torch.tensor([0.2, 0.9, 0.5], dtype=dtype).reshape(1, 3, 1, 1).expand(1, 3, 3, 1)
    image = tr.SharpRasterizer(image_size=6)(vertices, attributes)
    assert torch.allclose(image[..., 0], torch.full_like(image[..., 0], 0.9), atol=1e-6)
    culled = tr.SharpRasterizer(image_size=6, cull_backfaces=True)(vertices.flip(2), attributes)
    assert culled.abs().max() == 0


def test_soft_render_tends_to_the_sharp_one(dtype: torch.dtype) -> None:
    """Away from edges, where the ramp is not cut, small scale and gamma give the same picture."""
    vertices, attributes = random_faces(105, batch=1, faces=4, dtype=dtype)
    sharp = ours(vertices, attributes)
    soft = tr.SoftRasterizer(
        VIEW.image_size,
        edge=tr.Distribution("logistic", scale=1e-4),
        near=0.5,
        far=10.0,
        depth=tr.SoftmaxDepth(gamma=1e-4, background_z=0.0),
        background=BACKGROUND.to(dtype),
    )(vertices, attributes)
    away = (twin.pairs(vertices, *VIEW.image_size).distance.abs() > 1.5 / 13).all(-1)
    assert away.sum() > 30
    assert (sharp - soft)[away].abs().max() < 1e-2
