"""Runs pytest for each backend and precision, in processes of their own; fails if any fails.

    python tests/run_configurations.py [arguments for pytest]

CPU float64 (most of the tests) and float32 always run; Vulkan and CUDA (float32) where a trial
works on them. Each runs in parts, two at a time. With TAICHI_RASTER_REQUIRE_VULKAN=1 in the
environment a missing Vulkan is a failure, not a skip.
"""

import os
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent

GPUS = ("vulkan", "cuda")

Run = tuple[str, str, str]
"""Backend, precision, and the part "k/n" of its tests."""

# Where a driver is missing, Taichi falls back to another backend or takes the process with it:
# hence a process of its own, and a look at what Taichi chose in the end.
PROBE = """
import sys
import taichi as ti
wanted = getattr(ti, sys.argv[1])
ti.init(arch=wanted, enable_fallback=False, offline_cache=False)
chosen = ti.lang.impl.current_cfg().arch
assert chosen == wanted, f"Taichi chose {chosen} instead"
x = ti.field(ti.f32, shape=3)
x.fill(2.0)
assert x.to_numpy().tolist() == [2.0, 2.0, 2.0], f"wrong result {x}"
"""


def main() -> int:
    pytest_arguments = sys.argv[1:]
    lanes = [parts("cpu", "f64", 5), parts("cpu", "f32", 3)]
    outcomes = []
    with ThreadPoolExecutor(max_workers=2) as pool:
        reasons = dict(zip(GPUS, pool.map(why_not, GPUS), strict=True))
    for arch, reason in reasons.items():
        if reason is None:
            lanes[1].insert(0, (arch, "f32", "1/1"))  # the longest part first
        elif arch == "vulkan" and os.environ.get("TAICHI_RASTER_REQUIRE_VULKAN") == "1":
            outcomes.append((False, f"{arch} f32: FAILED, required but {reason}"))
        else:
            outcomes.append((True, f"{arch} f32: skipped, {reason}"))
    # Two at a time: most of a run is compiling kernels, which keeps one core busy. Not two parts of
    # one configuration: the second finds the kernels that the first has compiled, once that ends.
    with ThreadPoolExecutor(max_workers=2) as pool:
        work = [
            pool.submit(run_lane, lane, other, pytest_arguments)
            for lane, other in (lanes, lanes[::-1])
        ]
        done = [outcome for each in work for outcome in each.result()]
    outcomes = [*done, *outcomes]
    print("\n=== all configurations ===")
    for outcome in outcomes:
        print(outcome[1])
    return 0 if all(outcome[0] for outcome in outcomes) else 1


def parts(arch: str, precision: str, count: int) -> list[Run]:
    return [(arch, precision, f"{k}/{count}") for k in range(1, count + 1)]


def run_lane(own: list[Run], other: list[Run], arguments: list[str]) -> list[tuple[bool, str]]:
    """Run a lane from its beginning, and then help the other from its end."""
    outcomes = []
    while own or other:
        try:
            run = own.pop(0) if own else other.pop()
        except IndexError:  # taken meanwhile
            break
        outcomes.append(run_pytest(run, arguments))
    return outcomes


def run_pytest(run: Run, arguments: list[str]) -> tuple[bool, str]:
    """Run a part of one configuration, its output marked line by line."""
    arch, precision, part = run
    start = time.perf_counter()
    name = f"{arch} {precision}" + ("" if part == "1/1" else f" {part}")
    command = [sys.executable, "-m", "pytest", f"--arch={arch}", f"--precision={precision}"]
    command += [f"--part={part}", "--durations=10"]
    environment = {**os.environ, "PYTHONUNBUFFERED": "1"}
    # All kernels of a run fit in: Taichi deletes a quarter of its cache whenever it exceeds 100 MB.
    environment.setdefault("TI_OFFLINE_CACHE_MAX_SIZE_OF_FILES", str(1 << 30))
    # Many images set it. Tests start a hundred processes, which would compile every module anew.
    environment.pop("PYTHONDONTWRITEBYTECODE", None)
    with subprocess.Popen(
        [*command, *arguments],
        cwd=ROOT,
        env=environment,
        text=True,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
    ) as process:
        assert process.stdout is not None
        failures = []
        for line in process.stdout:
            print(f"[{name}] {line}", end="", flush=True)
            if line.startswith(("FAILED ", "ERROR ")):  # of pytest's short summary
                failures.append(f"\n    {line.strip()}")
    seconds = time.perf_counter() - start
    code = process.returncode
    if code == pytest.ExitCode.NO_TESTS_COLLECTED and part != "1/1":
        code = 0  # the files asked for are in another part
    verdict = "passed" if code == 0 else f"FAILED (pytest exit code {code})"
    return code == 0, f"{name}: {verdict} in {seconds:.0f} s{''.join(failures)}"


def why_not(arch: str) -> str | None:
    """None where `arch` works on this machine, else the reason that it does not."""
    try:
        probe = subprocess.run(
            [sys.executable, "-c", PROBE, arch],
            capture_output=True,
            text=True,
            timeout=120,
            check=False,
        )
    except subprocess.TimeoutExpired:
        return "a trial did not end within 120 s"
    if probe.returncode == 0:
        return None
    # Taichi also logs to stdout, in colour: the reason is the last line of the traceback.
    lines = [line.strip() for line in probe.stderr.splitlines() if line.strip()]
    return f"a trial failed: {lines[-1] if lines else f'exit code {probe.returncode}'}"


if __name__ == "__main__":
    sys.exit(main())
