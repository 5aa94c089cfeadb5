"""Where the probe leaves open which of two recipes to take: cross-validation on the training images."""

import logging
import time
from collections.abc import Sequence
from dataclasses import replace

import keras
import numpy as np

from recipes.core.budget import Budget
from recipes.evaluation.calibrate import tempered
from recipes.planning.plan import epoch_seconds
from recipes.planning.recipe import Recipe
from recipes.probing.logistic import content_folds
from recipes.training.start import Start
from recipes.training.train import train

logger = logging.getLogger(__name__)

FOLDS = 3
_SHARE = 0.4  # of the time that is left, which the comparison may take


def compare(start: Start, candidates: Sequence[Recipe], pictures, seed: int, budget: Budget) -> Recipe:
    """The one of two recipes whose classifiers are likelier to be right about training images they have not seen.

    In every fold both are trained as `finetune` trains them, undone where they do not beat the linear classifier, and
    judged by the negative log-likelihood of the images held out. No further fold is trained once the difference is
    beyond two standard errors; without a time limit one fold has to do, which takes a third longer than the training
    that it decides on. The second recipe has to be better by more than one standard error: the plan's own reasons
    speak for the first. The validation images take no part.

    pictures: one name for all training images that are the same or nearly so: these are never parted.
    """
    first, second = candidates
    logger.info(
        f"the evidence between {first.name!r} and {second.name!r} is thin: both are trained on some of the images"
    )
    labels = start.splits.train.labels
    folds = content_folds(labels, pictures, folds=FOLDS, seed=seed)
    gains, began, cut = np.full(len(labels), np.nan), time.monotonic(), []
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
            found, ended = _losses(start, recipe, inside, outside, seed, part)
            losses.append(found)
            cut += [recipe.name] if ended else []
        gains[outside] = losses[0] - losses[1]
        seen = gains[~np.isnan(gains)]
        mean, error = float(seen.mean()), float(seen.std() / np.sqrt(len(seen)))
        if abs(mean) > 2 * error:
            break
    if np.isnan(gains).all():
        return first.because(
            f"the evidence for {first.name!r} against {second.name!r} is thin, but no time was left to compare"
        )
    return (second if mean > error else first).because(
        f"the evidence between {first.name!r} and {second.name!r} was thin: on {len(seen)} training images held out "
        f"({time.monotonic() - began:.0f} s) {second.name!r} is {mean:+.3f} ± {error:.3f} nats likelier than "
        f"{first.name!r}" + (f", though the time limit ended trainings of {sorted(set(cut))}" if cut else "")
    )


def _seconds(start: Start, recipe: Recipe) -> float:
    """That one fold is likely to take."""
    images = len(start.splits.train)
    epoch = epoch_seconds(recipe, images * (1 - 1 / FOLDS), images / FOLDS, start.image_seconds)
    return recipe.epochs * epoch


def _losses(start: Start, recipe: Recipe, inside, outside, seed: int, budget: Budget) -> tuple[np.ndarray, bool]:
    """Negative log-likelihood of each image at `outside`, nats, at a temperature that the others there chose, and
    whether the time limit ended the training."""
    part, recipe = start.fold(inside, outside), replace(recipe, refit=False, calibrate=False)
    keras.utils.set_random_seed(seed)
    trained, labels = train(part, recipe, seed, budget, (), measure_crops=False), part.splits.validation.labels
    found = tempered(trained.finished.probabilities, labels)
    losses = -np.log(np.maximum(found[np.arange(len(labels)), labels], 1e-12))
    return losses, bool(trained.fitted and trained.fitted.cut)
