"""Resolve `finetune(recipe=...)` for a dataset to one recipe, or to two recipes to compare."""

from dataclasses import replace

from recipes.planning.evidence import ProbeEvidence, mirrors_keep_class
from recipes.planning.limits import in_memory, in_time
from recipes.planning.plan import candidates, comparable, fitted, measured
from recipes.planning.ready_made import (
    Adjusted,
    changed,
    finetune_all,
    finetune_few,
    from_scratch,
    linear_probe,
    without_explanations,
)
from recipes.planning.recipe import Recipe
from recipes.planning.summary import Summary


def options(recipe: Recipe | Adjusted | str, summary: Summary, probe: ProbeEvidence | None) -> tuple[Recipe, ...]:
    """Return the recipe that `finetune(recipe=...)` means for a dataset, or two if "auto" is undecided.

    Args:
        recipe: A Recipe, which is returned unchanged; an Adjusted one, whose changes are applied; "auto" for the result
            of `candidates`; or the name of a ready-made recipe.
        summary: Facts about the dataset, the network and the machine.
        probe: The probe of the training images, if there is one.

    Returns:
        One recipe, or two for `compare`.
    """
    if isinstance(recipe, Adjusted):
        # The changed recipe, not the original one, must fit the time and the memory.
        planned = options(recipe.recipe, replace(summary, seconds_left=None, memory=None), probe)
        return comparable(*(_adjusted(each, dict(recipe.changes), summary, probe) for each in planned))
    if recipe == "auto":
        return candidates(summary, probe)
    if not isinstance(recipe, Recipe):
        make = {"few": finetune_few, "all": finetune_all, "scratch": from_scratch}
        named = linear_probe(summary.size) if recipe == "probe" else make[recipe](summary.size, summary.images)
        return (fitted(measured(named.because("plan.requested", "requested"), probe), summary, probe),)
    if probe and not mirrors_keep_class(probe) and recipe.epochs and recipe.policy.flip:
        recipe = recipe.because(
            "plan.mirrors_lose_class",
            "the policy of the recipe draws mirror images, although mirror images lose their class in this "
            "dataset (a linear classifier is right on {straight:.0%} of the images and {mirrored:.0%} of their "
            "mirror images)",
            straight=float(probe.mirrors.straight), mirrored=float(probe.mirrors.mirrored),
        )  # fmt: skip
    return (recipe,)


def _adjusted(recipe: Recipe, changes: dict, summary: Summary, probe: ProbeEvidence | None) -> Recipe:
    """Return `recipe` with the changes, fitted to the free memory and the remaining time."""
    if not recipe.epochs and changes.get("epochs") and not changes.get("unfreeze"):
        recipe = recipe.because(
            "plan.epochs_ignored",
            "epochs = {epochs} is ignored, because the linear classifier is solved to its optimum without "
            "epochs; use recipe='all' or recipe='few' to train the network",
            epochs=changes.pop("epochs"),
        )
    snapshots = changes.pop("snapshots", 0)
    if changes:
        assignments = ", ".join(f"{name} = {value}" for name, value in changes.items())
        updated = without_explanations(changed(recipe, changes), changes)
        recipe = updated.because("plan.changed", "{assignments}: requested", assignments=assignments)
    recipe = with_snapshots(recipe, snapshots) if snapshots else recipe
    recipe = recipe if "accumulate" in changes else in_memory(recipe, summary)
    return in_time(recipe, summary, probe)


def with_snapshots(recipe: Recipe, snapshots: int) -> Recipe:
    """Return `recipe` with the requested number of cycles, but at most one cycle for every two epochs."""
    if not recipe.epochs:
        return recipe.because("plan.no_snapshots", "the recipe takes no gradient steps, so there are no snapshots")
    possible = max(1, min(snapshots, recipe.epochs // 2))
    text = "{snapshots} snapshots are taken, as requested"
    if possible < snapshots:
        text = "{snapshots} instead of {requested} snapshots are taken, because {epochs} epochs are too few for more"
    values = {"snapshots": possible, "requested": snapshots, "epochs": recipe.epochs}
    return replace(recipe, snapshots=possible).because("plan.snapshots", text, **values)
