"""Pretraining: a compact network whose output is a backbone that finetune takes, and the shipped one."""

from dataclasses import replace

import keras
import numpy as np
import pytest
from assertions import rejects

from augment import Policy
from recipes import Recipe, adjusted, finetune, load
from recipes.data.digits import digits
from recipes.errors import RecipeError
from recipes.networks.backbones import resolve
from recipes.networks.convnet import convnet
from recipes.networks.stages import stages
from recipes.pretraining import network, pretrain
from recipes.probing.logistic import fit_path


@pytest.fixture(scope="module")
def drawings():
    """Bars that lie or stand: learnt in a few steps, by no single pixel."""
    rng = np.random.default_rng(0)
    images = np.zeros((120, 32, 32, 3), np.uint8)
    for i in range(len(images)):
        at = rng.integers(4, 26)
        images[i, at : at + 3] = 255
        if i % 2:
            images[i] = images[i].swapaxes(0, 1)
    return images, np.arange(120) % 2


RECIPE = Recipe("scratch", 32, unfreeze=-1, epochs=4, policy=Policy.none(32), batch_size=8, warm_start=False)


@pytest.fixture(scope="module")
def pretrained(drawings, tmp_path_factory):
    folder = tmp_path_factory.mktemp("runs") / "bars"
    return pretrain(drawings, recipe=RECIPE, output=folder), folder


def test_the_convnet_is_small_headless_and_preprocesses_by_itself():
    model = convnet()
    assert model.output_shape == (None, 4, 4, 104)
    assert 4 * model.count_params() < 1_000_000
    assert [tensor.shape[1] for tensor in stages(model, 32)] == [16, 8, 4]
    black, white = np.zeros((1, 32, 32, 3)), np.full((1, 32, 32, 3), 255.0)
    rescaled = keras.Model(model.input, model.layers[1].output)
    assert rescaled(black).numpy().min() == -1 and rescaled(white).numpy().max() == 1


@pytest.mark.slow
def test_pretraining_learns_and_saves_a_run_and_a_backbone(pretrained, drawings):
    result, folder = pretrained
    assert result.validation.accuracy > 0.9
    assert load(folder).class_names == ["0", "1"]
    saved, images = keras.saving.load_model(folder / "backbone.keras"), drawings[0][:4].astype("float32")
    assert np.array_equal(saved(images, training=False), network(result)(images, training=False))


@pytest.mark.slow
def test_its_output_is_a_backbone(pretrained, drawings):
    again = finetune(drawings, backbone=str(pretrained[1] / "backbone.keras"), recipe="probe")
    assert again.validation.accuracy > 0.9


def test_a_recipe_that_builds_on_trained_weights_is_rejected(drawings):
    for recipe in (replace(RECIPE, warm_start=True), adjusted("all"), "all"):
        with rejects(
            RecipeError, "recipe.not_from_scratch", field="recipe", value=recipe, match="begins with random weights"
        ):
            pretrain(drawings, recipe=recipe)


@pytest.mark.slow
def test_the_shipped_backbone_beats_pixels_and_random_weights_on_five_labels_a_class():
    splits = digits(per_class=5, seed=1000)
    rows = {}
    backbone = resolve("glyphs")
    for name, model in {"glyphs": backbone.network, "random": convnet()}.items():
        pooled = keras.layers.GlobalAveragePooling2D()(model.output)
        extract = keras.Model(model.inputs, pooled)
        rows[name] = [extract.predict(x.images.astype("float32"), verbose=0) for x in (splits.train, splits.test)]
    rows["pixels"] = [x.images[..., 0].reshape(len(x), -1) / 255 for x in (splits.train, splits.test)]
    accuracy = {}
    for name, (train, test) in rows.items():
        linear = fit_path(train[None], splits.train.labels, 10, (1.0, 0.1))[-1]
        accuracy[name] = (linear.logits(test).argmax(1) == splits.test.labels).mean()
    assert accuracy["glyphs"] > max(accuracy["pixels"], accuracy["random"]) + 0.05, accuracy
