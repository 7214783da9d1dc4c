"""Make docs/results.md, its figures and the shipped softenings of the studies that have been run.

    python examples/study.py pose        # and the others, each with --resume if it was stopped
    python benchmarks/results_page.py --studies out/study

Nothing is computed here but the summary's paired ratios: tables and figures are those that the
studies wrote. What the page has of a study that is not in the folder stays as it is.

The summary shows two judgements: by the sharp reference of the time, an approximation, and by the
exact one. The first stays as the page has it. The second is taken from the studies' folder, and
from what benchmarks/judge_again.py wrote:

    python benchmarks/results_page.py --judged out/judge_again
"""

from __future__ import annotations

import shutil
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import tyro
from PIL import Image

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT / "examples"))

import study as program  # noqa: E402
import taichi_raster as tr  # noqa: E402
from meta.evaluation.evaluate import Evaluation  # noqa: E402
from meta.evaluation.stats import compare  # noqa: E402
from meta.outer.checkpoint import load_json  # noqa: E402
from meta.study.plan import ANNEALED, LEARNED, WIDER, Problem  # noqa: E402
from meta.study.study import judged_file  # noqa: E402

MAIN = ("shape2d", "occlusion", "shape3d", "pose", "apart", "shaded", "solid")
PAGE, HEAD = ROOT / "docs" / "results.md", ROOT / "docs" / "results_head.md"
PICTURES = ROOT / "docs" / "results"
SEED = 0  # of all studies on the page
WIDTH = 1400  # pixels of a figure, at most
RATIO, FAILURES = "learned / best annealed", "failures, more %"
RATIO_WIDER = "learned / wider search"
COLUMNS = (
    "n",
    *(f"{name}: {by}" for name in (RATIO, FAILURES, RATIO_WIDER) for by in ("old", "exact")),
    "learned / learned schedules, logistic: old",
)
NONE = "–"  # not judged
Rows = dict[str, dict[str, str]]
"""The summary: column -> cell, by a problem's title."""


@dataclass(frozen=True)
class Options:
    """Collect studies' results; see the top of the file.

    Args:
        studies: the folder that examples/study.py wrote.
        judged: the folder that benchmarks/judge_again.py wrote, for the summary alone.
        ship: also copy their softenings into the package.
    """

    studies: Path = Path("out/study")
    judged: Path | None = None
    ship: bool = False


def main(options: Options) -> None:
    tr.init(arch="cpu")
    new = [name for name in MAIN if (options.studies / name / "results.md").is_file()]
    if not new and options.judged is None:
        raise ValueError(f"--studies: no results.md in any folder of {options.studies}")
    for name in new:
        seed = tr.load_softening(options.studies / name / "softening.safetensors").card["seed"]
        if seed != SEED:
            raise ValueError(f"--studies: {name} is of seed {seed}, the page of seed {SEED}")
    PICTURES.mkdir(parents=True, exist_ok=True)
    rows, sections = old_page()
    titles = {problem.title for name in new for problem in problems(name)}
    missing = titles.difference(judge_rows(rows, options.studies, new))
    if missing:
        raise ValueError(f"--studies: not judged by every method: {', '.join(sorted(missing))}")
    if options.judged is not None:
        again = judge_rows(rows, options.judged, MAIN)
        if not again:
            raise ValueError(f"--judged: no problem is judged by every method in {options.judged}")
        print("judged again:", *again, sep="\n  ")
    for name in new:
        folder = options.studies / name
        sections[name] = section(name, folder)
        if options.ship:
            shipped = ROOT / "taichi_raster" / "presets" / "files"
            shipped.mkdir(exist_ok=True)
            shutil.copy(folder / "softening.safetensors", shipped / f"{name}.safetensors")
    known = [name for name in MAIN if name in sections]
    text = [HEAD.read_text(), summary(rows, known), *(sections[name] for name in known)]
    PAGE.write_text("\n".join(text))
    print(f"{PAGE.relative_to(ROOT)}: {', '.join(new) or 'the summary'}")


def old_page() -> tuple[Rows, dict[str, str]]:
    """Of the page as it is: the summary's rows, and the sections by study."""
    rows: Rows = {}
    sections: dict[str, str] = {}
    if not PAGE.is_file():
        return rows, sections
    for part in PAGE.read_text().split("\n## ")[1:]:
        name, _, _ = part.partition("\n")
        if name == "Summary":
            for line in [line for line in part.splitlines() if line.startswith("| ")][2:]:
                title, *cells = line.removeprefix("| ").removesuffix(" |").split(" | ")
                rows[title] = dict(zip(COLUMNS, cells, strict=True))
        elif name in MAIN:
            sections[name] = f"## {part}".rstrip("\n") + "\n"
    return rows, sections


