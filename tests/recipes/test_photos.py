"""The main job on the real photos of ../shared, by the command line."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import tensorflow as tf

import recipes

BACKBONE = "MobileNetV2(alpha=0.35)"
ROOT = Path(__file__).resolve().parents[2]
pytestmark = pytest.mark.shared


def command(*arguments, cwd) -> str:
    """What `recipes …` prints, in a process of its own."""
    line = [sys.executable, "-m", "recipes", *map(str, arguments)]
    done = subprocess.run(line, cwd=cwd, env={**os.environ, "PYTHONPATH": str(ROOT)}, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_ants_and_bees(shared, tmp_path):
    """91 % with the dataset's own split, the placeholder named, and the SavedModel of one mind with `predict`."""
    photos = shared / "data" / "hymenoptera"
    assert "imageNotFound.gif" in command("finetune", photos, "--backbone", BACKBONE, cwd=tmp_path)
    result = recipes.load(tmp_path / "run")
    assert result.validation.n == 153
    assert result.validation.accuracy >= 0.91
    result.export(tmp_path / "serving")
    files = sorted(str(file) for file in photos.glob("val/*/*.jpg"))[::9]
    serve = tf.saved_model.load(str(tmp_path / "serving" / "1")).signatures["serving_default"]
    served = serve(image_bytes=tf.constant([Path(file).read_bytes() for file in files]))["probabilities"].numpy()
    ours = np.array([prediction.probabilities for prediction in result.predict(files)])
    np.testing.assert_array_equal(served.argmax(1), ours.argmax(1))
    np.testing.assert_allclose(served, ours, atol=1e-4)


def test_flowers(shared, tmp_path):
    """A folder without splits; six pictures of each class to keep the test short, duplicates included as they come."""
    for folder in (shared / "data" / "flowers").iterdir():
        (tmp_path / "flowers" / folder.name).mkdir(parents=True)
        for file in sorted(folder.iterdir())[:30]:
            shutil.copy(file, tmp_path / "flowers" / folder.name)
    result = recipes.finetune(tmp_path / "flowers", backbone=BACKBONE, recipe="probe")
    assert result.class_names == ["daisy", "dandelion", "rose", "sunflower", "tulip"]
    assert result.recipe.size == 128
    files = sorted((tmp_path / "flowers").glob("*/*"))
    assert (
        np.mean([said.class_name == file.parent.name for said, file in zip(result.predict(files), files, strict=True)])
        > 0.7
    )
