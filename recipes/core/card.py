"""Cards: the HTML that a notebook shows for a result."""

from collections.abc import Sequence
from dataclasses import dataclass
from html import escape

from recipes.core.output import printable
from recipes.core.text import short

# largest number of characters in a line, in a cell, and in a cell that is not wrapped
_FACT, _CELL, _NARROW = 200, 100, 24
_STYLE = """<style>
.recipes-card{border:1px solid rgba(128,128,128,.4);border-radius:8px;padding:12px 16px;margin:4px 0;max-width:52rem;
color:inherit;background:transparent;font:14px/1.45 system-ui,sans-serif;overflow-x:auto}
.recipes-card .title{opacity:.75;overflow-wrap:anywhere}
.recipes-card .answer{font-size:1.7em;font-weight:650;line-height:1.25;margin:0 0 4px;overflow-wrap:anywhere}
.recipes-card dl{display:grid;grid-template-columns:max-content minmax(12rem,1fr);gap:2px 14px;margin:8px 0 0;padding:0}
.recipes-card dt{opacity:.7;font-weight:400;margin:0}
.recipes-card dd{margin:0;overflow-wrap:anywhere}
.recipes-card table{border-collapse:collapse;margin:10px 0 0;font-size:13px;border:0}
.recipes-card table,.recipes-card tr{color:inherit;background:transparent}
.recipes-card th,.recipes-card td{padding:2px 14px 2px 0;text-align:left;border:0;
border-bottom:1px solid rgba(128,128,128,.25);font-variant-numeric:tabular-nums;vertical-align:top;white-space:nowrap;
background:transparent}
.recipes-card td.text{white-space:normal;overflow-wrap:anywhere;min-width:10rem;max-width:22rem}
.recipes-card .note{opacity:.7;margin:6px 0 0;font-size:13px}
</style>"""


@dataclass(frozen=True)
class CardTable:
    """A table of a card.

    Attributes:
        header: Names of the columns.
        rows: The cells of each row.
        note: A line below the table, such as the number of omitted rows.
    """

    header: Sequence[str]
    rows: Sequence[Sequence[object]]
    note: str = ""


def card(answer: str, title: str, facts: Sequence[tuple[str, object]] = (), table: CardTable | None = None) -> str:
    """Return an HTML card that takes its colours from the notebook's theme, runs no script and loads nothing.

    All texts are escaped and shortened, because names of classes and files may contain anything.

    Args:
        answer: The main result, in large letters.
        title: The job that produced the result.
        facts: Name and value of each further line; lines with empty values are omitted.
        table: A table below the lines.
    """
    lines = "".join(f"<dt>{_text(name)}</dt><dd>{_text(value)}</dd>" for name, value in facts if str(value))
    parts = [f'<div class="answer">{_text(answer)}</div>', f'<div class="title">{_text(title)}</div>']
    parts += [f"<dl>{lines}</dl>"] if lines else []
    parts += [_table(table)] if table and table.rows else []
    return f'{_STYLE}<div class="recipes-card">{"".join(parts)}</div>'


def _table(table: CardTable) -> str:
    head = "".join(f"<th>{_text(cell)}</th>" for cell in table.header)
    rows = "".join(f"<tr>{''.join(map(_cell, row))}</tr>" for row in table.rows)
    note = f'<div class="note">{_text(table.note)}</div>' if table.note else ""
    return f"<table><thead><tr>{head}</tr></thead><tbody>{rows}</tbody></table>{note}"


def _cell(value: object) -> str:
    style = ' class="text"' if len(str(value)) > _NARROW else ""
    return f"<td{style}>{_text(value, _CELL)}</td>"


def _text(value: object, length: int = _FACT) -> str:
    return escape(printable(short(value, length)))
