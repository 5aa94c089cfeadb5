"""The lecture's 2 × 2 table as a pure function: amount of data × similarity to ImageNet → recipe."""

from collections.abc import Collection
from dataclasses import replace

from recipes.auditing.rules import IMBALANCED
from recipes.errors import RecipeError
from recipes.planning.evidence import ProbeEvidence, mirrors_gain, mirrors_keep_class, similar, uncertain
from recipes.planning.recipe import (
    FEWEST_EPOCHS,
    MOST_EPOCHS,
    Adjusted,
    Recipe,
    changed,
    finetune_all,
    finetune_few,
    from_scratch,
    images_to_show,
    linear_probe,
)
from recipes.planning.summary import Summary

CHECKABLE = 30  # held-out images below which a gain of finetuning cannot be measured
TRAINABLE = 400  # training images below which data similar to ImageNet keeps the linear classifier
SOLVED = 0.98  # accuracy of the linear classifier above which finetuning has nothing to gain
LARGE = 5_000_000  # weights above which a network is regularised by stochastic depth
WHOLE = 0.6  # smallest area of a crop, as a share of the image, if mirror images lose their class
_STEP_COST = {"few": 2.0, "all": 3.5}  # of a training step, in forward passes
_BASELINE = "trained, with the linear classifier as the baseline"
_ONLY_LINEAR = "so only the linear classifier is fitted"
_MEMORY_SHARE = 0.5  # of the free memory that the activations of one batch may take


def plan(summary: Summary, probe: ProbeEvidence | None) -> Recipe:
    """Return the recipe for a dataset, read off the lecture's 2 × 2 table and the probe.

    200 images per class and more are a lot of data. Data is similar to ImageNet if the last stage, the one most
    specialised on ImageNet, separates the classes best and nearly fully. Similar data with fewer than 400 images keeps
    the linear classifier. Otherwise all stages are trained on different data and the deepest stages on similar data,
    and `finetune` keeps the result or the linear classifier, depending on the held-out images. If these are too few to
    decide, or if nothing is left to gain, only the linear classifier is fitted.

    Args:
        summary: Facts about the dataset, the network and the machine.
        probe: The probe of the training images; None if the backbone carries no trained weights.

    Returns:
        The recipe, with a reason for every decision.

    Raises:
        RecipeError: If there is no probe of trained weights.
    """
    if not summary.pretrained:
        scratch = from_scratch(summary.size, summary.images)
        return _fitted(scratch.because("the backbone carries no trained weights"), summary)
    if probe is None:
        raise RecipeError("The plan for trained weights needs a probe, got None.", code="plan.no_probe")
    stop = _not_worth_training(summary, probe)
    if stop:
        linear = linear_probe(summary.size).because(*_findings(summary, probe), stop)
        return _fitted(_measured(linear, probe), summary, probe)
    return _trained("few" if similar(probe) else "all", summary, probe)


def candidates(summary: Summary, probe: ProbeEvidence | None) -> tuple[Recipe, ...]:
    """Return `plan` and, if its evidence is uncertain, the nearest other recipe, for `compare` to decide."""
    chosen = plan(summary, probe)
    if probe is None or chosen.name not in ("few", "all") or not uncertain(probe):
        return (chosen,)
    return _comparable(chosen, _trained("all" if chosen.name == "few" else "few", summary, probe))


def _comparable(chosen: Recipe, *others: Recipe) -> tuple[Recipe, ...]:
    """Return all recipes, or the first one if the time or the user leaves one without gradient steps."""
    return (chosen, *others) if all(each.epochs for each in (chosen, *others)) else (chosen,)


def _trained(name: str, summary: Summary, probe: ProbeEvidence) -> Recipe:
    make, stages = {"few": (finetune_few, "the deepest stages are"), "all": (finetune_all, "all stages are")}[name]
    recipe = make(summary.size, summary.images).because(*_findings(summary, probe), f"{stages} {_BASELINE}")
    return _fitted(_measured(recipe, probe), summary, probe)


def _findings(summary: Summary, probe: ProbeEvidence) -> tuple[str, str]:
    last, head = probe.last, probe.head
    accuracies = f"a linear classifier on the frozen network reaches {last.accuracy:.1%} on its last stage"
    if head is not last:
        accuracies += f" and {head.accuracy:.1%} on {head.name}"
    return (
        f"{accuracies} (cross-validated): the data {'is similar to' if similar(probe) else 'differs from'} ImageNet",
        f"{int(summary.per_class)} images per class is {'a lot of' if summary.a_lot else 'little'} data",
    )


def _not_worth_training(summary: Summary, probe: ProbeEvidence) -> str:
    """Return the reason why only the linear classifier is fitted, or an empty string."""
    if summary.held_out is not None and summary.held_out < CHECKABLE:
        return (
            f"{summary.held_out} held-out images are too few to measure a gain of finetuning, {_ONLY_LINEAR}; "
            "recipe='all' trains anyway"
        )
    if similar(probe) and summary.images < TRAINABLE:
        return (
            f"{summary.images} images are too few to improve a network that already suits them, {_ONLY_LINEAR}; "
            "recipe='few' trains anyway"
        )
    if probe.head.accuracy >= SOLVED:
        return f"finetuning has nothing left to gain, {_ONLY_LINEAR}"
    return ""


