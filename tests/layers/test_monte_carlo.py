"""Averaging over the noise, and the batch statistics that it must not touch."""

import keras
import numpy as np
import pytest

import layers

pytestmark = pytest.mark.skipif(keras.backend.backend() != "tensorflow", reason="the contracts cover other backends")
RNG = np.random.default_rng(0)


def model(*noise, head="softmax"):
    inputs = keras.Input((12, 12, 3))
    x = keras.layers.Conv2D(4, 3)(inputs)
    x = keras.layers.BatchNormalization(name="norm")(x)
    for layer in noise:
        x = layer(x)
    x = keras.layers.GlobalAveragePooling2D()(x)
    return keras.Model(inputs, keras.layers.Dense(3, activation=head, kernel_initializer="normal")(x))


def images(count=5):
    return (3 * RNG.normal(size=(count, 12, 12, 3))).astype("float32")


@pytest.mark.parametrize(
    "make",
    [
        lambda: keras.layers.Dropout(0.5),
        lambda: keras.layers.SpatialDropout2D(0.5),
        lambda: keras.layers.AlphaDropout(0.5),
        lambda: keras.layers.GaussianDropout(0.5),
        lambda: layers.DropConnect(keras.layers.Conv2D(4, 3), 0.5),
        lambda: layers.StochasticDepth(0.5),
        lambda: layers.FractionalMaxPooling2D(),
        lambda: layers.StochasticResidual(
            keras.Sequential([keras.layers.Conv2D(4, 3, padding="same"), keras.layers.BatchNormalization()]), 0.5
        ),
    ],
)
def test_only_noise_is_active(make):
    """Statistics stay, noise shows, and afterwards the model infers as before."""
    network, x = model(make()), images()
    network(x, training=True)
    weights, before = [w.numpy() for w in network.weights], network(x, training=False).numpy()
    result = layers.monte_carlo(network, x, samples=8)
    assert result.mean.shape == result.std.shape == (5, 3)
    assert result.mutual_information.shape == (5,)
    assert result.std.max() > 0
    for old, new in zip(weights, network.weights, strict=True):
        np.testing.assert_array_equal(old, new.numpy())
    np.testing.assert_array_equal(network(x, training=False), before)


def test_augmentation_layers_stay_off():
    network = keras.Sequential([keras.Input((12, 12, 3)), keras.layers.RandomFlip(), model(keras.layers.Dropout(1e-9))])
    assert layers.monte_carlo(network, images(), samples=4).std.max() < 1e-6


def test_moments_of_dropout_are_the_closed_form():
    rate, weight = 0.4, np.array([[2.0], [1.0]], "float32")
    dense = keras.layers.Dense(1, use_bias=False)
    network = keras.Sequential([keras.Input((2,)), keras.layers.Dropout(rate, seed=1), dense])
    dense.set_weights([weight])
    x = np.array([[1.0, 3.0], [-2.0, 0.5]], "float32")
    result = layers.monte_carlo(network, x, samples=800)
    std = np.sqrt(rate / (1 - rate) * x**2 @ weight**2)
    np.testing.assert_allclose(result.mean, x @ weight, atol=5 * std.max() / np.sqrt(800))
    np.testing.assert_allclose(result.std, std, rtol=0.1)
    assert result.mutual_information is None  # no probabilities


def test_mutual_information_is_between_zero_and_log_classes_and_zero_without_disagreement():
    vote = keras.layers.Dense(2, activation="softmax", use_bias=False)
    network = keras.Sequential([keras.Input((2,)), layers.StochasticDepth(0.5, seed=1), vote])
    vote.set_weights([np.array([[400.0, -400.0], [0.0, 0.0]])])
    information = layers.monte_carlo(network, np.array([[1.0, 0], [0, 0]], "float32"), samples=400).mutual_information
    # the first image: (1, 0) or (½, ½), each half the time: H(¾, ¼) − ½ log 2
    expected = -0.75 * np.log(0.75) - 0.25 * np.log(0.25) - 0.5 * np.log(2)
    np.testing.assert_allclose(information, [expected, 0], atol=0.03)


def test_batches_and_subclassed_and_recurrent_models():
    class Subclassed(keras.Model):
        def __init__(self):
            super().__init__()
            self.recurrent = keras.layers.LSTM(4, dropout=0.5)
            self.attention = keras.layers.MultiHeadAttention(1, 2, dropout=0.5)

        def call(self, x):
            return keras.ops.softmax(self.recurrent(self.attention(x, x)))

    network, x = Subclassed(), RNG.normal(size=(70, 5, 3)).astype("float32")
    network(x)
    result = layers.monte_carlo(network, x, samples=12)
    assert result.mean.shape == (70, 4)
    assert (result.std.max(axis=1) > 0).all()


def test_models_without_noise_and_too_few_samples_are_refused():
    with pytest.raises(ValueError, match="has no noise layer"):
        layers.monte_carlo(model(), images(), samples=4)
    with pytest.raises(ValueError, match="at least 2 samples"):
        layers.monte_carlo(model(keras.layers.Dropout(0.5)), images(), samples=1)


def test_reestimated_statistics_are_the_datasets():
    network, x = model(keras.layers.Dropout(0.5)), images(50)
    activations = network.layers[1](x).numpy()
    for dataset in (x, [(x[:10], None), (x[10:], None)], [x[:7], x[7:]]):
        network.get_layer("norm").moving_mean.assign(np.full(4, 9.0))
        assert layers.reestimate_batch_statistics(network, dataset) == ["norm"]
        norm = network.get_layer("norm")
        np.testing.assert_allclose(norm.moving_mean, activations.mean(axis=(0, 1, 2)), rtol=1e-3, atol=1e-4)
        np.testing.assert_allclose(norm.moving_variance, activations.var(axis=(0, 1, 2)), rtol=1e-3)
    assert norm.momentum == 0.99
    assert norm.trainable


def test_reestimation_reaches_nested_and_frozen_layers_and_leaves_them_frozen():
    network = keras.Sequential([keras.Input((12, 12, 3)), model()])
    frozen = layers.freeze_batch_statistics(network)
    assert layers.reestimate_batch_statistics(network, images(20)) == frozen == ["norm"]
    assert not network.layers[0].get_layer("norm").trainable
    assert np.abs(network.layers[0].get_layer("norm").moving_mean.numpy()).max() > 0


def test_reestimation_without_data_or_layers_is_refused_and_changes_nothing():
    network = model()
    before = network.get_layer("norm").moving_variance.numpy()
    with pytest.raises(ValueError, match="no batches"):
        layers.reestimate_batch_statistics(network, [])
    with pytest.raises(ZeroDivisionError):
        layers.reestimate_batch_statistics(network, (images(2 // (1 - step)) for step in range(2)))
    with pytest.raises(ValueError, match="has no BatchNormalization"):
        layers.reestimate_batch_statistics(
            keras.Sequential([keras.Input((2,)), keras.layers.Dense(1)]), np.ones((2, 2))
        )
    np.testing.assert_array_equal(network.get_layer("norm").moving_variance, before)


def test_frozen_statistics_stay_in_fit():
    network, x = model(head=None), images()
    layers.freeze_batch_statistics(network)
    before = network.get_layer("norm").moving_mean.numpy()
    network.compile("sgd", "mse")
    network.fit(x, np.zeros((5, 3)), verbose=0)
    np.testing.assert_array_equal(network.get_layer("norm").moving_mean, before)
