"""``taichi-raster COMMAND``: meshes and textures from photos, pictures of meshes."""

from __future__ import annotations

import logging
import sys
import warnings
from collections.abc import Callable, Sequence
from typing import Any, TextIO

import tyro

from taichi_raster.commands import options
from taichi_raster.commands.backends import Backends
from taichi_raster.commands.fit import Fit
from taichi_raster.commands.learn import Learn
from taichi_raster.commands.pose import Pose
from taichi_raster.commands.render import Render
from taichi_raster.commands.texture import Texture
from taichi_raster.commands.track import Track
from taichi_raster.commands.view import View

COMMANDS: dict[str, Callable[..., Any]] = {
    "fit": Fit,
    "texture": Texture,
    "pose": Pose,
    "track": Track,
    "render": Render,
    "view": View,
    "learn": Learn,
    "backends": Backends,
}


def main(arguments: Sequence[str] | None = None) -> int:
    """Run a command; 0 if it did what it is for. What is wrong is said in one line."""
    logging.basicConfig(format="%(message)s")
    command = tyro.extras.subcommand_cli_from_dict(
        COMMANDS, prog="taichi-raster", description=__doc__, args=arguments
    )
    try:
        with warnings.catch_warnings():
            warnings.showwarning = _in_one_line
            options.check(command)
            return int(command.run() or 0)
    except KeyboardInterrupt:
        print("taichi-raster: interrupted", file=sys.stderr)
        return 130
    except (ValueError, OSError, ImportError, MemoryError, RuntimeError) as error:
        print(f"taichi-raster: {error}", file=sys.stderr)
        return 1


def _in_one_line(
    message: Warning | str,
    category: type[Warning],  # noqa: ARG001 - of `warnings.showwarning`
    filename: str,  # noqa: ARG001
    lineno: int,  # noqa: ARG001
    file: TextIO | None = None,
    line: str | None = None,  # noqa: ARG001
) -> None:
    """Say a warning without the place in the code that it comes from."""
    print(f"taichi-raster: {message}", file=file or sys.stderr)


if __name__ == "__main__":
    sys.exit(main())
