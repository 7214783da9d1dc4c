"""Make docs/results.md, its figures and the shipped softenings of the studies that have been run.

    python examples/study.py pose        # and the others, each with --resume if it was stopped
    python benchmarks/results_page.py --studies out/study

Nothing is computed here but the summary's paired ratios: tables and figures are those that the
studies wrote.
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
from meta.checkpoint import load_json  # noqa: E402
from meta.evaluate import Evaluation  # noqa: E402
from meta.stats import compare  # noqa: E402
from meta.study import ABLATION, ANNEALED, LEARNED, WIDER, Problem, judged_file  # noqa: E402

MAIN = ("shape2d", "occlusion", "shape3d", "pose", "apart", "shaded")
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
    names = [name for name in MAIN if (options.studies / name / "results.md").is_file()]
    if not names:
        raise ValueError(f"--studies: no results.md in any folder of {options.studies}")
    text = [(ROOT / "docs" / "results_head.md").read_text(), summary(options.studies, names)]
    pictures = ROOT / "docs" / "results"
    shutil.rmtree(pictures, ignore_errors=True)
    pictures.mkdir(parents=True)
    for name in names:
        folder = options.studies / name
        text.append(section(name, folder, pictures))
        if options.ship:
            shipped = ROOT / "taichi_raster" / "pretrained_files"
            shipped.mkdir(exist_ok=True)
            shutil.copy(folder / "softening.safetensors", shipped / f"{name}.safetensors")
    (ROOT / "docs" / "results.md").write_text("\n".join(text))
    print(f"docs/results.md: {', '.join(names)}")


def summary(studies: Path, names: list[str]) -> str:
    """One line for each problem: the learned softening against the fixed ones and the ablation."""
    lines = [
        "## Summary\n",
        "Paired geometric-mean ratios of parameter errors on unseen tasks, with 95% bootstrap "
        "intervals (below 1: the learned one is better), and how much more often it fails than the "
        "best annealed one.\n",
        "| tasks | n | learned / best annealed | failures, more % | learned / wider search "
        "| learned / learned schedules, logistic |",
        "|" + " --- |" * 6,
    ]
    for name in names:
        study = program.STUDIES[name](0)
        for problem in (study.problem, *study.transfers.values()):
            results = {
                method: evaluation(studies / name, problem, method)
                for method in (ANNEALED, WIDER, LEARNED, ABLATION)
            }
            family, cells = problem.family, []
            for reference in (ANNEALED, WIDER, ABLATION):
                pair = compare(
                    LEARNED, results[LEARNED].errors, reference, results[reference].errors,
                    family.error_floor, family.failure_threshold,
                )  # fmt: skip
                cells.append(pair.ratio.format(digits=3))
                if reference == ANNEALED:
                    cells.append(pair.failure_difference.format(100, 1))
            count = len(results[LEARNED].errors)
            lines.append(f"| {problem.title} | {count} | " + " | ".join(cells) + " |")
    return "\n".join(lines) + "\n"


def evaluation(folder: Path, problem: Problem, method: str) -> Evaluation:
    return Evaluation.from_json(load_json(judged_file(folder, problem, method), "evaluation"))


def section(name: str, folder: Path, pictures: Path) -> str:
    """A study's own tables, its figures, and its command."""
    lines = [(folder / "results.md").read_text().rstrip(), ""]
    lines.append(f"Command: `python examples/study.py {name}` (seed 0).\n")
    for path in sorted(folder.glob("*.png")):
        with Image.open(path) as opened:
            image = opened.convert("RGB")
        if image.width > WIDTH:
            image = image.resize((WIDTH, round(image.height * WIDTH / image.width)))
        target = f"{name}_{path.stem.removeprefix(f'{name}_')}.png"
        image.quantize(128, dither=Image.Dither.NONE).save(pictures / target, optimize=True)
        lines.append(f"![{name}: {path.stem.replace('_', ' ')}](results/{target})\n")
    return "\n".join(lines)


if __name__ == "__main__":
    try:
        main(tyro.cli(Options))
    except (ValueError, OSError) as error:
        raise SystemExit(f"results_page: {error}") from error
