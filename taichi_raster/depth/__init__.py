"""Depth softnesses, one per file (see base.py). Every file in this folder is imported."""

import pkgutil
from importlib import import_module

for _module in pkgutil.iter_modules(__path__):
    import_module(f"{__name__}.{_module.name}")
