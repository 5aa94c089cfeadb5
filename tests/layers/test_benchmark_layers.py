"""The benchmark's command line; its timings are for people."""

import runpy
from pathlib import Path

import keras
import pytest

pytestmark = pytest.mark.skipif(keras.backend.backend() != "tensorflow", reason="the same on all backends")
SCRIPT = Path(__file__).resolve().parents[2] / "scripts" / "benchmark_layers.py"


@pytest.fixture(autouse=True)
def _neighbours(monkeypatch):
    """The scripts import each other by name."""
    monkeypatch.syspath_prepend(SCRIPT.parent)


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        ([], ["per_example", "drop_connect", "residual", "pooling", "small"]),
        (["small", "residual"], ["residual", "small"]),
    ],
)
def test_parts(arguments, expected, monkeypatch):
    run, main = [], runpy.run_path(str(SCRIPT))["main"]
    for name in ("per_example", "drop_connect", "residual", "pooling", "small"):
        part = lambda *_, name=name: run.append(name)  # noqa: E731
        part.__name__ = name
        monkeypatch.setitem(main.__globals__, name, part)
    main(arguments)
    assert run == expected


def test_unknown_parts_are_refused(capsys):
    with pytest.raises(SystemExit):
        runpy.run_path(str(SCRIPT))["main"](["large"])
    assert "unknown parts ['large']" in capsys.readouterr().err
