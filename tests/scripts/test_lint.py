"""The verdict of the linter depends on the project's own files only."""

import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]


def ruff(folder: Path) -> subprocess.CompletedProcess:
    line = [sys.executable, "-m", "ruff", "check", "--no-cache", "."]
    return subprocess.run(line, cwd=folder, capture_output=True, text=True)


@pytest.fixture
def checkout(tmp_path) -> Path:
    """The files that ruff reads of `scripts/`, with its configuration."""
    shutil.copy(ROOT / "pyproject.toml", tmp_path)
    shutil.copytree(ROOT / "scripts", tmp_path / "scripts")
    return tmp_path


def test_folders_that_the_demo_or_a_user_adds_change_nothing(checkout):
    for name in ("demo", "numpy", "run"):
        (checkout / name).mkdir()
        (checkout / name / "stray.py").write_text("import sys, os\n")
    assert ruff(checkout).returncode == 0


def test_faults_in_the_project_are_found(checkout):
    (checkout / "scripts" / "stray.py").write_text("import sys, os\n")
    assert ruff(checkout).returncode == 1
