"""Translate the library's advice from Python arguments to command-line flags."""

import re

import typer

_VALUE = r"('[^']*'|\"[^\"]*\"|[\w.…-]+)"


def as_flags(text: str, app: typer.Typer) -> str:
    """Return `text` with Python arguments replaced by command-line flags.

    >>> as_flags("use recipe='all', or recipe=recipes.adjusted('few', dropout=0.2)", app)
    'use --recipe all, or --recipe few --set dropout=0.2'
    """
    commands = typer.main.get_command(app).commands.values()  # pyright: ignore[reportAttributeAccessIssue]
    flags = {
        parameter.name: max(parameter.opts, key=len) for each in commands for parameter in each.params
        if parameter.param_type_name == "option"
    }  # fmt: skip
    names = "|".join(sorted(flags, key=len, reverse=True))
    pattern = (
        r"(?:recipe=)?recipes\.adjusted\((?P<changes>[^()]*)\)"
        r"|(?P<call>recipes\.\w+\([^()]*\))"
        rf"|(?<![\w.-])(?P<name>{names})={_VALUE.replace('(', '(?P<value>', 1)}"
    )

    def flag(found: re.Match[str]) -> str:
        if found["call"]:
            return found["call"]
        if found["name"]:
            return f"{flags[found['name']]} {_shell(found['value'])}"
        return _adjusted(found["changes"])

    return re.sub(pattern, flag, text)


def _adjusted(arguments: str) -> str:
    """Return the arguments of `recipes.adjusted` as flags."""
    recipe, *changes = (part.strip() for part in arguments.split(", "))
    if "=" in recipe:
        recipe, changes = "...", [recipe, *changes]
    flags = [] if recipe in ("...", "'auto'", '"auto"') else [f"--recipe {_shell(recipe)}"]
    return " ".join([*flags, *(f"--set {change}" for change in changes)])


def _shell(value: str) -> str:
    """Return a Python value in the notation of a shell."""
    text = value.strip("'\"")
    return text if re.fullmatch(r"[\w./:,…-]+", text) else f"'{text}'"
