"""Every check of a diagnosis finds its problem, and passes where there is none."""

import keras
import numpy as np
import pytest
import tensorflow as tf
from assertions import rejects
from makers import arrays, small_network

import layers
import recipes
from recipes import DataError, RecipeError
from recipes.diagnostics import babysitter
from recipes.diagnostics.activations import Inspector
from recipes.diagnostics.babysitter import Babysitter
from recipes.diagnostics.checks import activations, layer_statistics
from recipes.diagnostics.diagnose import _optimizer, _rate
from recipes.diagnostics.subject import Subject


def net(*, scale=1 / 255, width=16, activation="relu", classes=3, **dense):
    return keras.Sequential([
        keras.Input((32, 32, 3)), keras.layers.Rescaling(scale), keras.layers.Conv2D(width, 3, activation=activation),
        keras.layers.GlobalAveragePooling2D(), keras.layers.Dense(width, activation=activation, **dense),
        keras.layers.Dense(classes, activation="softmax"),
    ])  # fmt: skip


def told(model, check, rate=1e-3):
    model.compile(keras.optimizers.Adam(rate), "sparse_categorical_crossentropy")
    return recipes.diagnose(model, arrays(12))[check]


@pytest.mark.slow
def test_a_finetuned_result_is_well(capsys):
    result = recipes.finetune(
        arrays(12), backbone=small_network(), recipe=recipes.adjusted("all", size=32, epochs=2), seed=0
    )
    before = [weights.copy() for weights in result.model.get_weights()]
    found = recipes.diagnose(result, arrays(12))
    assert len(found.verdicts) == 9 and "babysitter" not in capsys.readouterr().out
    assert found["learns 20 images by heart"].well and found["gradients"].well
    assert "began at a linear classifier" in found["initial loss"].measured and found["initial loss"].well is None
    assert found["training and validation"].curves["validation"] == result.history["val_accuracy"]
    for old, new in zip(before, result.model.get_weights(), strict=True):
        np.testing.assert_array_equal(old, new)
    assert len(found.figure().axes) >= 5


@pytest.mark.slow
def test_loss_of_knowing_nothing():
    assert told(net(), "initial loss").well
    loud = told(net(scale=1000.0), "initial loss")
    assert loud.well is False and "smaller weights" in loud.advice


@pytest.mark.slow
def test_penalties():
    assert told(net(), "regularisation").well is None
    assert told(net(kernel_regularizer=keras.regularizers.L2(1e-3)), "regularisation").well
    drowned = told(net(kernel_regularizer=keras.regularizers.L2(10.0)), "regularisation")
    assert drowned.well is False and "divide it by ten" in drowned.advice


def test_what_is_frozen_learns_nothing_by_heart():
    model = net()
    for layer in model.layers[:-1]:
        layer.trainable = False
    model.layers[-2].set_weights([np.zeros_like(w) for w in model.layers[-2].get_weights()])
    assert told(model, "learns 20 images by heart").well is False
    model.trainable = False
    assert told(model, "learns 20 images by heart").well is None


@pytest.mark.slow
def test_dead_units_and_cut_gradients():
    model = net(bias_initializer=keras.initializers.Constant(-1e3))
    assert "units are dead" in told(model, "activations").advice
    found = told(model, "gradients")
    assert found.well is False and "3 of them zero" in found.measured


def test_vanishing_activations():
    small = {"kernel_initializer": keras.initializers.RandomNormal(stddev=1e-3)}
    deep = keras.Sequential([keras.Input((32, 32, 3)), keras.layers.Rescaling(1 / 255), keras.layers.Flatten()])
    for _ in range(6):
        deep.add(keras.layers.Dense(16, activation="tanh", **small))
    deep.add(keras.layers.Dense(3, activation="softmax"))
    assert "vanish" in told(deep, "activations").advice


@pytest.mark.slow
@pytest.mark.parametrize(("rate", "word"), [(1e-7, "raise"), (1.0, "lower")])
def test_learning_rates_that_do_not_suit(rate, word):
    assert word in told(net(), "update-to-weight ratio", rate).advice
    assert "try a learning rate of" in told(net(), "learning rate range", rate).advice


