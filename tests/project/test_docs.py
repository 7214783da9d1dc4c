"""What the README and the pages of docs/ say is so: their code runs, their links lead somewhere.

All Python blocks of a page run in their order, as one program, in a folder of their own. A block
after a line `<!-- not run -->` is left out.
"""

import importlib
import logging
import re
import shutil
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
import torch

import taichi_raster as tr
import turntables
from paths import ROOT

pytestmark = pytest.mark.runs_on(arch="cpu", precision="f32")

BESIDE = ("README.md", "CONTRIBUTING.md", "CHANGELOG.md", "examples/README.md")
PAGES = [*(ROOT / page for page in BESIDE), *sorted((ROOT / "docs").rglob("*.md"))]
BLOCK = re.compile(r"(<!-- not run -->\s*\n)?^```python\n(.*?)^```$", re.MULTILINE | re.DOTALL)
LINK = re.compile(r"\]\(([^)\s#]*)(?:#([^)\s]*))?\)")


WITH_PHOTOS = ("README.md", "docs/tutorial.md")
"""Pages that read the folder `toy` of photos, as their readers have one."""


def blocks(page: Path) -> list[tuple[int, str]]:
    """Line number and text of each block that is to be run."""
    text = page.read_text()
    return [
        (text[: match.start(2)].count("\n"), match.group(2))
        for match in BLOCK.finditer(text)
        if match.group(1) is None
    ]


def name(page: Path) -> str:
    return str(page.relative_to(ROOT))


@pytest.fixture
def same_logs() -> Iterator[None]:
    """A page may set the levels of loggers; the other tests want them as they were."""
    loggers = [logging.getLogger(name) for name in ("taichi_raster", "taichi_raster.compiling")]
    levels = [logger.level for logger in loggers]
    yield
    for logger, level in zip(loggers, levels, strict=True):
        logger.setLevel(level)


@pytest.fixture(scope="module")
def toy(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of photos of two boxes that are one body, with masks and cameras."""
    folder = tmp_path_factory.mktemp("photos") / "toy"
    one, two = tr.box(0.8, 0.5, 0.35), tr.box(0.3, 0.25, 0.5)
    corner = torch.tensor([0.35, 0.3, 0.2])
    body = tr.join([one, replace(two, vertices=two.vertices + corner)])
    tr.save_capture(folder, turntables.capture_of(body, turntables.ALL_ROUND[::2], size=(48, 64)))
    return folder


@pytest.mark.parametrize("page", [page for page in PAGES if blocks(page)], ids=name)
@pytest.mark.usefixtures("same_logs", "capsys")
def test_the_code_of_a_page_runs(page: Path, toy: Path, tmp_path: Path, monkeypatch) -> None:
    if name(page) in WITH_PHOTOS:
        shutil.copytree(toy, tmp_path / "toy")
        quick = {"face_count": 600, "steps": 8, "cells": 32}
        fit = tr.fit_mesh
        monkeypatch.setattr(tr, "fit_mesh", lambda capture, **given: fit(capture, **quick | given))
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "argv", [name(page)])
    torch.manual_seed(0)
    namespace: dict[str, object] = {"__name__": f"page_{page.stem}"}
    monkeypatch.setitem(sys.modules, f"page_{page.stem}", type(sys)(f"page_{page.stem}"))
    for line, text in blocks(page):
        # Blank lines in front, so that a traceback gives the page's own lines.
        exec(compile("\n" * line + text, name(page), "exec"), namespace)


def anchors(page: Path) -> set[str]:
    """The anchors of a page's headings, as GitHub and MkDocs make them."""
    headings = re.findall(
        r"^#+ +(.*)$", re.sub(r"```.*?```", "", page.read_text(), flags=re.DOTALL), re.MULTILINE
    )
    plain = [re.sub(r"[^\w\s-]", "", heading).strip().lower() for heading in headings]
    return {re.sub(r"[-\s]+", "-", heading) for heading in plain}


@pytest.mark.parametrize("page", PAGES, ids=name)
def test_the_links_of_a_page_lead_to_something(page: Path) -> None:
    text = re.sub(r"```.*?```|`[^`\n]*`", "", page.read_text(), flags=re.DOTALL)
    later = {ROOT / "docs" / "results.md", ROOT / "docs" / "viewer.md"}  # written apart
    broken = []
    for target, anchor in LINK.findall(text):
        if re.match(r"[a-z]+:", target):
            continue
        place = (page.parent / target).resolve() if target else page
        missing = not place.exists() and place not in later
        if missing or (anchor and place.exists() and anchor not in anchors(place)):
            broken.append(f"{target}#{anchor}")
    assert not broken


@pytest.mark.parametrize("page", PAGES, ids=name)
def test_what_lies_within_a_list_item_is_indented_by_four_spaces(page: Path) -> None:
    """With two or three, the site ends the list there, and shows a nested one as its own level."""
    text = re.sub(r"^```.*?^```$", "", page.read_text(), flags=re.DOTALL | re.MULTILINE)
    shallow = re.findall(r"^ {1,3}[*-] .*|(?<=\n\n) {1,3}\S.*", text, flags=re.MULTILINE)
    shallow += [
        block
        for block in re.split(r"\n *\n", text)
        if block.startswith(" ") and re.search(r"^[*-] ", block, flags=re.MULTILINE)
    ]  # the next item needs an empty line before it
    assert not [part[:80] for part in shallow]


@pytest.mark.parametrize("package", ["taichi_raster", "meta", "tasks", "tasks.reconstruction"])
def test_every_public_name_is_in_the_reference(package: str) -> None:
    module = importlib.import_module(package)
    page = f"{package.rpartition('.')[2]}.md"
    text = (ROOT / "docs" / "reference" / page).read_text()
    shown = set(re.findall(rf"^::: {re.escape(package)}\.([\w.]+)$", text, re.MULTILINE))
    modules = {"conventions", "published"}  # shown function by function
    constants = {n for n in module.__all__ if n.isupper() and not callable(getattr(module, n))}
    missing = set(module.__all__) - shown - modules - constants
    assert not missing
    unknown = {n for n in shown if n.partition(".")[0] not in {*module.__all__}}
    assert not unknown
