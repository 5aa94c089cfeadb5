"""The learning rate over a training: warm-up, cosine, and the cycles of snapshots."""

from collections.abc import Sequence

import keras

import optimizers


def schedule(peak: float, updates: int, ends: Sequence[int]) -> keras.optimizers.schedules.LearningRateSchedule:
    """Linear warm-up over the first tenth of the updates (at most 100), then cosine decay to a hundredth.

    updates: of an epoch.
    ends:    epochs at which cycles end. Several: the first from half the peak, for no average smooths its steps; each
             of the others a cosine from 0.3 of that, which does not undo what was learned.
    """
    first, *others = ends
    if others:
        low, period = 0.15 * peak, updates * (others[0] - first)
        again = optimizers.CosineRestarts(low, period, minimum=0.01 * low)
        return optimizers.Then(schedule(peak / 2, updates, (first,)), updates * first, again)
    steps = updates * first
    warmup = max(1, min(100, steps // 10))
    if warmup >= steps:
        return optimizers.Cosine(peak, steps, minimum=0.01 * peak)
    return optimizers.Warmup(optimizers.Cosine(peak, steps - warmup, minimum=0.01 * peak), warmup)
