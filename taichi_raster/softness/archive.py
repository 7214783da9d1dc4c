"""Reads and writes files: tensors by name in safetensors, a JSON description in the metadata.

Reading a file runs no code from it. Whatever is missing, superfluous, not finite, or of a wrong
type or shape is an error that names it.
"""

from __future__ import annotations

import json
import os
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import Tensor, nn

from taichi_raster import checks

_METADATA = "taichi_raster"
_DTYPES = (torch.float32, torch.float64)
_TYPES = {
    str: "a text",
    bool: "true or false",
    int: "a whole number",
    dict: "an object",
    list: "a list",
}


@dataclass(frozen=True)
class Entry:
    """A part of a file that is being read.

    Attributes:
        name: its name in errors.
        description: its entries in the file's description.
        prefix: the prefix of its tensors' names.
        tensors: the tensors of the whole file that are not taken yet.
        learned: names of the tensors that were parameters.
    """

    name: str
    description: dict[str, Any]
    prefix: str
    tensors: dict[str, Tensor]
    learned: frozenset[str]

    def get(self, key: str, kind: type) -> Any:
        """The description's entry `key`; ValueError if it is missing or of another type."""
        if key not in self.description:
            raise ValueError(f"{self.name}: the description lacks {key!r}")
        value = self.description[key]
        if type(value) is not kind:
            raise ValueError(f"{self.name}.{key}: expected {_TYPES[kind]}, got {value!r}")
        return value

    def part(self, key: str, prefix: str | None = None) -> Entry:
        """The part under `key`; its tensors' names begin with "key.", or with `prefix`."""
        prefix = f"{self.prefix}{key}." if prefix is None else prefix
        name = f"{self.name}.{key}".removeprefix("file.")
        return Entry(name, self.get(key, dict), prefix, self.tensors, self.learned)

    def has(self, key: str) -> bool:
        """Whether a tensor of this name is left."""
        return self.prefix + key in self.tensors

    def tensor(self, key: str, shape: tuple[int, ...] | None = None) -> Tensor:
        """Take a tensor, and check its shape if given; it is an `nn.Parameter` if it was one."""
        if not self.has(key):
            raise ValueError(f"{self.name}: the tensor {self.prefix + key!r} is missing")
        value = self.tensors.pop(self.prefix + key)
        if shape is not None and value.shape != shape:
            raise ValueError(
                f"{self.name}.{key}: expected shape {shape}, as described, got {tuple(value.shape)}"
            )
        return nn.Parameter(value) if self.prefix + key in self.learned else value

    def all_taken(self) -> None:
        """Raise ValueError if a tensor of this part is left."""
        rest = sorted(name for name in self.tensors if name.startswith(self.prefix))
        if rest:
            raise ValueError(f"{self.name}: unexpected tensors {', '.join(rest)}")


def write(path: str | Path, description: Mapping[str, Any], tensors: Mapping[str, Tensor]) -> None:
    """Write a file, completely or not at all; tensors keep their bits.

    Raises:
        FileNotFoundError: if its folder does not exist.
        ValueError: for a tensor that is not finite, or a description that JSON cannot hold.
    """
    target = checks.path("path", path)
    if not target.parent.is_dir():
        raise FileNotFoundError(f"path: no folder at {target.parent}")
    learned = sorted(name for name, value in tensors.items() if isinstance(value, nn.Parameter))
    try:
        text = json.dumps({**description, "learned": learned}, allow_nan=False)
    except (TypeError, ValueError) as error:
        raise ValueError(f"description: must be what JSON can hold: {error}") from error
    for name, value in tensors.items():
        _check_finite(name, value)
    copies = {name: _portable(value) for name, value in tensors.items()}
    with tempfile.TemporaryDirectory(dir=target.parent, prefix=f".{target.name}.") as folder:
        temporary = Path(folder) / target.name
        # by Python, for the usual permissions (files of save_file are readable by the owner only)
        temporary.write_bytes(save(copies, metadata={_METADATA: text}))
        os.replace(temporary, target)


@contextmanager
def reading(path: str | Path, what: str, *formats: str) -> Iterator[Entry]:
    """Open a file as one entry; errors in the context name the file.

    Args:
        path: the file.
        what: its kind, for errors: "softness", for example.
        formats: the formats that are understood.

    Raises:
        FileNotFoundError: if there is no such file.
        ValueError: if the file is damaged or of another format, or for an error in the context.
    """
    source = checks.path("path", path)
    if not source.is_file():
        raise FileNotFoundError(f"path: no {what} file at {source}")
    try:
        yield _opened(source, formats)
    except (SafetensorError, KeyError, TypeError, ValueError, RuntimeError, OSError) as error:
        raise ValueError(f"path: {source} is not a usable {what} file: {error}") from error


def _opened(source: Path, formats: tuple[str, ...]) -> Entry:
    with safe_open(source, framework="pt") as file:
        text = (file.metadata() or {}).get(_METADATA)
        if text is None:
            raise ValueError("taichi_raster did not write it")
        description = json.loads(text, parse_constant=_refuse)
        form = description.get("format") if isinstance(description, dict) else None
        if form not in formats:
            raise ValueError(f"unknown format {form!r}; known here: {', '.join(formats)}")
        tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    for name, value in tensors.items():
        if value.dtype not in _DTYPES:
            raise ValueError(f"{name}: expected float32 or float64, got {value.dtype}")
        _check_finite(name, value)
    learned = description.get("learned", [])
    if not isinstance(learned, list) or not all(isinstance(name, str) for name in learned):
        raise ValueError("learned: expected a list of names")
    return Entry("file", description, "", tensors, frozenset(learned))


def _portable(value: Tensor) -> Tensor:
    """A copy on the CPU. Safetensors refuses tensors that share memory."""
    dtype = value.dtype if value.dtype in _DTYPES else torch.float64
    return value.detach().to("cpu", dtype).clone(memory_format=torch.contiguous_format)


def _check_finite(name: str, value: Tensor) -> None:
    if not bool(torch.isfinite(value.detach()).all()):
        raise ValueError(f"{name}: holds an infinite or NaN value")


def _refuse(constant: str) -> None:
    raise ValueError(f"the description holds {constant}")
