"""Statistics with uncertainty: how good a method is, and how two compare on the same instances.

All intervals are 95% percentile bootstrap intervals over instances, seeded. Comparisons are paired:
an instance is resampled together with its results under both methods.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TypeAlias

import numpy as np
from rich.table import Table

Array: TypeAlias = np.ndarray
FAILURE_THRESHOLD = 0.1
ERROR_FLOOR = 1e-3
LEVEL = 0.95


@dataclass(frozen=True)
class Interval:
    """A figure and the ends of its 95% interval."""

    value: float
    low: float
    high: float

    def format(self, scale: float = 1.0, digits: int = 4, between: str = " ") -> str:
        """As "0.0670 [0.0551, 0.0802]"."""
        value, low, high = (f"{scale * x:.{digits}f}" for x in (self.value, self.low, self.high))
        return f"{value}{between}[{low}, {high}]"


@dataclass(frozen=True)
class Summary:
    """One method over `count` instances; `failure` is the share of errors above the threshold."""

    name: str
    count: int
    mean: Interval
    median: Interval
    failure: Interval


@dataclass(frozen=True)
class Comparison:
    """`name` against `reference` on the same instances.

    Attributes:
        ratio: geometric mean of (error + floor) / (reference error + floor); below 1 is better.
        win_rate: fraction of instances with the smaller error, ties counting half.
        failure_difference: failure rate minus that of the reference; below 0 is better.
        p_value: two-sided Wilcoxon signed-rank test (Wilcoxon 1945) of the logarithms of the
            ratios, instances without a difference split between both sides.
        floor: added to both errors, so that a tiny error counts as no better than a small one.
    """

    name: str
    reference: str
    ratio: Interval
    win_rate: Interval
    failure_difference: Interval
    p_value: float
    floor: float


def bootstrap(
    statistic: Callable[[Array], Array], values: Array, seed: int = 0, resamples: int = 10_000
) -> Interval:
    """Percentile bootstrap of `statistic` (vectorised: reduces the last axis) over `values` (n,).

    Raises ValueError unless `values` is one-dimensional, finite and not empty.
    """
    values = _checked("values", values)
    rng = np.random.default_rng(seed)
    estimates = []
    per_chunk = max(1, 4_000_000 // len(values))
    for begin in range(0, resamples, per_chunk):
        rows = min(per_chunk, resamples - begin)
        estimates.append(statistic(values[rng.integers(0, len(values), (rows, len(values)))]))
    tail = (1 - LEVEL) / 2
    low, high = np.quantile(np.concatenate(estimates), [tail, 1 - tail])
    return Interval(float(statistic(values[None])[0]), float(low), float(high))


def summarise(
    name: str, errors: Array, threshold: float = FAILURE_THRESHOLD, seed: int = 0
) -> Summary:
    """Mean, median and failure rate of `errors` (n,)."""
    errors = _checked("errors", errors)
    return Summary(
        name=name,
        count=len(errors),
        mean=bootstrap(_mean, errors, seed),
        median=bootstrap(_median, errors, seed),
        failure=bootstrap(_mean, (errors > threshold).astype(float), seed),
    )


def compare(
    name: str,
    errors: Array,
    reference: str,
    reference_errors: Array,
    floor: float = ERROR_FLOOR,
    threshold: float = FAILURE_THRESHOLD,
    seed: int = 0,
) -> Comparison:
    """Paired comparison of two methods' errors (n,) on the same n instances."""
    errors = _checked("errors", errors)
    reference_errors = _checked("reference_errors", reference_errors)
    if errors.shape != reference_errors.shape:
        raise ValueError(
            f"errors, reference_errors: a paired comparison needs the same instances, got "
            f"{len(errors)} and {len(reference_errors)} values"
        )
    if not floor > 0:
        raise ValueError(f"floor must be > 0, got {floor}")
    log_ratio = np.log((errors + floor) / (reference_errors + floor))
    wins = (errors < reference_errors) + 0.5 * (errors == reference_errors)
    failures = (errors > threshold).astype(float) - (reference_errors > threshold)
    return Comparison(
        name=name,
        reference=reference,
        ratio=bootstrap(lambda x: np.exp(x.mean(axis=-1)), log_ratio, seed),
        win_rate=bootstrap(_mean, wins, seed),
        failure_difference=bootstrap(_mean, failures, seed),
        p_value=_wilcoxon(log_ratio),
        floor=floor,
    )


