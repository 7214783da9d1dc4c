"""The log of a training: one JSON object an iteration, and the same numbers for TensorBoard."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from meta.outer.checkpoint import write_atomically


class TrainingLog:
    """One JSON object a line, one line an iteration, in memory too. No file if path is None."""

    def __init__(self, path: Path | None):
        self.path = path
        self.entries: list[dict[str, Any]] = []

    def append(self, entry: dict[str, Any]) -> None:
        """Add the entry of the next iteration."""
        self.entries.append(entry)
        if self.path is not None:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            with open(self.path, "a") as file:
                file.write(json.dumps(entry) + "\n")

    def restore(self, iteration: int) -> None:
        """Read the file up to `iteration`; later lines and a truncated one are dropped."""
        if self.path is None or not self.path.is_file():
            return
        self.entries = []
        for line in self.path.read_text().splitlines():
            try:
                entry = json.loads(line)
            except json.JSONDecodeError:
                break
            if entry["iteration"] > iteration:
                break
            self.entries.append(entry)
        text = "".join(json.dumps(entry) + "\n" for entry in self.entries)
        write_atomically(self.path, text.encode())


class Board:
    """Writes the numbers of the log for TensorBoard to a folder; nothing if `folder` is None."""

    def __init__(self, folder: Path | None, iteration: int = 0):
        self._writer: Any = None
        if folder is None:
            return
        try:
            from torch.utils.tensorboard import SummaryWriter
        except ImportError as error:
            raise ImportError(
                "tensorboard: the package is missing; pip install 'taichi-raster[tensorboard]', or "
                "train with tensorboard=False (the log has the same numbers)"
            ) from error
        self._writer = SummaryWriter(str(folder), purge_step=iteration + 1)

    def append(self, entry: Mapping[str, Any]) -> None:
        """Write the numbers of a log entry, those of a nested entry as "entry/name"."""
        if self._writer is None:
            return
        flat = {k: v for k, v in entry.items() if isinstance(v, int | float)}
        for part, values in entry.items():
            if isinstance(values, Mapping):
                flat |= {f"{part}/{name}": value for name, value in values.items()}
        for name, value in flat.items():
            if name != "iteration":
                self._writer.add_scalar(name, value, entry["iteration"])
        self._writer.flush()

    def close(self) -> None:
        """Finish the file."""
        if self._writer is not None:
            self._writer.close()
