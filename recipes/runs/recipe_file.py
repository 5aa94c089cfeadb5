"""Load the recipe that a file, a search or a finished run contains."""

import json
import os
from dataclasses import replace
from pathlib import Path

from recipes.errors import RecipeError, RecipesError
from recipes.planning.reason import Reason
from recipes.planning.recipe import Recipe
from recipes.planning.recipe_json import EXTRA_NOT_SAVED, recipe_of
from recipes.runs.folder import command_of, finished, saved_recipe

_EXTRA_OF_EARLIER_VERSIONS = "the policy's extra layer"  # Earlier versions saved a sentence that begins with this text.
_LARGEST = 2**20  # bytes
_RUN, _SEARCH = "result.json", "recipe.json"


def load_recipe(path: str | os.PathLike) -> Recipe:
    """Return the Recipe that a file or folder holds.

    Args:
        path: A file that `save_recipe` wrote, the folder of a search, the folder of a finished run, or the
            `result.json` in it. A run's recipe describes its final classifier: its stages, its image sizes, and no
            epochs if it is the linear classifier.

    Raises:
        RecipeError: If the path does not exist, is too large, or holds no recipe.
        OutputError: If the run is damaged.

    Example:
        >>> recipes.finetune("photos/", recipe=load_recipe("run-0"), seed=1)
    """
    path = Path(path)
    folder = path.parent if path.name == _RUN else path
    if (folder / _RUN).is_file():
        return _of_run(folder)
    if path.is_dir() and not (path / _SEARCH).is_file():
        if command_of(path) and not finished(path):
            raise RecipeError(
                f"the run in {path} is not finished, so it has no recipe yet; run its command again first",
                code="recipe.unfinished_run",
                path=path,
            )
        raise RecipeError(
            f"{path} holds no recipe; expected the folder of a run ({_RUN}) or of a search ({_SEARCH})",
            code="recipe.none",
            path=path,
        )
    path = path / _SEARCH if path.is_dir() else path
    try:
        if (size := path.stat().st_size) > _LARGEST:
            raise RecipeError(
                f"{path} has {size:,} bytes; expected at most {_LARGEST:,} for a recipe. Give a file that "
                f"save_recipe wrote",
                code="recipe.too_large",
                path=path,
            )
        return recipe_of(json.loads(path.read_text(encoding="utf-8")))
    except RecipesError:
        raise
    except (OSError, ValueError, TypeError, KeyError, AttributeError, RecursionError) as error:
        hint = f"; to use the recipe of a run, give its folder, {path.parent}" if (path.parent / _RUN).is_file() else ""
        raise RecipeError(
            f"{path} cannot be read as a recipe: {error}{hint}", code="recipe.unreadable", path=path
        ) from error


def _of_run(folder: Path) -> Recipe:
    """Return a run's recipe without the reasons that report measurements of that run."""
    recipe = saved_recipe(folder)
    unsaved = [
        reason for reason in recipe.decisions
        if reason.code == EXTRA_NOT_SAVED or (not reason.code and reason.text.startswith(_EXTRA_OF_EARLIER_VERSIONS))
    ]  # fmt: skip
    of_run = Reason("recipe.of_run", "the recipe of the run in {folder}", {"folder": str(folder)})
    return replace(recipe, decisions=(of_run, *unsaved))
