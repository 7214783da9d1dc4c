"""Taichi's workers have a core each, where they are as many as the cores."""

from __future__ import annotations

import json
import os
import subprocess
import sys

import pytest

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="only Linux binds threads")

CODE = """
import json, os
import taichi_raster as tr

tr.init("cpu")
tasks = map(int, os.listdir("/proc/self/task"))
print(json.dumps([sorted(os.sched_getaffinity(task)) for task in tasks]))
"""


def bound(workers: int) -> list[int]:
    """The cores that some thread is bound to alone, in a process with so many workers."""
    environment = {**os.environ, "TI_CPU_MAX_NUM_THREADS": str(workers)}
    command = [sys.executable, "-c", CODE]
    done = subprocess.run(command, env=environment, capture_output=True, check=True, text=True)
    found = json.loads(done.stdout.splitlines()[-1])
    return sorted(cores[0] for cores in found if len(cores) == 1)


def test_each_worker_has_a_core_of_its_own():
    cores = sorted(os.sched_getaffinity(0))
    if len(cores) == 1:
        pytest.skip("all threads are bound to the only core")
    assert bound(len(cores)) == cores


def test_fewer_workers_than_cores_are_left_to_the_system():
    cores = os.sched_getaffinity(0)
    if len(cores) == 1:
        pytest.skip("all threads are bound to the only core")
    assert bound(len(cores) - 1) == []
