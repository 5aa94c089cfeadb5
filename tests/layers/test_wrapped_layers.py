"""A wrapper is called, built, masked, regularised and trained as the layer that it wraps; on every backend."""

import re
from pathlib import Path

import keras
import numpy as np
import pytest
from layer_contracts import Composite

import layers

RNG = np.random.default_rng(0)
WRAPPERS = pytest.mark.parametrize("wrapper", [layers.DropConnect, layers.StochasticResidual])


def array(x):
    return keras.ops.convert_to_numpy(keras.ops.cast(x, "float32"))


def normal(*shape):
    return RNG.normal(size=shape).astype("float32")


def test_layers_of_several_arguments(tmp_path):
    """Cross-attention, arguments by position and by name, tensors and others; the file too."""
    query, value = keras.Input((5, 6)), keras.Input((3, 6))
    attention = layers.DropConnect(keras.layers.MultiHeadAttention(2, 4), 0.4, seed=1)
    outputs, scores = attention(query, value=value, return_attention_scores=True)
    alone = attention.layer(query, value, return_attention_scores=True)
    assert [outputs.shape, scores.shape] == [x.shape for x in alone]
    model = keras.Model([query, value], attention(query, value))
    x = normal(2, 5, 6), normal(2, 3, 6)
    expected = array(model(x))
    np.testing.assert_array_equal(array(attention.layer(*x)), expected)
    model.save(tmp_path / "attention.keras")
    again = keras.saving.load_model(tmp_path / "attention.keras")
    np.testing.assert_array_equal(array(again(x)), expected)
    np.testing.assert_array_equal(array(attention(query=x[0], value=x[1])), expected)
    by_name = layers.DropConnect(keras.layers.MultiHeadAttention(2, 4), 0.4)
    assert by_name(query=x[0], value=x[1], training=True).shape == expected.shape
    drawn = array(model(x, training=True))
    assert np.abs(drawn - expected).max() > 1e-3
    np.testing.assert_array_equal(array(again(x, training=True)), drawn)


@pytest.mark.filterwarnings("ignore:.build... was called on layer")  # Keras's, of every such layer in a file
@WRAPPERS
@pytest.mark.parametrize("shape", [(6,), (3, 6)])
def test_layers_without_build_have_their_weights_however_they_are_built(wrapper, shape, tmp_path):
    x = normal(2, *shape)
    by_call, by_build = wrapper(Composite(), 0.3), wrapper(Composite(), 0.3)
    by_call(x)
    by_build.build((None, *shape))
    assert len(by_call.weights) == len(by_build.weights) == 4
    model = keras.Sequential([wrapper(Composite(), 0.3)])
    expected = array(model(x))
    model.save(tmp_path / "composite.keras")
    np.testing.assert_array_equal(array(keras.saving.load_model(tmp_path / "composite.keras")(x)), expected)


class MaskSeen(keras.layers.Layer):
    """Adds its mask, if it has one, to a Dense layer."""

    def __init__(self, **kwargs):
        super().__init__(**kwargs)
        self.dense, self.supports_masking = keras.layers.Dense(6), True

    def build(self, input_shape):
        self.dense.build(input_shape)

    def call(self, inputs, mask=None):
        outputs = self.dense(inputs)
        return outputs if mask is None else outputs + 1000 * keras.ops.expand_dims(keras.ops.cast(mask, "float32"), -1)


@WRAPPERS
@pytest.mark.parametrize("training", [False, True])
def test_masks_reach_the_wrapped_layer(wrapper, training):
    words = np.array([[1, 2, 0, 0], [3, 0, 0, 0]])
    embedded = keras.layers.Embedding(4, 6, mask_zero=True)(words)
    layer = wrapper(MaskSeen(), 1e-6)
    np.testing.assert_array_equal(array(layer(embedded, training=training)).max(axis=-1) > 500, words > 0)


def test_masks_leave_as_they_leave_the_wrapped_layer():
    embedded = keras.layers.Embedding(4, 6, mask_zero=True)(keras.Input((4,), dtype="int32"))

    def mask(x):
        return keras.src.backend.get_keras_mask(x)

    assert mask(layers.DropConnect(keras.layers.LSTM(4), 0.3)(embedded)) is None
    assert tuple(mask(layers.Maxout(4, 2)(embedded)).shape) == (None, 4)
    for layer in (
        layers.DropConnect(keras.layers.LSTM(4, return_sequences=True), 0.3),
        layers.DropConnect(keras.layers.Dense(4), 0.3, per_example=True),
        layers.StochasticResidual(keras.layers.LSTM(6, return_sequences=True), 0.3),
    ):
        assert tuple(mask(layer(embedded)).shape) == (None, 4)


RECURRENT = {
    "LSTM": lambda: keras.layers.LSTM(4),
    "GRU in sequences": lambda: keras.layers.GRU(4, return_sequences=True),
    "stateful SimpleRNN": lambda: keras.layers.SimpleRNN(4, stateful=True),
}


