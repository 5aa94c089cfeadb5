"""The main job end to end on datasets of a few pictures: trained, saved, loaded, and used for predictions."""

import os
from dataclasses import replace

import keras
import numpy as np
import pytest
import tensorflow as tf
from assertions import rejects
from makers import arrays, folder, jpeg, picture, small_network

import recipes
import recipes.networks.convnet
from recipes import BackboneError, DataError, OutputError, RecipeError
from recipes.data.sources import load
from recipes.planning.constructor_text import constructor_text
from recipes.planning.request import seconds
from recipes.runs.difference import difference, more_epochs
from recipes.training.fit import Fitted
from recipes.training.prepare import with_validation


@pytest.fixture(scope="module")
def photos(tmp_path_factory):
    return folder(tmp_path_factory.mktemp("photos"))


@pytest.fixture(scope="module")
def probed(photos, tmp_path_factory):
    output = tmp_path_factory.mktemp("runs") / "run"
    return recipes.finetune(photos, backbone=small_network(), recipe="probe", output=output), output


def weights(result):
    return np.concatenate([w.ravel() for w in result.model.get_weights()])


def test_classes_are_learned(probed):
    result, _ = probed
    assert result.class_names == ["blue", "green", "red"]
    assert result.validation.accuracy > 0.8
    assert result.validation.n == 6
    assert "linear classifier" in str(result)


def test_probabilities_from_uint8_and_float(probed):
    result, _ = probed
    size = result.recipe.size
    images = np.random.default_rng(0).integers(0, 256, (2, size, size, 3), np.uint8)
    from_uint8, from_float = result.model.predict(images, verbose=0), result.model.predict(images * 1.0, verbose=0)
    np.testing.assert_allclose(from_uint8, from_float, atol=1e-6)
    np.testing.assert_allclose(from_uint8.sum(1), 1, atol=1e-6)


def test_saved_run_comes_back(probed, photos):
    result, output = probed
    again = recipes.load(output)
    assert str(again) == str(result)
    assert again.recipe == result.recipe and again.audit == result.audit and again.validation == result.validation
    np.testing.assert_array_equal(weights(again), weights(result))
    files = sorted(str(file) for file in photos.glob("red/*.jpg"))
    for ours, theirs in zip(result.predict(files), again.predict(files), strict=True):
        np.testing.assert_array_equal(ours.probabilities, theirs.probabilities)
    np.testing.assert_array_equal(again.probe.best.classifier.kernel, result.probe.best.classifier.kernel)


@pytest.mark.slow
def test_predict_takes_paths_bytes_and_pixels(probed, photos):
    result, _ = probed
    file = photos / "red" / "024.jpg"
    pixels = tf.io.decode_jpeg(file.read_bytes(), dct_method="INTEGER_ACCURATE").numpy()
    answers = [result.predict(form)[0] for form in (file, file.read_bytes(), pixels, [str(file)])]
    for answer in answers:
        np.testing.assert_array_equal(answer.probabilities, answers[0].probabilities)
    assert answers[0].class_name == "red"
    assert answers[0].probability == answers[0].probabilities.max()


def test_evaluate_on_other_images(probed, tmp_path):
    score = probed[0].evaluate(folder(tmp_path, per_class=4, classes=2, seed=7))
    assert score.n == 8 and score.accuracy > 0.8
    (tmp_path / "purple").mkdir()
    with rejects(DataError, "folder.unknown_classes", path=tmp_path, classes=("purple",)):
        probed[0].evaluate(tmp_path)


def test_same_command_may_run_again_and_another_may_not(probed, photos):
    _, output = probed
    recipes.finetune(photos, backbone=small_network(), recipe="probe", output=output)
    with rejects(OutputError, "output.other_command", path=output, differences=["seed"]):
        recipes.finetune(photos, backbone=small_network(), recipe="probe", output=output, seed=1)


def test_output_that_is_no_run(tmp_path, photos):
    (tmp_path / "thesis.txt").write_text("x")
    with rejects(OutputError, "output.not_a_run", path=tmp_path):
        recipes.finetune(photos, output=tmp_path)
    with rejects(OutputError, "output.no_run", path=tmp_path):
        recipes.load(tmp_path)


