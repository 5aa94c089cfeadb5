"""Tables as CSV files."""

import csv
import os
from collections.abc import Iterable, Sequence
from pathlib import Path

from recipes.core.output import printable
from recipes.errors import OutputError


def write_csv(
    path: str | os.PathLike, header: Sequence[str], rows: Iterable[Sequence[object]], *, contents: str, code: str
) -> None:
    """Write a table as a CSV file in UTF-8; None is an empty cell.

    Args:
        path: The file. An existing one is only replaced if it begins with the same header.
        header: Names of the columns.
        rows: The cells of each row.
        contents: What the table holds, for messages, such as "findings of an audit".
        code: Beginning of the codes of the errors.

    Raises:
        OutputError: If the file cannot be written, or exists and holds something else.
    """
    path = Path(path).expanduser()
    try:
        if path.exists() and not path.read_bytes().startswith(",".join(header).encode()):
            raise OutputError(
                f"{path} exists and holds no {contents}; choose another file", code=f"{code}.output_exists", path=path
            )
        with path.open("w", newline="", encoding="utf-8") as file:
            table = csv.writer(file)
            table.writerow(header)
            for row in rows:
                table.writerow("" if cell is None else printable(str(cell)) for cell in row)
    except OSError as error:
        raise OutputError(
            f"{path} cannot be written: {error.strerror}; choose another file", code=f"{code}.output_unwritable",
            path=path,
        ) from error  # fmt: skip
