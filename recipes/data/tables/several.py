"""Reject tables with several labels for one image: columns of 0 and 1, and boxes."""

from recipes.data.tables.cells import Cells
from recipes.data.tables.names import BOX_SIDES, BOXES, FALSE, TRUE, override
from recipes.errors import DataError

_UNKNOWN = frozenset({"", "-1", "-1.0"})  # neither yes nor no


def binary_columns(cells: Cells, free: list[int]) -> list[int]:
    """Return those of the columns `free` that hold yes and no, or one of them and empty cells."""
    return [i for i in free if cells.values(i) <= TRUE | FALSE | _UNKNOWN and not cells.is_constant(i)]


def check_one_hot(cells: Cells, binary: list[int]) -> None:
    """Check that at most one column holds 0 and 1 if no column is known to hold the labels.

    Raises:
        DataError: The columns are one-hot, or hold several labels per image; the message says what to do.
    """
    if len(binary) < 2:
        return
    names = [cells.names[i] for i in binary]
    shown = f"{names[:8]}{' and more' if len(names) > 8 else ''}"
    if all(sum(row[i].casefold() in TRUE for i in binary if i < len(row)) == 1 for row in cells.rows):
        cure = (
            "every row has exactly one 1: write that column's name into one column `label` (pandas: "
            "table['label'] = table[columns].idxmax(axis=1))"
        )
    else:
        cure = f"it is not supported yet: train one classifier for each column, {override('label', names[0])}"
    raise DataError(
        f"{cells.table} has columns of 0 and 1 for the classes {shown}: this is multi-label data; {cure}; if these "
        "columns are not classes, choose the column of the labels by label= in the same way",
        code="table.multi_label", table=cells.table, columns=tuple(names),
    )  # fmt: skip


def check_boxes(cells: Cells, image: int) -> None:
    """Check that no image has several boxes.

    Raises:
        DataError: The table lists boxes, or other regions, and an image occurs twice.
    """
    sides = all(any(side.fullmatch(name) for name in cells.keys) for side in BOX_SIDES)
    if (sides or not BOXES.isdisjoint(cells.keys)) and cells.repeats(image):
        raise DataError(
            f"{cells.table} lists boxes, several for one image: object detection data, which is not supported; keep "
            "one row and one label for each image, or crop the boxes as separate images",
            code="table.boxes", table=cells.table,
        )  # fmt: skip
