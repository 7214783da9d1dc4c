"""Leave one family out: what is learned on five families of problems, judged on the sixth.

    python benchmarks/leave_one_out.py --resume             # all six, judged on unseen tasks
    python benchmarks/leave_one_out.py --only learn --resume
    python benchmarks/leave_one_out.py --only policies --resume     # beside their start alone
    python benchmarks/leave_one_out.py --only rivals --resume       # what is not learned here
    python benchmarks/leave_one_out.py --soft --out out/soft --resume    # soft to the end
    python benchmarks/leave_one_out.py --left-out nothing --rounds 2 --only policies --resume

What is learned is a `tr.SofteningPolicy` with feedback, from the start that was found by hand (all
zeros, `tr.untuned_softening`). The outer gradient of each family is estimated by antithetic
perturbations, each task with its own direction, on the stream "train". For each family that is left
out, the policy takes a step along which the loss of each of the other five falls (Désidéri,
Multiple-gradient descent, C. R. Acad. Sci. 2012): the mean gradient would give up some families for
others. How long the step is, and whether it is taken at all, is decided on tasks of these five of
the stream "tune". So all six policies come out of one set of runs. Each further round does the same
again, from where the one before has led; gradients and the tasks that decide are then others.
`--left-out nothing` learns on all six, and judges on unseen tasks of them.

Beside it stand fixed softnesses with image-space steps, the best of a grid by the same five, and
those that docs/results.md lists: tuned, or learned, on the sixth family itself. "shipped" is
`tr.universal_policy()`, which was learned on all six, once as it is and once without its feedback.
All but the tuned one, to which the others are compared, have the sharp end of the policies. All are
judged on tasks of the stream "test", with the study's steps.

Into the folder go a file for each piece of work, as soon as it is done, a policy for each family
left out, and summary.md.
"""

from __future__ import annotations

import copy
import itertools
import math
import os
import sys
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
import tyro
from rich.console import Console
from torch import Tensor

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT / "benchmarks"))

import judge_again  # noqa: E402
from common_descent import Slope, direction, stepped  # noqa: E402
from untuned import SHARPENED, SIX, geometric_mean, problem_of  # noqa: E402

import taichi_raster as tr  # noqa: E402
from meta.evaluation.evaluate import Evaluation, evaluate  # noqa: E402
from meta.inner.method import Method  # noqa: E402
from meta.inner.policy_method import softening_method  # noqa: E402
from meta.inner.unroll import unroll  # noqa: E402
from meta.inner.updates import Adam, ImageSteps  # noqa: E402
from meta.outer.checkpoint import load_json, save_json  # noqa: E402
from meta.search.fixed import FixedSoftness, fixed_method  # noqa: E402
from meta.study.plan import ANNEALED, WIDER, Problem, Study  # noqa: E402
from meta.study.study import moved  # noqa: E402
from taichi_raster.presets.policy import SHARP_FROM  # noqa: E402

CHUNK = {"shape2d": 256, "occlusion": 128, "pose": 128, "shaded": 32, "shape3d": 64, "solid": 16}
"""Tasks that are solved side by side: about as long for each family."""
CHUNKS = {"shape2d": 12, "occlusion": 12, "pose": 12, "shaded": 10, "shape3d": 12, "solid": 8}
"""How many such batches a gradient is estimated from."""
TUNED = {"shape2d": 256, "occlusion": 256, "pose": 256, "shaded": 64, "shape3d": 64, "solid": 16}
"""Tasks by which the length of a step is chosen, and as many fresh ones to confirm it."""
UNSEEN = {"shape2d": 256, "occlusion": 256, "pose": 256, "shaded": 256, "shape3d": 64, "solid": 64}
TUNING, CONFIRMATION = 4000, 5000  # first batches of the stream "tune"
LENGTHS = (0.15, 0.3, 0.6)  # of the step, in logarithms
CAP = 4.0  # thresholds of failure: an error far beyond is hardly worse
FAILED = 4.0  # how much a failure costs beside that, in logarithms of errors

NOTHING = "nothing"
"""Is left out of what is learned on all."""

ADVICE, GRID, LEARNED = "advice", "grid", "learned on it"
BY_HAND, UNIVERSAL, SHIPPED = "by hand", "universal", "shipped"
BLIND = "shipped, no feedback"


