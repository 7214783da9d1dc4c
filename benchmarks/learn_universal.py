"""Learn one softening for all problems, on tasks of several families at once.

    python benchmarks/learn_universal.py --resume                        # the open loop
    python benchmarks/learn_universal.py --feedback --resume             # with feedback
    python benchmarks/learn_universal.py --without pose --resume         # one family left out
    torchrun --nproc-per-node 2 benchmarks/learn_universal.py --resume   # the same, spread

It starts as the softening that was found by hand (`tr.SofteningPolicy()`), or at `--policy FILE`.
Learning is by antithetic evolution strategies on a `meta.Mixture` of the stream "train". The best
of the iterates on tasks of the stream "tune" is then compared with the start on fresh ones of that
stream. Unless it is better there, beyond the 95% interval, the start is what is kept.

Into the folder go checkpoint.safetensors and log.jsonl, as the run goes on, and in the end
confirmed.json and policy.safetensors, for `tr.load_policy`.
"""

from __future__ import annotations

import sys
import time
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
import tyro
from rich.console import Console

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT / "benchmarks"))

import judge_again  # noqa: E402
from untuned import geometric_mean  # noqa: E402

import taichi_raster as tr  # noqa: E402
from meta.estimators import es_gradient  # noqa: E402
from meta.evaluation.evaluate import evaluate  # noqa: E402
from meta.inner.mixture import Mixture, Part  # noqa: E402
from meta.inner.policy_method import softening_method  # noqa: E402
from meta.inner.updates import Adam  # noqa: E402
from meta.outer.checkpoint import load_json, save_json  # noqa: E402
from meta.outer.distributed import join, world  # noqa: E402
from meta.outer.loss import OuterLoss  # noqa: E402
from meta.outer.settings import TrainerSettings  # noqa: E402
from meta.outer.trainer import OuterTrainer  # noqa: E402
from meta.search.fixed import fixed_method  # noqa: E402
from meta.study.plan import ANNEALED  # noqa: E402
from tasks import Occlusion, Pose, Shape2D, Shape3D  # noqa: E402

CONFIRMATION = 2000  # the first batch of the tuning stream for it; validation begins at 1000
REFERENCE = 3000  # the same for what errors are measured by
OUTER = OuterLoss("true", floor=1e-9)  # the mixture's errors have a floor of their own


@dataclass(frozen=True)
class Options:
    """Learn one softening for all problems; see the top of the file.

    Args:
        out: folder of the results.
        resume: go on with what is there.
        minutes: stop training after so many minutes; --resume goes on.
        feedback: learn the feedback, too.
        frozen: parameters that are not learned, by name: start, course, steps, order, join.
        policy: one to begin with, instead of the one found by hand.
        without: families to leave out.
        steps: of an inner run.
        iterations: outer steps at most.
        batch: tasks of an outer step.
        sigma: of the perturbations.
        rate: outer learning rate.
        validate_every: iterations between validations.
        confirm: batches of fresh tasks for the confirmation.
        seed: of tasks and directions.
    """

    out: Path = Path("out/universal")
    resume: bool = False
    minutes: float | None = None
    feedback: bool = False
    frozen: tuple[str, ...] = ()
    policy: Path | None = None
    without: tuple[str, ...] = ()
    steps: int = 40
    iterations: int = 200
    batch: int = 112
    sigma: float = 0.25
    rate: float = 0.04
    validate_every: int = 10
    confirm: int = 3
    seed: int = 0


def families(seed: int) -> dict[str, tuple[Any, float]]:
    """The families, small ones, with their shares of a batch.

    Shares are about in inverse proportion to the root of the time that an instance takes.
    """
    return {
        "shape2d": (Shape2D(2, image_size=24, seed=seed), 64),
        "occlusion": (Occlusion((4, 6), True, 24, seed), 32),
        "pose": (Pose(image_size=32, seed=seed), 32),
        "shaded": (Pose(image="shaded", image_size=24, seed=seed), 10),
        "shape3d": (Shape3D.coarse(seed), 12),
    }


def main(options: Options) -> None:
    torch.set_num_threads(1)
    join()
    tr.init(arch="cpu", deterministic=True)
    console = Console(quiet=not world().is_main)
    mixture = mixed(options, console)
    method = made(options, mixture)
    before = method.parameter_dict()
    trainer = OuterTrainer(
        method,
        mixture,
        OUTER,
        es_gradient,
        {"pairs": 1, "directions": "per_task", "sigma": options.sigma, "max_batch": 256},
        TrainerSettings(
            options.iterations,
            options.batch,
            lr=options.rate,
            lr_policy="constant",
            validate_every=options.validate_every,
            validation_batches=2,
            validation_batch_size=options.batch,
            max_batch=256,
            seed=options.seed,
            nonfinite="skip",
        ),
        options.out,
        resume="auto" if options.resume else False,
        validation=OUTER,
    )
    budget = None if options.minutes is None else 60 * options.minutes
    result = trainer.run(budget, console, quiet=True)
    console.print(result.summary)
    if world().is_main:
        confirm(options, method, mixture, before, result.best.iteration, console)


