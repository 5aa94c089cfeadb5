"""The lecture's 2×2 table as a pure function: how much data × how similar to ImageNet → what to train."""

from dataclasses import replace

import numpy as np

from recipes.auditing.rules import IMBALANCED
from recipes.planning.recipe import (
    FEWEST_EPOCHS,
    MOST_EPOCHS,
    Adjusted,
    Recipe,
    changed,
    finetune_all,
    finetune_few,
    from_scratch,
    linear_probe,
    shown_in_all,
)
from recipes.planning.summary import Summary

CHECKABLE = 30  # held-out images, below which no gain of finetuning could be told from noise
TRAINABLE = 400  # training images, below which data similar to ImageNet is left to the linear classifier
NEARLY_FULLY = 0.9  # accuracy of the linear classifier on the last stage, from which data is similar to ImageNet
SOLVED = 0.98  # accuracy of the linear classifier beyond which nothing is left to gain
LARGE = 5_000_000  # weights, from which a network is worth regularising by stochastic depth
WHOLE = 0.6  # least share of the image that a crop shows where mirror images lose their class
_TRAINING = {"few": 2.0, "all": 3.5}  # cost of a training step, in forward passes
_TO_BEAT = "trained, and the linear classifier is what they have to beat"
_MEMORY_SHARE = 0.5  # of the free memory that one batch's activations may take


def plan(summary: Summary, probe) -> Recipe:
    """The recipe for a dataset, read off the lecture's 2×2 table and the probe.

    Little or a lot is `images per class` against 200. Similar to ImageNet is where the last stage, the one most
    specialised on ImageNet, separates the classes best and nearly fully. Little (below 400 images) and similar data
    keeps the linear classifier; otherwise different data trains all stages, similar data the deepest ones, and
    `finetune` keeps the result or the linear classifier, as the held-out images say. Where they could not tell, or
    nothing is left to gain, only the linear classifier is made.
    """
    if not summary.pretrained:
        return _fitted(
            from_scratch(summary.size, summary.images).because("the backbone carries no trained weights"), summary
        )
    stop = _not_worth_training(summary, probe)
    if stop:
        return _fitted(
            _measured(linear_probe(summary.size).because(*_seen(summary, probe), stop), probe), summary, probe
        )
    return _trained("few" if similar(probe) else "all", summary, probe)


def candidates(summary: Summary, probe) -> tuple[Recipe, ...]:
    """`plan`, and where the evidence for it is thin the recipe that is nearest to it, for `compare` to decide."""
    chosen = plan(summary, probe)
    if chosen.name not in ("few", "all") or not _thin(probe):
        return (chosen,)
    return _comparable(chosen, _trained("all" if chosen.name == "few" else "few", summary, probe))


def _comparable(chosen: Recipe, *others: Recipe) -> tuple[Recipe, ...]:
    """All of them, or the first where time or the user left one no gradient steps."""
    return (chosen, *others) if all(each.epochs for each in (chosen, *others)) else (chosen,)


def _trained(name: str, summary: Summary, probe) -> Recipe:
    ready, what = {"few": (finetune_few, "the deepest stages are"), "all": (finetune_all, "all stages are")}[name]
    told = f"{what} {_TO_BEAT}"
    return _fitted(_measured(ready(summary.size, summary.images).because(*_seen(summary, probe), told), probe), summary,
                   probe)  # fmt: skip


def _seen(summary: Summary, probe) -> tuple[str, str]:
    last, head = probe.last, probe.head
    seen = f"a linear classifier on the frozen network reaches {last.accuracy:.1%} on its last stage"
    if head is not last:
        seen += f" and {head.accuracy:.1%} on {head.name}"
    return (
        f"{seen} (cross-validated): the data {'is similar to' if similar(probe) else 'differs from'} ImageNet",
        f"{int(summary.per_class)} images per class is {'a lot of' if summary.a_lot else 'little'} data",
    )


def similar(probe) -> bool:
    """Whether the network's last stage, the one most specialised on ImageNet, separates the classes as well as any (to
    within the noise) and nearly fully (by the upper end of its interval)."""
    return probe.head is probe.last and probe.last.interval[1] >= NEARLY_FULLY


def _thin(probe) -> bool:
    """Whether `similar` could as well be otherwise: by the other end of the interval, or by twice the noise."""
    low, high = probe.last.interval
    return high >= NEARLY_FULLY and (low < NEARLY_FULLY or probe.head is not probe.last) and not _clearly_better(probe)


def _clearly_better(probe) -> bool:
    gain = probe.last.losses - probe.head.losses
    return gain.mean() > 2 * gain.std() / np.sqrt(len(gain))


