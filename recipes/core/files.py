"""Write files atomically, prepare output folders, and write CSV files."""

import csv
import errno
import os
import stat
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path

from recipes.core.limits import MAX_BYTES
from recipes.core.output import printable
from recipes.errors import OutputError


def write_whole(path: Path, write: Callable[[Path], object], older: Path | None = None) -> None:
    """Write a file atomically: write a hidden temporary file beside it, sync it to the disk, then rename it.

    Args:
        path: The file to write.
        write: Function that takes a path and writes the file there.
        older: New name of an existing file at `path`; None replaces that file.

    Raises:
        OSError: If writing fails. The temporary file is deleted.
    """
    temporary = path.with_name(f".new-{path.name}")
    try:
        write(temporary)
        _sync(temporary)
        if older is not None and path.exists():
            os.replace(path, older)
        os.replace(temporary, path)
        _sync(path.parent)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise


def _sync(path: Path) -> None:
    file = os.open(path, os.O_RDONLY)
    try:
        os.fsync(file)
    finally:
        os.close(file)


def size_and_fault(path: str) -> tuple[int, str]:
    """Return the size in bytes of a file of unknown origin, and the reason not to read it, "" if there is none."""
    try:
        status = os.stat(path)
    except OSError as error:
        return 0, f"cannot be read: {error.strerror}"
    except ValueError as error:  # a null byte
        return 0, f"cannot be read: its path is not valid: {error}"
    if not stat.S_ISREG(status.st_mode):  # opening a pipe would block forever
        return 0, "no regular file: it is a pipe, a device or a folder"
    if not os.access(path, os.R_OK):
        return 0, f"cannot be read: {os.strerror(errno.EACCES)}"
    large = status.st_size > MAX_BYTES
    return status.st_size, f"too large: {status.st_size:,} bytes are more than {MAX_BYTES:,}" if large else ""


def check_writable(directory: Path) -> None:
    """Create the folder if necessary and check that files can be created in it.

    Raises:
        OutputError: If the folder or a file in it cannot be created.
    """
    probe = directory / ".writable"
    try:
        directory.mkdir(parents=True, exist_ok=True)
        probe.touch()
        probe.unlink()
    except OSError as error:
        raise unwritable(directory, error) from error


def unwritable(directory: Path, error: OSError, code: str = "output.not_writable") -> OutputError:
    """Return the error for a folder that cannot be written."""
    reason = error.strerror or error
    return OutputError(f"{directory} cannot be written: {reason}; choose another folder", code=code, path=directory)


def check_utf8(path: Path) -> None:
    """Check that a path is valid UTF-8, because TensorFlow cannot open other paths.

    Raises:
                    OutputError: If a part of the path is not valid UTF-8; the message names that part.
    """
    for part in Path(os.path.abspath(path)).parts:
        try:
            part.encode()
        except UnicodeEncodeError as error:
            raise OutputError(
                f"the name {printable(part)!r} in the path of the SavedModel is not valid UTF-8, which TensorFlow "
                "expects; rename that folder, or choose another one",
                code="output.not_utf8", path=path, name=part,
            ) from error  # fmt: skip


def write_csv(
    path: str | os.PathLike, header: Sequence[str], rows: Iterable[Sequence[object]], *, contents: str, code: str
) -> None:
    """Write a table as a CSV file in UTF-8; None is an empty cell.

    Args:
        path: The file. An existing file is only replaced if it begins with the same header.
        header: Names of the columns.
        rows: The cells of each row.
        contents: What the table holds, for messages, such as "findings of an audit".
        code: Beginning of the codes of the errors.

    Raises:
        OutputError: If the file cannot be written, or exists and begins with another header.
    """
    path = Path(path).expanduser()
    try:
        if path.exists() and not path.read_bytes().startswith(",".join(header).encode()):
            raise OutputError(
                f"{path} exists and does not contain {contents}; choose another file",
                code=f"{code}.output_exists",
                path=path,
            )
        with path.open("w", newline="", encoding="utf-8") as file:
            table = csv.writer(file)
            table.writerow(header)
            for row in rows:
                table.writerow("" if cell is None else printable(str(cell)) for cell in row)
    except OSError as error:
        raise OutputError(
            f"{path} cannot be written: {error.strerror}; choose another file", code=f"{code}.output_unwritable",
            path=path,
        ) from error  # fmt: skip
