"""The text keeps to the terms of the field: phrases that were hard to read do not return."""

import re
import subprocess

import pytest

from paths import ROOT

pytestmark = pytest.mark.runs_on(arch="cpu", precision="f64")

HARD = {
    r"lies? between one another": "interleaved",
    r"gone on with": "resumed",
    r"says the mend|\bmend(s|ed)?\b": "how to fix it",
    r"of no account": "ignored",
    r"to be had elsewhere": "not included; see ...",
    r"makes nothing of": "does not matter",
    r"has a fifth of the errors|takes three tenths off": "cuts the error to 21%",
    r"others dislike|dislike long": "trip other drivers' watchdogs",
    r"(?<![,;:] )\bsee there\.": "what it is",
    r"earlier version of the kernels": "a figure of today's",
    r"able to be failed": "the active voice",
}
"""A pattern, and what to write instead."""


def test_phrases_that_are_hard_to_read_are_gone() -> None:
    listed = subprocess.run(
        ["git", "ls-files", "*.md", "*.py"], cwd=ROOT, capture_output=True, text=True, check=False
    )
    paths = listed.stdout.split() if listed.returncode == 0 else []
    if not paths:
        pytest.skip("not a checkout of git's")
    found = []
    for path in paths:
        if path == "tests/project/test_words.py" or not (ROOT / path).is_file():
            continue
        for number, line in enumerate((ROOT / path).read_text().splitlines(), 1):
            for pattern, better in HARD.items():
                if re.search(pattern, line):
                    found.append(f"{path}:{number}: write {better!r}: {line.strip()[:90]}")
    assert not found, "\n".join(found)
