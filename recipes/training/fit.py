"""Train a model and choose the weights that classify the validation images best."""

import logging
from collections.abc import Sequence
from dataclasses import dataclass, replace

import keras
import numpy as np

from recipes.core.budget import NO_LIMIT, Budget
from recipes.data.images import ImageData
from recipes.evaluation.ledger import Gain, paired_bootstrap, training_outcome
from recipes.evaluation.selection import Candidates, Score, choose, cross_fitted, image_weights
from recipes.planning.reason import Reason
from recipes.training.batches import shown
from recipes.training.callbacks import CycleEnds, StopAt, Validation
from recipes.training.checkpoints import Checkpoints
from recipes.training.choice import INTERPOLATIONS, BestEpoch, Snapshots, interpolated
from recipes.training.loop.loop import Training
from recipes.training.loop.task import Task

logger = logging.getLogger(__name__)


@dataclass(frozen=True, eq=False)
class Fitted:
    """Outcome of a training.

    Attributes:
        history: One list per metric, one value per epoch.
        best_epoch: The latest epoch whose validation loss is within the noise of the lowest, from 1.
        start: Score of the baseline on the validation images.
        candidates: Scores of the weights of each epoch, of each interpolation between the best epoch's weights and the
            initial ones, and of the chosen weights at each larger image size.
        share: Share of the finetuned weights in the chosen weights; 0 if training was reverted, see `better`.
        test_size: Image size for which the weights were chosen, in pixels.
        cut: Whether the time limit ended the training.
        images: Number of training images.
        epoch_seconds: Mean duration of an epoch.
        snapshots: Weights at the ends of the last cycles, whose predictions are averaged; empty for a single model.
        rival: Whether the candidates competed with a baseline.
        parts: Number of parts into which each batch was split at the end of the training.
        missing: Names of training images that vanished during the training.
        reasons: One reason for each adjustment after a fault, and for each step that was skipped for lack of time.
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
    reasons: tuple[Reason, ...] = ()

    @property
    def best(self) -> Score:
        """Return the score of the best finetuned candidate: the best epoch, or a better interpolation."""
        chosen = self.candidates.select(self.start if self.rival else None)
        return self.candidates.best() if chosen is self.start else chosen

    @property
    def better(self) -> bool:
        """Return whether training gained more than the noise, see `selection.better`."""
        return self.share > 0

    @property
    def best_share(self) -> float:
        """Return the share of the finetuned weights in the `best` candidate, whether or not it was chosen."""
        between, best = self.candidates.between, self.best
        if not between or any(best is score for score in self.candidates.epochs):
            return 1.0
        index = next((i for i, score in enumerate(between) if score is best), None)
        if index is None:  # at larger images, the weights are those that were best at the training size
            index = choose(self.candidates.epochs[self.best_epoch - 1], between)
        return 1.0 if index is None else INTERPOLATIONS[index]

    def row(self, seconds: float = 0.0) -> Gain:
        """Return the ledger's row of this training, computed from its `best` candidate even if another was chosen.

        The recipe's reasons, the ledger and the report all take their figures from this row.

        Args:
            seconds: Duration of the training.
        """
        best, count = self.best, len(self.candidates)
        if not self.rival:
            return Gain("training from scratch", best.accuracy, seconds=seconds, epoch=self.best_epoch)
        share = len(best.weights) * best.weights  # every image weighs 1, or every class weighs the same
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
        """Return the result for each validation image by the candidate that the other images select."""
        return cross_fitted(self.start if self.rival else None, self.candidates, finished)


def fit(
    task: Task,
    validation: ImageData,
    *,
    start: Score | None = None,
    budget: Budget = NO_LIMIT,
    callbacks: Sequence[keras.callbacks.Callback] = (),
    checkpoints: Checkpoints | None = None,
) -> Fitted:
    """Train the trainable variables of the task's model, and choose among the resulting weights.

    The loss is cross-entropy with label smoothing. Weight decay is decoupled and skips biases and normalisation
    parameters. The learning rate has a warm-up and a cosine decay. The recipe sets augmentation and Polyak averaging.

    The model ends with the weights of the latest epoch whose validation loss is within the noise of the lowest. With a
    warm start, an interpolation between these and the initial weights replaces them if it is better beyond the noise.
    The initial weights are restored unless training was `Fitted.better`; see `selection.Candidates`. With snapshots,
    the result holds the weights at the ends of the last cycles.

    Args:
        task: The model, its training images and the recipe.
        validation: The validation images.
        start: Score of the baseline on the validation images; default: that of the model before training.
        budget: Time limit of the training.
        callbacks: Further callbacks.
        checkpoints: The states of the training; default: in memory only.
    """
    model, recipe, training = task.model, task.recipe, Training(task, checkpoints)
    weights = image_weights(validation.labels, len(task.images.class_names), recipe.balanced)
    watch = Validation(shown(validation, recipe), validation, weights)
    watch.set_model(model)
    start, stop = start or watch.score(), StopAt(budget, watch)
    chooser = (Snapshots if recipe.snapshots > 1 else BestEpoch)(model, recipe, watch, stop)
    training.run(recipe.epochs, [watch, stop, chooser.collector, *callbacks])
    choice, adjustments = chooser.choose(start), training.adjustments
    return Fitted(
        history=training.history, best_epoch=choice.best_epoch, start=start, candidates=choice.candidates,
        share=choice.share, test_size=choice.test_size, cut=stop.reached, images=len(task.images),
        epoch_seconds=training.seconds / max(1, len(watch.scores)), snapshots=choice.snapshots, rival=recipe.warm_start,
        parts=adjustments.parts, missing=adjustments.missing, reasons=(*adjustments.reasons, *stop.left_out),
    )  # fmt: skip


@dataclass(frozen=True, eq=False)
class Refit:
    """Outcome of a training on the training and validation images together.

    Attributes:
        reasons: One reason for each step that was done or skipped.
        snapshots: As in `Fitted`.
        missing: Names of images that vanished during the training.
    """

    reasons: tuple[Reason, ...]
    snapshots: tuple[Sequence[np.ndarray], ...]
    missing: tuple[str, ...] = ()


def fit_again(
    task: Task,
    start: Sequence[np.ndarray],
    fitted: Fitted,
    *,
    budget: Budget = NO_LIMIT,
    checkpoints: Checkpoints | None = None,
) -> Refit:
    """Train again as `fitted` was trained, now including the validation images.

    The schedule, the number of epochs and the share of the finetuned weights are those of `fitted`. If there is not
    enough time, the model and the snapshots do not change.

    Args:
        task: The task of `fit`, with the training and the validation images together.
        start: The weights to begin with.
        fitted: Outcome of the first training.
        budget: Time limit of the training.
        checkpoints: The states of the training; default: in memory only.
    """
    model, images = task.model, task.images
    before, needed = model.get_weights(), fitted.best_epoch * fitted.epoch_seconds * len(images) / fitted.images
    model.set_weights(start)
    training = Training(task, checkpoints)
    if not training.begun and not budget.allows(1.2 * needed):
        model.set_weights(before)
        text = "no time was left to train again with the validation images (about {seconds:.0f} s)"
        reason = Reason("refit.no_time", text, {"seconds": float(needed)})
        return Refit((reason,), fitted.snapshots)
    logger.debug(f"training again, to epoch {fitted.best_epoch}, on all {len(images)} images")
    stop = StopAt(budget)
    cycles = [CycleEnds(task.recipe)] if fitted.snapshots else []
    adjustments = training.run(fitted.best_epoch, [stop, *cycles]).adjustments
    if stop.reached:
        model.set_weights(before)
        text = "the time limit ended the second training, so the weights of the first training are used"
        reason = Reason("refit.cut", text)
        return Refit((*adjustments.reasons, reason), fitted.snapshots, adjustments.missing)
    model.set_weights(interpolated(start, model.get_weights(), fitted.share))
    text = "trained again, to the same epoch, on all {images} images, including the validation images"
    reason = Reason("refit.done", text, {"images": len(images) - len(adjustments.missing)})
    snapshots = tuple(cycles[0].weights[-len(fitted.snapshots) :]) if cycles else ()
    return Refit((*adjustments.reasons, reason), snapshots, adjustments.missing)
