"""Every gradient step that `recipes` takes: one compiled training that can be stopped at any instant and goes on."""

import logging
import math
import sys
import time
from collections import deque
from collections.abc import Iterator, Sequence
from dataclasses import replace

import keras
import numpy as np
import tensorflow as tf

import optimizers
from recipes.core.output import is_verbose, printable
from recipes.data.images import ImageData
from recipes.errors import OutputError, PeerLost, TrainingError
from recipes.planning.recipe import Recipe
from recipes.training.batches import soft, training_batches
from recipes.training.callbacks import SMALLER, Bar, Logs, NotFinite
from recipes.training.checkpoints import Checkpoints
from recipes.training.engines.base import Engine
from recipes.training.engines.choose import engine_for
from recipes.training.loop.failures import batch_names, gradient_norms, reading_failed, too_many, vanished
from recipes.training.loop.input_wait import Waiting
from recipes.training.loop.loss import AdjustedCrossentropy
from recipes.training.loop.signals import Stop
from recipes.training.schedule import learning_rate

logger = logging.getLogger(__name__)

HALVINGS = 3  # of the learning rate, at losses that are not finite, before the training is given up


class Training:
    """Gradient steps of `model` on `images` as `recipe` says, from where `kept` has got to.

    After a fault the last good state is taken up again with one thing changed, which `changes` holds and tells: half
    the learning rate after a loss that is not finite, batches in twice as many parts after memory ran out, without the
    files that vanished. A new process that is given the same goes on from the state on disk. Either way everything
    else is bit for bit as if nothing had been: weights, seeds of the noise, optimizer, averages, metrics, history,
    place in the data, and the callbacks that have `state()` and `restore(state)`.

    rates: regular expressions of variables' paths → multiplier of the learning rate, see `optimizers.Discriminative`.

    After `run`: history (one list per metric, one value per epoch) and seconds, over all processes.
    """

    def __init__(
        self,
        model: keras.Model,
        images: ImageData,
        recipe: Recipe,
        *,
        seed: int,
        rates: dict[str, float] | None = None,
        kept: Checkpoints | None = None,
    ):
        self.model, self.images, self.recipe, self.seed, self.rates = model, images, recipe, seed, rates
        self.kept, self.history, self.seconds = kept or Checkpoints(), {}, 0.0
        state = self.kept.load()
        first = {"halvings": 0, "parts": recipe.accumulate, "missing": [], "told": []}
        self.changes = state["changes"] if state else first
        self._compile()

    @property
    def begun(self) -> bool:
        """Whether there is a state to go on from."""
        return self.kept.newest is not None

    def run(self, epochs: int, callbacks: Sequence[keras.callbacks.Callback] = ()) -> "Training":
        """Train up to `epochs`, or until a callback stops it.

        Raises: TrainingError where the loss is not finite at an eighth of the learning rate; DataError for images
            that cannot be read any more.
        """
        with Stop() as stop:
            while True:
                try:
                    self._attempt(epochs, callbacks, stop)
                    return self
                except NotFinite as fault:
                    self._engine.reset()
                    self._slower(fault)
                except PeerLost:
                    if stop.number:
                        stop.leave()
                    raise
                except Exception as fault:
                    self._engine.reset()
                    if self._engine.ran_out_of_memory(fault):
                        self._in_smaller_parts(fault)
                    elif isinstance(fault, tf.errors.OpError):
                        self._without_vanished(fault)
                    else:
                        raise
                self._compile()

    def follow(self, changes: dict, epochs: int, first: int, begin: int) -> Engine:
        """Take part in this training, which another process leads from batch `begin` of epoch `first` on."""
        self.changes = changes
        self._compile()
        batches = self._batches(epochs, first, begin)
        self._engine.build(batches)
        self._engine.follow(self._engine.stream(batches))
        return self._engine

    def _compile(self) -> None:
        """One update for `batch_size` images; the schedule counts updates, whatever the parts."""
        recipe, images, parts = self.recipe, self.images, self.changes["parts"]
        shares = np.maximum(images.counts, 1) / len(images) if recipe.balanced else np.ones(len(images.class_names))
        updates = math.ceil(len(images) / recipe.batch_size)
        optimizer = optimizers.Adam(
            learning_rate(recipe, updates, self.changes["halvings"]),
            weight_decay=recipe.weight_decay,
            gradient_accumulation_steps=parts if parts > 1 else None,
        )
        if self.rates:
            optimizer = optimizers.Discriminative(optimizer, self.rates)
        self.model.compile(
            optimizer,
            AdjustedCrossentropy(shares, recipe.label_smoothing),
            metrics=[keras.metrics.CategoricalAccuracy(name="accuracy")],
        )
        self._engine = engine_for(self.model)
        self._engine.updates = updates * recipe.epochs
        gone = set(self.changes["missing"])
        self._data = images.subset([i for i, name in enumerate(images.names) if name not in gone]) if gone else images
        self._recipe = replace(recipe, accumulate=parts)
        self._part = recipe.batch_size // parts

    def _attempt(self, epochs: int, callbacks, stop: Stop) -> None:
        model, state, steps = self.model, self.kept.newest, math.ceil(len(self._data) / self._part)
        average = self.recipe.averaging and self.recipe.snapshots < 2  # it would reach back over the restarts
        averaging = [optimizers.PolyakAveraging(self.recipe.averaging)] if average else []
        own_bar = any(isinstance(c, keras.callbacks.ProgbarLogger) for c in callbacks)
        bar = [Bar()] if is_verbose() and not own_bar else []
        calls = keras.callbacks.CallbackList(
            [*averaging, *callbacks, *bar], add_history=True, verbose=1 if sys.stdout.isatty() else 2, epochs=epochs,
            steps=steps, model=model,
        )  # fmt: skip
        self._callbacks = {f"{i} {type(callback).__name__}": callback for i, callback in enumerate(callbacks)}
        self._began, self._at = time.monotonic(), (0, 0)
        self._losses, self._waiting = deque(), Waiting(self._engine.device, self._engine.shard == (0, 1))
        model.stop_training = False
        first, begin = (state["epoch"], min(state["images"] // self._part, steps - 1)) if state else (0, 0)
        batches = self._batches(epochs, first, begin)
        self._engine.announce(
            dict(images=self.images, recipe=self.recipe, seed=self.seed, rates=self.rates, changes=self.changes,
                 epochs=epochs, first=first, begin=begin)
        )  # fmt: skip
        self._engine.build(batches)
        calls.on_train_begin()
        if state:
            self._restore(state)
        stream, logs = self._engine.stream(batches), {}
        for epoch in range(first, epochs):
            resumed = first == epoch and begin
            if not resumed:
                model.reset_metrics()
            calls.on_epoch_begin(epoch)
            self._epoch(epoch, range(begin if resumed else 0, steps), stream, calls, stop)
            logs = {name: float(value) for name, value in model.get_metrics_result().items()}
            calls.on_epoch_end(epoch, logs)
            if model.stop_training:
                break
        if not (state and state["done"]):
            self.kept.keep(lambda: self._state(epochs, 0, done=True))
        if stop.number:
            stop.leave()
        calls.on_train_end(logs)
        self.history = {name: [float(v) for v in values] for name, values in model.history.history.items()}
        self.seconds = self.kept.newest["seconds"]

    def _epoch(self, epoch: int, steps: range, stream: Iterator, calls, stop: Stop) -> None:
        waiting = self._waiting
        for step in steps:
            self._at = epoch, step
            self._keep(stop, epoch, step)
            calls.on_train_batch_begin(step)
            logs = self._engine.step(waiting.next(stream, self._check_losses))
            self._losses.append((epoch, step, logs["loss"]))
            waiting.stepped()
            logs = Logs(logs)
            for callback in calls.callbacks:  # Keras's list would look at all metrics, and so wait for every step
                callback.on_train_batch_end(step, logs=logs)
            if self.model.stop_training:
                break
        self._check_losses()
        self._engine.settle()
        if verdict := waiting.verdict():
            logger.info(verdict)

    def _check_losses(self) -> None:
        """Look at the losses since the last look. TensorFlow brings even an old one only once all that was asked of the
        GPU is done, so that each look leaves it with nothing to do."""
        while self._losses:
            epoch, step, loss = self._losses.popleft()
            if not math.isfinite(float(loss)):
                self._at = epoch, step
                raise NotFinite(f"the loss became {float(loss)}")

    def _batches(self, epochs: int, first: int, begin: int, shard=None) -> tf.data.Dataset:
        """shard: default: the slice of every batch that is this process's."""
        classes = len(self.images.class_names)
        recipe = replace(self._recipe, epochs=max(epochs, first), snapshots=0)
        batches = training_batches(
            self._data, recipe, seed=self.seed, start=first, first_batch=begin, shard=shard or self._engine.shard
        )
        return batches.map(lambda x, label, *whole: (x, soft(label, classes), *whole))

    def _keep(self, stop: Stop, epoch: int, step: int) -> None:
        """The state before a step, where it is due, between two updates; and the end, where a signal asked for it."""
        if self.kept.newest is None:
            self.kept.keep(lambda: self._state(epoch, step), on_disk=False)
        elif (self.kept.due or stop.number) and self._between_updates():
            self.kept.keep(lambda: self._state(epoch, step))
        if stop.number:
            stop.leave()

    def _between_updates(self) -> bool:
        """Whether no sums of gradients are kept; loss scaling skips parts whose gradients are not finite."""
        if self.changes["parts"] == 1:
            return True
        self._engine.settle()
        counts = [int(v) for v in self.model.optimizer.variables if v.name == "iteration"]  # a wrapper's stays 0
        return max(counts) % self.changes["parts"] == 0

    def _variables(self) -> list[keras.Variable]:
        """Weights, seeds, and the optimizer's; not the sums of gradients, which are zero between two updates."""
        mine = [v for v in self.model.optimizer.variables if not v.name.endswith("gradient_accumulator")]
        return list({id(v): v for v in (*self.model.variables, *mine)}.values())

    def _state(self, epoch: int, step: int, done: bool = False) -> dict:
        self._check_losses()
        self._engine.settle()
        values = []
        for variable in self._variables():
            value = np.array(keras.ops.convert_to_numpy(variable))
            if value.dtype.kind == "f" and not np.isfinite(value).all():
                raise NotFinite(f"{variable.path} became {value[~np.isfinite(value)][0]}")
            values.append(np.array(value // self.changes["parts"]) if variable.name == "iteration" else value)
        kept = {name: c.state() for name, c in self._callbacks.items() if hasattr(c, "state") and hasattr(c, "restore")}
        return {
            "epoch": epoch, "images": step * self._part, "done": done, "changes": dict(self.changes),
            "variables": values,
            "metrics": [np.array(keras.ops.convert_to_numpy(v)) for v in self.model.metrics_variables],
            "history": {name: [float(v) for v in row] for name, row in self.model.history.history.items()},
            "callbacks": kept, "seconds": self.seconds + time.monotonic() - self._began,
        }  # fmt: skip

    def _restore(self, state: dict) -> None:
        model, parts = self.model, self.changes["parts"]
        if state["images"]:
            for variable, value in zip(model.metrics_variables, state["metrics"], strict=True):
                variable.assign(value)
        variables = self._variables()
        if [v.shape for v in variables] != [value.shape for value in state["variables"]]:
            raise OutputError(f"{self.kept.path} is of another version of this library; delete the run to begin anew")
        for variable, value in zip(variables, state["variables"], strict=True):
            variable.assign(value * parts if variable.name == "iteration" else value)
        for variable in model.optimizer.variables:
            if variable.name.endswith("gradient_accumulator"):
                variable.assign(keras.ops.zeros(variable.shape, variable.dtype))
        for name, callback in self._callbacks.items():
            if name in state["callbacks"]:
                callback.restore(state["callbacks"][name])
        rows = state["history"]
        model.history.history = {name: list(values) for name, values in rows.items()}
        model.history.epoch = list(range(max(map(len, rows.values()), default=0)))
        self.seconds = state["seconds"]

    def _changed(self, told: str, **changes) -> None:
        """The last good state, to be gone on from with these changes."""
        state = self.kept.newest
        changes["told"] = [*self.changes["told"], told]
        self.changes = {**self.changes, **changes}
        state["changes"] = dict(self.changes)
        logger.info(told)

    def _slower(self, fault: NotFinite) -> None:
        halvings = self.changes["halvings"] + 1
        epoch, step = self._at
        where = f"{fault} at step {step + 1} of epoch {epoch + 1}"
        if self.kept.newest is None:  # the weights that the training was given
            raise TrainingError(f"{where}, before anything was trained") from None
        if halvings > HALVINGS:
            told = f"{where}, at an eighth of the learning rate too. {self._diagnosis(epoch, step)}; {SMALLER}"
            raise TrainingError(told) from None
        self._changed(
            f"{where}: the training goes on from the last good state with 1/{2**halvings} of the learning rate",
            halvings=halvings,
        )

    def _diagnosis(self, epoch: int, step: int) -> str:
        """The files of a batch, of all devices and hosts, and the gradients that it has at the last good weights."""
        batches = self._batches(epoch + 1, epoch, step, shard=(0, 1))
        self._restore(self.kept.newest | {"images": 0})
        positions = range(step * self._part, min((step + 1) * self._part, len(self._data)))
        names = batch_names(self._data, positions, epoch=epoch, seed=self.seed)
        at_once = math.ceil(len(positions) / self._engine.replicas)  # more may not fit into one device's memory
        norms = gradient_norms(self.model, *next(iter(batches)), at_once=at_once)
        more = f" and {len(names) - 10} more" if len(names) > 10 else ""
        return printable(
            f"The batch: {', '.join(names[:10])}{more}. Its largest gradients at the last good weights: {norms}"
        )

    def _in_smaller_parts(self, fault) -> None:
        if "space left" in str(fault):  # TensorFlow's word for a full disk is the same
            raise OutputError(f"a callback cannot write, the disk is full: {fault}") from fault
        parts, size = 2 * self.changes["parts"], self.recipe.batch_size
        while size % parts and parts < size:
            parts += 1
        if self.changes["parts"] >= size or self.kept.newest is None:
            raise fault
        told = f"memory ran out: batches of {size} images are computed in {parts} parts from now on"
        self._changed(told, parts=parts)

    def _without_vanished(self, fault) -> None:
        gone = vanished(self._data)
        missing = [*self.changes["missing"], *gone]
        if not gone or self.kept.newest is None or too_many(len(missing), len(self.images)):
            raise reading_failed(fault, self._data) or fault
        told = f"{len(gone)} training images vanished, the training goes on without them: {', '.join(gone)}"
        self._changed(printable(told), missing=missing)
