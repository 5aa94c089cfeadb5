"""Recognise the columns of a table that name the split or the group of a row.

Names of such columns vary, so they are recognised by their words: `is_validation_set`, `in_val`, `strat_fold`,
`split_0`, `slide_id`. Ambiguous columns are reported and never used. A group is a set of rows that must stay together,
such as photos of one patient.
"""

import re
from dataclasses import dataclass, field

from recipes.data.labels import is_number
from recipes.data.tables.cells import Cells
from recipes.data.tables.names import (
    FALSE,
    FILLERS,
    FOLD,
    GROUP,
    IMAGE_RANKS,
    LABELS,
    PARTS,
    PERHAPS_SPLITS,
    SPLITS,
    TRUE,
    UNASSIGNED,
    WEAK_LABELS,
    key,
    override,
    split_of,
    words_in,
    words_of,
)

_ID_WORDS = words_in("id ids uid uuid guid")
_NUMBERING = _ID_WORDS | words_in("no nr num number idx index code name data")
_GROUP_OR_LABEL = re.compile(r"(slide|person|video|sequence|seq)s?(name|idx|index)?")
_SOURCE = re.compile(  # photos of one source may be alike, or may only have the same photographer
    r"(user|session|location|camera|site|station|hospital|center|centre|scanner)s?(id|no|number|name|idx|index|code)?"
)
_SHARED_IDS = words_in(  # names of IDs that unrelated images share
    "annotation annotator rater reviewer labeler labeller worker hit license licence status color colour job task "
    "project version batch model"
)
_FLAG = re.compile(  # a name of several parts, such as "trainval", is true for several splits
    rf"(?!invalid)(?P<question>(is|in|for|used?)+)?(?P<part>({'|'.join(PARTS)}|hold|holdout|heldout|eval|evaluation|"
    rf"development)+)(?P<rest>{FILLERS})"
)


@dataclass(frozen=True)
class Flag:
    """The meaning of a boolean column that marks a split.

    Attributes:
        split: The split of the rows with a true value; None if these may be validation or test images.
        is_clear: Whether the name has no other meaning; False for `valid`, for example.
        is_question: Whether the name is a question, such as `is_valid`.
    """

    split: str | None
    is_clear: bool
    is_question: bool


def flag_of(column_key: str) -> Flag | None:
    """Return the flag that a column's name means; `name` is the result of `key`. Return None for other names."""
    found = _FLAG.fullmatch(column_key)
    if not found:
        return None
    split, question = PARTS.get(found["part"]), bool(found["question"])
    adjective = found["part"] == "valid" and not question and not found["rest"].startswith(("set", "split", "subset"))
    return Flag(split, split is not None and not adjective, question)


@dataclass
class SplitColumns:
    """Positions of the columns about splits.

    Attributes:
        named: The column whose cells name the split of a row.
        flags: Used if `named` is None: columns that are true for the rows of one split, with that split.
        unclear: Columns that may name a split but are not used, each with the reason.
        without: Columns that are named like a split but do not divide the rows, each with the reason.
    """

    named: int | None = None
    flags: dict[int, str] = field(default_factory=dict)
    unclear: dict[int, str] = field(default_factory=dict)
    without: dict[int, str] = field(default_factory=dict)


def find_splits(cells: Cells, free: list[int]) -> SplitColumns:
    """Return the columns among `free` that are about splits.

    Raises:
        DataError: If several columns name a split, or a cell of a flag is neither true nor false.
    """
    found = SplitColumns()
    named = [i for i in free if _names_splits(cells, i)]
    unassigned = [i for i in named if cells.values(i) == {UNASSIGNED}]
    found.without.update(dict.fromkeys(unassigned, "no row is assigned to a split"))
    named = [i for i in named if i not in unassigned]
    for i in (i for i in free if i not in named and i not in found.without):
        _classify(cells, i, found)
    _add_valid(cells, found)
    if len(named) > 1 and len({tuple(map(key, cells.of(i))) for i in named}) == 1:
        named = named[:1]  # the columns are equal
    held_out = [i for i in found.unclear if (flag := flag_of(cells.keys[i])) and flag.split is None]
    if len(named) > 1 or sum(map(bool, (named, found.flags, held_out))) > 1:
        raise cells.ambiguous("split", "name a split", sorted({*named, *found.flags, *held_out}))
    _check_flags(cells, found)
    found.named = next(iter(named), None)
    used = named or sorted(found.flags)
    if used:
        found.without.update(dict.fromkeys(found.unclear, f"the split is {cells.names[used[0]]!r}"))
        found.unclear.clear()
    return found


def split_chosen(cells: Cells, chosen: int, free: list[int]) -> SplitColumns:
    """Return the column `chosen` as the column of splits, and ignore other columns that seem to name splits.

    Raises:
        DataError: If the column only marks the training images.
    """
    similar = [i for i in free if flag_of(cells.keys[i]) or _called_split(cells, i) or _names_splits(cells, i)]
    found = SplitColumns(chosen, without=dict.fromkeys(similar, f"the split is {cells.names[chosen]!r}"))
    flag = flag_of(cells.keys[chosen])
    if flag and flag.split and cells.is_boolean(chosen):
        found.named, found.flags = None, {chosen: flag.split}
        _check_flags(cells, found)
    return found


