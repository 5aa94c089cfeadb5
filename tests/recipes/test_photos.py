"""The main job on the real photos of ../shared."""

import shutil
from pathlib import Path

import numpy as np
import pytest
import tensorflow as tf
from pages import ROOT, blocks

import recipes

pytestmark = pytest.mark.shared


@pytest.mark.slow
def test_the_readme_on_ants_and_bees(shared, tmp_path, monkeypatch, capsys):
    """Run README's example on the photos that it describes.

    The accuracy is that of all 397 photos, by cross-validation and by the dataset's own split: 153 alone vary too much.
    """
    monkeypatch.chdir(tmp_path)
    Path("photos").symlink_to(shared / "data" / "hymenoptera")
    files = sorted(str(file) for file in Path().glob("photos/val/*/*.jpg"))[::9]
    shutil.copy(files[0], "a.jpg")
    shutil.copy(files[-1], "b.png")
    namespace = {}
    for block in blocks(ROOT / "README.md"):
        if block.language == "python":
            exec(block.text, namespace)
    result = namespace["result"]
    assert "imageNotFound.gif" in capsys.readouterr().out
    assert result.validation.n == 153
    right = 244 * result.probe.last.accuracy + 153 * result.validation.accuracy
    assert right / 397 >= 0.91
    assert Path("report.html").is_file()
    serve = tf.saved_model.load("serving/1").signatures["serving_default"]
    served = serve(image_bytes=tf.constant([Path(file).read_bytes() for file in files]))["probabilities"].numpy()
    ours = np.array([prediction.probabilities for prediction in result.predict(files)])
    np.testing.assert_array_equal(served.argmax(1), ours.argmax(1))
    np.testing.assert_allclose(served, ours, atol=1e-4)


@pytest.mark.slow
def test_flowers(shared, tmp_path):
    """A folder without splits; six pictures of each class to keep the test short, duplicates included as they come."""
    for folder in (shared / "data" / "flowers").iterdir():
        (tmp_path / "flowers" / folder.name).mkdir(parents=True)
        for file in sorted(folder.iterdir())[:30]:
            shutil.copy(file, tmp_path / "flowers" / folder.name)
    result = recipes.finetune(tmp_path / "flowers", backbone="MobileNetV2(alpha=0.35)", recipe="probe")
    assert result.class_names == ["daisy", "dandelion", "rose", "sunflower", "tulip"]
    assert result.recipe.size == 128
    files = sorted((tmp_path / "flowers").glob("*/*"))
    assert (
        np.mean(
            [
                prediction.class_name == file.parent.name
                for prediction, file in zip(result.predict(files), files, strict=True)
            ]
        )
        > 0.7
    )
