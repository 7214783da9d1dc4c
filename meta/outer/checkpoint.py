"""Files that are either whole or absent: tensors as safetensors, the rest as JSON beside them.

A file is written under another name, forced to disk and then renamed over the old one. A run that
is killed at any moment leaves the old file or the new one. A digest detects damaged files.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import safetensors
import safetensors.torch
from torch import Tensor, nn


class CheckpointError(ValueError):
    """A checkpoint that cannot be used; the message says why and what to do."""


def write_atomically(path: Path, data: bytes) -> None:
    """Replace the file at `path` by `data`; if that fails, the old file stays."""
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        with open(temporary, "wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)


def save_checkpoint(path: Path, tensors: Mapping[str, Tensor], content: dict[str, Any]) -> None:
    """Write `tensors` and the JSON-serialisable `content` to `path`, atomically."""
    whole = {name: tensor.detach().cpu().clone().contiguous() for name, tensor in tensors.items()}
    text = json.dumps(content, sort_keys=True)
    metadata = {"content": text, "sha256": _digest(whole, text)}
    write_atomically(path, safetensors.torch.save(whole, metadata))


def load_checkpoint(path: Path, kind: str) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """Tensors and content of a checkpoint whose content has the entry "kind" equal to `kind`.

    Raises FileNotFoundError if there is none, CheckpointError if it is damaged or of another kind.
    """
    path = Path(path)
    if not path.is_file():
        raise FileNotFoundError(f"no checkpoint at {path}")
    try:
        with safetensors.safe_open(path, framework="pt") as file:
            metadata = file.metadata() or {}
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    except (safetensors.SafetensorError, OSError, ValueError) as error:
        raise CheckpointError(
            f"{path} is damaged or not a checkpoint ({error}); delete it and start again"
        ) from error
    if "content" not in metadata or "sha256" not in metadata:
        raise CheckpointError(f"{path} is a safetensors file but not a checkpoint of this program")
    if metadata["sha256"] != _digest(tensors, metadata["content"]):
        raise CheckpointError(
            f"{path} is damaged (its contents do not match its digest); delete it and start again"
        )
    content = json.loads(metadata["content"])
    if content.get("kind") != kind:
        raise CheckpointError(
            f"{path}: expected a checkpoint of kind {kind!r}, got {content.get('kind')!r}"
        )
    return tensors, content


def load_json(path: Path, kind: str) -> dict[str, Any]:
    """A JSON object with the entry "kind" equal to `kind`; errors as `load_checkpoint`."""
    path = Path(path)
    if not path.is_file():
        raise FileNotFoundError(f"no file at {path}")
    try:
        content = json.loads(path.read_text())
    except (json.JSONDecodeError, UnicodeDecodeError) as error:
        raise CheckpointError(f"{path} is damaged ({error}); delete it and start again") from error
    if not isinstance(content, dict) or content.get("kind") != kind:
        raise CheckpointError(f"{path}: not a JSON file of kind {kind!r}")
    return content


def save_json(path: Path, content: dict[str, Any]) -> None:
    """Write JSON atomically; floats survive the round trip exactly."""
    write_atomically(path, json.dumps(content).encode())


def require_equal(path: Path, saved: Mapping[str, Any], wanted: Mapping[str, Any]) -> None:
    """Raise CheckpointError, naming each entry that differs, unless both hold the same settings."""
    wanted = json.loads(json.dumps(wanted))
    keys = sorted(saved.keys() | wanted.keys())
    different = [key for key in keys if saved.get(key) != wanted.get(key)]
    if different:
        lines = [f"  {key}: saved {saved.get(key)!r}, now {wanted.get(key)!r}" for key in different]
        raise CheckpointError(
            f"{path} was made with other settings:\n" + "\n".join(lines) + "\n"
            "use the same settings, another folder, or start again without resuming"
        )


def describe(thing: object) -> str:
    """A text that identifies an object across processes: its repr where it defines one."""
    own_repr = type(thing).__repr__ is not object.__repr__
    return repr(thing) if own_repr else f"{type(thing).__module__}.{type(thing).__qualname__}"


def _digest(tensors: Mapping[str, Tensor], text: str) -> str:
    digest = hashlib.sha256(text.encode())
    for name in sorted(tensors):
        tensor = tensors[name]
        digest.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}".encode())
        digest.update(tensor.numpy().tobytes())
    return digest.hexdigest()


def fingerprint(module: nn.Module) -> str:
    """A short digest of a module's repr and parameters, equal across processes."""
    found = hashlib.sha256(re.sub(r" at 0x[0-9a-f]+", "", repr(module)).encode())
    for name, value in module.named_parameters():
        found.update(name.encode() + value.detach().cpu().contiguous().numpy().tobytes())
    return found.hexdigest()[:16]


def checksum(tensors: Mapping[str, Tensor]) -> str:
    """A short digest of tensors."""
    found = hashlib.sha256()
    for name, value in sorted(tensors.items()):
        found.update(name.encode() + value.detach().cpu().contiguous().numpy().tobytes())
    return found.hexdigest()[:16]


def digest(text: str) -> str:
    """A short digest of a text."""
    return hashlib.sha256(text.encode()).hexdigest()[:16]
