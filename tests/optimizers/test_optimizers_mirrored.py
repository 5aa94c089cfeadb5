"""Two replicas of MirroredStrategy train like one device; in a process of its own, as devices precede TensorFlow."""

import os
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]

PROGRAM = """
import tensorflow as tf
cpu = tf.config.list_physical_devices("CPU")[0]
tf.config.set_logical_device_configuration(cpu, [tf.config.LogicalDeviceConfiguration()] * 2)
import keras
from optimizer_contracts import OPTIMIZERS, compiled, data, fitted, network, same, values

x, y = data()
for name in ("Momentum", "Adam", "Discriminative(Adam)", "Discriminative(keras AdamW)"):
    make = OPTIMIZERS[name]
    single = fitted(make, steps=3, jit_compile=False)
    with tf.distribute.MirroredStrategy(["CPU:0", "CPU:1"]).scope():
        double = network()
        compiled(double, make(0.01), jit_compile=False)
    double.fit(x[:24], y[:24], 8, 1, shuffle=False, verbose=0)
    same(single.trainable_variables, values(double.trainable_variables), rtol=1e-3, atol=5e-5)
    print(name, "equal")
"""


def test_mirrored_equals_single():
    environment = {**os.environ, "KERAS_BACKEND": "tensorflow", "PYTHONPATH": f"{ROOT}{os.pathsep}{ROOT / 'tests'}"}
    command = [sys.executable, "-c", PROGRAM]
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr[-4000:]
    assert done.stdout.count("equal") == 4, done.stdout
