"""Measurements that need a process of their own: python benchmarks/alone.py NAME ARCH; prints JSON.

first-image      seconds from import to the first image and to the first gradient
first-sharp      the same of SharpRasterizer
deterministic    milliseconds forward + backward with deterministic=True, and the bits' equality
large            100,352 faces at 1024^2, forward and backward: milliseconds, and memory
soft-order       160 large faces at 32^2 under OverDepth(0.1): MiB that a gradient takes, and that a
                 Hessian-vector product takes besides
comparisons      nanoseconds of processor time that each comparison of a soft order takes, forward
                 and backward: with fragments, where they are few, and with nodes
unroll-T         an exact unrolled outer step of T inner steps at 64^2, and memory
"""

from __future__ import annotations

import json
import sys
import time
from pathlib import Path
from typing import Any, Literal


def first_image(arch: str, sharp: bool = False) -> dict[str, Any]:
    import torch

    begin = time.perf_counter()
    import taichi_raster as tr

    tr.init(arch)
    faces = torch.tensor(
        [[[[-0.5, -0.5, 2], [0.5, -0.5, 2], [0, 0.5, 2]]]], dtype=tr.runtime().dtype
    )

    def renderer_of(size: int) -> torch.nn.Module:
        return tr.SoftRasterizer(size, tr.Distribution("logistic", 0.01), tr.SoftmaxDepth(0.01))

    renderer = tr.SharpRasterizer(64) if sharp else renderer_of(64)
    renderer(faces, torch.ones_like(faces))
    image = time.perf_counter() - begin
    renderer(faces.requires_grad_(), torch.ones_like(faces)).sum().backward()
    gradient = time.perf_counter() - begin
    if sharp:
        return {"image": image, "gradient": gradient}
    begin = time.perf_counter()
    more = faces.detach().repeat(1, 500, 1, 1).requires_grad_()
    renderer_of(96)(more, torch.ones_like(more)).sum().backward()
    return {"image": image, "gradient": gradient, "other sizes": time.perf_counter() - begin}


def first_sharp(arch: str) -> dict[str, Any]:
    return first_image(arch, sharp=True)


def deterministic(arch: str) -> dict[str, Any]:
    import torch

    import taichi_raster as tr
    from scenes import icosphere_faces, passes, timed

    tr.init(arch, deterministic=True)
    found: dict[str, Any] = {}
    for size, batch in ((64, 8), (256, 1)):
        both = passes(icosphere_faces(3, batch), size)["forward + backward"]
        found[f"{size}^2, batch {batch}"] = timed({"": both}, 5)[""]
        found[f"{size}^2, batch {batch}, equal bits"] = torch.equal(both(), both())
    return found


def large(arch: str) -> dict[str, Any]:
    import torch

    import taichi_raster as tr
    from scenes import make_renderer, timed

    runtime = tr.init(arch)
    before = _peak()
    mesh = tr.uv_sphere(rings=225, sectors=224, radius=0.7)
    camera = tr.PerspectiveCamera(tr.orbit(2.7, 20.0, 30.0), fov=42.0)
    faces = tr.gather_faces(camera.project(mesh.vertices[None]), mesh.faces)
    faces = faces.to(runtime.dtype).requires_grad_()
    renderer, colours = make_renderer(1024), torch.rand(faces.shape).to(faces)
    calls = {"both": lambda: renderer(faces, colours).square().sum().backward()}
    found = {"faces": faces.shape[1], "forward + backward": timed(calls, 2)["both"]}
    return {**found, "GiB before": before, "GiB at most": _peak()}


