"""Reject tables with several labels for one image, such as columns of 0 and 1, or several boxes."""

import re

from recipes.data.tables.cells import Cells
from recipes.data.tables.names import FALSE, TRUE, override, words_in

_BOX = r"(bbox|box|roi|region|rect)?"
_EDGE = r"(min|max|center|centre|c|tl|br|start|[0-2])?"
_BOX_SIDES = tuple(
    re.compile(rf"{_BOX}({axis}{_EDGE}|(c|min|max|center|centre){axis}|{side})(px|norm|normalized)?")
    for axis, side in (("x", "left"), ("y", "top"))
)
_BOXES = words_in("bbox bboxes box boxes boundingbox polygon segmentation rle encodedpixels regionshapeattributes")
_UNKNOWN = frozenset({"", "-1", "-1.0"})  # cells that mean neither yes nor no


def binary_columns(cells: Cells, free: list[int]) -> list[int]:
    """Return the columns among `free` that hold yes and no, or only one of the two and empty cells."""
    return [i for i in free if cells.values(i) <= TRUE | FALSE | _UNKNOWN and not cells.is_constant(i)]


def check_one_hot(cells: Cells, binary: list[int]) -> None:
    """Check that at most one column holds 0 and 1 if the column of labels is unknown.

    Raises:
        DataError: If the columns are one-hot or hold several labels per image; the message says what to do.
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
        cure = (
            "multi-label data is not supported yet: train one classifier for each column, "
            f"{override('label', names[0])}"
        )
    seen = f"has columns of 0 and 1 for the classes {shown}; expected one column of labels. {cure}"
    otherwise = "If these columns are not classes, choose the column of labels by label= in the same way"
    raise cells.error("table.multi_label", f"{seen}; {otherwise}", columns=tuple(names))


def check_boxes(cells: Cells, image: int) -> None:
    """Check that no image has several boxes.

    Raises:
        DataError: If the table lists boxes or other regions, and an image occurs twice.
    """
    sides = all(any(side.fullmatch(name) for name in cells.keys) for side in _BOX_SIDES)
    if (sides or not _BOXES.isdisjoint(cells.keys)) and cells.repeats(image):
        seen = "lists several boxes for one image; object detection data is not supported"
        cure = "keep one row and one label for each image, or crop the boxes as separate images"
        raise cells.error("table.boxes", f"{seen}; {cure}")
