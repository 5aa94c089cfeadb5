"""Two and four replicas train like one device; in a process of its own, for devices precede TensorFlow."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]

PROGRAM = """
import inspect
import io
import tempfile
from contextlib import redirect_stdout
from dataclasses import replace
import tensorflow as tf
cpu = tf.config.list_physical_devices("CPU")[0]
tf.config.set_logical_device_configuration(cpu, [tf.config.LogicalDeviceConfiguration()] * 4)
import keras
import numpy as np
import recipes
from makers import arrays, small_network
from victim import At, interrupted
from recipes.networks.classifier import logits_model
from recipes.networks.backbones import resolve
from recipes.data.images import labelled
from recipes.training.loop.loop import Training
from recipes.training.loop.task import Task
from recipes.planning.ready_made import finetune_all
from recipes.training.engines.choose import training_together
from recipes.training.engines.mirrored import _noise_of
from recipes.training.engines.team import chosen_devices

images, names = arrays(7)
data = labelled(images, names, [str(i) for i in range(21)])
recipe = recipes.adjusted("all", size=32, epochs=2, batch_size=8)
keras.utils.set_random_seed(0)
start = logits_model(resolve(small_network()), 3, 32)

def trained(devices, **changes):
    keras.utils.set_random_seed(0)
    model = logits_model(resolve(small_network()), 3, 32, dropout=changes.get("dropout", 0.0), seed=1)
    for layer in model.get_layer("small").layers:
        if isinstance(layer, keras.layers.BatchNormalization):
            layer.trainable = changes.get("statistics", False)
    some = data.subset(range(18 if "statistics" not in changes else 21))
    changes.pop("statistics", None)
    compiled = changes.pop("compiled", False)
    options = dict(epochs=2, batch_size=8, learning_rate=1e-3, averaging=0.9) | changes
    recipe = replace(finetune_all(32), **options)
    with training_together(devices):
        training = Training(Task(model, some, recipe, seed=0))
        model.jit_compile = compiled  # as it is with GPUs
        training.run(2)
    return model, training.history

def compare(case, noise=(), counts=(2, 4), **changes):
    one, history = trained(None, **changes)
    moved = max(abs(a - b).max() for a, b in zip(one.get_weights(), start.get_weights()))
    assert moved > 1e-3, moved
    for devices in counts:
        many, others = trained(devices, **changes)
        pairs = [(a.value, b.value) for a, b in zip(one.weights, many.weights) if a.name not in noise]
        apart = max(np.abs(a - b).max() for a, b in pairs)
        metrics = max(abs(a - b) for name in history for a, b in zip(history[name], others[name]))
        assert apart < 1e-5 and metrics < 1e-5, (case, devices, apart, metrics)
        print(case, "equal", apart, metrics)
"""


def run(program: str, expected: int, backend="tensorflow") -> str:
    environment = {
        **os.environ,
        "KERAS_BACKEND": backend,
        "XLA_FLAGS": "--xla_force_host_platform_device_count=2",
        "PYTHONPATH": f"{ROOT}{os.pathsep}{ROOT / 'tests'}",
    }
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM + program], cwd=ROOT, env=environment, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr[-4000:]
    assert done.stdout.count(" equal") == expected, done.stdout
    return done.stdout


@pytest.mark.slow
def test_replicas_equal_one_device():
    """Weights and metrics, with pretrained and with synchronised batch statistics, in parts, and through `finetune`."""
    run(
        """
compare("frozen statistics")  # 18 images in batches of 8: the last one leaves nothing for half of four
# the gradient of a bias before a batch normalisation is rounding, which Adam scales up
compare("statistics", ("bias", "moving_mean"), statistics=True)
compare("in parts", counts=(2,), accumulate=2)

with tf.device("CPU:3"):
    read = data.source().read
assert inspect.getclosurevars(read).nonlocals["labels"].device.endswith("CPU:0")  # of GPUs too, not in their memory

