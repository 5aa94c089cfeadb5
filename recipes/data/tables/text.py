"""The rows of a text file of separated values, whatever its encoding and its separator."""

import codecs
import csv
import io
import re
from collections.abc import Iterable
from dataclasses import dataclass
from itertools import islice
from pathlib import Path

from recipes.data.labels import stripped
from recipes.data.tables.names import is_image_name, looks_like_header
from recipes.errors import DataError

MAX_BYTES = 2**30
_MARKS = {
    codecs.BOM_UTF8: "utf-8", codecs.BOM_UTF32_LE: "utf-32", codecs.BOM_UTF32_BE: "utf-32",
    codecs.BOM_UTF16_LE: "utf-16", codecs.BOM_UTF16_BE: "utf-16",
}  # fmt: skip
_EXCEL = re.compile(r'"?sep=([,;\t|])"?\r?\n', re.IGNORECASE)  # the first line of a CSV that names its separator
_SAMPLE = 100  # lines by which the separator is recognised


@dataclass(frozen=True)
class TableText:
    """Rows of cells without blanks and invisible characters at their ends, and the number of each row in the file."""

    rows: list[list[str]]
    numbers: list[int]
    encoding: str
    separator: str


def read_rows(path: Path) -> TableText:
    """Return the rows of a CSV, or of a table separated by semicolons, tabs or pipes.

    Read are UTF-8, UTF-16 and UTF-32 by their byte order mark, UTF-8 without one, and otherwise Windows-1252, of which
    Latin-1 is a part.

    Raises:
        DataError: for a file that cannot be read, is too large, or is none of these.
    """
    text, encoding = _decoded(path)
    lines = io.StringIO(text, newline="")
    declared = _EXCEL.match(text)
    separator = declared[1] if declared else _separator([*islice(lines, _SAMPLE)])
    lines.seek(declared.end() if declared else 0)
    first = 1 if declared else 0
    try:
        rows = [[stripped(cell) for cell in row] for row in _reader(lines, separator)]
    except csv.Error as error:
        raise DataError(f"{path} is no CSV: {error}; a quotation mark that is not closed is the usual cause") from error
    filled = [(number, row) for number, row in enumerate(rows, first + 1) if any(row)]
    return TableText([row for _, row in filled], [number for number, _ in filled], encoding, separator)


def _decoded(path: Path) -> tuple[str, str]:
    try:
        if (size := path.stat().st_size) > MAX_BYTES:
            raise DataError(f"{path} is too large: {size:,} bytes are more than {MAX_BYTES:,}")
        content = path.read_bytes()
    except OSError as error:
        raise DataError(f"{path} cannot be read: {error.strerror}") from error
    encoding = next((name for mark, name in _MARKS.items() if content.startswith(mark)), None)
    tried = [encoding] if encoding else ["utf-8", "cp1252"]
    for name in tried:
        try:
            text = content.decode(name).removeprefix("\ufeff")
        except UnicodeDecodeError as error:
            reason = f"{error.reason} at byte {error.start}"
            continue
        if "\0" in text and not encoding:
            raise DataError(
                f"{path} has NUL characters: it is no text, or UTF-16 without a mark; save it as a CSV in UTF-8"
            )
        return text, name
    raise DataError(f"{path} is not {' and not '.join(tried)} ({reason}); save it as UTF-8")


def _reader(lines: Iterable[str], separator: str):
    return csv.reader(lines, delimiter=separator, skipinitialspace=separator != "\t", strict=True)


def _separator(lines: list[str]) -> str:
    """The separator whose rows look most like a table's: a header that is known, else rows of one length with a file
    name among their cells."""
    return max(",;\t|", key=lambda separator: _likeness(lines, separator))


def _likeness(lines: list[str], separator: str) -> tuple:
    try:
        rows = [row for row in _reader(lines, separator) if any(map(str.strip, row))]
    except csv.Error:
        return (False,) * 4
    if not rows or max(map(len, rows)) < 2:
        return (False,) * 4
    cells = [stripped(cell) for cell in rows[0]]
    named = any(is_image_name(stripped(cell)) for cell in rows[-1])
    return (len(cells) > 1 and looks_like_header(cells), named, len({len(row) for row in rows}) == 1, len(cells) > 1)
