"""Several processes: they do what one would, and a lost one costs nothing. Real torchrun runs."""

import json
import os
import subprocess
import sys

import pytest
import torch

import spread_program
from meta.estimators import es_gradient
from meta.inner.method import Method
from meta.inner.updates import Adam
from meta.outer.distributed import World, join
from meta.outer.estimator import Shard
from meta.outer.loss import OuterLoss
from paths import ROOT, SUPPORT
from spread_program import TRAININGS, Toys
from toy_tasks import Rate, ToyRenderer

pytestmark = pytest.mark.runs_on(arch="cpu", precision="f64")

PROGRAM = SUPPORT / "spread_program.py"


def torchrun(processes, *arguments, restarts=0):
    environment = {**os.environ, "PYTHONPATH": f"{ROOT}{os.pathsep}{SUPPORT}"}
    for name in ("TI_CPU_MAX_NUM_THREADS", "OMP_NUM_THREADS"):
        environment.pop(name, None)
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone"]
    command += ["--nproc-per-node", str(processes), "--max-restarts", str(restarts)]
    return subprocess.run(
        [*command, str(PROGRAM), *map(str, arguments)],
        env=environment,
        capture_output=True,
        text=True,
        timeout=600,
        check=False,
    )


@pytest.fixture(scope="module")
def together(tmp_path_factory):
    """What each of 3 processes found, with batches of 7 and 5 instances: uneven shares."""
    folder = tmp_path_factory.mktemp("together")
    run = torchrun(3, "together", folder / "found")
    assert run.returncode == 0, run.stderr[-3000:]
    found = [json.loads((folder / f"found.{rank}.json").read_text()) for rank in range(3)]
    left = [json.loads((folder / f"found.left.{rank}").read_text()) for rank in range(3)]
    return [{**rank, "left": said} for rank, said in zip(found, left, strict=True)]


@pytest.fixture(scope="module")
def alone():
    return {name: spread_program.train(name) for name in TRAININGS}


def assert_close(one, other, tolerance=1e-12):
    """Equal nests, their floats to the tolerance."""
    assert type(one) is type(other)
    if isinstance(one, dict):
        assert one.keys() == other.keys()
        for key in one:
            # what is below rounding in a mean square is its root above it in a spread
            assert_close(one[key], other[key], 1e-9 if key.startswith("es_") else tolerance)
    elif isinstance(one, list):
        assert len(one) == len(other)
        for left, right in zip(one, other, strict=True):
            assert_close(left, right, tolerance)
    elif isinstance(one, float):
        assert one == pytest.approx(other, rel=tolerance, abs=tolerance)
    else:
        assert one == other


@pytest.mark.parametrize("name", TRAININGS)
def test_a_training_is_the_same_on_three_processes_as_on_one(together, alone, name):
    for rank in together:
        assert rank["size"] == 3
        assert rank[name]["parameters"] == together[0][name]["parameters"]  # to the bit
        assert_close(rank[name], alone[name])


def test_a_search_of_baselines_is_the_same_on_three_processes_as_on_one(together):
    wanted = json.loads(json.dumps(spread_program.tune()))
    assert all(rank["tuning"] == wanted for rank in together)


def test_instances_left_out_are_in_the_log_of_every_process(together, alone):
    for result in (alone, *together):
        skipped = [e.get("skipped_instances") for e in result["skipping"]["history"]]
        assert skipped[:4] == [None, [2], None, [0, 6]]


def test_more_processes_than_instances_are_refused_by_name(together):
    for rank in together:
        assert rank["too few"].startswith("ValueError: batch_size: 2 instances cannot be spread")
        assert rank["few to validate"].startswith("ValueError: validation_batch_size: 2 instances")


def test_what_is_not_finite_on_one_process_stops_all_and_is_named(together):
    for number, rank in enumerate(together):
        assert rank["stopped"].startswith("FloatingPointError: outer iteration 1: ")
        assert "stream 'train', batch 1, instance 5: " in rank["stopped"]
        assert ("rank 2 failed" in rank["stopped"]) is (number != 2)


