"""A dictionary of bounded size that forgets the least recently used entry."""

from __future__ import annotations

from collections import OrderedDict
from typing import Any, TypeVar

K = TypeVar("K")
V = TypeVar("V")


class LRUCache(OrderedDict[K, V]):
    """Keeps at most `most` entries; beyond that, the least recently used one is dropped."""

    def __init__(self, most: int) -> None:
        super().__init__()
        self._most = most

    def get(self, key: K, default: Any = None) -> Any:
        """The entry, which then counts as used; `default` without one."""
        try:
            self.move_to_end(key)
        except KeyError:
            return default
        return self[key]

    def __setitem__(self, key: K, value: V) -> None:
        super().__setitem__(key, value)
        self.move_to_end(key)
        if len(self) > self._most:
            self.popitem(last=False)
