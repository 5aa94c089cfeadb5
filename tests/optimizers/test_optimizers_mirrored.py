"""Two replicas of MirroredStrategy train like one device; in a process of its own, as devices precede TensorFlow."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]

PROGRAM = """
import tensorflow as tf
cpu = tf.config.list_physical_devices("CPU")[0]
tf.config.set_logical_device_configuration(cpu, [tf.config.LogicalDeviceConfiguration()] * 2)
import keras
from optimizer_contracts import OPTIMIZERS, compiled, data, fitted, network, same, values

x, y = data()
strategy = tf.distribute.MirroredStrategy(["CPU:0", "CPU:1"])  # one: the collectives of a second would collide
for name in ("Momentum", "Adam", "Discriminative(Adam)", "Discriminative(keras AdamW)"):
    make = OPTIMIZERS[name]
    single = fitted(make, steps=3, jit_compile=False)
    with strategy.scope():
        double = network()
        compiled(double, make(0.01), jit_compile=False)
    double.fit(x[:24], y[:24], 8, 1, shuffle=False, verbose=0)
    same(single.trainable_variables, values(double.trainable_variables), rtol=1e-3, atol=5e-5)
    print(name, "equal")

import optimizers


def averaged():
    model = fresh()
    compiled(model, optimizers.Momentum(0.01), jit_compile=False)
    return model, [optimizers.PolyakAveraging(0.5)]


def sharp(adaptive=False):
    model = fresh()
    compiled(optimizers.sharpness_aware(model, 0.5, adaptive), optimizers.Momentum(0.01), jit_compile=False)
    return model, []


def scaled():
    model = fresh()
    inner = optimizers.Discriminative(optimizers.Momentum(0.01), {".*": 0.5})
    compiled(model, keras.optimizers.LossScaleOptimizer(inner, 64.0), jit_compile=False)
    return model, [optimizers.UniformAveraging(1)]


def fresh():
    keras.utils.set_random_seed(1)
    return keras.Sequential(
        [keras.Input((6,)), keras.layers.Dense(8, activation="tanh"), keras.layers.BatchNormalization(trainable=False),
         keras.layers.Dropout(0.0, seed=1), keras.layers.Dense(2)]
    )


for make in (averaged, sharp, lambda: sharp(True), scaled):
    single, callbacks = make()
    start = values(single.trainable_variables)
    single.fit(x[:24], y[:24], 8, 2, shuffle=False, verbose=0, callbacks=callbacks)
    with strategy.scope():
        double, callbacks = make()
    double.fit(x[:24], y[:24], 8, 2, shuffle=False, verbose=0, callbacks=callbacks)
    assert max(abs(a - b).max() for a, b in zip(start, values(single.trainable_variables))) > 1e-2
    same(single.trainable_variables, values(double.trainable_variables), rtol=1e-3, atol=5e-5)
    for variable in double.trainable_variables:  # the copies have not drifted apart
        copies = [c.numpy() for c in variable.value.values]
        assert (copies[0] == copies[1]).all(), variable.path
    print(make.__name__, "equal")
"""


@pytest.mark.slow
def test_mirrored_equals_single():
    environment = {**os.environ, "KERAS_BACKEND": "tensorflow", "PYTHONPATH": f"{ROOT}{os.pathsep}{ROOT / 'tests'}"}
    command = [sys.executable, "-c", PROGRAM]
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr[-4000:]
    assert done.stdout.count("equal") == 8, done.stdout