@pytest.mark.slow
@pytest.mark.parametrize("recipe", ["all", pytest.param("scratch", marks=pytest.mark.minutes)])
def test_training_is_reproducible_to_the_bit_and_leaves_the_network_as_it_is(photos, monkeypatch, recipe):
    """The caller's network: a second training of it is that of a new one."""
    monkeypatch.setattr(Fitted, "better", True)
    network = small_network()
    before = [w.copy() for w in network.get_weights()]

    def run(seed):
        wanted = recipes.adjusted(recipe, epochs=2)
        return recipes.finetune(photos, backbone=network, recipe=wanted, seed=seed)

    first = run(0)
    first_weights = weights(first)
    second = run(0)
    for now, then in zip(network.get_weights(), before, strict=True):
        np.testing.assert_array_equal(now, then)
    assert all(layer.trainable for layer in network.layers)
    np.testing.assert_array_equal(weights(first), first_weights)
    np.testing.assert_array_equal(weights(first), weights(second))
    assert first.history == second.history
    if recipe == "all":
        assert first.history != run(1).history
    assert len(first.history["val_loss"]) == 2


def test_three_pictures_a_class_are_enough_and_two_are_not(tmp_path):
    folder(tmp_path / "three", 3)
    assert recipes.finetune(tmp_path / "three", backbone=small_network(), recipe="probe").validation.n == 3
    folder(tmp_path / "two", 2)
    with rejects(DataError, "split.small_class", class_name="blue", pictures=2):
        recipes.finetune(tmp_path / "two", backbone=small_network())


def test_validation_of_damaged_files_only(tmp_path):
    folder(tmp_path / "train", 4)
    for name in ("blue", "green", "red"):
        (tmp_path / "val" / name).mkdir(parents=True)
        (tmp_path / "val" / name / "a.jpg").write_bytes(b"\xff\xd8\xff broken")
    with rejects(DataError, "audit.empty_split", split="validation"):
        recipes.finetune(tmp_path, backbone=small_network())


@pytest.mark.slow
def test_file_names_that_are_not_utf8(tmp_path):
    photos = folder(tmp_path / "photos")
    for name in (b"m\xfcll.jpg", b"m\xfcll2.jpg"):
        with open(os.fsencode(photos / "red") + b"/" + name, "wb") as file:
            file.write((photos / "red" / "024.jpg").read_bytes()[: 300 if b"2" in name else None])
    result = recipes.finetune(photos, backbone=small_network(), recipe="probe", output=tmp_path / "run")
    result.report(tmp_path / "page.html")
    assert "m\\xfcll2.jpg" in str(result)
    assert recipes.load(tmp_path / "run").audit == result.audit


def test_time_limit_is_kept_and_told(photos):
    result = recipes.finetune(
        photos,
        backbone=small_network(),
        recipe=recipes.adjusted("all", epochs=10_000, patience=10_000),
        time_limit="8s",
    )
    assert any("time limit" in reason for reason in result.recipe.reasons)


@pytest.mark.slow
def test_one_directory_per_split_keeps_its_validation(tmp_path, caplog):
    folder(tmp_path / "train", 8)
    folder(tmp_path / "val", 3, seed=1)
    folder(tmp_path / "test", 2, seed=2)
    result = recipes.finetune(tmp_path, backbone=small_network(), recipe="probe")
    assert (result.validation.n, result.test.n) == (9, 6)
    caplog.set_level("INFO", "recipes")
    joined = with_validation(load(tmp_path), 0.2)
    assert len(joined.train) == 24 + 9 and joined.validation is None and len(joined.test) == 6
    assert "The 9 images of the dataset's validation split are added" in caplog.text


def test_validation_as_fraction_and_as_dataset(photos, tmp_path):
    half = recipes.finetune(photos, backbone=small_network(), recipe="probe", validation=0.5)
    assert half.validation.n == 18
    other = folder(tmp_path, 2, seed=3)
    given = recipes.finetune(photos, backbone=small_network(), recipe="probe", validation=other)
    assert given.validation.n == 6


