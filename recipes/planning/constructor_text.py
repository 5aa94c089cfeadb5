"""Recipes and policies as the calls that make them, for what is saved and compared."""

from dataclasses import fields

from recipes.augment import Policy
from recipes.planning.ready_made import Adjusted
from recipes.planning.recipe import Recipe

_RAND = ("rand_operations", "rand_magnitude", "rand_stddev")  # fields that earlier versions did not have


def constructor_text(value: object) -> str:
    """Return the call that makes a Recipe, an Adjusted or a Policy, with all fields; for other values their `repr`.

    Commands of runs, names of searches and keys of cached features contain this text, and equal texts are equal jobs.
    So it must not change, unlike the `repr` of these classes, which is for a person. The tuples of a value are searched
    for such objects, too.
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
