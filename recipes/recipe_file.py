"""A Recipe as a JSON file: from one command line to another."""

import json
from pathlib import Path

from recipes.errors import RecipeError, RecipesError
from recipes.recipe import Recipe
from recipes.run_folder import recipe_facts, recipe_of

_LARGEST = 2**20  # bytes


def save_recipe(recipe: Recipe, path) -> None:
    """Write `recipe`; a policy's `extra` layer is code and is left out, which the reasons say."""
    text = json.dumps(recipe_facts(recipe), indent=1, default=lambda number: number.item())
    Path(path).write_text(text + "\n", encoding="utf-8")


def load_recipe(path) -> Recipe:
    """The Recipe that `save_recipe` wrote.

    Raises: RecipeError for a file that is missing, too large, no JSON, or no Recipe.
    """
    try:
        if (size := Path(path).stat().st_size) > _LARGEST:
            raise RecipeError(f"{path} has {size:,} bytes, a recipe at most {_LARGEST:,}")
        return recipe_of(json.loads(Path(path).read_text(encoding="utf-8")))
    except RecipesError:
        raise
    except (OSError, ValueError, TypeError, KeyError, AttributeError, RecursionError) as error:
        raise RecipeError(f"{path} cannot be read as a recipe, such as `recipes search` writes: {error}") from error