def test_an_optimizer_that_scales_the_loss():
    """As `compile` makes of every one under mixed float16."""
    model, schedule = net(), keras.optimizers.schedules.CosineDecay(0.0, 100, warmup_target=0.25, warmup_steps=10)
    model.compile(keras.optimizers.LossScaleOptimizer(keras.optimizers.SGD(schedule)), "mse")
    optimizer = _optimizer(None, model)(0.5)
    assert type(optimizer) is keras.optimizers.SGD and float(optimizer.learning_rate) == 0.5
    assert _rate(None, model) == 0.25


def test_what_cannot_be_diagnosed():
    with rejects(RecipeError, "recipe.no_inputs"):
        recipes.diagnose(keras.Sequential([keras.layers.Dense(3)]), arrays(6))
    with rejects(DataError, "data.other_classes", classes=3):
        recipes.diagnose(net(classes=4), arrays(6))


def test_only_classifiers_of_square_photos():
    sigmoid = net()
    sigmoid.pop()
    sigmoid.add(keras.layers.Dense(3, activation="sigmoid"))
    with rejects(RecipeError, "recipe.not_exclusive"):
        recipes.diagnose(sigmoid, arrays(6))
    wide = keras.Sequential([keras.Input((32, 48, 3)), keras.layers.Flatten(), keras.layers.Dense(3)])
    with rejects(RecipeError, "recipe.model_shapes"):
        recipes.diagnose(wide, arrays(6))


def test_frozen_batch_statistics_are_of_no_random_weights():
    """With those of the batch nothing vanishes, whatever is frozen for finetuning."""
    convolution = {"padding": "same", "kernel_initializer": keras.initializers.RandomNormal(stddev=0.05)}
    blocks = [layer for _ in range(6)
              for layer in (keras.layers.Conv2D(4, 3, **convolution), keras.layers.BatchNormalization())]  # fmt: skip
    model = keras.Sequential([keras.Input((8, 8, 3)), *blocks, keras.layers.Flatten(), keras.layers.Dense(3)])
    assert layers.freeze_batch_statistics(model)
    images = np.random.default_rng(0).uniform(-1, 1, (32, 8, 8, 3)).astype("float32")
    found = activations(Subject(model, images, np.arange(32) % 3, 3, True, 1e-3))
    assert found.well, found.measured


def test_weights_that_are_no_numbers():
    model = net(activation="tanh")
    model.layers[1].set_weights([w * np.nan for w in model.layers[1].get_weights()])
    assert "NaN or infinite before the first update" in told(model, "learning rate range").measured


def test_the_babysitter_lets_other_models_alone():
    class Own(keras.Model):
        def __init__(self):
            super().__init__()
            self.dense = keras.layers.Dense(4)

        def call(self, x):
            return self.dense(x)

    model, watcher = Own(), Babysitter(quiet=True)
    model.compile("sgd", "mse")
    model.fit(np.ones((40, 3)), 100 * np.ones((40, 4)), batch_size=2, verbose=0, callbacks=[watcher])
    assert not any("scale the inputs" in verdict for verdict in watcher.verdicts)


def test_recording_leaves_the_model_as_it_was():
    model = net()
    images = np.zeros((2, 32, 32, 3), np.float32)
    before = model(images).numpy()
    spread, _ = layer_statistics(model, images, training=False)
    assert len(spread) == 3  # a convolution and two Dense layers
    assert not any("call" in vars(layer) for layer in model.layers)
    np.testing.assert_array_equal(model(images).numpy(), before)


def fitted(model, callback, rate=1e-3, epochs=12):
    images, names = arrays(12)
    images = tf.image.resize(images, (32, 32)).numpy()
    labels = np.unique(names, return_inverse=True)[1]
    model.compile(keras.optimizers.Adam(rate), "sparse_categorical_crossentropy", metrics=["accuracy"])
    model.fit(images, labels, batch_size=4, epochs=epochs, verbose=0, callbacks=[callback])
    return callback


def test_the_babysitter_watches_any_fit(tmp_path, capsys):
    watcher = fitted(net(), Babysitter(log_dir=tmp_path))
    assert watcher.ratios and len(watcher.ratios[0]) == 3
    assert "update-to-weight ratio" in capsys.readouterr().out
    assert {"epoch/loss", "epoch/accuracy", "step/loss", "step/learning_rate"} <= tags(tmp_path)
    assert any(tag.startswith("update_to_weight/") for tag in tags(tmp_path))


