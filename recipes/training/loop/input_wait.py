"""How long a training waits for images: whether it is bound by its input."""

import time

_EVERY = 8  # steps, one of which is timed: the device must have nothing left to do for that
_ENOUGH = 5  # timed steps, to tell something by
_LONG = {"CPU": 0.5}  # share of the time, from which it is told: on a CPU images and network share the cores
_LONG_OTHERWISE = 0.25


class Waiting:
    """Times the steps of a training; before those that are `timed` the device is let finish what it has to do, so that
    a wait is the device's and not the host's, which runs ahead of it.

    alone: whether no other host takes part; where some do, each prepares its own images, without input workers.
    """

    def __init__(self, device: str, alone: bool = True):
        self.device, self.alone, self.told, self._step = device, alone, False, 0
        self._reset()

    @property
    def timed(self) -> bool:
        """Whether the next step's wait counts. The first one's never does: the pipeline fills."""
        return self._step % _EVERY == _EVERY - 1

    def next(self, stream, finish=lambda: None):
        """The next batch.

        finish: waits until the device has nothing left to do; that time is of the step, but no wait for images.
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
        """The step with that batch is done, as far as the host is concerned."""
        self._step += 1
        if self._step > 1:
            self._seconds.append(time.perf_counter() - self._began)

    def verdict(self) -> str:
        """What there is to say of the steps since the last verdict; empty where all is well, or too few were timed."""
        if self.told or len(self._waits) < _ENOUGH:
            return ""
        share = min(1.0, (sum(self._waits) / len(self._waits)) / (sum(self._seconds) / len(self._seconds)))
        self._reset()
        if share < _LONG.get(self.device, _LONG_OTHERWISE):
            return ""
        self.told = True
        if not self.alone:
            return (
                f"the {self.device} waits {share:.0%} of the time for images, which each host reads and augments for "
                "itself: hosts with more cores would help, or smaller images"
            )
        if self.device == "CPU":
            return (
                f"the training waits {share:.0%} of the time for images, which are read and augmented on the same "
                "machine: input_workers on other machines would help, or smaller images"
            )
        return f"the {self.device} waits {share:.0%} of the time for images: raise input_workers"

    def _reset(self) -> None:
        self._waits, self._seconds = [], []
