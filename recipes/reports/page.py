"""Fill templates to make self-contained HTML pages, which load no other file."""

import os
from pathlib import Path

from recipes.core.output import printable
from recipes.core.text import short
from recipes.errors import OutputError

_ASSETS = Path(__file__).parent / "assets"


def save(page: str, path: str | os.PathLike) -> None:
    """Write a page to a file.

    Raises:
        OutputError: If `path` cannot be written.
    """
    try:
        Path(path).parent.mkdir(parents=True, exist_ok=True)
        Path(path).write_text(page, encoding="utf-8")
    except OSError as error:
        raise OutputError(
            f"the report cannot be written to {path} ({error.strerror}); choose another path",
            code="output.report",
            path=path,
        ) from error


def filled(template: str, **context: object) -> str:
    """Fill a template from assets/ and return the page; every value of the context is escaped."""
    from jinja2 import Environment, FileSystemLoader, StrictUndefined

    environment = Environment(loader=FileSystemLoader(_ASSETS), autoescape=True, trim_blocks=True, lstrip_blocks=True,
                              undefined=StrictUndefined)  # fmt: skip
    environment.filters |= {"percent": _percent, "short": short, "tail": _tail, "leaf": _leaf, "number": _number}
    return printable(environment.get_template(template).render(context))


def _percent(value: float) -> str:
    return f"{100 * value:.1f}\N{NO-BREAK SPACE}%"


def _tail(text: object, length: int = 80) -> str:
    """Return the end of a path, which identifies a file better than its beginning."""
    text = str(text)
    return text if len(text) <= length else "…" + text[1 - length :]


def _leaf(path: object) -> str:
    """Return the names of a file and of its folder, which is often the class."""
    return _tail("/".join(str(path).replace("\\", "/").split("/")[-2:]), 60)


def _number(value: object) -> str:
    return f"{value:.4g}" if isinstance(value, float) else short(value)
