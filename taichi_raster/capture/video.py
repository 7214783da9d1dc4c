"""The frames of a video file, one by one."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import UInt8

from taichi_raster import checks

MISSING = 3
"""Frames that a header may count beyond those that there are: some encoders count generously."""


def read_video(
    path: str | os.PathLike[str], every: int = 1
) -> Iterator[UInt8[np.ndarray, "H W 3"]]:
    """The frames of a video file, (H, W, 3) uint8 each, in order, read as they are asked for.

    It needs PyAV, which brings FFmpeg's decoders: pip install 'taichi-raster[video]'. Rotations
    that a telephone writes beside the frames are not applied.

    Args:
        path: a file that FFmpeg reads: MP4, MOV, WebM, AVI, GIF.
        every: take the first of so many frames.

    Raises:
        FileNotFoundError, ImportError, TypeError, ValueError: at once, naming the file; if it is no
            video or has no frame, too. ValueError after the last frame that could be read, if the
            file is broken or ends early.

    Example:
        >>> for frame in tr.read_video("box.mp4"):
        ...     print(frame.shape)
    """
    path = checks.path("path", path)
    checks.count("every", every)
    if not path.is_file():
        raise FileNotFoundError(f"{path}: there is no such video")
    av = _av()
    try:
        file = av.open(str(path))
    except (av.FFmpegError, ValueError, OSError) as error:
        raise ValueError(f"{path}: is no video that FFmpeg reads, or is cut off: {error}") from None
    if not file.streams.video:
        file.close()
        raise ValueError(f"{path}: has no video in it")
    return _frames(path, file, every, av.FFmpegError)


def _frames(path: Path, file: Any, every: int, broken: type[Exception]) -> Iterator[Any]:
    with file:
        stream = file.streams.video[0]
        declared = stream.frames  # 0 where the header does not say
        count = 0
        try:
            for frame in file.decode(stream):
                if count % every == 0:
                    yield frame.to_ndarray(format="rgb24")
                count += 1
        except broken as error:
            said = f" of {declared}" if declared else ""
            raise ValueError(f"{path}: ends early, after frame {count}{said}: {error}") from None
        if count + MISSING < declared or count == 0:
            raise ValueError(f"{path}: ends early, after frame {count} of {declared}")


def _av() -> Any:
    try:
        import av
    except ImportError as error:
        raise ImportError("a video needs PyAV: pip install 'taichi-raster[video]'") from error
    return av
