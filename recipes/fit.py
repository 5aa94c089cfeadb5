"""The one compile/fit path: every gradient step that `recipes` takes happens here."""

import math
import time
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import keras
import numpy as np
import tensorflow as tf

import augment
from layers import freeze_batch_statistics
from recipes.data import ImageData
from recipes.errors import TrainingError
from recipes.evaluation import calibrated_nll
from recipes.features import evaluation_batches
from recipes.plan import Recipe

_SMALLER = "use a smaller learning rate: finetune(..., recipe=recipes.adjusted('all', learning_rate=1e-4))"


class KeepBest(keras.callbacks.Callback):
    """Ends with the weights of the lowest validation loss, and stops after `patience` epochs without a lower one."""

    def __init__(self, patience: int):
        super().__init__()
        self.patience, self.best_loss, self.best_epoch = patience, math.inf, 0
        self.best_weights = None

    def on_epoch_end(self, epoch, logs=None):
        if not math.isfinite(logs["val_loss"]):
            raise TrainingError(f"the validation loss became {logs['val_loss']} in epoch {epoch + 1}; {_SMALLER}")
        if logs["val_loss"] < self.best_loss or self.best_weights is None:
            self.best_loss, self.best_epoch = logs["val_loss"], epoch + 1
            self.best_weights = self.model.get_weights()
        elif epoch + 1 - self.best_epoch >= self.patience:
            self.model.stop_training = True

    def on_train_end(self, logs=None):
        self.model.set_weights(self.best_weights)


class StopAt(keras.callbacks.Callback):
    """Stops before the clock passes `deadline` (time.monotonic() seconds), leaving room for one more validation."""

    def __init__(self, deadline: float):
        super().__init__()
        self.deadline, self.reached = deadline, False
        self.validation_seconds = self.validation_began = 0.0

    def on_test_begin(self, logs=None):
        self.validation_began = time.monotonic()

    def on_test_end(self, logs=None):
        self.validation_seconds = time.monotonic() - self.validation_began

    def on_train_batch_end(self, batch, logs=None):
        if time.monotonic() + self.validation_seconds > self.deadline:
            self.reached = self.model.stop_training = True


class StopOnNaN(keras.callbacks.Callback):
    """Ends training with an error at the first loss that is not finite, instead of training on with lost weights."""

    def on_train_batch_end(self, batch, logs=None):
        if not math.isfinite(logs["loss"]):
            step = int(self.model.optimizer.iterations)
            raise TrainingError(f"the loss became {logs['loss']} at step {step}; {_SMALLER}")


@dataclass(frozen=True, eq=False)
class Fitted:
    """How a training went.

    history:    one list per metric, one value per epoch.
    best_epoch: of the lowest validation loss.
    labels:     of the validation images, (n,).
    before:     logits (n, classes) of the validation images before the first step.
    after:      and by the weights of the best epoch.
    cut:        whether the time limit ended it.
    """

    history: dict[str, list[float]]
    best_epoch: int
    labels: np.ndarray
    before: np.ndarray
    after: np.ndarray
    cut: bool

    @property
    def accuracies(self) -> tuple[float, float]:
        """Validation accuracy before and after."""
        return tuple(float((logits.argmax(1) == self.labels).mean()) for logits in (self.before, self.after))

    @cached_property
    def gain(self) -> tuple[float, float]:
        """Mean over the validation images of what training took off their calibrated negative log-likelihood, and its
        standard error: a finer measure than whether the most probable class is right."""
        less = calibrated_nll(self.before, self.labels) - calibrated_nll(self.after, self.labels)
        return float(less.mean()), float(less.std() / math.sqrt(len(less)))

    @property
    def better(self) -> bool:
        """Whether training gained more than its noise: more than one standard error, and no accuracy lost."""
        gain, error = self.gain
        before, after = self.accuracies
        return gain > error and after >= before


