"""Turn logits into the final classifier: measure mirror images, temperature and crops, and decide on their use."""

import time
from collections.abc import Sequence
from dataclasses import dataclass, replace

import keras
import numpy as np
from scipy.special import softmax

from recipes.data.evaluation_batches import evaluation_batches
from recipes.data.images import ImageData
from recipes.evaluation.ledger import BETTER, TELLING, Gain, compared
from recipes.evaluation.metrics import Evaluation, score, temperature, with_floor
from recipes.evaluation.predictions import Judged
from recipes.evaluation.selection import ALL, Rows, random_folds
from recipes.evaluation.test_time import averaged, lecture_scales, make_crops
from recipes.networks.classifier import with_probabilities
from recipes.planning.recipe import Recipe

_CHI_SQUARED = 3.84  # 95 % quantile of χ² with one degree of freedom


@dataclass(frozen=True)
class Calibration:
    """The effect of the temperature that n validation images selected.

    The fields `…_after` are cross-fitted: the temperature of every image is fitted to other images.

    Attributes:
        temperature: Divisor of the logits.
        ece_before: Expected calibration error without the temperature.
        ece_after: Expected calibration error with the temperature.
        nll_before: Negative log-likelihood of the true class without the temperature, nats.
        nll_after: Negative log-likelihood of the true class with the temperature, nats.
        n: Number of validation images.
        ece_floor: The part of `ece_after` that is explained by chance, see `Evaluation`.
    """

    temperature: float
    ece_before: float
    ece_after: float
    nll_before: float
    nll_after: float
    n: int
    ece_floor: float | None = None

    def __str__(self) -> str:
        return (
            f"temperature {self.temperature:.2f}: calibration error {self.ece_before:.1%} to "
            f"{with_floor(self.ece_after, self.ece_floor)}, negative log-likelihood {self.nll_before:.3f} to "
            f"{self.nll_after:.3f} ({self.n} validation images)"
        )


@dataclass(frozen=True, eq=False)
class Finished:
    """The decisions on the validation images, before a refit may add these images to the training set.

    Attributes:
        recipe: The recipe with `mirror`, `crops` and `scales` decided.
        validation: Cross-fitted quality of the classifier.
        calibration: Effect of the temperature; None if no temperature is used.
        rows: Rows of the ledger.
        probabilities: Probabilities of the validation images, (n, classes).
        judged: The cross-fitted predictions that `validation` scores.
    """

    recipe: Recipe
    validation: Evaluation
    calibration: Calibration | None
    rows: tuple[Gain, ...]
    probabilities: np.ndarray
    judged: Judged

    def classifier(self, models: keras.Model | Sequence[keras.Model]) -> keras.Model:
        """Return the model from images to probabilities, built from one or several models of logits."""
        divisor = self.calibration.temperature if self.calibration else 1.0
        return with_probabilities(models, mirror=bool(self.recipe.mirror), temperature=divisor)


@dataclass(frozen=True, eq=False)
class _MirrorChoice:
    """The decision whether to average over mirror images.

    Attributes:
        straight: Logits without mirror images, (views, n, classes).
        both: Logits with mirror images, (views, n, classes).
        labels: Integer labels, (n,).
        gained: Whether mirror images improved the linear classifier significantly on the training images.
    """

    straight: np.ndarray
    both: np.ndarray
    labels: np.ndarray
    gained: bool

    def row(self, rows: Rows = ALL) -> Gain:
        """Return the row of the ledger for the images at `rows`."""
        straight, both = (softmax(logits[:, rows], -1).mean(0) for logits in (self.straight, self.both))
        row = compared("mirror images", straight, both, self.labels[rows], cost=2.0)
        row = replace(row, kept=len(self.labels) >= TELLING and row.verdict == BETTER)
        upper_ends = [interval[1] for interval in (row.interval, row.nats_interval) if interval]
        if self.gained and not row.kept and min(upper_ends) >= 0:
            note = (
                "on: significant gain of the linear classifier (cross-validated), and no significant loss on "
                "these images"
            )
            row = replace(row, kept=True, note=note)
        return row

    def logits(self, rows: Rows) -> np.ndarray:
        """Return the logits that the decision on the images at `rows` selects."""
        return self.both if self.row(rows).kept else self.straight


