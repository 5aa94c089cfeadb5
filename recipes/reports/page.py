"""A self-contained HTML page from a template: one file that asks for nothing."""

from pathlib import Path

from recipes.core.output import printable
from recipes.core.text import short
from recipes.errors import OutputError

_ASSETS = Path(__file__).parent / "assets"


def save(page: str, path) -> None:
    try:
        Path(path).parent.mkdir(parents=True, exist_ok=True)
        Path(path).write_text(page, encoding="utf-8")
    except OSError as error:
        raise OutputError(f"the report cannot be written to {path}: {error.strerror}") from error


def filled(template: str, **context) -> str:
    """The page that a template of assets/ makes of the context; whatever comes from outside is escaped."""
    from jinja2 import Environment, FileSystemLoader, StrictUndefined

    environment = Environment(loader=FileSystemLoader(_ASSETS), autoescape=True, trim_blocks=True, lstrip_blocks=True,
                              undefined=StrictUndefined)  # fmt: skip
    environment.filters |= {
        "percent": lambda x: f"{100 * x:.1f}\N{NO-BREAK SPACE}%",
        "short": short,
        "tail": _tail,
        "leaf": _leaf,
        "number": _number,
    }
    return printable(environment.get_template(template).render(context))


def _tail(text, length: int = 80) -> str:
    """The end of a path, which tells more than its beginning."""
    text = str(text)
    return text if len(text) <= length else "…" + text[1 - length :]


def _leaf(path) -> str:
    """A file's name and that of its folder, which often is its class."""
    return _tail("/".join(str(path).replace("\\", "/").split("/")[-2:]), 60)


def _number(value) -> str:
    return f"{value:.4g}" if isinstance(value, float) else short(value)


def _number(value) -> str:
    return f"{value:.4g}" if isinstance(value, float) else short(value)