def mixed(options: Options, console: Console) -> Mixture:
    """The mixture, each family's errors in units of those of the softness tuned for it."""
    chosen = {k: v for k, v in families(options.seed).items() if k not in options.without}
    unknown = set(options.without) - families(options.seed).keys()
    if unknown:
        raise ValueError(f"--without: unknown families {sorted(unknown)}")
    parts = []
    for name, (family, share) in chosen.items():
        path = options.out / "references" / f"{name}.json"
        found = world().from_main(partial(reference, path, name, family, options.steps))
        console.print(f"{name}: tuned expert {found:.4g} ({family.error_name})")
        parts.append(Part(family, found, share))
    return Mixture(tuple(parts))


def reference(path: Path, name: str, family: Any, steps: int) -> float:
    """The geometric mean of errors by the best annealed softness that was tuned for the family."""
    settings = {"family": repr(family), "steps": steps}
    if path.is_file():
        content = load_json(path, "reference")
        if content["settings"] == settings:
            return float(content["value"])
    study = judge_again.problems_of(f"{name}/{name}")[0][0]
    tuned = judge_again.fixed_softnesses(name, constant=False)[ANNEALED]
    rule = study.rule
    assert isinstance(rule, Adam)
    count = 8 if name == "shape3d" else 32
    errors = evaluate(
        fixed_method(tuned, family.renderer, rule, steps), family, count, "tune", count, REFERENCE
    ).errors
    value = float(np.exp(np.log(errors + family.error_floor).mean()))
    save_json(path, {"kind": "reference", "settings": settings, "value": value})
    return value


def made(options: Options, mixture: Mixture) -> Any:
    """The method to learn, at its start."""
    policy = tr.SofteningPolicy(options.feedback)
    if options.policy is not None:
        known = dict(tr.load_policy(options.policy).named_parameters())
        with torch.no_grad():
            for name, value in policy.named_parameters():
                if name in known:
                    value.copy_(known[name])
    for name in options.frozen:
        policy.get_parameter(name).requires_grad_(False)
    return softening_method(policy, mixture, options.steps)


def confirm(
    options: Options,
    method: Any,
    mixture: Mixture,
    before: dict[str, torch.Tensor],
    iteration: int,
    console: Console,
) -> None:
    """Compare with the start on fresh tasks, and keep the better one."""
    learned = method.parameter_dict()
    errors, parts = {}, np.zeros(0)
    begin = time.perf_counter()
    for name, parameters in (("learned", learned), ("start", before)):
        method.load(parameters)
        count = options.confirm * options.batch
        found = evaluate(method, mixture, count, "tune", options.batch, CONFIRMATION)
        errors[name], parts = found.metrics["parameter_error"], found.metrics["part"]
    names = [k for k in families(options.seed) if k not in options.without]
    logs = {}
    for k, (name, part) in enumerate(zip(names, mixture.parts, strict=True)):
        own, floor = parts == k, part.family.error_floor
        limit = part.family.failure_threshold
        ours, theirs = (errors[which][own] for which in ("learned", "start"))
        logs[name] = np.log((ours + floor) / (theirs + floor))
        console.print(
            f"{name}: {own.sum()} fresh tasks, errors learned / start "
            f"{np.exp(logs[name].mean()):.3f}, failures {(ours > limit).mean():.3f} and "
            f"{(theirs > limit).mean():.3f}",
            highlight=False,
        )
    value, low, high = geometric_mean(list(logs.values()))
    kept = high < 1
    console.print(
        f"all: {value:.3f} [{low:.3f}, {high:.3f}], {'kept' if kept else 'the start is kept'} "
        f"({time.perf_counter() - begin:.0f} s)",
        highlight=False,
    )
    method.load(learned if kept else before)
    card = {
        "command": "python benchmarks/learn_universal.py",
        "options": {k: str(v) for k, v in asdict(options).items() if k not in ("out", "resume")},
        "iteration": iteration if kept else 0,
        "confirmed": {"ratio": value, "low": low, "high": high, "kept": kept},
        "families": {name: float(np.exp(v.mean())) for name, v in logs.items()},
    }
    save_json(options.out / "confirmed.json", {"kind": "confirmation", **card})
    method.renderer.card = card
    tr.save_policy(options.out / "policy.safetensors", method.renderer)


if __name__ == "__main__":
    try:
        main(tyro.cli(Options))
    except (ValueError, OSError, RuntimeError) as error:
        raise SystemExit(f"learn_universal: {error}") from error
