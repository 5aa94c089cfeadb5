"""Tables of four images, as spreadsheets and other programs write them."""

from pathlib import Path

from recipes import from_csv

NAMES = [f"i{n}.jpg" for n in range(4)]
LABELS = ["cat", "cat", "dog", "dog"]


def table(header: str | None, row: str, *columns, separator: str = "\n") -> str:
    """Return the lines of a table; `row` has {name}, {stem}, {label}, {n}, and {0}, {1}, … for the further columns."""
    lines = [] if header is None else [header]
    for n, (name, label) in enumerate(zip(NAMES, LABELS, strict=True)):
        lines.append(row.format(*(column[n] for column in columns), name=name, stem=name[:-4], label=label, n=n))
    return separator.join(lines) + separator


def read(place: Path, content: str | bytes, name: str = "list.csv", **options):
    """Write a table into a folder and read it with `recipes.from_csv`."""
    (place / name).write_bytes(content if isinstance(content, bytes) else content.encode())
    return from_csv(place / name, **options)
