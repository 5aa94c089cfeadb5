"""What the columns of a table of images mean: recognised by their names, and by their cells where names do not decide.

`recognise` takes rows of text from whatever reader; nothing here opens a file.
"""

from collections.abc import Sequence

from recipes.data.labels import is_number
from recipes.data.tables.names import (
    BOXES,
    FALSE,
    FLAGS,
    FOLD,
    GROUP,
    IMAGE_RANKS,
    INDEX,
    LABELS,
    PERHAPS_SPLITS,
    SCALES,
    SPLIT_WORDS,
    SPLITS,
    TRUE,
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
)
from recipes.errors import DataError

_SAMPLE = 1000  # rows by whose cells a column of file names is recognised


def recognise(rows: Sequence[Sequence[str]], table: str, chosen: Chosen | None = None) -> Columns:
    """Return what each column of a table means.

    Args:
        rows: cells of text without blanks at their ends; the first row may be a header.
        table: what to call the table in an error.
        chosen: the columns that the user names.

    Raises:
        DataError: where the column of the images or of the labels cannot be told from others, where several columns
            name a split, or where the table holds multi-label or detection data.
    """
    return _Recognition(rows, table, chosen or Chosen()).columns()


class _Recognition:
    """Gives each column its role; each step looks at the columns that have none yet."""

    def __init__(self, rows: Sequence[Sequence[str]], table: str, chosen: Chosen):
        self.table, self.chosen = table, chosen
        self.has_header = chosen.any or (bool(rows) and (looks_like_header(rows[0]) or _names_above_files(rows)))
        self.rows = rows[1:] if self.has_header else rows
        if not self.rows:
            raise DataError(f"{table} has no rows; expected lines of path,label (a column `split` is understood)")
        width = len(rows[0]) if self.has_header else max(map(len, rows))
        self.names = list(rows[0]) if self.has_header else [f"column {i + 1}" for i in range(width)]
        self.keys = [key(name) if self.has_header else "-" for name in self.names]
        self.roles: dict[int, Column] = {}

    def columns(self) -> Columns:
        self._check_names()
        self._choose()
        self._give_index()
        self._give_splits()
        for i in self._free():
            if FOLD.fullmatch(self.keys[i]):
                self._give(i, "fold", "folds: which of them is held out is not known")
            elif self.keys[i] in WEIGHTS:
                self._give(i, "weight", "recipes.adjusted(balanced=True) lets every class count alike")
        image = self._image()
        self._check_boxes(image)
        label = self._label()
        for i in self._free():
            if GROUP.fullmatch(self.keys[i]) and self._repeats(i):
                self._give(i, "group", "groups: a split made here may part them")
            elif self.keys[i] in PERHAPS_SPLITS or self.keys[i] in FLAGS:
                self._give(i, "ignored", "its cells name no split")
        columns = tuple(self.roles.get(i, Column(name)) for i, name in enumerate(self.names))
        splits = [i for i, column in enumerate(columns) if column.role == "split"]
        flags = tuple((i, FLAGS[self.keys[i]]) for i in splits if self.keys[i] in FLAGS and self._is_flag(i))
        return Columns(columns, self.has_header, image, label, None if flags else next(iter(splits), None), flags)

    def _check_names(self) -> None:
        if len(self.names) < 2:
            raise DataError(
                f"{self.table} has rows of 1 cell, such as {self.rows[0][:1]}; expected path,label, separated by "
                "commas, semicolons, tabs or pipes"
            )
        twice = [name for i, name in enumerate(self.names) if name and name in self.names[:i]]
        if twice:
            raise DataError(f"{self.table} has two columns {twice[0]!r}; rename or remove one")

    def _choose(self) -> None:
        for role in ("image", "label", "split"):
            name = getattr(self.chosen, role)
            if name is not None:
                self._give(self._position(name), role, "chosen")
        for name in self.chosen.ignore:
            self._give(self._position(name), "ignored", "chosen")

    def _position(self, name: str) -> int:
        exact = [i for i, own in enumerate(self.names) if own == name]
        found = exact or [i for i, own in enumerate(self.keys) if own == key(name)]
        if len(found) != 1:
            raise DataError(f"{self.table} has no column {name!r}; its first row is {self.names}")
        return found[0]

    def _give(self, i: int, role: str, reason: str = "") -> int:
        if i in self.roles:
            raise DataError(f"column {self.names[i]!r} of {self.table} cannot be both {self.roles[i].role} and {role}")
        self.roles[i] = Column(self.names[i], role, reason)
        return i

    def _free(self) -> list[int]:
        return [i for i in range(len(self.names)) if i not in self.roles]

    def _cells(self, i: int, most: int | None = None) -> list[str]:
        return [row[i] if i < len(row) else "" for row in self.rows[:most]]

    def _with_role(self, role: str) -> int | None:
        return next((i for i, column in self.roles.items() if column.role == role), None)

    def _give_index(self) -> None:
        for i in self._free():
            cells = self._cells(i)
            if not any(cells) and len(self.names) > 2 and self.keys[i] not in LABELS:
                self._give(i, "ignored", "empty")
            elif self.has_header:
                if INDEX.fullmatch(self.keys[i]) and all(map(str.isdecimal, cells)):
                    self._give(i, "index", "row numbers")
            elif len(self.names) > 2 and _counts(cells):
                self._give(i, "index", "row numbers")

    def _give_splits(self) -> None:
        if self._with_role("split") is not None:
            return
        named = {i for i in self._free() if self._names_splits(i)}
        flags = [i for i in self._free() if self.keys[i] in FLAGS and self._is_flag(i)]
        if len(named) > 1 and len({tuple(map(key, self._cells(i))) for i in named}) == 1:
            named = {min(named)}  # they say the same
        if len(named) > 1 or (named and flags):
            names = [self.names[i] for i in sorted({*named, *flags})]
            raise DataError(
                f"{self.table} has several columns that name a split, {names}; choose one: "
                f"{override('split', names[0])}"
            )
        for i in named:
            self._give(i, "split")
        for i in flags:
            if FLAGS[self.keys[i]] == "train":
                raise DataError(
                    f"column {self.names[i]!r} of {self.table} says which rows are trained on, but not whether the "
                    "others are validation or test images; replace it by a column `split` of train, val and test"
                )
            self._give(i, "split", f"rows that are true: {FLAGS[self.keys[i]]}")

    def _names_splits(self, i: int) -> bool:
        if self.keys[i] in SPLITS:
            return True
        words = [key(cell) in SPLIT_WORDS for cell in self._cells(i)]
        if self.keys[i] in PERHAPS_SPLITS:
            return any(words)
        labels = LABELS if LABELS.intersection(self.keys) else LABELS | WEAK_LABELS
        other = self.keys[i] in labels or self.keys[i] in IMAGE_RANKS
        return all(words) and not other and len(self.names) > 2

    def _is_flag(self, i: int) -> bool:
        strange = [cell for cell in self._cells(i) if cell.casefold() not in TRUE | FALSE]
        if strange and self.keys[i].startswith("is"):
            raise DataError(
                f"column {self.names[i]!r} of {self.table} has {strange[0]!r}; expected only true and false, or 1 and 0"
            )
        return not strange

    def _repeats(self, i: int) -> bool:
        """Whether a value occurs twice; a group of one image cannot be parted."""
        cells = list(filter(None, self._cells(i)))
        return len(set(cells)) < len(cells)

    def _image(self) -> int:
        if (given := self._with_role("image")) is not None:
            return given
        free = [i for i in self._free() if self.keys[i] not in LABELS]
        ranks = {i: IMAGE_RANKS[self.keys[i]] for i in free if self.keys[i] in IMAGE_RANKS}
        files = [i for i in free if self._holds_files(i)]
        named = [i for i, rank in ranks.items() if rank < WEAK_RANK]
        pool = [i for i in named if i in files] or named or [i for i in files if i in ranks] or files or list(ranks)
        if not pool and not self.has_header:
            pool = free[:1]
        if not pool:
            raise DataError(
                f"{self.table} has no column that is known to name images, only {self.names}; rename it to `path`, or "
                f"choose it: {override('image', 'NAME')}"
            )
        best = [i for i in pool if ranks.get(i, WEAK_RANK) == min(ranks.get(j, WEAK_RANK) for j in pool)]
        if len(best) > 1:
            names = [self.names[i] for i in best]
            raise DataError(
                f"{self.table} has several columns that may name the images, {names}; choose one: "
                f"{override('image', names[0])}"
            )
        return self._give(best[0], "image", "" if best[0] in ranks else "its cells are file names")

    def _holds_files(self, i: int) -> bool:
        cells = list(filter(None, self._cells(i, _SAMPLE)))
        return sum(map(is_image_name, cells)) > 0.9 * len(cells)

    def _label(self) -> int:
        if (given := self._with_role("label")) is not None:
            return given
        free = self._free()
        if not self.has_header and len(free) > 1:
            raise self._without_header(free)
        named = [i for i in free if self.keys[i] in LABELS] or [i for i in free if self.keys[i] in WEAK_LABELS]
        if named:
            best = self._same_classes(named)
            scale = self.keys[best] in SCALES and all(map(is_number, self._cells(best)))
            return self._give(best, "label", "numbers, read as classes without an order" if scale else "")
        free = [i for i in free if self.keys[i] not in PERHAPS_SPLITS and self.keys[i] not in FLAGS]
        others = free if len(free) == 1 else [i for i in free if not GROUP.fullmatch(self.keys[i])]
        if len(others) == 1:
            return self._give(others[0], "label", "the only other column")
        self._check_one_hot(free)
        raise DataError(
            f"{self.table} has no column that is known to hold labels, only {self.names}; rename it to `label`, or "
            f"choose it: {override('label', 'NAME')}"
        )

    def _without_header(self, free: list[int]) -> DataError:
        strange = next((cell for cell in self._cells(free[-1]) if key(cell) not in SPLIT_WORDS), "")
        return DataError(
            f"{self.table} has {len(self.names)} columns and no header, and {strange!r} in the last of them is no "
            "split (train, val or test); name the columns in a first row: path,label,…"
        )

    def _same_classes(self, named: list[int]) -> int:
        """The column of labels; of several the one with words, if all of them tell the same classes apart."""
        if not all(self._same(named[0], i) for i in named):
            names = [self.names[i] for i in named]
            raise DataError(
                f"{self.table} has several columns that may hold the labels, {names}; choose one: "
                f"{override('label', names[0])}"
            )
        called = [i for i in self._free() if self.keys[i].endswith(("name", "text")) and self._same(named[0], i)]
        named = list(dict.fromkeys((*named, *called)))
        words = [i for i in named if not all(map(is_number, self._cells(i)))]
        best = (words or named)[0]
        for i in named:
            if i != best:
                self._give(i, "ignored", f"the same classes as {self.names[best]!r}")
        return best

    def _same(self, one: int, other: int) -> bool:
        """Whether two columns tell the same classes apart."""
        first, second = self._cells(one), self._cells(other)
        return len(set(first)) == len(set(second)) == len(set(zip(first, second, strict=True)))

    def _check_one_hot(self, free: list[int]) -> None:
        cells = {i: {cell.casefold() for cell in self._cells(i)} for i in free}
        binary = [i for i in free if cells[i] <= TRUE | FALSE | {"", "-1", "-1.0"} and len(cells[i]) > 1]
        if len(binary) < 2:
            return
        names = [self.names[i] for i in binary]
        shown = f"{names[:8]}{' and more' if len(names) > 8 else ''}"
        if all(sum(row[i].casefold() in TRUE for i in binary if i < len(row)) == 1 for row in self.rows):
            cure = (
                "every row has exactly one 1: write that column's name into one column `label` (pandas: "
                "table['label'] = table[columns].idxmax(axis=1))"
            )
        else:
            cure = f"it is not supported yet: train one classifier for each column, {override('label', names[0])}"
        raise DataError(
            f"{self.table} has columns of 0 and 1 for the classes {shown}: this is multi-label data; {cure}"
        )

    def _check_boxes(self, image: int) -> None:
        if any(boxes <= set(self.keys) for boxes in BOXES) and self._repeats(image):
            raise DataError(
                f"{self.table} lists boxes, several for one image: object detection data, which is not supported; keep "
                "one row and one label for each image, or cut the boxes out as images of their own"
            )


def _names_above_files(rows: Sequence[Sequence[str]]) -> bool:
    """Whether only the first row has no file name."""
    below = rows[1:_SAMPLE]
    return bool(below) and not any(map(is_image_name, rows[0])) and all(any(map(is_image_name, row)) for row in below)


def _counts(cells: list[str]) -> bool:
    """Whether cells are 0, 1, 2, … or 1, 2, 3, …"""
    return len(cells) > 1 and cells in [[*map(str, range(first, first + len(cells)))] for first in (0, 1)]
