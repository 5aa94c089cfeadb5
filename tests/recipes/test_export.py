"""The SavedModel, asked in processes that have only TensorFlow."""

import json
import subprocess
import sys

import numpy as np
import pytest
import tensorflow as tf
from makers import folder, png, small_network

import recipes
from recipes import OutputError, RecipesError

CLIENT = """
import json, sys
sys.modules.update(keras=None, tf_keras=None, recipes=None, augment=None)  # importing any of them would fail
import tensorflow as tf
serve = tf.saved_model.load(sys.argv[1]).signatures["serving_default"]
contents = [open(path, "rb").read() for path in sys.argv[2:]]
answer = {key: value.numpy() for key, value in serve(image_bytes=tf.constant(contents)).items()}
print(json.dumps({
    "probabilities": answer["probabilities"].tolist(),
    "class_names": [name.decode() for name in answer["class_names"]],
    "error": [error.decode() for error in answer["error"]],
}))
"""


@pytest.fixture(scope="module")
def exported(tmp_path_factory):
    photos = folder(tmp_path_factory.mktemp("photos"))
    result = recipes.finetune(photos, backbone=small_network(), recipe="probe")
    directory = tmp_path_factory.mktemp("serving") / "1"
    result.export(directory)
    return result, directory, photos


def ask(directory, files):
    command = [sys.executable, "-c", CLIENT, str(directory), *map(str, files)]
    return json.loads(subprocess.run(command, check=True, capture_output=True, text=True).stdout)


def test_a_process_with_tensorflow_alone_answers_the_same(exported, tmp_path):
    result, directory, photos = exported
    files = sorted(photos.glob("*/*.jpg"))
    odd = tmp_path / "odd.png"
    odd.write_bytes(png(np.random.default_rng(0).integers(0, 256, (17, 90, 4), np.uint8)))
    files.append(odd)
    answer = ask(directory, files)
    ours = np.array([prediction.probabilities for prediction in result.predict(files)])
    np.testing.assert_allclose(answer["probabilities"], ours, atol=1e-5)
    assert answer["class_names"] == result.class_names
    assert answer["error"] == [""] * len(files)


def test_a_damaged_image_does_not_fail_the_others(exported, tmp_path):
    result, directory, photos = exported
    good = photos / "red" / "024.jpg"
    (tmp_path / "half.jpg").write_bytes(good.read_bytes()[:400])
    (tmp_path / "text.jpg").write_text("no image")
    answer = ask(directory, [tmp_path / "half.jpg", good, tmp_path / "text.jpg"])
    assert [bool(error) for error in answer["error"]] == [True, False, True]
    assert np.isnan(answer["probabilities"][0]).all() and np.isnan(answer["probabilities"][2]).all()
    np.testing.assert_allclose(answer["probabilities"][1], result.predict(good)[0].probabilities, atol=1e-5)


def test_saved_model_cli_runs_it(exported, tmp_path):
    """The tool that comes with TensorFlow understands the signature."""
    _, directory, photos = exported
    np.save(tmp_path / "in.npy", np.array([(photos / "red" / "024.jpg").read_bytes()]))
    tool = [sys.executable, "-m", "tensorflow.python.tools.saved_model_cli"]
    where = ["--dir", str(directory), "--tag_set", "serve", "--signature_def", "serving_default"]
    shown = subprocess.run([*tool, "show", *where], check=True, capture_output=True, text=True).stdout
    assert "image_bytes" in shown and "probabilities" in shown and "class_names" in shown
    given = ["--inputs", f"image_bytes={tmp_path / 'in.npy'}", "--outdir", str(tmp_path)]
    subprocess.run([*tool, "run", *where, *given], check=True, capture_output=True)
    assert np.load(tmp_path / "probabilities.npy").shape == (1, 3)


def test_an_empty_batch_says_so(exported):
    serve = tf.saved_model.load(str(exported[1])).signatures["serving_default"]
    with pytest.raises(tf.errors.InvalidArgumentError, match="image_bytes is empty"):
        serve(image_bytes=tf.zeros([0], tf.string))


def test_wrong_use(exported, tmp_path):
    result, directory, _ = exported
    with pytest.raises(OutputError, match="not empty"):
        result.export(directory)
    with pytest.raises(RecipesError, match="format is 'pickle'"):
        result.export(tmp_path / "x", format="pickle")
