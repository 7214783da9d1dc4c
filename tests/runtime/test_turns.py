"""What is compiled runs in the caller's thread, where it can, and one caller works at a time."""

import threading
import time
from collections.abc import Callable
from contextlib import AbstractContextManager
from typing import Any

import pytest
import torch

import taichi_raster as tr
from interrupts import interrupted
from programs import run_program
from taichi_raster.engine import areas, sight_by_tiles
from taichi_raster.runtime import transfer
from taichi_raster.runtime.thread import OwnerThread, owner
from taichi_raster.runtime.transforms import no_modes

TRIANGLE = [[[[-0.5, -0.5, 2.0], [0.5, -0.5, 2.0], [0.0, 0.5, 2.0]]]]


def threads_that_work(
    renderer: torch.nn.Module, monkeypatch: pytest.MonkeyPatch, gradient: bool = True
) -> set[int]:
    """Those in which a render's, and its gradient's, work with kernels is done."""
    seen: set[int] = set()

    def noting(function: Callable[..., Any]) -> Callable[..., Any]:
        def noted(*arguments: Any, **named: Any) -> Any:
            seen.add(threading.get_ident())
            return function(*arguments, **named)

        return noted

    faces = torch.tensor(TRIANGLE, dtype=tr.runtime().dtype)
    renderer(faces, torch.ones_like(faces))  # compiles
    leaf = faces.clone().requires_grad_(gradient)
    for module, name in (
        (transfer, "read"),
        (transfer, "seed"),
        (areas, "launch"),
        (sight_by_tiles, "launch"),
    ):
        monkeypatch.setattr(module, name, noting(getattr(module, name)))
    image = renderer(leaf, torch.ones_like(faces))
    if gradient:
        image.sum().backward()
    return seen


RENDERERS = {
    "softmax": lambda: tr.SoftRasterizer(8, depth=tr.SoftmaxDepth()),
    "in order": lambda: tr.SoftRasterizer(8),
    "sharp": lambda: tr.SharpRasterizer(8),
}


@pytest.mark.runs_on(arch="cpu")
@pytest.mark.parametrize("name", RENDERERS)
def test_a_compiled_render_is_done_in_the_callers_thread(
    name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    renderer = RENDERERS[name]()
    threads_that_work(renderer, monkeypatch)  # compiles
    assert threads_that_work(renderer, monkeypatch) == {threading.get_ident()}


MODES: dict[str, Callable[[], AbstractContextManager[Any]]] = {
    "inference": torch.inference_mode,
    "autocast": lambda: torch.autocast("cpu", dtype=torch.bfloat16),
    "default device": lambda: torch.device("cpu"),
}


@pytest.mark.runs_on(arch="cpu")
@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("name", RENDERERS)
def test_under_a_mode_it_is_handed_over(
    name: str, mode: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """There, memory that is kept for later calls would be made in the caller's mode."""
    renderer = RENDERERS[name]()
    assert no_modes()
    with MODES[mode]():
        assert not no_modes()
        seen = threads_that_work(renderer, monkeypatch, gradient=False)
    assert seen == {owner.run(threading.get_ident)} != {threading.get_ident()}


def test_one_caller_works_at_a_time() -> None:
    mine, inside, most = OwnerThread(), [0], [0]
    failures: list[BaseException] = []

    def work() -> None:
        inside[0] += 1
        most[0] = max(most[0], inside[0])
        time.sleep(0.001)
        inside[0] -= 1

    def call(i: int) -> None:
        try:
            for turn in range(10):
                (mine.run if (i + turn) % 2 else mine.run_here)(work)
        except BaseException as failure:  # noqa: BLE001 - raised below
            failures.append(failure)

    threads = [threading.Thread(target=call, args=(i,), daemon=True) for i in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
        assert not thread.is_alive(), "two callers wait for each other"
    assert not failures and most == [1]


def test_what_runs_here_may_hand_over_a_part() -> None:
    mine = OwnerThread()
    here, there = mine.run_here(lambda: (threading.get_ident(), mine.run(threading.get_ident)))
    assert here == threading.get_ident() != there == mine.run(threading.get_ident)
    assert mine.run(lambda: mine.run_here(threading.get_ident)) == there


def test_a_caller_waits_for_the_job_of_one_that_was_interrupted() -> None:
    """The owner goes on with it, so that no other may work meanwhile."""
    mine = OwnerThread()
    release, done = threading.Event(), []

    def slow() -> None:
        release.wait(60)
        done.append("slow")

    with interrupted():
        mine.run_here(mine.run, slow)
    threading.Timer(0.2, release.set).start()
    assert mine.run_here(done.copy) == ["slow"]


@pytest.mark.runs_on(arch="cpu", precision="f64")
@pytest.mark.parametrize("sharp", [True, False], ids=["sharp", "soft"])
def test_interrupts_at_any_time_leave_later_renders_right(sharp: bool) -> None:
    """Ctrl-C in the middle of the caller's own work, a hundred times."""
    printed = run_program(
        f"""
import random, signal, time
signal.signal(signal.SIGINT, signal.default_int_handler)
tr.init(ARCH, PRECISION)
x = Case("logistic").inputs(seed=1, faces=30)
if {sharp}:
    renderers = [tr.SharpRasterizer(size, near=0.5, far=3.0) for size in (20, 33)]
else:
    renderers = [tr.SoftRasterizer(size, near=0.5, far=3.0) for size in (20, 33)]
def both(renderer):
    leaves = [x[name].clone().to(DTYPE).requires_grad_() for name in ("vertices", "attributes")]
    image = renderer(*leaves)
    return [image.detach(), *torch.autograd.grad(image.square().sum(), leaves)]
expected = [both(renderer) for renderer in renderers]
began = time.perf_counter()
both(renderers[0])
took = time.perf_counter() - began
chance = random.Random(0)
import _thread
armed = threading.Event()
def interrupting():
    while True:
        armed.wait()
        armed.clear()
        time.sleep(chance.random() * took)
        _thread.interrupt_main()
threading.Thread(target=interrupting, daemon=True).start()
hit = 0
for turn in range(120):
    try:
        armed.set()
        for _ in range(20):  # Python drops what is raised within a finalizer
            both(renderers[turn % 2])
    except KeyboardInterrupt:
        hit += 1
    which = chance.randrange(2)
    found = both(renderers[which])
    assert all(torch.allclose(f, e, rtol=1e-9, atol=1e-12) for f, e in zip(found, expected[which]))
print("interrupts:", hit)
"""
    )
    assert int(printed.split()[-1]) > 80
