"""The packages that are installed beside this one, `meta` and `tasks`, whatever else is called so.

Python looks for `import tasks` in the script's own folder first, so that a `tasks.py` there hides
the package of that name. `taichi_raster.tasks` and `taichi_raster.meta` are the packages all the
same: where nothing hides them, the very same modules; else loaded from the place where this
package lies, and the modules that hide them stay as they are.
"""

from __future__ import annotations

import importlib
import importlib.util
import pkgutil
import sys
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from types import ModuleType

_HOME = Path(__file__).resolve().parent.parent
_SIBLINGS = ("meta", "tasks")
# Modules of packages that something hides, by their names. One package may use the other, and each
# module is to exist once, so that they are kept for the next time.
_hidden_modules: dict[str, ModuleType] = {}


def sibling(name: str) -> ModuleType:
    """The package `name` beside this one; its modules are known as ``taichi_raster.name...`` too.

    Raises:
        ImportError: if it is not installed there.
    """
    if not (_HOME / name / "__init__.py").is_file():
        raise ImportError(f"{name}: no such package beside taichi_raster in {_HOME}", name=name)
    hidden = [each for each in _SIBLINGS if not _comes_first(each)]
    with _put_aside(hidden):
        package, modules = _load(name)
        _hidden_modules.update(_below(hidden))
    sys.modules.update({f"taichi_raster.{key}": module for key, module in modules.items()})
    return package


def _comes_first(name: str) -> bool:
    """Whether `import name` finds the package beside this one."""
    here = _HOME / name / "__init__.py"
    try:
        found = importlib.util.find_spec(name)
    except ValueError:  # a module made by hand, without a spec
        return False
    return found is not None and found.origin is not None and Path(found.origin).resolve() == here


def _load(name: str) -> tuple[ModuleType, dict[str, ModuleType]]:
    """The package, and all of its modules by their names."""
    package = importlib.import_module(name)
    modules = {name: package}
    for entry in pkgutil.walk_packages(package.__path__, f"{name}.", onerror=lambda _: None):
        try:
            modules[entry.name] = importlib.import_module(entry.name)
        except ImportError:  # an extra is not installed: whoever imports the module is told
            continue
    return package, modules


@contextmanager
def _put_aside(names: Sequence[str]) -> Iterator[None]:
    """Within it, importing one of `names` finds the package; afterwards what it found before."""
    if not names:
        yield
        return
    hiding = _below(names)
    _forget(hiding)
    sys.modules.update(_hidden_modules)
    sys.path.insert(0, str(_HOME))
    try:
        yield
    finally:
        sys.path.remove(str(_HOME))
        _forget(_below(names))
        sys.modules.update(hiding)


def _below(names: Sequence[str]) -> dict[str, ModuleType]:
    """Loaded modules of these packages."""
    return {key: module for key, module in sys.modules.items() if key.split(".")[0] in names}


def _forget(modules: Iterable[str]) -> None:
    for key in modules:
        del sys.modules[key]
