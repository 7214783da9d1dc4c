"""Single-view reconstruction by four softnesses, on objects made by code: trials, then trainings.

    python examples/reconstruct.py make-data
    python benchmarks/single_view.py --seeds 0 1 2

Trains the same network through the renderer softened by

* ``SoftRas``: the logistic distribution of the squared distance, as published;
* ``GenDR``: the uniform distribution of the distance itself, constant scale; with gamma_rev the one
  that GenDR reports as best for this application (gamma_rev's series take 15 times as long here);
* ``annealed``: the best distribution of a scale that falls;
* ``learned along``: starts as the annealed one, and is learned by the same loss from 60% on;

and, with --softening, a softness that was learned elsewhere. Scales and distributions are chosen by
short trials, with a seed of their own, by the voxel IoU of the validation objects. Then each is
trained once for each seed, and scored on test objects by `examples/reconstruct.py evaluate`.

Every training is a process with one thread, `--workers` at a time; a stopped run resumes where it
was. Into `--out` go trials.md, the runs, results.md, curves.png and sheet.png.
"""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import tyro

from meta.outer.checkpoint import load_json, require_equal, save_json
from tasks.reconstruction.curves import read_curve

PROGRAM = Path(__file__).resolve().parent.parent / "examples" / "reconstruct.py"
TRIAL_SEED = 100
TRAINING = "single-view training"

Softness = dict[str, Any]
"""Options of `tasks.reconstruction.SoftnessSettings`."""


def constant(edge: str, scale: float) -> Softness:
    return {"edge": edge, "squared": False, "scale": scale, "drop": 1.0}


def annealed(edge: str, scale: float, end: float) -> Softness:
    return {"edge": edge, "squared": False, "scale": scale, "scale-end": end}


CANDIDATES = {
    "GenDR": [constant("uniform", scale) for scale in (0.01, 0.03, 0.1)],
    "annealed": [
        annealed("gaussian", 0.03, 0.01),
        annealed("gaussian", 0.1, 0.01),
        annealed("logistic", 0.03, 0.003),
        annealed("uniform", 0.1, 0.01),
    ],
}


@dataclass(frozen=True)
class Options:
    """Single-view reconstruction by several softnesses; see the top of the file.

    Args:
        data: from `examples/reconstruct.py make-data`.
        out: folder of the results.
        seeds: of the trainings.
        steps: of each training.
        trial_steps: of each trial.
        preset: of `examples/reconstruct.py train`.
        softening: a file of one that was learned elsewhere, as a fifth.
        workers: trainings at a time.
        views: of each test object, that are reconstructed from.
    """

    data: Path = Path("out/reconstruct/data")
    out: Path = Path("out/single_view")
    seeds: tuple[int, ...] = (0, 1, 2)
    steps: int = 3000
    trial_steps: int = 600
    preset: str = "small"
    softening: Path | None = None
    workers: int = 2
    views: int = 4


def main(options: Options) -> None:
    options.out.mkdir(parents=True, exist_ok=True)
    best = try_candidates(options)
    start = {name: value for name, value in best["annealed"].items() if name != "squared"}
    softnesses = {"SoftRas": {}, **best, "learned along": {"kind": "learned", **start}}
    if options.softening is not None:
        softnesses["learned elsewhere"] = {"kind": "softening", "file": f"{options.softening}"}
    trainings = {
        name: [
            Training(
                options.out / f"{name}_{seed}".replace(" ", "_").lower(),
                softness,
                options.steps,
                seed,
            )
            for seed in options.seeds
        ]
        for name, softness in softnesses.items()
    }
    by_seed = zip(*trainings.values(), strict=True)
    train_all([training for several in by_seed for training in several], options)
    groups = [f"{n}={','.join(f'{t.folder}' for t in ts)}" for n, ts in trainings.items()]
    arguments = ("--data", f"{options.data}", "--views", f"{options.views}")
    command = [sys.executable, f"{PROGRAM}", "evaluate", *groups, *arguments, "--out"]
    subprocess.run([*command, f"{options.out}"], check=True)