@pytest.mark.parametrize("make", RECURRENT.values(), ids=RECURRENT)
@pytest.mark.parametrize("mask", [None, np.array([[1, 1, 1, 0, 0], [1, 1, 1, 1, 1]], bool)], ids=["all", "masked"])
def test_bidirectional_turns_the_wrapped_layer_around(make, mask):
    x = normal(2, 5, 3)
    plain, ours = keras.layers.Bidirectional(make()), keras.layers.Bidirectional(layers.DropConnect(make(), 0.5))

    def outputs(layer, **options):
        if layer.stateful:
            layer.reset_state()
        return [array(y) for y in keras.tree.flatten(layer(x, mask=mask, **options))]

    plain(x), ours(x)
    ours.set_weights(plain.get_weights())
    for ours_y, plain_y in zip(outputs(ours), outputs(plain), strict=True):
        np.testing.assert_array_equal(ours_y, plain_y)
    assert np.abs(outputs(ours, training=True)[0] - outputs(ours)[0]).max() > 1e-3
    again = keras.layers.Bidirectional.from_config(ours.get_config())
    assert again.backward_layer.layer.go_backwards and not again.forward_layer.layer.go_backwards


@pytest.mark.parametrize("options", [{}, {"per_example": True}, {"inference": "gaussian"}])
@pytest.mark.parametrize("training", [False, True])
def test_activity_regularizers_see_the_outputs_once(options, training):
    dense = keras.layers.Dense(4, activation="relu", activity_regularizer=keras.regularizers.L1(0.5))
    layer = layers.DropConnect(dense, 0.5, seed=1, **options)
    outputs = array(layer(normal(8, 6), training=training))
    np.testing.assert_allclose(float(array(sum(layer.losses))), 0.5 * np.abs(outputs).sum() / 8, rtol=1e-5)


@pytest.mark.parametrize("options", [{}, {"per_example": True, "drop_bias": True}, {"inference": "gaussian"}])
def test_sequences_of_unknown_length_train(options):
    inputs = keras.Input((None, 6))
    layer = layers.DropConnect(keras.layers.Dense(4, activation="relu"), 0.5, **options)
    model = keras.Model(inputs, layer(inputs=inputs))
    model.compile("sgd", "mse")
    for length in (3, 5):
        assert np.isfinite(model.train_on_batch(normal(2, length, 6), normal(2, length, 4)))
    assert model.predict(normal(2, 4, 6), verbose=0).shape == (2, 4, 4)


def test_gaussian_inference_of_two_kernels_is_refused_when_built():
    layer = layers.DropConnect(keras.layers.SeparableConv2D(4, 3, activation="relu"), 0.3, inference="gaussian")
    with pytest.raises(ValueError, match=r"one masked kernel.*depthwise_kernel.*pointwise_kernel"):
        layer.build((None, 5, 5, 3))


def test_per_example_gradients_of_many_examples_are_not_rounded_away():
    """2,048 equal gradients of 1: summed in bfloat16 they would stop at 256."""
    dense = keras.layers.Dense(1, use_bias=False, kernel_initializer="ones", dtype="mixed_bfloat16")
    model = keras.Sequential([keras.Input((2,)), layers.DropConnect(dense, 0.5, per_example=True, seed=1)])

    def total(_, y):
        return keras.ops.sum(keras.ops.cast(y, "float32"))

    model.compile(keras.optimizers.SGD(2.0**-12), total, jit_compile=False)
    model.train_on_batch(np.ones((2048, 2), "float32"), np.zeros((2048, 1)))
    gradient = 2.0**12 * (1 - array(dense.kernel))  # about half the masks keep, times 1 / (1 − rate)
    np.testing.assert_allclose(gradient, 2048, rtol=0.1)


def test_a_step_that_drops_every_branch_trains_on():
    """With a gradient of zero, as where the branch is compiled: weights move by momentum alone."""
    layer = layers.StochasticResidual(keras.layers.Dense(3), 0.999999, seed=1)
    model = keras.Sequential([keras.Input((3,)), layer])
    model.compile(keras.optimizers.SGD(0.1, momentum=0.5), "mse", run_eagerly=keras.backend.backend() == "tensorflow")
    before = array(layer.layer.kernel)
    loss = model.train_on_batch(np.ones((2, 3), "float32"), np.zeros((2, 3)))
    assert loss == pytest.approx(1)
    np.testing.assert_array_equal(array(layer.layer.kernel), before)
    layer.rate = 0.0
    model.compile("sgd", "mse")
    model.train_on_batch(np.ones((2, 3), "float32"), np.zeros((2, 3)))
    assert np.abs(array(layer.layer.kernel) - before).max() > 1e-3


@pytest.mark.skipif(keras.backend.backend() != "tensorflow", reason="the contracts cover other backends")
def test_the_documentations_code_runs():
    text = (Path(__file__).resolve().parents[2] / "docs" / "layers.md").read_text()
    blocks = re.findall(r"```python\n(.*?)```", text, flags=re.DOTALL)
    assert len(blocks) == 4
    exec("\n".join(blocks), {})
