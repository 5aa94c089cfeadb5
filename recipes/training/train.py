"""From a start and a recipe to a classifier: linear or by gradient steps, judged, then made of all images."""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import keras
import numpy as np

import layers
from recipes.core.budget import Budget
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
from recipes.training.schedule import ENOUGH, peak, warn_of_high_rate
from recipes.training.start import Start
from recipes.training.trainable import stage_rates, unfreeze


@dataclass(frozen=True, eq=False)
class Trained:
    """What came out.

    model:      0..255 RGB → probabilities.
    fitted:     how the training by gradient steps went; None where there was none.
    recipe:     with what training said.
    finished:   what the validation images decided and say of the model, before they joined the training ones.
    selection:  what the choices that they took part in leave of that; None where they chose nothing.
    missing:    names of training images that vanished while they were trained on.
    """

    model: keras.Model
    fitted: Fitted | None
    recipe: Recipe
    finished: Finished
    selection: Selection | None = None
    missing: tuple[str, ...] = ()


def train(
    start: Start, recipe: Recipe, seed: int, budget: Budget, callbacks, *, measure_crops: bool = True,
    kept: Callable[[str], Checkpoints | None] = lambda name: None,
) -> Trained:  # fmt: skip
    """Make the classifier that `recipe` says.

    measure_crops: see whether ten gain on the validation images.
    kept:          where the trainings "first" and "again" have got to.
    """
    if recipe.mirror and not start.mirrors_alike:
        recipe = recipe.because("mirror images are averaged, as asked for, though they lose their class here")
    if recipe.epochs:
        return _by_gradient(start, recipe, seed, budget, callbacks, measure_crops, kept)
    if callbacks:
        recipe = recipe.because("no gradient steps are taken, so the callbacks were not called")
    return _linear(start, recipe, start.crops_to_measure(recipe, budget) if measure_crops else 0)


def _linear(start: Start, recipe: Recipe, crops: int) -> Trained:
    """The linear classifier, judged on the features that the validation images have already."""
    if recipe.test_size not in (None, recipe.size):
        recipe = recipe.because(f"the linear classifier is made for its training images' size, {recipe.size} px")
    mirror = start.mirrors_gain if recipe.mirror is None else recipe.mirror
    recipe = replace(recipe, epochs=0, snapshots=0, test_size=None, mirror=bool(mirror))
    if recipe.scales and min(recipe.scales) < recipe.size:
        told = f"scales = {recipe.scales}: not taken, its crops are of {recipe.size} px"
        recipe = replace(recipe, scales=None).because(told)
    linear, logits = start.linear(recipe), start.held_out_logits(recipe, 1 + recipe.mirror)
    model = logits_model(start.network, start.classes, recipe.size, taps=recipe.taps)
    set_head(model, linear.kernel, linear.bias)
    validation = start.splits.validation
    logits = logits if len(logits) == 1 + recipe.mirror else None  # of much data only the images as they are were seen
    finished = finish(model, recipe, validation, logits, crops=crops)
    recipe = finished.recipe
    if recipe.refit:
        linear = start.linear(recipe, everything=True)
        set_head(model, linear.kernel, linear.bias)
        recipe = recipe.because("then fitted on all images, the validation images among them")
    return Trained(finished.classifier(model), None, recipe, finished)