@pytest.mark.slow
def test_images_of_any_kind_and_size(tmp_path):
    folder(tmp_path, 6, classes=2)
    red = picture((200, 40, 40), 1)
    grey = red[..., :1]
    deep = tf.io.encode_png(red.astype(np.uint16) * 257).numpy()
    alpha = tf.io.encode_png(np.concatenate([red, np.full_like(grey, 200)], -1)).numpy()
    tall, large = (picture((200, 40, 40), 2, size) for size in ((300, 20), (900, 1200)))
    files = {
        "grey.jpg": jpeg(grey),
        "deep.png": deep,
        "alpha.png": alpha,
        "tall.jpg": jpeg(tall),
        "tiny.png": tf.io.encode_png(red[:1, :1]).numpy(),
        "large.jpg": jpeg(large),
    }
    (tmp_path / "red").mkdir()
    for name, content in files.items():
        (tmp_path / "red" / name).write_bytes(content)
    result = recipes.finetune(tmp_path, backbone=small_network(), recipe=recipes.adjusted("all", epochs=1))
    assert result.class_names == ["blue", "green", "red"]


def test_integer_labels_of_arrays():
    images, names = arrays(8)
    labels = np.unique(names, return_inverse=True)[1]
    assert recipes.finetune((images, labels), backbone=small_network(), recipe="probe").class_names == ["0", "1", "2"]


@pytest.mark.parametrize(
    ("options", "error", "code", "attributes"),
    [
        (dict(recipe="best"), RecipeError, "request.recipe", dict(field="recipe", value="best")),
        (dict(seed=-1), RecipeError, "request.seed", dict(field="seed", value=-1)),
        (
            dict(callbacks=keras.callbacks.ReduceLROnPlateau()),
            RecipeError, "request.callbacks", dict(field="callbacks", match="cosine schedule"),
        ),
        (dict(callbacks=[print]), RecipeError, "request.callbacks", dict(field="callbacks", value=print)),
        (dict(time_limit="soon"), RecipeError, "request.time_limit", dict(value="soon", match="'90s'")),
        (dict(validation=1.5), DataError, "data.validation", dict(value=1.5)),
        (
            dict(recipe="all", backbone="MobileNetV2(weights=None)"),
            RecipeError, "request.random_weights", dict(recipe="all", match="scratch"),
        ),
    ],
)  # fmt: skip
def test_wrong_options(photos, options, error, code, attributes):
    with rejects(error, code, **attributes):
        recipes.finetune(photos, **{"backbone": small_network()} | options)


def test_a_lambda_is_rejected_before_the_training(photos):
    images = keras.Input((None, None, 3))
    network = keras.Model(images, keras.layers.Lambda(lambda x: x / 255)(images))
    with rejects(BackboneError, "backbone.copy", match="loaded again safely"):
        recipes.finetune(photos, backbone=network)


def test_an_interrupted_save_can_be_repeated(photos, tmp_path):
    (tmp_path / "model.keras").write_bytes(b"half")
    recipes.finetune(photos, backbone=small_network(), recipe="probe", output=tmp_path)
    assert recipes.load(tmp_path).class_names == ["blue", "green", "red"]


def test_other_arrays_are_another_command(tmp_path):
    images, names = arrays(6)
    recipes.finetune((images, names), backbone=small_network(), recipe="probe", output=tmp_path)
    with rejects(OutputError, "output.other_command", path=tmp_path, differences=["dataset"]):
        recipes.finetune((images[::-1], names[::-1]), backbone=small_network(), recipe="probe", output=tmp_path)


def test_the_difference_of_two_recipes_is_short():
    recipe = recipes.finetune_few(size=32)
    text = difference("recipe", constructor_text(recipe), constructor_text(replace(recipe, dropout=0.25)))
    assert "dropout=0.0" in text and "dropout=0.25" in text and len(text) < 200
    assert difference("seed", 0, 1) == "seed: 0 before, 1 now"
    texts = [constructor_text(recipes.adjusted("all", epochs=epochs)) for epochs in (2, 9)]
    assert difference("recipe", *texts) == "recipe: 'all' with epochs = 2 before, 'all' with epochs = 9 now"
    assert more_epochs(*texts) and not more_epochs(*reversed(texts)) and not more_epochs("few", texts[1])
    assert len(difference("recipe", "auto", constructor_text(recipe))) < 120


@pytest.mark.parametrize(("limit", "expected"), [(90, 90), ("90", 90), ("1.5m", 90), ("1h30m", 5400), ("2h", 7200)])
def test_seconds(limit, expected):
    assert seconds(limit) == expected


