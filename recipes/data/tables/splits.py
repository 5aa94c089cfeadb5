"""Determine the split of each row of a table, and the groups that lie in several splits."""

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import replace

from recipes.data.labels import clean, is_number
from recipes.data.tables.names import TRUE, UNASSIGNED, Columns, TableReading, override, split_of
from recipes.errors import DataError

_IN_SEVERAL_SPLITS = (
    "image of another split; expected one split per image (if the table has several folds, keep the rows of one fold)"
)
_UNDER_SEVERAL_LABELS = (
    "image under another label; multi-label and object detection data are not supported: keep one row and one "
    "label for each image"
)


def splits_of(columns: Columns, rows: Sequence[Sequence[str]], where: Sequence[str]) -> list[str]:
    """Return "train", "validation" or "test" for each row of data.

    Args:
        columns: The columns of the table.
        rows: The cells of the table.
        where: The name of each row in errors.

    Raises:
        DataError: If a cell names no split, or a row belongs to two splits.
    """
    if columns.flags:
        return [_flagged(columns.flags, row, name) for row, name in zip(rows, where, strict=True)]
    if columns.split is None:
        return ["train"] * len(rows)
    column = columns.columns[columns.split].name if columns.has_header else ""
    return [_named(row[columns.split], column, name) for row, name in zip(rows, where, strict=True)]


def _named(cell: str, column: str, where: str) -> str:
    """Return the split that a cell names; `column` is the name of the column, "" without a header."""
    split, hint = split_of(cell), ""
    if split:
        return split
    if is_number(cell):
        hint = "; write the name of the split, because a number may also mean a fold"
    elif cell.casefold() == UNASSIGNED:
        hint = "; assign every row to a split, or no row"
    if column:
        hint += f"; if the column names no split, {override('ignore', column)}"
    raise DataError(
        f"{where} has split {cell!r}; expected train, val or test{hint}",
        code="table.split", row=where, value=cell,
    )  # fmt: skip


def _flagged(flags: Sequence[tuple[int, str]], row: Sequence[str], where: str) -> str:
    on = list(dict.fromkeys(split for i, split in flags if row[i].casefold() in TRUE))
    if len(on) > 1:
        raise DataError(
            f"{where} belongs to {' and to '.join(on)}; expected one split: correct the columns of this row",
            code="table.two_splits", row=where, splits=tuple(on),
        )  # fmt: skip
    if not on and "train" in dict(flags).values():
        raise DataError(
            f"{where} belongs to no split; set one of train, val and test in every row",
            code="table.no_split", row=where,
        )  # fmt: skip
    return on[0] if on else "train"


def check_rows_of_files(
    files: Sequence[str], splits: Sequence[str], labels: Sequence[str], where: Sequence[str]
) -> tuple[str, ...]:
    """Check that no file is in two splits or has two labels, and return a note on repeated rows.

    Raises:
        DataError: If a file is in two splits or has two labels; the message names the first such file and its rows.
    """
    first: dict[str, int] = {}
    repeats = [i for i, file in enumerate(files) if first.setdefault(file, i) != i]
    cases = (
        (splits, "in", _IN_SEVERAL_SPLITS, "table.several_splits"),
        (labels, "as", _UNDER_SEVERAL_LABELS, "table.several_labels"),
    )
    for values, relation, problem, code in cases:
        twice = [i for i in repeats if clean(values[i]) != clean(values[first[files[i]]])]
        if twice:
            i, other = twice[0], first[files[twice[0]]]
            raise DataError(
                f"{where[i]} has {files[i]} {relation} {values[i]}, {where[other]} has it {relation} {values[other]}; "
                f"{len(twice):,} rows name an {problem}",
                code=code, file=files[i], rows=(where[other], where[i]), values=(values[other], values[i]),
            )  # fmt: skip
    if not repeats:
        return ()
    i = repeats[0]
    return (f"{len(repeats):,} rows repeat an image with the same label, such as {where[i]}: {files[i]}",)


def check_may_be_split(table: TableReading | None) -> None:
    """Check that a table has no groups, folds or unclear splits, because a random split would ignore them.

    Raises:
        DataError: If the table has such columns; the message names them and says what to do.
    """
    if table is None:
        return
    names = [column.name for column in table.of("perhaps split", "group", "fold")]
    if names:
        kinds = ("a possible split", table.of("perhaps split")), ("groups or folds", table.of("group", "fold"))
        parts = [f"{kind} in {' and '.join(repr(c.name) for c in columns)}" for kind, columns in kinds if columns]
        raise DataError(
            f"{table.path} has {' and '.join(parts)}, and no validation images. Randomly held-out images would "
            "not respect them, so the accuracy on these images would be optimistic. Add a column `split` of "
            "train and val, give a validation dataset, or, if these columns do not matter, "
            f"{override('ignore', *names)}",
            code="table.groups", table=table.path, columns=tuple(names),
        )  # fmt: skip


def with_groups(columns: Columns, rows: Sequence[Sequence[str]], splits: Sequence[str]) -> Columns:
    """Return the columns; the reasons of group columns state how many groups lie in several splits."""
    if len(set(splits)) < 2:
        return columns
    changed = []
    for i, column in enumerate(columns.columns):
        if column.role in ("group", "perhaps group"):
            parts = defaultdict(set)
            for row, split in zip(rows, splits, strict=True):
                parts[row[i] if i < len(row) else ""].add(split)
            parts.pop("", None)
            several = sum(len(part) > 1 for part in parts.values())
            effect = "will be too high" if column.role == "group" else "may be too high"
            reason = f"{several:,} of {len(parts):,} lie in several splits, so the accuracy on these splits {effect}"
            column = replace(column, reason=f"groups: {reason if several else 'each lies in one split'}")
        changed.append(column)
    return replace(columns, columns=tuple(changed))
