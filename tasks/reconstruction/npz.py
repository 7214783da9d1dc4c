"""Memory-map the array of an .npz file, without trusting the file.

An .npz is a zip archive of .npy files. An uncompressed member can be memory-mapped in place. A
compressed one has to be unpacked first, which takes space, and is done only where that is allowed.
Nothing is ever unpickled.
"""

from __future__ import annotations

import os
import shutil
import struct
import zipfile
import zlib
from dataclasses import dataclass
from pathlib import Path
from typing import IO

import numpy as np

_CHUNK = 1 << 22
_LOCAL_HEADER = 30  # bytes, before the member's name


class DataFileError(ValueError):
    """A data file that cannot be used; the message names it and says what is wrong."""


@dataclass(frozen=True)
class Member:
    """An array in an archive.

    Attributes:
        path, name: the archive, and the member's name in it.
        shape, dtype, fortran: of the array.
        header: bytes of the .npy header.
        offset: of the member's data in the archive; None if it is compressed.
    """

    path: Path
    name: str
    shape: tuple[int, ...]
    dtype: np.dtype
    fortran: bool
    header: int
    offset: int | None

    @property
    def nbytes(self) -> int:
        """Bytes of the array."""
        return int(np.prod(self.shape, dtype=np.int64)) * self.dtype.itemsize


def find_member(path: Path) -> Member:
    """The array of an .npz file, its only member or the one called arr_0.

    Raises:
        FileNotFoundError: if there is no such file.
        DataFileError: if it is truncated, not a zip archive, holds another number of arrays, or an
            array of Python objects (which would have to be unpickled).
    """
    path = Path(path)
    if not path.is_file():
        raise FileNotFoundError(f"{path}: there is no such file")
    try:
        with zipfile.ZipFile(path) as archive:
            entries = [entry for entry in archive.infolist() if entry.filename.endswith(".npy")]
            named = [entry for entry in entries if entry.filename == "arr_0.npy"] or entries
            if len(named) != 1:
                names = ", ".join(entry.filename for entry in entries) or "none"
                raise DataFileError(f"{path}: expected one array, arr_0; found {names}")
            return _inspect(path, archive, named[0])
    except (zipfile.BadZipFile, EOFError, zlib.error, OSError, struct.error) as error:
        raise DataFileError(
            f"{path}: is truncated or not an .npz archive ({error}); get the file again"
        ) from error


def open_array(
    path: Path, cache: Path | None = None, in_memory: bool = False, wanted: str = "array"
) -> np.ndarray:
    """The array of an .npz file, read-only and, if possible, memory-mapped.

    Args:
        path: the .npz file.
        cache: folder into which a compressed array is unpacked once, as a file of its own.
        in_memory: whether to unpack it into memory instead, each time.
        wanted: the array's name in errors.

    Raises:
        FileNotFoundError: if there is no such file.
        DataFileError: for a damaged file (see `find_member`), or a compressed one where neither
            `cache` nor `in_memory` allows unpacking it; the message says how much space that takes.
    """
    member = find_member(path)
    if member.offset is not None:
        return _mapped(member, member.path, member.offset + member.header)
    if in_memory:
        data = bytearray()
        _unpack(member, data.extend)
        flat = np.frombuffer(data, dtype=member.dtype, offset=member.header)
        array = flat.reshape(member.shape, order="F" if member.fortran else "C")
        array.flags.writeable = False
        return array
    if cache is None:
        size = f"{member.nbytes / 1e9:.2f} GB"
        raise DataFileError(
            f"{member.path}: the {wanted} in it is compressed; to use it, name a folder with "
            f"{size} of space where it may be unpacked (cache), or let it be unpacked into as much "
            "memory (in_memory)"
        )
    return _cached(member, Path(cache))


def check_integrity(path: Path) -> None:
    """Read the whole archive and compare its checksum; DataFileError if it is damaged."""
    find_member(path)
    with zipfile.ZipFile(path) as archive:
        try:
            broken = archive.testzip()
        except (zlib.error, EOFError, zipfile.BadZipFile) as error:
            raise DataFileError(f"{path}: is damaged ({error}); get the file again") from error
    if broken is not None:
        raise DataFileError(f"{path}: {broken} in it is damaged; get the file again")


