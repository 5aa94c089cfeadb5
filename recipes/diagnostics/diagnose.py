"""Diagnose a classifier by checks of the network and its training, with advice."""

import logging
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import keras
import numpy as np

from recipes import optimizers
from recipes.auditing.audit import audit, usable
from recipes.core.output import safe_output
from recipes.core.text import counted, described
from recipes.data.evaluation_batches import some_images
from recipes.data.image_size import typical_side
from recipes.data.images import ImageData, Splits
from recipes.data.sources import load
from recipes.diagnostics import checks
from recipes.diagnostics.subject import Subject, Verdict
from recipes.errors import DataError, RecipeError
from recipes.runs.record import Record

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

logger = logging.getLogger(__name__)

SAMPLE = 256  # number of training images that are used
_GAP, _NOISY = 0.15, 0.05
_CHECKS = (
    checks.initial_loss, checks.regularisation, checks.learns_by_heart, checks.activations, checks.gradients,
    checks.update_ratio, checks.rate_range,
)  # fmt: skip


@dataclass(frozen=True, eq=False)
class Diagnosis:
    """Hold the verdicts of all checks; `print(diagnosis)` shows the verdicts, `diagnosis.figure()` the measurements."""

    verdicts: tuple[Verdict, ...]

    @property
    def well(self) -> bool:
        """Return whether no check has failed."""
        return all(verdict.well is not False for verdict in self.verdicts)

    def __getitem__(self, check: str) -> Verdict:
        return next(verdict for verdict in self.verdicts if verdict.check == check)

    def __repr__(self) -> str:
        failed = [repr(verdict.check) for verdict in self.verdicts if verdict.well is False]
        return described("Diagnosis", counted(len(self.verdicts), "check"), f"{len(failed)} failed", ", ".join(failed))

    def __str__(self) -> str:
        return "\n".join(map(str, self.verdicts))

    def figure(self) -> "Figure":
        """Return a matplotlib Figure with one plot for every check that has curves."""
        from matplotlib.figure import Figure

        drawn = [verdict for verdict in self.verdicts if verdict.curves]
        rows = max(1, -(-len(drawn) // 2))
        figure = Figure(figsize=(10, 2.6 * rows), layout="constrained")
        axes = figure.subplots(rows, 2, squeeze=False).ravel()
        for ax, verdict in zip(axes, drawn, strict=False):
            _draw(ax, verdict)
        for ax in axes[len(drawn) :]:
            ax.set_axis_off()
        return figure


def _draw(ax: "Axes", verdict: Verdict) -> None:
    curves, failed = dict(verdict.curves), verdict.well is False
    rates = curves.pop("rate", None)
    for name, values in curves.items():
        ax.plot(rates or range(1, len(values) + 1), values, ".-", label=name)
    title, color = (f"{verdict.check}: check", "tab:red") if failed else (verdict.check, "black")
    ax.set_title(title, color=color, fontsize=10)
    ax.set_xlabel("learning rate" if rates else verdict.axis)
    if rates:
        ax.set_xscale("log")
    if len(curves) == 1 and all(value > 0 for values in curves.values() for value in values):
        ax.set_yscale("log")
    ax.legend(fontsize=8)
    ax.grid(alpha=0.3)


@safe_output()
def diagnose(result_or_model: Record | keras.Model, dataset: object) -> Diagnosis:
    """Check a classifier and its training on a sample of 256 training images of `dataset`, and print the verdicts.

    The checks are:

    - the loss with a new head, compared with log(classes), and the share of the penalties in the loss
    - whether 20 images can be learned by heart
    - the activations of the architecture with random weights (vanishing, exploding, dead units)
    - the gradient of each layer, the ratio of updates to weights (about 1e-3), and the useful learning rates
    - the gap between training and validation accuracy, and label noise

    All checks use copies of the model.

    Args:
        result_or_model: A Result, or a keras.Model of 0..255 RGB to probabilities or logits. A model's learning rate is
            read from its optimizer; default: 1e-3.
        dataset: Labelled images of the same classes, in any form that `finetune` takes.

    Raises:
        DataError: If the dataset cannot be used, or its number of classes differs from the model's.
        RecipeError: If the model is not a classifier of square RGB images.

    Example:
        >>> recipes.diagnose(recipes.load("run"), "photos/").figure().savefig("diagnosis.png")
    """
    result = result_or_model if isinstance(result_or_model, Record) else None
    model = result.model if result else result_or_model
    if not isinstance(model, keras.Model) or not getattr(model, "inputs", None):
        raise RecipeError(
            f"diagnose got a {type(model).__name__} without inputs; expected a Result or a built keras.Model",
            code="recipe.no_inputs",
        )
    _check_shapes(model)
    splits = load(dataset, tuple(result.class_names)) if result else load(dataset)
    for note in splits.notes:
        logger.info(note)
    splits, _ = usable(splits, audit(splits))
    subject = _subject(result, model, splits.train)
    verdicts = [check(subject) for check in _CHECKS]
    return Diagnosis((*verdicts, _gap(subject, result, splits), _label_noise(result)))


def _subject(result: Record | None, model: keras.Model, train: ImageData) -> Subject:
    images, labels = some_images(train, _size(result, model, train), SAMPLE)
    outputs = np.asarray(model.predict_on_batch(images[:8]), np.float64)
    classes = len(train.class_names)
    if outputs.shape[1:] != (classes,):
        raise DataError(
            f"the model's outputs have shape {outputs.shape[1:]}; expected one output for each of the dataset's "
            f"{classes} classes",
            code="data.other_classes",
            classes=classes,
        )
    logits = bool((outputs < 0).any() or (outputs > 1).any())
    if not logits and np.abs(outputs.sum(1) - 1).max() > 1e-2:
        raise RecipeError(
            "the model's outputs are neither logits nor probabilities that sum to 1; diagnose expects a classifier "
            "with exclusive classes (softmax, not sigmoid)",
            code="recipe.not_exclusive",
        )
    warm = bool(result and result.recipe.warm_start)
    return Subject(model, images, labels, classes, logits, _rate(result, model), _optimizer(result, model), warm)


def _check_shapes(model: keras.Model) -> None:
    shapes = [tuple(tensor.shape) for tensor in (*model.inputs, *model.outputs)]
    height, width, channels = shapes[0][1:] if len(shapes[0]) == 4 else (0, 0, 0)
    if len(shapes) != 2 or channels != 3 or height != width or len(shapes[1]) != 2:
        raise RecipeError(
            f"the model's inputs and outputs have shapes {shapes}; expected square RGB images (batch, side, side, 3) "
            "and (batch, classes)",
            code="recipe.model_shapes",
            shapes=shapes,
        )


def _size(result: Record | None, model: keras.Model, train: ImageData) -> int:
    if result:
        return result.recipe.evaluation_policy.size
    return model.inputs[0].shape[1] or int(min(224, max(32, 32 * round(typical_side(train) / 32))))


def _rate(result: Record | None, model: keras.Model) -> float | None:
    """Return the peak of the learning rate; 1e-3 for a model without an optimizer."""
    if result:
        return result.recipe.learning_rate if result.recipe.epochs else None
    optimizer = _inner_optimizer(model)
    if optimizer is None:
        return 1e-3
    schedule = optimizer._learning_rate
    if isinstance(schedule, keras.optimizers.schedules.LearningRateSchedule):
        return max(float(schedule(step)) for step in (0, 1, 10, 100, 1_000, 10_000))
    return float(optimizer.learning_rate)


def _optimizer(result: Record | None, model: keras.Model) -> Callable[[float], keras.optimizers.Optimizer]:
    """Return a function from a learning rate to an optimizer like the model's."""
    own = None if result else _inner_optimizer(model)
    if own is None:
        return optimizers.Adam
    return lambda rate: type(own).from_config({**own.get_config(), "learning_rate": rate})


def _inner_optimizer(model: keras.Model) -> Any:
    """Return the model's optimizer, without the loss scaling of mixed float16 around it."""
    optimizer = getattr(model, "optimizer", None)
    return getattr(optimizer, "inner_optimizer", optimizer)


def _gap(subject: Subject, result: Record | None, splits: Splits) -> Verdict:
    """Compare the accuracies on training and validation images."""
    check, curves = "training and validation", {}
    if result and result.history.get("val_accuracy"):
        curves = {"training": result.history["accuracy"], "validation": result.history["val_accuracy"]}
    if result and result.validation:
        training, validation = _accuracy(subject, subject.images, subject.labels), result.validation.accuracy
    elif splits.validation is not None:
        training = _accuracy(subject, subject.images, subject.labels)
        validation = _accuracy(subject, *some_images(splits.validation, subject.images.shape[1], SAMPLE))
    else:
        return Verdict(check, None, "the dataset has no validation split, and the model has no history")
    advice = ""
    if training - validation > _GAP:
        advice = "the model overfits: more augmentation, weight decay or dropout, fewer trained stages, or more images"
    elif training < 0.5 * (1 + 1 / subject.classes):
        advice = "the model underfits: train longer, train more stages, raise the learning rate, or regularise less"
    return Verdict(check, not advice, f"{training:.0%} and {validation:.0%} correct", advice, curves, "epoch")


def _accuracy(subject: Subject, images: np.ndarray, labels: np.ndarray) -> float:
    return float(np.mean(subject.model.predict(images, verbose=0).argmax(1) == labels))


def _label_noise(result: Record | None) -> Verdict:
    if not result or not result.probe:
        return Verdict("label noise", None, "not measured; only a Result with a probe has doubtful labels")
    images = len(result.probe.stages[0].losses) + (result.validation.n if result.validation else 0)
    share = len(result.suspects) / images
    advice = f"check result.suspects: {result.suspects[0]}" if share > _NOISY else ""
    return Verdict("label noise", share <= _NOISY, f"{len(result.suspects)} of {images} labels are doubtful", advice)