_HEADINGS = (
    "softness",
    "mean error",
    "median error",
    "failures %",
    "error ratio",
    "wins %",
    "failures, more %",
    "p",
)


def table_rows(
    summaries: Sequence[Summary], comparisons: Sequence[Comparison], between: str = " "
) -> list[list[str]]:
    """One row a method, its comparison (where there is one of that name) beside its summary.

    `between` separates each figure from its interval.
    """
    by_name = {comparison.name: comparison for comparison in comparisons}
    rows = []
    for summary in summaries:
        row = [
            summary.name,
            summary.mean.format(1, 4, between),
            summary.median.format(1, 4, between),
            summary.failure.format(100, 1, between),
        ]
        comparison = by_name.get(summary.name)
        if comparison is None:
            row += [""] * 4
        else:
            row += [
                comparison.ratio.format(1, 3, between),
                comparison.win_rate.format(100, 1, between),
                comparison.failure_difference.format(100, 1, between),
                f"{comparison.p_value:.2g}",
            ]
        rows.append(row)
    return rows


def caption(summaries: Sequence[Summary], comparisons: Sequence[Comparison]) -> str:
    """What the numbers of a table are."""
    text = f"{summaries[0].count} instances; in brackets 95% bootstrap intervals."
    if comparisons:
        text += (
            f" The error ratio is a ratio of geometric means of error + {comparisons[0].floor:g};"
            f" below 1 is better, as below 0 for failures. Ratio, wins and failures are paired,"
            f" against the {comparisons[0].reference}. The p is of Wilcoxon's signed-rank test."
        )
    return text


def markdown_table(summaries: Sequence[Summary], comparisons: Sequence[Comparison] = ()) -> str:
    """The table as Markdown, caption below."""
    lines = [
        "| " + " | ".join(_HEADINGS) + " |",
        "|" + " --- |" * len(_HEADINGS),
        *("| " + " | ".join(row) + " |" for row in table_rows(summaries, comparisons)),
    ]
    return "\n".join(lines) + "\n\n" + caption(summaries, comparisons) + "\n"


def rich_table(
    summaries: Sequence[Summary], comparisons: Sequence[Comparison] = (), title: str = ""
) -> Table:
    """The table for a terminal, intervals below the figures."""
    table = Table(
        title=title or None, caption=caption(summaries, comparisons), padding=(0, 0, 1, 0)
    )
    for heading in _HEADINGS:
        table.add_column(heading, min_width=10)
    for row in table_rows(summaries, comparisons, between="\n"):
        table.add_row(*row)
    return table


def _wilcoxon(differences: Array) -> float:
    if not differences.any():
        return 1.0
    import scipy.stats  # here, as it takes a while to import

    return float(scipy.stats.wilcoxon(differences, zero_method="zsplit").pvalue)


def _mean(values: Array) -> Array:
    return values.mean(axis=-1)


def _median(values: Array) -> Array:
    return np.median(values, axis=-1)


def _checked(name: str, values: Array) -> Array:
    array = np.asarray(values, dtype=float)
    if array.ndim != 1 or array.size == 0:
        raise ValueError(f"{name}: expected a non-empty 1-D array, got shape {array.shape}")
    if not np.isfinite(array).all():
        raise ValueError(f"{name}: {int((~np.isfinite(array)).sum())} values are not finite")
    return array
