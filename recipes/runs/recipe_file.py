"""A Recipe as a JSON file: from one command line to another, and from one run to the next."""

import json
from dataclasses import replace
from pathlib import Path

from recipes.errors import RecipeError, RecipesError
from recipes.planning.recipe import Recipe
from recipes.planning.recipe_json import EXTRA_NOT_SAVED, recipe_of
from recipes.runs.folder import command_of, finished, saved_recipe

_LARGEST = 2**20  # bytes
_RUN, _SEARCH = "result.json", "recipe.json"


def load_recipe(path) -> Recipe:
    """Return the Recipe that a file or folder holds.

    Args:
        path: a file that `save_recipe` wrote, the folder of a search, the folder of a finished run, or the
            `result.json` in it. A run's recipe says what the run kept: the stages that its classifier reads, its sizes,
            and no epochs where it kept the linear classifier.

    Raises:
        RecipeError: the path does not exist, is too large, or holds no recipe.
        OutputError: the run is damaged.

    Example: `recipes.finetune("photos/", recipe=load_recipe("run-0"), seed=1)`
    """
    path = Path(path)
    folder = path.parent if path.name == _RUN else path
    if (folder / _RUN).is_file():
        return _of_run(folder)
    if path.is_dir() and not (path / _SEARCH).is_file():
        if command_of(path) and not finished(path):
            raise RecipeError(
                f"the run in {path} is not finished, so it has no recipe yet; run its command again first"
            )
        raise RecipeError(f"{path} holds no recipe; expected the folder of a run ({_RUN}) or of a search ({_SEARCH})")
    path = path / _SEARCH if path.is_dir() else path
    try:
        if (size := path.stat().st_size) > _LARGEST:
            raise RecipeError(f"{path} has {size:,} bytes, a recipe at most {_LARGEST:,}")
        return recipe_of(json.loads(path.read_text(encoding="utf-8")))
    except RecipesError:
        raise
    except (OSError, ValueError, TypeError, KeyError, AttributeError, RecursionError) as error:
        hint = f"; to take a run's recipe, give its folder, {path.parent}" if (path.parent / _RUN).is_file() else ""
        raise RecipeError(
            f"{path} cannot be read as a recipe, such as `recipes search` writes: {error}{hint}"
        ) from error


def _of_run(folder: Path) -> Recipe:
    """The run's recipe without the reasons that report that run's measurements."""
    recipe = saved_recipe(folder)
    unsaved = [reason for reason in recipe.reasons if reason.startswith(EXTRA_NOT_SAVED)]
    return replace(recipe, reasons=()).because(f"the recipe of the run in {folder}", *unsaved)
