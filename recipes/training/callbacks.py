"""What watches over a training: validation, the best weights, the clock. Each can be kept and taken up again."""

import math
import time
from collections.abc import MutableMapping

import keras
import numpy as np
import tensorflow as tf

from recipes.core.budget import Budget
from recipes.data.images import ImageData
from recipes.errors import TrainingError
from recipes.evaluation.selection import Score, latest
from recipes.training.loop.failures import reading_failed

SMALLER = "use a smaller learning rate: finetune(..., recipe=recipes.adjusted('all', learning_rate=1e-4))"


class NotFinite(TrainingError):
    """A loss or a weight is no longer a number."""


class Validation(keras.callbacks.Callback):
    """Scores the validation images after every epoch and adds val_loss and val_accuracy to its logs.

    val_loss is the negative log-likelihood of the true classes at the logits' best temperature, so that trainings with
    and without label smoothing compare. It stands for Keras's own validation, which would trace a second graph.

    images:  batches of the images of `data` in its order; what follows them does not count.
    weights: (n,), summing to 1: how much each image counts.
    """

    def __init__(self, images, data: ImageData, weights: np.ndarray):
        super().__init__()
        self.images, self.data, self.weights = images, data, weights
        self.scores: list[Score] = []
        self.logits, self.seconds = None, 0.0

    def score(self) -> Score:
        """Of the model's present weights, whose `logits` stay at hand."""
        try:
            self.logits = self.model.predict(self.images, verbose=0)[: len(self.data)]
        except tf.errors.OpError as error:
            raise reading_failed(error, self.data) or error from None
        return self.scored(self.logits)

    def scored(self, logits) -> Score:
        """Of logits (n, classes) of these images."""
        return Score.of(logits, self.data.labels, self.weights)

    def on_epoch_end(self, epoch, logs=None):
        began = time.monotonic()
        score = self.score()
        if not math.isfinite(score.loss):
            raise NotFinite(f"the validation loss became {score.loss}")
        self.scores.append(score)
        logs["val_loss"], logs["val_accuracy"] = score.loss, score.accuracy
        self.seconds = time.monotonic() - began

    def state(self) -> dict:
        rows = [[score.losses, score.right] for score in self.scores]
        return {"scores": rows, "logits": self.logits, "seconds": self.seconds}

    def restore(self, state: dict) -> None:
        self.scores = [Score(losses, right, self.weights) for losses, right in state["scores"]]
        self.logits, self.seconds = state["logits"], state["seconds"]


class Quiet(keras.callbacks.ProgbarLogger):
    """Takes the place of the one that prints a line for each epoch, where one for each training tells more."""

    def set_params(self, params):
        super().set_params(params | {"verbose": 0})


class Logs(dict):
    """Metrics of a step as numbers; the one that is looked at is waited for, and no other."""

    get, items, values, pop = MutableMapping.get, MutableMapping.items, MutableMapping.values, MutableMapping.pop

    def __getitem__(self, name):
        return float(super().__getitem__(name))

    def __iter__(self):  # without one of its own, dict(logs) and **logs would not ask __getitem__
        return super().__iter__()

    def __repr__(self):
        return repr(dict(self))


class Bar(keras.callbacks.ProgbarLogger):
    """Keras's own, but once a second: to show a metric, the host waits for the device."""

    _shown = 0.0

    def on_train_batch_end(self, batch, logs=None):
        if time.monotonic() - self._shown >= 1:
            super().on_train_batch_end(batch, logs)
            self._shown = time.monotonic()


class KeepBest(keras.callbacks.Callback):
    """Ends with the weights of the latest epoch whose validation loss is within the noise of the lowest, see
    `choice.latest`, and stops after `patience` epochs that are not.

    validation: whose scores it goes by; to be called before this.
    """

    def __init__(self, patience: int, validation: Validation):
        super().__init__()
        self.patience, self.validation, self.best_epoch, self.best_weights = patience, validation, 0, None

    def on_epoch_end(self, epoch, logs=None):
        if latest(self.validation.scores) == epoch:
            self.best_epoch, self.best_weights = epoch + 1, self.model.get_weights()
        elif epoch + 1 - self.best_epoch >= self.patience:
            self.model.stop_training = True

    def on_train_end(self, logs=None):
        self.model.set_weights(self.best_weights)

    def state(self) -> dict:
        return {"epoch": self.best_epoch, "weights": self.best_weights}

    def restore(self, state: dict) -> None:
        self.best_epoch, self.best_weights = state["epoch"], state["weights"]


class CycleEnds(keras.callbacks.Callback):
    """Collects the weights at the end of each cycle of the learning rate, or of a training that is ended before the
    first, and the validation logits beside them.

    recipe: whose `cycle_ends` are collected.
    """

    def __init__(self, recipe, validation: Validation | None = None):
        super().__init__()
        self.ends = recipe.cycle_ends
        self.validation, self.weights, self.logits = validation, [], []

    def on_epoch_end(self, epoch, logs=None):
        if epoch + 1 in self.ends:
            self._collect()

    def on_train_end(self, logs=None):
        if not self.weights:
            self._collect()

    def _collect(self):
        self.weights.append(self.model.get_weights())
        if self.validation:
            self.logits.append(self.validation.logits)

    def state(self) -> dict:
        return {"weights": list(self.weights), "logits": list(self.logits)}

    def restore(self, state: dict) -> None:
        self.weights, self.logits = list(state["weights"]), list(state["logits"])


class StopAt(keras.callbacks.Callback):
    """Stop a training before its time is up, leaving room for one more validation."""

    def __init__(self, budget: Budget, validation: Validation | None = None):
        super().__init__()
        self.budget, self.validation, self.reached = budget, validation, False
        self.left_out: list[str] = []  # in words

    def on_train_batch_end(self, batch, logs=None):
        if not self.budget.allows(self.validation.seconds if self.validation else 0):
            self.reached = self.model.stop_training = True

    def leaves_room(self, validations: float, what: str) -> bool:
        """Whether that many looks at the validation images, to try `what`, still fit; otherwise it is `left_out`."""
        seconds = self.validation.seconds if self.validation else 0
        fits = self.budget.allows(validations * seconds)
        if not fits:
            self.left_out.append(f"no time was left to try {what}")
        return fits

    def state(self) -> dict:
        return {"reached": self.reached}

    def restore(self, state: dict) -> None:
        self.reached = state["reached"]