def options(recipe: Recipe | Adjusted | str, summary: Summary, probe: ProbeEvidence | None) -> tuple[Recipe, ...]:
    """Return the recipe that `finetune(recipe=...)` means for a dataset, or two if "auto" is undecided.

    Args:
        recipe: A Recipe, which stays as it is; an Adjusted one, whose changes are applied; "auto" for `candidates`; or
            the name of a ready-made recipe.
        summary: Facts about the dataset, the network and the machine.
        probe: The probe of the training images, if there is one.

    Returns:
        One recipe, or two for `compare`.
    """
    if isinstance(recipe, Adjusted):
        # Time and memory are those of the changed recipe.
        planned = options(recipe.recipe, replace(summary, seconds_left=None, memory=None), probe)
        return _comparable(*(_adjusted(each, dict(recipe.changes), summary, probe) for each in planned))
    if recipe == "auto":
        return candidates(summary, probe)
    if not isinstance(recipe, Recipe):
        make = {"few": finetune_few, "all": finetune_all, "scratch": from_scratch}
        named = linear_probe(summary.size) if recipe == "probe" else make[recipe](summary.size, summary.images)
        return (_fitted(_measured(named.because("requested"), probe), summary, probe),)
    if probe and not mirrors_keep_class(probe) and recipe.epochs and recipe.policy.flip:
        recipe = recipe.because(
            "its policy draws mirror images, although they lose their class in this dataset (a linear classifier is "
            f"right on {probe.mirrors.straight:.0%} of the images, on {probe.mirrors.mirrored:.0%} of their mirror "
            "images)"
        )
    return (recipe,)


def _adjusted(recipe: Recipe, changes: dict, summary: Summary, probe: ProbeEvidence | None) -> Recipe:
    """Return `recipe` with the changes, fitted to the free memory and the remaining time."""
    if not recipe.epochs and changes.get("epochs") and not changes.get("unfreeze"):
        recipe = recipe.because(
            f"epochs = {changes.pop('epochs')} is ignored: the linear classifier is solved to its optimum without "
            "epochs; use recipe='all' or 'few' to train the network"
        )
    snapshots = changes.pop("snapshots", 0)
    if changes:
        assignments = ", ".join(f"{name} = {value}" for name, value in changes.items())
        updated = _without_explanations(changed(recipe, changes), recipe, changes)
        recipe = updated.because(f"{assignments}: requested")
    recipe = with_snapshots(recipe, snapshots) if snapshots else recipe
    recipe = recipe if "accumulate" in changes else _in_memory(recipe, summary)
    return in_time(recipe, summary, probe)


