"""Train and evaluate the classifier that a recipe describes, linear or by gradient steps."""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import keras
import numpy as np

from recipes import layers
from recipes.core.budget import Budget
from recipes.core.progress import advance, phase
from recipes.data.images import joined
from recipes.evaluation.calibrate import Finished, finish
from recipes.evaluation.ledger import training_outcome
from recipes.evaluation.selection import Score, Selection, image_weights
from recipes.networks.backbones import Backbone
from recipes.networks.classifier import fresh, logits_model, set_head
from recipes.networks.stages import feature_tensors
from recipes.planning.recipe import Recipe
from recipes.training.checkpoints import Checkpoints
from recipes.training.fit import Fitted, fit, fit_again
from recipes.training.loop.task import Task
from recipes.training.schedule import ENOUGH, peak, warn_of_high_rate
from recipes.training.start import Start
from recipes.training.trainable import stage_rates, unfreeze


@dataclass(frozen=True, eq=False)
class Trained:
    """Outcome of `train`.

    Attributes:
        model: RGB images 0..255 → probabilities.
        fitted: Outcome of the gradient steps; None for a linear classifier.
        recipe: The recipe with the reasons that the training added.
        finished: Decisions and evaluation on the validation images, before a second training included them.
        selection: Accuracy corrected for the choices made on the validation images; None if nothing was chosen.
        missing: Names of training images that vanished during the training.
    """

    model: keras.Model
    fitted: Fitted | None
    recipe: Recipe
    finished: Finished
    selection: Selection | None = None
    missing: tuple[str, ...] = ()


def train(
    start: Start, recipe: Recipe, seed: int, budget: Budget, callbacks: Sequence[keras.callbacks.Callback], *,
    measure_crops: bool = True, checkpoints: Callable[[str], Checkpoints | None] = lambda name: None,
) -> Trained:  # fmt: skip
    """Train the classifier that `recipe` describes.

    Args:
        start: The network, the images and the linear classifier.
        recipe: How to train.
        seed: Seed of the noise, the shuffling and the augmentation.
        budget: Time limit of the job.
        callbacks: Further callbacks for the gradient steps.
        measure_crops: Whether to measure the gain of averaging over crops on the validation images.
        checkpoints: Function from the name of a training, "first" or "again", to its states.
    """
    if recipe.mirror and not start.mirrors_alike:
        text = "mirror images are averaged as requested, although they change the class"
        recipe = recipe.because("train.mirrors_change_class", text)
    if recipe.epochs:
        with phase("", 1 + (recipe.refit and recipe.warm_start), "trainings"):
            return _by_gradient(start, recipe, seed, budget, callbacks, measure_crops, checkpoints)
    if callbacks:
        recipe = recipe.because(
            "train.no_callbacks", "the recipe takes no gradient steps, so the callbacks were not called"
        )
    return _linear(start, recipe, start.crops_to_measure(recipe, budget) if measure_crops else 0)


def _linear(start: Start, recipe: Recipe, crops: int) -> Trained:
    """Make the linear classifier and evaluate it on the validation images' features."""
    if recipe.test_size not in (None, recipe.size):
        text = "the linear classifier uses the size of its training images, {size} px"
        recipe = recipe.because("train.linear_size", text, size=recipe.size)
    mirror = bool(start.mirrors_gain if recipe.mirror is None else recipe.mirror)
    recipe = replace(recipe, epochs=0, snapshots=0, test_size=None, mirror=mirror)
    if recipe.scales and min(recipe.scales) < recipe.size:
        text = "scales = {scales} are ignored, because the linear classifier takes crops of {size} px"
        recipe = recipe.because("train.scales_ignored", text, scales=str(recipe.scales), size=recipe.size)
        recipe = replace(recipe, scales=None)
    linear, logits = start.linear(recipe), start.held_out_logits(recipe, 1 + mirror)
    model = logits_model(start.network, start.classes, recipe.size, taps=recipe.taps)
    set_head(model, linear.kernel, linear.bias)
    logits = logits if len(logits) == 1 + mirror else None  # large datasets have no features of mirror images
    finished = finish(model, recipe, start.validation, logits, crops=crops)
    recipe = finished.recipe
    if recipe.refit:
        linear = start.linear(recipe, everything=True)
        set_head(model, linear.kernel, linear.bias)
        recipe = recipe.because("refit.linear", "fitted again on all images, including the validation images")
    return Trained(finished.classifier(model), None, recipe, finished)


