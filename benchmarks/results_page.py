"""Make docs/results.md, its figures and the shipped softenings of the studies that have been run.

    python examples/study.py pose        # and the others, each with --resume if it was stopped
    python benchmarks/results_page.py --studies out/study

Nothing is computed here but the summary's paired ratios: tables and figures are those that the
studies wrote. What the page has of a study that is not in the folder stays as it is.
"""

from __future__ import annotations

import shutil
import sys
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
from meta.study.plan import ABLATION, ANNEALED, LEARNED, WIDER, Problem  # noqa: E402
from meta.study.study import judged_file  # noqa: E402

MAIN = ("shape2d", "occlusion", "shape3d", "pose", "apart", "shaded", "solid")
PAGE, HEAD = ROOT / "docs" / "results.md", ROOT / "docs" / "results_head.md"
PICTURES = ROOT / "docs" / "results"
SEED = 0  # of all studies on the page
WIDTH = 1400  # pixels of a figure, at most


@dataclass(frozen=True)
class Options:
    """Collect studies' results; see the top of the file.

    Args:
        studies: the folder that examples/study.py wrote.
        ship: also copy their softenings into the package.
    """

    studies: Path = Path("out/study")
    ship: bool = False


def main(options: Options) -> None:
    tr.init(arch="cpu")
    new = [name for name in MAIN if (options.studies / name / "results.md").is_file()]
    if not new:
        raise ValueError(f"--studies: no results.md in any folder of {options.studies}")
    for name in new:
        seed = tr.load_softening(options.studies / name / "softening.safetensors").card["seed"]
        if seed != SEED:
            raise ValueError(f"--studies: {name} is of seed {seed}, the page of seed {SEED}")
    PICTURES.mkdir(parents=True, exist_ok=True)
    lines, sections = old_page()
    for name in new:
        study, folder = program.STUDIES[name](SEED), options.studies / name
        for problem in (study.problem, *study.transfers.values()):
            lines[problem.title] = summary_line(folder, problem)
        sections[name] = section(name, folder)
        if options.ship:
            shipped = ROOT / "taichi_raster" / "presets" / "files"
            shipped.mkdir(exist_ok=True)
            shutil.copy(folder / "softening.safetensors", shipped / f"{name}.safetensors")
    known = [name for name in MAIN if name in sections]
    text = [HEAD.read_text(), summary(lines, known), *(sections[name] for name in known)]
    PAGE.write_text("\n".join(text))
    print(f"{PAGE.relative_to(ROOT)}: {', '.join(new)}")


def old_page() -> tuple[dict[str, str], dict[str, str]]:
    """Of the page as it is: the summary's lines by problem, and the sections by study."""
    lines: dict[str, str] = {}
    sections: dict[str, str] = {}
    if not PAGE.is_file():
        return lines, sections
    for part in PAGE.read_text().split("\n## ")[1:]:
        name, _, _ = part.partition("\n")
        if name == "Summary":
            rows = [line for line in part.splitlines() if line.startswith("| ")][2:]
            lines = {row.split(" | ")[0].removeprefix("| "): row for row in rows}
        elif name in MAIN:
            sections[name] = f"## {part}".rstrip("\n") + "\n"
    return lines, sections


def summary(lines: dict[str, str], names: list[str]) -> str:
    """One line for each problem: the learned softening against the fixed ones and the ablation."""
    head = [
        "## Summary\n",
        (
            "Paired geometric-mean ratios of parameter errors on unseen tasks, with 95% bootstrap "
            "intervals (below 1: the learned one is better), and how much more often it fails than "
            "the best annealed one.\n"
        ),
        (
            "| tasks | n | learned / best annealed | failures, more % | learned / wider search "
            "| learned / learned schedules, logistic |"
        ),
        "|" + " --- |" * 6,
    ]
    studies = [program.STUDIES[name](SEED) for name in names]
    problems = [p for study in studies for p in (study.problem, *study.transfers.values())]
    for problem in problems:
        if problem.title not in lines:
            raise ValueError(
                f"--studies: the page has no line {problem.title!r}; run its study again"
            )
    return "\n".join([*head, *(lines[problem.title] for problem in problems)]) + "\n"


def summary_line(folder: Path, problem: Problem) -> str:
    """A problem's line of the summary."""
    results = {
        method: evaluation(folder, problem, method)
        for method in (ANNEALED, WIDER, LEARNED, ABLATION)
    }
    family, cells = problem.family, []
    for reference in (ANNEALED, WIDER, ABLATION):
        pair = compare(
            LEARNED,
            results[LEARNED].errors,
            reference,
            results[reference].errors,
            family.error_floor,
            family.failure_threshold,
        )
        cells.append(pair.ratio.format(digits=3))
        if reference == ANNEALED:
            cells.append(pair.failure_difference.format(100, 1))
    return f"| {problem.title} | {len(results[LEARNED].errors)} | " + " | ".join(cells) + " |"


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
