"""A finetuning that tests run in a process of its own, which they stop, starve and disturb.

Its network has dropout, an average of the weights and a second training on all images, so that all of it must come back
after a kill. The training always counts as better than its start, or it would be undone and tell nothing.
"""

import hashlib
import json
import os
import signal
from pathlib import Path

import keras
import tensorflow as tf
from makers import small_network

import recipes
import recipes.checkpoint
import recipes.fit

EPOCHS = 4


class Fault(keras.callbacks.Callback):
    """Does something at one step of the first training, counted over all processes' steps by the optimizer."""

    def __init__(self, at: int, do):
        super().__init__()
        self.at, self.do = at, do

    def on_train_batch_end(self, batch, logs=None):
        if int(self.model.optimizer.iterations) == self.at:
            self.do(self.model)


def kill(model):
    os.kill(os.getpid(), signal.SIGKILL)


def not_finite(model):
    model.trainable_variables[-1].assign(model.trainable_variables[-1] * float("nan"))


class SmallMemory(keras.callbacks.Callback):
    """Memory for parts of at most two images."""

    def on_train_batch_begin(self, batch, logs=None):
        if (self.model.optimizer.gradient_accumulation_steps or 1) < 4:
            raise tf.errors.ResourceExhaustedError(None, None, "OOM when allocating tensor with shape[8,32,32,8]")


class Removes(keras.callbacks.Callback):
    """Removes files at the end of the first epoch."""

    def __init__(self, files):
        super().__init__()
        self.files = files

    def on_epoch_end(self, epoch, logs=None):
        for file in self.files:
            Path(file).unlink(missing_ok=True)


def main(dataset, output, log, callbacks=(), every_step=False, learning_rate=1e-2, cache=None):
    """Train, with all output in the file `log`, whose last line is then what came out, and everything it depends on."""
    file = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    os.dup2(file, 1), os.dup2(file, 2)
    recipes.fit.choose = lambda start, others: min(range(len(others)), key=lambda i: others[i].loss)
    if every_step:
        recipes.checkpoint.EVERY, recipes.checkpoint.SHARE = 0.0, 1e9
    if cache:
        os.environ["RECIPES_CACHE"] = str(cache)
    recipe = recipes.adjusted(
        "all", size=32, test_size=32, epochs=EPOCHS, batch_size=8, dropout=0.3, averaging=0.9, interpolate=False,
        learning_rate=learning_rate,
    )  # fmt: skip
    result = recipes.finetune(
        dataset, backbone=small_network(), recipe=recipe, output=output, callbacks=[make() for make in callbacks]
    )
    digest = hashlib.sha256(b"".join(w.tobytes() for w in result.model.get_weights())).hexdigest()
    told = {"weights": digest, "history": result.history, "reasons": result.recipe.reasons}
    told |= {"selection": str(result.selection), "validation": str(result.validation)}
    print("\n" + json.dumps(told), flush=True)
