"""Statistics of errors agree with scipy and with known cases."""

import numpy as np
import pytest
import scipy.stats

from meta.evaluation.stats import (
    Interval,
    bootstrap,
    compare,
    markdown_table,
    rich_table,
    summarise,
)

pytestmark = pytest.mark.runs_on(arch="cpu", precision="f64")

RNG = np.random.default_rng(0)


def test_bootstrap_intervals_agree_with_scipy():
    values = RNG.lognormal(size=60)
    ours = bootstrap(lambda x: x.mean(axis=-1), values, seed=1)
    theirs = scipy.stats.bootstrap(
        (values,), np.mean, method="percentile", n_resamples=10_000, rng=2
    ).confidence_interval
    assert ours.value == pytest.approx(values.mean())
    assert ours.low == pytest.approx(theirs.low, rel=0.03)
    assert ours.high == pytest.approx(theirs.high, rel=0.03)


def test_bootstrap_intervals_cover_a_known_mean_about_95_times_in_100():
    rng = np.random.default_rng(4)
    covered = 0
    for trial in range(200):
        interval = bootstrap(
            lambda x: x.mean(axis=-1), rng.normal(1.0, 2.0, 80), trial, resamples=1000
        )
        covered += interval.low <= 1.0 <= interval.high
    assert 180 <= covered <= 198


def test_bootstrap_is_seeded():
    values = RNG.normal(size=30)
    one, same, other = (bootstrap(_mean, values, s) for s in (0, 0, 1))
    assert one == same and one != other


def _mean(x):
    return x.mean(axis=-1)


def test_a_summary_of_known_values():
    errors = np.array([0.01, 0.02, 0.03, 0.2, 0.1])
    summary = summarise("m", errors)
    assert summary.count == 5
    assert summary.mean.value == pytest.approx(0.072)
    assert summary.median.value == pytest.approx(0.03)
    assert summary.failure.value == pytest.approx(0.2)  # 0.1 itself is not above 0.1


def test_values_that_are_all_equal_have_an_interval_of_no_width():
    summary = summarise("m", np.full(20, 0.5))
    assert summary.mean == Interval(0.5, 0.5, 0.5) and summary.failure == Interval(1, 1, 1)


def test_a_comparison_of_known_values():
    reference = np.array([0.2, 0.05, 0.3, 0.01, 0.02, 0.02])
    errors = np.array([0.1, 0.2, 0.15, 0.005, 0.02, 0.01])
    result = compare("a", errors, "b", reference, floor=1e-12)
    # ratios 1/2, 4, 1/2, 1/2, 1, 1/2: product 1/4
    assert result.ratio.value == pytest.approx(0.25 ** (1 / 6))
    assert result.win_rate.value == pytest.approx(4.5 / 6)
    assert result.failure_difference.value == pytest.approx((2 - 2) / 6)
    assert result.ratio.low < result.ratio.value < result.ratio.high


def test_a_paired_ratio_is_exact_where_every_instance_has_the_same():
    reference = RNG.lognormal(size=40)
    ratio = compare("a", 0.5 * reference, "b", reference, floor=1e-12).ratio
    assert ratio.low == pytest.approx(0.5) and ratio.high == pytest.approx(0.5)


def test_the_floor_makes_tiny_errors_equal():
    ratio = compare("a", np.full(5, 1e-9), "b", np.full(5, 1e-7)).ratio
    assert ratio.value == pytest.approx(1, abs=2e-4)


def test_the_p_value_is_scipys_signed_rank_test():
    reference, errors = RNG.lognormal(size=25), RNG.lognormal(mean=-0.4, size=25)
    logs = np.log(errors + 1e-3) - np.log(reference + 1e-3)
    expected = scipy.stats.wilcoxon(logs, zero_method="zsplit").pvalue
    assert compare("a", errors, "b", reference).p_value == pytest.approx(expected)
    assert compare("a", errors, "a", errors).p_value == 1


def test_comparing_a_method_with_itself_is_a_draw():
    errors = RNG.lognormal(size=30)
    result = compare("a", errors, "a", errors)
    assert result.ratio == Interval(1, 1, 1)
    assert result.win_rate == Interval(0.5, 0.5, 0.5)
    assert result.failure_difference == Interval(0, 0, 0)


def test_tables_hold_the_figures():
    reference, errors = RNG.lognormal(-3, size=32), RNG.lognormal(-3.2, size=32)
    summaries = [summarise("fixed", reference), summarise("learned", errors)]
    comparison = compare("learned", errors, "fixed", reference)
    text = markdown_table(summaries, [comparison])
    rows = text.splitlines()
    assert rows[0].count("|") == rows[1].count("|") == rows[2].count("|") == 9
    assert rows[2].startswith("| fixed | ") and rows[3].startswith("| learned | ")
    assert comparison.ratio.format(digits=3) in rows[3]
    assert summaries[1].failure.format(100, 1) in rows[3]
    assert "32 instances" in text and "error + 0.001" in text and "against the fixed." in text
    assert rich_table(summaries, [comparison], "Unseen").row_count == 2


@pytest.mark.parametrize(
    ("call", "named"),
    [
        (lambda: summarise("m", np.array([])), "errors"),
        (lambda: summarise("m", np.array([1.0, np.nan])), "errors: 1 values are not finite"),
        (lambda: compare("a", np.ones(3), "b", np.ones(4)), "same instances, got 3 and 4"),
        (lambda: compare("a", np.ones(3), "b", np.ones(3), floor=0), "floor"),
    ],
)
def test_errors_that_cannot_be_compared_are_refused_by_name(call, named):
    with pytest.raises(ValueError, match=named):
        call()
