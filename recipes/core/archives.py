"""Zip archives (.keras, .npz) from anybody: known members only, and no more memory than their size warrants."""

import math
import zipfile
from pathlib import Path

import numpy as np

from recipes.errors import UnsafeFileError

EXPANSION, FLOOR = 50, 2**26  # bytes unpacked: at most 50 times those stored, and 64 MiB


def allowance(stored: int) -> int:
    """How many bytes may come of `stored` ones."""
    return EXPANSION * stored + FLOOR


def open_archive(path: Path) -> zipfile.ZipFile:
    """The archive, when all of it may be unpacked.

    Raises: UnsafeFileError for what is no zip file, for members that occur twice, are encrypted, or have a path, and
        for a decompression bomb; OSError when it cannot be read.
    """
    try:
        archive = zipfile.ZipFile(path)
    except zipfile.BadZipFile as error:
        raise UnsafeFileError(f"{path} is damaged or no archive: {error}") from error
    members = archive.infolist()
    names = [member.filename for member in members]
    stored, unpacked = path.stat().st_size, sum(member.file_size for member in members)
    for wrong, reason in (
        (len(set(names)) < len(names), "has members of one name"),
        (any(member.flag_bits & 1 for member in members), "is encrypted"),
        (any("/" in name or "\\" in name or name.startswith(".") for name in names), "has members in other folders"),
        (unpacked > allowance(stored), f"unpacks from {stored:,} to {unpacked:,} bytes"),
    ):
        if wrong:
            archive.close()
            raise UnsafeFileError(f"{path} {reason}; it is refused")
    return archive


def load_arrays(path: Path) -> dict[str, np.ndarray]:
    """All arrays of an .npz file, numbers and text only.

    Raises: UnsafeFileError as `open_archive` does, for arrays of Python objects, and for one whose declared shape is
        not what is stored.
    """
    try:
        with open_archive(path) as archive:
            for member in archive.infolist():
                _check_array(path, archive, member)
        with np.load(path, allow_pickle=False) as arrays:
            return {name: arrays[name] for name in arrays.files}
    except UnsafeFileError:
        raise
    except Exception as error:  # zipfile, zlib, NumPy and the decoding of text have half a dozen of their own
        raise UnsafeFileError(f"{path} is damaged: {type(error).__name__}: {error}") from error


def _check_array(path: Path, archive: zipfile.ZipFile, member: zipfile.ZipInfo) -> None:
    """NumPy allocates what the header declares before it reads."""
    with archive.open(member) as file:
        version = np.lib.format.read_magic(file)
        read = np.lib.format.read_array_header_1_0 if version == (1, 0) else np.lib.format.read_array_header_2_0
        shape, _, dtype = read(file)
        size = math.prod(shape) * dtype.itemsize
        if dtype.hasobject or min(shape, default=0) < 0 or size != member.file_size - file.tell():
            raise UnsafeFileError(
                f"{path}: {member.filename} declares {dtype} {shape}, and has {member.file_size:,} bytes; it is refused"
            )
