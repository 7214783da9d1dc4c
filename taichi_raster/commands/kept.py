"""What a run of `fit` has found so far, in files from which another run goes on."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import Any

from rich.console import Console

from taichi_raster.commands import fingerprints
from taichi_raster.fitting import checkpoint

_ANY = ("folder", "out", "resume", "texture")
"""Settings that no part follows from. What is in the folder counts, not how it is called."""

_LATER = {
    "cameras": ("texture_size", "face_count", "steps", "cells"),
    "shape": ("texture_size",),
    "texture": (),
}
"""Settings that a part does not follow from, as they are of later ones."""


class Kept:
    """What a run has found so far, in its folder, with what each part follows from.

    That is its settings, and what it was made of, by fingerprints.
    """

    def __init__(
        self, folder: Path, resume: bool, settings: dict[str, Any], console: Console
    ) -> None:
        self.folder, self.resume, self.console = folder, resume, console
        self.settings = {
            name: list(value) if isinstance(value, tuple) else value
            for name, value in settings.items()
            if name not in _ANY
        }

    def read(self, part: str, given: dict[str, str]) -> dict[str, Any] | None:
        """None if it is to be found anew; where a file is of something else, it says of what."""
        path = self._path(part)
        if not (self.resume and path.is_file()):
            return None
        try:
            found = checkpoint.read(path, self._settings(part))
            different = fingerprints.changes(found.get("given", {}), given)
            if different:
                raise ValueError(f"since {path} was written: {different}")
        except ValueError as error:
            self.console.print(f"{part}: found anew; {error}", highlight=False)
            return None
        self.console.print(f"{part}: from {path}", highlight=False)
        return found

    def write(self, part: str, state: dict[str, Any], given: dict[str, str]) -> None:
        """Replaces the file as a whole."""
        content = {"settings": self._settings(part), "given": given, **state}
        checkpoint.write(self._path(part), content)

    def _path(self, part: str) -> Path:
        return self.folder / f"{part}.pt"

    def _settings(self, part: str) -> dict[str, Any]:
        return {k: v for k, v in self.settings.items() if k not in _LATER[part]}


def plain(settings: Any) -> dict[str, Any]:
    """Settings as JSON has them."""
    return {
        name: str(value) if isinstance(value, Path) else value
        for name, value in asdict(settings).items()
    }
