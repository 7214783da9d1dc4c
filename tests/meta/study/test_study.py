"""A study goes through all its stages, and goes on where it was; examples/study.py at tiny size."""

import copy
import json
import math
import os
import subprocess
import sys
from dataclasses import replace

import pytest
import torch
import tyro

import study as program
import taichi_raster as tr
from meta.evaluation.evaluate import Evaluation
from meta.inner.method import Method
from meta.inner.protocol import StudyBatch, StudyFamily
from meta.outer.settings import TrainerSettings
from meta.outer.state import TrainingResult, Validated
from meta.search.fixed import FixedSoftness
from meta.search.ranking import Tuned
from meta.study.plan import (
    ABLATION,
    ANNEALED,
    CONSTANT,
    LEARNED,
    WIDER,
    Problem,
    Training,
    soft_renderer,
)
from meta.study.report import problem_markdown
from meta.study.study import StudyRun, judged_file, moved
from paths import ROOT

pytestmark = [pytest.mark.runs_on(arch="cpu", precision="f32"), pytest.mark.timeout(600)]


def run_program(out, *more):
    """In this process, which has a runtime already; on a CPU, it is deterministic in any case."""
    arguments = ["shape2d", "--tiny", "--quiet", f"--out={out}", *more]
    asked = []
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(tr, "init", lambda **options: asked.append(options))
        program.main(tyro.cli(program.Options, args=arguments))
    assert asked == [{"arch": "cpu", "deterministic": True}]


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    out = tmp_path_factory.mktemp("study")
    run_program(out)
    return out / "shape2d"


def test_every_result_is_there(folder):
    text = (folder / "results.md").read_text()
    for name in (CONSTANT, ANNEALED, WIDER, LEARNED, ABLATION):
        assert f"| {name} | " in text
    best = json.loads((folder / "best.json").read_text())["configurations"]
    plain, wider = (FixedSoftness.from_json(best[name]) for name in (ANNEALED, WIDER))
    assert plain.plain and plain.annealed and wider.annealed
    for problem in ("unseen tasks", "pictures of 100 to 150 triangles", "three triangles"):
        assert problem in text
    for picture in ("softness", "shape2d_convergence", "picture_pictures", "three_pictures"):
        assert (folder / f"{picture}.png").stat().st_size > 5000


def test_the_softening_is_what_was_learned_with_its_card(folder):
    softening = tr.load_softening(folder / "softening.safetensors")
    assert softening.steps == 3 and softening.card["task"].startswith("Shape2D(triangles=2")
    assert softening.card["command"] == "python examples/study.py shape2d"
    assert "Shape2D, unseen tasks" in softening.card["scores"]
    assert isinstance(softening.edge, tr.MLPSoftness)


def test_a_resumed_study_computes_nothing_again(folder):
    before = {p.name: p.stat().st_mtime_ns for p in (folder / "judged").iterdir()}
    results = (folder / "results.md").read_text()
    run_program(folder.parent, "--resume")
    assert {p.name: p.stat().st_mtime_ns for p in (folder / "judged").iterdir()} == before
    assert (folder / "results.md").read_text() == results


def test_results_of_other_tasks_end_in_an_error_that_says_so(folder):
    """In a process of its own, as it is started."""
    command = [sys.executable, "examples/study.py", "shape2d", "--tiny", "--quiet", "--resume"]
    done = subprocess.run(
        [*command, "--seed=5", f"--out={folder.parent}"],
        cwd=ROOT,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        text=True,
        capture_output=True,
        check=False,
    )
    assert done.returncode == 1 and "Traceback" not in done.stderr
    assert done.stderr.startswith("study: ") and "seed=5" in done.stderr


def test_results_of_another_method_are_not_taken_for_ours(folder):
    study = program.tiny(program.shape2d(0))
    run = StudyRun(study, folder, resume=True, quiet=True)
    best = run.tune()
    other = run.start(best, ABLATION)
    path = judged_file(folder, study.problem, ABLATION)
    written = ""
    for change in (0.0, 0.1):
        with torch.no_grad():
            other.learnable()["lr.log_values"].add_(change)
        before = run.judge({ABLATION: other}, study.problem)[ABLATION]
        assert path.read_text() != written  # solved anew
        written = path.read_text()
        assert Evaluation.from_json(json.loads(written)).errors.tolist() == before.errors.tolist()
        again = run.judge({ABLATION: other}, study.problem)[ABLATION]
        assert again.errors.tolist() == before.errors.tolist() and path.read_text() == written
    renderer = copy.deepcopy(other.renderer)
    renderer.alpha = tr.TConorm("yager", 1.0)
    run.judge({ABLATION: Method(renderer, other.rule, other.lr, other.steps)}, study.problem)
    assert path.read_text() != written


def test_a_softness_moves_to_another_family_with_its_learning_rate(folder):
    study = program.tiny(program.shape2d(0))
    run = StudyRun(study, folder, resume=True, quiet=True)
    method = run.start(run.tune(), LEARNED)
    there = moved(method, study.transfers["three"])
    assert there.renderer.alpha is method.renderer.alpha
    assert there.renderer.image_size == (48, 48) and there.steps == 2
    assert there.renderer.edge is method.renderer.edge and there.lr is method.lr