def soft_order(arch: str) -> dict[str, Any]:
    import torch

    import taichi_raster as tr

    tr.init(arch)
    generator = torch.Generator().manual_seed(0)
    middle = torch.rand(1, 160, 1, 2, generator=generator) * 1.6 - 0.8
    xy = middle + 0.3 * torch.randn(1, 160, 3, 2, generator=generator)
    z = 1 + torch.rand(1, 160, 1, 1, generator=generator).expand(-1, -1, 3, -1)
    faces, colours = torch.cat([xy, z], -1), torch.rand(1, 160, 3, 3, generator=generator)

    def gradient(count: int, twice: bool) -> None:
        moved = faces[:, :count].clone().requires_grad_()
        edge = tr.Distribution("logistic", 0.05)
        renderer = tr.SoftRasterizer(32, edge, tr.OverDepth(0.1), near=0.5, far=3.0)
        loss = renderer(moved, colours[:, :count]).square().sum()
        (first,) = torch.autograd.grad(loss, moved, create_graph=twice)
        if twice:
            first.square().sum().backward()

    found = {}
    for name, twice in (("gradient", False), ("Hessian-vector product", True)):
        gradient(2, twice)  # compiles
        before = _peak()
        gradient(160, twice)
        found[f"MiB, {name}"] = 1024 * (_peak() - before)
    return found


def comparisons(arch: str) -> dict[str, Any]:
    import torch

    import taichi_raster as tr
    from taichi_raster.depth.over import PixelFragments
    from taichi_raster.engine.soft_order import sums_in_soft_order
    from taichi_raster.kernels.soft_order_nodes import WIDE, nodes_for

    tr.init(arch)
    generator = torch.Generator().manual_seed(0)
    found = {}
    nodes = nodes_for(WIDE, tr.runtime().precision)
    # Depths of a range of WIDE, so that all nodes are needed.
    for name, layers, pixels in (("fragments", 10, 65536), ("nodes", 1000, 1024)):
        depth = torch.rand(layers, pixels, generator=generator).sort(dim=0)[0] * WIDE
        coverage = 0.1 * torch.rand(layers, pixels, generator=generator)
        shown = torch.stack([coverage.flatten(), depth.flatten()]).requires_grad_()
        fragments = PixelFragments(shown, torch.arange(layers * pixels), layers, pixels)
        gamma = torch.ones(pixels)
        best = float("inf")
        for _ in range(6):  # the first compiles
            begin = time.process_time()
            torch.autograd.grad(sums_in_soft_order(fragments, gamma).sum(), shown)
            best = min(best, time.process_time() - begin)
        found[f"ns, with {name}"] = 1e9 * best / (layers * pixels * min(layers, nodes))
    return found


def unrolled(arch: str, steps: int) -> dict[str, Any]:
    import torch
    from fit_task import make_method, make_task

    import taichi_raster as tr
    from meta.inner.unroll import unroll
    from scenes import timed

    tr.init(arch)
    before = _peak()
    task, method = make_task(), make_method(steps)
    learnable = list(method.learnable().values())

    def outer(recompute: bool | Literal["auto"] = "auto") -> None:
        run = unroll(method, task, create_graph=True, recompute=recompute)
        torch.autograd.grad(task.true_error(run.params).mean(), learnable)

    calls = {"inner": lambda: unroll(method, task), "outer": outer}
    found: dict[str, Any] = {"steps": steps}
    if steps <= 50:
        calls["outer, all recomputed"] = lambda: outer(True)
    found |= timed(calls, 5 if steps <= 50 else 1)
    found["outer / inner"] = found["outer"][1] / found["inner"][1]
    return {**found, "GiB before": before, "GiB at most": _peak()}


def _peak() -> float:
    """GiB that this process has held at most so far."""
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith("VmHWM:"):
            return int(line.split()[1]) / 2**20
    raise RuntimeError("/proc/self/status says nothing of memory")


def measure(name: str, arch: str) -> dict[str, Any]:
    if not name.startswith("first-"):  # which imports torch itself, and measures from there
        import torch

        torch.set_num_threads(1)
    if name.startswith("unroll-"):
        return unrolled(arch, int(name.removeprefix("unroll-")))
    known = {
        "first-image": first_image,
        "first-sharp": first_sharp,
        "deterministic": deterministic,
        "large": large,
        "soft-order": soft_order,
        "comparisons": comparisons,
    }
    return known[name](arch)


if __name__ == "__main__":
    print("\n" + json.dumps(measure(*sys.argv[1:])))
