"""Define which hyperparameters a search varies, and in which ranges."""

import math
from collections.abc import Mapping
from dataclasses import replace
from typing import TYPE_CHECKING

from recipes.errors import RecipeError
from recipes.planning.recipe import Recipe

if TYPE_CHECKING:
    import optuna

Range = tuple | list  # a range is (low, high), (low, high, "log") or a list of values

SPACE: dict[str, Range] = {
    "learning_rate": (1e-4, 1e-2, "log"),
    "weight_decay": (1e-5, 1e-1, "log"),
    "layer_decay": (0.4, 1.0),
    "label_smoothing": (0.0, 0.2),
}
_INTEGERS = {"unfreeze", "epochs", "batch_size", "patience", "test_size"}
_FIELDS = _INTEGERS | {"learning_rate", "layer_decay", "weight_decay", "label_smoothing", "dropout", "stochastic_depth",
                       "averaging"}  # fmt: skip


def suggest(trial: "optuna.Trial", name: str, limits: Range) -> object:
    """Draw a value of the field `name`."""
    if isinstance(limits, list):
        return trial.suggest_categorical(name, limits)
    low, high, *log = limits
    if name in _INTEGERS:
        return trial.suggest_int(name, low, high, log=bool(log))
    return trial.suggest_float(name, low, high, log=bool(log))


def checked_space(space: object) -> dict[str, Range]:
    """Return `space` after checking its form.

    Raises:
        RecipeError: If a field is unknown or a range is malformed.
    """
    if not isinstance(space, dict) or not space or set(space) - _FIELDS:
        raise RecipeError(
            f"space is {space!r}; expected a dict with some of the keys {sorted(_FIELDS)}", code="recipe.space",
            field="space", value=space,
        )  # fmt: skip
    for name, limits in space.items():
        if isinstance(limits, list) and limits:
            continue
        numbers = isinstance(limits, tuple) and len(limits) in (2, 3) and all(map(_finite, limits[:2]))
        if (
            not numbers
            or limits[2:] not in ((), ("log",))
            or not limits[0] < limits[1]
            or (limits[2:] and limits[0] <= 0)
        ):
            raise RecipeError(
                f"space[{name!r}] is {limits!r}; expected (low, high), (low, high, 'log') with 0 < low, or a list",
                code="recipe.space_range", field=name, value=limits,
            )  # fmt: skip
    return dict(space)


def _finite(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)


def check_values(base: Recipe, space: Mapping[str, Range]) -> None:
    """Check that the limits of the space make valid recipes, before anything is trained.

    Raises:
        RecipeError: If the field does not allow a limit.
    """
    for name, limits in space.items():
        for value in limits if isinstance(limits, list) else limits[:2]:
            replace(base, **{name: value})
            if name == "epochs" and value < 1:
                raise RecipeError(
                    f"space['epochs'] is {limits!r}; expected at least one epoch", code="recipe.space_range",
                    field=name, value=limits,
                )  # fmt: skip


def formatted(values: Mapping[str, object], separator: str = " ") -> str:
    """Return the values of a trial as text: "learning_rate 1.000e-03, dropout 5.000e-01"."""
    return ", ".join(
        f"{name}{separator}{f'{value:.3e}' if isinstance(value, float) else value}" for name, value in values.items()
    )
