"""Progress of a job: the library opens phases, and while a person watches, one line at the bottom shows where it is."""

import logging
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field

from rich.console import Console
from rich.live import Live
from rich.text import Text

logger = logging.getLogger(__name__)

_NAME = len("evaluation:")  # width of the longest name of a logged phase
_BAR = 20  # characters


@dataclass
class Phase:
    """A part of a job.

    Attributes:
        title: What is done, such as "training".
        total: Number of units; None if it is unknown.
        unit: What is counted, such as "images".
        done: Number of units that are done.
        note: What is to be said of the phase, such as "epoch 3 of 12".
        began: Time at which it began, `time.monotonic()` seconds.
    """

    title: str
    total: int | None = None
    unit: str = "images"
    done: int = 0
    note: str = ""
    began: float = field(default_factory=lambda: time.monotonic())
    _first: tuple[float, int] | None = field(default=None, repr=False)
    _last: float = field(default=0.0, repr=False)

    @property
    def seconds(self) -> float:
        """Seconds since the phase began."""
        return time.monotonic() - self.began

    def advance(self, count: int = 1) -> None:
        """Count units that are done."""
        self.update(self.done + count)

    def update(self, done: int) -> None:
        """Set the number of units that are done.

        The pace is measured from the first call on, because work before it (compiling, or what an earlier process did)
        is no measure of what is left.
        """
        self.done, self._last = done, time.monotonic()
        if self._first is None:
            self._first = self._last, done

    def pace(self) -> float | None:
        """Return the seconds per unit so far; None where no unit has been measured."""
        if self._first is None or self.done <= self._first[1]:
            return None
        began, first = self._first
        return (self._last - began) / (self.done - first)


_phases: list[Phase] = []  # from the whole job to its innermost part
_watched = False  # whether a person watches, see `watched`
_live: Live | None = None


@contextmanager
def phase(title: str, total: int | None = None, unit: str = "images") -> Iterator[Phase]:
    """Open a phase for the duration; phases may be nested."""
    global _live
    opened = Phase(title, total, unit)
    _phases.append(opened)
    mine = None
    if _watched and _live is None:
        mine = _live = Live(console=Console(file=sys.stderr), get_renderable=_bar, refresh_per_second=4, transient=True)
        mine.start(refresh=True)
    try:
        yield opened
    finally:
        if mine:
            mine.stop()
            _live = None
        _phases.remove(opened)


@contextmanager
def watched(on: bool) -> Iterator[None]:
    """Show the phases that are opened inside, if `on` and the error stream is a terminal."""
    global _watched
    before, _watched = _watched, on and sys.stderr.isatty()
    try:
        yield
    finally:
        _watched = before


def advance(unit: str) -> None:
    """Count one unit of the innermost open phase that counts such units, if there is one."""
    for each in reversed(_phases):
        if each.unit == unit:
            each.advance()
            return


def remaining(phases: Sequence[Phase]) -> float | None:
    """Return the seconds that nested phases, from outer to inner, need at their pace so far; None while it is unknown.

    A unit of an outer phase that has not begun takes as long as the outer phase's units so far, or else as the inner
    phase will have taken.
    """
    left, whole = None, 0.0
    for each in reversed(phases):
        if each.total is None:
            continue
        units, pace = each.total - each.done, each.pace()
        if left is None:
            if pace is None:
                return None
            left = max(0, units * pace - (time.monotonic() - each._last))
        else:
            left += max(0, units - 1) * (whole if pace is None else pace)
        whole = each.seconds + left
    return left


def _bar() -> Text:
    """Return the line that shows the phases: titles, bar, time left, time spent."""
    phases = list(_phases)
    if not phases:
        return Text()
    parts = [" · ".join(part for each in phases[1:] or phases for part in (each.title, each.note) if part)]
    counted = next((each for each in reversed(phases) if each.total), None)
    if counted and counted.total:
        share = min(counted.done / counted.total, 1)
        full = round(share * _BAR)
        parts.append(f"{'━' * full}{'╌' * (_BAR - full)} {share:.0%}")
        if (left := remaining(phases)) is not None:
            parts.append(f"{_clock(left)} left")
    return Text("  ".join([*parts, f"({_clock(phases[0].seconds)} so far)"]), no_wrap=True, overflow="ellipsis")


def _clock(seconds: float) -> str:
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{rest:02}" if hours else f"{minutes}:{rest:02}"


class Clock:
    """Wall-clock seconds by phase: `with clock("audit"): …`. Each phase is logged when it ends."""

    def __init__(self) -> None:
        self.seconds: dict[str, float] = {}

    @contextmanager
    def __call__(self, name: str) -> Iterator[Phase]:
        with phase(name) as current:
            yield current
            self.seconds[name] = current.seconds
        logger.info(f"{name + ':':<{_NAME}} {current.note + ', ' if current.note else ''}{current.seconds:.1f} s")
