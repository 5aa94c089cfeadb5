"""Choose between two recipes by cross-validation on the training images, for cases that the probe leaves open."""

import logging
import time
from collections.abc import Sequence
from dataclasses import replace

import keras
import numpy as np

from recipes.core.budget import Budget
from recipes.evaluation.calibrate import tempered
from recipes.planning.limits import epoch_seconds
from recipes.planning.recipe import Recipe
from recipes.probing.logistic import content_folds
from recipes.training.start import Start
from recipes.training.train import train

logger = logging.getLogger(__name__)

FOLDS = 3
_SHARE = 0.4  # share of the remaining time that the comparison may take


def compare(start: Start, candidates: Sequence[Recipe], pictures: Sequence[str], seed: int, budget: Budget) -> Recipe:
    """Return the recipe whose classifiers have the higher likelihood on held-out training images.

    In every fold, both recipes are trained as `finetune` trains them. A recipe that does not beat the linear classifier
    is reverted to it. The recipes are compared by the negative log-likelihood of the held-out images. The comparison
    ends once the difference exceeds two standard errors. Without a time limit, there is one fold. It takes a third
    longer than the final training. The second recipe has to be better by more than one standard error, because the
    plan's own rules prefer the first. The validation images are not used.

    Args:
        start: The network, the images and the linear classifier.
        candidates: Two recipes; the plan prefers the first.
        pictures: For each training image, the name of its group of near duplicates. A group stays in one fold.
        seed: Seed of the folds and the trainings.
        budget: Time limit of the job.
    """
    first, second = candidates
    logger.info(
        f"The probe does not decide between {first.name!r} and {second.name!r}. Training both on a part of the "
        f"images to compare them."
    )
    labels = start.splits.train.labels
    folds = content_folds(labels, pictures, folds=FOLDS, seed=seed)
    gains, began = np.full(len(labels), np.nan), time.monotonic()
    held_out, mean, error = gains[:0], 0.0, 0.0
    cut: list[str] = []
    share = budget.share(_SHARE)
    costs = [_seconds(start, recipe) for recipe in candidates]
    for fold in range(FOLDS):
        spent = time.monotonic() - began
        needed = spent / fold if fold else sum(costs)
        if not share.allows(needed) if budget.limited else fold:
            break
        inside, outside = np.flatnonzero(folds != fold), np.flatnonzero(folds == fold)
        losses = []
        for i, recipe in enumerate(candidates):
            part = share.share(costs[i] / sum(costs[i:]))
            fold_losses, ended = _losses(start, recipe, inside, outside, seed, part)
            losses.append(fold_losses)
            cut += [recipe.name] if ended else []
        gains[outside] = losses[0] - losses[1]
        held_out = gains[~np.isnan(gains)]
        mean, error = float(held_out.mean()), float(held_out.std() / np.sqrt(len(held_out)))
        if abs(mean) > 2 * error:
            break
    undecided = "the probe does not decide between {first!r} and {second!r}"
    names = {"first": first.name, "second": second.name}
    if not len(held_out):
        return first.because("compare.no_time", f"{undecided}, and no time was left to compare both", **names)
    text = (
        f"{undecided}: on {{images}} held-out training images ({{seconds:.0f}} s), the log-likelihood of {{second!r}} "
        "is {gain:+.3f} ± {error:.3f} nats above that of {first!r}"
    )
    text += "; the time limit ended trainings of {cut} early" if cut else ""
    return (second if mean > error else first).because(
        "compare.gain", text, images=len(held_out), seconds=time.monotonic() - began, gain=mean, error=error,
        cut=sorted(set(cut)), **names,
    )  # fmt: skip


def _seconds(start: Start, recipe: Recipe) -> float:
    """Estimate the duration of one fold."""
    images = len(start.splits.train)
    epoch = epoch_seconds(recipe, images * (1 - 1 / FOLDS), images / FOLDS, start.image_seconds)
    return recipe.epochs * epoch


def _losses(
    start: Start, recipe: Recipe, inside: np.ndarray, outside: np.ndarray, seed: int, budget: Budget
) -> tuple[np.ndarray, bool]:
    """Return each `outside` image's negative log-likelihood in nats, and whether the time limit ended training.

    The temperature for each image is fitted to the other `outside` images.
    """
    part, recipe = start.fold(inside, outside), replace(recipe, refit=False, calibrate=False)
    keras.utils.set_random_seed(seed)
    trained, labels = train(part, recipe, seed, budget, (), measure_crops=False), part.validation.labels
    probabilities = tempered(trained.finished.probabilities, labels)
    losses = -np.log(np.maximum(probabilities[np.arange(len(labels)), labels], 1e-12))
    return losses, bool(trained.fitted and trained.fitted.cut)
