"""`recipes` as a worker of a job: the command line itself, but for a state kept at every step, and for worker 0, which
sends a signal to a process after so many updates, both of which are in a file: worker.py FILE UPDATES finetune …

RECIPES_TEST_SEEN: a file with a line for each image that this process trains on, begun anew by each.
RECIPES_TEST_MEMORY: updates after which there is no memory for one more, in this process alone.
"""

import os
import sys
from functools import partial
from pathlib import Path

import keras
import tensorflow as tf

import recipes
import recipes.cli
import recipes.training.checkpoints
import recipes.training.loop.attempt
from recipes.distributed.job import leads
from recipes.training.engines.mirrored import MirroredEngine


class Disturb(keras.callbacks.Callback):
    """Once, for the file is gone then."""

    def __init__(self, file: Path, updates: int):
        super().__init__()
        self.file, self.updates = file, updates

    def on_train_batch_end(self, batch, logs=None):
        if int(self.model.optimizer.iterations) == self.updates and self.file.exists():
            victim, number = map(int, self.file.read_text().split())
            self.file.unlink()
            os.kill(victim, number)


def recorded(make, file: Path):
    """The batches that `make` makes; the mean of each image of them, by which it is known again, is noted in a file."""

    def note(images):
        with open(file, "a") as lines:
            lines.writelines(f"{image.mean(dtype=float)}\n" for image in images)
        return images

    def noted(images, *rest):
        return tf.ensure_shape(tf.numpy_function(note, [images], images.dtype), images.shape), *rest

    return lambda *given, **how: make(*given, **how).map(tf.autograph.experimental.do_not_convert(noted))


def _without_memory(step):
    left = [int(os.environ["RECIPES_TEST_MEMORY"])]

    def limited(engine, batch):
        left[0] -= 1
        if left[0] < 0:
            raise tf.errors.ResourceExhaustedError(None, None, "OOM when allocating tensor with shape[8,32,32,8]")
        return step(engine, batch)

    return limited


if __name__ == "__main__":
    _, file, updates, *command = sys.argv
    recipes.training.checkpoints.EVERY, recipes.training.checkpoints.SHARE = 0.0, 1e9
    Path(os.environ["RECIPES_TEST_SEEN"]).unlink(missing_ok=True)
    attempt = recipes.training.loop.attempt
    attempt.training_batches = recorded(attempt.training_batches, os.environ["RECIPES_TEST_SEEN"])
    if "RECIPES_TEST_MEMORY" in os.environ:
        MirroredEngine.step = _without_memory(MirroredEngine.step)
    if leads():
        recipes.finetune = partial(recipes.finetune, callbacks=[Disturb(Path(file), int(updates))])
    sys.argv = ["recipes", *command]
    recipes.cli.main()
