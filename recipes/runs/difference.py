"""Describe how two commands differ."""

from recipes.core.text import short
from recipes.planning.constructor_text import read_adjusted


def difference(argument: str, before: object, now: object) -> str:
    """Return how an argument differs as text; long values are cut to the part that differs."""
    texts = [_words(before), _words(now)]
    alike = next((i for i, (a, b) in enumerate(zip(*texts, strict=False)) if a != b), min(map(len, texts)))
    shown = (short(f"…{text[alike - 30 :]}" if alike > 30 and len(text) > 80 else text, 80) for text in texts)
    return "{}: {} before, {} now".format(argument.replace("_", " "), *shown)


def _words(value: object) -> str:
    """Return the value of an argument as readable text."""
    name, changes = read_adjusted(value)
    if changes:
        return f"{name!r} with {', '.join(f'{field} = {change}' for field, change in changes.items())}"
    return "none" if value is None else repr(value)


def more_epochs(before: object, now: object) -> bool:
    """Return whether two recipes differ only by a larger number of epochs."""
    (name, changes), (other, others) = read_adjusted(before), read_adjusted(now)
    more = others.get("epochs", 0) > changes.get("epochs", 0)
    return name == other and more and {**changes, "epochs": 0} == {**others, "epochs": 0}
