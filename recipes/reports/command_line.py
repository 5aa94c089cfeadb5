"""Return the command that reproduces a run, and every field of its recipe."""

import re
import shlex
from collections.abc import Mapping
from dataclasses import asdict, fields

from recipes.planning.constructor_text import read_adjusted
from recipes.planning.recipe import Recipe

_IN_MEMORY = re.compile(r"\w+ ([0-9a-f]{12}|\?)")  # how `Request.command` describes data and networks in memory
_OWNERS = {"Recipe": "recipes", "Policy": "augment"}
_CLASSES = re.compile(rf"\b({'|'.join(_OWNERS)})\(")  # a command writes these names with their module
_DEFAULTS = {"backbone": "auto", "recipe": "auto", "validation": None, "time_limit": None, "snapshots": 0}


def members_of(command: Mapping) -> list[dict]:
    """Return the commands of the members of an ensemble or a soup; [] for a single run."""
    first, *more = command.values() or [None]
    return first if isinstance(first, list) and not more else []


def commands(command: Mapping, backbone: str = "") -> list[str]:
    """Return the command of a run: for a shell if options can express it, otherwise in Python.

    Args:
        command: `Record.command`; for an ensemble or a soup, the commands of its members come first.
        backbone: Name of the network, which the command of `pretrain` does not contain.
    """
    if members := members_of(command):
        each = [line for member in members for line in commands(member)]
        return [*each, f"recipes.{next(iter(command))}([…])  # the {len(members)} runs above"]
    if not command:
        return []
    options = {name: value for name, value in command.items() if name not in _DEFAULTS or value != _DEFAULTS[name]}
    dataset = options.pop("dataset", None) or "digits"
    recipe, changes = read_adjusted(options.get("recipe"))
    name, shell_fields = "finetune", {"epochs"}
    if backbone == "convnet" and not _plain(options.get("backbone")):
        name, shell_fields = "pretrain", {"epochs", "size"}
        del options["backbone"]
    shell, fields_set = dict(options), {}
    if changes and (name == "finetune" or set(changes) <= shell_fields):
        shell |= {"recipe": recipe, **{field: value for field, value in changes.items() if field in shell_fields}}
        fields_set = {field: value for field, value in changes.items() if field not in shell_fields}
        if name == "pretrain" or recipe == "auto":
            del shell["recipe"]
    if all(map(_plain, (dataset, *shell.values()))):
        words = [f"--{key.replace('_', '-')} {shlex.quote(str(value))}" for key, value in shell.items()]
        words += [f"--set {shlex.quote(f'{field}={value}')}" for field, value in fields_set.items()]
        return [" ".join([f"recipes {name}", shlex.quote(dataset), *words])]
    return [f"recipes.{name}({', '.join([_python(dataset), *(f'{n}={_python(v)}' for n, v in options.items())])})"]


def configuration(recipe: Recipe) -> dict[str, object]:
    """Return every field of a recipe and of its augmentation policy."""
    values = {f.name: getattr(recipe, f.name) for f in fields(recipe) if f.name not in ("policy", "decisions")}
    return values | {f"policy.{name}": value for name, value in asdict(recipe.policy).items()}


def _plain(value: object) -> bool:
    """Return whether a value can be typed, as numbers and text can; the description of an object cannot."""
    return not isinstance(value, str) or not (_IN_MEMORY.fullmatch(value) or value.startswith(("Recipe(", "Adjusted(")))


def _python(value: object) -> str:
    name, changes = read_adjusted(value)
    if changes:
        return f"recipes.adjusted({', '.join([repr(name), *(f'{n}={v!r}' for n, v in changes.items())])})"
    if _plain(value):
        return repr(value)
    text = str(value)
    return f"<{text}>" if _IN_MEMORY.fullmatch(text) else _CLASSES.sub(lambda m: f"{_OWNERS[m[1]]}.{m[0]}", text)