@dataclass(frozen=True)
class Options:
    """Learn on five families, judge on the sixth; see the top of the file.

    Args:
        left_out: families that are left out in turn, or "nothing".
        rounds: steps, each confirmed before the next; a round that is not confirmed is the last.
        only: "learn" ends before the judgement on unseen tasks; "policies" judges what was learned
            beside its start alone, into policies.md; "rivals" judges all but that, into rivals.md.
        out: folder of the results.
        resume: keep what is there; without it the folder must be empty.
        soft: no sharp end for any, see `softening_method`.
        sigma: of the perturbations.
        seed: of the directions.
        threads: of Taichi and torch.
    """

    left_out: tuple[str, ...] = SIX
    rounds: int = 1
    only: Literal["learn", "policies", "rivals", "all"] = "all"
    out: Path = Path("out/leave_one_out")
    resume: bool = False
    soft: bool = False
    sigma: float = 0.2
    seed: int = 0
    threads: int = 1


def main(options: Options) -> None:
    known = (*SIX, NOTHING)
    unknown = set(options.left_out) - set(known)
    if unknown or not options.left_out:
        raise ValueError(f"--left-out: expected some of {', '.join(known)}, got {sorted(unknown)}")
    if NOTHING in options.left_out and len(options.left_out) > 1:
        raise ValueError(f"--left-out: {NOTHING!r} stands alone, got {list(options.left_out)}")
    if options.rounds < 1:
        raise ValueError(f"--rounds: expected at least 1, got {options.rounds}")
    if not options.resume and options.out.is_dir() and any(options.out.iterdir()):
        raise ValueError(f"--out: {options.out} is not empty; --resume goes on with what is there")
    os.environ["TI_CPU_MAX_NUM_THREADS"] = str(options.threads)
    torch.set_num_threads(options.threads)
    tr.init(arch="cpu", deterministic=True)
    work = Work(options, Console())
    if options.only == "rivals":
        names = SIX if NOTHING in options.left_out else options.left_out
        text = summary({name: work.judged(name, None, name) for name in names})
        (options.out / "rivals.md").write_text(text)
        work.console.print(text, soft_wrap=True, highlight=False, markup=False)
        return
    policies = {name: work.learned(name) for name in options.left_out}
    if options.only != "learn":
        rows = {
            name: work.judged(name, policy, left_out)
            for left_out, policy in policies.items()
            for name in (SIX if left_out == NOTHING else (left_out,))
        }
        whole = options.only == "all"
        text = summary(rows) if whole else beside_start(rows)
        (options.out / ("summary.md" if whole else "policies.md")).write_text(text)
        work.console.print(text, soft_wrap=True, highlight=False, markup=False)


@dataclass(frozen=True)
class Step:
    """Which step of which policy it is."""

    left_out: str
    round: int

    @property
    def families(self) -> list[str]:
        """Those that it is learned on."""
        return [name for name in SIX if name != self.left_out]

    @property
    def slopes(self) -> list[str]:
        """Those whose gradients are taken: at the start all, since all policies share them."""
        return self.families if self.round else list(SIX)

    @property
    def folder(self) -> str:
        """Where its pieces of work are kept; those of the first round lie above."""
        return f"round_{self.round + 1}_without_{self.left_out}" if self.round else "."


