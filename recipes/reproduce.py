"""The command of a run, as one would type it again, and every field of its recipe."""

import ast
import re
import shlex
from dataclasses import asdict, fields

_IN_MEMORY = re.compile(r"\w+ ([0-9a-f]{12}|\?)")  # what `arguments.command` makes of arguments that are no text
_OWNERS = {"Recipe": "recipes", "Policy": "augment"}
_OURS = re.compile(rf"\b({'|'.join(_OWNERS)})\(")  # as they are written after `import augment, recipes`
_DEFAULTS = {"backbone": "auto", "recipe": "auto", "validation": None, "time_limit": None, "snapshots": 0}


def commands(command: dict) -> list[str]:
    """A shell command where one says it all, otherwise Python; of several runs made one, each of them, then that."""
    if len(command) == 1 and isinstance(members := next(iter(command.values())), list):
        each = [line for member in members for line in commands(member)]
        return [*each, f"recipes.{next(iter(command))}([…])  # of these {len(members)} runs"]
    if not command:
        return []
    options = {name: value for name, value in command.items() if name not in _DEFAULTS or value != _DEFAULTS[name]}
    dataset = options.pop("dataset", None) or "digits"
    recipe, changes = _adjusted(options.get("recipe"))
    shell = options | {"recipe": recipe, **changes} if set(changes) == {"epochs"} else options
    if all(map(_plain, (dataset, *shell.values()))):
        told = (f"--{name.replace('_', '-')} {shlex.quote(str(value))}" for name, value in shell.items())
        return [" ".join(["recipes finetune", shlex.quote(dataset), *told])]
    return [f"recipes.finetune({', '.join([_python(dataset), *(f'{n}={_python(v)}' for n, v in options.items())])})"]


def configuration(recipe) -> dict[str, object]:
    """Every field of a recipe and of its augmentation policy."""
    told = {f.name: getattr(recipe, f.name) for f in fields(recipe)}
    policy = asdict(told.pop("policy"))
    del told["reasons"]
    return told | {f"policy.{name}": value for name, value in policy.items()}


def _plain(value) -> bool:
    """Whether it is a number or a text that was typed, no description of an object."""
    return not isinstance(value, str) or not (_IN_MEMORY.fullmatch(value) or value.startswith(("Recipe(", "Adjusted(")))


def _python(value) -> str:
    name, changes = _adjusted(value)
    if changes:
        return f"recipes.adjusted({', '.join([repr(name), *(f'{n}={v!r}' for n, v in changes.items())])})"
    if _plain(value):
        return repr(value)
    return f"<{value}>" if _IN_MEMORY.fullmatch(value) else _OURS.sub(lambda m: f"{_OWNERS[m[1]]}.{m[0]}", value)


def _adjusted(value) -> tuple[str, dict]:
    """Name and changes of the description of an `Adjusted`, where they are numbers and texts."""
    if not str(value).startswith("Adjusted("):
        return value, {}
    try:
        told = {word.arg: ast.literal_eval(word.value) for word in ast.parse(value, mode="eval").body.keywords}
        return told["recipe"], dict(told["changes"])
    except (SyntaxError, ValueError, KeyError):
        return value, {}