def _not_worth_training(summary: Summary, probe) -> str:
    if summary.held_out is not None and summary.held_out < CHECKABLE:
        return (
            f"with {summary.held_out} held-out images no gain of finetuning could be told from noise, so the linear "
            "classifier is what you get; recipe='all' trains all the same"
        )
    if similar(probe) and summary.images < TRAINABLE:
        return (
            f"{summary.images} images would move a network little that suits them already, so the linear classifier is "
            "what you get; recipe='few' trains all the same"
        )
    if probe.head.accuracy >= SOLVED:
        return "nothing is left to gain by finetuning, so the linear classifier is what you get"
    return ""


def options(recipe, summary: Summary, probe) -> tuple[Recipe, ...]:
    """The Recipe that `finetune(recipe=...)` means, for data of which `summary` and `probe` (or None) tell; two of them
    where "auto" leaves open which.

    A Recipe as it is, an Adjusted one with its changes made, "auto" by `candidates`, or a ready-made one by name.
    """
    if isinstance(recipe, Adjusted):
        # Time and memory are those of the changed recipe.
        planned = options(recipe.recipe, replace(summary, seconds_left=None, memory=None), probe)
        return _comparable(*(_adjusted(each, dict(recipe.changes), summary, probe) for each in planned))
    if recipe == "auto":
        return candidates(summary, probe)
    if not isinstance(recipe, Recipe):
        ready = {"few": finetune_few, "all": finetune_all, "scratch": from_scratch}
        asked = linear_probe(summary.size) if recipe == "probe" else ready[recipe](summary.size, summary.images)
        return (_fitted(_measured(asked.because("asked for"), probe), summary, probe),)
    if probe and not probe.mirrors.alike and recipe.epochs and recipe.policy.flip:
        recipe = recipe.because(
            f"its policy draws mirror images, though they lose their class here (a linear classifier is right on "
            f"{probe.mirrors.straight:.0%} of the images, on {probe.mirrors.mirrored:.0%} of their mirror images)"
        )
    return (recipe,)


def _adjusted(recipe: Recipe, changes: dict, summary: Summary, probe) -> Recipe:
    """`recipe` with the changes, fitted to the memory and the time that is left."""
    if not recipe.epochs and changes.get("epochs") and not changes.get("unfreeze"):
        recipe = recipe.because(
            f"epochs = {changes.pop('epochs')}: not taken, for the linear classifier is solved to its optimum without "
            "them; recipe='all' or 'few' trains the network"
        )
    snapshots = changes.pop("snapshots", 0)
    if changes:
        shown = ", ".join(f"{name} = {value}" for name, value in changes.items())
        recipe = _without_explanations(changed(recipe, changes), recipe, changes).because(f"{shown}: asked for")
    recipe = with_snapshots(recipe, snapshots) if snapshots else recipe
    recipe = recipe if "accumulate" in changes else _in_memory(recipe, summary)
    return in_time(recipe, summary, probe)


