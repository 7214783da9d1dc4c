"""The main example at toy size: it writes all that it promises, and survives a kill."""

import contextlib
import io
import os
import signal
import subprocess
import sys
import time

import pytest
import tyro

import learn_softness as program
import taichi_raster as tr
from paths import ROOT

pytestmark = [pytest.mark.runs_on(arch="cpu", precision="f32"), pytest.mark.timeout(600)]

SIZES = [
    "--grid=tiny",
    "--image-size=12",
    "--triangles=1",
    "--steps=6",
    "--tuning-batch=4",
    "--rounds=1",
    "--iterations=4",
    "--tasks=2",
    "--pairs=2",
    "--validate-every=2",
    "--validation-batches=1",
    "--unseen=12",
]
FILES = [
    "convergence.png",
    "learned_softness.safetensors",
    "softness.png",
    "solved.png",
    "solving.gif",
    "table.md",
    "tuning.md",
]


def command(out, *more):
    return [sys.executable, "examples/learn_softness.py", f"--out={out}", *SIZES, *more]


def run(out, *more):
    """In this process, which has a runtime already; on a CPU, it is deterministic in any case."""

    def init(arch, deterministic):
        assert arch == "cpu" and deterministic
        return tr.runtime()

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(tr, "init", init)
        program.main(tyro.cli(program.Options, args=[f"--out={out}", *SIZES, *more]))


def environment():
    return {**os.environ, "PYTHONPATH": str(ROOT)}


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    out = tmp_path_factory.mktemp("whole")
    with contextlib.redirect_stdout(io.StringIO()) as printed:
        run(out)
    return out, printed.getvalue()


def test_it_states_its_plan_and_writes_all_that_it_promises(whole):
    out, printed = whole
    assert sorted(path.name for path in out.iterdir() if path.is_file()) == FILES
    assert all((out / name).stat().st_size > 100 for name in FILES)
    for text in (
        "inner runs",
        "share",
        "best constant",
        "best annealed",
        "Unseen tasks",
        "What the shape is worth",
        "time:",
    ):
        assert text in printed
    table = (out / "table.md").read_text().splitlines()
    begin = next(i for i, line in enumerate(table) if line.startswith("| softness")) + 2
    assert [line.split(" | ")[0] for line in table[begin : begin + 4]] == [
        "| best constant",
        "| best annealed",
        "| learned",
        "| learned schedules, logistic shape",
    ]


def test_a_run_killed_halfway_and_resumed_gives_the_same_table(whole, tmp_path):
    log = tmp_path / "state" / "learned" / "log.jsonl"
    with subprocess.Popen(
        command(tmp_path), cwd=ROOT, env=environment(), stdout=subprocess.DEVNULL
    ) as process:
        deadline = time.monotonic() + 300
        while not (log.is_file() and log.read_text().count("\n") >= 1):
            assert process.poll() is None and time.monotonic() < deadline
            time.sleep(0.01)
        process.send_signal(signal.SIGKILL)
    assert not (tmp_path / "table.md").exists()
    run(tmp_path, "--resume")
    for name in ("table.md", "tuning.md"):
        assert (tmp_path / name).read_text() == (whole[0] / name).read_text()


def test_resuming_with_other_settings_or_from_nothing_is_a_clear_error(whole, tmp_path):
    other = refused(whole[0], "--resume", "--seed=5")
    assert "learn_softness: " in other and "seed: saved 0, now 5" in other
    assert "learn_softness: no file at" in refused(tmp_path, "--resume")


def refused(out, *more):
    """What the program says as it ends in an error, in a process of its own."""
    done = subprocess.run(
        command(out, *more),
        cwd=ROOT,
        env=environment(),
        text=True,
        capture_output=True,
        check=False,
    )
    assert done.returncode == 1 and "Traceback" not in done.stderr
    return done.stderr
