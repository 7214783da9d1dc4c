"""`python -m taichi_raster` tells what works, and does not fall over what does not."""

import pytest

from taichi_raster.commands import backends as report

pytestmark = pytest.mark.runs_on(arch="cpu", precision="f64")


def test_the_cpu_works() -> None:
    for precision in ("f32", "f64"):
        outcome = report.attempt("cpu", precision, timeout=180)
        assert outcome.works, outcome.text
        assert "gradient against differences" in outcome.text


def test_what_does_not_work_says_why() -> None:
    outcome = report.attempt("vulkan", "f64", timeout=120)
    assert not outcome.works
    assert "not available on Vulkan" in outcome.text


def test_versions_are_reported() -> None:
    facts = report.machine()
    assert set(facts) >= {"python", "system", "taichi", "torch", "numpy", "processors"}
    assert facts["taichi"][0].isdigit()
