"""Choose among the weights of a training by their scores on the validation images."""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import keras
import numpy as np

from recipes.evaluation.selection import Candidates, Score, averaged_logits, choose, latest
from recipes.planning.recipe import TEST_SIZES, Recipe
from recipes.training.batches import shown
from recipes.training.callbacks import CycleEnds, KeepBest, StopAt, Validation

INTERPOLATIONS = (0.25, 0.5, 0.75)  # shares of the finetuned weights that interpolation tries


@dataclass(frozen=True, eq=False)
class Choice:
    """The weights that were chosen after a training; see the attributes of `Fitted`."""

    best_epoch: int
    candidates: Candidates
    share: float
    test_size: int
    snapshots: tuple[Sequence[np.ndarray], ...] = ()


class BestEpoch:
    """Choose the latest of the best epochs, or an interpolation with the initial weights, at the best image size."""

    def __init__(self, model: keras.Model, recipe: Recipe, watch: Validation, stop: StopAt) -> None:
        self.model, self.recipe, self.watch, self.stop = model, recipe, watch, stop
        self.collector, self.initial = KeepBest(recipe.patience, watch), model.get_weights()

    def choose(self, start: Score) -> Choice:
        model, recipe, watch = self.model, self.recipe, self.watch
        final, best_epoch = self.collector.best_weights, self.collector.best_epoch
        between: dict[float, Score] = {}
        what = "weights between the linear classifier's and the finetuned ones"
        wanted = recipe.warm_start and recipe.interpolate
        for share in INTERPOLATIONS if wanted and self.stop.allows_trying(what, len(INTERPOLATIONS)) else ():
            model.set_weights(interpolated(self.initial, final, share))
            between[share] = watch.score()
        index = choose(watch.scores[best_epoch - 1], list(between.values())) if between else None
        share = 1.0 if index is None else INTERPOLATIONS[index]
        model.set_weights(interpolated(self.initial, final, share))
        larger = _at_larger_sizes(model, recipe, watch, self.stop)
        candidates = Candidates(tuple(watch.scores), tuple(between.values()), tuple(larger.values()))
        chosen = candidates.select(start if recipe.warm_start else None)
        share = 0.0 if chosen is start else next((s for s, score in between.items() if score is chosen), share)
        model.set_weights(interpolated(self.initial, final, share))
        return Choice(best_epoch, candidates, share, _size_of(chosen, larger, recipe))


class Snapshots:
    """Choose the snapshots at the ends of the last cycles, at the best image size (Huang et al. 2017).

    The largest number of snapshots is chosen whose average is within the noise of the lowest validation loss.
    """

    def __init__(self, model: keras.Model, recipe: Recipe, watch: Validation, stop: StopAt) -> None:
        self.model, self.recipe, self.watch, self.stop = model, recipe, watch, stop
        self.collector, self.initial = CycleEnds(recipe, watch), model.get_weights()

    def choose(self, start: Score) -> Choice:
        model, recipe, collector, watch = self.model, self.recipe, self.collector, self.watch
        counts = range(1, len(collector.weights) + 1)
        scores = tuple(watch.scored(averaged_logits(collector.logits[-count:])) for count in counts)
        snapshots = tuple(collector.weights[-counts[latest(scores)] :])
        larger = _at_larger_sizes(model, recipe, watch, self.stop, snapshots)
        candidates = Candidates(scores, larger=tuple(larger.values()))
        chosen = candidates.select(start if recipe.warm_start else None)
        if chosen is start:
            model.set_weights(self.initial)  # the linear classifier needs the untrained network
            snapshots = ()
        size = _size_of(chosen, larger, recipe)
        return Choice(len(watch.scores), candidates, float(bool(snapshots)), size, snapshots)


def _at_larger_sizes(
    model: keras.Model, recipe: Recipe, watch: Validation, stop: StopAt, snapshots: Sequence[Sequence[np.ndarray]] = ()
) -> dict[int, Score]:
    """Return image size → score at that size; empty if the size is fixed or there is no time."""
    factors = TEST_SIZES if _takes_any_size(model, recipe) else ()
    if recipe.scales:  # random crops that are as large as the images
        factors = tuple(factor for factor in factors if round(factor * recipe.size) <= min(recipe.scales))
    passes = max(1, len(snapshots)) * sum(factor**2 for factor in factors)
    if factors and not stop.allows_trying("larger images", passes):
        return {}
    scores = {}
    for size in (round(factor * recipe.size) for factor in factors):
        watch.images = shown(watch.data, replace(recipe, test_size=size))
        scores[size] = _averaged_score(model, watch, snapshots) if snapshots else watch.score()
    return scores


def _averaged_score(model: keras.Model, watch: Validation, snapshots: Sequence[Sequence[np.ndarray]]) -> Score:
    logits = []
    for weights in snapshots:
        model.set_weights(weights)
        logits.append(watch.predict())
    return watch.scored(averaged_logits(logits))


def _size_of(chosen: Score, larger: dict[int, Score], recipe: Recipe) -> int:
    return next((size for size, score in larger.items() if score is chosen), recipe.test_size or recipe.size)


def _takes_any_size(model: keras.Model, recipe: Recipe) -> bool:
    """Return whether the network takes any image size and the recipe leaves the size open."""
    return recipe.test_size is None and recipe.policy.area is not None and model.inputs[0].shape[1] is None


def interpolated(initial: Sequence[np.ndarray], final: Sequence[np.ndarray], share: float) -> list[np.ndarray]:
    """Return (1 − share) · initial + share · final; integer counters keep their final values."""
    if share in (0.0, 1.0):
        return [*(final if share else initial)]
    return [
        b if np.issubdtype(np.asarray(b).dtype, np.integer) else ((1 - share) * a + share * b).astype(b.dtype)
        for a, b in zip(initial, final, strict=True)
    ]
