"""Renders come from any thread and under any of torch's modes; a forked child is told at once."""

import threading
import time
from pathlib import Path

import pytest
import torch

import taichi_raster as tr
from programs import run_program
from scenes import gradients
from taichi_raster.engine.engine import engine
from taichi_raster.runtime.lru_cache import LRUCache
from taichi_raster.runtime.thread import OwnerThread, owner, runs_in_runtime_thread
from test_threads import assert_same, questions

ON_ANY = pytest.mark.runs_on(precision="f32")  # on CPU, Vulkan and CUDA
ON_CPU = pytest.mark.runs_on(arch="cpu", precision="f64")


# Threads ------------------------------------------------------------------------------------------


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
small = scene(1)
check(*small)
large = scene(2, faces=40)
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
        for turn in range(25):  # 200 rounds in all
            check(*order.choice(scenes))
            if turn % 8 == number % 8 and number < 3:  # larger fields, all kernels compiled anew
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
def test_eight_threads_200_rounds_of_sizes_that_grow() -> None:
    """First renders in workers, gradients and second derivatives, all right to the twin."""
    assert "rounds done" in run_program(STRESS, timeout=560)


def test_growth_that_fails_leaves_what_was_there(
    dtype: torch.dtype, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Memory may run out while larger fields are made."""
    (case, x), scratch = questions(dtype)[0], engine().scratch
    expected = gradients(case.ours, x)
    more = {name: owner.run(scratch.capacity, name) + 1 for name in ("x", "y", "cells", "pixels")}

    def fail(builder: object) -> None:
        raise MemoryError("no memory for this")

    import taichi as ti

    with monkeypatch.context() as patch:
        patch.setattr(ti.FieldsBuilder, "finalize", fail)
        for name, size in more.items():
            with pytest.raises(MemoryError, match="no memory for this"):
                owner.run(scratch.reserve, **{name: size})
    assert_same(gradients(case.ours, x), expected)


def test_what_a_thread_asks_for_holds_for_that_thread_alone(dtype: torch.dtype) -> None:
    """`derivatives_by("autodiff")` in one thread, closed forms in another meanwhile."""
    from taichi_raster.engine.autodiff import by_autodiff

    seen: list[bool] = []
    with tr.derivatives_by("autodiff"):
        thread = threading.Thread(target=lambda: seen.append(by_autodiff()))
        thread.start()
        thread.join()
        assert by_autodiff()
    assert seen == [False] and not by_autodiff()


# The owner ----------------------------------------------------------------------------------------


def test_jobs_are_done_one_after_the_other_in_one_thread() -> None:
    mine, seen = OwnerThread(), []

    def job(i: int) -> int:
        seen.append((i, threading.get_ident()))
        return mine.run(lambda: i * i)  # a job of a job is done at once

    threads = [threading.Thread(target=mine.run, args=(job, i)) for i in range(20)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert mine.run(job, 7) == 49
    assert len(seen) == 21 and len({ident for _, ident in seen}) == 1


def test_what_a_job_raises_reaches_whoever_asked() -> None:
    @runs_in_runtime_thread
    def fail(what: str) -> None:
        raise KeyError(what)

    with pytest.raises(KeyError, match="this"):
        fail("this")
    assert owner.run(lambda: 3) == 3


def test_an_interrupted_wait_leaves_the_owner_at_work() -> None:
    """Ctrl-C while a kernel runs: it ends by itself, and the next call is served."""
    mine = OwnerThread()
    release, done = threading.Event(), []

    def slow() -> None:
        release.wait(60)
        done.append("slow")

    def interrupt() -> None:
        time.sleep(0.2)
        import _thread

        _thread.interrupt_main()

    threading.Thread(target=interrupt, daemon=True).start()
    with pytest.raises(KeyboardInterrupt):
        mine.run(slow)
    release.set()
    assert mine.run(lambda: done) == ["slow"]


def test_own_taichi_code_runs_beside_the_renderer() -> None:
    import taichi as ti

    def make() -> object:
        field = ti.field(ti.i32, shape=5)
        field.fill(3)
        return field

    assert tr.in_runtime_thread(make).to_numpy().tolist() == [3] * 5


def test_caches_forget_what_was_not_used_for_the_longest_time() -> None:
    cache: LRUCache[str, int] = LRUCache(2)
    cache["a"], cache["b"] = 1, 2
    assert cache.get("a") == 1
    cache["c"] = 3
    assert (cache.get("a"), cache.get("b"), cache.get("c")) == (1, None, 3)


# Fork ---------------------------------------------------------------------------------------------

FORK = """
import multiprocessing, os, signal
def render(_=None):
    v = torch.tensor([[[[-0.5, -0.5, 2.0], [0.5, -0.5, 2.0], [0.0, 0.5, 2.0]]]], dtype=DTYPE)
    return float(tr.SoftRasterizer(8).silhouette(v).sum())
def told(_=None):
    try:
        render()
    except RuntimeError as error:
        return str(error)
    return "rendered"
"""


@ON_CPU
def test_a_forked_worker_is_told_at_once_and_ends() -> None:
    """Render, init and runtime; and the child's exit does not wait for Taichi's threads."""
    printed = run_program(
        FORK
        + """
tr.init(ARCH, PRECISION)
render()
with multiprocessing.get_context("fork").Pool(2) as pool:
    for message in pool.map_async(told, range(4)).get(30):
        assert "fork" in message and "spawn" in message, message
for call in (tr.runtime, lambda: tr.init(ARCH, PRECISION), lambda: tr.pretrained("pose")):
    child = os.fork()
    if child == 0:
        signal.alarm(30)  # a child that hangs is killed
        try:
            call()
        except RuntimeError as error:
            sys.exit(0 if "spawn" in str(error) else 2)
        sys.exit(1)
    status = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    assert status in (0, 1) if call is not tr.runtime else status == 0, status
child = os.fork()
if child == 0:
    signal.alarm(30)
    sys.exit(0)
assert os.waitpid(child, 0)[1] == 0, "a child that renders nothing hangs at its end"
render()
print("parent goes on")
"""
    )
    assert "parent goes on" in printed


@ON_CPU
def test_a_loader_with_forked_workers_is_told_and_with_spawned_ones_renders(tmp_path: Path) -> None:
    module = tmp_path / "dataset_of_renders.py"
    module.write_text(
        FORK.replace("import multiprocessing", "import torch, multiprocessing")
        + """
import taichi_raster as tr
DTYPE = torch.float32
class Renders(torch.utils.data.Dataset):
    def __len__(self):
        return 2
    def __getitem__(self, i):
        return render()
"""
    )
    run_program(
        f"sys.path.insert(0, {str(tmp_path)!r})"
        + """
from dataset_of_renders import Renders, render
expected = render()
def load(context):
    loader = torch.utils.data.DataLoader(
        Renders(), num_workers=1, multiprocessing_context=context, timeout=120
    )
    return [float(each) for each in loader]
try:
    load("fork")
    raise AssertionError("a forked worker rendered")
except RuntimeError as error:
    assert "spawn" in str(error), error
for context in ("spawn", "forkserver"):
    assert load(context) == [expected] * 2
"""
    )


@ON_CPU
def test_forking_before_the_first_render_is_right() -> None:
    run_program(
        FORK
        + """
with multiprocessing.get_context("fork").Pool(2) as pool:
    found = pool.map_async(render, range(3)).get(120)
tr.init("cpu", "f32")
assert [abs(each - found[0]) < 1e-6 for each in found] == [True] * 3
""".replace("tr.init(", "tr.init("),
        start="PRECISION = 'f32'\nDTYPE = torch.float32\nimport taichi_raster as tr, sys\n",
    )


# Torch's modes ------------------------------------------------------------------------------------


@ON_ANY
@pytest.mark.parametrize(
    "mode",
    [
        "torch.inference_mode()",
        "torch.no_grad()",
        "torch.autocast('cpu', dtype=torch.bfloat16)",
        "torch.device('meta')",
        "torch.autograd.forward_ad.dual_level()",
    ],
)
def test_a_first_render_and_growth_under_a_mode_do_no_harm_afterwards(mode: str) -> None:
    run_program(
        f"""
tr.init(ARCH, PRECISION)
one, other = scene(1), scene(2, faces=40, size=(20, 20))
def render(case, x, *_):
    return case.ours({{name: value.to(DTYPE) for name, value in x.items()}})
if "meta" in {mode!r}:
    render = lambda case, x, *_: tr.runtime()
from taichi_raster.engine.engine import engine
with {mode}:
    render(*one)
    tr.in_runtime_thread(engine().scratch.reserve, x=1 << 21, y=1 << 22)
    render(*other)
check(*one)
check(*other)
"""
    )


@ON_CPU
def test_an_import_that_fails_leaves_pythons_own_functions_alone() -> None:
    run_program(
        """
import inspect, sys
own = inspect.getframeinfo
sys.modules["taichi_raster.fitting.metrics"] = None
try:
    import taichi_raster
    raise AssertionError("imported")
except ImportError:
    pass
assert inspect.getframeinfo is own
""",
        start="",
    )