def with_snapshots(recipe: Recipe, snapshots: int) -> Recipe:
    """Return `recipe` with the requested number of cycles, or with half its epochs if these are fewer."""
    if not recipe.epochs:
        return recipe.because("no gradient steps are taken, so there are no snapshots")
    possible = max(1, min(snapshots, recipe.epochs // 2))
    reason = f"{possible} snapshots: requested"
    if possible < snapshots:
        reason = f"{possible} instead of {snapshots} snapshots: {recipe.epochs} epochs have room for no more"
    return replace(recipe, snapshots=possible).because(reason)


def _measured(recipe: Recipe, probe: ProbeEvidence | None) -> Recipe:
    """Return `recipe` with the stages to classify from and the use of mirror images that the probe suggests."""
    if probe is None:
        return recipe
    if probe.head is not probe.last:
        # A training reads all stages: from an earlier one alone it could not move those behind it.
        taps = probe.stages[-1].taps if recipe.epochs else probe.head.taps
        recipe = replace(recipe, taps=taps).because(
            f"{probe.head.name} predicts better than the last stage alone (cross-validated negative log-likelihood "
            f"{probe.head.nll:.3f} against {probe.last.nll:.3f}): the classifier reads "
            f"{'all stages' if recipe.epochs else probe.head.name}"
        )
    if not mirrors_keep_class(probe):
        policy = replace(recipe.policy, flip=0.0, area=recipe.policy.area and (WHOLE, 1.0))
        return replace(recipe, policy=policy, mirror=False).because(
            f"a linear classifier is right on {probe.mirrors.straight:.0%} of the images but on "
            f"{probe.mirrors.mirrored:.0%} of their mirror images: mirror images and crops of small parts are not "
            "drawn, because the images resemble signs more than views"
        )
    if recipe.epochs:
        return recipe
    recipe = replace(recipe, mirror=mirrors_gain(probe))
    if not recipe.mirror:
        return recipe
    gain, error = probe.head.mirror_gain
    return recipe.because(
        f"averaging over an image and its mirror image gains {gain:.3f} ± {error:.3f} nats (cross-validated), so "
        "predictions use both"
    )


def _fitted(recipe: Recipe, summary: Summary, probe: ProbeEvidence | None = None) -> Recipe:
    """Return `recipe` fitted to the imbalance of the classes, the network, the memory and the remaining time."""
    if summary.imbalance >= IMBALANCED:
        recipe = replace(recipe, balanced=True).because(
            f"the largest class has {summary.imbalance:.1f} times the images of the smallest, so every class has the "
            "same weight"
        )
    if not recipe.epochs:
        return recipe
    if recipe.refit and summary.a_lot:
        recipe = replace(recipe, refit=False).because(
            "with a lot of data a fifth more would not repay a second training: the validation images stay held out"
        )
    if recipe.unfreeze == -1 and recipe.warm_start and summary.weights >= LARGE:
        recipe = replace(recipe, stochastic_depth=0.1).because(
            f"{summary.weights / 1e6:.0f} million weights are trained, so stochastic depth is applied to residual "
            "branches, if there are any"
        )
    return in_time(_in_memory(recipe.because(*_explanations(recipe).values()), summary), summary, probe)


def _explanations(recipe: Recipe) -> dict[tuple[str, ...], str]:
    """Return the explanation of the fields of a ready-made recipe, by the names of these fields."""
    times = 1 if recipe.warm_start else 2
    epochs = (
        f"{recipe.epochs} epochs, the number from {times * FEWEST_EPOCHS} to {times * MOST_EPOCHS} that shows closest "
        f"to {times * images_to_show(recipe.size):,} images in all"
    )
    if not recipe.warm_start:
        return {("epochs", "size"): epochs}
    decay = (
        f"the learning rate falls by a factor of {recipe.layer_decay:g} from each stage to the one before it, whose "
        "features are more general"
    )
    overfitting = (
        "to limit overfitting, images are augmented lightly and the weights are a running average (decay "
        f"{recipe.averaging:g}), which smooths the noise of the steps"
    )
    return {("epochs", "size"): epochs, ("layer_decay",): decay, ("averaging", "policy"): overfitting}


def _without_explanations(recipe: Recipe, planned: Recipe, changes: Collection[str] = ()) -> Recipe:
    """Return `recipe` without the explanations of changed fields, or without all of them if nothing is trained."""
    trained = bool(recipe.epochs)
    outdated = {text for names, text in _explanations(planned).items() if not trained or set(names) & set(changes)}
    reasons = (text for text in recipe.reasons if text not in outdated and (trained or not text.endswith(_BASELINE)))
    return replace(recipe, reasons=tuple(reasons))


def _in_memory(recipe: Recipe, summary: Summary) -> Recipe:
    """Return `recipe` with gradient accumulation if the activations of a whole batch do not fit the memory."""
    if not summary.memory or not summary.activations or not recipe.epochs:
        return recipe
    needed = 2 * summary.activations * recipe.batch_size  # kept for the backward pass
    parts = 1
    while needed / parts > _MEMORY_SHARE * summary.memory and recipe.batch_size % (2 * parts) == 0:
        parts *= 2
    if parts == 1:
        return recipe
    return replace(recipe, accumulate=parts).because(
        f"a batch of {recipe.batch_size} images needs about {needed / 2**30:.1f} GiB and "
        f"{summary.memory / 2**30:.1f} GiB are free, so it is computed in {parts} parts"
    )


def epoch_seconds(recipe: Recipe, images: float, held_out: float, image_seconds: float) -> float:
    """Return the seconds of an epoch: training on `images` and evaluating the `held_out` images."""
    return image_seconds * (images * _STEP_COST.get(recipe.name, _STEP_COST["all"]) + held_out)


def in_time(recipe: Recipe, summary: Summary, probe: ProbeEvidence | None) -> Recipe:
    """Return `recipe` with the epochs that the time limit allows, or the linear classifier if these are below three."""
    if not recipe.epochs or summary.seconds_left is None or not summary.image_seconds:
        return recipe
    epoch = epoch_seconds(recipe, summary.images, summary.held_out or 0, summary.image_seconds)
    room = int(0.7 * summary.seconds_left / epoch)  # the rest: tracing, evaluation, the last training on all images
    if room >= recipe.epochs:
        return recipe
    time = f"an epoch takes about {epoch:.0f} s and {max(0, summary.seconds_left):.0f} s of the time limit are left"
    if room < 3 and recipe.warm_start:
        linear = _without_explanations(_linear(recipe, probe), recipe)
        return linear.because(f"{time}: no time to finetune, {_ONLY_LINEAR}")
    epochs = max(1, room)
    shorter = replace(recipe, epochs=epochs, snapshots=min(recipe.snapshots, epochs))
    return shorter.because(f"{time}: {epochs} instead of {recipe.epochs} epochs")


def _linear(recipe: Recipe, probe: ProbeEvidence | None) -> Recipe:
    """Return the recipe of the linear classifier with the fields of `recipe` that concern it."""
    taps = probe.head.taps if probe and recipe.taps == probe.stages[-1].taps else recipe.taps
    names = ("balanced", "mirror", "calibrate", "crops", "scales", "refit", "reasons")
    return replace(linear_probe(recipe.size), taps=taps, **{name: getattr(recipe, name) for name in names})