class OneTry:
    """In place of a trainer: it adds something to the learning rate's logarithms."""

    added = 0.0

    def __init__(self, method, *arguments, **options):
        self.method = method

    def run(self, *arguments, **options):
        with torch.no_grad():
            self.method.lr.log_values += self.added
        best = Validated(self.method.parameter_dict(), -1.0, 1, "iterate")
        return TrainingResult(best, 0.0, 1, True, [])


@pytest.mark.parametrize("better", [True, False])
def test_only_what_fresh_tasks_confirm_is_kept(folder, better, monkeypatch):
    study = program.tiny(program.shape2d(0))
    study = replace(study, training=replace(study.training, confirm=32))
    problem = replace(study.problem, steps=20, batch_size=16)
    run = StudyRun(replace(study, problem=problem), folder, resume=True, quiet=True)
    config = FixedSoftness("logistic", 0.1, 0.03, 1e-4 if better else 0.08, True)
    best = {name: Tuned(config, 1, 0.0, 0.0, 0.0, 0.0) for name in (ANNEALED, "logistic")}
    method = run.start(best, ABLATION)
    start = method.parameter_dict()
    monkeypatch.setattr("meta.study.study.OuterTrainer", OneTry)
    monkeypatch.setattr(OneTry, "added", math.log(800) if better else -math.log(800))
    result = run.train(method, ABLATION)
    assert result.confirmed is not None
    assert (result.confirmed.ratio.high < 1) == better
    assert (result.best.source == "start") != better
    found = method.parameter_dict()
    kept = start["lr.log_values"] + OneTry.added * better
    assert torch.equal(found["lr.log_values"], kept)
    assert (folder / "ablation" / "confirmed.json").is_file()
    monkeypatch.setattr("meta.study.study.evaluate", None)  # what is there is not solved again
    method.load(start)
    assert run.train(method, ABLATION).confirmed == result.confirmed


def test_fewer_than_no_tasks_confirm_nothing():
    with pytest.raises(ValueError, match=r"^confirm"):
        Training(confirm=-1)


def test_learning_starts_at_the_best_of_all_searches(folder):
    study = program.tiny(program.shape2d(0))
    run = StudyRun(study, folder, resume=True, quiet=True)
    best = run.tune()
    method = run.start(best, LEARNED)
    assert soft_renderer(method).alpha.name == (best[WIDER].config.conorm or ("frank",))[0]
    assert "renderer.alpha.p.log_values" in method.learnable()


def test_where_the_best_is_over_its_order_is_learned_instead_of_a_depth_network(tmp_path):
    study = program.occlusion(0)
    assert study.training.learn.depth and study.training.learn.gamma
    run = StudyRun(study, tmp_path, quiet=True)
    for over, kind in ((True, tr.OverDepth), (False, tr.MLPDepth)):
        config = FixedSoftness("gaussian", 0.1, 0.02, 0.1, True, 0.3, 0.03, over=over)
        method = run.start({WIDER: Tuned(config, 8, 0.0, 0.0, 0.0, 0.0)}, LEARNED)
        assert type(method.renderer.depth) is kind
        assert "renderer.depth.gamma.log_values" in method.learnable()


@pytest.mark.parametrize("name", program.STUDIES)
def test_every_study_can_be_built_and_has_what_its_tables_need(name):
    study = program.STUDIES[name](0)
    assert study.name == name and (study.transfers or name in ("apart", "shaded", "solid"))
    if study.transfers:
        assert study.grid is not None and study.slow_grid is not None
        configs = [*study.grid.configurations(), *study.slow_grid.configurations()]
        assert len({c.distribution for c in configs}) == 17
    for problem in (study.problem, *study.transfers.values()):
        family = problem.family
        assert 0 < family.error_floor < family.failure_threshold and family.error_name
    assert isinstance(study.training.settings, TrainerSettings)


def test_a_report_names_every_figure(folder):
    study = program.tiny(program.shape2d(0))
    results = {
        name: _evaluation(folder, f"Shape2D_ unseen tasks {title}.json")
        for name, title in ((ANNEALED, ANNEALED), (LEARNED, LEARNED))
    }
    text = problem_markdown(study.problem, results)
    assert "vertex RMSE" in text and "mean image error" in text and "above 0.1" in text


def _evaluation(folder, name):
    from meta.evaluation.evaluate import Evaluation

    return Evaluation.from_json(json.loads((folder / "judged" / name).read_text()))


@pytest.mark.parametrize("name", program.STUDIES)
def test_the_families_of_studies_meet_what_studies_ask_for(name):
    family = program.STUDIES[name](0).problem.family
    assert isinstance(family, StudyFamily)
    assert isinstance(family.sample(1, "test", 0), StudyBatch)


def test_a_family_that_lacks_something_is_told_what():
    class Bare:
        def sample(self, batch_size, stream, index): ...

    with pytest.raises(TypeError, match=r"^family: Bare lacks renderer, failure_threshold"):
        Problem("bare", Bare(), 10)  # type: ignore[arg-type]
