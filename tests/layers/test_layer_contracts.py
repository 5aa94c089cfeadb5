"""Every public layer against the contract: shapes, configuration, files, precision, XLA, seeds, modes, statistics."""

import inspect
import os
import subprocess
import sys
from pathlib import Path

import keras
import numpy as np
import pytest
from layer_contracts import CONTRACTS

import layers

BACKEND = keras.backend.backend()
ALL = pytest.mark.parametrize("contract", CONTRACTS.values(), ids=CONTRACTS.keys())


def only(condition):
    chosen = {name: contract for name, contract in CONTRACTS.items() if condition(contract)}
    return pytest.mark.parametrize("contract", chosen.values(), ids=chosen.keys())


def images(contract, batch=4, seed=0):
    return np.random.default_rng(seed).normal(size=(batch, *contract.shape)).astype("float32")


def numpy(x):
    return np.asarray(keras.ops.convert_to_numpy(keras.ops.cast(x, "float32")))


def model_of(layer, contract):
    inputs = keras.Input(contract.shape)
    return keras.Model(inputs, layer(inputs))


class Together(keras.Model):
    """The outputs of several layers for the same inputs, whatever mode the model is called in."""

    def __init__(self, layers, training):
        super().__init__()
        self.each, self.mode = layers, training

    def call(self, inputs):
        return [layer(inputs, training=self.mode) for layer in self.each]


def draws(x, count, *each, training=True):
    """Of each layer `count` outputs for `x`, each the next draw: one compiled prediction of batches that are `x`."""
    outputs = Together(each, training).predict(np.concatenate([x] * count), batch_size=len(x), verbose=0)
    drawn = [y.reshape(count, *x.shape[:1], *y.shape[1:]) for y in outputs]
    return drawn if len(each) > 1 else drawn[0]


def test_every_public_layer_has_a_contract():
    public = {name for name, thing in vars(layers).items() if inspect.isclass(thing)}
    public = {name for name in public if issubclass(getattr(layers, name), keras.layers.Layer)}
    assert public <= {name.split()[0] for name in CONTRACTS}
    assert public <= set(layers.__all__)


@ALL
@pytest.mark.parametrize("training", [None, False, True])
def test_shape_inference(contract, training):
    layer = contract.make()
    outputs = layer(images(contract), training=training)
    assert tuple(outputs.shape) == tuple(layer.compute_output_shape((4, *contract.shape)))
    assert model_of(layer, contract).output_shape == (None, *outputs.shape[1:])


@ALL
def test_config_round_trip(contract):
    layer = contract.make(rate=0.3, seed=7)
    again = type(layer).from_config(layer.get_config())
    assert again.get_config() == layer.get_config()
    if contract.has_rate:
        assert again.rate == 0.3


@pytest.mark.filterwarnings("ignore:.build... was called on layer")  # Keras's, of every such layer in a file
@ALL
def test_keras_file(contract, tmp_path):
    model = model_of(contract.make(seed=11), contract)
    model.save(tmp_path / "model.keras")
    again = keras.saving.load_model(tmp_path / "model.keras")
    x = images(contract)
    np.testing.assert_array_equal(numpy(again(x, training=False)), numpy(model(x, training=False)))
    # both stand at the first draw of the same seed
    np.testing.assert_array_equal(numpy(again(x, training=True)), numpy(model(x, training=True)))


@ALL
@pytest.mark.parametrize(
    "policy", ["mixed_float16", "mixed_bfloat16"] if BACKEND == "tensorflow" else ["mixed_float16"]
)
def test_mixed_precision(contract, policy):
    old = keras.config.dtype_policy()
    keras.config.set_dtype_policy(policy)
    try:
        layer = contract.make()
    finally:
        keras.config.set_dtype_policy(old)
    x = images(contract)
    for training in (False, True):
        outputs = layer(x, training=training)
        assert keras.backend.standardize_dtype(outputs.dtype) == layer.compute_dtype == policy[6:]
        assert np.isfinite(numpy(outputs)).all()
    exact = type(layer).from_config(contract.make().get_config())
    exact.build((4, *contract.shape))
    exact.set_weights(layer.get_weights())
    np.testing.assert_allclose(numpy(layer(x)), numpy(exact(x)), atol=0.1)
    for variable in layer.weights:
        assert keras.backend.standardize_dtype(variable.dtype) == "float32"


# TensorFlow mixes no types; JAX and torch do, and JAX has no float64 unless told
@pytest.mark.slow
@pytest.mark.parametrize("policy", ["float16", "bfloat16", "float64"] if BACKEND == "tensorflow" else ["float16"])
def test_pure_precision_in_a_graph(policy):
    """All layers in one compiled step, one with a loss of its own: operations there do not convert types.

    JAX computes in the same types whether it compiles or not; compiling the step would take it 20 s.
    """
    old = keras.config.dtype_policy()
    keras.config.set_dtype_policy(policy)
    try:
        made = {name: contract.make() for name, contract in CONTRACTS.items()}
        dense = keras.layers.Dense(6, activity_regularizer="l2")
        made["loss"] = layers.StochasticResidual(dense, 0.4, seed=1)
    finally:
        keras.config.set_dtype_policy(old)
    inputs = [keras.Input(contract.shape) for contract in CONTRACTS.values()] + [keras.Input((6,))]
    model = keras.Model(inputs, [layer(x) for layer, x in zip(made.values(), inputs, strict=True)])
    assert {x.dtype for x in model.outputs} == {policy}
    model.compile("sgd", ["mse"] * len(inputs), jit_compile=False)
    x = [np.zeros((2, *each.shape[1:]), "float32") for each in inputs]
    for training in (True, False):
        outputs = model(x, training=training)
        assert {keras.backend.standardize_dtype(y.dtype) for y in outputs} == {policy}
    if BACKEND != "jax":
        assert np.isfinite(model.train_on_batch(x, [numpy(y) for y in outputs])[0])


