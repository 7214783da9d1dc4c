"""Renders come from any thread, several at a time, and never change one another."""

import gc
import threading
import weakref
from typing import Any

import pytest
import taichi as ti
import torch

import taichi_raster as tr
from programs import run_program
from scenes import assert_same, gradients, hessian_vector_products, questions
from taichi_raster.engine import autograd
from taichi_raster.engine.autodiff import by_autodiff
from taichi_raster.engine.engine import engine
from taichi_raster.runtime import transfer
from taichi_raster.runtime.thread import OwnerThread, owner

ON_ANY = pytest.mark.runs_on(precision="f32")  # on CPU, Vulkan and CUDA
ON_CPU = pytest.mark.runs_on(arch="cpu", precision="f64")


@ON_ANY
def test_the_first_render_may_come_from_any_thread() -> None:
    """And the next from another one, after the first has ended."""
    run_program(
        """
tr.init(ARCH, PRECISION)
for seed in (1, 2):
    in_thread(check, *scene(seed))
check(*scene(3))
"""
    )


@ON_ANY
def test_init_may_be_called_in_a_thread_that_ends() -> None:
    run_program(
        "in_thread(tr.init, ARCH, PRECISION)\nin_thread(check, *scene(1))\ncheck(*scene(2))"
    )


@ON_ANY
def test_a_render_in_a_thread_may_outgrow_the_memory() -> None:
    """Of another thread, as torch's backward is on a GPU; then the main thread renders on."""
    run_program(
        """
tr.init(ARCH, PRECISION)
small = scene(1)[:3]
check(*small)
large = scene(2, faces=40)[:3]
from taichi_raster.engine.engine import engine
before = engine().scratch.version
grow = lambda: tr.in_runtime_thread(engine().scratch.reserve, x=1 << 21, y=1 << 22, y_dot=1 << 22)
in_thread(grow)
assert engine().scratch.version >= before + 3
check(*large)
in_thread(check, *small)
"""
    )


@ON_CPU
def test_two_threads_that_initialise_at_once_get_one_runtime() -> None:
    run_program(
        """
ready = threading.Barrier(8)
found = []
def start(function):
    ready.wait(60)
    found.append(function())
threads = [threading.Thread(target=start, args=(f,)) for f in [tr.runtime, tr.init] * 4]
[thread.start() for thread in threads]
[thread.join(60) for thread in threads]
assert len(found) == 8 and len({id(each) for each in found}) == 1, found
"""
    )


STRESS = """
import random
tr.init(ARCH, PRECISION)
scenes = [
    scene(1), scene(2, faces=3, size=(17, 20)), scene(3, faces=30, size=(5, 6)),
    scene(4, faces=12, size=(30, 8)), scene(5, faces=60, size=(24, 24), batch=1),
    scene(6, faces=2, size=(70, 40), batch=1), scene(7, faces=9, size=(12, 33)),
    scene(8, faces=5, size=(8, 8)),
]
from taichi_raster.runtime import scratch
from taichi_raster.engine.engine import engine
failures, start = [], threading.Barrier(8)

def work(number):
    order = random.Random(number)
    try:
        start.wait(60)
        for turn in range(12):  # 96 rounds in all
            check(*order.choice(scenes))
            if number < 3 and turn == 8 * number:  # larger fields
                name = ("x", "y", "tile_faces")[number]
                size = tr.in_runtime_thread(engine().scratch.capacity, name) + 1
                tr.in_runtime_thread(engine().scratch.reserve, **{name: size})
    except BaseException as failure:
        failures.append(failure)

threads = [threading.Thread(target=work, args=(i,), daemon=True) for i in range(8)]
[thread.start() for thread in threads]
for thread in threads:
    thread.join(500)
    assert not thread.is_alive(), "a thread hangs"
if failures:
    raise failures[0]
print("rounds done")
"""


@ON_ANY
def test_eight_threads_96_rounds_of_sizes_that_grow() -> None:
    """First renders in workers, gradients and second derivatives, all right to the twin."""
    assert "rounds done" in run_program(STRESS, timeout=560)


