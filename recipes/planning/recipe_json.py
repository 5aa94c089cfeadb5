"""A Recipe as JSON values."""

import json
from dataclasses import asdict, replace
from pathlib import Path

from augment import Policy
from recipes.planning.recipe import Recipe

EXTRA_NOT_SAVED = "the policy's extra layer"  # how the reason for that begins


def recipe_facts(recipe: Recipe) -> dict:
    """A recipe as JSON values, of which `recipe_of` makes it again."""
    return asdict(_without_extra(recipe))


def _without_extra(recipe: Recipe) -> Recipe:
    """A policy's `extra` layer took part in the training alone, and code is not written to disk."""
    if recipe.policy.extra is None:
        return recipe
    said = recipe.because(f"{EXTRA_NOT_SAVED} {recipe.policy.extra!r} is not saved with the run")
    return replace(said, policy=replace(recipe.policy, extra=None))


def _tuples(value):
    return tuple(map(_tuples, value)) if isinstance(value, list) else value


def recipe_of(told: dict) -> Recipe:
    policy = Policy(**{name: _tuples(value) for name, value in told["policy"].items()})
    return Recipe(**{**told, "policy": policy, "reasons": tuple(told["reasons"]), "taps": _tuples(told["taps"]),
                     "scales": _tuples(told["scales"])})  # fmt: skip


def save_recipe(recipe: Recipe, path) -> None:
    """Write `recipe`; a policy's `extra` layer is code and is left out, which the reasons say."""
    text = json.dumps(recipe_facts(recipe), indent=1, default=lambda number: number.item())
    Path(path).write_text(text + "\n", encoding="utf-8")
