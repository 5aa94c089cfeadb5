"""Files that are there whole or not at all, at whatever instant the process or the machine stops."""

import os
from collections.abc import Callable
from pathlib import Path

from recipes.core.output import printable
from recipes.errors import OutputError


def write_whole(path: Path, write: Callable[[Path], object], older: Path | None = None) -> None:
    """`write` to a hidden neighbour of the same ending, synced to the disk, then renamed to `path`.

    older: what the file that is there becomes; None: it is replaced.

    Raises: OSError as `write` does; the neighbour is gone then.
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


def check_writable(directory: Path) -> None:
    """Make the folder; OutputError where that, or a file in it, is impossible."""
    probe = directory / ".writable"
    try:
        directory.mkdir(parents=True, exist_ok=True)
        probe.touch()
        probe.unlink()
    except OSError as error:
        raise OutputError(f"{directory} cannot be written: {error.strerror}; choose another folder") from error


def check_utf8(path: Path) -> None:
    """Check that TensorFlow, which takes paths in UTF-8 alone, can open a path.

    Raises: OutputError naming the part of the path that is not UTF-8.
    """
    for part in Path(os.path.abspath(path)).parts:
        try:
            part.encode()
        except UnicodeEncodeError as error:
            raise OutputError(
                f"the name {printable(part)!r} in the path of the SavedModel is not valid UTF-8, which TensorFlow "
                "expects; rename that folder, or choose another one"
            ) from error