@dataclass(frozen=True)
class Training:
    """A run of `examples/reconstruct.py train`, into a folder."""

    folder: Path
    softness: Softness
    steps: int
    seed: int


def try_candidates(options: Options) -> dict[str, Softness]:
    """The best of each group by a short training; trials.md says what the others gave."""
    trials = {
        group: [
            Training(
                options.out / "trials" / words(softness).replace(" ", "_"),
                softness,
                options.trial_steps,
                TRIAL_SEED,
            )
            for softness in candidates
        ]
        for group, candidates in CANDIDATES.items()
    }
    train_all([trial for several in trials.values() for trial in several], options)
    best = {}
    lines = ["| group | softness | voxel IoU, validation, % |", "| --- | --- | ---: |"]
    for group, several in trials.items():
        scores = [float(read_curve(trial.folder / "log.jsonl")[2][-1]) for trial in several]
        best[group] = several[scores.index(max(scores))].softness
        for trial, score in zip(several, scores, strict=True):
            mark = "**" if score == max(scores) else ""
            lines.append(f"| {group} | {mark}{words(trial.softness)}{mark} | {100 * score:.1f} |")
    (options.out / "trials.md").write_text("\n".join(lines) + "\n")
    return best


def words(softness: Softness) -> str:
    """Such as "gaussian 0.1 to 0.01"."""
    end = f" to {softness['scale-end']}" if "scale-end" in softness else ""
    return f"{softness['edge']} {softness['scale']}{end}"


def train_all(trainings: Sequence[Training], options: Options) -> None:
    """Train each network, unless it is; RuntimeError if one fails."""
    with ThreadPoolExecutor(options.workers) as pool:
        list(pool.map(lambda training: train(training, options), trainings))


def train(training: Training, options: Options) -> None:
    folder, done = training.folder, training.folder / "done.json"
    content = {
        "kind": TRAINING,
        "softness": training.softness,
        "steps": training.steps,
        "seed": training.seed,
        "preset": options.preset,
        "data": f"{options.data.resolve()}",
    }
    if done.is_file():
        require_equal(done, load_json(done, TRAINING), content)
        return
    folder.mkdir(parents=True, exist_ok=True)
    print(f"training {folder}", flush=True)
    flags = [
        "--softness.no-squared" if name == "squared" else f"--softness.{name}={value}"
        for name, value in training.softness.items()
    ]
    command = [
        sys.executable,
        f"{PROGRAM}",
        "train",
        f"--data={options.data}",
        f"--out={folder}",
        f"--preset={options.preset}",
        f"--steps={training.steps}",
        f"--seed={training.seed}",
        f"--validate-every={max(1, min(250, training.steps // 2))}",
        "--resume",
        "--quiet",
        *flags,
    ]
    one_thread = {**os.environ, "TI_CPU_MAX_NUM_THREADS": "1", "OMP_NUM_THREADS": "1"}
    with (folder / "output.txt").open("a") as log:
        code = subprocess.run(command, env=one_thread, stdout=log, stderr=log, check=False)
    if code.returncode:
        raise RuntimeError(f"{folder}: the training failed; see {folder / 'output.txt'}")
    validated = read_curve(folder / "log.jsonl")[0]
    if not len(validated) or validated[-1] != training.steps:
        raise RuntimeError(f"{folder}: the training was stopped; the same command goes on")
    save_json(done, content)


if __name__ == "__main__":
    try:
        main(tyro.cli(Options, description=__doc__.split("\n\n")[0]))
    except KeyboardInterrupt:
        raise SystemExit(130) from None
    except (ValueError, FileNotFoundError, RuntimeError, subprocess.CalledProcessError) as error:
        raise SystemExit(f"single_view: {error}") from error
