"""Fit recipes to the free memory and the remaining time."""

from dataclasses import replace

from recipes.planning.evidence import ProbeEvidence
from recipes.planning.ready_made import linear_probe, without_explanations
from recipes.planning.recipe import Recipe
from recipes.planning.summary import Summary

_STEP_COST = {"few": 2.0, "all": 3.5}  # cost of a training step in forward passes
_MEMORY_SHARE = 0.5  # largest share of the free memory for the activations of one batch


def in_memory(recipe: Recipe, summary: Summary) -> Recipe:
    """Return `recipe`, with gradient accumulation if the activations of a whole batch exceed the memory."""
    if not summary.memory or not summary.activations or not recipe.epochs:
        return recipe
    needed = 2 * summary.activations * recipe.batch_size  # activations stay in memory for the backward pass
    parts = 1
    while needed / parts > _MEMORY_SHARE * summary.memory and recipe.batch_size % (2 * parts) == 0:
        parts *= 2
    if parts == 1:
        return recipe
    return replace(recipe, accumulate=parts).because(
        "plan.memory",
        "a batch of {batch} images needs about {needed:.1f} GiB and {free:.1f} GiB are free, so it is computed in "
        "{parts} parts",
        batch=recipe.batch_size, needed=needed / 2**30, free=summary.memory / 2**30, parts=parts,
    )  # fmt: skip


def epoch_seconds(recipe: Recipe, images: float, held_out: float, image_seconds: float) -> float:
    """Return the seconds that an epoch takes to train on `images` and evaluate the `held_out` images."""
    return image_seconds * (images * _STEP_COST.get(recipe.name, _STEP_COST["all"]) + held_out)


def in_time(recipe: Recipe, summary: Summary, probe: ProbeEvidence | None) -> Recipe:
    """Return `recipe` with the epochs that the time limit allows; below three, return the linear classifier."""
    if not recipe.epochs or summary.seconds_left is None or not summary.image_seconds:
        return recipe
    epoch = epoch_seconds(recipe, summary.images, summary.held_out or 0, summary.image_seconds)
    # the remaining time is for tracing, evaluation, and the final training on all images
    seconds = 0.7 * summary.seconds_left
    if seconds >= recipe.epochs * epoch:
        return recipe
    room = int(max(0.0, seconds) / epoch)
    time = "an epoch takes about {epoch:.0f} s and {left:.0f} s of the time limit are left"
    values = {"epoch": float(epoch), "left": max(0.0, summary.seconds_left)}
    if room < 3 and recipe.warm_start:
        linear = without_explanations(_linear(recipe, probe))
        text = f"{time}, which is too short for finetuning, so only the linear classifier is fitted"
        return linear.because("plan.no_time", text, **values)
    epochs = max(1, room)
    shorter = replace(recipe, epochs=epochs, snapshots=min(recipe.snapshots, epochs))
    text = f"{time}, so {{epochs}} instead of {{planned}} epochs are planned"
    return shorter.because("plan.fewer_epochs", text, epochs=epochs, planned=recipe.epochs, **values)


def _linear(recipe: Recipe, probe: ProbeEvidence | None) -> Recipe:
    """Return the recipe of the linear classifier with the fields of `recipe` that also apply to a linear classifier."""
    taps = probe.head.taps if probe and recipe.taps == probe.stages[-1].taps else recipe.taps
    names = ("balanced", "mirror", "calibrate", "crops", "scales", "refit", "decisions")
    return replace(linear_probe(recipe.size), taps=taps, **{name: getattr(recipe, name) for name in names})
