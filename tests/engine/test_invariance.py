"""Pictures and gradients depend neither on the size of tiles nor on the number of threads.

Both are fixed when a process starts, so that each case renders in a process of its own.
"""

import os
import subprocess
import sys

import numpy as np
import pytest
import torch

from paths import ROOT

pytestmark = pytest.mark.runs_on(arch="cpu", precision="f64")

RENDER = """
import importlib.machinery
import sys

import taichi
import torch

loader = importlib.machinery.SourceFileLoader
read = loader.get_data

def get_data(self, path):
    if "layout." in path and path.endswith(".pyc"):
        raise OSError  # nothing compiled before
    data = read(self, path)
    if path.endswith("taichi_raster/runtime/layout.py"):
        assert b"SHIFT = 3" in data
        data = data.replace(b"SHIFT = 3", b"SHIFT = {shift}")
    return data

loader.get_data = get_data
sys.dont_write_bytecode = True
import taichi_raster as tr
from taichi_raster.runtime.layout import TILE

assert TILE == 2**{shift}
tr.init("cpu", "f64")
assert taichi.lang.impl.current_cfg().cpu_max_num_threads == {threads}
mesh = tr.torus(sides=9, sectors=15, dtype=torch.float64)
camera = tr.PerspectiveCamera(tr.orbit(3.0, 35.0, torch.arange(2) * 40.0), fov=40.0)
vertices = mesh.vertices.expand(2, -1, -1).clone().requires_grad_()
faces = tr.gather_faces(camera.project(vertices), mesh.faces)
colours = torch.rand(faces.shape, generator=torch.Generator().manual_seed(0)).double()
edge = tr.tabulate(tr.MLPSoftness(scale=0.03))
renderer = tr.SoftRasterizer((45, 150), edge, tr.SoftmaxDepth(0.02), near=1.0, far=5.0)
image = renderer(faces, colours.requires_grad_())
wanted = [vertices, colours, edge.edge.weights]
first = torch.autograd.grad(image.square().sum(), wanted, create_graph=True)
second = torch.autograd.grad(first[0].square().sum(), wanted)
torch.save([t.detach() for t in (image, *first, *second)], {out!r})
"""


@pytest.fixture(scope="module")
def render(tmp_path_factory: pytest.TempPathFactory):
    def run(shift: int, threads: int):
        folder = tmp_path_factory.mktemp("case")
        code = RENDER.format(shift=shift, threads=threads, out=str(folder / "out.pt"))
        environment = {**os.environ, "TI_CPU_MAX_NUM_THREADS": str(threads)}
        done = subprocess.run(
            [sys.executable, "-c", code],
            cwd=ROOT,
            env=environment,
            capture_output=True,
            text=True,
            check=False,
        )
        assert done.returncode == 0, done.stderr
        return torch.load(folder / "out.pt", weights_only=True)

    return run


@pytest.fixture(scope="module")
def reference(render):
    return render(3, 2)


@pytest.mark.parametrize(("shift", "threads"), [(2, 1), (4, 3)])  # other tiles and threads
def test_tiles_and_threads_change_nothing_but_rounding(render, reference, shift, threads):
    for found, expected in zip(render(shift, threads), reference, strict=True):
        scale = float(expected.abs().max())
        assert scale > 1e-3
        np.testing.assert_allclose(found, expected, rtol=0, atol=1e-12 * scale)
