"""Frozen batch statistics: in training as in inference, through `trainable = True`, `compile`, copies and files."""

import copy

import keras
import numpy as np
import pytest
from keras.layers import BatchNormalization

import layers

RNG = np.random.default_rng(0)
X, Y = RNG.normal(3, 2, (12, 4)).astype("float32"), RNG.normal(size=(12, 2)).astype("float32")


@keras.saving.register_keras_serializable(package="tests")
class Centred(BatchNormalization):
    """A subclass with an option and a signature of its own."""

    def __init__(self, shift=0.0, **kwargs):
        super().__init__(**kwargs)
        self.shift = shift

    def call(self, x, training=False):
        return super().call(x, training=training) + self.shift

    def get_config(self):
        return {**super().get_config(), "shift": self.shift}


class Unregistered(BatchNormalization):
    pass


KINDS = {
    "plain": lambda: BatchNormalization(name="norm"),
    "renorm": lambda: BatchNormalization(name="norm", renorm=True),
    "subclass": lambda: Centred(0.5, name="norm"),
    "in a wrapper": lambda: layers.StochasticResidual(
        keras.Sequential([keras.Input((4,)), BatchNormalization(name="norm")]), 0.0
    ),
}
COPIES = {
    "clone_model": lambda model, path: keras.models.clone_model(model),
    "deepcopy": lambda model, path: copy.deepcopy(model),
    "json": lambda model, path: keras.models.model_from_json(model.to_json()),
    ".keras": lambda model, path: _saved(model, path / "model.keras"),
    ".h5": lambda model, path: _saved(model, path / "model.h5"),
}


def _saved(model, path):
    model.save(path)
    return keras.saving.load_model(path)


def array(x):
    return np.array(keras.ops.convert_to_numpy(x))


def network(make):
    """A head on a nested base whose statistics are far from those of `X`."""
    base = keras.Sequential([keras.Input((4,)), keras.layers.Dense(4, name="dense"), make()], name="base")
    return keras.Sequential([keras.Input((4,)), base, keras.layers.Dense(2, name="head")]), base


def norm_of(model):
    return next(layer for layer in model._flatten_layers() if isinstance(layer, BatchNormalization))


def moved(model, compiled=False):
    """After two epochs at full trainability: the names of the layer's variables that have moved."""
    norm = norm_of(model)
    before = {v.name: array(v) for v in norm.weights}
    model.compile("sgd", "mse", run_eagerly=not compiled)
    model.fit(X, Y, epochs=2, batch_size=6, verbose=0)
    return {v.name for v in norm.weights if not np.array_equal(array(v), before[v.name])}


@pytest.mark.parametrize("make", KINDS.values(), ids=KINDS)
def test_the_guides_next_lines_leave_frozen_statistics_alone(make):
    model, base = network(make)
    assert layers.freeze_batch_statistics(base) == layers.freeze_batch_statistics(base) == ["norm"]
    base.trainable = False
    base.trainable = True
    np.testing.assert_array_equal(array(model(X, training=True)), array(model(X, training=False)))
    assert moved(model, compiled=True) == {"gamma", "beta"}


def test_gamma_and_beta_follow_trainable():
    model, base = network(KINDS["plain"])
    layers.freeze_batch_statistics(model)
    base.trainable = False
    assert moved(model) == set()
    base.trainable = True
    assert {v.name for v in norm_of(model).trainable_variables} == {"gamma", "beta"}


@pytest.mark.parametrize("make", KINDS.values(), ids=KINDS)
@pytest.mark.parametrize("copied", COPIES.values(), ids=COPIES)
def test_copies_and_files_are_frozen_too(make, copied, tmp_path):
    model, base = network(make)
    layers.freeze_batch_statistics(base)
    norm_of(model).moving_mean.assign([1.0, 2.0, 3.0, 4.0])
    again = copied(model, tmp_path)
    again.trainable = True
    assert type(norm_of(again)) is type(norm_of(model))
    assert norm_of(again).get_config() == norm_of(model).get_config()
    again.set_weights(model.get_weights())
    np.testing.assert_array_equal(array(again(X, training=True)), array(model(X, training=False)))
    assert {v.name for v in norm_of(again).trainable_variables} == {"gamma", "beta"}


@pytest.mark.parametrize("make", KINDS.values(), ids=KINDS)
def test_one_call_undoes_it(make):
    model, _ = network(make)
    cls, config = type(norm_of(model)), norm_of(model).get_config()
    layers.freeze_batch_statistics(model)
    assert layers.unfreeze_batch_statistics(model) == ["norm"]
    assert layers.unfreeze_batch_statistics(model) == []
    assert type(norm_of(model)) is cls and norm_of(model).get_config() == config
    assert {"gamma", "beta", "moving_mean"} <= moved(model)


def test_weight_files_fit_the_frozen_and_the_other_model(tmp_path):
    """`.weights.h5` files name layers by their classes."""
    models = [keras.Sequential([keras.Input((4,)), BatchNormalization(), keras.layers.Dense(2)]) for _ in range(3)]
    layers.freeze_batch_statistics(models[1])
    for source, target in ((models[0], models[1]), (models[1], models[2])):
        source.save_weights(tmp_path / "some.weights.h5")
        target.load_weights(tmp_path / "some.weights.h5")
        for one, other in zip(source.get_weights(), target.get_weights(), strict=True):
            np.testing.assert_array_equal(one, other)


def test_a_class_that_is_not_registered_is_given_when_loading(tmp_path):
    model, _ = network(lambda: Unregistered(name="norm"))
    layers.freeze_batch_statistics(model)
    model.save(tmp_path / "model.keras")
    again = keras.saving.load_model(tmp_path / "model.keras", custom_objects={"Unregistered": Unregistered})
    assert isinstance(norm_of(again), Unregistered) and moved(again) == {"gamma", "beta"}
    with pytest.raises(TypeError, match="Could not locate class 'Unregistered'"):
        keras.saving.load_model(tmp_path / "model.keras")


def test_only_a_batch_normalization_can_be_frozen():
    model, _ = network(KINDS["plain"])
    layers.freeze_batch_statistics(model)
    frozen = type(norm_of(model))
    config = keras.layers.ReLU().get_config() | {"unfrozen": {"module": "keras.layers", "class_name": "ReLU"}}
    with pytest.raises(ValueError, match="needs a BatchNormalization, got a ReLU"):
        frozen.from_config(config)


def test_statistics_are_estimated_anew_and_stay_frozen():
    model, _ = network(KINDS["plain"])
    layers.freeze_batch_statistics(model)
    assert layers.reestimate_batch_statistics(model, X) == ["norm"]
    dense = next(layer for layer in model._flatten_layers() if layer.name == "dense")
    np.testing.assert_allclose(array(norm_of(model).moving_mean), array(dense(X)).mean(axis=0), rtol=1e-4)
    assert moved(model) == {"gamma", "beta"}
