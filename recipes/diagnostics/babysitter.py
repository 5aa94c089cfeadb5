"""The lecture's babysitting while `model.fit` runs: what moves by how much, live, at a bounded cost."""

import logging
import math
import time

import keras
import numpy as np
import tensorflow as tf
from keras import ops

from recipes.core.output import safe_output
from recipes.diagnostics.activations import Inside, Look, single_loss
from recipes.errors import RecipeError

logger = logging.getLogger(__name__)

_SHARE = 0.03  # of the time of the steps, that looking may cost
LOOKED_AT = 32  # of the sample
_WAIT = 5  # steps before the first look: the first ones trace and warm up
_ENOUGH = 5  # looks at the weights, before advice is given: the first ones fall into the warm-up of the learning rate


class Babysitter(keras.callbacks.Callback):
    """Watches any `model.fit` and says, while it runs and at its end, what the lecture would look at.

    Every so many steps, so rarely that it costs at most 3 % of the time of the steps, it measures for every kernel the
    ratio ‖update‖ / ‖weights‖ (about 1e-3 is good), and whether a weight is no longer a number. It compares the first
    loss with log(classes), and the accuracies of training and validation after each epoch. With a `sample`, for Keras
    shows a callback no images, it also looks inside on them: standard deviation of the activations of each layer
    (vanishing, exploding), share of dead units, norm of each kernel's gradient; half of the 3 % are for that. Doubtful
    labels are `diagnose`'s and `Result.suspects`' business: a loss that is high while training proves none.

    log_dir: folder for TensorBoard: scalars of loss, learning rate and all that was looked at, histograms of the
        weights each epoch.
    quiet:   prints nothing; `verdicts` holds what there is to say.
    sample:  (inputs, labels), some of those that are trained on, as the model takes them, or a function without
        arguments that gives them at the first look; 32 are looked at.

    `ratios` and `insides` hold what was seen, a row a look; `cost` is the share of the time that looking took.

    Raises: RecipeError for a sample that is none.

    Example: `model.fit(x, y, callbacks=[Babysitter("logs", sample=(x, y))])`, then `tensorboard --logdir logs`
    """

    def __init__(self, log_dir=None, quiet: bool = False, sample=None):
        super().__init__()
        self.log_dir, self.quiet, self._writer, self.verdicts = log_dir, quiet, None, []
        self._sample = sample if sample is None or callable(sample) else _checked(sample)

    def on_train_begin(self, logs=None):
        self._kernels = [v for v in self.model.trainable_variables if len(v.shape) > 1]
        self._copies, self._look = None, None
        self._step, self._looked, self._began = 0, 0.0, time.perf_counter()
        self._last_cost, self._told_gap = 0.0, False
        self._looked_inside, self._inside_cost, self._first_step = 0.0, None, 0.0
        self._share = _SHARE if self._sample is None else _SHARE / 2
        self.insides: list[Inside] = []
        self.ratios: list[np.ndarray] = []
        self.verdicts: list[str] = []
        self._log(lambda: self._writer.close())  # of an attempt that a fault has ended
        self._writer = None
        if self.log_dir:
            self._tried(self._open)

    @property
    def cost(self) -> float:
        """Share of the training's time that looking has taken so far."""
        return (self._looked + self._looked_inside) / max(1e-9, time.perf_counter() - self._began)

    def on_train_batch_begin(self, batch, logs=None):
        if self._step < _WAIT or not self._kernels:
            return
        spent = time.perf_counter() - self._began
        if self._looked + self._last_cost > self._share * spent:
            return
        began = time.perf_counter()
        _ = self.model  # on JAX this brings the variables up to date
        self._copies = _arrays(self._kernels)
        self._looked += time.perf_counter() - began

    def on_train_batch_end(self, batch, logs=None):
        self._step += 1
        if self._step == 1:
            self._first_step = time.perf_counter() - self._began
            self._first_loss(logs)
        if self._copies is not None:
            self._see_ratios(logs)
        if self._sample is not None and self._step >= _WAIT:
            self._see_inside()

    def _see_ratios(self, logs) -> None:
        began = time.perf_counter()
        model = self.model
        ratios = _ratios(_arrays(self._kernels), self._copies)
        self._copies = None
        if ratios.any() or not getattr(model.optimizer, "gradient_accumulation_steps", None):
            self.ratios.append(ratios)  # between two updates nothing moves
        if not np.isfinite(ratios).all() and not any("no longer" in verdict for verdict in self.verdicts):
            self._say(f"step {self._step}: weights are no longer numbers: lower the learning rate")
        self._log(lambda: self._write_step(ratios, logs or {}))
        self._last_cost = 2 * (time.perf_counter() - began)
        self._looked += time.perf_counter() - began

    def _see_inside(self) -> None:
        """Where there is time for it. The cost of a look is that of the one before; guessed of the first one: seven
        steps, or on JAX, which compiles then, what the first step took, and seven steps of the second."""
        began = time.perf_counter()
        spent, compiles = began - self._began, keras.backend.backend() == "jax" and self._look is None
        guess = self._first_step if compiles else 7 * spent / self._step
        if self._looked_inside + (self._inside_cost or guess) > self._share * spent:
            return
        try:
            model = self.model  # on JAX this brings the variables up to date
            self._sample = _checked(self._sample()) if callable(self._sample) else self._sample
            self._look = self._look or Look(model, *self._sample)
            found = self._look()
        except Exception as error:  # the training is worth more than a look at it
            self._sample = None
            self._say(f"no look inside, on this sample it fails: {type(error).__name__}: {error}")
            return
        self.insides.append(found)
        for advice in found.advice:
            if not any(advice in verdict for verdict in self.verdicts):
                self._say(f"step {self._step}: {found}: {advice}")
        self._log(lambda: self._write_inside(found))
        cost = time.perf_counter() - began
        self._looked_inside += cost
        self._inside_cost = None if compiles else cost

    def on_epoch_end(self, epoch, logs=None):
        logs, began = logs or {}, time.perf_counter()
        histograms = self._looked + self._histogram_cost() < self._share * (began - self._began)
        self._log(lambda: self._write_epoch(epoch, logs, histograms))
        self._looked += time.perf_counter() - began
        self._gap(epoch, logs)

    def on_train_end(self, logs=None):
        if self.ratios:
            middle = float(np.median(self.ratios))
            told = f"update-to-weight ratio {middle:.1e} (median of {_looks(len(self.ratios))})"
            if not math.isfinite(middle):
                told += ": lower the learning rate"
            elif len(self.ratios) < _ENOUGH:
                told += ", too few for advice"
            elif middle > 1e-2:
                told += ": about 1e-3 is good; lower the learning rate"
            elif middle < 1e-4:
                told += ": about 1e-3 is good; raise the learning rate"
            self._say(told)
        elif not self._kernels:
            self._say("nothing in the model is trainable")
        else:
            self._say(f"no look at the weights fitted into {self._share:.1%} of {self._step} steps")
        if self._sample is not None:
            self._told_inside()
        self._log(lambda: self._writer.close())

    def _told_inside(self) -> None:
        if self.insides:
            self._say(f"at the last of {_looks(len(self.insides))} inside, {self.insides[-1]}")
        else:
            self._say(f"no look inside fitted into {self._share:.1%} of {self._step} steps; `diagnose` looks once")
        if not single_loss(self.model):
            self._say("gradients were not looked at: the model was not compiled with a single loss")

    def _first_loss(self, logs) -> None:
        shape, loss = getattr(self.model, "output_shape", None), (logs or {}).get("loss")
        classes = shape[-1] if isinstance(shape, tuple) and isinstance(shape[-1], int) else 0
        if loss is None or classes < 2 or "crossentropy" not in _name(self.model.loss):
            return
        if loss > 2 * math.log(classes):
            self._say(
                f"first loss {loss:.2f}, well above log({classes}) = {math.log(classes):.2f}: scale the inputs, draw "
                "smaller weights for the head, or look at the penalties"
            )

    def _gap(self, epoch: int, logs) -> None:
        name = next((name for name in logs if name.endswith("accuracy") and f"val_{name}" in logs), None)
        if name is None:
            return
        gap = logs[name] - logs[f"val_{name}"]
        if gap > 0.15 and not self._told_gap:
            self._told_gap = True
            self._say(
                f"epoch {epoch + 1}: {logs[name]:.0%} of the training and {logs[f'val_{name}']:.0%} of the validation "
                "images are right: it overfits; more augmentation, dropout or weight decay, or more images"
            )

    def _open(self) -> None:
        self._writer = tf.summary.create_file_writer(str(self.log_dir))

    def _log(self, write) -> None:
        """Where the logs cannot be written, for the disk is full, the training is worth more than they are."""
        if self._writer is not None:
            self._tried(write)

    def _tried(self, write) -> None:
        try:
            write()
        except (tf.errors.OpError, OSError) as error:
            self._writer = None
            self._say(f"{self.log_dir} cannot be written, the training goes on without logs: {error}")

    def _write_epoch(self, epoch: int, logs, histograms: bool) -> None:
        with self._writer.as_default(step=epoch):
            for name, value in logs.items():
                tf.summary.scalar(f"epoch/{name}", value)
            for variable in self._kernels if histograms else ():
                tf.summary.histogram(f"weights/{variable.path}", ops.convert_to_numpy(variable))
        self._writer.flush()

    def _write_step(self, ratios, logs) -> None:
        rate = getattr(self.model.optimizer, "learning_rate", None)
        with self._writer.as_default(step=int(self.model.optimizer.iterations)):
            for variable, ratio in zip(self._kernels, ratios, strict=True):
                tf.summary.scalar(f"update_to_weight/{variable.path}", ratio)
            if "loss" in logs:
                tf.summary.scalar("step/loss", float(logs["loss"]))
            if rate is not None:
                tf.summary.scalar("step/learning_rate", float(rate))

    def _write_inside(self, found: Inside) -> None:
        parts = {"activations": found.spread, "dead_units": found.dead, "gradient_norm": found.gradients}
        with self._writer.as_default(step=int(self.model.optimizer.iterations)):
            for part, numbers in parts.items():
                for name, value in numbers.items():
                    tf.summary.scalar(f"{part}/{name}", value)

    def _histogram_cost(self) -> float:
        """Seconds, about: TensorFlow sorts some ten million weights a second into buckets."""
        return 1e-7 * sum(int(np.prod(v.shape)) for v in self._kernels) + 1e-3 * len(self._kernels)

    def _say(self, verdict: str) -> None:
        self.verdicts.append(verdict)
        if not self.quiet:
            with safe_output():
                logger.warning(f"babysitter: {verdict}")


