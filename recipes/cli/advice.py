"""Advice of the library, which speaks of Python arguments, in the flags of the command line."""

import re

import typer


def as_flags(text: str, app: typer.Typer) -> str:
    """Return `text` with every `name=value` whose name is a flag of a command as `--name value`.

    >>> as_flags("use recipe='all'", app)
    "use --recipe all"
    """
    commands = typer.main.get_command(app).commands.values()  # pyright: ignore[reportAttributeAccessIssue]
    flags = {
        parameter.name: max(parameter.opts, key=len) for each in commands for parameter in each.params
        if parameter.param_type_name == "option"
    }  # fmt: skip
    pattern = rf"(?<![\w.-])({'|'.join(sorted(flags, key=len, reverse=True))})=('[^']*'|\"[^\"]*\"|[\w.…]+)"
    return re.sub(pattern, lambda found: f"{flags[found[1]]} {_shell(found[2])}", text)


def _shell(value: str) -> str:
    """Return a Python value as one writes it in a shell."""
    text = value.strip("'\"")
    return text if re.fullmatch(r"[\w./:,…-]+", text) else f"'{text}'"
