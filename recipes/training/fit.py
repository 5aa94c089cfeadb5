"""A training and what is kept of it: the epoch, or the way to it, that classifies the validation images best."""

import logging
from collections.abc import Sequence
from dataclasses import dataclass, replace

import keras
import numpy as np

from recipes.core.budget import NO_LIMIT, Budget
from recipes.data.images import ImageData
from recipes.evaluation.ledger import Gain, paired_bootstrap, training_outcome
from recipes.evaluation.selection import (
    Candidates,
    Score,
    averaged_logits,
    choose,
    cross_fitted,
    image_weights,
    latest,
)
from recipes.planning.recipe import TEST_SIZES, Recipe
from recipes.training.batches import shown
from recipes.training.callbacks import CycleEnds, KeepBest, StopAt, Validation
from recipes.training.checkpoints import Checkpoints
from recipes.training.loop.loop import Training

logger = logging.getLogger(__name__)

INTERPOLATIONS = (0.25, 0.5, 0.75)  # shares of the finetuned weights between the linear classifier's and the finetuned


@dataclass(frozen=True, eq=False)
class Fitted:
    """How a training went.

    history:    one list per metric, one value per epoch.
    best_epoch: the latest whose validation loss is within the noise of the lowest.
    start:      how the validation images were classified by what training has to beat.
    candidates: and by the weights of each epoch, of each interpolation of the best epoch's with the start's, and by the
                kept ones at each larger size of the images.
    share:      of the finetuned weights in those that were kept; 0: training did not beat its start and was undone.
    test_size:  of the images that the kept weights are made for.
    cut:        whether the time limit ended it.
    images:     that were trained on.
    epoch_seconds: of one epoch.
    snapshots:  weights at the ends of the last cycles, whose predictions are averaged; empty where one model is kept.
    rival:      whether the candidates had to beat the start.
    parts:      that a batch was computed in at last.
    missing:    names of training images that vanished meanwhile.
    told:       what was changed for the sake of faults, or left out for want of time.
    """

    history: dict[str, list[float]]
    best_epoch: int
    start: Score
    candidates: Candidates
    share: float
    test_size: int
    cut: bool
    images: int
    epoch_seconds: float
    snapshots: tuple[Sequence[np.ndarray], ...] = ()
    rival: bool = True
    parts: int = 1
    missing: tuple[str, ...] = ()
    told: tuple[str, ...] = ()

    @property
    def best(self) -> Score:
        """The finetuned candidate: the best epoch, or an interpolation where that was better."""
        kept = self.candidates.select(self.start if self.rival else None)
        return self.candidates.best() if kept is self.start else kept

    @property
    def better(self) -> bool:
        """Whether training gained more than its noise, see `choice.better`."""
        return self.share > 0

    @property
    def best_share(self) -> float:
        """Share of the finetuned weights in the `best` ones, whether or not these were kept."""
        between, best = self.candidates.between, self.best
        if not between or any(best is score for score in self.candidates.epochs):
            return 1.0
        at = next((i for i, score in enumerate(between) if score is best), None)
        if at is None:  # on larger images, with the weights that were best before
            at = choose(self.candidates.epochs[self.best_epoch - 1], between)
        return 1.0 if at is None else INTERPOLATIONS[at]

    def row(self, seconds: float = 0.0) -> Gain:
        """Return the ledger's row of this training: its `best` weights, kept or not, on the validation images.

        The one source of what is said of a training, in the recipe's reasons, the ledger and the report.
        """
        best, count = self.best, len(self.candidates)
        if not self.rival:
            return Gain("training from scratch", best.accuracy, seconds=seconds, epoch=self.best_epoch)
        share = len(best.weights) * best.weights  # 1 each, or every class counts alike
        gain, interval = paired_bootstrap(share * (best.right.astype(float) - self.start.right))
        nats, nats_interval = paired_bootstrap(share * (self.start.losses - best.losses))
        trick = f"finetuning, {len(self.snapshots)} snapshots" if self.snapshots else "finetuning"
        row = Gain(trick, best.accuracy, gain, interval, nats, nats_interval, seconds, kept=self.better,
                   epoch=self.best_epoch)  # fmt: skip
        note = training_outcome(row)
        if self.best_share < 1:
            note += f"; {self.best_share:.0%} of the way from the linear classifier's weights to those of the epoch"
        if count > 1:
            note += f"; slightly optimistic: the same images selected the best of {count} candidates"
        return replace(row, note=note)

    def cross_fitted(self, finished: Score | None = None) -> Score:
        """How each validation image is classified by the candidate that the other ones choose."""
        return cross_fitted(self.start if self.rival else None, self.candidates, finished)


