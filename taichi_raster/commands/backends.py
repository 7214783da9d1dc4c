"""``python -m taichi_raster``: which backends, precisions and devices work here.

Renders a small scene and checks its derivatives on each, in a process of its own (Taichi takes one
backend and precision a process, and a broken driver may take the process with it). The report is
the first thing to paste into a bug report.
"""

from __future__ import annotations

import argparse
import importlib.metadata
import json
import os
import platform
import subprocess
import sys
from dataclasses import dataclass
from typing import Annotated

from taichi_raster.commands.options import Within

CONFIGURATIONS = [
    ("cpu", "f32"), ("cpu", "f64"), ("vulkan", "f32"), ("cuda", "f32"), ("cuda", "f64"),
]  # fmt: skip
_PACKAGES = ("taichi-raster", "taichi", "torch", "numpy", "scipy", "trimesh")
_MARK = "taichi_raster report: "
TIMEOUT = Within(1, 1e6)


@dataclass(frozen=True)
class Backends:
    """Which backends, precisions and devices work here; the first thing for a bug report."""

    json: bool = False
    """Print JSON instead of a table."""
    timeout: Annotated[float, TIMEOUT] = 180.0
    """Seconds a configuration."""

    def run(self) -> int:
        """Do it; 0 if the CPU works."""
        return main(["--json"] * self.json + ["--timeout", str(self.timeout)])


@dataclass(frozen=True)
class Outcome:
    """What one configuration did."""

    arch: str
    precision: str
    works: bool
    text: str


def main(arguments: list[str] | None = None) -> int:
    """Print the report; 0 if the CPU works."""
    parser = argparse.ArgumentParser(prog="python -m taichi_raster", description=__doc__)
    parser.add_argument("--json", action="store_true", help="print JSON instead of a table")
    parser.add_argument("--timeout", type=float, default=180.0, help="seconds a configuration")
    parser.add_argument("--probe", nargs=2, metavar=("ARCH", "PRECISION"), help=argparse.SUPPRESS)
    options = parser.parse_args(arguments)
    try:
        TIMEOUT.check("--timeout", options.timeout)
    except ValueError as error:
        parser.error(str(error))
    if options.probe:
        print(_MARK + json.dumps(probe(*options.probe)))
        return 0
    facts = machine()
    if not options.json:
        for name, value in facts.items():
            print(f"{name:14s} {value}")
        print(flush=True)
    outcomes = []
    for arch, precision in CONFIGURATIONS:
        outcomes.append(attempt(arch, precision, options.timeout))
        if not options.json:
            last = outcomes[-1]
            print(f"{arch:7s} {precision}  {'works' if last.works else 'no   '}  {last.text}")
            sys.stdout.flush()
    if options.json:
        print(json.dumps({"machine": facts, "backends": [vars(o) for o in outcomes]}, indent=2))
    return 0 if all(o.works for o in outcomes if o.arch == "cpu") else 1


def machine() -> dict[str, str]:
    """Versions and hardware, without starting any backend."""
    facts = {"python": platform.python_version(), "system": platform.platform()}
    for package in _PACKAGES:
        try:
            facts[package] = importlib.metadata.version(package)
        except importlib.metadata.PackageNotFoundError:
            facts[package] = "not installed as a package"
    facts["processors"] = f"{os.cpu_count()} ({platform.machine()})"
    import torch

    if torch.cuda.is_available():
        names = [torch.cuda.get_device_name(i) for i in range(torch.cuda.device_count())]
        facts["torch's GPUs"] = ", ".join(names)
    else:
        facts["torch's GPUs"] = "none"
    return facts


def attempt(arch: str, precision: str, timeout: float) -> Outcome:
    """Probe a configuration in a process of its own."""
    command = [sys.executable, "-m", "taichi_raster", "--probe", arch, precision]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=timeout, check=False)
    except subprocess.TimeoutExpired:
        return Outcome(arch, precision, False, f"did not end within {timeout:g} s")
    reports = [line for line in done.stdout.splitlines() if line.startswith(_MARK)]
    if done.returncode == 0 and reports:
        found = json.loads(reports[-1].removeprefix(_MARK))
        return Outcome(arch, precision, found["works"], found["text"])
    lines = [line.strip() for line in done.stderr.splitlines() if line.strip()]
    why = lines[-1] if lines else f"the process ended with code {done.returncode}"
    return Outcome(arch, precision, False, why)


def probe(arch: str, precision: str) -> dict[str, object]:
    """Render a small scene here, and check its first and second derivatives.

    Against central differences in float64; in float32, which has too few digits for that, the
    second derivatives are checked for symmetry and the gradient against larger differences.
    """
    import time

    import torch

    import taichi_raster as tr

    torch.set_num_threads(1)
    settings = tr.init(arch=arch, precision=precision)
    start = time.perf_counter()
    mesh = tr.icosphere(0, 0.8, settings.dtype)
    camera = tr.PerspectiveCamera(tr.orbit(2.7, 20.0, 30.0).to(settings.dtype), 40.0)
    attributes = tr.gather_faces(mesh.vertices[None] * 0.5 + 0.5, mesh.faces)
    edge = tr.MLPSoftness((3, 3), scale=0.1)
    renderer = tr.SoftRasterizer(24, edge, tr.SoftmaxDepth(0.1), near=1.0, far=5.0)

    def loss(vertices: torch.Tensor) -> torch.Tensor:
        faces = tr.gather_faces(camera.project(vertices[None]), mesh.faces)
        return (renderer(faces, attributes) - 0.4).square().sum()

    at = mesh.vertices.clone().requires_grad_()
    value = loss(at)
    first_image = time.perf_counter() - start
    generator = torch.Generator().manual_seed(0)
    u, w = (torch.randn(at.shape, generator=generator).to(at) for _ in range(2))
    (gradient,) = torch.autograd.grad(value, at, create_graph=True)
    (hu,) = torch.autograd.grad(gradient, at, u, retain_graph=True)
    (hw,) = torch.autograd.grad(gradient, at, w)
    seconds = time.perf_counter() - start
    step = 1e-6 if precision == "f64" else 3e-3
    with torch.no_grad():
        difference = (loss(at + step * u) - loss(at - step * u)) / (2 * step)
    along = (gradient * u).sum().detach()
    first = float((difference - along).abs() / along.abs())
    second = float(((hu * w).sum() - (hw * u).sum()).abs() / (hu * w).sum().abs())
    limits = (1e-6, 1e-9) if precision == "f64" else (2e-2, 1e-3)
    works = first < limits[0] and second < limits[1] and bool(torch.isfinite(value))
    text = (
        f"first image after {first_image:.1f} s, both derivatives after {seconds:.1f} s; gradient "
        f"against differences {first:.0e}, asymmetry of second derivatives {second:.0e}"
    )
    return {"works": works, "text": text}
