"""Check which results can be joined to an ensemble or a soup."""

import os
from collections.abc import Iterable, Sequence
from dataclasses import fields

from recipes.errors import RecipeError
from recipes.planning.recipe import Recipe
from recipes.result import Result

_PREDICTIONS = "`recipes ensemble` averages the predictions of any runs."


def checked(results: Iterable[Result], job: str) -> list[Result]:
    """Return `results` as a list after checking that they can be joined.

    Args:
        results: At least two results of the same classes.
        job: Name of the function, for messages.

    Raises:
        RecipeError: If the results cannot be joined.
    """
    results = list(results)
    others = [type(result).__name__ for result in results if not isinstance(result, Result)]
    if len(results) < 2 or others:
        raise RecipeError(
            f"{job} got {others or len(results)}; expected at least two Results", code="ensemble.results",
            value=others or len(results),
        )  # fmt: skip
    for result in results[1:]:
        if list(result.class_names) != list(results[0].class_names):
            raise RecipeError(
                f"{job}: the classes differ ({results[0].class_names} and {result.class_names}); train all runs on "
                f"the same classes",
                code="ensemble.classes", value=list(result.class_names),
            )  # fmt: skip
    return results


def check_independent(results: Sequence[Result]) -> None:
    """Check that no two results share a weight, because a file of a model with shared weights cannot be loaded.

    Raises:
        RecipeError: If two results share a weight; the message names both runs.
    """
    owner: dict[int, int] = {}
    for i, result in enumerate(results):
        for weight in result.model.weights:
            if (first := owner.setdefault(id(weight), i)) != i:
                raise RecipeError(
                    f"ensemble: {_run_name(results, first)} and {_run_name(results, i)} share their weights: both "
                    f"are the same run, or one is an ensemble that contains the other. Give each run once.",
                    code="ensemble.shared_weights", runs=(first, i),
                )  # fmt: skip


def check_architectures(results: Sequence[Result]) -> None:
    """Check that the weights of all results have a meaningful mean.

    Raises:
        RecipeError: If the weights have no meaningful mean; the message names the run that differs and what to run
            instead.
    """
    for i, result in enumerate(results):
        if not result.recipe.warm_start:
            raise RecipeError(
                f"soup: {_run_name(results, i)} begins with random weights (recipe {result.recipe.name!r}), and "
                "weights of independent random starts have no meaningful mean. " + _PREDICTIONS,
                code="ensemble.random_start", run=i,
            )  # fmt: skip
    for i, result in enumerate(results[1:], 1):
        if difference := _difference(result, results[0]):
            raise RecipeError(
                f"soup: {_run_name(results, i)} {difference[0]}, but {_run_name(results, 0)} {difference[1]}; a soup "
                "needs runs of one architecture and one pretrained start. Train one of them again with the recipe of "
                "the other: `recipes finetune PHOTOS --backbone BACKBONE --recipe RUN --seed SEED`, where RUN is the "
                "folder of the other run (in Python `recipe=recipes.load(RUN).recipe`), and with the same `--epochs`, "
                f"if any. {_recipe_difference(result.recipe, results[0].recipe)}{_PREDICTIONS}",
                code="ensemble.architecture", run=i, differing=difference,
            )  # fmt: skip


def _run_name(results: Sequence[Result], i: int) -> str:
    """Return the name of a run in messages: its position among the arguments, and its seed."""
    seed = results[i].command.get("seed")
    return f"run {i + 1} of {len(results)}" + ("" if seed is None else f" (seed {seed})")


def _recipe_difference(one: Recipe, other: Recipe) -> str:
    """Return the fields in which two recipes differ as a sentence; empty if the recipes are equal."""
    names = [field.name for field in fields(Recipe) if field.name not in ("decisions", "policy")]
    values = [(name, getattr(one, name), getattr(other, name)) for name in names]
    differing = [f"{name} ({first} and {second})" for name, first, second in values if first != second]
    return f"Their recipes differ in {', '.join(differing)}. " if differing else ""


def _difference(one: Result, other: Result) -> list[str] | None:
    """Return how two results differ, one text for each; None if their weights have a meaningful mean."""
    pair = (one, other)
    shapes = [[tuple(weight.shape) for weight in result.model.weights] for result in pair]
    fits = shapes[0] == shapes[1]
    starts = [result.backbone for result in pair]
    files = {os.path.abspath(start) for start in starts if start.endswith(".keras")}
    if len(files) == 2 or (not fits and starts[0] != starts[1]):
        return [f"begins from {start}" for start in starts]
    taps = [result.recipe.taps for result in pair]
    if taps[0] != taps[1] and not (fits and None in taps):  # None stands for the last stage, which taps may also name
        return [f"classifies from {_stages(each)}" for each in taps]
    if fits:
        return None
    models = [_network_count(result) for result in pair]
    if models[0] != models[1]:
        return [f"averages the predictions of {count} network{'s' * (count > 1)}" for count in models]
    return [f"has {len(each)} weights of other shapes" for each in shapes]


def _network_count(result: Result) -> int:
    """Return the number of networks, such as snapshots, whose predictions the model averages."""
    return max(1, sum(layer.name.startswith("member_") for layer in result.model.layers))


def _stages(taps: tuple[int, ...] | None) -> str:
    if taps is None:
        return "the last stage"
    return f"stage{'s' * (len(taps) > 1)} {', '.join(str(tap + 1) for tap in taps)}"