def tags(logs) -> set[str]:
    files = [str(file) for file in logs.glob("events*")]
    events = [event for file in files for event in tf.compat.v1.train.summary_iterator(file)]
    return {value.tag for event in events for value in event.summary.value}


def test_the_babysitter_looks_inside(tmp_path, monkeypatch):
    """Against NumPy: what leaves a rectified layer with dead units, and the gradient of softmax regression."""
    monkeypatch.setattr(babysitter, "_SHARE", 2.0)  # as often as it likes
    x, y = np.random.default_rng(0).normal(size=(40, 6)).astype("float32"), np.arange(40) % 3
    bias = keras.initializers.Constant([0, 0, 0, -99, -99, -99, -99, -99])
    model = keras.Sequential([keras.Input((6,)), keras.layers.Dense(8, "relu", bias_initializer=bias),
                              keras.layers.Dense(3, activation="softmax")])  # fmt: skip
    model.compile("sgd", "sparse_categorical_crossentropy")
    watcher = Babysitter(tmp_path, quiet=True, sample=(x, y))
    model.fit(x, y, batch_size=4, verbose=0, callbacks=[watcher])
    assert watcher.insides and any("units are dead: use a smaller" in verdict for verdict in watcher.verdicts)
    assert any("gradient norms" in verdict for verdict in watcher.verdicts) and "dead_units/" in str(tags(tmp_path))
    before = model.get_weights()
    found, (w1, b1, w2, b2) = Inspector(model, x, y)(), before
    hidden = np.maximum(x @ w1 + b1, 0)
    logits = hidden @ w2 + b2
    p = np.exp(logits) / np.exp(logits).sum(1, keepdims=True)
    slope = hidden.T @ (p - np.eye(3)[y]) / len(x)
    np.testing.assert_allclose(list(found.spread.values()), [hidden.std(), p.std()], rtol=1e-4)
    np.testing.assert_allclose(list(found.gradients.values())[-1], np.linalg.norm(slope), rtol=1e-4)
    assert next(iter(found.dead.values())) == np.mean((hidden == 0).all(0)) >= 5 / 8
    for old, new in zip(before, model.get_weights(), strict=True):
        np.testing.assert_array_equal(old, new)


def test_the_babysitter_looks_as_fit_does(monkeypatch):
    """Labels (n,) of one sigmoid; a loss that fails on the sample ends the looks, not the training."""
    monkeypatch.setattr(babysitter, "_SHARE", 2.0)
    x, y = np.random.default_rng(0).normal(size=(40, 6)).astype("float32"), np.arange(40) % 2
    model = keras.Sequential([keras.Input((6,)), keras.layers.Dense(1, activation="sigmoid")])
    model.compile("sgd", "binary_crossentropy")
    watcher = Babysitter(quiet=True, sample=(x, y))
    model.fit(x, y, batch_size=4, verbose=0, callbacks=[watcher])
    assert watcher.insides and all(watcher.insides[0].gradients.values())
    watcher = Babysitter(quiet=True, sample=(x[:, :5], y))
    model.fit(x, y, batch_size=4, verbose=0, callbacks=[watcher])
    assert not watcher.insides and any("cannot be measured on this sample" in verdict for verdict in watcher.verdicts)


@pytest.mark.parametrize("size", [1e-6, 100.0])
def test_gradients_in_float16_are_those_in_float32(size):
    """Small ones are not 0, large ones not infinite."""
    x, y = np.random.default_rng(0).normal(size=(40, 6)).astype("float32"), np.arange(40) % 3
    found = []
    for dtype in ("float32", "mixed_float16"):
        first = keras.layers.Dense(8, "tanh", kernel_initializer=keras.initializers.GlorotUniform(0), dtype=dtype)
        last = keras.layers.Dense(3, kernel_initializer=keras.initializers.RandomUniform(-size, size, 0), dtype=dtype)
        model = keras.Sequential([keras.Input((6,)), first, last])
        model.compile("sgd", keras.losses.SparseCategoricalCrossentropy(from_logits=True))
        found.append(list(Inspector(model, x, y)().gradients.values()))
    np.testing.assert_allclose(*found, rtol=0.05)


@pytest.mark.parametrize("sample", [3, (np.ones((2, 6)), np.ones(3)), (np.ones((0, 6)), np.ones(0))])
def test_a_sample_that_is_none(sample):
    with rejects(RecipeError, "recipe.sample"):
        Babysitter(sample=sample)