def schedule(peak: float, steps: int) -> keras.optimizers.schedules.LearningRateSchedule:
    """Linear warm-up over the first tenth of the steps (at most 100), then cosine decay to a hundredth."""
    warmup = max(1, min(100, steps // 10))
    return keras.optimizers.schedules.CosineDecay(
        0.0 if warmup < steps else peak, max(1, steps - warmup), 0.01, warmup_target=peak, warmup_steps=warmup
    )


def fit(
    model: keras.Model,
    train: ImageData,
    validation: ImageData,
    recipe: Recipe,
    *,
    seed: int,
    deadline: float | None = None,
    callbacks: Sequence[keras.callbacks.Callback] = (),
) -> Fitted:
    """Train the trainable variables of `model` (images 0..255 → logits) as `recipe` says.

    Cross-entropy with label smoothing, AdamW (no decay on biases and normalisation parameters), warm-up and cosine,
    the recipe's augmentation. The weights of the lowest validation loss stay in the model; with a warm start the
    initial ones, unless training was `Fitted.better`.
    """
    classes = len(train.class_names)
    steps = math.ceil(len(train) / recipe.batch_size)
    model.compile(
        _optimizer(model, recipe, steps * recipe.epochs),
        keras.losses.CategoricalCrossentropy(from_logits=True, label_smoothing=recipe.label_smoothing),
        metrics=[keras.metrics.CategoricalAccuracy(name="accuracy")],
        jit_compile=bool(tf.config.list_physical_devices("GPU")),
    )
    held_out = _one_hot(evaluation_batches(validation, recipe.evaluation_policy, recipe.batch_size), classes)
    if _fits_memory(validation, recipe.size):
        held_out = held_out.cache()
    images = held_out.map(lambda images, labels: images)
    initial, before = model.get_weights(), model.predict(images, verbose=0)
    keep, stop = KeepBest(recipe.patience), StopAt(deadline if deadline is not None else math.inf)
    history = model.fit(
        _one_hot(training_batches(train, recipe, seed=seed), classes),
        epochs=recipe.epochs,
        steps_per_epoch=steps,
        shuffle=False,
        validation_data=held_out,
        callbacks=[StopOnNaN(), stop, keep, *callbacks],
        verbose=1,
    ).history
    history = {name: [float(v) for v in values] for name, values in history.items()}
    after = model.predict(images, verbose=0)
    fitted = Fitted(history, keep.best_epoch, validation.labels, before, after, stop.reached)
    if recipe.warm_start and not fitted.better:
        model.set_weights(initial)
    return fitted


def training_batches(train: ImageData, recipe: Recipe, *, seed: int, start: int = 0) -> tf.data.Dataset:
    """All epochs of augmented (images, labels) from epoch `start` on, one stream without a stall between epochs."""
    source = train.source()

    def one_epoch(epoch):
        return augment.epoch(source, recipe.policy, batch_size=recipe.batch_size, seed=seed, epoch=epoch)

    return tf.data.Dataset.range(start, recipe.epochs).flat_map(one_epoch).prefetch(tf.data.AUTOTUNE)


def unfreeze(model: keras.Model, network: keras.Model, recipe: Recipe, stage_tensors: Sequence) -> int:
    """Make trainable what the recipe trains; returns how many of the network's layers that is.

    Batch statistics are frozen wherever the weights are pretrained: see `layers.freeze_batch_statistics`.
    """
    network.trainable = recipe.unfreeze != 0
    if recipe.unfreeze > 0:
        kept = max(0, len(stage_tensors) - recipe.unfreeze)
        frozen = layers_before(network, stage_tensors[kept - 1]) if kept else set()
        for layer in network.layers:
            layer.trainable = layer not in frozen
    if recipe.warm_start and network.trainable:
        freeze_batch_statistics(model)
    return sum(bool(layer.trainable_weights) for layer in network.layers)


def layers_before(network: keras.Model, tensor) -> set:
    """The layers of `network` that `tensor` depends on."""
    return set(keras.Model(network.inputs, tensor).layers)


def _optimizer(model, recipe: Recipe, steps: int) -> keras.optimizers.Optimizer:
    optimizer = keras.optimizers.AdamW(schedule(recipe.learning_rate, steps), weight_decay=recipe.weight_decay)
    optimizer.exclude_from_weight_decay(var_names=["bias", "gamma", "beta"])
    return optimizer


def _one_hot(batches: tf.data.Dataset, classes: int) -> tf.data.Dataset:
    return batches.map(lambda images, labels: (images, tf.one_hot(labels, classes)))


def _fits_memory(data: ImageData, size: int, limit: int = 2**30) -> bool:
    return len(data) * size * size * 3 * np.dtype("float32").itemsize <= limit