class Work:
    """The pieces of work, each kept in a file of its own."""

    def __init__(self, options: Options, console: Console) -> None:
        self.options = options
        self.console = console
        self.problems: dict[str, tuple[Study, Problem]] = {
            name: problem_of(name, UNSEEN[name]) for name in SIX
        }

    def slope(self, name: str, at: tr.SofteningPolicy, step: Step) -> Slope:
        """The gradient of a family's outer loss at a policy, from all its batches."""
        found: dict[str, list[Tensor]] = {}
        for index in range(CHUNKS[name]):
            batch = 100 * step.round + index
            path = self.options.out / "slopes" / step.folder / name / f"{index}.json"
            directions = self._directions(name, batch)
            values = self._kept(path, lambda name=name, batch=batch: self._pair(name, batch, at))
            up, down = (torch.tensor(values[end], dtype=torch.float64) for end in ("up", "down"))
            difference = self._loss(name, up) - self._loss(name, down)
            for key, tried in directions.items():
                shaped = difference.reshape(-1, *[1] * (tried.ndim - 1))
                rows = shaped * tried / (2 * self.options.sigma)
                found.setdefault(key, []).append(rows)
        every = {key: torch.cat(parts) for key, parts in found.items()}
        return Slope(
            {key: rows.mean(dim=0) for key, rows in every.items()},
            {key: rows.std(dim=0) / math.sqrt(len(rows)) for key, rows in every.items()},
        )

    def learned(self, left_out: str) -> tr.SofteningPolicy:
        """The policy by the other families, as far as steps are better on fresh tasks."""
        path = self.options.out / "policies" / f"without_{left_out}.safetensors"
        if path.is_file():
            policy = tr.load_policy(path)
            rounds = policy.card["rounds"]
            if len(rounds) == self.options.rounds or not rounds[-1]["kept"]:
                return policy
        policy, rounds = tr.SofteningPolicy(feedback=True), []
        for index in range(self.options.rounds):
            policy, found = self._round(policy, Step(left_out, index))
            rounds.append(found)
            if not found["kept"]:
                break
        policy.card = card_of(left_out, self.options, rounds)
        path.parent.mkdir(parents=True, exist_ok=True)
        tr.save_policy(path, policy)
        return policy

    def _round(
        self, policy: tr.SofteningPolicy, step: Step
    ) -> tuple[tr.SofteningPolicy, dict[str, Any]]:
        """A step from `policy`, or `policy` itself if that is no worse on fresh tasks; a card."""
        slopes = {name: self.slope(name, policy, step) for name in step.slopes}
        table = self.options.out / "slopes" / step.folder / "slopes.md"
        table.write_text(slopes_table(slopes))
        down = direction([slopes[name] for name in step.families])
        tried = {0.0: 0.0}
        for length in LENGTHS:
            better = stepped(policy, down, length)
            logs = [self._against(name, policy, better, step, length) for name in step.families]
            tried[length] = float(np.mean([values.mean() for values in logs]))
        best = min(tried, key=lambda length: tried[length])
        confirmed, kept = (1.0, 1.0, 1.0), False
        if best:
            better = stepped(policy, down, best)
            logs = [
                self._against(name, policy, better, step, best, confirm=True)
                for name in step.families
            ]
            confirmed = geometric_mean(logs)
            kept = confirmed[2] < 1
            policy = better if kept else policy
        text = ", ".join(f"{length}: {value:+.3f}" for length, value in tried.items())
        self.console.print(
            f"without {step.left_out}, round {step.round + 1}: outer loss by length of the step: "
            f"{text}; on fresh tasks errors {confirmed[0]:.3f} [{confirmed[1]:.3f}, "
            f"{confirmed[2]:.3f}] of those before",
            soft_wrap=True,
            highlight=False,
        )
        return policy, {
            "losses": {str(length): value for length, value in tried.items()},
            "length": best,
            "confirmed": list(confirmed),
            "kept": kept,
        }

    def judged(
        self, name: str, policy: tr.SofteningPolicy | None, left_out: str
    ) -> dict[str, Evaluation]:
        """Every method's errors on the unseen tasks of a family, or those of the policy's alone.

        Without a policy, of all others.
        """
        study, problem = self.problems[name]
        results = {}
        methods: Mapping[str, Callable[[], Method]] = {
            BY_HAND: lambda: self._by_policy(tr.SofteningPolicy(), problem)
        }
        if policy is not None:
            methods = {**methods, UNIVERSAL: lambda: self._by_policy(policy, problem)}
        if self.options.only != "policies":
            methods = {**self._methods(name, study, problem), **methods}
        unchanged = policy is not None and not any(bool(value.any()) for value in taken(policy))
        for method, made in methods.items():
            if method == UNIVERSAL and unchanged:
                results[method] = results[BY_HAND]
                continue
            file = f"{method.replace(' ', '_')}.json"
            if method == UNIVERSAL and (left_out == NOTHING or self.options.rounds > 1):
                file = f"{self.options.rounds}_rounds_without_{left_out}.json"
            path = self.options.out / "judged" / name / file

            def errors(made: Callable[[], Method] = made) -> dict[str, Any]:
                count, size = problem.count, problem.batch_size
                return evaluate(made(), problem.family, count, "test", size).to_json()

            results[method] = Evaluation.from_json(self._kept(path, errors))
        return results

    def grid(self, left_out: str) -> FixedSoftness:
        """The one of a grid, with image-space steps, that is best on the other five families."""
        others = [name for name in SIX if name != left_out]
        scores = []
        for index, config in enumerate(CONFIGURATIONS):
            losses = []
            for name in others:
                path = self.options.out / "grid" / name / f"{index}.json"

                def errors(name: str = name, config: FixedSoftness = config) -> dict[str, Any]:
                    problem = self.problems[name][1]
                    size = CHUNK[name] // 4
                    method = image_method(in_pixels(config, problem), problem)
                    method.sharp_from = self.sharp_from
                    return self._evaluated(method, name, size, TUNING + 500)

                found = torch.tensor(self._kept(path, errors)["errors"], dtype=torch.float64)
                losses.append(float(self._loss(name, found).mean()))
            scores.append(np.mean(losses))
        return CONFIGURATIONS[int(np.argmin(scores))]

    def _methods(
        self, name: str, study: Study, problem: Problem
    ) -> dict[str, Callable[[], Method]]:
        """What stands beside the policy and its start."""
        tuned = judge_again.fixed_softnesses(name, constant=False)
        size = problem.family.image_size
        advice = FixedSoftness("logistic", 0.1, 2 / size, tuned[ANNEALED].lr, True)

        def by_rate(config: FixedSoftness) -> Method:
            method = fixed_method(config, problem.family.renderer, study.rule, problem.steps)
            return moved(method, problem)

        def pretrained() -> Method:
            softening = tr.pretrained(name)
            assert softening.lr is not None
            renderer = problem.family.renderer(
                softening.drawn_edge, softening.depth, softening.alpha
            )
            return moved(Method(renderer, study.rule, softening.lr, problem.steps), problem)

        chosen = in_pixels(self.grid(name), problem)

        def ended(method: Method) -> Method:
            method.sharp_from = self.sharp_from
            return method

        found: dict[str, Callable[[], Method]] = {ANNEALED: lambda: by_rate(tuned[ANNEALED])}
        if self.sharp_from is not None:
            found[SHARPENED] = lambda: ended(by_rate(tuned[ANNEALED]))
        found |= {
            WIDER: lambda: ended(by_rate(tuned[WIDER])),
            ADVICE: lambda: ended(by_rate(advice)),
            GRID: lambda: ended(image_method(chosen, problem)),
            LEARNED: lambda: ended(pretrained()),
            SHIPPED: lambda: self._by_policy(tr.universal_policy(), problem),
            BLIND: lambda: self._by_policy(without_feedback(tr.universal_policy()), problem),
        }
        return found

    @property
    def sharp_from(self) -> float | None:
        """The progress from which methods are sharp."""
        return None if self.options.soft else SHARP_FROM

    def _by_policy(self, policy: tr.SofteningPolicy, problem: Problem) -> Method:
        return softening_method(policy, problem.family, problem.steps, sharp_from=self.sharp_from)

    def _pair(self, name: str, index: int, at: tr.SofteningPolicy) -> dict[str, Any]:
        """Errors at both ends of each task's perturbation of a policy."""
        problem = self.problems[name][1]
        task = problem.family.sample(CHUNK[name], "train", index)
        method = self._by_policy(copy.deepcopy(at).requires_grad_(True), problem)
        base = method.parameter_dict()
        noise = {
            f"renderer.{key}": self.options.sigma * value
            for key, value in self._directions(name, index).items()
        }
        params = {
            key: torch.cat([base[key] + sign * value for sign in (1, -1)])
            for key, value in noise.items()
        }
        both = task.repeat(2)
        run = unroll(method, both, params=params)
        with torch.no_grad():
            up, down = both.true_error(run.params).double().chunk(2)
        return {"up": up.tolist(), "down": down.tolist()}

    def _directions(self, name: str, index: int) -> dict[str, Tensor]:
        """Of each task of a batch, (n, ...): a standard normal vector over all parameters."""
        seed = 100_000 * self.options.seed + 1000 * SIX.index(name) + index
        generator = torch.Generator().manual_seed(seed)
        shapes = {
            key: value.shape
            for key, value in tr.SofteningPolicy(feedback=True).named_parameters()
            if key != "units"
        }
        return {
            key: torch.randn(CHUNK[name], *shape, generator=generator, dtype=torch.float64)
            for key, shape in shapes.items()
        }

    def _against(
        self,
        name: str,
        before: tr.SofteningPolicy,
        policy: tr.SofteningPolicy,
        step: Step,
        length: float,
        confirm: bool = False,
    ) -> np.ndarray:
        """Logarithms of the errors' ratios to those before a step, on one batch of tuning tasks.

        While a length is chosen, it is the outer loss that is compared.
        """
        folder = self.options.out / "steps" / step.folder / name
        first = (CONFIRMATION if confirm else TUNING) + step.round
        problem = self.problems[name][1]

        def errors(chosen: tr.SofteningPolicy) -> Callable[[], dict[str, Any]]:
            method = self._by_policy(chosen, problem)
            return lambda: self._evaluated(method, name, TUNED[name], first)

        start = self._kept(folder / f"{first}_start.json", errors(before))["errors"]
        path = folder / f"{first}_without_{step.left_out}_{length}.json"
        after = self._kept(path, errors(policy))["errors"]
        ours, theirs = (torch.tensor(x, dtype=torch.float64) for x in (after, start))
        if not confirm:
            return np.asarray(self._loss(name, ours) - self._loss(name, theirs))
        floor = problem.family.error_floor
        return np.asarray(torch.log((ours + floor) / (theirs + floor)))

    def _evaluated(self, method: Method, name: str, count: int, first: int) -> dict[str, Any]:
        family = self.problems[name][1].family
        return {"errors": evaluate(method, family, count, "tune", count, first).errors.tolist()}

    def _loss(self, name: str, errors: Tensor) -> Tensor:
        """The logarithm of an error, bounded where the run has failed anyway; more for failures."""
        family = self.problems[name][1].family
        limit = family.failure_threshold
        failed = errors / (errors + limit)
        return torch.log((errors + family.error_floor) / (errors + CAP * limit)) + FAILED * failed

    def _kept(self, path: Path, made: Callable[[], dict[str, Any]]) -> dict[str, Any]:
        """What is in the file; made, and put there, if it is missing."""
        if path.is_file():
            return load_json(path, "leave_one_out")
        begin = time.process_time()
        content = made()
        save_json(path, {"kind": "leave_one_out", **content})
        name = path.relative_to(self.options.out)
        self.console.print(f"{name} ({time.process_time() - begin:.0f} s)", highlight=False)
        return content