def test_a_sample_is_made_at_the_first_look(monkeypatch):
    """Not for a training that has no time for one."""
    made, x, y = [], np.zeros((60, 6), "float32"), np.arange(60) % 3

    def sample():
        made.append(True)
        return x, y

    for share in (0.0, 9.0):
        monkeypatch.setattr(babysitter, "_SHARE", share)
        model = keras.Sequential([keras.Input((6,)), keras.layers.Dense(3)])
        model.compile("sgd", keras.losses.SparseCategoricalCrossentropy(from_logits=True))
        watcher = Babysitter(quiet=True, sample=sample)
        model.fit(x, y, batch_size=4, verbose=0, callbacks=[watcher])
        assert len(made) == bool(share) == bool(watcher.insides)


def test_few_looks_give_no_advice():
    seen = fitted(net(activation="tanh"), Babysitter(quiet=True), rate=1.0, epochs=1)
    assert 0 < len(seen.ratios) < 5 and "too few for advice" in str(seen.verdicts)
    assert "learning rate" not in seen.verdicts[-1]


@pytest.mark.minutes
def test_finetune_looks_inside_of_itself(tmp_path, monkeypatch):
    """And a Babysitter of one's own takes the place of that; the weights are those that nobody watches."""
    monkeypatch.setattr(babysitter, "_SHARE", 3.0)
    (images, names), recipe = arrays(12), recipes.adjusted("all", size=32, epochs=2, batch_size=8, refit=False)
    how = dict(backbone=small_network(), recipe=recipe, seed=0)
    looked = recipes.finetune((images, names), output=tmp_path / "a", **how)
    parts = {tag.split("/")[0] for tag in tags(tmp_path / "a" / "logs")}
    assert {"epoch", "update_to_weight", "activations", "gradient_norm"} <= parts
    labels = np.unique(names, return_inverse=True)[1]
    own = Babysitter(quiet=True, sample=(tf.image.resize(images, (32, 32)).numpy(), labels))
    result = recipes.finetune((images, names), output=tmp_path / "b", callbacks=[own], **how)
    assert own.insides and all(np.isfinite(norm) and norm for norm in own.insides[0].gradients.values())
    assert len(own.insides[0].spread) == 3 and None not in own.insides[0].dead
    assert not (tmp_path / "b" / "logs").exists()
    unwatched = recipes.finetune((images, names), **how).model.get_weights()
    for watched in (looked, result):
        for ours, theirs in zip(watched.model.get_weights(), unwatched, strict=True):
            np.testing.assert_array_equal(ours, theirs)


def test_logs_that_cannot_be_written_do_not_end_the_training(tmp_path):
    (tmp_path / "logs").write_text("a file where the folder should be")
    watcher = fitted(net(), Babysitter(log_dir=tmp_path / "logs", quiet=True), epochs=2)
    assert any("continues without logs" in verdict for verdict in watcher.verdicts) and watcher.ratios


def test_the_babysitter_says_what_is_wrong():
    assert any("scale the inputs" in verdict for verdict in fitted(net(scale=1000.0), Babysitter(quiet=True)).verdicts)
    fast = fitted(net(activation="tanh"), Babysitter(quiet=True), rate=1.0, epochs=2)
    assert any("lower the learning rate" in verdict for verdict in fast.verdicts)


def test_the_ratios_are_those_of_the_updates():
    watcher, model = Babysitter(quiet=True), net()
    kernel = model.layers[-1].kernel

    class Check(keras.callbacks.Callback):
        def on_train_batch_begin(self, batch, logs=None):
            self.before = kernel.numpy()

        def on_train_batch_end(self, batch, logs=None):
            looked = len(watcher.ratios)
            if looked > self.looked:
                moved = np.linalg.norm(kernel.numpy() - self.before) / np.linalg.norm(self.before)
                np.testing.assert_allclose(watcher.ratios[-1][-1], moved, rtol=1e-4)
                self.looked, self.checked = looked, self.checked + 1

    check = Check()
    check.looked = check.checked = 0
    images = np.random.default_rng(0).uniform(0, 255, (40, 32, 32, 3))
    model.compile("sgd", "sparse_categorical_crossentropy")
    model.fit(images, np.arange(40) % 3, batch_size=2, epochs=4, verbose=0, callbacks=[watcher, check])
    assert check.checked
