"""Numbers as text, and text as numbers."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import numpy as np
from numpy import ndarray


def table(rows: Sequence[str], width: int, fill: float | None = None) -> ndarray:
    """The first `width` words of each row as float64, (N, width).

    Raises:
        ValueError: for a word that is no number, or a short row if there is no value to fill it.
    """
    widths = {len(row.split()) for row in rows}
    if len(widths) == 1:  # without a list for each row, which makes Python collect garbage
        (count,) = widths
        words = " ".join(rows).split()
        if count >= width:
            columns = [words[column::count] for column in range(width)]
            return np.ascontiguousarray(np.array(columns, dtype=np.float64).T)
    if fill is None and min(widths, default=width) < width:
        raise ValueError(f"has a line of fewer than {width} numbers")
    padded = [[*row.split(), *[repr(fill)] * width][:width] for row in rows]
    return np.array(padded, dtype=np.float64).reshape(-1, width)


def whole_words(words: Iterable[str]) -> bool:
    """Whether all numbers are written without a point or an exponent."""
    return not any("." in word or "e" in word or "E" in word for word in words)


def decimals(values: ndarray, point: bool = False) -> list[str]:
    """Rows of numbers (N, C) as text that gives the same float32 or float64 again.

    With `point`, each number has a point or an exponent, so that none is taken for a whole one.
    """
    write = "{:.9g}".format if values.dtype == np.float32 else repr
    if not point:
        return [" ".join(map(write, row)) for row in values.tolist()]
    return [" ".join(_pointed(write(value)) for value in row) for row in values.tolist()]


def _pointed(word: str) -> str:
    return word if "." in word or "e" in word else f"{word}.0"
