"""Measure the share of the time in which a training waits for images."""

import time
from collections.abc import Callable, Iterator
from typing import Any

_EVERY = 8  # One step in so many is timed, because timing makes the device finish all earlier work.
_ENOUGH = 5  # number of timed steps that a verdict needs
_LONG = {"CPU": 0.5}  # share of the time above which waiting is reported; on a CPU, images and network share the cores
_LONG_OTHERWISE = 0.25


class InputWait:
    """Measure how long the steps of a training wait for images.

    Before a timed step, the device finishes all earlier work. Otherwise the host's wait would be measured, and the host
    runs ahead of the device.

    Args:
        device: Kind of device that trains.
        alone: Whether this is the only host. Several hosts prepare their own images, without input workers.

    Attributes:
        reported: Whether a verdict has been given.
    """

    def __init__(self, device: str, alone: bool = True) -> None:
        self.device, self.alone, self.reported = device, alone, False
        self._step, self._began = 0, 0.0
        self._waits: list[float] = []
        self._seconds: list[float] = []

    @property
    def timed(self) -> bool:
        """Return whether the next step's wait is timed; the first step's is not, because the pipeline still fills."""
        return self._step % _EVERY == _EVERY - 1

    def next(self, stream: Iterator, finish: Callable[[], None] = lambda: None) -> Any:
        """Return the next batch.

        Args:
            stream: The batches.
            finish: A function that waits until the device is idle. This time is not counted as waiting for images.
        """
        self._began = began = time.perf_counter()
        if self.timed:
            finish()
            began = time.perf_counter()
        batch = next(stream)
        if self.timed:
            self._waits.append(time.perf_counter() - began)
        return batch

    def stepped(self) -> None:
        """Record that the host has finished the step with the last batch."""
        self._step += 1
        if self._step > 1:
            self._seconds.append(time.perf_counter() - self._began)

    def verdict(self) -> str:
        """Return a warning if the steps since the last verdict waited long; "" if not, or after too few timed steps."""
        if self.reported or len(self._waits) < _ENOUGH:
            return ""
        share = min(1.0, (sum(self._waits) / len(self._waits)) / (sum(self._seconds) / len(self._seconds)))
        self._waits, self._seconds = [], []
        if share < _LONG.get(self.device, _LONG_OTHERWISE):
            return ""
        self.reported = True
        if not self.alone:
            return (
                f"the {self.device} waits {share:.0%} of the time for images that each host reads and augments: use "
                f"hosts with more cores, or smaller images"
            )
        if self.device == "CPU":
            return (
                f"the training waits {share:.0%} of the time for images that this machine reads and augments: use "
                f"input_workers on other machines, or smaller images"
            )
        return f"the {self.device} waits {share:.0%} of the time for images: use more input_workers"