def fit(
    model: keras.Model,
    train: ImageData,
    validation: ImageData,
    recipe: Recipe,
    *,
    seed: int,
    rates: dict[str, float] | None = None,
    start: Score | None = None,
    budget: Budget = NO_LIMIT,
    callbacks: Sequence[keras.callbacks.Callback] = (),
    kept: Checkpoints | None = None,
) -> Fitted:
    """Train the trainable variables of `model` (images 0..255 → logits) as `recipe` says.

    Cross-entropy with label smoothing, decoupled weight decay (none on biases and normalisation parameters), warm-up
    and cosine, the recipe's augmentation and Polyak average. The weights of the latest epoch whose validation loss is
    within the noise of the lowest stay in the model; with a warm start those between them and the initial ones, where
    these are better beyond the noise, or the initial ones, unless training was `Fitted.better`. See
    `selection.Candidates`.

    start: how what training has to beat classifies the validation images; None: the model as it is.
    With snapshots: the ends of the last cycles, kept apart.

    rates: regular expressions of variables' paths → multiplier of the learning rate, see `optimizers.Discriminative`.
    kept:  where the training has got to.
    """
    training = Training(model, train, recipe, seed=seed, rates=rates, kept=kept)
    weights = image_weights(validation.labels, len(train.class_names), recipe.balanced)
    watch = Validation(shown(validation, recipe), validation, weights)
    watch.set_model(model)
    start, stop = start or watch.score(), StopAt(budget, watch)
    chooser = (_Snapshots if recipe.snapshots > 1 else _BestEpoch)(model, recipe, watch, stop)
    training.run(recipe.epochs, [watch, stop, chooser.keep, *callbacks])
    changes = training.changes
    told = {"history": training.history, "cut": stop.reached, "images": len(train), "parts": changes["parts"],
            "epoch_seconds": training.seconds / max(1, len(watch.scores)), "missing": tuple(changes["missing"]),
            "told": tuple(changes["told"])}  # fmt: skip
    fitted = chooser.fitted(start, rival=recipe.warm_start, **told)
    return replace(fitted, told=(*fitted.told, *stop.left_out))


class _BestEpoch:
    """Keeps the latest of the best epochs, or weights between it and the initial ones, at the best size."""

    def __init__(self, model, recipe: Recipe, watch: Validation, stop: StopAt):
        self.model, self.recipe, self.watch, self.stop = model, recipe, watch, stop
        self.keep, self.initial = KeepBest(recipe.patience, watch), model.get_weights()

    def fitted(self, start: Score, **told) -> Fitted:
        model, recipe, watch, keep = self.model, self.recipe, self.watch, self.keep
        best, between = watch.scores[keep.best_epoch - 1], {}
        interpolates = (
            recipe.warm_start
            and recipe.interpolate
            and self.stop.leaves_room(
                len(INTERPOLATIONS), "weights between the linear classifier's and the finetuned ones"
            )
        )
        for share in INTERPOLATIONS if interpolates else ():
            model.set_weights(_between(self.initial, keep.best_weights, share))
            between[share] = watch.score()
        at = choose(best, list(between.values())) if between else None
        share = 1.0 if at is None else INTERPOLATIONS[at]
        model.set_weights(_between(self.initial, keep.best_weights, share))
        larger = _at_larger_sizes(model, recipe, watch, self.stop, watch.score)
        candidates = Candidates(tuple(watch.scores), tuple(between.values()), tuple(larger.values()))
        kept = candidates.select(start if recipe.warm_start else None)
        share = 0.0 if kept is start else next((s for s, score in between.items() if score is kept), share)
        model.set_weights(_between(self.initial, keep.best_weights, share))
        test_size = next((s for s, score in larger.items() if score is kept), recipe.test_size or recipe.size)
        return Fitted(best_epoch=keep.best_epoch, start=start, candidates=candidates, share=share, test_size=test_size,
                      **told)  # fmt: skip


