"""`deterministic=True`: the same bits in every run, for one item and for many."""

import dataclasses
import subprocess
import sys

import pytest
import torch

import taichi_raster as tr
from paths import ROOT
from taichi_raster.render import packing, soft

SCRIPT = """
import hashlib, sys
import torch
import taichi_raster as tr
runtime = tr.init(arch="cpu", precision=sys.argv[1], deterministic=True)
assert runtime.deterministic
sys.path.insert(0, "tests/support")
from scenes import Case, gradients, hessian_vector_products

def digest(batch):
    h = hashlib.sha256()
    case = Case("logistic").but(image_size=(40, 40), threshold=1e-6)
    x = case.inputs(seed=111, batch=batch, faces=60, dtype=runtime.dtype, size=(0.1, 0.4))
    h.update(case.ours(x).numpy().tobytes())
    for derivative in (gradients, hessian_vector_products):
        for value in derivative(case.ours, x).values():
            h.update(value.numpy().tobytes())
    alone = {name: value.detach().clone() for name, value in x.items()}
    case.ours({**alone, "vertices": alone["vertices"].requires_grad_()}).square().sum().backward()
    h.update(alone["vertices"].grad.numpy().tobytes())
    over = tr.SoftRasterizer(24, tr.Distribution("logistic", 0.02), tr.OverDepth(), near=0.5)
    for value in (x["vertices"], x["attributes"]):
        value.requires_grad_()
    slopes = torch.autograd.grad(
        over(x["vertices"], x["attributes"]).square().sum(), [x["vertices"], x["attributes"]],
        create_graph=True,
    )
    slopes += torch.autograd.grad(slopes[0].square().sum(), [x["vertices"], x["attributes"]])
    g = torch.Generator().manual_seed(0)
    image = torch.rand(1, 8, 8, 2, generator=g).to(runtime.dtype).requires_grad_()
    texels = torch.rand(1, 60, 2, 2, 2, generator=g).to(runtime.dtype).requires_grad_()
    uv = torch.rand(batch, 60, 3, 2, generator=g).to(runtime.dtype).requires_grad_()
    scales = torch.full((batch,), 0.03, dtype=runtime.dtype, requires_grad=True)
    network = tr.MLPSoftness((3, 3), scale=0.03)
    table, still = tr.tabulate(network, octaves=6, subdivision=3), x["attributes"].detach()
    plain, shown = tr.Distribution("logistic", 0.03), tr.UVTexture(uv, image, "clamp")
    hard, soft = tr.OverDepth(), tr.OverDepth(0.1)
    # What many fragments add to: each under one of the two depths, an image under both.
    for edge, depth, attributes, learned in (
        (tr.Distribution("logistic", scales), hard, still, [scales]),
        (table, soft, still, [network.weights]),
        (plain, hard, shown, [uv, image]),
        (plain, soft, shown, [uv, image]),
        (plain, hard, tr.SurfaceTexture(texels), [texels]),
    ):
        renderer = tr.SoftRasterizer(64, edge, depth, near=0.5)
        picture = renderer(x["vertices"].detach(), attributes)
        slopes += torch.autograd.grad(picture.square().sum(), learned)
    for value in slopes:
        h.update(value.detach().numpy().tobytes())
    return h.hexdigest()

digests = {batch: {digest(batch) for _ in range(3 - batch)} for batch in (1, 2)}
assert all(len(d) == 1 for d in digests.values()), digests
print("digests", *(d.pop() for d in digests.values()))
"""


@pytest.mark.runs_on(arch="cpu", precision="f32")
def test_two_runs_give_the_same_bits(pytestconfig: pytest.Config) -> None:
    """Image, gradients and Hessian-vector products, within a process and between two."""
    printed = []
    for _ in range(2):
        done = subprocess.run(
            [sys.executable, "-c", SCRIPT, pytestconfig.getoption("--precision")],
            cwd=ROOT,
            capture_output=True,
            text=True,
            timeout=240,
            check=False,
        )
        assert done.returncode == 0, done.stderr
        printed += [line for line in done.stdout.splitlines() if line.startswith("digests")]
    assert len(printed) == 2 and printed[0] == printed[1]


@pytest.mark.runs_on(arch="vulkan")
@pytest.mark.parametrize(("size", "faces"), [(24, 2), (64, 60)])
def test_a_fixed_order_on_a_gpu_changes_rounding_alone(
    size: int, faces: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Also where a thread would go through more loops than a driver allows."""
    g = torch.Generator().manual_seed(0)
    xy, z = torch.rand(1, faces, 3, 2, generator=g) * 2 - 1, 1 + torch.rand(1, faces, generator=g)
    leaves = [tr.lift_triangles(xy, z), torch.rand(1, faces, 3, 3, generator=g)]
    leaves = [leaf.requires_grad_() for leaf in leaves]
    renderers = [
        tr.SoftRasterizer(size, tr.Distribution("gaussian", 0.05), depth)
        for depth in (tr.SoftmaxDepth(0.1), tr.OverDepth())
    ]
    found: dict[bool, list[torch.Tensor]] = {}
    for fixed in (False, True):
        asked = dataclasses.replace(tr.runtime(), deterministic=fixed)
        for module in (soft, packing):
            monkeypatch.setattr(module, "runtime", lambda asked=asked: asked)
        found[fixed] = []
        for renderer in (*renderers, tr.SharpRasterizer(size)):
            image = renderer(*leaves)
            slopes = torch.autograd.grad(image.square().sum(), leaves)
            found[fixed] += [image.detach(), *slopes]
    for free, ordered in zip(found[False], found[True], strict=True):
        torch.testing.assert_close(ordered, free, rtol=0, atol=1e-4 * float(free.abs().max()))
