"""`recipes` as a worker of a job: the command line itself, but for a state kept at every step, and for worker 0, which
sends a signal to a process after so many updates, both of which are in a file: worker.py FILE UPDATES finetune …"""

import os
import sys
from functools import partial
from pathlib import Path

import keras

import recipes
import recipes.checkpoint
import recipes.cli
from recipes.peers import leads


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


if __name__ == "__main__":
    _, file, updates, *command = sys.argv
    recipes.checkpoint.EVERY, recipes.checkpoint.SHARE = 0.0, 1e9
    if leads():
        recipes.finetune = partial(recipes.finetune, callbacks=[Disturb(Path(file), int(updates))])
    sys.argv = ["recipes", *command]
    recipes.cli.main()
