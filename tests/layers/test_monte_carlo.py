"""Averaging over the noise, and the batch statistics that it must not touch."""

import keras
import numpy as np
import pytest
import tensorflow as tf

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
    result = layers.monte_carlo(network, x, samples=400)
    std = np.sqrt(rate / (1 - rate) * x**2 @ weight**2)
    np.testing.assert_allclose(result.mean, x @ weight, atol=5 * std.max() / np.sqrt(400))
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


class Subclassed(keras.Model):
    """One noisy layer, then BatchNormalization, in a model without a graph."""

    def __init__(self, noise, *arguments):
        super().__init__()
        self.noise, self.arguments = noise, arguments
        self.norm, self.head = keras.layers.BatchNormalization(), keras.layers.Dense(4)

    def call(self, x):
        arguments = [x if argument == "x" else [x, x] for argument in self.arguments]
        return keras.ops.softmax(self.head(keras.layers.Flatten()(self.norm(self.noise(*arguments)))))


@pytest.mark.slow
@pytest.mark.parametrize(
    ("make", "arguments", "kind"),
    [
        (lambda rate: keras.layers.LSTM(4, dropout=rate), "x", "recurrent inputs and states"),
        (lambda rate: keras.layers.GRU(4, recurrent_dropout=rate), "x", "recurrent inputs and states"),
        (
            lambda rate: keras.layers.Bidirectional(keras.layers.LSTM(4, dropout=rate)),
            "x",
            "recurrent inputs and states",
        ),
        (
            lambda rate: keras.layers.RNN([keras.layers.GRUCell(4), keras.layers.LSTMCell(4, dropout=rate)]),
            "x",
            "recurrent inputs and states",
        ),
        (lambda rate: keras.layers.MultiHeadAttention(1, 2, dropout=rate), "xx", "activations"),
        (lambda rate: keras.layers.Attention(dropout=rate), "2", "attention weights"),
        (lambda rate: keras.layers.AdditiveAttention(dropout=rate), "2", "attention weights"),
        (lambda rate: keras.layers.TimeDistributed(keras.layers.Dropout(rate)), "x", "activations"),
        (lambda rate: keras.layers.SpatialDropout1D(rate), "x", "channels"),
    ],
)
def test_noise_inside_of_layers_of_subclassed_models(make, arguments, kind):
    """Each kind alone, in batches: seen, described, drawn for every image; and not seen without a rate."""
    x = RNG.normal(size=(70, 5, 3)).astype("float32")
    network, silent = Subclassed(make(0.5), *arguments), Subclassed(make(0.0), *arguments)
    network(x), silent(x)
    weights = [weight.numpy() for weight in network.weights]
    result = layers.monte_carlo(network, x, samples=12)
    assert result.mean.shape == (70, 4)
    assert (result.std.max(axis=1) > 1e-4).all()
    for old, new in zip(weights, network.weights, strict=True):
        np.testing.assert_array_equal(old, new.numpy())
    lines = []
    layers.describe_noise(network, lines.append)
    assert len(lines) == (2 if isinstance(network.noise, keras.layers.Bidirectional) else 1)
    assert all("  0.5  " in line and line.endswith(kind) for line in lines)
    with pytest.raises(ValueError, match="has no noise layer"):
        layers.monte_carlo(silent, x, samples=2)


class Traced(keras.Model):
    """A model that compiles its own call, or another method, or whose user does."""

    def __init__(self):
        super().__init__()
        self.drop, self.norm, self.head = (
            keras.layers.Dropout(0.5),
            keras.layers.BatchNormalization(),
            keras.layers.Dense(2),
        )

    def call(self, x, training=False):
        return self.features(x, training)

    def features(self, x, training):
        return self.head(self.norm(self.drop(x, training=training), training=training))


class TracedCall(Traced):
    call = tf.function(Traced.call)


class TracedFeatures(Traced):
    features = tf.function(Traced.features)


def traced_by_its_user():
    network = Traced()
    network.call = tf.function(network.call)
    return network


@pytest.mark.parametrize("make", [TracedCall, TracedFeatures, traced_by_its_user])
@pytest.mark.parametrize("called_before", [False, True])
def test_traces_keep_no_noise(make, called_before):
    network, x = make(), RNG.normal(3, 2, (16, 4)).astype("float32")
    network(x[:1])
    if called_before:
        network(x)
    result = layers.monte_carlo(network, x, samples=4)
    assert result.std.min(axis=1).max() > 0
    np.testing.assert_allclose(network(x), network.head(network.norm(x)), rtol=1e-6)
    assert hasattr(network.features if make is TracedFeatures else network.call, "python_function")
    layers.reestimate_batch_statistics(network, x)
    np.testing.assert_allclose(network.norm.moving_mean, x.mean(axis=0), rtol=1e-4)
    np.testing.assert_allclose(network(x), network.head(network.norm(x)), rtol=1e-6)


