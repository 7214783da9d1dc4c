"""Launches without Taichi's bookkeeping, and copies without kernels, do the same as with them."""

from typing import Any

import pytest
import taichi as ti
import torch
from torch import Tensor

import taichi_raster as tr
from taichi_raster.engine.engine import engine
from taichi_raster.runtime import transfer
from taichi_raster.runtime.call import Call
from taichi_raster.runtime.launcher import Launcher
from taichi_raster.runtime.scratch import Scratch
from taichi_raster.runtime.thread import runs_in_runtime_thread

pytestmark = pytest.mark.runs_on(arch="cpu", precision="f32")


@ti.data_oriented
class Counter:
    def __init__(self) -> None:
        self.seen = ti.field(ti.i32, shape=4)

    @ti.kernel
    def add(self, at: ti.i32, amount: ti.i32) -> ti.i32:
        self.seen[at] += amount
        return self.seen[at] - 10


@runs_in_runtime_thread
def test_a_launch_runs_the_kernel_and_returns_its_number() -> None:
    counter = Counter()
    add = Launcher(counter.add, "cpu")
    assert [add(2, 3), add(2, 4), add(1, 5)] == [-7, -3, -5]
    assert counter.seen.to_numpy().tolist() == [0, 5, 7, 0]


NUMBERS: Any = ti.types.ndarray(dtype=ti.i32, ndim=1)


@ti.data_oriented
class Summing:
    @ti.kernel
    def total(self, values: NUMBERS, factor: ti.i32) -> ti.i32:
        found = 0
        for i in range(values.shape[0]):
            found += values[i]
        return factor * found


@runs_in_runtime_thread
def test_each_launch_sees_its_own_arrays_and_numbers() -> None:
    total = Launcher(Summing().total, "cpu")
    long, short = (torch.tensor(x, dtype=torch.int32) for x in ([1, 2, 3], [5]))
    arguments = (long, 1), (short, 1), (long, 2), (long[:2], 2), (long[1:], 2), (long, 2)
    assert [total(*each) for each in arguments] == [6, 5, 12, 6, 10, 12]
    long[0] = 4
    assert [total(long, 2), total(short, 3)] == [18, 15]


@runs_in_runtime_thread
def test_two_objects_of_a_class_have_kernels_of_their_own() -> None:
    first, second = Counter(), Counter()
    launchers = Launcher(first.add, "cpu"), Launcher(second.add, "cpu")
    assert [launch(0, amount) for launch, amount in zip(launchers, (1, 2), strict=True)] == [-9, -8]


@runs_in_runtime_thread
def test_a_view_of_a_field_follows_it_when_it_grows() -> None:
    scratch = Scratch(tr.runtime())
    for size in (10, scratch.capacity("limits") + 1):
        scratch.reserve(limits=size)
        scratch.views[scratch.limits][size - 1] = 2.5
        assert scratch.limits[size - 1] == 2.5
        scratch.limits[0] = 7.0
        assert float(transfer.read(scratch, scratch.limits, torch.ones(()), 1)) == 7.0
    assert len(scratch.views) == sum(map(len, scratch._fields.values()))


def gradient_and_image(
    size: int = 40, depth: tr.DepthSoftness | None = None
) -> tuple[Tensor, Tensor]:
    mesh = tr.icosphere(2, 0.7)
    camera = tr.PerspectiveCamera(tr.orbit(2.7, 20.0, torch.tensor([0.0, 40.0])), fov=42.0)
    faces = tr.gather_faces(camera.project(mesh.vertices[None].float()), mesh.faces)
    faces.requires_grad_()
    colours = torch.rand(faces.shape, generator=torch.Generator().manual_seed(0))
    edge = tr.Distribution("logistic", 0.02)
    depth = tr.SoftmaxDepth() if depth is None else depth
    renderer = tr.SoftRasterizer(size, edge, depth, near=1.0, far=5.0)
    image = renderer(faces, colours)
    (gradient,) = torch.autograd.grad(image.square().sum(), faces)
    return gradient, image.detach()


def assert_same_bits(found: tuple[Tensor, Tensor], expected: tuple[Tensor, Tensor]) -> None:
    assert float(expected[0].abs().max()) > 0
    assert all(torch.equal(f, e) for f, e in zip(found, expected, strict=True))


@pytest.mark.parametrize("depth", [tr.SoftmaxDepth(), tr.OverDepth()], ids=["softmax", "over"])
def test_copies_by_kernels_give_the_same_bits(
    depth: tr.DepthSoftness, monkeypatch: pytest.MonkeyPatch
) -> None:
    expected = gradient_and_image(depth=depth)
    monkeypatch.setattr(engine().scratch, "views", {})
    assert_same_bits(gradient_and_image(depth=depth), expected)


@pytest.mark.parametrize("bands", [2, 5])
def test_faces_listed_by_several_threads_give_the_same_bits(
    bands: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    expected = gradient_and_image()
    monkeypatch.setattr(Call, "bands", bands)
    assert_same_bits(gradient_and_image(), expected)


def test_lists_are_built_again_when_they_did_not_fit(monkeypatch: pytest.MonkeyPatch) -> None:
    expected = gradient_and_image()
    rooms = iter([7, 1 << 21] * 2)
    monkeypatch.setattr(Scratch, "capacity", lambda self, name: next(rooms))
    assert_same_bits(gradient_and_image(), expected)
    assert len(list(rooms)) == 2  # one render takes two
