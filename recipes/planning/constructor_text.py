"""Write recipes and policies as constructor calls, for saving and comparing them."""

import ast
from dataclasses import fields
from typing import Any

from recipes.augment import Policy
from recipes.planning.ready_made import Adjusted
from recipes.planning.recipe import Recipe

_RAND = ("rand_operations", "rand_magnitude", "rand_stddev")  # fields that earlier versions lacked


def constructor_text(value: object) -> str:
    """Return the constructor call of a Recipe, an Adjusted or a Policy, with all fields; return other values' `repr`.

    Commands of runs, names of searches and keys of cached features contain this text, and equal texts mean equal jobs.
    Therefore the text must not change between versions; the `repr` of these classes is for people and may change.
    Objects inside tuples are also written as constructor calls.
    """
    if isinstance(value, tuple):
        items = [constructor_text(item) for item in value]
        return f"({items[0]},)" if len(items) == 1 else f"({', '.join(items)})"
    if not isinstance(value, Recipe | Adjusted | Policy):
        return repr(value)
    hidden = _RAND if isinstance(value, Policy) and not value.rand_operations else ()
    shown = [field for field in fields(value) if field.repr and field.name not in hidden]
    arguments = (f"{field.name}={constructor_text(getattr(value, field.name))}" for field in shown)
    return f"{type(value).__name__}({', '.join(arguments)})"


def read_adjusted(value: object) -> tuple[object, dict[str, Any]]:
    """Return the name and the changes in the text of an `Adjusted`; {} for other texts or changes that are objects."""
    if not str(value).startswith("Adjusted("):
        return value, {}
    try:
        call = ast.parse(str(value), mode="eval").body
        arguments = {k.arg: ast.literal_eval(k.value) for k in call.keywords} if isinstance(call, ast.Call) else {}
        return arguments["recipe"], dict(arguments["changes"])
    except (SyntaxError, ValueError, KeyError):
        return value, {}