def card_of(left_out: str, options: Options, rounds: list[dict[str, Any]]) -> dict[str, Any]:
    """What a policy's file says of it."""
    families = Step(left_out, 0).families
    end = "soft to the end" if options.soft else "with the sharp end"
    kept = [each for each in rounds if each["kept"]]
    ratio = math.prod(each["confirmed"][0] for each in kept)
    command = f"python benchmarks/leave_one_out.py --left-out {left_out}"
    return {
        "task": f"the families {', '.join(families)} at once, in the sizes and steps of their "
        f"studies, {end}",
        "units": "all in the picture: eta is in NDC, for ImageSteps",
        "optimiser": {"name": "ImageSteps of Adam", "betas": list(tr.ImageSteps.BETAS)},
        "command": f"{command} --rounds {options.rounds}" + (" --soft" if options.soft else ""),
        "seed": options.seed,
        "scores": {
            "confirmed": f"errors of {ratio:.3f} of untuned_softening's, round by round on fresh "
            "tuning tasks, in the geometric mean over the families"
        },
        "left_out": left_out,
        "rounds": rounds,
    }


def without_feedback(policy: tr.SofteningPolicy) -> tr.SofteningPolicy:
    """The same, but for what depends on what the descent shows."""
    blind = tr.SofteningPolicy()
    blind.load_state_dict({key: policy.state_dict()[key] for key in blind.state_dict()})
    return blind