class _Snapshots:
    """Keeps the ends of the last cycles, at the best size: as many as, averaged, are within the noise of the lowest
    validation loss (Huang et al. 2017)."""

    def __init__(self, model, recipe: Recipe, watch: Validation, stop: StopAt):
        self.recipe, self.keep, self.watch, self.stop = recipe, CycleEnds(recipe, watch), watch, stop
        self.model, self.initial = model, model.get_weights()

    def fitted(self, start: Score, **told) -> Fitted:
        model, recipe, keep, watch = self.model, self.recipe, self.keep, self.watch
        counts = range(1, len(keep.weights) + 1)
        scores = tuple(watch.scored(averaged_logits(keep.logits[-count:])) for count in counts)
        snapshots = tuple(keep.weights[-counts[latest(scores)] :])

        def score():
            logits = []
            for weights in snapshots:
                model.set_weights(weights)
                watch.score()
                logits.append(watch.logits)
            return watch.scored(averaged_logits(logits))

        larger = _at_larger_sizes(model, recipe, watch, self.stop, score, models=len(snapshots))
        candidates = Candidates(scores, larger=tuple(larger.values()))
        kept = candidates.select(start if recipe.warm_start else None)
        if kept is start:
            model.set_weights(self.initial)  # the linear classifier's network is the one that was trained
            snapshots = ()
        test_size = next((s for s, score in larger.items() if score is kept), recipe.test_size or recipe.size)
        return Fitted(best_epoch=len(watch.scores), start=start, candidates=candidates, share=float(bool(snapshots)),
                      test_size=test_size, snapshots=snapshots, **told)  # fmt: skip


def _at_larger_sizes(model, recipe: Recipe, watch: Validation, stop: StopAt, score, models=1) -> dict[int, Score]:
    """Size → score() of what is shown at it, where the size is still to be chosen and there is time."""
    factors = TEST_SIZES if _takes_any_size(model, recipe) else ()
    if recipe.scales:  # whose crops are as large as the images
        factors = tuple(factor for factor in factors if round(factor * recipe.size) <= min(recipe.scales))
    if factors and not stop.leaves_room(models * sum(factor**2 for factor in factors), "larger images"):
        return {}
    found = {}
    for size in (round(factor * recipe.size) for factor in factors):
        watch.images = shown(watch.data, replace(recipe, test_size=size))
        found[size] = score()
    return found


def _takes_any_size(model: keras.Model, recipe: Recipe) -> bool:
    """Whether the size of the images is still to be chosen, and can be."""
    return recipe.test_size is None and recipe.policy.area is not None and model.inputs[0].shape[1] is None


def fit_again(
    model: keras.Model,
    start: Sequence[np.ndarray],
    images: ImageData,
    recipe: Recipe,
    fitted: Fitted,
    *,
    seed: int,
    rates=None,
    budget: Budget = NO_LIMIT,
    kept: Checkpoints | None = None,
) -> tuple[tuple[str, ...], tuple, tuple[str, ...]]:
    """Train once more from `start`, on the validation images too, as `fitted` went: by the same schedule to the same
    epoch and share of the way. Nothing is chosen any more. Returns what was done, in words, the snapshots, and the
    names of images that vanished meanwhile.

    Where the time is short, or runs out, the model and the snapshots stay as they are.
    """
    before, needed = model.get_weights(), fitted.best_epoch * fitted.epoch_seconds * len(images) / fitted.images
    model.set_weights(start)
    training = Training(model, images, recipe, seed=seed, rates=rates, kept=kept)
    if not training.begun and not budget.allows(1.2 * needed):
        model.set_weights(before)
        told = f"no time was left to train once more with the validation images (about {needed:.0f} s)"
        return (told,), fitted.snapshots, ()
    logger.info(f"once more, to epoch {fitted.best_epoch}, on all {len(images)} images")
    stop = StopAt(budget)
    cycles = [CycleEnds(recipe)] if fitted.snapshots else []
    changes = training.run(fitted.best_epoch, [stop, *cycles]).changes
    missing = tuple(changes["missing"])
    if stop.reached:
        model.set_weights(before)
        told = "the time limit ended the training with the validation images, so the one before it is what you get"
        return (*changes["told"], told), fitted.snapshots, missing
    model.set_weights(_between(start, model.get_weights(), fitted.share))
    count = len(images) - len(missing)
    told = f"then trained once more, to the same epoch, on all {count} images, the validation images among them"
    snapshots = tuple(cycles[0].weights[-len(fitted.snapshots) :]) if cycles else ()
    return (*changes["told"], told), snapshots, missing


def _between(initial, final, share: float) -> list[np.ndarray]:
    """Weights at `share` of the way from `initial` to `final`; counters, which are no weights, are the final ones."""
    if share in (0.0, 1.0):
        return final if share else initial
    return [
        b if np.issubdtype(np.asarray(b).dtype, np.integer) else ((1 - share) * a + share * b).astype(b.dtype)
        for a, b in zip(initial, final, strict=True)
    ]
