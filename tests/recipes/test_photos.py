"""The main job on the real photos of ../shared, by the command line."""

import csv
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import tensorflow as tf

import recipes

ROOT = Path(__file__).resolve().parents[2]
pytestmark = pytest.mark.shared


@pytest.fixture(scope="module")
def command(shared, tmp_path_factory):
    """Runs `recipes …` with a KERAS_HOME that holds the weights of ../shared."""
    home = tmp_path_factory.mktemp("keras")
    (home / "models").mkdir()
    for file in (shared / "weights").glob("*.h5"):
        shutil.copy(file, home / "models")
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "KERAS_HOME": str(home)}

    def run(*arguments):
        line = [sys.executable, "-m", "recipes", *map(str, arguments)]
        return subprocess.run(line, env=environment, capture_output=True, text=True)

    return run


def test_ants_and_bees(command, shared, tmp_path):
    """91 % with the dataset's own split, the placeholder named, and the SavedModel of one mind with `predict`."""
    output = tmp_path / "run"
    photos = shared / "data" / "hymenoptera"
    done = command("finetune", photos, "--backbone", "MobileNetV2(alpha=0.35)", "--output", output)
    assert done.returncode == 0, done.stderr
    assert "imageNotFound.gif" in done.stdout
    told = json.loads((output / "result.json").read_text(encoding="utf-8"))
    assert told["validation"]["n"] == 153
    assert told["validation"]["accuracy"] >= 0.91
    assert command("export", output, tmp_path / "serving").returncode == 0
    files = sorted(str(file) for file in photos.glob("val/*/*.jpg"))
    serve = tf.saved_model.load(str(tmp_path / "serving" / "1")).signatures["serving_default"]
    parts = [serve(image_bytes=tf.constant([Path(f).read_bytes() for f in files[i : i + 51]])) for i in (0, 51, 102)]
    served = np.concatenate([part["probabilities"] for part in parts])
    ours = np.array([prediction.probabilities for prediction in recipes.load(output).predict(files)])
    np.testing.assert_array_equal(served.argmax(1), ours.argmax(1))
    np.testing.assert_allclose(served, ours, atol=1e-4)


def test_flowers(command, shared, tmp_path):
    """A folder without splits; six pictures of each class to keep the test short, duplicates included as they come."""
    for folder in (shared / "data" / "flowers").iterdir():
        (tmp_path / "flowers" / folder.name).mkdir(parents=True)
        for file in sorted(folder.iterdir())[:30]:
            shutil.copy(file, tmp_path / "flowers" / folder.name)
    done = command("finetune", tmp_path / "flowers", "--backbone", "MobileNetV2(alpha=0.35)", "--output",
                   tmp_path / "run", "--recipe", "probe")  # fmt: skip
    assert done.returncode == 0, done.stderr
    told = json.loads((tmp_path / "run" / "result.json").read_text(encoding="utf-8"))
    assert told["class_names"] == ["daisy", "dandelion", "rose", "sunflower", "tulip"]
    assert told["recipe"]["size"] == 128
    assert command("predict", tmp_path / "run", tmp_path / "flowers", "--output", tmp_path / "p.csv").returncode == 0
    rows = list(csv.DictReader((tmp_path / "p.csv").open(encoding="utf-8")))
    assert np.mean([row["class_name"] == Path(row["path"]).parent.name for row in rows]) > 0.7
