"""SIGINT and SIGTERM while a training runs: its step is finished and its state is kept before the process ends."""

import os
import signal
import threading


class Stop:
    """Within `with`, the first signal is noted and the second acts as it would have outside."""

    def __init__(self):
        self.number: int | None = None
        self._before = {}

    def __enter__(self):
        if threading.current_thread() is threading.main_thread():
            for number in (signal.SIGINT, signal.SIGTERM):
                before = signal.getsignal(number)
                if before not in (signal.SIG_IGN, None):
                    self._before[number] = signal.signal(number, self._note)
        return self

    def __exit__(self, *error):
        self._restore()

    def _note(self, number, frame):
        self.number = number
        self._restore()
        os.write(2, b"\nstopping after this step; again: at once\n")

    def _restore(self):
        for number, handler in self._before.items():
            signal.signal(number, handler)
        self._before = {}

    def leave(self) -> None:
        """End as the signal that was noted asks."""
        if self.number == signal.SIGINT:
            raise KeyboardInterrupt
        raise SystemExit(128 + self.number)