@pytest.mark.parametrize("count", [1, 3, 33])
def test_one_number_per_image_is_the_probability_of_yes(count):
    x = keras.Input((4,))
    y = keras.layers.Dense(1, activation="sigmoid")(keras.layers.Dropout(0.5, seed=1)(x))
    images = RNG.normal(size=(count, 4)).astype("float32")
    flat = keras.Model(x, keras.layers.Reshape(())(y))
    result = layers.monte_carlo(flat, images, samples=3)
    assert result.mean.shape == result.mutual_information.shape == (count,)
    assert result.mutual_information.max() > 0


def test_states_are_restored():
    x = keras.Input(batch_shape=(2, 5, 3))
    lstm = keras.layers.LSTM(4, stateful=True)
    network = keras.Model(x, keras.layers.Dropout(1e-9)(lstm(x)))
    images = RNG.normal(size=(4, 5, 3)).astype("float32")
    network(images[:2])
    before = [state.numpy() for state in lstm.states]
    result = layers.monte_carlo(network, images, samples=3, batch_size=2)
    assert result.std.max() < 1e-6
    for old, new in zip(before, lstm.states, strict=True):
        np.testing.assert_array_equal(old, new)


def test_models_without_noise_too_few_samples_and_several_outputs_are_refused():
    two = model(keras.layers.Dropout(0.5))
    with pytest.raises(ValueError, match="has 2 outputs; expected one"):
        layers.monte_carlo(keras.Model(two.inputs, [two.output, two.output]), images(), samples=2)
    with pytest.raises(ValueError, match="has no noise layer"):
        layers.monte_carlo(model(), images(), samples=4)
    with pytest.raises(ValueError, match="samples must be at least 2"):
        layers.monte_carlo(model(keras.layers.Dropout(0.5)), images(), samples=1)
    with pytest.raises(ValueError, match="images is empty"):
        layers.monte_carlo(model(keras.layers.Dropout(0.5)), images(0))


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


class PlainCall(keras.layers.BatchNormalization):
    def call(self, x, training=False):
        return super().call(x, training=training)


@pytest.mark.parametrize("make", [keras.layers.BatchNormalization, PlainCall])
def test_reestimation_repairs_what_is_not_finite(make):
    norm = make()
    network = keras.Sequential([keras.Input((4,)), norm])
    norm.moving_mean.assign([np.nan, np.inf, 0, -np.inf])
    norm.moving_variance.assign([np.inf, 1, np.nan, np.nan])
    x = RNG.normal(3, 2, (40, 4)).astype("float32")
    layers.reestimate_batch_statistics(network, x)
    np.testing.assert_allclose(norm.moving_mean, x.mean(axis=0), rtol=1e-4)
    np.testing.assert_allclose(norm.moving_variance, x.var(axis=0), rtol=1e-4)


def test_reestimated_statistics_of_a_shared_layer_are_those_of_all_its_calls():
    inputs, norm = [keras.Input((2,)), keras.Input((2,))], keras.layers.BatchNormalization()
    network = keras.Model(inputs, keras.layers.Add()([norm(x) for x in inputs]))
    a, b = RNG.normal(3, 1, (40, 2)).astype("float32"), RNG.normal(-1, 2, (40, 2)).astype("float32")
    layers.reestimate_batch_statistics(network, [((a[:30], b[:30]), None), ((a[30:], b[30:]), None)])
    both = np.concatenate([a, b])
    np.testing.assert_allclose(norm.moving_mean, both.mean(axis=0), rtol=1e-4)
    np.testing.assert_allclose(norm.moving_variance, both.var(axis=0), rtol=1e-4)


def test_reestimated_statistics_weigh_pixels_and_leave_masked_steps_out():
    norm = keras.layers.BatchNormalization()
    network = keras.Sequential([keras.Input((None, 2)), keras.layers.Masking(0.0), norm])
    steps = RNG.normal(1, 2, (7, 2)).astype("float32")
    padded = np.concatenate([steps[2:5], np.zeros((3, 2), "float32")])
    layers.reestimate_batch_statistics(network, [steps[None, :2], padded[None], steps[None, 5:]])
    np.testing.assert_allclose(norm.moving_mean, steps.mean(axis=0), rtol=1e-4)
    np.testing.assert_allclose(norm.moving_variance, steps.var(axis=0), rtol=1e-4)


def test_reestimation_reaches_nested_and_frozen_layers_and_leaves_them_frozen():
    network = keras.Sequential([keras.Input((12, 12, 3)), model()])
    frozen = layers.freeze_batch_statistics(network)
    network.trainable = False
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