def summary(rows: Rows, names: Sequence[str]) -> str:
    """One row for each problem: the learned softening against the fixed ones and the ablation."""
    head = [
        "## Summary\n",
        (
            "Ratios are paired geometric means of parameter errors on unseen tasks, with 95% "
            "bootstrap intervals. Below 1 the learned one is better. Failures are how much more "
            "often it fails than the best annealed one. *Old*: targets by the sharp reference that "
            "all were tuned and learned with. *Exact*: the same softenings and tasks, targets by "
            f"exact areas. There is {NONE} where what was learned was not kept. The ablations of "
            "the last column were not kept either: it has the old targets only.\n"
        ),
        "| tasks | " + " | ".join(COLUMNS) + " |",
        "|" + " --- |" * (1 + len(COLUMNS)),
    ]
    lines = []
    for problem in (problem for name in names for problem in problems(name)):
        if problem.title not in rows:
            raise ValueError(
                f"--studies: the page has no row {problem.title!r}; run its study again"
            )
        cells = (rows[problem.title].get(column, NONE) for column in COLUMNS)
        lines.append(f"| {problem.title} | " + " | ".join(cells) + " |")
    return "\n".join([*head, *lines]) + "\n"


def judge_rows(rows: Rows, folder: Path, names: Sequence[str]) -> list[str]:
    """Set the exact columns of each problem that `folder` has judged; returns their titles."""
    done = []
    for name in names:
        for problem in problems(name):
            files = [judged_file(folder / name, problem, m) for m in (ANNEALED, WIDER, LEARNED)]
            if all(file.is_file() for file in files):
                row = rows.setdefault(problem.title, {})
                row.update(exact_cells(folder / name, problem, row.get("n")))
                done.append(problem.title)
    return done


def problems(name: str) -> list[Problem]:
    """Those of a study, its own first."""
    study = program.STUDIES[name](SEED)
    return [study.problem, *study.transfers.values()]


def exact_cells(folder: Path, problem: Problem, n: str | None) -> dict[str, str]:
    """A problem's cells of the exact columns; ValueError unless of `n` tasks."""
    results = {m: evaluation(folder, problem, m) for m in (ANNEALED, WIDER, LEARNED)}
    count = str(len(results[LEARNED].errors))
    if n not in (None, count):
        raise ValueError(f"{folder}: {problem.title}: {count} tasks, on the page {n}")
    family = problem.family
    annealed, wider = (
        compare(
            LEARNED,
            results[LEARNED].errors,
            reference,
            results[reference].errors,
            family.error_floor,
            family.failure_threshold,
        )
        for reference in (ANNEALED, WIDER)
    )
    return {
        "n": count,
        f"{RATIO}: exact": annealed.ratio.format(digits=3),
        f"{FAILURES}: exact": annealed.failure_difference.format(100, 1),
        f"{RATIO_WIDER}: exact": wider.ratio.format(digits=3),
    }


def evaluation(folder: Path, problem: Problem, method: str) -> Evaluation:
    return Evaluation.from_json(load_json(judged_file(folder, problem, method), "evaluation"))


def section(name: str, folder: Path) -> str:
    """A study's own tables, its figures, and its command."""
    for old in PICTURES.glob(f"{name}_*.png"):
        old.unlink()
    lines = [(folder / "results.md").read_text().rstrip(), ""]
    lines.append(f"Command: `python examples/study.py {name}` (seed {SEED}).\n")
    for path in sorted(folder.glob("*.png")):
        with Image.open(path) as opened:
            image = opened.convert("RGB")
        if image.width > WIDTH:
            image = image.resize((WIDTH, round(image.height * WIDTH / image.width)))
        target = f"{name}_{path.stem.removeprefix(f'{name}_')}.png"
        image.quantize(128, dither=Image.Dither.NONE).save(PICTURES / target, optimize=True)
        lines.append(f"![{name}: {path.stem.replace('_', ' ')}](results/{target})\n")
    return "\n".join(lines)


if __name__ == "__main__":
    try:
        main(tyro.cli(Options))
    except (ValueError, OSError) as error:
        raise SystemExit(f"results_page: {error}") from error
