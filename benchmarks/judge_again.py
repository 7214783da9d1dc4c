"""Judge the fixed softnesses and the shipped learned ones again, on the studies' unseen tasks.

    python benchmarks/judge_again.py --resume                          # every row of the summary
    python benchmarks/judge_again.py shape2d/three occlusion --resume  # one problem, one family
    python benchmarks/results_page.py --judged out/judge_again         # into docs/results.md

Nothing is tuned or learned. Use it after a change of what makes the targets, or of the kernels. The
fixed softnesses are those that docs/results.md lists at the end of each section; the learned ones
are those that come with the package. The tasks are those of `examples/study.py FAMILY`: the same
seeds, counts and batches. The ablations and the learned softening of the study *apart* were not
kept, so that nothing can be said of them.

Into `out/judge_again/FAMILY/judged` goes a file for each problem and method, as soon as it is done;
into `out/judge_again` summary.md, the table so far.
"""

from __future__ import annotations

import os
import re
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import torch
import tyro
from rich.console import Console
from tyro.conf import Positional

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT / "examples"))

import results_page as page  # noqa: E402

import study as program  # noqa: E402
import taichi_raster as tr  # noqa: E402
from meta.inner.method import Method  # noqa: E402
from meta.search.fixed import FixedSoftness, fixed_method  # noqa: E402
from meta.study.plan import ANNEALED, CONSTANT, LEARNED, WIDER, Problem, Study  # noqa: E402
from meta.study.study import StudyRun, moved  # noqa: E402

TITLE = re.compile(
    r"(?P<name>\w+) (?P<start>\S+?)(?: -> (?P<end>\S+?))?"
    r"(?P<over>, over)?(?:,? gamma (?P<gamma>\S+?)(?: -> (?P<gamma_end>\S+?))?)?"
    r"(?:, (?P<conorm>\w+) (?P<p>[\d.]+))?, lr (?P<lr>\S+)(?P<decay> decaying)?"
)


@dataclass(frozen=True)
class Options:
    """Judge fixed and shipped softnesses again; see the top of the file.

    Args:
        what: FAMILY or FAMILY/PROBLEM, done in this order; all by default. A family's own problem
            has the family's name.
        out: folder of the results.
        resume: keep what is there and still holds; without it, all is judged anew.
        constant: judge the best constant softnesses too, which the summary does not show.
        threads: of Taichi and torch.
        arch: backend.
    """

    what: Positional[tuple[str, ...]] = page.MAIN
    out: Path = Path("out/judge_again")
    resume: bool = False
    constant: bool = False
    threads: int = 1
    arch: Literal["cpu", "cuda", "vulkan", "auto"] = "cpu"


def main(options: Options) -> None:
    if options.threads < 1:
        raise ValueError(f"--threads: expected at least 1, got {options.threads}")
    chosen = [found for what in options.what for found in problems_of(what)]
    os.environ["TI_CPU_MAX_NUM_THREADS"] = str(options.threads)
    torch.set_num_threads(options.threads)
    tr.init(arch=options.arch, deterministic=True)
    console = Console()
    for study, problem in chosen:
        if study.name not in tr.pretrained_names():
            console.print(f"{problem.title}: left out, its learned softening was not kept")
            continue
        fixed = fixed_softnesses(study.name, options.constant)
        run = StudyRun(study, options.out / study.name, options.resume, console, quiet=True)
        for name, method in methods(study, problem, fixed).items():
            begin = time.perf_counter()
            result = run.judge({name: method}, problem)[name]
            seconds = time.perf_counter() - begin
            text = f"{problem.title}: {name}: mean {result.errors.mean():.4f} ({seconds:.0f} s)"
            console.print(text, soft_wrap=True, highlight=False)
        rows, _ = page.old_page()
        page.judge_rows(rows, options.out, page.MAIN)
        (options.out / "summary.md").write_text(page.summary(rows, page.MAIN))


def problems_of(what: str) -> list[tuple[Study, Problem]]:
    """Those of a family, or the one of "FAMILY/PROBLEM"."""
    family, _, name = what.partition("/")
    if family not in program.STUDIES:
        raise ValueError(f"{what}: no family {family!r}; known: {', '.join(program.STUDIES)}")
    study = program.STUDIES[family](page.SEED)
    known = {study.name: study.problem, **study.transfers}
    if name and name not in known:
        raise ValueError(f"{what}: no problem {name!r}; known: {', '.join(known)}")
    return [(study, known[name])] if name else [(study, p) for p in known.values()]


def fixed_softnesses(family: str, constant: bool) -> dict[str, FixedSoftness]:
    """The fixed softnesses that the page lists in the section of a family."""
    wanted = (CONSTANT, ANNEALED, WIDER) if constant else (ANNEALED, WIDER)
    lines = page.old_page()[1][family].splitlines()
    found = {}
    for name in wanted:
        texts = [line for line in lines if line.startswith(f"- {name}: ")]
        if len(texts) != 1:
            raise ValueError(f"{page.PAGE}: expected one line {name!r} of {family}: {texts}")
        found[name] = parse(texts[0].removeprefix(f"- {name}: "))
    return found


def parse(title: str) -> FixedSoftness:
    """The inverse of `FixedSoftness.title`, to the six digits that it shows."""
    match = TITLE.fullmatch(title)
    if match is None:
        raise ValueError(f"not the title of a fixed softness: {title!r}")
    part = match.groupdict()
    number = {
        key: None if part[key] is None else float(part[key]) for key in ("gamma", "gamma_end")
    }
    start = float(part["start"])
    config = FixedSoftness(
        part["name"],
        start,
        start if part["end"] is None else float(part["end"]),
        float(part["lr"]),
        part["decay"] is not None,
        conorm=None if part["conorm"] is None else (part["conorm"], float(part["p"])),
        over=part["over"] is not None,
        **number,
    )
    if config.title != title:
        raise ValueError(f"not the title of a fixed softness: {title!r}, read as {config.title!r}")
    return config


def methods(study: Study, problem: Problem, fixed: dict[str, FixedSoftness]) -> dict[str, Method]:
    """Every method as `StudyRun.methods` makes it for `problem`."""
    family, rule = problem.family, study.rule
    made = {
        name: fixed_method(config, family.renderer, rule, problem.steps)
        for name, config in fixed.items()
    }
    softening = tr.pretrained(study.name)
    if softening.lr is None:
        raise ValueError(f"{study.name}: its softening has no learning rate")
    renderer = study.problem.family.renderer(softening.drawn_edge, softening.depth, softening.alpha)
    made[LEARNED] = Method(renderer, rule, softening.lr, study.problem.steps)
    return {name: moved(method, problem) for name, method in made.items()}


if __name__ == "__main__":
    try:
        main(tyro.cli(Options))
    except (ValueError, OSError, RuntimeError) as error:
        raise SystemExit(f"judge_again: {error}") from error
