"""scripts/measurements.py and make_results.py: rows, their verdicts, and the page that is made of them."""

import json
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest

SCRIPTS = Path(__file__).resolve().parents[2] / "scripts"


@pytest.fixture
def measurements(monkeypatch):
    monkeypatch.syspath_prepend(str(SCRIPTS))
    import measurements

    return measurements


@pytest.fixture
def results(measurements):
    import make_results

    return make_results


@pytest.fixture
def row(measurements):
    """A measurement of 0.79 with the target ≤ 0.8 and the limit 0.75."""
    machine = measurements.Machine("a CPU", 2, 24.0, "Linux", "3.11", {"keras": "3.15"})
    state = measurements.State(others=0.01, load=(0.1, 1.0))
    return measurements.Row(
        "layers", "with | without", 0.79, "×", "python scripts/benchmark_layers.py", "2026-11-25", machine, state,
        details={"with, ms": 710}, at_most=0.8, limit=0.75, limit_text="three quarters",
    )  # fmt: skip


def test_a_row_survives_its_file(measurements, row):
    both = replace(row, interval=(0.7, 0.85), state=measurements.State(recorded="idle"))
    assert [measurements.row(each.text()) for each in (row, both)] == [row, both]
    unmeasured = replace(row, result=None, unit="")
    assert measurements.row(unmeasured.text()) == unmeasured


@pytest.mark.parametrize(
    ("changes", "field"),
    [
        ({"benchmark": "../layers"}, "benchmark"),
        ({"name": ""}, "name"),
        ({"command": ""}, "command"),
        ({"date": "25 Nov"}, "date"),
        ({"result": float("nan")}, "result"),
        ({"result": "0.79"}, "result"),
        ({"limit": float("inf")}, "limit"),
        ({"at_least": 0.5}, "at_least"),
        ({"interval": (1.0, 0.5)}, "interval"),
    ],
)
def test_a_malformed_row_is_rejected(row, changes, field):
    with pytest.raises(ValueError, match=f"`{field}`"):
        replace(row, **changes)


@pytest.mark.parametrize(
    ("changes", "verdict"),
    [
        ({}, "met"),
        ({"result": 0.8}, "met"),
        ({"result": 0.81}, "**missed**"),
        ({"at_most": None, "at_least": 0.8}, "**missed**"),
        ({"interval": (0.7, 0.85)}, "met, within the interval"),
        ({"at_most": None, "target": "to be stated"}, ""),
        ({"result": None}, ""),
    ],
)
def test_the_verdict_is_computed(results, row, changes, verdict):
    assert results.verdict(replace(row, **changes)) == verdict


def test_the_newest_row_counts_and_the_earlier_ones_are_named(measurements, results, row):
    rows = [replace(row, result=0.9, date="2026-11-26T10:00:00"), row, replace(row, result=0.7, date="2026-11-26")]
    same_day = [replace(row, result=1.0), row]
    assert [each.result for each in measurements.histories(rows)[0]] == [0.9, 0.7, 0.79]
    assert measurements.histories(same_day)[0][0] == row
    assert "earlier: 1 ×, 2026-11-25" in results.cells(same_day[::-1], {str(row.machine): "A"})[5]


def test_the_page_shows_rows_notes_and_what_was_missed(results, row, tmp_path):
    (tmp_path / "rows").mkdir()
    (tmp_path / "notes").mkdir()
    missed = replace(row, name="slow", result=2.0)
    lines = [each.text() for each in (row, missed, replace(row, name="later", result=None))]
    (tmp_path / "rows" / "layers.jsonl").write_text("\n".join(lines), "utf-8")
    (tmp_path / "notes" / "layers.md").write_text("What was tried.\n", "utf-8")
    page = results.page(tmp_path)
    assert "1 of 2 targets are met" in page
    assert "- layers, slow: 2 ×, target ≤ 0.8 ×\n" in page
    assert "Unmeasured:\n\n- layers, later\n" in page
    assert (
        "| with \\| without | 0.79 × | ≤ 0.8 × | met | 0.75 ×; three quarters; the result is 1.053 times this | "
        "with, ms: 710 | 2026-11-25 | A | idle: other processes used 1% of the CPU time, load 0.1 to 1 |" in page
    )
    assert page.endswith("What was tried.\n")


def test_the_state_is_idle_or_busy_by_what_others_used(measurements):
    assert str(measurements.State(0.04)).startswith("idle")
    assert str(measurements.State(0.06)).startswith("busy")
    assert str(measurements.State()) == "not recorded"
    cores = measurements.os.cpu_count()
    before, after = (100.0, 10.0), (100.0 + 10 * cores, 10.0 + 5 * cores)
    assert measurements.others_share(before, after, 10) == 0.5


@pytest.mark.skipif(not Path("/proc/stat").exists(), reason="needs Linux's /proc")
def test_the_time_of_children_is_not_that_of_others(measurements):
    burn = "import time\nwhile time.process_time() < 0.5: pass\nprint(flush=True)\ninput()"
    before = measurements.processor_seconds()
    child = subprocess.Popen([sys.executable, "-c", burn], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    child.stdout.readline()
    alive = measurements.processor_seconds()
    child.communicate("\n")
    ended = measurements.processor_seconds()
    assert alive[1] - before[1] > 0.4
    assert ended[1] >= alive[1]


def test_the_recorder_appends_facts_of_machine_and_run(measurements, tmp_path, monkeypatch):
    arguments = ["small", str(tmp_path / "x"), "--rows", "rows"]
    monkeypatch.setattr(sys, "argv", [str(SCRIPTS / "benchmark_layers.py"), *arguments])
    monkeypatch.delenv("KERAS_BACKEND", raising=False)
    recorder = measurements.Recorder("layers", tmp_path / "new", "XLA")
    recorder.add("pool", 1.23456789, "×", at_most=0.9, details={"with, ms": 1.23456789, "why": "text"})
    recorder.add("later", None)
    first, second = measurements.read(tmp_path / "new")
    assert (first.name, first.result, first.details) == ("pool, XLA", 1.2346, {"with, ms": 1.2346, "why": "text"})
    assert first.command == "python scripts/benchmark_layers.py small x"
    assert first.machine.cores >= 1 and "keras" in first.machine.packages
    assert second.result is None and second.date >= first.date


def test_nothing_is_written_without_the_option(measurements, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    measurements.Recorder("layers", None).add("pool", 1.0, "×")
    assert list(tmp_path.iterdir()) == []


def test_an_outdated_page_is_reported(results, row, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(results, "PAGE", results.ROOT / "benchmarks" / "no_such_page.md")
    assert results.main(["--check"]) == 1
    assert "make_results.py" in capsys.readouterr().out


def test_a_line_of_a_file_is_json(row):
    assert json.loads(row.text())["result"] == 0.79
