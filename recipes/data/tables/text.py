"""Read the rows of a text file of separated values in any usual encoding, with any usual separator."""

import csv
import io
import re
from collections.abc import Iterable
from contextlib import suppress
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING

from recipes.data.labels import stripped
from recipes.data.tables.encodings import decoded
from recipes.data.tables.names import is_image_name, looks_like_header
from recipes.errors import DataError

if TYPE_CHECKING:
    from _csv import Reader

MAX_BYTES = 2**30
_EXCEL = re.compile(r'"?sep=([,;\t|])"?\r?\n', re.IGNORECASE)  # a first line such as "sep=;" names the separator
_SAMPLE = 100  # number of lines that are examined to recognise the separator


@dataclass(frozen=True)
class TableText:
    """Rows of cells without blanks or invisible characters at their ends, and the number of each row in the file."""

    rows: list[list[str]]
    numbers: list[int]
    encoding: str
    separator: str


def read_rows(path: Path, encoding: str | None = None) -> TableText:
    """Return the rows of a CSV, or of a table separated by semicolons, tabs or pipes.

    Supported encodings are UTF-8, UTF-16 and UTF-32 with a byte order mark, and UTF-8 without one. Any other text is
    read as Windows-1252, which includes Latin-1, and is rejected if that gives implausible words.

    Args:
        path: The file.
        encoding: Encoding of the text; None recognises it.

    Raises:
        DataError: If the file cannot be read, is too large, is not text, or has another format.
    """
    text, used_encoding = decoded(_content(path), str(path), encoding)
    lines = io.StringIO(text, newline="")
    declared = _EXCEL.match(text)
    sample = [*islice(lines, _SAMPLE)]
    separator = declared[1] if declared else max(",;\t|", key=lambda separator: _likeness(sample, separator))
    first, start = (1, declared.end()) if declared else (0, 0)
    lines.seek(start)
    reader = _reader(lines, separator)
    try:
        rows = [[stripped(cell) for cell in row] for row in reader]
    except csv.Error as error:
        cause = "the usual cause is a quotation mark that is not closed"
        if "expected after" in str(error):
            cause = "remove the blank or the text between the quotation mark and the separator"
        raise DataError(
            f"{path} is not a valid CSV: {error} (line {first + reader.line_num}); {cause}",
            code="table.csv", path=path, line=first + reader.line_num,
        ) from error  # fmt: skip
    filled = [(number, row) for number, row in enumerate(rows, first + 1) if any(row)]
    return TableText([row for _, row in filled], [number for number, _ in filled], used_encoding, separator)


def _content(path: Path) -> bytes:
    try:
        if (size := path.stat().st_size) > MAX_BYTES:
            raise DataError(
                f"{path} is too large: {size:,} bytes are more than {MAX_BYTES:,}", code="table.too_large", path=path
            )
        return path.read_bytes()
    except OSError as error:
        raise DataError(f"{path} cannot be read: {error.strerror}", code="table.unreadable", path=path) from error


def _reader(lines: Iterable[str], separator: str) -> "Reader":
    return csv.reader(lines, delimiter=separator, skipinitialspace=separator != "\t", strict=True)


def _likeness(lines: list[str], separator: str) -> tuple[bool, bool, bool, bool]:
    """Return a score of a separator, by the most important criterion first: a known header, file names, equal rows."""
    rows = []
    with suppress(csv.Error):
        rows = [row for row in _reader(lines, separator) if any(map(str.strip, row))]
    if max(map(len, rows), default=0) < 2:
        return (False, False, False, False)
    cells = [stripped(cell) for cell in rows[0]]
    named = any(is_image_name(stripped(cell)) for cell in rows[-1])
    return (len(cells) > 1 and looks_like_header(cells), named, len({len(row) for row in rows}) == 1, len(cells) > 1)
