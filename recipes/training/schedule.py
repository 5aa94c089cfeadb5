"""Compute the learning rate over a training: its peak, warm-up, cosine decay, and the cycles of snapshots."""

import logging
from collections.abc import Sequence

import keras

from recipes import optimizers
from recipes.planning.recipe import Recipe

logger = logging.getLogger(__name__)

ENOUGH = 100  # minimum number of updates for the default learning rate in a training from the linear classifier
WARM_UP = 20  # warm-up updates of a training from the linear classifier that has at least twice as many updates


def peak(recipe: Recipe, updates: int) -> float:
    """Return the highest learning rate of a training of `updates` updates.

    A rate that the user sets is not changed, nor is the rate of a training from random weights. The default rate of a
    training that begins at the linear classifier is multiplied by min(1, (updates / ENOUGH)²). Adam's first steps
    change every weight by nearly the learning rate, even if the gradient is small. At 0.001 they move the network away
    from the linear classifier's optimum, and it needs some hundred updates to return; benchmarks/RESULTS.md has the
    measurements.

    Args:
        recipe: Its `learning_rate` is the peak of a training of `ENOUGH` updates or more.
        updates: Number of updates of the whole training: epochs × batches of an epoch.
    """
    return _safe(updates) if _is_automatic(recipe) else recipe.learning_rate


def _is_automatic(recipe: Recipe) -> bool:
    return recipe.warm_start and recipe.learning_rate == Recipe.learning_rate


def _safe(updates: int) -> float:
    """Return a rate at which a training of so many updates does not end below the linear classifier it begins with."""
    return Recipe.learning_rate * min(1.0, updates / ENOUGH) ** 2


def warn_of_high_rate(recipe: Recipe, updates: int) -> None:
    """Warn if the given learning rate is high for a short training from the linear classifier."""
    rate = recipe.learning_rate
    if recipe.warm_start and not _is_automatic(recipe) and updates < ENOUGH and rate > _safe(updates):
        logger.warning(
            "learning_rate = %g is high for %d updates: the network may end below the linear classifier that it starts "
            "from. Use at most %.2g, leave the learning rate out, or train for %d updates.",
            rate, updates, _safe(updates), ENOUGH,
        )  # fmt: skip


def learning_rate(recipe: Recipe, updates: int, halvings: int = 0) -> keras.optimizers.schedules.LearningRateSchedule:
    """Return the schedule of a training by `recipe`.

    Args:
        recipe: How to train.
        updates: Number of updates of an epoch.
        halvings: Number of times the rate was halved after NaN or infinite losses.
    """
    highest = peak(recipe, updates * recipe.epochs) / 2**halvings
    return schedule(highest, updates, recipe.cycle_ends, least=WARM_UP if recipe.warm_start else 1)


def schedule(
    highest: float, updates: int, ends: Sequence[int], least: int = 1
) -> keras.optimizers.schedules.LearningRateSchedule:
    """Return a schedule: linear warm-up over a tenth of the updates (at most 100), then cosine decay to a hundredth.

    With several cycles, the first has half the peak, because no average smooths its steps. Each later cycle is a cosine
    that starts at 0.3 of the first one's peak, so that it keeps what was learned.

    Args:
        highest: The peak.
        updates: Number of updates of an epoch.
        ends: Epochs at which the cycles end.
        least: Minimum number of warm-up updates, if that is at most half of all updates.
    """
    first, *others = ends
    if others:
        low, period = 0.15 * highest, updates * (others[0] - first)
        restarts = optimizers.CosineRestarts(low, period, minimum=0.01 * low)
        return optimizers.Then(schedule(highest / 2, updates, (first,), least), updates * first, restarts)
    steps = updates * first
    warmup = max(1, min(100, steps // 10), min(least, steps // 2))
    if warmup >= steps:
        return optimizers.Cosine(highest, steps, minimum=0.01 * highest)
    return optimizers.Warmup(optimizers.Cosine(highest, steps - warmup, minimum=0.01 * highest), warmup)
