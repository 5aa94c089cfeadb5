"""Make one attempt at a training: from the newest state to the end, or to the first fault."""

import logging
import math
import sys
import time
from collections import deque
from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from recipes import optimizers
from recipes.core.output import printable
from recipes.core.progress import Phase, phase
from recipes.training.batches import soft, training_batches
from recipes.training.callbacks import Logs, NotFinite
from recipes.training.checkpoints import Checkpoints
from recipes.training.engines.base import Engine
from recipes.training.engines.choose import engine_for
from recipes.training.loop.failures import batch_names, gradient_norms
from recipes.training.loop.input_wait import InputWait
from recipes.training.loop.loss import AdjustedCrossentropy
from recipes.training.loop.signals import Stop
from recipes.training.loop.state import Adjustments, captured, restore
from recipes.training.loop.task import Task
from recipes.training.schedule import learning_rate

logger = logging.getLogger(__name__)


class Attempt:
    """Compile and run a training with the adjustments that earlier faults have made necessary.

    Args:
        task: What to train, and how.
        adjustments: The changes that are in effect.
        checkpoints: The saved states; the attempt begins from the newest one.

    Attributes:
        data: The training images without the missing ones.
        engine: The engine that computes the updates.
        at: (epoch, step) of the last step that was begun or whose loss was checked.
        part: Number of images in one forward pass.
        seconds: Duration of the training up to the restored state.
    """

    def __init__(self, task: Task, adjustments: Adjustments, checkpoints: Checkpoints) -> None:
        self.task, self.model, self.recipe = task, task.model, task.recipe
        self.adjustments, self.checkpoints = adjustments, checkpoints
        images = task.images
        missing = set(adjustments.missing)
        indices = [i for i, name in enumerate(images.names) if name not in missing]
        self.data = images.subset(indices) if missing else images
        self.part = task.recipe.batch_size // adjustments.parts
        self.engine = self._compiled()
        self.seconds, self.at = 0.0, (0, 0)
        self._began, self._callbacks = time.monotonic(), {}
        self._losses: deque[tuple[int, int, Any]] = deque()
        self._input_wait = InputWait(self.engine.device, self.engine.shard == (0, 1))

    def _compiled(self) -> Engine:
        """Compile the model to update once per `batch_size` images, with or without gradient accumulation."""
        recipe, images, parts = self.recipe, self.task.images, self.adjustments.parts
        shares = np.maximum(images.counts, 1) / len(images) if recipe.balanced else np.ones(len(images.class_names))
        updates = math.ceil(len(images) / recipe.batch_size)
        optimizer: Any = optimizers.Adam(
            learning_rate(recipe, updates, self.adjustments.halvings),  # pyright: ignore[reportArgumentType]  as Keras
            weight_decay=recipe.weight_decay,
            gradient_accumulation_steps=parts if parts > 1 else None,
        )
        if self.task.rates:
            optimizer = optimizers.Discriminative(optimizer, self.task.rates)
        self.model.compile(
            optimizer,
            AdjustedCrossentropy(shares.tolist(), recipe.label_smoothing),
            metrics=[keras.metrics.CategoricalAccuracy(name="accuracy")],
        )
        engine = engine_for(self.model)
        engine.updates = updates * recipe.epochs
        return engine

    def run(self, epochs: int, callbacks: Sequence[keras.callbacks.Callback], stop: Stop) -> None:
        """Train up to `epochs` from the newest state on, or until a callback or a signal stops the training.

        Raises:
            NotFinite: If a loss or a weight is NaN or infinite.
        """
        model, state, steps = self.model, self.checkpoints.newest, math.ceil(len(self.data) / self.part)
        calls = self._callback_list(epochs, steps, callbacks)
        self._callbacks = {f"{i} {type(callback).__name__}": callback for i, callback in enumerate(callbacks)}
        self._began, self.at = time.monotonic(), (0, 0)
        model.stop_training = False
        first, begin = (state["epoch"], min(state["images"] // self.part, steps - 1)) if state else (0, 0)
        batches = self.batches(epochs, first, begin)
        self.engine.announce(
            dict(images=self.task.images, recipe=self.recipe, seed=self.task.seed, rates=self.task.rates,
                 changes=self.adjustments.saved(), epochs=epochs, first=first, begin=begin)
        )  # fmt: skip
        self.engine.build(batches)
        calls.on_train_begin()
        if state:
            self.restore(state)
        stream, logs = self.engine.stream(batches), {}
        with phase("", epochs * steps * self.part) as progress:
            progress.done = (first * steps + begin) * self.part
            for epoch in range(first, epochs):
                resumed = first == epoch and begin
                if not resumed:
                    model.reset_metrics()
                progress.note = f"epoch {epoch + 1} of {epochs}"
                calls.on_epoch_begin(epoch)
                self._epoch(epoch, range(begin if resumed else 0, steps), stream, calls, stop, progress)
                logs = {name: float(value) for name, value in model.get_metrics_result().items()}
                calls.on_epoch_end(epoch, logs)
                logger.debug(f"{progress.note}: {', '.join(f'{name} {value:.4f}' for name, value in logs.items())}")
                if model.stop_training:
                    break
        if not (state and state["done"]):
            self.checkpoints.keep(lambda: self.state(epochs, 0, done=True))
        if stop.number:
            stop.leave()
        calls.on_train_end(logs)

    def follow(self, epochs: int, first: int, begin: int) -> Engine:
        """Take part in the training, which another process leads from batch `begin` of epoch `first` on."""
        batches = self.batches(epochs, first, begin)
        self.engine.build(batches)
        self.engine.follow(self.engine.stream(batches))
        return self.engine

    def _callback_list(
        self, epochs: int, steps: int, callbacks: Sequence[keras.callbacks.Callback]
    ) -> keras.callbacks.CallbackList:
        average = self.recipe.averaging and self.recipe.snapshots < 2  # it would span restarts
        averaging = [optimizers.PolyakAveraging(self.recipe.averaging)] if average else []
        return keras.callbacks.CallbackList(
            [*averaging, *callbacks], add_history=True, verbose=1 if sys.stdout.isatty() else 2, epochs=epochs,
            steps=steps, model=self.model,
        )  # fmt: skip

    def _epoch(
        self, epoch: int, steps: range, stream: Iterator, calls: keras.callbacks.CallbackList, stop: Stop,
        progress: Phase,
    ) -> None:  # fmt: skip
        for step in steps:
            self.at = epoch, step
            self._keep_state(stop, epoch, step)
            calls.on_train_batch_begin(step)
            logs = self.engine.step(self._input_wait.next(stream, self._check_losses))
            self._losses.append((epoch, step, logs["loss"]))
            self._input_wait.stepped()
            progress.advance(self.part)
            logs = Logs(logs)
            for (
                callback
            ) in calls.callbacks:  # Keras's list would read all metrics, and so wait for the device in every step.
                callback.on_train_batch_end(step, logs=logs)
            if self.model.stop_training:
                break
        self._check_losses()
        self.engine.settle()
        if verdict := self._input_wait.verdict():
            logger.info(verdict)

    def _check_losses(self) -> None:
        """Raise NotFinite if a loss since the last check is NaN or infinite.

        Checks are rare because TensorFlow copies a loss only after all queued work, so each check leaves the GPU idle.
        """
        while self._losses:
            epoch, step, loss = self._losses.popleft()
            if not math.isfinite(float(loss)):
                self.at = epoch, step
                raise NotFinite(f"the loss became {float(loss)}")

    def batches(self, epochs: int, first: int, begin: int, shard: tuple[int, int] | None = None) -> tf.data.Dataset:
        """Return the batches from `begin` of epoch `first` on; `shard` defaults to this process's slice."""
        classes = len(self.task.images.class_names)
        recipe = replace(self.recipe, accumulate=self.adjustments.parts, epochs=max(epochs, first), snapshots=0)
        batches = training_batches(
            self.data, recipe, seed=self.task.seed, start=first, first_batch=begin, shard=shard or self.engine.shard
        )
        return batches.map(lambda x, label, *whole: (x, soft(label, classes), *whole))

    def _keep_state(self, stop: Stop, epoch: int, step: int) -> None:
        """Save the state before a step if saving is due between two updates; leave if a signal has arrived."""
        if self.checkpoints.newest is None:
            self.checkpoints.keep(lambda: self.state(epoch, step), on_disk=False)
        elif (self.checkpoints.due or stop.number) and self.between_updates():
            self.checkpoints.keep(lambda: self.state(epoch, step))
        if stop.number:
            stop.leave()

    def between_updates(self) -> bool:
        """Return whether no gradient sums are pending; loss scaling skips parts with NaN or infinite gradients."""
        parts = self.adjustments.parts
        if parts == 1:
            return True
        self.engine.settle()
        counts = [int(v) for v in self.model.optimizer.variables if v.name == "iteration"]  # a wrapper's counter is 0
        return max(counts) % parts == 0

    def state(self, epoch: int, step: int, done: bool = False) -> dict[str, Any]:
        """Return the state before a step."""
        self._check_losses()
        self.engine.settle()
        return captured(
            self.model, self._callbacks, self.adjustments, epoch=epoch, images=step * self.part, done=done,
            seconds=self.seconds + time.monotonic() - self._began,
        )  # fmt: skip

    def restore(self, state: dict[str, Any]) -> None:
        """Assign a state to the model, its optimizer and metrics, and the callbacks."""
        restore(self.model, self._callbacks, self.adjustments.parts, state, self.checkpoints.path)
        self.seconds = state["seconds"]

    def diagnosis(self, epoch: int, step: int, state: dict[str, Any]) -> str:
        """Describe a batch of all devices and hosts: its files, and its gradients at the weights of `state`."""
        batches = self.batches(epoch + 1, epoch, step, shard=(0, 1))
        self.restore(state | {"images": 0})
        positions = range(step * self.part, min((step + 1) * self.part, len(self.data)))
        names = batch_names(self.data, positions, epoch=epoch, seed=self.task.seed)
        at_once = math.ceil(len(positions) / self.engine.replicas)  # more may not fit into memory
        norms = gradient_norms(self.model, *next(iter(batches)), at_once=at_once)
        more = f" and {len(names) - 10} more" if len(names) > 10 else ""
        return printable(
            f"The batch contains {', '.join(names[:10])}{more}. Its largest gradient norms at the last good weights "
            f"are {norms}"
        )