def shifted(per_class=16, **counts):
    """Two classes that an untrained network cannot tell apart without being trained: where the disc is."""
    images, labels = [], []
    for name, side in (("left", 0.25), ("right", 0.75)):
        for i in range(counts.get(name, per_class)):
            image = np.random.default_rng(hash((side, i)) % 2**32).integers(90, 160, (40, 40, 3)).astype(np.uint8)
            image[:, int(40 * side) - 6 : int(40 * side) + 6] = 250
            images.append(image)
            labels.append(name)
    return np.stack(images), labels


def head(result):
    """The kernel and bias of the linear classifier."""
    return next(layer for layer in result.model._flatten_layers() if layer.name == "logits").get_weights()


def test_classes_of_unequal_size_count_alike():
    unbalanced = recipes.finetune(shifted(left=40, right=8), backbone=small_network(), recipe="probe")
    assert unbalanced.recipe.balanced and "times the images of the smallest" in str(unbalanced)
    plain = recipes.finetune(
        shifted(left=40, right=8), backbone=small_network(), recipe=recipes.adjusted("probe", balanced=False)
    )
    (log_odds,) = np.diff(head(unbalanced)[1] - head(plain)[1])
    assert log_odds == pytest.approx(np.log(40 / 8), abs=1e-4)


def test_the_validation_images_join_in_the_end(photos):
    """Without `refit` the linear classifier is that of the training images alone."""
    both = recipes.finetune(photos, backbone=small_network(), recipe="probe")
    alone = recipes.finetune(photos, backbone=small_network(), recipe=recipes.adjusted("probe", refit=False))
    assert both.validation == alone.validation
    assert "fitted again on all images" in str(both) and "fitted again on all images" not in str(alone)
    assert (head(both)[0] != head(alone)[0]).any()


def test_a_validation_set_of_ones_own_is_never_trained_on(tmp_path):
    folder(tmp_path / "train", 8)
    folder(tmp_path / "val", 3, seed=1)
    result = recipes.finetune(tmp_path, backbone=small_network(), recipe="probe")
    assert not result.recipe.refit and "fitted again" not in str(result)


@pytest.mark.slow
def test_the_gain_of_the_choice_is_reported_and_saved(photos, tmp_path):
    """And dropout and callbacks reach the training."""
    seen = []

    class Spy(keras.callbacks.Callback):
        def on_epoch_end(self, epoch, logs=None):
            seen.append([layer.rate for layer in self.model._flatten_layers() if hasattr(layer, "rate")])

    recipe = recipes.adjusted("all", epochs=2, dropout=0.3)
    result = recipes.finetune(photos, backbone=small_network(), recipe=recipe, output=tmp_path, callbacks=[Spy()])
    assert seen == [[0.3], [0.3]]
    assert list((tmp_path / "logs").glob("events*"))
    assert result.selection.candidates == 1 + 2 + 3 + 2  # the start, epochs, interpolations, larger images
    low, high = result.selection.interval
    assert 0 <= low <= result.selection.accuracy <= high <= 1
    assert str(result.selection) in str(result)
    again = recipes.load(tmp_path)
    assert again.selection == result.selection and again.table == result.table
    assert again.probe.head.taps == result.probe.head.taps


@pytest.mark.slow
def test_stochastic_depth_stays_in_the_model_and_is_silent(photos):
    recipe = recipes.adjusted("scratch", epochs=1, stochastic_depth=0.5)
    result = recipes.finetune(photos, backbone=recipes.networks.convnet.convnet(32), recipe=recipe)
    assert any(layer.__class__.__name__ == "StochasticDepth" for layer in result.model._flatten_layers())
    images = np.random.default_rng(0).integers(0, 256, (2, 32, 32, 3), np.uint8)
    np.testing.assert_array_equal(result.model.predict(images, verbose=0), result.model.predict(images, verbose=0))
    assert result.recipe.stochastic_depth == 0.5
    without = recipes.finetune(photos, backbone=small_network(), recipe=recipe)
    assert without.recipe.stochastic_depth == 0 and "no residual branches" in str(without)


@pytest.mark.slow
@pytest.mark.parametrize(("taps", "channels"), [((0, 1), 8 + 16), ((0,), 8)])
def test_the_classifier_reads_the_requested_stages(photos, tmp_path, taps, channels):
    recipe = recipes.adjusted("all", epochs=1, taps=taps)
    result = recipes.finetune(photos, backbone=small_network(), recipe=recipe, output=tmp_path)
    assert head(result)[0].shape == (channels, 3)
    assert recipes.load(tmp_path).recipe.taps == taps
