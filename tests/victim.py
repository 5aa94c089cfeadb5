"""A finetuning that tests run in a process of its own, which they stop, starve and disturb.

Its network has dropout and an average of the weights, and is trained a second time on all images, so that all of this
must come back after a kill. What training found always counts as better than its start: undone, it would tell nothing.
"""

import hashlib
import importlib
import json
import os
import resource
import signal
from functools import partial
from pathlib import Path

import keras
import tensorflow as tf
from makers import small_network

import recipes
import recipes.evaluation.selection
import recipes.training.checkpoints
import recipes.training.loop.attempt

EPOCHS = 4
LOSS = recipes.training.loop.attempt.AdjustedCrossentropy


class At(keras.callbacks.Callback):
    """Does something once, after that many updates of the first training."""

    def __init__(self, updates: int, do):
        super().__init__()
        self.updates, self.do = updates, do

    def on_train_batch_end(self, batch, logs=None):
        if self.do and int(self.model.optimizer.iterations) == self.updates:
            do, self.do = self.do, None
            do(self.model)


def send(number, model=None):
    os.kill(os.getpid(), number)


def spoil(model):
    """Weights that are no numbers."""
    variable = model.trainable_variables[-1]
    variable.assign(variable * float("nan"))


def remove(files, model):
    for file in files:
        Path(file).unlink()


def fill_disk(bytes_a_file, model):
    """From now on no file can be longer."""
    resource.setrlimit(resource.RLIMIT_FSIZE, (bytes_a_file, resource.RLIM_INFINITY))


class SmallMemory(keras.callbacks.Callback):
    """Memory for two images."""

    def on_train_batch_begin(self, batch, logs=None):
        if (self.model.optimizer.gradient_accumulation_steps or 1) < 4:
            raise tf.errors.ResourceExhaustedError(None, None, "OOM when allocating tensor with shape[8,32,32,8]")


@keras.saving.register_keras_serializable("victim")
class Poisoned(LOSS):
    """No number, for batches whose first image is of the last class."""

    def call(self, y_true, y_pred):
        return super().call(y_true, y_pred) / (1 - y_true[0, -1]) * (1 - y_true[0, -1])


def main(
    dataset, output, log, *, cache, at=None, kill=None, every_step=True, loss=LOSS, memory=None, backbone=None,
    snapshots=0, **changes,
):  # fmt: skip
    """Train; the last line of the file `log` is then what came out, with everything that must be the same.

    at:           (updates, what to do then).
    kill:         (function, n): the process kills itself as that is called the n-th time.
    every_step:   keep the state at every step.
    backbone:     by name; None: the small network.
    snapshots:    see `finetune`.
    changes:      of the recipe.
    """
    file = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    os.dup2(file, 1), os.dup2(file, 2)
    os.environ["RECIPES_CACHE"] = str(cache)
    recipes.evaluation.selection.better = lambda start, other: True
    recipes.training.loop.attempt.AdjustedCrossentropy = loss
    if every_step:
        recipes.training.checkpoints.EVERY, recipes.training.checkpoints.SHARE = 0.0, 1e9
    if kill:
        _kill_in(*kill)
    options = {"size": 32, "test_size": 32, "epochs": EPOCHS, "batch_size": 8, "dropout": 0.3, "averaging": 0.9,
               "interpolate": False, "learning_rate": 1e-2}  # fmt: skip
    recipe = recipes.adjusted("all", **(options | changes))
    callbacks = [At(*at)] if at else [memory()] if memory else []
    network = backbone or small_network()
    asked = dict(backbone=network, recipe=recipe, output=output, callbacks=callbacks, snapshots=snapshots)
    result = recipes.finetune(dataset, **asked)
    digest = hashlib.sha256(b"".join(w.tobytes() for w in result.model.get_weights())).hexdigest()
    outcome = {
        "weights": digest,
        "history": result.history,
        "reasons": {reason.code: reason.values for reason in result.recipe.decisions},
    }
    outcome |= {"selection": str(result.selection), "validation": str(result.validation)}
    outcome |= {"findings": [str(finding) for finding in result.audit.findings]}
    os.write(1, ("\n" + json.dumps(outcome)).encode())


def export(run, directory, proof, kill=None):
    """A finished run as a `.keras` version in `directory`."""
    if kill:
        _kill_in(*kill)
    recipes.load(run).export(directory, format="keras", proof=proof)


def _kill_in(name: str, n: int):
    owner, _, attribute = name.rpartition(".")
    module, _, cls = owner.rpartition(".") if owner.rpartition(".")[2][0].isupper() else (owner, "", "")
    owner = getattr(importlib.import_module(module), cls) if cls else importlib.import_module(module)
    function, calls = getattr(owner, attribute), iter(range(1, 10**9))

    def killing(*arguments, **options):
        if next(calls) == n:
            send(signal.SIGKILL)
        return function(*arguments, **options)

    setattr(owner, attribute, killing)


killed, terminated, interrupted = (partial(send, number) for number in (signal.SIGKILL, signal.SIGTERM, signal.SIGINT))