def finish(
    models: keras.Model | Sequence[keras.Model],
    recipe: Recipe,
    validation: ImageData,
    logits: np.ndarray | None = None,
    *,
    crops: int = 10,
    mirrors_gain: bool = False,
) -> Finished:
    """Decide by the validation images how to convert the logits of the models to probabilities.

    Args:
        models: A model of logits, or several whose probabilities are averaged.
        recipe: The recipe of the training.
        validation: The validation images.
        logits: Logits (views, n, classes) of the images and, unless `recipe.mirror` is False, of their mirror images.
            None computes them.
        crops: Number of crops to measure; 0 measures none.
        mirrors_gain: Whether mirror images improved the linear classifier significantly on the training images. In that
            case they are used unless they lose significantly on the validation images.
    """
    models, labels = models if isinstance(models, list | tuple) else [models], validation.labels
    if logits is None:
        logits = _logits(models, validation, recipe)
    straight = logits[: len(logits) // 2] if len(logits) > len(models) else logits
    choice = _MirrorChoice(straight, logits, labels, mirrors_gain) if recipe.mirror is None else None
    rows = []
    if choice:
        rows = [choice.row()]
        recipe = replace(recipe, mirror=rows[0].kept)
    elif recipe.mirror:
        without, with_it = (softmax(views, -1).mean(0) for views in (straight, logits))
        note = "on: selected by the training images, not by these images"
        rows = [compared("mirror images", without, with_it, labels, cost=2.0, kept=True, note=note)]
    used, calibration = logits if recipe.mirror else straight, None
    if recipe.calibrate and len(labels) >= TELLING:
        calibration, row = calibrated(used, labels)
        rows.append(row)
        calibration = calibration if row.kept else None
    probabilities = softmax(used / (calibration.temperature if calibration else 1.0), -1).mean(0)
    unbiased = _cross_fitted(used, labels, choice, calibrate=bool(calibration))
    judged = Judged(labels, unbiased.astype(np.float32))
    finished = Finished(recipe, score(unbiased, labels), calibration, tuple(rows), probabilities, judged)
    if len(labels) >= TELLING and crops:
        return _with_crops(finished, models, validation, crops)
    reason = "no time was left" if len(labels) >= TELLING else f"{len(labels)} validation images are too few"
    count = recipe.crops * len(recipe.scales or (1,)) if recipe.asks_for_crops else crops or 10
    row = Gain(f"{count} crop{'s' * (count > 1)}", None, kept=recipe.asks_for_crops, note=f"not measured: {reason}")
    return replace(finished, rows=(*rows, row))


def _logits(models: Sequence[keras.Model], data: ImageData, recipe: Recipe) -> np.ndarray:
    """Return logits (views, n, classes) of all models for the images, then for the mirror images if they are used."""
    mirrored = recipe.mirror is not False
    rows = [[] for _ in range(len(models) * (1 + mirrored))]
    for images, _ in evaluation_batches(data, recipe.evaluation_policy, recipe.batch_size).as_numpy_iterator():
        views = [images, images[:, :, ::-1]] if mirrored else [images]
        for row, (view, model) in zip(rows, ((v, m) for v in views for m in models), strict=True):
            row.append(model.predict_on_batch(view))
    return np.stack([np.concatenate(row) for row in rows]).astype(np.float64)


def tempered(probabilities: np.ndarray, labels: np.ndarray) -> np.ndarray:
    """Return probabilities (n, classes) with the temperature of each image fitted to other images."""
    return _cross_fitted(np.log(np.maximum(probabilities, 1e-12))[None], labels)


def _cross_fitted(
    logits: np.ndarray, labels: np.ndarray, choice: _MirrorChoice | None = None, calibrate: bool = True
) -> np.ndarray:
    """Return probabilities (n, classes); other images decide on the views and the temperature of each image."""
    fold_of = random_folds(len(labels))
    probabilities = np.empty(logits.shape[1:])
    for fold in np.unique(fold_of):
        inside, outside = fold_of != fold, fold_of == fold
        used = choice.logits(inside) if choice and inside.any() else logits
        divisor = temperature(used[:, inside], labels[inside]) if calibrate else 1.0
        probabilities[outside] = softmax(used[:, outside] / divisor, -1).mean(0)
    return probabilities


def calibrated(logits: np.ndarray, labels: np.ndarray) -> tuple[Calibration, Gain]:
    """Return the temperature that fits the validation images, and its cross-fitted row of the ledger.

    A temperature does not slow down predictions, so it is used if it differs significantly from 1 (likelihood-ratio
    test, 5 %).

    Args:
        logits: Logits of the validation images, (views, n, classes).
        labels: Integer labels, (n,).
    """
    divisor, plain, after = temperature(logits, labels), softmax(logits, -1).mean(0), _cross_fitted(logits, labels)
    before, unbiased = score(plain, labels), score(after, labels)
    calibration = Calibration(
        divisor, before.ece, unbiased.ece, before.nll, unbiased.nll, len(labels), unbiased.ece_floor
    )
    ratio = 2 * len(labels) * (before.nll - score(softmax(logits / divisor, -1).mean(0), labels).nll)
    row = compared("calibration", plain, after, labels, kept=ratio > _CHI_SQUARED)
    return calibration, replace(row, note=f"{calibration}: {'on' if row.kept else 'not significant: off'}")


def _with_crops(finished: Finished, models: Sequence[keras.Model], validation: ImageData, crops: int) -> Finished:
    """Return `finished` with a row that compares this number of crops, or the requested crops, with the single crop."""
    classifier, recipe, single = finished.classifier(models), finished.recipe, finished.probabilities
    if recipe.asks_for_crops:
        row = crop_gain(classifier, validation, recipe, single, recipe.crops, recipe.scales)
        row = replace(row, kept=True, note=f"requested; {row.note}")
        return replace(finished, rows=(*finished.rows, row))
    row = crop_gain(classifier, validation, recipe, single, crops)
    recipe = replace(recipe, crops=crops if row.kept else 1, scales=None)
    return replace(finished, recipe=recipe, rows=(*finished.rows, row))


def crop_gain(
    classifier: keras.Model, data: ImageData, recipe: Recipe, single: np.ndarray, crops: int,
    scales: Sequence[int] | None = None, level: float = 0.95,
) -> Gain:  # fmt: skip
    """Return the row that compares a set of crops with the single crop.

    Args:
        classifier: Model from images to probabilities.
        data: Labelled images.
        recipe: The recipe of the classifier.
        single: Probabilities of the images by the single crop, (n, classes).
        crops: Number of crops per scale.
        scales: Short sides, pixels; None: one scale.
        level: Confidence level of the intervals.
    """
    views = make_crops(classifier, recipe, crops, scales)
    began = time.monotonic()
    probabilities = averaged(classifier, data, views, recipe.batch_size)
    name = f"{crops * len(scales or (1,))} crops"
    row = compared(name, single, probabilities, data.labels, cost=views.cost, level=level)
    return replace(row, seconds=time.monotonic() - began, note=f"{views}; {row.note}")


@dataclass(frozen=True)
class MeasuredCrops:
    """A set of crops and its row of the ledger.

    Attributes:
        crops: Number of crops per scale.
        scales: Short sides, pixels; None: one scale.
        row: The gain over the single crop.
    """

    crops: int
    scales: tuple[int, ...] | None
    row: Gain


def crop_sets(recipe: Recipe, alike: bool) -> list[tuple[int, tuple[int, ...] | None]]:
    """Return the lecture's sets of crops as (crops, scales), cheapest first: 5, 10, and 10 at five scales.

    If the classifier itself averages over mirror images, 5 and 10 crops give the same views, so only one of these sets
    is returned.

    Args:
        recipe: The recipe of the classifier.
        alike: Whether mirror images keep their class. Otherwise no set has more than 5 crops, because 10 crops include
            mirrored ones.
    """
    most = 10 if alike else 5
    counts = (most,) if recipe.mirror else dict.fromkeys((5, most))
    return [*((count, None) for count in counts), (most, lecture_scales(recipe.evaluation_policy.size))]


def crop_gains(
    classifier: keras.Model, data: ImageData, recipe: Recipe, single: np.ndarray, alike: bool
) -> list[MeasuredCrops]:
    """Measure all `crop_sets` with joint intervals (Bonferroni); see `crop_gain`."""
    sets = crop_sets(recipe, alike)
    level = 1 - 0.05 / len(sets)
    return [
        MeasuredCrops(crops, scales, crop_gain(classifier, data, recipe, single, crops, scales, level))
        for crops, scales in sets
    ]


def cheapest_gain(measured: Sequence[MeasuredCrops]) -> tuple[int, tuple[int, ...] | None]:
    """Return (crops, scales) of the first set with a significant gain, or of the single crop."""
    return next(((each.crops, each.scales) for each in measured if each.row.kept), (1, None))