def _inspect(path: Path, archive: zipfile.ZipFile, entry: zipfile.ZipInfo) -> Member:
    if entry.flag_bits & 1:
        raise DataFileError(f"{path}: {entry.filename} in it is encrypted")
    with archive.open(entry) as file:
        shape, fortran, dtype, header = _read_header(path, file)
    if dtype.hasobject:
        raise DataFileError(
            f"{path}: holds Python objects, which would have to be unpickled; that is refused, as "
            "unpickling can run any program: save the array with a plain dtype"
        )
    expected = header + int(np.prod(shape, dtype=np.int64)) * dtype.itemsize
    if entry.file_size != expected:
        raise DataFileError(
            f"{path}: is truncated: an array of shape {shape} in {dtype} takes {expected} bytes, "
            f"{entry.filename} in it has {entry.file_size}"
        )
    offset = None
    if entry.compress_type == zipfile.ZIP_STORED:
        offset = _data_offset(path, entry)
        if offset + entry.file_size > path.stat().st_size:
            raise DataFileError(f"{path}: is truncated: {entry.filename} in it goes past its end")
    return Member(path, entry.filename, shape, dtype, fortran, header, offset)


def _read_header(path: Path, file: IO[bytes]) -> tuple[tuple[int, ...], bool, np.dtype, int]:
    try:
        version = np.lib.format.read_magic(file)
        if version == (1, 0):
            shape, fortran, dtype = np.lib.format.read_array_header_1_0(file)
        elif version == (2, 0):
            shape, fortran, dtype = np.lib.format.read_array_header_2_0(file)
        else:
            raise ValueError(f"version {version} of the .npy format is not known here")
    except ValueError as error:
        raise DataFileError(f"{path}: does not hold a numpy array ({error})") from error
    return shape, fortran, dtype, file.tell()


def _data_offset(path: Path, entry: zipfile.ZipInfo) -> int:
    """Where a member's data begins: after its local header, whose length is in itself."""
    with open(path, "rb") as file:
        file.seek(entry.header_offset)
        head = file.read(_LOCAL_HEADER)
    if len(head) < _LOCAL_HEADER or head[:4] != b"PK\x03\x04":
        raise DataFileError(f"{path}: is damaged: no local header of {entry.filename}")
    name, extra = struct.unpack("<HH", head[26:30])
    return entry.header_offset + _LOCAL_HEADER + name + extra


def _mapped(member: Member, path: Path, offset: int) -> np.ndarray:
    if member.nbytes == 0:
        return np.zeros(member.shape, member.dtype)
    order = "F" if member.fortran else "C"
    return np.memmap(path, member.dtype, "r", offset, member.shape, order)  # type: ignore[call-overload]


def _cached(member: Member, folder: Path) -> np.ndarray:
    """The unpacked array, from its own file; made under another name, and then renamed."""
    stat = member.path.stat()
    with zipfile.ZipFile(member.path) as archive:
        crc = archive.getinfo(member.name).CRC
    target = folder / f"{member.path.stem}.{stat.st_size:x}.{crc:08x}.npy"
    whole = member.header + member.nbytes
    if not (target.is_file() and target.stat().st_size == whole):
        folder.mkdir(parents=True, exist_ok=True)
        free = shutil.disk_usage(folder).free
        if free < whole:
            raise DataFileError(
                f"{member.path}: takes {whole / 1e9:.2f} GB unpacked; {folder} has "
                f"{free / 1e9:.2f} GB left"
            )
        temporary = target.with_name(f".{target.name}.{os.getpid()}.tmp")
        try:
            with open(temporary, "wb") as file:
                _unpack(member, file.write)
                file.flush()
                os.fsync(file.fileno())
            os.replace(temporary, target)
        finally:
            temporary.unlink(missing_ok=True)
    return _mapped(member, target, member.header)


def _unpack(member: Member, write) -> None:  # type: ignore[no-untyped-def]
    """The member's bytes in pieces; zipfile compares the checksum at the end."""
    try:
        with zipfile.ZipFile(member.path) as archive, archive.open(member.name) as file:
            while piece := file.read(_CHUNK):
                write(piece)
    except (zipfile.BadZipFile, zlib.error, EOFError) as error:
        raise DataFileError(f"{member.path}: is damaged ({error}); get the file again") from error
