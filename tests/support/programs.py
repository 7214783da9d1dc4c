"""Runs a program in a process of its own: for what only a process's first render shows."""

import subprocess
import sys

import taichi_raster as tr
from paths import ROOT

START = """
import sys, threading, torch
sys.path.insert(0, "tests/support")
torch.set_num_threads(1)
import taichi_raster as tr
from scenes import Case, gradients, hessian_vector_products, leaves, like, relative

def in_thread(function, *arguments):
    found = []
    def run():
        try:
            found.append(function(*arguments))
        except BaseException as error:
            found.append(error)
    thread = threading.Thread(target=run, daemon=True)
    thread.start()
    thread.join(120)
    assert not thread.is_alive(), "the thread hangs"
    if isinstance(found[0], BaseException):
        raise found[0]
    return found[0]

def scene(seed, faces=8, size=(9, 8), scale=0.13, **more):
    # (case, inputs in float64, the twin's gradients and second derivatives)
    case = Case("logistic").but(image_size=size, threshold=1e-6)
    x = case.inputs(seed=seed, faces=faces, **more)
    x["scale"] = torch.tensor(scale, dtype=torch.float64)
    return case, x, gradients(case.twin, x), hessian_vector_products(case.twin, x)

def check(case, x, first, second=None):
    x = {name: value.to(DTYPE) for name, value in x.items()}
    wanted = [(gradients, first)] + ([] if second is None else [(hessian_vector_products, second)])
    for derivative, expected in wanted:
        for name, value in derivative(case.ours, x).items():
            error = relative(value.double(), expected[name])
            assert error < SMALL, (derivative, name, tuple(case.view.image_size), error)
"""


def run_program(program: str, timeout: float = 240, start: str = START) -> str:
    """What a program prints, with this run's backend and precision as `ARCH`, `PRECISION`, `DTYPE`
    and `SMALL`, the error that its precision leaves; fails if it does.
    """
    settings = tr.runtime()
    small = 1e-9 if settings.precision == "f64" else 1e-3
    head = (
        f"ARCH, PRECISION, SMALL = {settings.arch!r}, {settings.precision!r}, {small}\n"
        f"import torch\nDTYPE = torch.float{settings.precision[1:]}\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", head + start + program],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=timeout,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-4000:]
    return done.stdout