noisy, once = trained(2, dropout=0.5)
_, again = trained(2, dropout=0.5)
assert once == again and np.isfinite(once["loss"]).all()
print("noise equal")
seed = next(v for v in noisy.non_trainable_variables if v.name == "seed_generator_state")
value = tf.constant([2**32 - 1, 7], tf.as_dtype(seed.dtype))
draws = [tuple(_noise_of(tf.constant(i), seed, value).numpy()) for i in range(4)]
assert len(set(draws)) == 4 and draws[0] == tuple(value.numpy())

assert chosen_devices(None) == ("CPU:0",) and chosen_devices(2) == ("CPU:0", "CPU:1")
for wrong in (0, 5, -1, True, 1.5, "GPU:0", ("CPU:0", "CPU:0"), []):
    try:
        recipes.finetune((images, names), devices=wrong)
    except recipes.RecipeError as error:
        assert "devices is" in str(error) and "'CPU:3'" in str(error), error
    else:
        raise AssertionError(wrong)
arguments = dict(backbone=small_network(), recipe=recipe, output=tempfile.mkdtemp() + "/run")
try:
    with redirect_stdout(io.StringIO()) as printed:
        recipes.finetune((images, names), **arguments, devices=2, callbacks=[At(3, interrupted)])
    raise AssertionError("it was not stopped")
except KeyboardInterrupt:
    assert "2 CPU share every batch of 8 images" in printed.getvalue()
    found = recipes.finetune((images, names), **arguments)  # a preempted run that comes back on fewer devices
assert len(found.history["loss"]) == 2 and found.predict(images[:1])
for recipe in (found.recipe, recipes.load(arguments["output"]).recipe):
    changes = [reason.values["changes"] for reason in recipe.decisions if reason.code == "run.environment"]
    assert changes == ["devices: 2 CPU before, 1 CPU now"], recipe.reasons
print("finetune equal")
""",
        7,
    )


@pytest.mark.minutes
def test_compiled_replicas_equal_one_device():
    """By XLA, as on GPUs, in float32 and with float16's scaled loss."""
    run(
        """
compare("compiled", counts=(2,), compiled=True)
keras.config.set_dtype_policy("mixed_float16")  # whose scale of the loss is a variable of the first device
(_, one), (_, two) = (trained(devices, compiled=True) for devices in (None, 2))
assert all(abs(a - b) < 1e-2 for name in one for a, b in zip(one[name], two[name])), (one, two)
keras.config.set_dtype_policy("float32")
print("half equal")
""",
        2,
    )


@pytest.mark.minutes
def test_devices_on_jax_equal_one_device():
    """The noise as well: it is drawn for the whole batch."""
    run('compare("noise and statistics", ("bias", "moving_mean"), counts=(2,), statistics=True, dropout=0.5)', 1, "jax")


@pytest.mark.minutes
@pytest.mark.parametrize("backend", ["tensorflow", "jax"])
def test_devices_with_input_workers_and_snapshots(backend):
    """Two devices train on what a worker augments to the bits of what they augment here."""
    run(
        """
from recipes.training.input.server import InputWorker
worker = InputWorker("localhost", 0)  # which lives as long as this name
away = {"input_workers": [worker.address]}
recipe = recipes.adjusted("all", size=32, epochs=4, batch_size=8)
for options in ({}, {"snapshots": 2}):
    arguments = dict(recipe=recipe, devices=2) | options
    local, remote = (
        recipes.finetune((images, names), backbone=small_network(), **arguments, **more) for more in ({}, away)
    )
    for a, b in zip(local.model.get_weights(), remote.model.get_weights(), strict=True):
        np.testing.assert_array_equal(a, b)
    assert local.history == remote.history and len(local.history["loss"]) == 4
    assert bool(options) == ("2 snapshots" in str(local.recipe))
    print("workers equal")
""",
        2,
        backend,
    )
