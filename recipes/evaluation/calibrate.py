"""From logits to the classifier that is handed out: mirror images, temperature, crops, each measured first."""

import time
from dataclasses import dataclass, replace

import keras
import numpy as np
from scipy.special import softmax

from recipes.data.evaluation_batches import evaluation_batches
from recipes.data.images import ImageData
from recipes.evaluation.ledger import BETTER, TELLING, Gain, compared
from recipes.evaluation.metrics import Evaluation, score, temperature, with_floor
from recipes.evaluation.predictions import Judged
from recipes.evaluation.test_time import averaged, lecture_scales, ways
from recipes.networks.classifier import with_probabilities
from recipes.planning.recipe import Recipe

_FOLDS = 5
_CHI_SQUARED = 3.84  # its 95 % quantile at one degree of freedom


@dataclass(frozen=True)
class Calibration:
    """What the temperature, fitted on n validation images, does to them; "after" is cross-fitted: every image is judged
    at a temperature that the others chose.

    ece: expected calibration error.  nll: negative log-likelihood of the true class, nats.  ece_floor: see
    `Evaluation`, of the probabilities after.
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
    """What was decided on the validation images, before they joined the training images, where they did.

    recipe:      with `mirror`, `crops` and `scales` decided.
    validation:  of the classifier, each image at a temperature that the others chose.
    calibration: None where no temperature was fitted.
    rows:        of the ledger.
    probabilities: (n, classes) of the validation images.
    judged:      the same that `validation` is made of.
    """

    recipe: Recipe
    validation: Evaluation
    calibration: Calibration | None
    rows: tuple[Gain, ...]
    probabilities: np.ndarray
    judged: Judged

    def classifier(self, models) -> keras.Model:
        """Images → probabilities, of models of logits."""
        at = self.calibration.temperature if self.calibration else 1.0
        return with_probabilities(models, mirror=self.recipe.mirror, temperature=at)


def finish(
    models, recipe: Recipe, validation: ImageData, logits=None, *, crops: int = 10, mirrors_gain: bool = False
) -> Finished:
    """Decide on the validation images how the models' logits become probabilities.

    models: a model of logits, or several that are averaged.
    logits: (views, n, classes) of the images and, if recipe.mirror is not False, of their mirror images; None: these
            are looked at here.
    crops:  how many to measure; 0: none.
    mirrors_gain: whether mirror images were seen to gain on the training images, by the linear classifier: then they
            are averaged unless they lose beyond the noise here.
    """
    models, labels = models if isinstance(models, list | tuple) else [models], validation.labels
    if logits is None:
        logits = _looked(models, validation, recipe)
    looks = logits[: len(logits) // 2] if len(logits) > len(models) else logits, logits  # without mirror images, with
    rows, choice = [], None
    if recipe.mirror is None:

        def choice(images=slice(None)) -> Gain:
            seen = (look[:, images] for look in looks)
            return _mirror_row(*seen, labels[images], mirrors_gain, telling=len(labels) >= TELLING)

        rows = [choice()]
        recipe = replace(recipe, mirror=rows[0].kept)
    elif recipe.mirror:
        found = (softmax(look, -1).mean(0) for look in looks)
        note = "not chosen by these images: on"
        rows = [compared("mirror images", *found, labels, cost=2.0, kept=True, note=note)]
    logits, calibration = looks[recipe.mirror], None
    if recipe.calibrate and len(labels) >= TELLING:
        calibration, row = calibrated(logits, labels)
        rows.append(row)
        calibration = calibration if row.kept else None
    found = softmax(logits / (calibration.temperature if calibration else 1.0), -1).mean(0)
    judged = _cross_fitted(logits, labels, looks if choice else (), choice, bool(calibration))
    finished = Finished(recipe, score(judged, labels), calibration, tuple(rows), found,
                        Judged(labels, judged.astype(np.float32)))  # fmt: skip
    if len(labels) < TELLING or not crops:
        why = f"{len(labels)} validation images could not tell" if len(labels) < TELLING else "no time was left"
        count = recipe.crops * len(recipe.scales or (1,)) if recipe.asks_for_crops else crops or 10
        row = Gain(f"{count} crop{'s' * (count > 1)}", None, kept=recipe.asks_for_crops, note=f"not measured: {why}")
        return replace(finished, rows=(*rows, row))
    return _with_crops(finished, models, validation, found, crops)


def _looked(models, data: ImageData, recipe: Recipe) -> np.ndarray:
    """Logits (views, n, classes): all models' of the images, then all models' of the mirror images, if they count."""
    mirrored = recipe.mirror is not False
    rows = [[] for _ in range(len(models) * (1 + mirrored))]
    for images, _ in evaluation_batches(data, recipe.evaluation_policy, recipe.batch_size).as_numpy_iterator():
        views = [images, images[:, :, ::-1]] if mirrored else [images]
        for row, (view, model) in zip(rows, ((v, m) for v in views for m in models), strict=True):
            row.append(model.predict_on_batch(view))
    return np.stack([np.concatenate(row) for row in rows]).astype(np.float64)


def tempered(probabilities: np.ndarray, labels) -> np.ndarray:
    """(n, classes) probabilities at temperatures that, for each image, other images chose."""
    return _cross_fitted(np.log(np.maximum(probabilities, 1e-12))[None], labels)


def _cross_fitted(logits: np.ndarray, labels, looks=(), choice=None, temper: bool = True) -> np.ndarray:
    """(n, classes) probabilities of each image at a temperature, if `temper`, and with or without its mirror image, if
    there is a `choice`, that the other images chose."""
    fold = np.random.default_rng(0).permutation(len(labels)) % _FOLDS  # those of `choice.cross_fitted`
    found = np.empty(logits.shape[1:])
    for k in np.unique(fold):
        inside, outside = fold != k, fold == k
        look = looks[choice(inside).kept] if choice and inside.any() else logits
        at = temperature(look[:, inside], labels[inside]) if temper else 1.0
        found[outside] = softmax(look[:, outside] / at, -1).mean(0)
    return found


def _mirror_row(straight: np.ndarray, both: np.ndarray, labels, mirrors_gain: bool, telling: bool) -> Gain:
    """The ledger's row of mirror images, by logits (views, n, classes) without and with them.

    telling: whether the validation images, of which these may be a part, are enough to decide.
    """
    row = compared("mirror images", softmax(straight, -1).mean(0), softmax(both, -1).mean(0), labels, cost=2.0)
    row = replace(row, kept=telling and row.verdict == BETTER)
    if mirrors_gain and not row.kept and min(row.interval[1], row.nats_interval[1]) >= 0:
        note = "the linear classifier gains by them beyond its noise (cross-validated), no loss beyond it here: on"
        row = replace(row, kept=True, note=note)
    return row


def calibrated(logits: np.ndarray, labels) -> tuple[Calibration, Gain]:
    """The temperature of the validation images and its row, whose images are judged at the others' temperature.

    It costs nothing, so it is on where it differs from 1 beyond the noise, by the likelihood-ratio test (5 %).
    """
    at, plain, after = temperature(logits, labels), softmax(logits, -1).mean(0), _cross_fitted(logits, labels)
    before, judged = score(plain, labels), score(after, labels)
    calibration = Calibration(at, before.ece, judged.ece, before.nll, judged.nll, len(labels),
                              judged.ece_floor)  # fmt: skip
    ratio = 2 * len(labels) * (before.nll - score(softmax(logits / at, -1).mean(0), labels).nll)
    row = compared("calibration", plain, after, labels, kept=ratio > _CHI_SQUARED)
    return calibration, replace(row, note=f"{calibration}: {'on' if row.kept else 'not beyond its noise: off'}")


def _with_crops(finished: Finished, models, validation: ImageData, single: np.ndarray, crops: int) -> Finished:
    """`finished` with so many crops at one scale, or the crops asked for, measured against the single one."""
    classifier, recipe = finished.classifier(models), finished.recipe
    if recipe.asks_for_crops:
        row = crop_gain(classifier, validation, recipe, single, recipe.crops, recipe.scales)
        row = replace(row, kept=True, note=f"asked for; {row.note}")
        return replace(finished, rows=(*finished.rows, row))
    row = crop_gain(classifier, validation, recipe, single, crops)
    recipe = replace(recipe, crops=crops if row.kept else 1, scales=None)
    return replace(finished, recipe=recipe, rows=(*finished.rows, row))


def crop_gain(classifier, data: ImageData, recipe: Recipe, single, crops: int, scales=None, level=0.95) -> Gain:
    """The ledger's row of a crop set against the single crop's probabilities."""
    looks = ways(classifier, recipe, crops, scales)
    began = time.monotonic()
    found = averaged(classifier, data, looks, recipe.batch_size)
    row = compared(f"{crops * len(scales or (1,))} crops", single, found, data.labels, cost=looks.cost, level=level)
    return replace(row, seconds=time.monotonic() - began, note=f"{looks}; {row.note}")


def crop_sets(recipe: Recipe, alike: bool) -> list[tuple[int, tuple[int, ...] | None]]:
    """(crops, scales) of the lecture's: 5, 10, and these at five scales; each look once, cheapest first.

    A classifier that averages over mirror images by itself makes ten crops of five. No mirror images are shown where
    they are not `alike`, for they lose their class.
    """
    most = 10 if alike else 5
    counts = (most,) if recipe.mirror else dict.fromkeys((5, most))
    return [*((count, None) for count in counts), (most, lecture_scales(recipe.evaluation_policy.size))]


def crop_gains(
    classifier, data: ImageData, recipe: Recipe, single, alike: bool
) -> list[tuple[int, tuple[int, ...] | None, Gain]]:
    """(crops, scales, row) of the `crop_sets`, in joint intervals (Bonferroni)."""
    sets = crop_sets(recipe, alike)
    level = 1 - 0.05 / len(sets)
    rows = [crop_gain(classifier, data, recipe, single, crops, scales, level) for crops, scales in sets]
    return [(*each, row) for each, row in zip(sets, rows, strict=True)]
