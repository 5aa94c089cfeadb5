"""Handle SIGINT and SIGTERM during a training: save its state after the current step, then end the process."""

import os
import signal
import threading
from types import FrameType
from typing import Any, NoReturn, Self


class Stop:
    """Record the first signal inside `with` as `number`; a second signal has its usual effect."""

    def __init__(self) -> None:
        self.number: int | None = None
        self._before: dict[int, Any] = {}

    def __enter__(self) -> Self:
        if threading.current_thread() is threading.main_thread():
            for number in (signal.SIGINT, signal.SIGTERM):
                before = signal.getsignal(number)
                if before not in (signal.SIG_IGN, None):
                    self._before[number] = signal.signal(number, self._note)
        return self

    def __exit__(self, *error: object) -> None:
        self._restore()

    def _note(self, number: int, frame: FrameType | None) -> None:
        self.number = number
        self._restore()
        os.write(2, b"\nstopping after this step; a second signal stops at once\n")

    def _restore(self) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)
        self._before = {}

    def leave(self) -> NoReturn:
        """Raise the exception for the recorded signal: KeyboardInterrupt or SystemExit."""
        if self.number == signal.SIGINT:
            raise KeyboardInterrupt
        raise SystemExit(128 + (self.number or 0))
