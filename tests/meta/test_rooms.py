"""The folders of `meta` stand on one another: none imports from one above it."""

import ast
from pathlib import Path

META = Path(__file__).parents[2] / "meta"
FLOORS = ("console", "inner", "evaluation", "outer", "estimators", "search", "study")
"""From the lowest up; each may import those before it."""


def imports(path: Path) -> set[str]:
    """Modules of `meta` that a file imports, anywhere in it."""
    found: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            found.add(node.module)
    return {name for name in found if name.partition(".")[0] == "meta"}


def test_a_folder_imports_only_those_below_it() -> None:
    wrong = []
    for path in META.rglob("*.py"):
        room = path.relative_to(META).parts[0].removesuffix(".py")
        if room == "__init__":
            continue
        allowed = FLOORS[: FLOORS.index(room) + 1]
        wrong += [(str(path), m) for m in imports(path) if m.split(".")[1:2][0] not in allowed]
    assert not wrong


def test_modules_do_not_import_in_circles() -> None:
    files = {
        ".".join(("meta", *path.relative_to(META).with_suffix("").parts)).removesuffix(
            ".__init__"
        ): path
        for path in META.rglob("*.py")
    }
    needs = {name: imports(path) & files.keys() for name, path in files.items()}
    while needs:
        free = {name for name, others in needs.items() if not others}
        assert free, f"a circle among {sorted(needs)}"
        needs = {name: others - free for name, others in needs.items() if name not in free}
