"""Recognise the columns of a table of images by their names, or by their cells if the names do not decide.

`recognise` takes rows of text from any reader and opens no file.
"""

import re
from collections.abc import Sequence

from recipes.data.labels import is_number
from recipes.data.tables.cells import Cells
from recipes.data.tables.names import (
    GROUP,
    IMAGE_RANKS,
    LABELS,
    WEAK_LABELS,
    WEAK_RANK,
    WEIGHTS,
    Chosen,
    Column,
    Columns,
    is_image_name,
    key,
    looks_like_header,
    split_of,
    words_in,
)
from recipes.data.tables.several import binary_columns, check_boxes, check_one_hot
from recipes.data.tables.split_columns import (
    SplitColumns,
    find_splits,
    is_fold,
    is_group,
    may_be_group,
    split_chosen,
)

MAY_BE_GROUP = (
    "may group photos that belong together. A random split would separate them, so accuracies may be optimistic. "
    "To respect the groups, add a column `split`"
)
_INDEX = re.compile(r"|unnamed\d*(level\d+)?|index|idx|row|rowid|rownames|rownumber|no|nr")
_KINDS = words_in("disease finding findings defect")  # column names for labels that may also be names of classes
_SCALES = words_in(
    "grade grades grading level rating ratings score scores star stars severity stage age count counts diagnosis dx"
)
_SAMPLE = 1000  # number of rows that are examined to recognise a column of file names


def recognise(rows: Sequence[Sequence[str]], table: str, chosen: Chosen | None = None) -> Columns:
    """Return the meaning of each column of a table.

    Args:
        rows: Cells of text without blanks at their ends; the first row may be a header.
        table: The name of the table in errors.
        chosen: The columns that the user has chosen.

    Raises:
        DataError: If the column of the images or the labels is ambiguous, several columns name a split, or the table
            holds multi-label or detection data.
    """
    return _Recognition(rows, table, chosen or Chosen()).columns()


