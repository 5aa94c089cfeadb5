"""benchmarks/RESULTS.md is what rows and notes make; every benchmark has rows; docs/performance.md is one page."""

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
SCRIPTS = ROOT / "scripts"
BENCHMARKS = sorted(SCRIPTS.glob("benchmark_*.py"))


@pytest.fixture
def results(monkeypatch):
    monkeypatch.syspath_prepend(str(SCRIPTS))
    import make_results

    return make_results


def test_the_results_are_what_rows_and_notes_make(results):
    assert results.PAGE.read_text("utf-8") == results.page(), "run python scripts/make_results.py"


@pytest.mark.parametrize("script", [*BENCHMARKS, SCRIPTS / "reproduce_lecture.py"], ids=lambda path: path.stem)
def test_every_benchmark_takes_the_option_and_has_rows(results, script):
    assert "add_option(parser)" in script.read_text("utf-8")
    assert [row for row in results.read() if script.name in row.command]


def test_the_commands_of_the_rows_name_scripts_that_exist(results):
    named = {script for row in results.read() for script in re.findall(r"scripts/\w+(?:\.py)?", row.command)}
    assert [script for script in sorted(named) if not (ROOT / script).exists()] == []


def test_every_note_belongs_to_a_benchmark(results):
    notes = {path.stem for path in (ROOT / "benchmarks" / "notes").glob("*.md")}
    assert notes - {row.benchmark for row in results.read()} == set()


def test_the_conclusions_fit_one_page():
    assert len((ROOT / "docs" / "performance.md").read_text("utf-8").splitlines()) <= 100