def _check_flags(cells: Cells, found: SplitColumns) -> None:
    if set(found.flags.values()) == {"train"}:
        name = cells.names[min(found.flags)]
        seen = (
            f"marks the training images in column {name!r}, but does not say whether the other rows are validation or"
        )
        cure = (
            f"replace this column by a column `split` of train, val and test, or ignore it: {override('ignore', name)}"
        )
        raise cells.error("table.only_train", f"{seen} test images; {cure}", column=name)


def _names_splits(cells: Cells, i: int) -> bool:
    """Return whether all cells of a column name splits."""
    if cells.keys[i] in SPLITS:
        return True
    values = cells.values(i)
    known = (bool(split_of(value)) or value == UNASSIGNED for value in values)
    if _called_split(cells, i):
        return any(known)
    return all(known) and values != {"valid"} and not _has_other_role(cells, i) and len(cells.names) > 2


def _called_split(cells: Cells, i: int) -> bool:
    """Return whether a name has a word such as set, phase or split."""
    return cells.keys[i] in PERHAPS_SPLITS or not (PERHAPS_SPLITS | SPLITS).isdisjoint(cells.words[i])


def _has_other_role(cells: Cells, i: int) -> bool:
    """Return whether a column is named like labels or images."""
    labels = LABELS if LABELS.intersection(cells.keys) else LABELS | WEAK_LABELS
    return cells.keys[i] in labels or cells.keys[i] in IMAGE_RANKS


def _classify(cells: Cells, i: int, found: SplitColumns) -> None:
    """Add a column to `found` if it is about splits although not all its cells name splits."""
    if not cells.has_header:
        return  # a column without a name must not be ignored silently
    flag, called = flag_of(cells.keys[i]), _called_split(cells, i)
    divides_rows = cells.is_few(i) and len(cells.names) > 2
    if flag and flag.split and flag.is_clear and cells.is_boolean(i):
        found.flags[i] = flag.split
    elif flag and flag.is_clear and flag.is_question:
        strange = next(cell for cell in cells.of(i) if cell.casefold() not in TRUE | FALSE)
        seen = f"has the value {strange!r} in its column {cells.names[i]!r}; expected only true and false, or 1 and 0"
        raise cells.error("table.not_boolean", seen, column=cells.names[i], value=strange)
    elif divides_rows and flag:
        found.unclear[i] = "may name a split"
    elif divides_rows and (_numbers_splits(cells, i) or not SPLITS.isdisjoint(cells.words[i])):
        found.unclear[i] = "may name splits, but its values do not show which rows are train, val and test"
    elif divides_rows and not _has_other_role(cells, i) and _mentions_splits(cells, i):
        found.unclear[i] = "some of its cells name a split"
    elif flag or called:
        found.without[i] = "its cells name no split"


def _numbers_splits(cells: Cells, i: int) -> bool:
    """Return whether a name only consists of words such as "set" or "phase", and the cells are numbers."""
    words = {word for word in cells.words[i] if not word.isdecimal()}
    return _called_split(cells, i) and words <= PERHAPS_SPLITS | _NUMBERING and all(map(is_number, cells.values(i)))


def _mentions_splits(cells: Cells, i: int) -> bool:
    """Return whether most cells hold a word that names a split, such as "internal val", and these splits differ."""
    mentioned = [{split_of(word) for word in words_of(value)} - {None} for value in cells.values(i)]
    return len(set().union(*mentioned)) > 1 and 2 * sum(len(splits) == 1 for splits in mentioned) >= len(mentioned)


def _add_valid(cells: Cells, found: SplitColumns) -> None:
    """Read `valid` as the validation split beside `train` or `test`; alone, it may mark undamaged images."""
    for i in [i for i in found.unclear if cells.is_boolean(i)]:
        flag = flag_of(cells.keys[i])
        others = [cells.of(other) for other in found.flags]
        apart = all(sum(cell.casefold() in TRUE for cell in row) < 2 for row in zip(cells.of(i), *others, strict=True))
        if flag and flag.split and others and apart and "validation" not in found.flags.values():
            found.flags[i] = flag.split
            del found.unclear[i]


def is_fold(cells: Cells, i: int) -> bool:
    """Return whether a column numbers the folds of a cross-validation."""
    words = [word for word in cells.words[i] if not word.isdecimal() and word not in _NUMBERING]
    named = FOLD.fullmatch(cells.keys[i]) or (words and FOLD.fullmatch(words[-1]))
    return bool(named) and not cells.is_constant(i)


def is_group(cells: Cells, i: int) -> bool:
    """Return whether rows with the same value in a column belong together, so that a split must not separate them."""
    name = cells.keys[i]
    named = (GROUP.fullmatch(name) or _GROUP_OR_LABEL.fullmatch(name)) and not _SOURCE.fullmatch(name)
    return bool(named) and _divides(cells, i)


def may_be_group(cells: Cells, i: int, label: int) -> bool:
    """Return whether rows with the same value in a column may belong together.

    This is possible for a source, such as a camera, and for every `…_id` that several images share. A column that the
    label determines, such as the number of a genus, is no group.
    """
    if not _divides(cells, i):
        return False
    if _SOURCE.fullmatch(cells.keys[i]):
        return True
    *stem, last = cells.words[i] or ("",)
    shared = LABELS | WEAK_LABELS | _SHARED_IDS | IMAGE_RANKS.keys()
    identifies = last in _ID_WORDS and stem and "".join(stem) not in shared
    return bool(identifies) and not _has_other_role(cells, i) and not cells.follows(i, label)


def _divides(cells: Cells, i: int) -> bool:
    """Return whether a column has several distinct values, and one of them occurs twice."""
    return cells.repeats(i) and not cells.is_constant(i)
