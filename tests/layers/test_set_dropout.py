"""set_dropout reaches the dropout that recurrent, attention and wrapping layers hold, with weights shared or copied."""

import keras
import numpy as np
import pytest

import layers
from layers.noise import noise_layers, noise_rate

pytestmark = pytest.mark.skipif(keras.backend.backend() != "tensorflow", reason="the graph is the same on all backends")


def dense(width=4):
    return keras.layers.Dense(width)


def rates(model):
    return [(type(layer).__name__, layer.rate) for layer in noise_layers(model)]


def assert_same_inference(noisy, model):
    x = np.random.default_rng(0).normal(size=(2, *model.input_shape[1:])).astype("float32")
    np.testing.assert_array_equal(noisy(x), model(x))


RECURRENT = {
    "LSTM": lambda: keras.layers.LSTM(4, dropout=0.2, recurrent_dropout=0.1),
    "Bidirectional": lambda: keras.layers.Bidirectional(keras.layers.GRU(4, dropout=0.3)),
    "stacked cells": lambda: keras.layers.RNN([keras.layers.LSTMCell(3, dropout=0.2), keras.layers.GRUCell(4)]),
    "TimeDistributed": lambda: keras.layers.TimeDistributed(keras.layers.Dropout(0.2)),
    "DropConnect": lambda: layers.DropConnect(keras.layers.LSTM(4, dropout=0.2), 0.1),
    "MultiHeadAttention": lambda: keras.layers.MultiHeadAttention(2, 3, dropout=0.2),
    "Attention": lambda: keras.layers.Attention(use_scale=True, dropout=0.2),
}


@pytest.mark.slow
@pytest.mark.parametrize("copy", [False, True])
@pytest.mark.parametrize("name", RECURRENT)
def test_set_dropout_reaches_what_layers_drop_themselves(name, copy, tmp_path):
    x, layer = keras.Input((5, 4)), RECURRENT[name]()
    y = {"MultiHeadAttention": lambda: layer(x, x), "Attention": lambda: layer([x, x])}.get(name, lambda: layer(x))()
    model = keras.Model(x, dense()(y))
    before = [noise_rate(inner) for inner in noise_layers(model)]
    noisy = layers.set_dropout(model, 0.6, copy=copy)
    found = [noise_rate(inner) for inner in noise_layers(noisy) if not isinstance(inner, layers.DropConnect)]
    assert set(found) == {0.6}
    assert len(noise_layers(noisy)) == len(before) > 0  # none is added
    assert [noise_rate(inner) for inner in noise_layers(model)] == before
    assert_same_inference(noisy, model)
    noisy.save(tmp_path / "noisy.keras")
    again = keras.saving.load_model(tmp_path / "noisy.keras")
    assert [noise_rate(inner) for inner in noise_layers(again)] == [noise_rate(inner) for inner in noise_layers(noisy)]
    noisy.compile(keras.optimizers.SGD(1.0), "mse")
    noisy.train_on_batch(np.ones((2, 5, 4)), np.ones((2, *noisy.output_shape[1:])))
    shared = [np.array_equal(a, b) for a, b in zip(noisy.get_weights(), model.get_weights(), strict=True)]
    assert all(shared) if not copy else not all(shared[-2:])  # dropout may leave the kernel without a gradient


def test_set_dropout_warns_of_dropout_that_it_cannot_reach():
    class Block(keras.layers.Layer):
        def __init__(self, **kwargs):
            super().__init__(**kwargs)
            self.drop = keras.layers.Dropout(0.3, name="hidden")

        def call(self, x):
            return self.drop(x)

    x = keras.Input((4,))
    with pytest.warns(UserWarning, match=r"\['hidden'\] in Block 'block' keep their rate"):
        layers.set_dropout(keras.Model(x, Block(name="block")(x)), 0.6)


def test_dropout_at_rate_zero_is_set_not_doubled():
    x = keras.Input((4,))
    model = layers.set_dropout(keras.Model(x, dense()(keras.layers.Dropout(0.0)(x))), 0.5)
    assert rates(model) == [("Dropout", 0.5)]
    assert rates(layers.set_dropout(layers.set_dropout(model, 0.0), 0.2)) == [("Dropout", 0.2)]


def test_dropout_is_added_before_a_dense_off_the_branches():
    x = keras.Input((4,))
    y = x + dense()(dense()(keras.layers.LayerNormalization()(x)))
    with pytest.raises(ValueError, match="outside residual branches"):
        layers.set_dropout(keras.Model(x, y), 0.5)
    nested = keras.Model(x, keras.layers.Dense(2, name="head")(y))
    (dropout,) = noise_layers(layers.set_dropout(nested, np.float32(0.5)))
    assert (dropout.name, dropout.rate) == ("head_dropout", 0.5)
