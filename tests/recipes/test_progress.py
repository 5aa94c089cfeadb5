"""Phases of a job: what is left of it, and what is shown."""

import io
import logging
import sys

import pytest

from recipes.core import progress
from recipes.core.output import safe_output
from recipes.core.progress import Clock, advance, phase, remaining, watched


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


@pytest.fixture
def clock(monkeypatch):
    """A list whose only number is the time."""
    now = [100.0]
    monkeypatch.setattr(progress.time, "monotonic", lambda: now[0])
    return now


def test_the_pace_is_measured_from_the_first_unit_on(clock):
    with phase("training", 10) as current:
        clock[0] += 50  # compiling
        assert current.pace() is None and remaining([current]) is None
        current.advance()
        clock[0] += 2
        current.advance()
        assert current.pace() == 2 and remaining([current]) == 16
        clock[0] += 3
        assert remaining([current]) == 13 and current.seconds == 55


def test_what_is_left_includes_the_units_of_outer_phases(clock):
    with phase("search", 3, "trials") as trials, phase("", 4) as steps:
        assert remaining([trials, steps]) is None
        steps.advance()
        clock[0] += 1
        steps.advance()
        assert remaining([trials, steps]) == 2 + 2 * (1 + 2)  # two more trials like this one
        advance("trials")
        assert trials.done == 1
        advance("epochs")  # nobody counts them


def test_a_resumed_phase_starts_where_it_was(clock):
    with phase("", 100) as current:
        current.done = 90
        current.update(91)
        clock[0] += 1
        current.update(92)
        assert remaining([current]) == 8


def test_phases_of_a_job_are_logged(caplog):
    clock = Clock()
    with safe_output(0), clock("audit") as current:
        current.note = "3 images"
    assert [record.getMessage() for record in caplog.records] == ["audit:      3 images, 0.0 s"]
    assert list(clock.seconds) == ["audit"]
    with pytest.raises(ValueError, match="broken"), clock("probe"):
        raise ValueError("broken")
    assert len(caplog.records) == 1 and not progress._phases


def test_a_bar_is_shown_at_a_terminal_and_goes_away(monkeypatch):
    terminal = Terminal()
    monkeypatch.setattr(sys, "stderr", terminal)
    with watched(True), phase("finetune"), phase("training", 4) as current:
        current.note = "epoch 1 of 2"
        current.update(1)
        progress._live.refresh()
        logging.getLogger("recipes").info("between")
    shown = terminal.getvalue()
    assert "training · epoch 1 of 2  ━━━━━╌" in shown and " 25%" in shown and progress._live is None
    terminal.truncate(0)
    with watched(False), phase("finetune"):
        pass
    assert terminal.getvalue() == ""