def test_growth_that_fails_leaves_what_was_there(
    dtype: torch.dtype, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Memory may run out while larger fields are made."""
    (case, x), scratch = questions(dtype)[0], engine().scratch
    expected = gradients(case.ours, x)
    more = {name: owner.run(scratch.capacity, name) + 1 for name in ("x", "y", "cells", "pixels")}

    def fail(_: object) -> None:
        raise MemoryError("no memory for this")

    with monkeypatch.context() as patch:
        patch.setattr(ti.FieldsBuilder, "finalize", fail)
        for name, size in more.items():
            with pytest.raises(MemoryError, match="no memory for this"):
                owner.run(scratch.reserve, **{name: size})
    assert_same(gradients(case.ours, x), expected)


@ON_CPU
def test_fields_that_another_thread_replaces_before_a_backward_are_noticed() -> None:
    """The call's data are gone then, and are brought there again."""
    run_program(
        """
from taichi_raster.engine.engine import engine
tr.init(ARCH, PRECISION)
case, x, first, _ = scene(1)
for name in ("x", "y"):
    given = leaves(x)
    image = case.ours(given)
    size = tr.in_runtime_thread(engine().scratch.capacity, name) + 1
    in_thread(tr.in_runtime_thread, lambda: engine().scratch.reserve(**{name: size}))
    (image * like(image)).sum().backward()
    for key, expected in first.items():
        assert relative(given[key].grad, expected) < SMALL, (name, key)
"""
    )


@ON_CPU
def test_compiled_kernels_find_fields_that_grew_and_not_those_that_moved() -> None:
    """Somebody else's field has taken the number of a tree, when fields of ours move.

    In a process of its own: where other threads compiled kernels of theirs, fields do move.
    """
    run_program(
        """
import taichi as ti
from taichi_raster.engine.engine import engine
from taichi_raster.runtime import scratch as memory
from taichi_raster.runtime.launcher import Launcher
tr.init(ARCH, PRECISION)
case, x, first, _ = scene(1)

def check():
    for name, expected in first.items():
        assert relative(gradients(case.ours, x)[name], expected) < SMALL, name
        with tr.derivatives_by("autodiff"):
            assert relative(gradients(case.ours, x)[name], expected) < SMALL, name

check()
scratch, compiled, find = engine().scratch, [], Launcher._find

def counted(launcher, arguments):
    compiled.append(launcher._method)
    find(launcher, arguments)

Launcher._find = counted
layout, held = scratch.layout, len(scratch.views[scratch.x])
for names in ("x",), ("y", "tile_faces"), ("cells", "state", "x"):
    sizes = {name: scratch.capacity(name) + 1 for name in names}
    tr.in_runtime_thread(scratch.reserve, **sizes)
    check()
assert len(scratch.views[scratch.x]) == 4 * held
assert scratch.layout == layout and not compiled, compiled

def move():
    scratch._capacity["x"] = 0
    memory._free(scratch._trees.pop("x"))
    other = ti.field(ti.f32)
    builder = ti.FieldsBuilder()
    builder.dense(ti.i, 4).place(other)
    builder.finalize()

tr.in_runtime_thread(move)
check()
assert scratch.layout > layout and compiled
"""
    )


@ON_CPU
def test_growth_after_taichi_was_used_in_another_thread_costs_memory_alone() -> None:
    """Taichi cannot give back fields that are older than that thread's kernels."""
    printed = run_program(
        """
import logging, sys
import taichi as ti
from taichi_raster.engine.engine import engine
logging.basicConfig(level=logging.WARNING, stream=sys.stdout)
tr.init(ARCH, PRECISION)
check(*scene(1)[:3])
def make():
    field = ti.field(ti.i32, shape=5)
    field.fill(0)
    return field

field = tr.in_runtime_thread(make)
for _ in range(2):
    assert field.to_numpy().tolist() == [0] * 5  # in this thread, not in the one that owns Taichi
    sizes = {name: tr.in_runtime_thread(engine().scratch.capacity, name) + 1 for name in "xy"}
    tr.in_runtime_thread(engine().scratch.reserve, **sizes)
    check(*scene(1)[:3])
"""
    )
    assert "in_runtime_thread" in printed


def test_what_a_thread_asks_for_holds_for_that_thread_alone() -> None:
    """`derivatives_by("autodiff")` in one thread, closed forms in another meanwhile."""
    seen: list[bool] = []
    with tr.derivatives_by("autodiff"):
        thread = threading.Thread(target=lambda: seen.append(by_autodiff()))
        thread.start()
        thread.join()
        assert by_autodiff()
    assert seen == [False] and not by_autodiff()


def test_threads_do_not_see_each_other(dtype: torch.dtype) -> None:
    """Renders, backward and double backward, several at a time, each its own scene."""
    cases = questions(dtype)
    alone = [(gradients(case.ours, x), hessian_vector_products(case.ours, x)) for case, x in cases]
    failures: list[BaseException] = []
    start = threading.Barrier(len(cases))

    def work(i: int) -> None:
        case, x = cases[i]
        try:
            start.wait(timeout=60)
            for _ in range(3):
                assert_same(gradients(case.ours, x), alone[i][0])
                assert_same(hessian_vector_products(case.ours, x), alone[i][1])
        except BaseException as failure:  # noqa: BLE001 - raised below
            failures.append(failure)

    threads = [threading.Thread(target=work, args=(i,), daemon=True) for i in range(len(cases))]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(timeout=120)
        assert not thread.is_alive(), "two renders wait for each other"
    if failures:
        raise failures[0]


# Interrupts, and renders within renders -----------------------------------------------------------


@pytest.mark.runs_on(arch="cpu", precision="f64")
@pytest.mark.parametrize("seconds", [0.005, 0.02, 0.1])
def test_an_interrupted_start_is_finished_all_the_same(seconds: float) -> None:
    """Ctrl-C while Taichi starts, as in a notebook; the next call takes what was started."""
    run_program(
        f"""
import _thread, time
threading.Timer({seconds}, _thread.interrupt_main).start()
try:
    tr.init(ARCH, PRECISION)
    time.sleep(1)
except KeyboardInterrupt:
    pass
assert tr.init(ARCH, PRECISION) is tr.runtime()
check(*scene(1))
"""
    )


@pytest.mark.runs_on(arch="cpu", precision="f64")
def test_a_start_within_the_runtimes_thread_and_one_outside_do_not_wait_for_each_other() -> None:
    run_program(
        """
import time
started = threading.Event()
def inside():
    started.set()
    time.sleep(0.3)
    return tr.runtime()
thread = threading.Thread(target=tr.in_runtime_thread, args=(inside,), daemon=True)
thread.start()
started.wait(60)
tr.runtime()
thread.join(60)
assert not thread.is_alive(), "they wait for each other"
"""
    )


def test_a_render_within_a_render_is_refused_and_does_no_harm(
    dtype: torch.dtype, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As a finalizer's that Python runs in the owner's thread: it would overwrite the memory."""
    (case, x), (other, y) = questions(dtype)[:2]
    expected = gradients(case.ours, x)
    complaints: list[str] = []
    read = transfer.read

    def disturbed(*arguments: Any) -> torch.Tensor:
        if not complaints:
            complaints.append("begun")
            try:
                other.ours(y)
            except RuntimeError as error:
                complaints.append(str(error))
        return read(*arguments)

    monkeypatch.setattr(transfer, "read", disturbed)
    assert_same(gradients(case.ours, x), expected)
    assert "finalizer" in complaints[1]


def test_only_one_of_several_threads_that_were_started_serves() -> None:
    mine, seen = OwnerThread(), set()
    for _ in range(8):
        threading.Thread(target=mine._serve, daemon=True).start()
    for _ in range(50):
        seen.add(mine.run(threading.get_ident))
    assert len(seen) == 1


def test_a_loss_that_is_kept_after_its_backward_keeps_no_fragments(dtype: torch.dtype) -> None:
    """Torch frees what an operation saved; its lists of fragments are among that."""
    x = questions(dtype)[0][1]
    kept: list[Any] = []
    lists = autograd.Evaluate.forward

    def watched(x: torch.Tensor, texels: None, work: Any) -> Any:
        kept.extend(weakref.ref(tensor) for tensor in work.kept)
        return lists(x, texels, work)

    vertices = x["vertices"].clone().requires_grad_()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(autograd.Evaluate, "forward", staticmethod(watched))
        renderer = tr.SoftRasterizer(8, depth=tr.OverDepth(0.1))
        loss = renderer(vertices, x["attributes"]).sum()
    loss.backward()
    gc.collect()
    assert len(kept) == 4 and not [ref for ref in kept if ref() is not None]
    assert float(loss) > 0
