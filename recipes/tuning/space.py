"""Which hyperparameters a search varies, and in which ranges."""

import math
from dataclasses import replace

from recipes.errors import RecipeError
from recipes.planning.recipe import Recipe

SPACE = {
    "learning_rate": (1e-4, 1e-2, "log"),
    "weight_decay": (1e-5, 1e-1, "log"),
    "layer_decay": (0.4, 1.0),
    "label_smoothing": (0.0, 0.2),
}
_WHOLE = {"unfreeze", "epochs", "batch_size", "patience", "test_size"}
_VARIED = _WHOLE | {"learning_rate", "layer_decay", "weight_decay", "label_smoothing", "dropout", "stochastic_depth",
                    "averaging"}  # fmt: skip


def _drawn(trial, name: str, ends):
    if isinstance(ends, list):
        return trial.suggest_categorical(name, ends)
    low, high, *log = ends
    if name in _WHOLE:
        return trial.suggest_int(name, low, high, log=bool(log))
    return trial.suggest_float(name, low, high, log=bool(log))


def _checked_space(space) -> dict:
    if not isinstance(space, dict) or not space or set(space) - _VARIED:
        raise RecipeError(f"space is {space!r}; expected a dict of some of {sorted(_VARIED)}")
    for name, ends in space.items():
        if isinstance(ends, list) and ends:
            continue
        numbers = isinstance(ends, tuple) and len(ends) in (2, 3) and all(_number(end) for end in ends[:2])
        if not numbers or ends[2:] not in ((), ("log",)) or not ends[0] < ends[1] or (ends[2:] and ends[0] <= 0):
            raise RecipeError(
                f"space[{name!r}] is {ends!r}; expected (low, high), (low, high, 'log') with 0 < low, or a list"
            )
    return dict(space)


def _number(end) -> bool:
    return isinstance(end, int | float) and not isinstance(end, bool) and math.isfinite(end)


def _check_values(base: Recipe, space: dict) -> None:
    """That the ends of the space make recipes, before anything is trained."""
    for name, ends in space.items():
        for value in ends if isinstance(ends, list) else ends[:2]:
            replace(base, **{name: value})
            if name == "epochs" and value < 1:
                raise RecipeError(f"space['epochs'] is {ends!r}; expected at least one epoch")


def _shown(value) -> str:
    return f"{value:.3e}" if isinstance(value, float) else str(value)