def _by_gradient(
    start: Start, recipe: Recipe, seed: int, budget: Budget, callbacks: Sequence[keras.callbacks.Callback],
    measure_crops: bool, checkpoints: Callable[[str], Checkpoints | None],
) -> Trained:  # fmt: skip
    plain = start.network if recipe.warm_start else start.network.with_network(fresh(start.network.network))
    noisy, recipe = _with_stochastic_depth(plain, recipe)
    if recipe.mirror is None and not start.mirrors_alike:
        recipe = replace(recipe, mirror=False)
    model = logits_model(noisy, start.classes, recipe.size, taps=recipe.taps, dropout=recipe.dropout, seed=seed)
    images, validation, rival = start.splits.train, start.validation, None
    if recipe.warm_start:
        linear = start.linear(recipe)
        set_head(model, linear.kernel, linear.bias)
        labels = validation.labels
        logits = start.held_out_logits(start.rival(recipe))[0]
        rival = Score.of(logits, labels, image_weights(labels, start.classes, recipe.balanced))
    tensors = feature_tensors(noisy.network, recipe.size)
    unfreeze(model, noisy.network, recipe, tensors)
    rates = stage_rates(model, noisy.network, tensors, recipe.layer_decay)
    warn_of_high_rate(recipe, _updates(recipe, len(images)))
    initial = model.get_weights()
    task = Task(model, images, recipe, seed, rates)
    fitted = fit(task, validation, start=rival, budget=budget, callbacks=callbacks, checkpoints=checkpoints("first"))
    advance("trainings")
    recipe = _with_outcome(replace(recipe, test_size=fitted.test_size, accumulate=fitted.parts), fitted)
    missing = fitted.missing
    crops = start.crops_to_measure(recipe, budget) if measure_crops else 0
    if rival and not fitted.better:
        trained = _linear(start, start.rival(recipe), crops)
        selection = _selection(fitted, trained.finished, bool(rival))
        return replace(trained, fitted=fitted, selection=selection, missing=missing)
    if recipe.mirror is None and not start.time_for(2, budget):
        text = "no time was left to measure whether averaging over mirror images helps, so they are not used"
        recipe = replace(recipe, mirror=False).because("train.mirrors_not_tried", text)
    models = members(model, fitted.snapshots)
    others = bool(rival) + (recipe.mirror is None)  # the baseline and mirror images are candidates, too
    finished = finish(models, recipe, validation, crops=crops, mirrors_gain=start.mirrors_gain)
    recipe, selection = finished.recipe, _selection(fitted, finished, others)
    if recipe.refit and rival:
        linear = start.linear(recipe, everything=True)
        begin = [*initial[:-2], linear.kernel, linear.bias]
        task = replace(task, images=joined(images, validation), recipe=recipe)
        again = fit_again(task, begin, fitted, budget=budget, checkpoints=checkpoints("again"))
        recipe, models = recipe.with_reasons(*again.reasons), members(model, again.snapshots)
        missing = tuple(dict.fromkeys((*missing, *again.missing)))
    return Trained(finished.classifier(models), fitted, recipe, finished, selection, missing)


def _selection(fitted: Fitted, finished: Finished, others: int) -> Selection:
    """Return the accuracy corrected for choosing among the candidates and `others` further options."""
    judged = finished.judged
    final = Score.of(np.log(np.maximum(judged.probabilities, 1e-12)), judged.labels, fitted.start.weights)
    return Selection.of(fitted.cross_fitted(final).right, others + len(fitted.candidates))


