"""Train by gradient steps that can be stopped at any time, resumed, and continued after faults."""

import logging
from collections.abc import Mapping, Sequence
from typing import Any

import keras
import tensorflow as tf

from recipes.core.output import printable
from recipes.errors import OutputError, PeerLost, TrainingError
from recipes.planning.reason import Reason
from recipes.training.callbacks import SMALLER, NotFinite
from recipes.training.checkpoints import Checkpoints
from recipes.training.engines.base import Engine
from recipes.training.loop.attempt import Attempt
from recipes.training.loop.failures import reading_failed, too_many, vanished
from recipes.training.loop.signals import Stop
from recipes.training.loop.state import Adjustments
from recipes.training.loop.task import Task

logger = logging.getLogger(__name__)

HALVINGS = 3  # number of times the learning rate is halved after NaN or infinite losses before the training fails


class Training:
    """Train the model of a task by gradient steps, starting from the newest checkpoint.

    After a fault, the training continues from the last good state with one adjustment. The learning rate is halved
    after a NaN or infinite loss. Batches are split into twice as many parts after memory ran out. Vanished files are
    left out. A new process with the same arguments continues from the state on disk. In both cases, everything else is
    bit for bit the same as in an uninterrupted training: weights, noise seeds, optimizer, averages, metrics, history,
    and position in the data. This includes callbacks with `state()` and `restore(state)`.

    Args:
        task: What to train, and how.
        checkpoints: The states of the training; default: in memory only.

    Attributes:
        adjustments: Changes that faults have caused so far.
        history: One list per metric, one value per epoch; set by `run`.
        seconds: Duration of the training over all processes; set by `run`.
    """

    def __init__(self, task: Task, checkpoints: Checkpoints | None = None) -> None:
        self.task, self.checkpoints = task, checkpoints or Checkpoints()
        self.history: dict[str, list[float]] = {}
        self.seconds = 0.0
        state = self.checkpoints.load()
        self.adjustments = Adjustments.of(state["changes"]) if state else Adjustments(parts=task.recipe.accumulate)
        self._attempt = self._new_attempt()

    @property
    def begun(self) -> bool:
        """Return whether a saved state exists to continue from."""
        return self.checkpoints.newest is not None

    def run(self, epochs: int, callbacks: Sequence[keras.callbacks.Callback] = ()) -> "Training":
        """Train up to `epochs`, or until a callback stops the training.

        Raises:
            TrainingError: If the loss is NaN or infinite even at an eighth of the learning rate (`code`
                "training.not_finite").
            DataError: If images can no longer be read.
            OutputError: If a callback fails because the disk is full (`code` "training.disk_full").
        """
        with Stop() as stop:
            while True:
                try:
                    self._attempt.run(epochs, callbacks, stop)
                    break
                except PeerLost:
                    if stop.number:
                        stop.leave()
                    raise
                except Exception as fault:
                    self._attempt.engine.reset()
                    self._adjust(fault)
                self._attempt = self._new_attempt()
        self.history = {name: [float(v) for v in values] for name, values in self.task.model.history.history.items()}
        self.seconds = self.checkpoints.newest["seconds"] if self.checkpoints.newest else 0.0
        return self

    def follow(self, changes: Mapping[str, Any], epochs: int, first: int, begin: int) -> Engine:
        """Take part in this training, which another process leads, from batch `begin` of epoch `first` on.

        Args:
            changes: The leader's adjustments, as `Adjustments.saved` returns them.
            epochs: Number of epochs of the training.
            first: Index of the first epoch.
            begin: Index of the first batch in that epoch.
        """
        self.adjustments = Adjustments.of(changes)
        self._attempt = self._new_attempt()
        return self._attempt.follow(epochs, first, begin)

    def _new_attempt(self) -> Attempt:
        return Attempt(self.task, self.adjustments, self.checkpoints)

    def _adjust(self, fault: Exception) -> None:
        """Make the change with which training can continue from its last good state, or raise if none helps."""
        state = self.checkpoints.newest
        if isinstance(fault, NotFinite):
            self.adjustments = self._slower(fault, state)
        elif self._attempt.engine.ran_out_of_memory(fault):
            self.adjustments = self._in_smaller_parts(fault, state)
        elif isinstance(fault, tf.errors.OpError):
            self.adjustments = self._without_vanished(fault, state)
        else:
            raise fault
        if state is not None:
            state["changes"] = self.adjustments.saved()
        logger.info(self.adjustments.reasons[-1])

    def _slower(self, fault: NotFinite, state: dict[str, Any] | None) -> Adjustments:
        halvings = self.adjustments.halvings + 1
        epoch, step = self._attempt.at
        where = f"{fault} at step {step + 1} of epoch {epoch + 1}"
        facts = {"code": "training.not_finite", "epoch": epoch, "step": step}
        if state is None:  # initial weights
            raise TrainingError(
                f"{where}, before the first update; check the backbone's weights and the images", **facts
            ) from None
        if halvings > HALVINGS:
            diagnosis = self._attempt.diagnosis(epoch, step, state)
            raise TrainingError(
                f"{where}, even at an eighth of the learning rate. {diagnosis}; {SMALLER}", **facts
            ) from None
        text = "{what}; training continues from the last good state with 1/{divisor} of the learning rate"
        reason = Reason("training.slower", text, {"what": where, "divisor": 2**halvings})
        return self.adjustments.because(reason, halvings=halvings)

    def _in_smaller_parts(self, fault: Exception, state: dict[str, Any] | None) -> Adjustments:
        if "space left" in str(fault):  # TensorFlow raises the same error for a full disk
            raise OutputError(
                f"A callback cannot write because the disk is full ({fault}); free some space and run the same "
                f"command again",
                code="training.disk_full",
            ) from fault
        parts, size = 2 * self.adjustments.parts, self.task.recipe.batch_size
        while size % parts and parts < size:
            parts += 1
        if self.adjustments.parts >= size or state is None:
            raise fault
        text = "memory ran out: batches of {batch} images are now computed in {parts} parts"
        reason = Reason("training.memory", text, {"batch": size, "parts": parts})
        return self.adjustments.because(reason, parts=parts)

    def _without_vanished(self, fault: tf.errors.OpError, state: dict[str, Any] | None) -> Adjustments:
        names = vanished(self._attempt.data)
        missing = (*self.adjustments.missing, *names)
        if not names or state is None or too_many(len(missing), len(self.task.images)):
            raise reading_failed(fault, self._attempt.data) or fault
        text = "{count} training images vanished; training continues without them: {names}"
        values = {"count": len(names), "names": printable(", ".join(names))}
        return self.adjustments.because(Reason("training.vanished", text, values), missing=missing)
