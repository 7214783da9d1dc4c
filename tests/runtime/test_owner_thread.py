"""One thread owns Taichi's runtime: it does the jobs of all others, and survives what they do."""

import threading
from typing import Any

import pytest
import taichi as ti

import taichi_raster as tr
from interrupts import interrupted
from taichi_raster.runtime.lru_cache import LRUCache
from taichi_raster.runtime.thread import OwnerThread, owner, runs_in_runtime_thread


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

    with interrupted():
        mine.run(slow)
    assert not done
    release.set()
    assert mine.run(lambda: done) == ["slow"]


def test_own_taichi_code_runs_beside_the_renderer() -> None:
    def make() -> Any:
        field = ti.field(ti.i32, shape=5)
        field.fill(3)
        return field

    field = tr.in_runtime_thread(make)
    assert tr.in_runtime_thread(field.to_numpy).tolist() == [3] * 5


def test_caches_forget_what_was_not_used_for_the_longest_time() -> None:
    cache: LRUCache[str, int] = LRUCache(2)
    cache["a"], cache["b"] = 1, 2
    assert cache.get("a") == 1
    cache["c"] = 3
    assert (cache.get("a"), cache.get("b"), cache.get("c")) == (1, None, 3)
