"""Watch `model.fit` with a callback that measures updates, overfitting and activations at a bounded cost."""

import logging
import math
import os
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import keras
import numpy as np
import tensorflow as tf
from keras import ops

from recipes.core.output import safe_output
from recipes.core.text import counted, described
from recipes.diagnostics.activations import Inspection, Inspector, has_single_loss
from recipes.diagnostics.checks import copied_arrays, update_ratios
from recipes.diagnostics.measurements import (
    TOO_FEW,
    Progress,
    checked_sample,
    histogram_seconds,
    loss_name,
    ratio_advice,
)

logger = logging.getLogger(__name__)

_SHARE = 0.03  # maximum cost of measuring, as a share of the time of the steps
_WAIT = 5  # number of steps before the first measurement, because the first steps trace and warm up
_OVERFIT = 0.15  # gap between training and validation accuracy that is reported


class Babysitter(keras.callbacks.Callback):
    """Watch any `model.fit`, report problems during training, and log a summary at its end.

    For every kernel, the callback measures the ratio ‖update‖ / ‖weights‖ (about 1e-3 is good), and whether a weight is
    NaN or infinite. Measurements are so rare that they take at most 3 % of the time of the steps. The first loss is
    compared with log(classes), and the training accuracy with the validation accuracy after each epoch. Keras gives a
    callback no images. With a `sample`, the callback also measures the standard deviation of each layer's activations
    (vanishing, exploding), the share of dead units, and the norm of each kernel's gradient, in half of the 3 %.
    Doubtful labels are not reported, because a high training loss does not prove a wrong label; see `diagnose` and
    `Result.suspects`.

    Args:
        log_dir: Folder for TensorBoard: scalars of the loss, the learning rate and all measurements, and histograms of
            the weights after each epoch.
        quiet: Whether to log nothing; `verdicts` always holds the reports.
        routine: Level at which reports without advice are logged; reports with advice are warnings.
        sample: (inputs, labels) of training examples in the form that the model takes, of which the first 32 are used,
            or a function without arguments that returns both at the first inspection.

    Attributes:
        verdicts: The reports, in chronological order.
        ratios: One array per measurement, with the ratio of each kernel.
        insides: One `Inspection` for each measurement on the sample.

    Raises:
        RecipeError: If `sample` is malformed.

    Example:
        >>> model.fit(x, y, callbacks=[Babysitter("logs", sample=(x, y))])  # then: tensorboard --logdir logs
    """

    def __init__(
        self,
        log_dir: str | os.PathLike | None = None,
        quiet: bool = False,
        sample: Sequence | Callable[[], Sequence] | None = None,
        routine: int = logging.INFO,
    ) -> None:
        super().__init__()
        self.log_dir, self.quiet, self.routine = log_dir, quiet, routine
        self.verdicts: list[str] = []
        self.ratios: list[np.ndarray] = []
        self.insides: list[Inspection] = []
        self._sample = sample if sample is None or callable(sample) else checked_sample(sample)
        self._share = _SHARE
        self._progress = Progress()
        self._writer: Any = None  # TensorFlow's stubs have no type for it

    def __repr__(self) -> str:
        measured = counted(len(self.ratios), "measurement")
        return described("Babysitter", measured, counted(len(self.verdicts), "report"), f"log_dir={self.log_dir!r}")

    @property
    def _network(self) -> keras.Model:
        """Return the model that is trained, with its variables up to date on JAX."""
        model = self.model
        assert model is not None  # Keras sets the model before any method is called
        return model

    @property
    def cost(self) -> float:
        """Return the share of the training time that measuring has taken so far."""
        progress = self._progress
        return (progress.weights_time + progress.inspections_time) / max(1e-9, progress.elapsed)

    def on_train_begin(self, logs: dict | None = None) -> None:
        self._progress = Progress([v for v in self._network.trainable_variables if len(v.shape) > 1])
        self._share = _SHARE if self._sample is None else _SHARE / 2
        self.insides, self.ratios, self.verdicts = [], [], []
        self._close_logs()  # removes the state of an attempt that a fault has ended
        if self.log_dir:
            try:
                self._writer = tf.summary.create_file_writer(str(self.log_dir))
            except (tf.errors.OpError, OSError) as error:
                self._stop_logs(error)

    def on_train_batch_begin(self, batch: int, logs: dict | None = None) -> None:
        progress = self._progress
        if progress.step < _WAIT or not progress.kernels:
            return
        if progress.weights_time + progress.comparison_time > self._share * progress.elapsed:
            return
        began = time.perf_counter()
        _ = self._network  # reading the property brings the variables up to date
        progress.before = copied_arrays(progress.kernels)
        progress.weights_time += time.perf_counter() - began

    def on_train_batch_end(self, batch: int, logs: dict | None = None) -> None:
        progress = self._progress
        progress.step += 1
        if progress.step == 1:
            progress.first_step = progress.elapsed
            self._check_first_loss(logs or {})
        if progress.before is not None:
            self._compare_weights(progress.before, logs or {})
        if self._sample is not None and progress.step >= _WAIT:
            self._inspect_if_cheap()

    def _compare_weights(self, before: list[np.ndarray], logs: Mapping[str, Any]) -> None:
        began, progress, model = time.perf_counter(), self._progress, self._network
        ratios = update_ratios(copied_arrays(progress.kernels), before)
        progress.before = None
        if ratios.any() or not getattr(model.optimizer, "gradient_accumulation_steps", None):
            self.ratios.append(ratios)  # with gradient accumulation, most steps change no weight
        if not np.isfinite(ratios).all() and not any("NaN or infinite" in verdict for verdict in self.verdicts):
            self._report(f"step {progress.step}: weights became NaN or infinite; lower the learning rate")
        self._log_step(ratios, logs)
        progress.comparison_time = 2 * (time.perf_counter() - began)
        progress.weights_time += time.perf_counter() - began

    def _inspect_if_cheap(self) -> None:
        """Inspect the network if its cost stays within the limit.

        The estimated time of an inspection is that of the previous one. The first inspection is estimated by seven
        steps. On JAX, which compiles it, the estimate is the time of the first step, and the second inspection is
        estimated by seven steps.
        """
        began, progress = time.perf_counter(), self._progress
        spent, compiles = began - progress.began, keras.backend.backend() == "jax" and progress.inspector is None
        guess = progress.first_step if compiles else 7 * spent / progress.step
        if progress.inspections_time + (progress.inspection_time or guess) > self._share * spent:
            return
        try:
            inspection = self._inspection()
        except Exception as error:  # the caller's sample or model may raise anything; the training continues
            self._sample = None
            self._report(
                f"activations and gradients cannot be measured on this sample ({type(error).__name__}: {error})"
            )
            return
        self.insides.append(inspection)
        for advice in inspection.advice:
            if not any(advice in verdict for verdict in self.verdicts):
                self._report(f"step {progress.step}: {inspection}: {advice}")
        self._log_inspection(inspection)
        cost = time.perf_counter() - began
        progress.inspections_time += cost
        progress.inspection_time = None if compiles else cost

    def _inspection(self) -> Inspection:
        model, progress = self._network, self._progress
        if progress.inspector is None:
            sample = checked_sample(self._sample()) if callable(self._sample) else self._sample
            assert sample is not None  # the caller has checked that the value is not None
            self._sample = sample
            progress.inspector = Inspector(model, *sample)
        return progress.inspector()

    def on_epoch_end(self, epoch: int, logs: dict | None = None) -> None:
        logs, began, progress = logs or {}, time.perf_counter(), self._progress
        cheap = progress.weights_time + histogram_seconds(progress.kernels) < self._share * (began - progress.began)
        scalars = {f"epoch/{name}": value for name, value in logs.items()}
        self._write(scalars, epoch, histograms=progress.kernels if cheap else (), flush=True)
        progress.weights_time += time.perf_counter() - began
        self._check_overfit(epoch, logs)

    def on_train_end(self, logs: dict | None = None) -> None:
        if self.ratios:
            median = float(np.median(self.ratios))
            count, advice = counted(len(self.ratios), "measurement"), ratio_advice(median, self.ratios)
            text = f"update-to-weight ratio {median:.1e} (median of {count}){advice}"
            self._report(text, routine=advice in ("", TOO_FEW))
        elif not self._progress.kernels:
            self._report("nothing in the model is trainable")
        else:
            self._report(
                f"the weights were not measured, because that would take more than {self._limit}", routine=True
            )
        if self._sample is not None:
            self._report_inspections()
        self._close_logs()

    @property
    def _limit(self) -> str:
        return f"{self._share:.1%} of the time of {self._progress.step} steps"

    def _report_inspections(self) -> None:
        if self.insides:
            self._report(f"the last of {counted(len(self.insides), 'inspection')}: {self.insides[-1]}", routine=True)
        else:
            self._report(
                f"activations and gradients were not measured, because that would take more than {self._limit}; use "
                f"`diagnose` to measure both once",
                routine=True,
            )
        if not has_single_loss(self._network):
            self._report("gradients were not measured, because the model was not compiled with a single loss")

    def _check_first_loss(self, logs: Mapping[str, Any]) -> None:
        model, loss = self._network, logs.get("loss")
        shape = getattr(model, "output_shape", None)
        classes = shape[-1] if isinstance(shape, tuple) and isinstance(shape[-1], int) else 0
        if loss is None or classes < 2 or "crossentropy" not in loss_name(model.loss):
            return
        if loss > 2 * math.log(classes):
            self._report(
                f"the first loss, {loss:.2f}, is well above log({classes}) = {math.log(classes):.2f}: scale the "
                "inputs, draw smaller weights for the head, or reduce the penalties"
            )

    def _check_overfit(self, epoch: int, logs: Mapping[str, Any]) -> None:
        name = next((name for name in logs if name.endswith("accuracy") and f"val_{name}" in logs), None)
        if name is None or self._progress.overfit_reported:
            return
        training, validation = logs[name], logs[f"val_{name}"]
        if training - validation > _OVERFIT:
            self._progress.overfit_reported = True
            self._report(
                f"epoch {epoch + 1}: the accuracy is {training:.0%} on training and {validation:.0%} on validation "
                "images. The model overfits: use more augmentation, dropout or weight decay, or more images"
            )

    def _log_step(self, ratios: np.ndarray, logs: Mapping[str, Any]) -> None:
        if self._writer is None:
            return
        optimizer = self._network.optimizer
        pairs = zip(self._progress.kernels, ratios, strict=True)
        scalars = {f"update_to_weight/{variable.path}": ratio for variable, ratio in pairs}
        if "loss" in logs:
            scalars["step/loss"] = float(logs["loss"])
        if (rate := getattr(optimizer, "learning_rate", None)) is not None:
            scalars["step/learning_rate"] = float(rate)
        self._write(scalars, int(optimizer.iterations))

    def _log_inspection(self, inspection: Inspection) -> None:
        if self._writer is None:
            return
        parts = {"activations": inspection.spread, "dead_units": inspection.dead, "gradient_norm": inspection.gradients}
        scalars = {f"{part}/{name}": value for part, values in parts.items() for name, value in values.items()}
        self._write(scalars, int(self._network.optimizer.iterations))

    def _write(
        self, scalars: Mapping[str, Any], step: int, histograms: Sequence[keras.Variable] = (), flush: bool = False
    ) -> None:
        if self._writer is None:
            return
        try:
            with self._writer.as_default(step=step):
                for name, value in scalars.items():
                    tf.summary.scalar(name, value)
                for variable in histograms:
                    tf.summary.histogram(f"weights/{variable.path}", ops.convert_to_numpy(variable))
            if flush:
                self._writer.flush()
        except (tf.errors.OpError, OSError) as error:
            self._stop_logs(error)

    def _close_logs(self) -> None:
        writer, self._writer = self._writer, None
        if writer is not None:
            try:
                writer.close()
            except (tf.errors.OpError, OSError) as error:
                self._stop_logs(error)

    def _stop_logs(self, error: Exception) -> None:
        """Report that the logs cannot be written, for example on a full disk; the training continues."""
        self._writer = None
        self._report(f"{self.log_dir} cannot be written ({error}); the training continues without logs")

    def _report(self, verdict: str, routine: bool = False) -> None:
        """Add a verdict and log it; a verdict without advice is `routine`."""
        self.verdicts.append(verdict)
        if not self.quiet:
            with safe_output():
                logger.log(self.routine if routine else logging.WARNING, f"babysitter: {verdict}")