def test_a_process_that_hangs_is_named_within_the_timeout(together):
    hung = together[0]["hung"]
    assert hung.startswith("WorkerLost: rank 0 of 3: another process died or kept the others")
    assert "Rank 2" in hung and "last checkpoint" in hung
    assert all(rank["hung"].startswith("WorkerLost") for rank in together)


def test_processes_leave_their_group_before_the_interpreter_is_taken_down(together):
    if sys.platform == "linux":
        assert all(any("gloo" in name for name in rank["joined"]) for rank in together)
    assert all("group" in rank["joined"] and rank["left"] == [] for rank in together)


def test_processes_share_the_cores(together):
    cores = len(os.sched_getaffinity(0))
    assert {rank["threads"] for rank in together} == {str(max(1, cores // 3))}


def test_a_worker_that_dies_costs_nothing(tmp_path):
    undisturbed = spread_program.trainer().run(quiet=True).best.parameters
    run = torchrun(2, "mishaps", tmp_path, restarts=1)
    assert run.returncode == 0, run.stderr[-3000:]
    began = [(tmp_path / f"began.{rank}.{n}").read_text() for n in (0, 1) for rank in (0, 1)]
    assert began == ["0", "0", "2", "2"]
    ended = tmp_path / "ended.0.0"
    if ended.is_file():  # unless torchrun was quicker to end it
        assert ended.read_text().startswith(("WorkerLost: rank 0 of 2", "SystemExit: 143"))
    best = json.loads((tmp_path / "best.json").read_text())
    assert_close(best, {name: value.tolist() for name, value in undisturbed.items()})


@pytest.mark.parametrize("total", [5, 6, 16])
def test_shares_are_contiguous_and_differ_by_one_at_most(total):
    shards = [World(rank, 5).shard(total) for rank in range(5)]
    assert sum((shard.instances for shard in shards), ()) == tuple(range(total))
    sizes = [len(shard.instances) for shard in shards]
    assert max(sizes) - min(sizes) <= 1


def test_directions_belong_to_instances_not_to_their_place_in_a_share():
    task = Toys().sample(5, "train", 0)
    method = Method(ToyRenderer(), Adam(), Rate(0.05), 3)

    def estimate(instances):
        shard = Shard(instances, 5)
        return es_gradient(
            method,
            shard.of(task),
            OuterLoss("true"),
            generator=torch.Generator().manual_seed(2),
            pairs=4,
            directions="per_task",
            shard=shard,
        )

    whole, parts = estimate((0, 1, 2, 3, 4)), [estimate((i,)) for i in range(5)]
    for name, gradient in whole.grads.items():
        mean = torch.stack([part.grads[name] for part in parts]).mean(dim=0)
        torch.testing.assert_close(mean, gradient, rtol=1e-12, atol=1e-15)
    with pytest.raises(ValueError, match="shard: it names 1 instances, task holds 5"):
        es_gradient(
            method, task, OuterLoss("true"), generator=torch.Generator(), shard=Shard((0,), 5)
        )


def test_a_task_without_select_cannot_be_spread():
    task = type("Plain", (), {"batch_size": 4})()
    assert Shard((0, 1, 2, 3), 4).of(task) is task
    with pytest.raises(TypeError, match=r"Plain has no method select\(instances"):
        Shard((0, 1), 4).of(task)


def test_without_torchrun_a_process_is_alone(monkeypatch):
    for name in ("RANK", "WORLD_SIZE", "MASTER_ADDR"):
        monkeypatch.delenv(name, raising=False)
    assert join() == World(0, 1)
    with pytest.raises(ValueError, match="timeout"):
        join(timeout=0)
    assert World().gather("x") == ["x"] and World().from_main(lambda: 3) == 3
