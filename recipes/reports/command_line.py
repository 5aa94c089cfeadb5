"""The command of a run, as one would type it again, and every field of its recipe."""

import ast
import re
import shlex
from dataclasses import asdict, fields

_IN_MEMORY = re.compile(r"\w+ ([0-9a-f]{12}|\?)")  # what `arguments.command` makes of arguments that are no text
_OWNERS = {"Recipe": "recipes", "Policy": "augment"}
_OURS = re.compile(rf"\b({'|'.join(_OWNERS)})\(")  # as they are written after `import augment, recipes`
_DEFAULTS = {"backbone": "auto", "recipe": "auto", "validation": None, "time_limit": None, "snapshots": 0}


def members_of(command: dict) -> list[dict]:
    """The commands of the runs that were made one; none of a run by itself."""
    (first, *more) = command.values() or [None]
    return first if isinstance(first, list) and not more else []


def commands(command: dict, backbone: str = "") -> list[str]:
    """A shell command where one says it all, otherwise Python; of several runs made one, each of them, then that.

    backbone: the network's name: that of `pretrain` is none that was given.
    """
    if members := members_of(command):
        each = [line for member in members for line in commands(member)]
        return [*each, f"recipes.{next(iter(command))}([…])  # of these {len(members)} runs"]
    if not command:
        return []
    options = {name: value for name, value in command.items() if name not in _DEFAULTS or value != _DEFAULTS[name]}
    dataset = options.pop("dataset", None) or "digits"
    recipe, changes = _adjusted(options.get("recipe"))
    name, typed = "finetune", {"epochs"}
    if backbone == "convnet" and not _plain(options.get("backbone")):
        name, typed = "pretrain", {"epochs", "size"}
        del options["backbone"]
    shell = dict(options)
    if changes and set(changes) <= typed:
        shell |= {"recipe": recipe, **changes}
        if name == "pretrain":
            del shell["recipe"]
    if all(map(_plain, (dataset, *shell.values()))):
        told = (f"--{key.replace('_', '-')} {shlex.quote(str(value))}" for key, value in shell.items())
        return [" ".join([f"recipes {name}", shlex.quote(dataset), *told])]
    return [f"recipes.{name}({', '.join([_python(dataset), *(f'{n}={_python(v)}' for n, v in options.items())])})"]


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