def taken(policy: tr.SofteningPolicy) -> list[Tensor]:
    """What differs from the start, if anything does."""
    return [value for key, value in policy.named_parameters() if key != "units"]


CONFIGURATIONS = [
    FixedSoftness("gaussian", start, end, lr, True, 0.3, 0.045, ("yager", 1.2), True)
    for start, end, lr in itertools.product((0.06, 0.12), (0.15, 0.5), (0.01, 0.02, 0.04))
]
"""Scale from a number in NDC to one in pixels, and a displacement per step in NDC."""


def in_pixels(config: FixedSoftness, problem: Problem) -> FixedSoftness:
    """With the last scale in NDC."""
    return replace(config, end=config.end * 2 / problem.family.image_size)


def image_method(config: FixedSoftness, problem: Problem) -> Method:
    """A fixed softness with image-space steps."""
    rule = ImageSteps(Adam(betas=tr.ImageSteps.BETAS))
    return fixed_method(config, problem.family.renderer, rule, problem.steps)


def slopes_table(slopes: Mapping[str, Slope]) -> str:
    """What each family would change: gradients over their standard errors."""
    lines = ["| parameter | " + " | ".join(slopes) + " |", "|" + " --- |" * (len(slopes) + 1)]
    for key, value in next(iter(slopes.values())).mean.items():
        for place in itertools.product(*map(range, value.shape)):
            cells = [
                f"{float(s.mean[key][place]):+.3f} ({float(s.error[key][place]):.3f})"
                for s in slopes.values()
            ]
            lines.append(f"| {key} {list(place)} | " + " | ".join(cells) + " |")
    return "\n".join(lines) + "\n"


