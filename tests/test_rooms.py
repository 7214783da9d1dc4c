"""The rooms (folders) of the packages stand on one another: none imports from one above it."""

from pathlib import Path

import pytest

import rooms

pytestmark = pytest.mark.runs_on(arch="cpu", precision="f64")

ORDER = {
    "taichi_raster": (
        "sibling_packages",
        "runtime",
        "checks",
        "maths",
        "scene",
        "capture",
        "softness",
        "depth",
        "kernels",
        "engine",
        "render",
        "fitting",
        "presets",
        "__init__",
        "commands",
        "__main__",
        # The packages above, under longer names.
        "meta",
        "tasks",
    ),
    "meta": (
        "console",
        "inner",
        "evaluation",
        "outer",
        "estimators",
        "search",
        "study",
        "__init__",
        "commands",
    ),
    "tasks": (
        "copies",
        "streams",
        "triangles",
        "overlapping",
        "picture_files",
        "silhouettes",
        "solids",
        "sphere",
        "pose_meshes",
        "scenes",
        "shape2d",
        "body",
        "calibration",
        "arrangement",
        "painted",
        "picture",
        "occlusion",
        "pose",
        "shape3d",
        "reconstruction",
        "__init__",
    ),
}
"""From the ground up; each may import those before it, and those of the packages before its own."""


def floors(order: dict[str, tuple[str, ...]]) -> list[str]:
    return [f"{package}.{name}" for package, names in order.items() for name in names]


def test_rooms_import_only_those_below_them() -> None:
    assert tuple(ORDER) == rooms.PACKAGES
    assert not rooms.upward(rooms.imports(), floors(ORDER))


def test_no_modules_and_no_rooms_import_one_another() -> None:
    graph = rooms.imports()
    assert not rooms.circles(graph)
    assert not rooms.circles(rooms.of_rooms(graph))


# The checker itself, on a tree of two packages ----------------------------------------------------

TREE = {
    "low/__init__.py": "",
    "low/cellar/__init__.py": "",
    "low/cellar/stones.py": "import math",
    "low/hall/door.py": "from low.cellar import stones\nimport low.cellar.stones as same",
    "high/__init__.py": "from high.roof import tile",
    "high/roof.py": "def tile():\n    from low.hall.door import stones",
}
FLOORS = floors({"low": ("__init__", "cellar", "hall"), "high": ("roof", "__init__")})


def graph_of(folder: Path, changes: dict[str, str]) -> rooms.Graph:
    for name, text in (TREE | changes).items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(text)
    return rooms.imports(folder, ("low", "high"))


def test_a_tree_in_order_is_found_in_order(tmp_path: Path) -> None:
    graph = graph_of(tmp_path, {})
    assert graph["low.hall.door"] == {"low.cellar.stones"}
    assert graph["high.roof"] == {"low.hall.door"}
    assert not rooms.upward(graph, FLOORS)
    assert not rooms.circles(graph) and not rooms.circles(rooms.of_rooms(graph))
    assert rooms.floors(graph)["high"] == 3


@pytest.mark.parametrize(
    ("file", "text", "wrong"),
    [
        ("low/cellar/stones.py", "import low.hall.door", "low.cellar imports low.hall"),
        ("low/cellar/stones.py", "from low.hall import door", "low.cellar imports low.hall"),
        ("low/cellar/sand.py", "def f():\n    from low.hall.door import x", "low.cellar"),
        ("low/cellar/sand.py", "try:\n    import high.roof\nexcept ImportError: ...", "high.roof"),
        ("low/hall/lamp.py", "from ..cellar import stones\nfrom .. import hall, cellar", ""),
        ("low/cellar/sand.py", "from ..hall import door", "low.cellar imports low.hall"),
        ("low/cellar/__init__.py", "from ..hall.door import x", "low.cellar imports low.hall"),
        ("low/hall/lamp.py", "from high import roof", "low.hall imports high.roof"),
        ("low/cellar/sand.py", "if TYPE_CHECKING:\n    import high.roof", ""),
    ],
)
def test_an_import_of_a_floor_above_is_found(
    file: str, text: str, wrong: str, tmp_path: Path
) -> None:
    found = rooms.upward(graph_of(tmp_path, {file: text}), FLOORS)
    assert len(found) == bool(wrong) and all(wrong in each for each in found)


def test_a_circle_of_modules_is_found(tmp_path: Path) -> None:
    changes = {
        "low/hall/lamp.py": "import low.hall.window",
        "low/hall/window.py": "import low.hall.floor",
        "low/hall/floor.py": "def f():\n    import low.hall.lamp",
    }
    (circle,) = rooms.circles(graph_of(tmp_path, changes))
    assert circle == {"low.hall.lamp", "low.hall.window", "low.hall.floor"}


def test_a_circle_of_rooms_without_one_of_modules_is_found(tmp_path: Path) -> None:
    graph = graph_of(tmp_path, {"low/cellar/sand.py": "import low.hall.door"})
    assert not rooms.circles(graph)
    assert rooms.circles(rooms.of_rooms(graph)) == [{"low.cellar", "low.hall"}]


def test_a_room_without_a_floor_is_named(tmp_path: Path) -> None:
    graph = graph_of(tmp_path, {"low/attic/box.py": ""})
    with pytest.raises(ValueError, match=r"low\.attic"):
        rooms.upward(graph, FLOORS)
