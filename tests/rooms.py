"""What imports what: rooms (folders), floors and circles of the package.

    python tests/rooms.py [ROOT]

prints the floors of `taichi_raster`, `meta` and `tasks` below ROOT (by default this checkout): a
module's floor is the length of the longest chain of imports below it. Imports for types alone,
under `if TYPE_CHECKING`, do not count; those inside functions do.
"""

from __future__ import annotations

import ast
import sys
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).parent.parent
PACKAGES = ("taichi_raster", "meta", "tasks")
"""From the ground up; each may import those before it."""

Graph = dict[str, set[str]]


def imports(root: Path = ROOT, packages: tuple[str, ...] = PACKAGES) -> Graph:
    """Each module, and the modules of the same packages that it imports."""
    paths = {
        ".".join(path.relative_to(root).with_suffix("").parts).removesuffix(".__init__"): path
        for package in packages
        for path in sorted((root / package).rglob("*.py"))
    }
    graph: Graph = {}
    for name, path in paths.items():
        around = name.split(".") if path.stem == "__init__" else name.split(".")[:-1]
        found = {
            target if target in paths else target.rpartition(".")[0]
            for target in _targets(ast.parse(path.read_text()), around)
        }
        graph[name] = {target for target in found if target in paths and target != name}
    return graph


def _targets(tree: ast.AST, around: list[str]) -> Iterator[str]:
    """The dotted names that a module of the package `around` imports; of `from a import b`, a.b."""
    for node in ast.iter_child_nodes(tree):
        if isinstance(node, ast.If) and "TYPE_CHECKING" in ast.unparse(node.test):
            for other in node.orelse:
                yield from _targets(other, around)
        elif isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            start = around[: len(around) + 1 - node.level] if node.level else []
            home = ".".join([*start, *([node.module] if node.module else [])])
            yield from (f"{home}.{alias.name}" for alias in node.names)
        else:
            yield from _targets(node, around)


def room(module: str) -> str:
    """The folder or file right below the package that a module is in, such as meta.inner."""
    package, _, rest = module.partition(".")
    return f"{package}.{rest.partition('.')[0] or '__init__'}"


def of_rooms(graph: Graph) -> Graph:
    """Each room, and the rooms that its modules import."""
    rooms: Graph = {room(name): set() for name in graph}
    for name, targets in graph.items():
        rooms[room(name)] |= {room(target) for target in targets} - {room(name)}
    return rooms


def upward(graph: Graph, order: list[str]) -> list[str]:
    """The imports by a room of a room that is not before it in `order`, from the ground up.

    Raises:
        ValueError: if `order` does not hold each room exactly once.
    """
    rooms = of_rooms(graph)
    if sorted(rooms) != sorted(order):
        odd = sorted(set(rooms) ^ set(order)) or "a room twice"
        raise ValueError(f"the order of rooms and the rooms that there are differ: {odd}")
    floor = {name: i for i, name in enumerate(order)}
    return [
        f"{name} imports {target}"
        for name in order
        for target in sorted(rooms[name], key=floor.__getitem__)
        if floor[target] > floor[name]
    ]


def circles(graph: Graph) -> list[set[str]]:
    """The sets of modules that import one another, directly or not (Tarjan's algorithm)."""
    order: dict[str, int] = {}
    low: dict[str, int] = {}
    stack: list[str] = []
    found: list[set[str]] = []

    def visit(name: str) -> None:
        order[name] = low[name] = len(order)
        stack.append(name)
        for target in sorted(graph[name]):
            if target not in order:
                visit(target)
                low[name] = min(low[name], low[target])
            elif target in stack:
                low[name] = min(low[name], order[target])
        if low[name] == order[name]:
            at = stack.index(name)
            members = set(stack[at:])
            del stack[at:]
            if len(members) > 1:
                found.append(members)

    for name in sorted(graph):
        if name not in order:
            visit(name)
    return found


def floors(graph: Graph) -> dict[str, int]:
    """The floor of each module; those of a circle are taken together."""
    together = {name: frozenset([name]) for name in graph}
    for circle in circles(graph):
        together |= dict.fromkeys(circle, frozenset(circle))
    known: dict[frozenset[str], int] = {}

    def floor(group: frozenset[str]) -> int:
        if group not in known:
            below = {together[target] for name in group for target in graph[name]} - {group}
            known[group] = 1 + max((floor(each) for each in below), default=-1)
        return known[group]

    return {name: floor(together[name]) for name in graph}


def main(root: Path) -> None:
    graph = imports(root)
    by_floor: dict[int, list[str]] = {}
    for name, floor in floors(graph).items():
        by_floor.setdefault(floor, []).append(name)
    for floor in sorted(by_floor, reverse=True):
        print(f"{floor:3d}  {' '.join(by_floor[floor])}")
    found = circles(graph)
    arrows = sum(map(len, graph.values()))
    print(f"{len(graph)} modules, {arrows} imports, {len(by_floor)} floors, {len(found)} circles")
    for circle in found:
        print(f"circle: {' '.join(sorted(circle))}")


if __name__ == "__main__":
    main(Path(sys.argv[1]) if len(sys.argv) > 1 else ROOT)
