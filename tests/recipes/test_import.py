"""`import recipes` is light, and says so when a foreign package shadows one of ours."""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]


def python(code, *paths):
    environment = {**os.environ, "PYTHONPATH": ":".join(map(str, paths))}
    line = [sys.executable, "-c", code]
    return subprocess.run(line, cwd=paths[0], env=environment, capture_output=True, text=True)


def test_heavy_libraries_wait_until_they_are_needed():
    heavy = ["sklearn", "matplotlib", "keras_cv", "tensorflow_datasets", "jinja2", "typer"]
    done = python(
        f"import sys, tensorflow, keras; before = set(sys.modules); import recipes;"
        f"print([name for name in {heavy} if name in set(sys.modules) - before])", ROOT,
    )  # fmt: skip
    assert done.stdout.strip() == "[]", done.stderr


@pytest.mark.parametrize("name", ["layers", "optimizers", "augment"])
def test_a_foreign_package_is_named(tmp_path, name):
    (tmp_path / name).mkdir()
    (tmp_path / name / "__init__.py").write_text("")
    done = python("import recipes", tmp_path, ROOT)
    assert done.returncode == 1
    assert f"ImportError: recipes needs its own package '{name}'" in done.stderr
    assert str(tmp_path / name / "__init__.py") in done.stderr


def test_a_foreign_module_that_is_already_loaded(tmp_path):
    (tmp_path / "layers.py").write_text("")
    done = python("import layers, recipes", tmp_path, ROOT)
    assert str(tmp_path / "layers.py") in done.stderr


def test_no_module_needs_what_windows_lacks():
    absent = re.compile(r"^\s*(?:import|from) (?:fcntl|grp|posix|pwd|resource|termios)\b", re.MULTILINE)
    sources = [path for name in ("recipes", "augment", "layers", "optimizers") for path in (ROOT / name).rglob("*.py")]
    assert sources and not [path for path in sources if absent.search(path.read_text(encoding="utf-8"))]
