"""Progress of a job: the library opens phases, and on a terminal one line at the bottom shows the current phase."""

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
        title: Name of the work, such as "training".
        total: Number of units of work; None if it is unknown.
        unit: Noun for the units, such as "images".
        done: Number of finished units.
        note: Further text about the phase, such as "epoch 3 of 12".
        began: Time of `time.monotonic()` at which the phase began, in seconds.
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
        """Add to the number of finished units."""
        self.update(self.done + count)

    def update(self, done: int) -> None:
        """Set the number of finished units.

        The speed is measured from the first call on. Earlier work, such as compiling, or epochs of an earlier process,
        does not predict the remaining time.
        """
        self.done, self._last = done, time.monotonic()
        if self._first is None:
            self._first = self._last, done

    def pace(self) -> float | None:
        """Return the seconds per unit so far; None if no unit has been measured."""
        if self._first is None or self.done <= self._first[1]:
            return None
        began, first = self._first
        return (self._last - began) / (self.done - first)


_phases: list[Phase] = []  # the open phases, from the whole job to its innermost part
_watched = False  # whether a terminal shows the phases, see `watched`
_live: Live | None = None


@contextmanager
def phase(title: str, total: int | None = None, unit: str = "images") -> Iterator[Phase]:
    """Open a phase for the duration of a block; phases may be nested."""
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
    """Show the phases that are opened inside the block, if `on` is true and the error stream is a terminal."""
    global _watched
    before, _watched = _watched, on and sys.stderr.isatty()
    try:
        yield
    finally:
        _watched = before


def advance(unit: str) -> None:
    """Count one unit in the innermost open phase with this unit, if there is one."""
    for each in reversed(_phases):
        if each.unit == unit:
            each.advance()
            return


def remaining(phases: Sequence[Phase]) -> float | None:
    """Return the remaining seconds of nested phases, from outer to inner, at their speed so far; None if unknown.

    Each future unit of an outer phase is assumed to take as long as its units so far. Without finished units, it is
    assumed to take as long as the inner phase.
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
    """Return the line that shows the phases: titles, progress bar, remaining time and elapsed time."""
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
    """Measures the wall-clock seconds of phases: `with clock("audit"): …`. Each phase is logged when it ends."""

    def __init__(self) -> None:
        self.seconds: dict[str, float] = {}

    @contextmanager
    def __call__(self, name: str) -> Iterator[Phase]:
        with phase(name) as current:
            yield current
            self.seconds[name] = current.seconds
        logger.info(f"{name + ':':<{_NAME}} {current.note + ', ' if current.note else ''}{current.seconds:.1f} s")