class _Recognition:
    """Assigns a role to each column. Each step examines the columns without a role."""

    def __init__(self, rows: Sequence[Sequence[str]], table: str, chosen: Chosen):
        has_header = chosen != Chosen() or (bool(rows) and (looks_like_header(rows[0]) or _names_above_files(rows)))
        self.chosen = chosen
        self.cells = Cells(rows, table, has_header)
        self.names, self.keys = self.cells.names, self.cells.keys
        self.roles: dict[int, Column] = {}

    def columns(self) -> Columns:
        self._choose()
        self._assign_index()
        splits = self._assign_splits()
        for i in self._free():
            if is_fold(self.cells, i):
                self._assign(i, "fold", "folds; it is not known which fold is held out")
            elif self.keys[i] in WEIGHTS:
                self._assign(i, "weight", "recipes.adjusted(balanced=True) gives every class the same weight")
        image = self._image()
        check_boxes(self.cells, image)
        label = self._label(splits)
        for i in self._free():
            if is_group(self.cells, i):
                self._assign(i, "group", "groups: a random split may separate them")
            elif may_be_group(self.cells, i, label):
                self._assign(i, "perhaps group", MAY_BE_GROUP)
            elif i in splits.without:
                self._assign(i, "ignored", splits.without[i])
        columns = tuple(self.roles.get(i, Column(name)) for i, name in enumerate(self.names))
        named = None if splits.flags else self._with_role("split")
        return Columns(columns, self.cells.has_header, image, label, named, tuple(splits.flags.items()))

    def _choose(self) -> None:
        for role in ("image", "label", "split"):
            name = getattr(self.chosen, role)
            if name is not None:
                self._assign(self._position(name), role, "chosen")
        for name in self.chosen.ignore:
            self._assign(self._position(name), "ignored", "chosen")

    def _position(self, name: str) -> int:
        exact = [i for i, own in enumerate(self.names) if own == name]
        found = exact or [i for i, own in enumerate(self.keys) if own == key(name)]
        if len(found) != 1:
            seen = f"has no column {name!r}; its first row is {self.names}"
            raise self.cells.error("table.no_column", seen, column=name, columns=tuple(self.names))
        return found[0]

    def _assign(self, i: int, role: str, reason: str = "") -> int:
        if i in self.roles:
            roles = (self.roles[i].role, role)
            seen = (
                f"has the column {self.names[i]!r}, which is chosen both as {roles[0]} and as {roles[1]}; choose "
                "different columns"
            )
            raise self.cells.error("table.two_roles", seen, column=self.names[i], roles=roles)
        self.roles[i] = Column(self.names[i], role, reason)
        return i

    def _free(self) -> list[int]:
        return [i for i in range(len(self.names)) if i not in self.roles]

    def _with_role(self, role: str) -> int | None:
        return next((i for i, column in self.roles.items() if column.role == role), None)

    def _assign_index(self) -> None:
        for i in self._free():
            cells = self.cells.of(i)
            if not any(cells) and len(self.names) > 2 and self.keys[i] not in LABELS:
                self._assign(i, "ignored", "empty")
            elif self.cells.has_header:
                if _INDEX.fullmatch(self.keys[i]) and all(map(str.isdecimal, cells)):
                    self._assign(i, "index", "row numbers")
            elif len(self.names) > 2 and _counts(cells):
                self._assign(i, "index", "row numbers")

    def _assign_splits(self) -> SplitColumns:
        chosen = self._with_role("split")
        found = (
            find_splits(self.cells, self._free()) if chosen is None else split_chosen(self.cells, chosen, self._free())
        )
        if chosen is None and found.named is not None:
            self._assign(found.named, "split")
        for i, split in found.flags.items():
            if i != chosen:
                self._assign(i, "split", f"rows with a true value belong to {split}")
        for i, reason in found.unclear.items():
            self._assign(i, "perhaps split", reason)
        return found

    def _image(self) -> int:
        if (chosen := self._with_role("image")) is not None:
            return chosen
        free = [i for i in self._free() if self.keys[i] not in LABELS]
        ranks = {i: IMAGE_RANKS[self.keys[i]] for i in free if self.keys[i] in IMAGE_RANKS}
        files = [i for i in free if self._holds_files(i)]
        named = [i for i, rank in ranks.items() if rank < WEAK_RANK]
        pool = [i for i in named if i in files] or named or [i for i in files if i in ranks] or files or list(ranks)
        if not pool and not self.cells.has_header:
            pool = free[:1]
        if not pool:
            raise self.cells.lacking("image", "name images", "path")
        best = [i for i in pool if ranks.get(i, WEAK_RANK) == min(ranks.get(j, WEAK_RANK) for j in pool)]
        if len(best) > 1:
            raise self.cells.ambiguous("image", "may name the images", best)
        return self._assign(best[0], "image", "" if best[0] in ranks else "its cells are file names")

    def _holds_files(self, i: int) -> bool:
        cells = list(filter(None, self.cells.of(i, _SAMPLE)))
        return sum(map(is_image_name, cells)) > 0.9 * len(cells)

    def _label(self, splits: SplitColumns) -> int:
        if (chosen := self._with_role("label")) is not None:
            return self._assign_label(chosen, self.roles.pop(chosen).reason)
        free = [i for i in self._free() if i not in splits.without]
        if not self.cells.has_header and len(free) > 1:
            strange = next((cell for cell in self.cells.of(free[-1]) if not split_of(cell)), "")
            seen = f"has {len(self.names)} columns and no header, and {strange!r} in the last of them is not a split"
            expected = "(train, val or test); name the columns in a first row: path,label,…"
            raise self.cells.error("table.no_header", f"{seen} {expected}", value=strange)
        binary = binary_columns(self.cells, free)
        named = [i for i in free if self.keys[i] in LABELS]
        # "disease" may be a class or the name of a column of labels
        if all(self.keys[i] in _KINDS and i in binary for i in named):
            check_one_hot(self.cells, binary)
        weak = WEAK_LABELS - ({"y"} if "x" in self.keys else set())  # x and y together are coordinates
        named = named or [i for i in free if self.keys[i] in weak]
        if named:
            return self._assign_label(self._same_classes(named))
        others = free if len(free) == 1 else [i for i in free if not GROUP.fullmatch(self.keys[i])]
        if len(others) == 1 and not (splits.flags and GROUP.fullmatch(self.keys[others[0]])):  # `test` may be a label
            return self._assign_label(others[0], "the only other column")
        raise self.cells.lacking("label", "hold labels", "label")

    def _assign_label(self, i: int, reason: str = "") -> int:
        """Assign the role of labels, with a hint if the classes look like ordered numbers."""
        values = self.cells.values(i)
        named = not _SCALES.isdisjoint((self.keys[i], *self.cells.words[i]))
        measured = self.cells.has_header and any("." in value for value in values)
        if len(values) > 2 and all(map(is_number, values)) and (named or measured):
            reason = "; ".join(filter(None, (reason, "numbers, read as classes without an order")))
        return self._assign(i, "label", reason)

    def _same_classes(self, named: list[int]) -> int:
        """Return the column of labels; if several columns hold the same classes, return the first column with words."""
        if not all(self.cells.same(named[0], i) for i in named):
            raise self.cells.ambiguous("label", "may hold the labels", named)
        called = [i for i in self._free() if self.keys[i].endswith(("name", "text")) and self.cells.same(named[0], i)]
        named = list(dict.fromkeys((*named, *called)))
        words = [i for i in named if not all(map(is_number, self.cells.of(i)))]
        best = (words or named)[0]
        for i in named:
            if i != best:
                self._assign(i, "ignored", f"the same classes as {self.names[best]!r}")
        return best


def _names_above_files(rows: Sequence[Sequence[str]]) -> bool:
    """Return whether the first row, and no other row, lacks a file name."""
    below = rows[1:_SAMPLE]
    return bool(below) and not any(map(is_image_name, rows[0])) and all(any(map(is_image_name, row)) for row in below)


def _counts(cells: list[str]) -> bool:
    """Return whether cells are 0, 1, 2, … or 1, 2, 3, …."""
    return len(cells) > 1 and cells in [[*map(str, range(first, first + len(cells)))] for first in (0, 1)]
