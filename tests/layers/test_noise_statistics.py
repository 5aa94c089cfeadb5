"""Each noise layer against an independent oracle: closed-form variances, finite differences, NumPy, tf.nn."""

import keras
import numpy as np
import pytest
import tensorflow as tf
from scipy import integrate, stats

import layers
from layers.drop_connect import _masked_matmul
from layers.fractional_max_pooling import output_length, pseudorandom_boundaries, random_boundaries

pytestmark = pytest.mark.skipif(keras.backend.backend() != "tensorflow", reason="oracles in TensorFlow")
RNG = np.random.default_rng(0)


def draws(layer, x, count=400):
    return np.stack([layer(x, training=True).numpy() for _ in range(count)]).astype("float64")


def assert_variance(samples, expected):
    """Within 5 standard errors of a variance estimated from the samples' fourth moment."""
    centred = samples - samples.mean(axis=0)
    error = np.sqrt(((centred**4).mean(axis=0) - (centred**2).mean(axis=0) ** 2) / len(samples)) + 1e-6
    assert np.abs((centred**2).mean(axis=0) - expected).max() < 5 * error.max()


@pytest.mark.slow
@pytest.mark.parametrize("per_example", [False, True])
@pytest.mark.parametrize("drop_bias", [False, True])
def test_drop_connect_variance(per_example, drop_bias):
    x, rate = RNG.normal(size=(2, 8)).astype("float32"), 0.3
    dense = keras.layers.Dense(3, bias_initializer="normal")
    layer = layers.DropConnect(dense, rate, per_example=per_example, drop_bias=drop_bias, seed=1)
    layer(x)
    variance = x**2 @ dense.kernel.numpy() ** 2 + drop_bias * dense.bias.numpy() ** 2
    assert_variance(draws(layer, x, 250), rate / (1 - rate) * variance)


def test_drop_connect_masks_differ_between_examples_only_when_asked():
    x = np.ones((5, 8), "float32")
    per_batch = layers.DropConnect(keras.layers.Dense(3), 0.5, seed=1)(x, training=True).numpy()
    per_example = layers.DropConnect(keras.layers.Dense(3), 0.5, per_example=True, seed=1)(x, training=True).numpy()
    assert np.ptp(per_batch, axis=0).max() < 1e-6
    assert (np.ptp(per_example, axis=0) > 1e-3).all()


