"""The split that each row of a table belongs to, and whether groups lie in several."""

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import replace

from recipes.data.labels import is_number
from recipes.data.tables.names import SPLIT_WORDS, TRUE, Columns, TableReading, key, override
from recipes.errors import DataError


def splits_of(columns: Columns, rows: Sequence[Sequence[str]], where: Sequence[str]) -> list[str]:
    """Return "train", "validation" or "test" for each row of data.

    Args:
        where: what to call each row in an error.

    Raises:
        DataError: for a cell that names no split, and for a row that belongs to two.
    """
    if columns.flags:
        return [_flagged(columns.flags, row, name) for row, name in zip(rows, where, strict=True)]
    if columns.split is None:
        return ["train"] * len(rows)
    cells = [row[columns.split] if columns.split < len(row) else "" for row in rows]
    for cell, name in zip(cells, where, strict=True):
        if key(cell) not in SPLIT_WORDS:
            hint = "; write the name in place of a number, which may as well be a fold" if is_number(cell) else ""
            raise DataError(f"{name} has split {cell!r}; expected train, val or test{hint}")
    return [SPLIT_WORDS[key(cell)] for cell in cells]


def _flagged(flags, row: Sequence[str], where: str) -> str:
    on = [split for i, split in flags if row[i].casefold() in TRUE]
    if len(on) > 1:
        raise DataError(f"{where} belongs to {' and to '.join(on)}; a row belongs to one split")
    return on[0] if on else "train"


def check_apart(files: Sequence[str], splits: Sequence[str], where: Sequence[str]) -> None:
    """Check that no file is in two splits.

    Raises:
        DataError: naming the first such file and its rows.
    """
    first: dict[str, int] = {}
    twice = [i for i, file in enumerate(files) if splits[first.setdefault(file, i)] != splits[i]]
    if twice:
        i, other = twice[0], first[files[twice[0]]]
        raise DataError(
            f"{where[i]} has {files[i]} in {splits[i]}, {where[other]} has it in {splits[other]}; {len(twice):,} rows "
            "name an image of another split; an image belongs to one (of a table of several folds keep the rows of one)"
        )


def check_may_be_split(table: TableReading | None) -> None:
    """Check that a table has no groups or folds, which a split made at random would not respect.

    Raises:
        DataError: naming these columns and what to do.
    """
    apart = table.of("group", "fold") if table else ()
    if apart:
        names = " and ".join(repr(column.name) for column in apart)
        raise DataError(
            f"{table.path} has groups or folds in {names}, and no validation images: a part held out at random would "
            "not respect them, and the accuracy on it would be too high. Add a column `split` of train and val, give a "
            f"validation dataset, or, if they do not matter, {override('ignore', apart[0].name)}"
        )


def with_groups(columns: Columns, rows: Sequence[Sequence[str]], splits: Sequence[str]) -> Columns:
    """Return the columns; those of groups say how many groups lie in several splits of the table."""
    if len(set(splits)) < 2:
        return columns
    changed = []
    for i, column in enumerate(columns.columns):
        if column.role == "group":
            parts = defaultdict(set)
            for row, split in zip(rows, splits, strict=True):
                parts[row[i] if i < len(row) else ""].add(split)
            parts.pop("", None)
            several = sum(len(part) > 1 for part in parts.values())
            said = f"{several:,} of {len(parts):,} lie in several splits, the accuracy on these will be too high"
            column = replace(column, reason=f"groups: {said if several else 'each lies in one split'}")
        changed.append(column)
    return replace(columns, columns=tuple(changed))