def _by_gradient(
    start: Start, recipe: Recipe, seed: int, budget: Budget, callbacks, measure_crops: bool, kept
) -> Trained:
    quiet = start.network if recipe.warm_start else start.network.with_network(fresh(start.network.network))
    noisy, recipe = _with_stochastic_depth(quiet, recipe)
    if recipe.mirror is None and not start.mirrors_alike:
        recipe = replace(recipe, mirror=False)
    options = dict(taps=recipe.taps, dropout=recipe.dropout, seed=seed)
    model, splits, rival = logits_model(noisy, start.classes, recipe.size, **options), start.splits, None
    if recipe.warm_start:
        linear = start.linear(recipe)
        set_head(model, linear.kernel, linear.bias)
        labels = splits.validation.labels
        logits = start.held_out_logits(start.rival(recipe))[0]
        rival = Score.of(logits, labels, image_weights(labels, start.classes, recipe.balanced))
    tensors = feature_tensors(noisy.network, recipe.size)
    unfreeze(model, noisy.network, recipe, tensors)
    how = dict(seed=seed, rates=stage_rates(model, noisy.network, tensors, recipe.layer_decay), budget=budget)
    warn_of_high_rate(recipe, _updates(recipe, len(splits.train)))
    initial = model.get_weights()
    fitted = fit(
        model, splits.train, splits.validation, recipe, start=rival, callbacks=callbacks, kept=kept("first"), **how
    )  # fmt: skip
    recipe = _told(replace(recipe, test_size=fitted.test_size, accumulate=fitted.parts), fitted)
    missing = fitted.missing
    crops = start.crops_to_measure(recipe, budget) if measure_crops else 0
    if rival and not fitted.better:
        trained = _linear(start, start.rival(recipe), crops)
        selection = _selection(fitted, trained.finished, bool(rival))
        return replace(trained, fitted=fitted, selection=selection, missing=missing)
    if recipe.mirror is None and not start.time_for(2, budget):
        told = "no time was left to see whether mirror images gain: they do not count"
        recipe = replace(recipe, mirror=False).because(told)
    models = members(model, fitted.snapshots)
    mirrors = recipe.mirror is None  # are a choice, too
    finished = finish(models, recipe, splits.validation, crops=crops, mirrors_gain=start.mirrors_gain)
    recipe, selection = finished.recipe, _selection(fitted, finished, bool(rival) + mirrors)
    if recipe.refit and rival:
        linear = start.linear(recipe, everything=True)
        begin = [*initial[:-2], linear.kernel, linear.bias]
        everything = joined(splits.train, splits.validation)
        told, snapshots, gone = fit_again(model, begin, everything, recipe, fitted, kept=kept("again"), **how)
        recipe, models = recipe.because(*told), members(model, snapshots)
        missing = tuple(dict.fromkeys((*missing, *gone)))
    return Trained(finished.classifier(models), fitted, recipe, finished, selection, missing)


def _selection(fitted: Fitted, finished: Finished, others: int) -> Selection:
    """What the classifier is worth on images that did not choose it among the fitted candidates and `others`."""
    judged = finished.judged
    final = Score.of(np.log(np.maximum(judged.probabilities, 1e-12)), judged.labels, fitted.start.weights)
    return Selection.of(fitted.cross_fitted(final).right, others + len(fitted.candidates))


def members(model: keras.Model, snapshots: Sequence[Sequence[np.ndarray]]) -> list[keras.Model]:
    """Models of their own with the weights of each snapshot; without snapshots the model itself."""
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
        return body, replace(recipe, stochastic_depth=0.0).because(f"without stochastic depth: {error}")
    return body.with_network(network), recipe


def _updates(recipe: Recipe, images: int) -> int:
    return recipe.epochs * math.ceil(images / recipe.batch_size)


def _told(recipe: Recipe, fitted: Fitted) -> Recipe:
    """`recipe` with how its training went among the reasons."""
    done = len(fitted.history.get("val_loss", ()))
    recipe = recipe.because(*fitted.told)
    updates = _updates(recipe, fitted.images)
    if (highest := peak(recipe, updates)) < recipe.learning_rate:
        recipe = recipe.because(
            f"{updates} updates are few: the learning rate peaks at {highest:.2g} instead of {recipe.learning_rate:g}, "
            f"which a training of {ENOUGH} updates takes"
        )
    if fitted.cut:
        recipe = recipe.because(f"the time limit ended training after {done} of {recipe.epochs} epochs")
    if recipe.snapshots > 1 and fitted.snapshots:
        recipe = recipe.because(
            f"the mean of the last {len(fitted.snapshots)} of {recipe.snapshots} snapshots is within the noise "
            "of the lowest validation loss"
        )
    elif recipe.snapshots < 2:
        recipe = recipe.because(
            f"epoch {fitted.best_epoch} of {done} is the last whose validation loss is within the noise of the lowest"
        )
    if not recipe.warm_start:
        return recipe
    if fitted.candidates.larger and recipe.test_size != recipe.size:
        recipe = recipe.because(
            f"images of {recipe.test_size} px are classified as well as any, within the noise: the random crops of the "
            "training show things larger than whole images do"
        )
    row = fitted.row()
    low, high = (100 * end for end in row.interval)
    told = (
        f"on the validation images finetuning changed the accuracy by {100 * row.gain:+.1f} points (95 % interval "
        f"{low:+.1f} to {high:+.1f}), from {fitted.start.accuracy:.1%} to {row.accuracy:.1%}, and the log-likelihood "
        f"by {row.nats:+.3f} nats"
    )
    told += ", every class counting alike" if recipe.balanced else ""
    if fitted.best_share < 1:
        told += f", with {fitted.best_share:.0%} of the way from the linear classifier's to the finetuned weights"
    return recipe.because(f"{told}: {training_outcome(row)}")