def _checked(sample) -> tuple[np.ndarray, np.ndarray]:
    """The first of it."""
    if not isinstance(sample, tuple | list) or len(sample) != 2 or any(not hasattr(part, "__len__") for part in sample):
        raise RecipeError(f"sample is a {type(sample).__name__}; expected (inputs, labels), as model.fit takes them")
    inputs, labels = sample
    if len(inputs) != len(labels) or not len(inputs):
        raise RecipeError(f"sample has {len(inputs)} inputs and {len(labels)} labels; expected as many of both")
    return ops.convert_to_numpy(inputs[:LOOKED_AT]), np.asarray(labels[:LOOKED_AT])


def _name(loss) -> str:
    """Of a loss given as a word, a function or an object."""
    return str(loss if isinstance(loss, str) else getattr(loss, "name", getattr(loss, "__name__", "")))


def _arrays(variables) -> list[np.ndarray]:
    """Copies, on the host: to compute on the device would first take a compilation, which costs more than all looks."""
    return [np.array(ops.convert_to_numpy(v)).astype("float32", copy=False) for v in variables]


def _ratios(after, before) -> np.ndarray:
    """‖after − before‖ / ‖before‖ of every pair."""
    pairs = zip(after, before, strict=True)
    return np.array([np.linalg.norm(a - b) / max(np.linalg.norm(b), 1e-12) for a, b in pairs])


def _looks(count: int) -> str:
    return f"{count} look" if count == 1 else f"{count} looks"
