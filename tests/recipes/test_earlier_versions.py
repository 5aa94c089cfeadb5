"""Runs, exports and unfinished runs of version 0.1, before `recipes` became packages, still work.

`tests/fixtures/version_0_1` was made by that version: 24 small pictures in `photos/`, the network `small.keras`, the
finished run `run/`, its export in `export.zip`, `killed/`, a run of the same command whose process was killed after
seven updates, and `answers.npy`, the probabilities of every sixth picture.
"""

import shutil
import zipfile
from pathlib import Path

import numpy as np
import pytest
import tensorflow as tf

import recipes

FIXTURE = Path(__file__).resolve().parents[1] / "fixtures" / "version_0_1"
RECIPE = recipes.adjusted("all", size=32, test_size=32, epochs=3, batch_size=8, dropout=0.3, averaging=0.9)


@pytest.fixture
def folder(tmp_path, monkeypatch) -> Path:
    """A copy of the fixture, as the working directory."""
    shutil.copytree(FIXTURE, tmp_path, dirs_exist_ok=True)
    monkeypatch.chdir(tmp_path)
    return tmp_path


def pictures(folder: Path) -> list[Path]:
    return sorted((folder / "photos").rglob("*.jpg"))[::6]


def assert_same_answers(folder: Path, probabilities) -> None:
    np.testing.assert_allclose(probabilities, np.load(folder / "answers.npy"), atol=1e-4)


def test_a_run_loads(folder):
    result = recipes.load("run")
    assert result.class_names == ["blue", "green", "red"] and result.validation.n > 0 and result.ledger
    assert len(result.history["loss"]) == 3 and result.recipe.reasons
    assert result.probe.stages and result.judged is not None
    assert_same_answers(folder, [p.probabilities for p in result.predict(pictures(folder))])


def test_an_export_serves(folder):
    with zipfile.ZipFile("export.zip") as archive:
        archive.extractall("export")
    signature = tf.saved_model.load("export/1").signatures["serving_default"]
    answer = signature(image_bytes=tf.constant([path.read_bytes() for path in pictures(folder)]))
    assert [name.decode() for name in answer["class_names"].numpy()] == ["blue", "green", "red"]
    assert not any(answer["error"].numpy())
    assert_same_answers(folder, answer["probabilities"].numpy())


def test_the_finished_run_is_returned(folder, capsys):
    result = recipes.finetune("photos", backbone="small.keras", recipe=RECIPE, output="run")
    assert_same_answers(folder, [p.probabilities for p in result.predict(pictures(folder))])


@pytest.mark.slow
def test_an_unfinished_run_resumes(folder, capsys):
    """It goes on from its state, by the schedule of today: its weights are not those of an undisturbed run of then."""
    result = recipes.finetune("photos", backbone="small.keras", recipe=RECIPE, output="killed")
    assert "resuming the run in killed" in capsys.readouterr().out
    assert not (folder / "killed" / ".state").exists() and len(result.history["loss"]) == 3
    files = pictures(folder)
    assert [p.class_name for p in result.predict(files)] == [file.parent.name for file in files]
