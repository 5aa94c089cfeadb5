"""Locks between processes, so that only one process at a time writes to a folder."""

import os
import socket
from contextlib import suppress
from pathlib import Path

from filelock import FileLock, Timeout

from recipes.errors import OutputError

HOLDER_SUFFIX = "-holder"


class ProcessLock:
    """A lock that one process holds until it releases it or ends.

    The operating system releases the lock when the process ends, even if it is killed, so a leftover lock file does not
    block. The holder is written to a second file, because Windows does not allow other processes to read a locked file.

    Args:
        path: The lock file. It is created if it does not exist.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._lock = FileLock(path, timeout=0, thread_local=False)
        self._holder_file = path.with_name(path.name + HOLDER_SUFFIX)

    def acquire(self) -> bool:
        """Try to take the lock, without waiting, and return whether that succeeded.

        Raises:
            OutputError: If the file cannot be created or locked.
        """
        try:
            self._lock.acquire()
        except Timeout:
            return False
        except (OSError, NotImplementedError) as error:
            reason = getattr(error, "strerror", None) or error
            raise OutputError(
                f"{self.path.parent} cannot be locked: {reason}; choose another folder",
                code="output.cannot_lock",
                path=self.path,
            ) from error
        return True

    def write_holder(self) -> None:
        """Write this process down as the holder, so that messages of other processes can name it."""
        with suppress(OSError):  # the lock works without this file
            self._holder_file.write_text(f"pid {os.getpid()} on {socket.gethostname()}", encoding="utf-8")

    def holder(self) -> str:
        """Return the process that holds the lock, as "pid 12 on host", or "unknown" if it is not recorded."""
        with suppress(OSError, UnicodeDecodeError), self._holder_file.open(encoding="utf-8") as file:
            return file.read(300) or "unknown"
        return "unknown"

    def release(self, *, delete: bool = False) -> None:
        """Release the lock if this process holds it, and remove its file if `delete`."""
        if not self._lock.is_locked:
            return
        with suppress(OSError):
            self._holder_file.unlink()
        with suppress(OSError):  # Windows refuses to remove an open file; on Windows, filelock removes it on release
            if delete:
                self.path.unlink()
        self._lock.release()