def train(contract, jit):
    """Two training steps; returns the model."""
    model = model_of(contract.make(), contract)
    model.compile("sgd", "mse", jit_compile=jit)
    x = images(contract)
    losses = [model.train_on_batch(x, np.zeros_like(numpy(model(x)))) for _ in range(2)]
    assert np.isfinite(losses).all()
    return model


@pytest.mark.skipif(BACKEND == "jax", reason="JAX compiles every training step, as in test_xla")
@ALL
def test_training_step(contract):
    train(contract, jit=False)


@pytest.mark.slow
@pytest.mark.skipif(BACKEND == "torch", reason="torch.compile needs a C++ toolchain")
@ALL
def test_xla(contract):
    model, x = train(contract, jit=True), images(contract)
    np.testing.assert_allclose(model.predict(x, verbose=0), numpy(model(x, training=False)), atol=1e-5)


def on_gpu() -> bool:
    return any(name.startswith("gpu") for name in keras.distribution.list_devices())


@pytest.mark.skipif(BACKEND == "torch", reason="Keras exports no SavedModel from torch")
@ALL
def test_saved_model(contract, tmp_path):
    tf = pytest.importorskip("tensorflow")
    if BACKEND == "jax" and contract is CONTRACTS["DropConnect gaussian"]:
        pytest.skip("JAX 0.10 exports erf (gelu, too) as an operation that TensorFlow 2.21 cannot read")
    if BACKEND == "jax" and on_gpu() and not tf.config.list_physical_devices("GPU"):
        pytest.skip("JAX exports for the GPU that it computes on, which this TensorFlow cannot use")
    model, x = model_of(contract.make(), contract), images(contract)
    model.export(tmp_path / "model", verbose=False)
    served = tf.saved_model.load(tmp_path / "model")  # kept: it owns the variables
    np.testing.assert_allclose(served.serve(x).numpy(), numpy(model(x, training=False)), atol=1e-5)


@only(lambda contract: contract.random)
def test_seeds(contract):
    x = images(contract, batch=16)
    layer, twin, other = contract.make(seed=5), contract.make(seed=5), contract.make(seed=6)
    for each in (twin, other):
        each.build(x.shape)
    layer.build(x.shape)
    for each in (twin, other):
        each.set_weights(layer.get_weights())
    drawn = draws(x, 16, layer, twin, other)
    np.testing.assert_array_equal(drawn[0], drawn[1])
    assert np.ptp(drawn[0], axis=0).max() > 0
    assert not np.array_equal(drawn[0], drawn[2])


@only(lambda contract: contract.random)
def test_inference_draws_nothing(contract):
    x, layer = images(contract), contract.make()
    first = numpy(layer(x))
    np.testing.assert_array_equal(first, numpy(layer(x, training=False)))
    np.testing.assert_array_equal(first, numpy(layer(x, training=None)))


@only(lambda contract: contract.has_rate)
def test_rate_zero_is_the_identity(contract):
    x, layer = images(contract), contract.make(rate=0)
    layer(x)
    for inner in layer._flatten_layers():
        if isinstance(inner, keras.layers.BatchNormalization):
            inner.trainable = False  # frozen: in training as in inference
    np.testing.assert_array_equal(numpy(layer(x, training=True)), numpy(layer(x, training=False)))


@only(lambda contract: contract.has_rate)
@pytest.mark.parametrize("rate", [-0.1, 1, 1.5, float("nan"), "0.5", None, True])
def test_rates_outside_the_range_are_refused(contract, rate):
    with pytest.raises(ValueError, match=r"probability of dropping, a number in \[0, 1\)"):
        contract.make(rate=rate)


@pytest.mark.slow
@only(lambda contract: contract.random and contract.exact_mean)
def test_mean_over_draws_is_the_inference_output(contract):
    x, layer = images(contract, batch=2), contract.make(seed=3)
    drawn = draws(x, 400, layer).astype("float64")
    error = drawn.std(axis=0, ddof=1) / np.sqrt(len(drawn)) + 1e-6
    z = (drawn.mean(axis=0) - numpy(layer(x))) / error
    assert np.abs(z).max() < 5


@only(lambda contract: contract.random)
def test_noise_can_be_turned_on_in_inference(contract):
    x, layer = images(contract, batch=16), contract.make(seed=3)
    layer.noise_on = True
    assert np.ptp(draws(x, 16, layer, training=False), axis=0).max() > 0


@pytest.mark.minutes
@pytest.mark.skipif(BACKEND != "tensorflow", reason="the parent process runs the others")
@pytest.mark.parametrize("backend", ["jax", "torch"])
def test_other_backends(backend):
    """All of this file and of others. JAX compiles every small thing, unoptimised in half the time."""
    pytest.importorskip(backend)
    others = ("test_wrapped_layers.py", "test_frozen_statistics.py")
    files = [__file__, *(str(Path(__file__).with_name(name)) for name in others)]
    command = [sys.executable, "-m", "pytest", "-q", "-x", "-p", "no:cacheprovider", *files]
    environment = {**os.environ, "KERAS_BACKEND": backend, "JAX_DISABLE_MOST_OPTIMIZATIONS": "true"}
    root = Path(__file__).resolve().parents[2]
    done = subprocess.run(command, cwd=root, env=environment, capture_output=True, text=True, timeout=900)
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-2000:]
