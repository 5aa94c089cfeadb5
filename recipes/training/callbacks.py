"""Define the training's callbacks for validation, the best weights and the time limit; all save and restore state."""

import math
import time
from collections.abc import Iterator, MutableMapping
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from recipes.core.budget import Budget
from recipes.data.images import ImageData
from recipes.errors import TrainingError
from recipes.evaluation.selection import Score, latest
from recipes.planning.reason import Reason
from recipes.planning.recipe import Recipe
from recipes.training.loop.failures import reading_failed

SMALLER = "use a smaller learning rate, such as recipe=recipes.adjusted('all', learning_rate=1e-4)"


class NotFinite(TrainingError):
    """Report that a loss or a weight became NaN or infinite."""


def _model(callback: keras.callbacks.Callback) -> keras.Model:
    """Return the model, which Keras sets before it calls a callback."""
    assert callback.model is not None
    return callback.model


class Validation(keras.callbacks.Callback):
    """Score the validation images after every epoch, and add val_loss and val_accuracy to the logs.

    val_loss is the negative log-likelihood of the true classes at the logits' best temperature, so that trainings with
    and without label smoothing are comparable. This callback replaces Keras's own validation, which would trace a
    second graph.

    Args:
        images: Batches of the images of `data`, in its order; further images are ignored.
        data: The validation images.
        weights: (n,) weight of each image; they sum to 1.

    Attributes:
        scores: The score of each epoch.
        logits: (n, classes) of the last prediction.
        seconds: Duration of the last validation.
    """

    def __init__(self, images: tf.data.Dataset, data: ImageData, weights: np.ndarray) -> None:
        super().__init__()
        self.images, self.data, self.weights = images, data, weights
        self.scores: list[Score] = []
        self.logits: np.ndarray | None = None
        self.seconds = 0.0

    def predict(self) -> np.ndarray:
        """Return the logits of the model's current weights, and set `logits`."""
        try:
            logits = _model(self).predict(self.images, verbose=0)[: len(self.data)]  # pyright: ignore[reportArgumentType]
        except tf.errors.OpError as error:
            raise reading_failed(error, self.data) or error from None
        self.logits = logits
        return logits

    def score(self) -> Score:
        """Return the score of the model's current weights."""
        return self.scored(self.predict())

    def scored(self, logits: np.ndarray) -> Score:
        """Return the validation images' score for their logits (n, classes)."""
        return Score.of(logits, self.data.labels, self.weights)

    def on_epoch_end(self, epoch: int, logs: dict[str, Any] | None = None) -> None:
        began = time.monotonic()
        score = self.score()
        if not math.isfinite(score.loss):
            raise NotFinite(f"the validation loss became {score.loss}")
        self.scores.append(score)
        if logs is not None:
            logs["val_loss"], logs["val_accuracy"] = score.loss, score.accuracy
        self.seconds = time.monotonic() - began

    def state(self) -> dict[str, Any]:
        rows = [[score.losses, score.right] for score in self.scores]
        return {"scores": rows, "logits": self.logits, "seconds": self.seconds}

    def restore(self, state: dict[str, Any]) -> None:
        self.scores = [Score(losses, right, self.weights) for losses, right in state["scores"]]
        self.logits, self.seconds = state["logits"], state["seconds"]


class Logs(dict):
    """Hold the metrics of a step as numbers; reading a metric waits for the device to compute it."""

    get: Any = MutableMapping.get
    items: Any = MutableMapping.items
    values: Any = MutableMapping.values
    pop: Any = MutableMapping.pop

    def __getitem__(self, name: str) -> float:
        return float(super().__getitem__(name))

    def __iter__(self) -> Iterator[str]:  # without this method, dict(logs) and **logs would bypass __getitem__
        return super().__iter__()

    def __repr__(self) -> str:
        return repr(dict(self))


class KeepBest(keras.callbacks.Callback):
    """Restore the weights of the latest epoch whose validation loss is within the noise of the lowest.

    See `selection.latest`. Training stops after `patience` epochs outside that noise.

    Args:
        patience: Number of epochs without such a loss before training stops.
        validation: Provides the scores; must be called before this callback.
    """

    def __init__(self, patience: int, validation: Validation) -> None:
        super().__init__()
        self.patience, self.validation, self.best_epoch = patience, validation, 0
        self.best_weights: list[np.ndarray] = []

    def on_epoch_end(self, epoch: int, logs: dict[str, Any] | None = None) -> None:
        if latest(self.validation.scores) == epoch:
            self.best_epoch, self.best_weights = epoch + 1, _model(self).get_weights()
        elif epoch + 1 - self.best_epoch >= self.patience:
            _model(self).stop_training = True

    def on_train_end(self, logs: dict[str, Any] | None = None) -> None:
        _model(self).set_weights(self.best_weights)

    def state(self) -> dict[str, Any]:
        return {"epoch": self.best_epoch, "weights": self.best_weights or None}

    def restore(self, state: dict[str, Any]) -> None:
        self.best_epoch, self.best_weights = state["epoch"], state["weights"] or []


class CycleEnds(keras.callbacks.Callback):
    """Collect the weights and the validation logits at the end of each cycle of the learning rate.

    If the training ends before the first cycle does, the weights and logits at its end are collected.

    Args:
        recipe: Its `cycle_ends` are the epochs at which cycles end.
        validation: Provides the logits; must be called before this callback.
    """

    def __init__(self, recipe: Recipe, validation: Validation | None = None) -> None:
        super().__init__()
        self.ends, self.validation = recipe.cycle_ends, validation
        self.weights: list[list[np.ndarray]] = []
        self.logits: list[np.ndarray] = []

    def on_epoch_end(self, epoch: int, logs: dict[str, Any] | None = None) -> None:
        if epoch + 1 in self.ends:
            self._collect()

    def on_train_end(self, logs: dict[str, Any] | None = None) -> None:
        if not self.weights:
            self._collect()

    def _collect(self) -> None:
        self.weights.append(_model(self).get_weights())
        if self.validation and self.validation.logits is not None:
            self.logits.append(self.validation.logits)

    def state(self) -> dict[str, Any]:
        return {"weights": list(self.weights), "logits": list(self.logits)}

    def restore(self, state: dict[str, Any]) -> None:
        self.weights, self.logits = list(state["weights"]), list(state["logits"])


class StopAt(keras.callbacks.Callback):
    """Stop a training early enough that one more validation fits into the time limit.

    Args:
        budget: The time limit.
        validation: Provides the duration of a validation; None for a training without validation.

    Attributes:
        reached: Whether the time limit stopped the training.
        left_out: A reason for each step that was skipped for lack of time.
    """

    def __init__(self, budget: Budget, validation: Validation | None = None) -> None:
        super().__init__()
        self.budget, self.validation, self.reached = budget, validation, False
        self.left_out: list[Reason] = []

    def on_train_batch_end(self, batch: int, logs: dict[str, Any] | None = None) -> None:
        if not self.allows(1):
            self.reached = _model(self).stop_training = True

    def allows(self, validations: float) -> bool:
        """Return whether so many validations fit into the time limit."""
        return self.budget.allows(validations * self.validation.seconds if self.validation else 0)

    def allows_trying(self, what: str, validations: float) -> bool:
        """Return whether there is time for so many validations to try `what`; if not, add a reason to `left_out`."""
        allowed = self.allows(validations)
        if not allowed:
            self.left_out.append(Reason("training.not_tried", "no time was left to try {what}", {"what": what}))
        return allowed

    def state(self) -> dict[str, Any]:
        return {"reached": self.reached}

    def restore(self, state: dict[str, Any]) -> None:
        self.reached = state["reached"]
