"""The learning rate over a training: its peak, warm-up, cosine, and the cycles of snapshots."""

from collections.abc import Sequence

import keras

import optimizers
from recipes.planning.recipe import Recipe

ENOUGH = 100  # updates from which on a training from the linear classifier uses the recipe's learning rate
WARM_UP = 20  # updates of the warm-up of such a training, if it has twice as many


def peak(recipe: Recipe, updates: int) -> float:
    """Return the highest learning rate of a training of `updates` updates.

    learning_rate · min(1, (updates / ENOUGH)³) for a training that begins at the linear classifier; learning_rate for
    one that begins at random weights. Adam's first steps have nearly the size of the learning rate in every weight,
    however small the gradient. At 0.001 they take the network away from the linear classifier's optimum, and a training
    needs about a hundred updates to return; docs/performance.md has the measurements.

    Args:
        recipe: Its `learning_rate` is the peak of a training of `ENOUGH` updates or more.
        updates: Number of updates of the whole training: epochs × batches of an epoch.
    """
    return recipe.learning_rate * (min(1.0, updates / ENOUGH) ** 3 if recipe.warm_start else 1.0)


def learning_rate(recipe: Recipe, updates: int, halvings: int = 0) -> keras.optimizers.schedules.LearningRateSchedule:
    """Return the schedule of a training by `recipe`.

    Args:
        recipe: How to train.
        updates: Number of updates of an epoch.
        halvings: How often the rate was halved after losses that were not finite.
    """
    highest = peak(recipe, updates * recipe.epochs) / 2**halvings
    return schedule(highest, updates, recipe.cycle_ends, least=WARM_UP if recipe.warm_start else 1)


def schedule(
    highest: float, updates: int, ends: Sequence[int], least: int = 1
) -> keras.optimizers.schedules.LearningRateSchedule:
    """Return a linear warm-up over the first tenth of the updates (at most 100), then cosine decay to a hundredth.

    With several cycles, the first has half the peak, because no average smooths its steps. Each of the others is a
    cosine from 0.3 of that, which does not undo what was learned.

    Args:
        highest: The peak.
        updates: Number of updates of an epoch.
        ends: Epochs at which the cycles end.
        least: Minimum number of updates of the warm-up, if these are at most half of all.
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