def members(model: keras.Model, snapshots: Sequence[Sequence[np.ndarray]]) -> list[keras.Model]:
    """Return one model for each snapshot; without snapshots, the model itself."""
    if not snapshots:
        return [model]
    models = [keras.models.clone_model(model) for _ in snapshots]
    for member, weights in zip(models, snapshots, strict=True):
        member.set_weights(weights)
    return models


def _with_stochastic_depth(body: Backbone, recipe: Recipe) -> tuple[Backbone, Recipe]:
    if not recipe.stochastic_depth:
        return body, recipe
    try:
        network = layers.add_stochastic_depth(body.network, recipe.stochastic_depth)
    except ValueError as error:
        return body, replace(recipe, stochastic_depth=0.0).because(
            "train.no_stochastic_depth", "without stochastic depth: {error}", error=str(error)
        )
    return body.with_network(network), recipe


def _updates(recipe: Recipe, images: int) -> int:
    return recipe.epochs * math.ceil(images / recipe.batch_size)


def _with_outcome(recipe: Recipe, fitted: Fitted) -> Recipe:
    """Return `recipe` with the outcome of its training among the reasons."""
    done = len(fitted.history.get("val_loss", ()))
    recipe = recipe.with_reasons(*fitted.reasons)
    updates = _updates(recipe, fitted.images)
    if (highest := peak(recipe, updates)) < recipe.learning_rate:
        recipe = recipe.because(
            "train.few_updates",
            "the training has only {updates} updates, so the learning rate peaks at {peak:.2g} instead of {rate:g}, "
            "the rate for {enough} updates or more",
            updates=updates, peak=highest, rate=recipe.learning_rate, enough=ENOUGH,
        )  # fmt: skip
    if fitted.cut:
        text = "the time limit ended training after {done} of {epochs} epochs"
        recipe = recipe.because("train.cut", text, done=done, epochs=recipe.epochs)
    if recipe.snapshots > 1 and fitted.snapshots:
        recipe = recipe.because(
            "train.snapshots",
            "the mean of the last {used} of {snapshots} snapshots is within the noise of the lowest validation loss",
            used=len(fitted.snapshots), snapshots=recipe.snapshots,
        )  # fmt: skip
    elif recipe.snapshots < 2:
        recipe = recipe.because(
            "train.best_epoch",
            "epoch {epoch} of {done} is the last whose validation loss is within the noise of the lowest",
            epoch=fitted.best_epoch, done=done,
        )  # fmt: skip
    if not recipe.warm_start:
        return recipe
    if fitted.candidates.larger and recipe.test_size != recipe.size:
        recipe = recipe.because(
            "train.test_size",
            "images of {size} px are classified as well as those of any other size, within the noise; objects appear "
            "larger in random training crops than in whole images",
            size=recipe.test_size,
        )
    row = fitted.row()
    assert row.interval is not None and row.gain is not None  # because there is a baseline
    text = (
        "on the validation images, finetuning changed the accuracy by {gain:+.1f} points (95 % interval {low:+.1f} to "
        "{high:+.1f}), from {before:.1%} to {after:.1%}, and the log-likelihood by {nats:+.3f} nats"
    )
    text += ", with equal weight for every class" if recipe.balanced else ""
    if fitted.best_share < 1:
        text += ", with {share:.0%} of the way from the linear classifier's to the finetuned weights"
    low, high = (100 * float(end) for end in row.interval)
    return recipe.because(
        "train.outcome", f"{text}: {training_outcome(row)}", gain=100 * float(row.gain), low=low, high=high,
        before=float(fitted.start.accuracy), after=row.accuracy, nats=row.nats, share=fitted.best_share,
        better=bool(fitted.better),
    )  # fmt: skip