def test_inverted_equals_vanilla():
    """The lecture's two forms: M∘W and in inference (1 − rate) W; M∘W / (1 − rate) and in inference W."""
    x, rate = RNG.normal(size=(4, 8)).astype("float32"), 0.4
    inverted = layers.DropConnect(keras.layers.Dense(3, use_bias=False), rate, seed=1)
    inverted(x)
    kernel = inverted.layer.kernel.numpy()
    inverted.seed_generator.state.assign([9, 0])
    mask = keras.random.uniform((8, 3), seed=keras.random.SeedGenerator(9)).numpy() >= rate
    vanilla = kernel / (1 - rate)
    np.testing.assert_allclose(inverted(x, training=True), x @ (mask * vanilla), rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(inverted(x), x @ ((1 - rate) * vanilla), rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("activation", ["relu", "tanh", "elu", "sigmoid"])
def test_gaussian_inference_is_the_expectation_over_the_moment_matched_normal(activation):
    x, rate = np.random.default_rng(0).normal(size=(3, 8)).astype("float32"), 0.5
    dense = keras.layers.Dense(2, activation=activation, kernel_initializer=keras.initializers.GlorotUniform(1))
    layer = layers.DropConnect(dense, rate, inference="gaussian")
    outputs, kernel = layer(x).numpy(), layer.layer.kernel.numpy()
    mean, std = x @ kernel, np.sqrt(rate / (1 - rate) * (x**2 @ kernel**2))
    function = {
        "relu": lambda u: max(u, 0.0),
        "tanh": np.tanh,
        "elu": lambda u: u if u > 0 else np.expm1(u),
        "sigmoid": lambda u: 1 / (1 + np.exp(-u)),
    }[activation]
    for m, s, y in zip(mean.ravel(), std.ravel(), outputs.ravel(), strict=True):
        expected, _ = integrate.quad(
            lambda z, m=m, s=s: function(m + s * z) * stats.norm.pdf(z), -9, 9, points=[-m / s]
        )
        assert y == pytest.approx(expected, abs=1e-6 if activation == "relu" else 5e-3)


def test_gaussian_inference_is_nearer_to_the_draws_than_the_mean():
    x = RNG.normal(size=(16, 64)).astype("float32")
    layer = layers.DropConnect(keras.layers.Dense(8, activation="relu"), 0.5, inference="gaussian", seed=1)
    sampled, gaussian = draws(layer, x, 200).mean(axis=0), layer(x).numpy()
    assert np.abs(gaussian - sampled).mean() < 0.3 * np.abs(layer.layer(x).numpy() - sampled).mean()


def test_gradient_through_per_example_masks():
    x, kernel = tf.constant(RNG.normal(size=(3, 2, 4))), tf.constant(RNG.normal(size=(4, 5)))
    seeds = tf.constant([[1, 2], [3, 4], [5, 6]], "int32")
    theoretical, numerical = tf.test.compute_gradient(_masked_matmul(0.5, seeds), [x, kernel])
    for exact, finite in zip(theoretical, numerical, strict=True):
        np.testing.assert_allclose(exact, finite, atol=1e-6)


def test_gradient_through_a_mask_per_batch_is_the_masked_gradient():
    x = tf.constant(RNG.normal(size=(3, 8)).astype("float32"))
    layer = layers.DropConnect(keras.layers.Dense(4, use_bias=False), 0.5, seed=2)
    layer(x)
    with tf.GradientTape() as tape:
        y = tf.reduce_sum(layer(x, training=True) ** 2)
    gradient = tape.gradient(y, layer.trainable_variables[0]).numpy()
    mask = keras.random.uniform((8, 4), seed=keras.random.SeedGenerator(2)).numpy() >= 0.5
    kernel = 2 * mask * layer.layer.kernel.numpy()
    np.testing.assert_allclose(gradient, 2 * mask * (x.numpy().T @ (2 * x.numpy() @ kernel)), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("per_example", [False, True])
def test_stochastic_depth_mask_and_variance(per_example):
    x, rate = np.ones((6, 4, 3), "float32"), 0.25
    samples = draws(layers.StochasticDepth(rate, per_example=per_example, seed=1), x)
    assert np.ptp(samples, axis=(2, 3)).max() == 0  # one draw per branch
    assert (np.ptp(samples, axis=1).max() == 0) is np.bool_(not per_example)
    np.testing.assert_allclose(np.unique(samples), [0, 1 / (1 - rate)], rtol=1e-6)
    assert_variance(samples, rate / (1 - rate))


def test_linear_rates_are_the_papers():
    """p_l = 1 − l/L (1 − p_L), survival; the paper's p_L = 0.5 keeps 3/4 of the blocks on average."""
    rates = layers.linear_rates(54, 0.5)
    np.testing.assert_allclose(1 - np.array(rates), [1 - block / 54 * (1 - 0.5) for block in range(1, 55)])
    for depth, last in ((0, 0.5), (2.5, 0.5), (3, 1.0)):
        with pytest.raises(ValueError):
            layers.linear_rates(depth, last)


def residual():
    branch = keras.Sequential([keras.layers.Dense(3), keras.layers.BatchNormalization(momentum=0.5)])
    layer = layers.StochasticResidual(branch, 0.5, seed=3)
    layer.build((None, 3))
    return layer


def test_stochastic_residual_skips_gradient_and_statistics():
    layer, x = residual(), tf.constant(RNG.normal(size=(8, 3)).astype("float32"))
    moving = layer.layer.layers[-1].moving_mean
    step = tf.function(lambda: layer(x, training=True))
    outcomes = set()
    for _ in range(12):
        before = moving.numpy()
        with tf.GradientTape() as tape:
            y = step()
        gradients = tape.gradient(y, layer.trainable_variables)
        kept = not np.array_equal(y, x)
        outcomes.add(kept)
        assert kept is (not np.array_equal(moving.numpy(), before))
        assert kept or all(np.abs(g).max() == 0 for g in gradients if g is not None)
    assert outcomes == {True, False}


def test_stochastic_residual_does_not_run_a_dropped_branch():
    runs = []

    class Counting(keras.layers.Layer):
        def call(self, inputs):
            runs.append(1)
            return inputs

    layer, x = layers.StochasticResidual(Counting(), 0.5, seed=1), np.ones((1, 2), "float32")
    layer.build((1, 2))
    runs.clear()
    doubled = sum(bool((layer(x, training=True).numpy() == 3).all()) for _ in range(40))
    assert 0 < doubled < 40
    assert len(runs) == doubled


def test_stochastic_residual_refuses_a_branch_that_changes_the_shape():
    with pytest.raises(ValueError, match="must keep the shape"):
        layers.StochasticResidual(keras.layers.Dense(4), 0.5)(np.ones((2, 3), "float32"))


def test_stochastic_residual_keeps_the_branch_losses():
    branch = keras.layers.Dense(3, activity_regularizer="l2", kernel_initializer="ones")
    layer = layers.StochasticResidual(branch, 0.2, seed=1)
    seen = []
    for _ in range(10):
        y = layer(np.ones((2, 3), "float32"), training=True).numpy()
        seen.append((bool((y > 1).all()), float(sum(layer.losses))))
    assert all((loss > 0) is kept for kept, loss in seen)


@pytest.mark.parametrize("overlapping", [False, True])
@pytest.mark.parametrize("pseudo_random", [False, True])
@pytest.mark.parametrize(("size", "ratios"), [((13, 17), (1.44, 1.3)), ((7, 5), (1.9, 1.9)), ((13, 17), (2.4, 3.7))])
def test_fractional_max_pool_is_tensorflows(overlapping, pseudo_random, size, ratios):
    x = tf.constant(RNG.normal(size=(3, *size, 2)).astype("float32"))
    y, rows, columns = tf.nn.fractional_max_pool(x, [1, *ratios, 1], pseudo_random, overlapping, seed=1)
    with tf.GradientTape() as tape:
        tape.watch(x)
        ours = layers.fractional_max_pool(x, tf.cast(rows, "int32"), tf.cast(columns, "int32"), overlapping=overlapping)
        total = tf.reduce_sum(ours**3)
    np.testing.assert_array_equal(ours, y)
    theirs = tf.raw_ops.FractionalMaxPoolGrad(
        orig_input=x,
        orig_output=y,
        out_backprop=3 * y**2,
        row_pooling_sequence=rows,
        col_pooling_sequence=columns,
        overlapping=overlapping,
    )
    np.testing.assert_allclose(tape.gradient(total, x), theirs, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("rows", [[0, 3, 4, 5, 6], [1, 2, 4, 6], [0, 2, 4], [0, 2, 2, 4, 6]])
def test_boundaries_that_are_no_layout_are_refused(rows):
    with pytest.raises(ValueError, match=r"rise from 0 to 6 in steps of 1 to [23]"):
        layers.fractional_max_pool(np.zeros((1, 6, 6, 1), "float32"), [0, 2, 3, 5, 6], rows)


def test_an_unknown_number_of_boundaries_is_refused():
    @tf.function(input_signature=[tf.TensorSpec((None,), "int32")])
    def pooled(rows):
        return layers.fractional_max_pool(tf.zeros((1, 7, 7, 1)), rows, rows)

    with pytest.raises(ValueError, match=r"must be known, got the shape \(None,\)"):
        pooled(tf.constant([0, 2, 4, 7]))


@pytest.mark.parametrize("overlapping", [False, True])
def test_gradient_among_equal_pixels_goes_to_one(overlapping):
    x, rows = tf.zeros((1, 6, 6, 1)), tf.constant([0, 2, 3, 5, 6])
    with tf.GradientTape() as tape:
        tape.watch(x)
        y = layers.fractional_max_pool(x, rows, rows, overlapping=overlapping)
    gradient = tape.gradient(y, x).numpy()
    assert gradient.sum() == 16
    assert gradient[0, ::1, ::1, 0][[1, 4]].sum() == 0  # the second pixels of regions of two


@pytest.mark.parametrize("length", [2, 3, 5, 13, 32, 97])
@pytest.mark.parametrize("ratio", [1.01, 1.25, 2**0.5, 1.99])
def test_regions_partition_the_image_in_steps_of_one_and_two(length, ratio):
    pooled, seed = output_length(length, ratio), keras.random.SeedGenerator(0)
    layouts = [np.array(pseudorandom_boundaries(length, pooled, offset)) for offset in range(1, length + 1)]
    layouts += [np.array(random_boundaries(length, pooled, seed)) for _ in range(5)]
    for boundaries in layouts:
        assert boundaries[0] == 0
        assert boundaries[-1] == length
        assert set(np.diff(boundaries)) <= {1, 2}


def test_pseudorandom_layouts_are_grahams():
    """b_i = ⌈α (i + u)⌉ − ⌈α u⌉ in real arithmetic, at phases where no ceiling is near a jump."""
    length, pooled = 32, 22
    alpha = length / pooled
    for u in (0.0301, 0.2111, 0.5037, 0.9013):
        expected = np.ceil(alpha * (np.arange(pooled + 1) + u)) - np.ceil(alpha * u)
        ours = pseudorandom_boundaries(length, pooled, int(np.ceil(length * u)))
        np.testing.assert_array_equal(np.array(ours), expected)


@pytest.mark.parametrize("ratio", [1, 2, 0.5, 3, "1.4", None])
def test_ratio_outside_one_and_two_is_refused(ratio):
    with pytest.raises(ValueError, match="strictly between 1 and 2"):
        layers.FractionalMaxPooling2D(ratio)


def test_unknown_image_size_is_refused():
    with pytest.raises(ValueError, match="known height and width"):
        layers.FractionalMaxPooling2D()(keras.Input((None, None, 3)))


def test_channels_first_is_channels_last_transposed():
    x = RNG.normal(size=(2, 9, 11, 3)).astype("float32")
    last = layers.FractionalMaxPooling2D(data_format="channels_last")(x).numpy()
    first = layers.FractionalMaxPooling2D(data_format="channels_first")(x.transpose(0, 3, 1, 2)).numpy()
    np.testing.assert_array_equal(first.transpose(0, 2, 3, 1), last)


def test_maxout_of_channels_first_is_that_of_channels_last_transposed():
    x = RNG.normal(size=(2, 9, 11, 3)).astype("float32")
    last = layers.Maxout(4, 2, kernel_size=(3, 2), strides=2, data_format="channels_last")
    first = layers.Maxout(4, 2, kernel_size=(3, 2), strides=2, data_format="channels_first")
    y = last(x).numpy()
    first.build((None, 3, 9, 11))
    first.set_weights(last.get_weights())
    np.testing.assert_allclose(first(x.transpose(0, 3, 1, 2)).numpy().transpose(0, 2, 3, 1), y, rtol=1e-6)
    assert first.compute_output_shape((None, 3, 9, 11)) == (None, 4, *y.shape[1:3])


def test_maxout_follows_the_default_data_format_and_its_file():
    old = {k: v for k, v in layers.Maxout(4, 2, kernel_size=(3, 3)).get_config().items() if k != "data_format"}
    keras.config.set_image_data_format("channels_first")
    try:
        assert layers.Maxout(4, 2, kernel_size=(3, 3)).data_format == "channels_first"
        assert layers.Maxout.from_config(old).data_format == "channels_last"  # as earlier versions wrote it
        assert layers.Maxout(4, 2)(np.ones((2, 5, 6))).shape == (2, 5, 4)
    finally:
        keras.config.set_image_data_format("channels_last")


def test_maxout_is_the_largest_affine_function():
    x = RNG.normal(size=(4, 6)).astype("float32")
    layer = layers.Maxout(3, 5)
    y = layer(x).numpy()
    affine = x @ layer.affine.kernel.numpy() + layer.affine.bias.numpy()
    np.testing.assert_allclose(y, affine.reshape(4, 5, 3).max(axis=1), rtol=1e-6)


def test_maxout_can_be_the_absolute_value():
    layer, x = layers.Maxout(1, 2), np.array([[-2.0], [3.0]], "float32")
    layer.build((None, 1))
    layer.set_weights([np.array([[1.0, -1.0]]), np.zeros(2)])
    np.testing.assert_array_equal(layer(x), [[2], [3]])


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: layers.DropConnect(keras.layers.ReLU(), 0.5)(np.ones((1, 2))), "needs a layer with a kernel"),
        (lambda: layers.DropConnect(keras.layers.Conv2D(2, 3), 0.5, per_example=True), "per_example needs a Dense"),
        (lambda: layers.DropConnect(keras.layers.Dense(2), 0.5, inference="median"), '"mean" or "gaussian"'),
        (
            lambda: layers.DropConnect(keras.layers.Dense(2, activation="softmax"), 0.5, inference="gaussian"),
            "elementwise",
        ),
        *(
            (
                lambda activation=activation: layers.DropConnect(
                    keras.layers.Dense(2, activation=activation), 0.5, inference="gaussian"
                ),
                "elementwise",
            )
            for activation in (keras.layers.Softmax(), keras.layers.Activation("log_softmax"), tf.nn.softmax)
        ),
        (lambda: layers.Maxout(2, 2, kernel_size=3), r"kernel_size must be a tuple.*got 3; for images use \(3, 3\)"),
        (lambda: layers.Maxout(2, 2, data_format="NCHW"), 'data_format must be "channels_last" or "channels_first"'),
        (lambda: layers.Maxout(0, 2), "units must be a positive integer"),
        (lambda: layers.Maxout(2, 2, kernel_size=(1, 1, 1, 1)), "1, 2 or 3 entries"),
        (lambda: layers.FractionalMaxPooling2D(mode="chaotic"), '"random" or "pseudorandom"'),
    ],
)
def test_wrong_use_is_named(make, message):
    with pytest.raises(ValueError, match=message):
        make()


def test_numbers_of_numpy_are_numbers():
    assert layers.StochasticDepth(np.float32(0.25)).rate == 0.25
    assert layers.linear_rates(np.int64(2), np.float64(0.5)) == [0.25, 0.5]
    assert layers.Maxout(np.int64(2), np.int32(3)).get_config()["pieces"] == 3
    assert layers.FractionalMaxPooling2D(np.float32(1.5)).ratio == 1.5


def test_an_activation_that_is_an_elementwise_layer_is_averaged():
    layer = layers.DropConnect(keras.layers.Dense(2, activation=keras.layers.ReLU()), 0.5, inference="gaussian")
    x = RNG.normal(size=(3, 4)).astype("float32")
    outputs = layer(x).numpy()
    layer.layer.activation = keras.activations.relu
    np.testing.assert_allclose(outputs, layer(x), atol=0.05)


def test_drop_connect_masks_recurrent_kernels():
    x = RNG.normal(size=(2, 5, 3)).astype("float32")
    layer = layers.DropConnect(keras.layers.LSTM(4), 0.5, seed=1)
    y = layer(x).numpy()
    np.testing.assert_array_equal(y, layer.layer(x))
    assert np.abs(layer(x, training=True).numpy() - y).max() > 1e-3
