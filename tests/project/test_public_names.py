"""Every public name has a docstring and type hints, and the longer names are the same modules."""

import importlib
import inspect
from collections.abc import Iterator
from types import ModuleType
from typing import Any

import pytest

from meta import Method, TaskBatch, TaskFamily, UpdateRule

pytestmark = pytest.mark.runs_on(arch="cpu", precision="f32")

PUBLIC = (
    "taichi_raster",
    "taichi_raster.scene.conventions",
    "taichi_raster.presets.published",
    "meta",
    "tasks",
)


def public(name: str) -> Iterator[tuple[str, Any]]:
    """The public functions and classes of a module, by their names."""
    module = importlib.import_module(name)
    names = getattr(module, "__all__", None)
    if names is None:
        names = [k for k, v in vars(module).items() if getattr(v, "__module__", "") == name]
        names = [k for k in names if not k.startswith("_")]
    for key in names:
        value = getattr(module, key)
        if not isinstance(value, ModuleType) and callable(value):
            yield f"{name}.{key}", value


def methods(owner: type) -> Iterator[tuple[str, Any]]:
    """The functions written in a class, properties' getters among them."""
    for key, value in vars(owner).items():
        if key == "__init__" or not key.startswith("_"):
            function = value.fget if isinstance(value, property) else value
            function = getattr(function, "__func__", function)
            if inspect.isfunction(function):
                yield key, function


@pytest.mark.parametrize("module", PUBLIC)
def test_public_names_have_docstrings(module: str) -> None:
    agreed = {k for p in (TaskBatch, TaskFamily, UpdateRule) for k, _ in methods(p)}
    missing = []
    for name, value in public(module):
        if not value.__doc__:
            missing.append(name)
        if inspect.isclass(value):
            documented = {
                k for base in value.__mro__[1:] for k, f in vars(base).items() if f.__doc__
            }
            documented |= agreed  # a Protocol says what they are for
            missing += [
                f"{name}.{key}"
                for key, function in methods(value)
                if key not in ("__init__", "forward", "extra_repr")  # the class says it
                and not function.__doc__
                and key not in documented
            ]
    assert not missing


@pytest.mark.parametrize("module", PUBLIC)
def test_public_names_have_type_hints(module: str) -> None:
    missing = []
    for name, value in public(module):
        functions = [(name, value)] if inspect.isfunction(value) else []
        if inspect.isclass(value) and not getattr(value, "_is_protocol", False):
            functions = [(f"{name}.{key}", function) for key, function in methods(value)]
        for key, function in functions:
            signature = inspect.signature(function)
            hints = [
                p.annotation
                for i, p in enumerate(signature.parameters.values())
                if not (i == 0 and p.name in ("self", "cls"))
            ]
            if not key.endswith("__init__"):
                hints.append(signature.return_annotation)
            if inspect.Signature.empty in hints:
                missing.append(key)
    assert not missing


def test_the_longer_names_are_the_very_same_modules() -> None:
    import meta
    import taichi_raster.meta
    import taichi_raster.tasks
    import tasks

    shape2d = importlib.import_module("taichi_raster.tasks.shape2d")

    assert taichi_raster.tasks is tasks and taichi_raster.meta is meta
    assert shape2d.Shape2D is tasks.Shape2D and taichi_raster.meta.Method is Method
