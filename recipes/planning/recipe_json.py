"""Convert recipes to JSON values and back."""

import json
import os
from collections.abc import Mapping
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

from recipes.augment import Policy
from recipes.planning.reason import Reason
from recipes.planning.recipe import Recipe

EXTRA_NOT_SAVED = "recipe.extra_not_saved"  # code of the reason


def recipe_facts(recipe: Recipe) -> dict[str, Any]:
    """Return a recipe as JSON values, from which `recipe_of` restores it."""
    return asdict(_without_extra(recipe))


def _without_extra(recipe: Recipe) -> Recipe:
    """Return `recipe` without the policy's `extra` layer, which is code and is only used in training."""
    if recipe.policy.extra is None:
        return recipe
    text = "the extra layer {layer} of the policy is code and is not saved with the run"
    explained = recipe.because(EXTRA_NOT_SAVED, text, layer=repr(recipe.policy.extra))
    return replace(explained, policy=replace(recipe.policy, extra=None))


def _tuples(value: Any) -> Any:  # Any: the values of a JSON file
    return tuple(map(_tuples, value)) if isinstance(value, list) else value


def recipe_of(facts: Mapping[str, Any]) -> Recipe:
    """Return the recipe from the JSON values of `recipe_facts`, or of an earlier version with sentences as reasons."""
    facts = dict(facts)
    decisions = tuple(map(Reason.of, facts.pop("reasons", None) or facts.pop("decisions", ())))
    policy = Policy(**{name: _tuples(value) for name, value in facts["policy"].items()})
    sequences = {"taps": _tuples(facts["taps"]), "scales": _tuples(facts["scales"]), "decisions": decisions}
    return Recipe(**{**facts, "policy": policy, **sequences})


def save_recipe(recipe: Recipe, path: str | os.PathLike[str]) -> None:
    """Write `recipe` as JSON without the policy's `extra` layer, which is code; a reason reports the omission."""
    text = json.dumps(recipe_facts(recipe), indent=1, default=lambda number: number.item())
    Path(path).write_text(text + "\n", encoding="utf-8")
