"""Read zip archives (.keras, .npz) of unknown origin with bounded memory."""

import math
import zipfile
from pathlib import Path

import numpy as np

from recipes.errors import UnsafeFileError

EXPANSION, FLOOR = 50, 2**26  # unpacked bytes may be 64 MiB plus 50 times the stored bytes


def allowance(stored: int) -> int:
    """Return the number of bytes that an archive of `stored` bytes may unpack to."""
    return EXPANSION * stored + FLOOR


def open_archive(path: Path) -> zipfile.ZipFile:
    """Open an archive after checking that all its members are safe to unpack.

    Args:
        path: The file.

    Returns:
        The open archive.

    Raises:
        UnsafeFileError: If the file is not a zip archive, has duplicate, encrypted or nested members, or is a
            decompression bomb.
        OSError: If the file cannot be read.
    """
    try:
        archive = zipfile.ZipFile(path)
    except zipfile.BadZipFile as error:
        raise UnsafeFileError(
            f"{path} is damaged or is not a zip archive: {error}", code="archive.damaged", path=path
        ) from error
    members = archive.infolist()
    names = [member.filename for member in members]
    stored, unpacked = path.stat().st_size, sum(member.file_size for member in members)
    for wrong, reason in (
        (len(set(names)) < len(names), "has several members of the same name"),
        (any(member.flag_bits & 1 for member in members), "is encrypted"),
        (any("/" in name or "\\" in name or name.startswith(".") for name in names), "has members in folders"),
        (unpacked > allowance(stored), f"unpacks from {stored:,} to {unpacked:,} bytes"),
    ):
        if wrong:
            archive.close()
            raise UnsafeFileError(f"{path} {reason}; it is rejected.", code="archive.unsafe", path=path, reason=reason)
    return archive


def load_arrays(path: Path) -> dict[str, np.ndarray]:
    """Return all arrays of an .npz file, which may only contain numbers and text.

    Args:
        path: The file.

    Returns:
        The arrays by name.

    Raises:
        UnsafeFileError: If `open_archive` rejects the file, an array holds Python objects, or the declared shape of an
            array does not match its stored bytes.
    """
    try:
        with open_archive(path) as archive:
            for member in archive.infolist():
                _check_array(path, archive, member)
        with np.load(path, allow_pickle=False) as arrays:
            return {name: arrays[name] for name in arrays.files}
    except UnsafeFileError:
        raise
    except Exception as error:  # zipfile, zlib, NumPy and text decoding raise many types
        raise UnsafeFileError(
            f"{path} is damaged: {type(error).__name__}: {error}", code="archive.damaged", path=path
        ) from error


def _check_array(path: Path, archive: zipfile.ZipFile, member: zipfile.ZipInfo) -> None:
    """Check the header of an array, because NumPy allocates the declared size before it reads the data."""
    with archive.open(member) as file:
        version = np.lib.format.read_magic(file)
        read = np.lib.format.read_array_header_1_0 if version == (1, 0) else np.lib.format.read_array_header_2_0
        shape, _, dtype = read(file)
        size = math.prod(shape) * dtype.itemsize
        if dtype.hasobject or min(shape, default=0) < 0 or size != member.file_size - file.tell():
            raise UnsafeFileError(
                f"{path}: {member.filename} declares {dtype} {shape} but has {member.file_size:,} bytes; rejected.",
                code="archive.unsafe", path=path, member=member.filename, declared=str(dtype), shape=shape,
            )  # fmt: skip
