"""Recognise the columns of a table of images by their names, and by their cells if names do not decide.

`recognise` takes rows of text from any reader and opens no file.
"""

from collections.abc import Sequence

from recipes.data.labels import is_number
from recipes.data.tables.cells import Cells
from recipes.data.tables.names import (
    GROUP,
    IMAGE_RANKS,
    INDEX,
    KINDS,
    LABELS,
    SCALES,
    WEAK_LABELS,
    WEAK_RANK,
    WEIGHTS,
    Chosen,
    Column,
    Columns,
    is_image_name,
    key,
    looks_like_header,
    override,
    split_of,
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
from recipes.errors import DataError

MAY_BE_GROUP = (
    "may group photos that belong together; a random split ignores it, so figures may be optimistic. To respect it, "
    "add a column `split`"
)
_SAMPLE = 1000  # rows whose cells are examined to recognise a column of file names


def recognise(rows: Sequence[Sequence[str]], table: str, chosen: Chosen | None = None) -> Columns:
    """Return the meaning of each column of a table.

    Args:
        rows: Cells of text without blanks at their ends; the first row may be a header.
        table: The name of the table in errors.
        chosen: The columns that the user names.

    Raises:
        DataError: The column of the images or of the labels is ambiguous, several columns name a split, or the table
            holds multi-label or detection data.
    """
    return _Recognition(rows, table, chosen or Chosen()).columns()


class _Recognition:
    """Assigns a role to each column; each step examines the columns that have none yet."""

    def __init__(self, rows: Sequence[Sequence[str]], table: str, chosen: Chosen):
        has_header = chosen.any or (bool(rows) and (looks_like_header(rows[0]) or _names_above_files(rows)))
        self.table, self.chosen = table, chosen
        self.cells = Cells(rows, table, has_header)
        self.names, self.keys = self.cells.names, self.cells.keys
        self.roles: dict[int, Column] = {}

    def columns(self) -> Columns:
        self._choose()
        self._assign_index()
        splits = self._assign_splits()
        for i in self._free():
            if is_fold(self.cells, i):
                self._assign(i, "fold", "folds: the held-out one is not known")
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
            raise DataError(
                f"{self.table} has no column {name!r}; its first row is {self.names}",
                code="table.no_column", table=self.table, column=name, columns=tuple(self.names),
            )  # fmt: skip
        return found[0]

    def _assign(self, i: int, role: str, reason: str = "") -> int:
        if i in self.roles:
            raise DataError(
                f"column {self.names[i]!r} of {self.table} cannot be both {self.roles[i].role} and {role}",
                code="table.two_roles", table=self.table, column=self.names[i], roles=(self.roles[i].role, role),
            )  # fmt: skip
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
                if INDEX.fullmatch(self.keys[i]) and all(map(str.isdecimal, cells)):
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
                self._assign(i, "split", f"rows that are true: {split}")
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
            raise DataError(
                f"{self.table} has no column that is known to name images, only {self.names}; rename it to `path`, or "
                f"choose it: {override('image', 'NAME')}",
                code="table.no_images", table=self.table, columns=tuple(self.names),
            )  # fmt: skip
        best = [i for i in pool if ranks.get(i, WEAK_RANK) == min(ranks.get(j, WEAK_RANK) for j in pool)]
        if len(best) > 1:
            names = [self.names[i] for i in best]
            raise DataError(
                f"{self.table} has several columns that may name the images, {names}; choose one: "
                f"{override('image', names[0])}",
                code="table.several_image_columns", table=self.table, columns=tuple(names),
            )  # fmt: skip
        return self._assign(best[0], "image", "" if best[0] in ranks else "its cells are file names")

    def _holds_files(self, i: int) -> bool:
        cells = list(filter(None, self.cells.of(i, _SAMPLE)))
        return sum(map(is_image_name, cells)) > 0.9 * len(cells)

    def _label(self, splits: SplitColumns) -> int:
        if (chosen := self._with_role("label")) is not None:
            return self._assign_label(chosen, self.roles.pop(chosen).reason)
        free = [i for i in self._free() if i not in splits.without]
        if not self.cells.has_header and len(free) > 1:
            raise self._without_header(free)
        binary = binary_columns(self.cells, free)
        named = [i for i in free if self.keys[i] in LABELS]
        if all(self.keys[i] in KINDS and i in binary for i in named):  # "disease" is one of the classes, or names them
            check_one_hot(self.cells, binary)
        named = named or self._weakly_named(free)
        if named:
            return self._assign_label(self._same_classes(named))
        others = free if len(free) == 1 else [i for i in free if not GROUP.fullmatch(self.keys[i])]
        if len(others) == 1 and not (splits.flags and GROUP.fullmatch(self.keys[others[0]])):  # `test` may be the label
            return self._assign_label(others[0], "the only other column")
        raise DataError(
            f"{self.table} has no column that is known to hold labels, only {self.names}; rename it to `label`, or "
            f"choose it: {override('label', 'NAME')}",
            code="table.no_labels", table=self.table, columns=tuple(self.names),
        )  # fmt: skip

    def _weakly_named(self, free: list[int]) -> list[int]:
        """Return columns such as `type` and `y`, except a `y` beside `x`, which is a coordinate."""
        return [i for i in free if self.keys[i] in WEAK_LABELS and not (self.keys[i] == "y" and "x" in self.keys)]

    def _assign_label(self, i: int, reason: str = "") -> int:
        """Assign the role, with a hint if the classes seem to be numbers that have an order."""
        values = self.cells.values(i)
        named = not SCALES.isdisjoint((self.keys[i], *self.cells.words[i]))
        measured = self.cells.has_header and any("." in value for value in values)
        if len(values) > 2 and all(map(is_number, values)) and (named or measured):
            reason = "; ".join(filter(None, (reason, "numbers, read as classes without an order")))
        return self._assign(i, "label", reason)

    def _without_header(self, free: list[int]) -> DataError:
        strange = next((cell for cell in self.cells.of(free[-1]) if not split_of(cell)), "")
        return DataError(
            f"{self.table} has {len(self.names)} columns and no header, and {strange!r} in the last of them is not a "
            "split (train, val or test); name the columns in a first row: path,label,…",
            code="table.no_header", table=self.table, value=strange,
        )  # fmt: skip

    def _same_classes(self, named: list[int]) -> int:
        """Return the column of labels; among several with the same classes, the first one with words."""
        if not all(self.cells.same(named[0], i) for i in named):
            names = [self.names[i] for i in named]
            raise DataError(
                f"{self.table} has several columns that may hold the labels, {names}; choose one: "
                f"{override('label', names[0])}",
                code="table.several_label_columns", table=self.table, columns=tuple(names),
            )  # fmt: skip
        called = [i for i in self._free() if self.keys[i].endswith(("name", "text")) and self.cells.same(named[0], i)]
        named = list(dict.fromkeys((*named, *called)))
        words = [i for i in named if not all(map(is_number, self.cells.of(i)))]
        best = (words or named)[0]
        for i in named:
            if i != best:
                self._assign(i, "ignored", f"the same classes as {self.names[best]!r}")
        return best


def _names_above_files(rows: Sequence[Sequence[str]]) -> bool:
    """Return whether only the first row has no file name."""
    below = rows[1:_SAMPLE]
    return bool(below) and not any(map(is_image_name, rows[0])) and all(any(map(is_image_name, row)) for row in below)


def _counts(cells: list[str]) -> bool:
    """Return whether cells are 0, 1, 2, … or 1, 2, 3, …"""
    return len(cells) > 1 and cells in [[*map(str, range(first, first + len(cells)))] for first in (0, 1)]