def with_snapshots(recipe: Recipe, snapshots: int) -> Recipe:
    """`recipe` with as many cycles as were asked for, or half its epochs."""
    if not recipe.epochs:
        return recipe.because("no gradient steps are taken, so there are no snapshots")
    possible = max(1, min(snapshots, recipe.epochs // 2))
    told = f"{possible} snapshots: asked for"
    if possible < snapshots:
        told = f"{possible} instead of {snapshots} snapshots: {recipe.epochs} epochs have room for no more"
    return replace(recipe, snapshots=possible).because(told)


def _measured(recipe: Recipe, probe) -> Recipe:
    """`recipe` with what the probe measured beside the accuracy: where to classify from, and what mirror images do."""
    if probe is None:
        return recipe
    if probe.head is not probe.last:
        # A training reads all stages: from an earlier one alone it could not move those behind it.
        taps = probe.stages[-1].taps if recipe.epochs else probe.head.taps
        recipe = replace(recipe, taps=taps).because(
            f"{probe.head.name} tells more than the last stage alone (cross-validated negative log-likelihood "
            f"{probe.head.nll:.3f} against {probe.last.nll:.3f}): the classifier reads "
            f"{'all stages' if recipe.epochs else probe.head.name}"
        )
    if not probe.mirrors.alike:
        right, mirrored = probe.mirrors.straight, probe.mirrors.mirrored
        policy = replace(recipe.policy, flip=0.0, area=recipe.policy.area and (WHOLE, 1.0))
        return replace(recipe, policy=policy, mirror=False).because(
            f"a linear classifier is right on {right:.0%} of the images but on {mirrored:.0%} of their mirror images: "
            "no mirror images are drawn, and no crops of small parts, for these are signs more than views"
        )
    if recipe.epochs:
        return recipe
    gain, error = probe.head.mirror_gain
    recipe = replace(recipe, mirror=gain > 2 * error)
    if not recipe.mirror:
        return recipe
    return recipe.because(
        f"averaging over an image and its mirror image gains {gain:.3f} ± {error:.3f} nats (cross-validated): done"
    )


def _fitted(recipe: Recipe, summary: Summary, probe=None) -> Recipe:
    """`recipe` fitted to the imbalance of the classes, the network, the memory and the time that is left."""
    if summary.imbalance >= IMBALANCED:
        recipe = replace(recipe, balanced=True).because(
            f"the largest class has {summary.imbalance:.1f} times the images of the smallest: every class counts alike"
        )
    if not recipe.epochs:
        return recipe
    if recipe.refit and summary.a_lot:
        recipe = replace(recipe, refit=False).because(
            "with a lot of data a fifth more would not repay a second training: the validation images stay held out"
        )
    if recipe.unfreeze == -1 and recipe.warm_start and summary.weights >= LARGE:
        recipe = replace(recipe, stochastic_depth=0.1).because(
            f"{summary.weights / 1e6:.0f} million weights are trained: with stochastic depth, where the network has "
            "residual branches"
        )
    return in_time(_in_memory(recipe.because(*_explanations(recipe).values()), summary), summary, probe)


def _explanations(recipe: Recipe) -> dict[tuple[str, ...], str]:
    """Fields of a ready-made recipe → why they are as they are."""
    times = 1 if recipe.warm_start else 2
    told = {
        (
            "epochs",
            "size",
        ): f"{recipe.epochs} epochs: of {times * FEWEST_EPOCHS} to {times * MOST_EPOCHS} those that show "
        f"nearest to {times * shown_in_all(recipe.size):,} images in all"
    }
    if not recipe.warm_start:
        return told
    return told | {
        (
            "layer_decay",
        ): f"the learning rate falls by {recipe.layer_decay:g} from each stage to the one before it, which "
        "is the more general",
        ("averaging", "policy"): "against overfitting images are varied lightly, and the weights kept are a running "
        f"average (decay {recipe.averaging:g}), which smooths the noise of the steps",
    }


def _without_explanations(recipe: Recipe, planned: Recipe, changed=()) -> Recipe:
    """`recipe` without those of the plan's explanations that tell of fields which are otherwise now, or of a training
    where there is none."""
    trained = bool(recipe.epochs)
    untrue = {told for names, told in _explanations(planned).items() if not trained or set(names) & set(changed)}
    kept = (told for told in recipe.reasons if told not in untrue and (trained or not told.endswith(_TO_BEAT)))
    return replace(recipe, reasons=tuple(kept))


def _in_memory(recipe: Recipe, summary: Summary) -> Recipe:
    """Gradient accumulation where a batch's activations, kept for the backward pass, would not fit."""
    if not summary.memory or not summary.activations or not recipe.epochs:
        return recipe
    parts = 1
    while (
        2 * summary.activations * recipe.batch_size / parts > _MEMORY_SHARE * summary.memory
        and recipe.batch_size % (2 * parts) == 0
    ):
        parts *= 2
    if parts == 1:
        return recipe
    needed, free = 2 * summary.activations * recipe.batch_size / 2**30, summary.memory / 2**30
    return replace(recipe, accumulate=parts).because(
        f"a batch of {recipe.batch_size} needs about {needed:.1f} GiB of {free:.1f} GiB: computed in {parts} parts"
    )


def epoch_seconds(recipe: Recipe, images: float, held_out: float, image_seconds: float) -> float:
    """Of training on `images` and looking at the `held_out` ones."""
    return image_seconds * (images * _TRAINING.get(recipe.name, _TRAINING["all"]) + held_out)


def in_time(recipe: Recipe, summary: Summary, probe) -> Recipe:
    """As many epochs as the time limit has room for; none, and so the linear classifier, below three."""
    if not recipe.epochs or summary.seconds_left is None or not summary.image_seconds:
        return recipe
    epoch = epoch_seconds(recipe, summary.images, summary.held_out or 0, summary.image_seconds)
    room = int(0.7 * summary.seconds_left / epoch)  # the rest: tracing, evaluation, the last training on all images
    if room >= recipe.epochs:
        return recipe
    told = f"an epoch takes about {epoch:.0f} s and {max(0, summary.seconds_left):.0f} s of the time limit are left"
    if room < 3 and recipe.warm_start:
        linear = _without_explanations(_linear(recipe, probe), recipe)
        return linear.because(f"{told}: no time to finetune, so the linear classifier is what you get")
    epochs = max(1, room)
    shorter = replace(recipe, epochs=epochs, snapshots=min(recipe.snapshots, epochs))
    return shorter.because(f"{told}: {epochs} instead of {recipe.epochs} epochs")


def _linear(recipe: Recipe, probe) -> Recipe:
    """The linear classifier in place of the training, with what of `recipe` concerns it."""
    taps = probe.head.taps if recipe.taps == probe.stages[-1].taps else recipe.taps
    names = ("balanced", "mirror", "calibrate", "crops", "scales", "refit", "reasons")
    return replace(linear_probe(recipe.size), taps=taps, **{name: getattr(recipe, name) for name in names})