def summary(rows: Mapping[str, Mapping[str, Evaluation]]) -> str:
    """Errors over the tuned expert's, and how often each method fails."""
    methods = [name for name in next(iter(rows.values())) if name != ANNEALED]
    text = ["Errors, over those of the best annealed softness tuned on the family itself:", ""]
    text += _table(rows, methods, ANNEALED)
    text += ["", f"Errors, over those of the start {BY_HAND!r}:", ""]
    text += _table(rows, [name for name in (UNIVERSAL, SHIPPED, BLIND) if name in methods], BY_HAND)
    return _ended([*text, "", *_failures(rows, [ANNEALED, *methods])])


def beside_start(rows: Mapping[str, Mapping[str, Evaluation]]) -> str:
    """Errors of the policies over their start's, and how often both fail."""
    text = [
        f"Errors, over those of the start {BY_HAND!r}:",
        "",
        *_table(rows, [UNIVERSAL], BY_HAND),
    ]
    return _ended([*text, "", *_failures(rows, [BY_HAND, UNIVERSAL])])


def _failures(rows: Mapping[str, Mapping[str, Evaluation]], methods: list[str]) -> list[str]:
    text = ["Failures, %:", "", "| left out | n | " + " | ".join(methods) + " |"]
    text.append("|" + " --- |" * (len(methods) + 2))
    for name, results in rows.items():
        limit = problem_of(name, 1)[1].family.failure_threshold
        failed = [100 * (results[m].errors > limit).mean() for m in methods]
        count = len(results[methods[0]].errors)
        text.append(f"| {name} | {count} | " + " | ".join(f"{x:.1f}" for x in failed) + " |")
    return text


def _ended(text: list[str]) -> str:
    return "\n".join([*text, "", "In brackets 95% bootstrap intervals over tasks."]) + "\n"


def _table(
    rows: Mapping[str, Mapping[str, Evaluation]], methods: list[str], reference: str
) -> list[str]:
    """Geometric means of ratios to a reference, family by family and over all."""
    lines = ["| left out | n | " + " | ".join(methods) + " |", "|" + " --- |" * (len(methods) + 2)]
    logs: dict[str, list[np.ndarray]] = {method: [] for method in methods}
    for name, results in rows.items():
        floor = problem_of(name, 1)[1].family.error_floor
        theirs = results[reference].errors
        for method in methods:
            logs[method].append(np.log((results[method].errors + floor) / (theirs + floor)))
        cells = [_ratio([logs[method][-1]]) for method in methods]
        lines.append(f"| {name} | {len(theirs)} | " + " | ".join(cells) + " |")
    cells = [_ratio(logs[method]) for method in methods]
    return [*lines, "| geometric mean | | " + " | ".join(cells) + " |"]


def _ratio(logs: list[np.ndarray]) -> str:
    return "{:.3f} [{:.3f}, {:.3f}]".format(*geometric_mean(logs))


if __name__ == "__main__":
    try:
        main(tyro.cli(Options))
    except (ValueError, OSError, RuntimeError) as error:
        raise SystemExit(f"leave_one_out: {error}") from error
