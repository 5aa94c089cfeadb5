"""Which columns of a table say, or may say, which split a row belongs to, and which rows belong together.

Names are understood by their words, since there is no end of them: `is_validation_set`, `in_val`, `strat_fold`,
`split_0`, `slide_id`. A column whose cells decide between a clear and an unclear reading is never guessed at.
"""

from dataclasses import dataclass, field

from recipes.data.labels import is_number
from recipes.data.tables.cells import Cells
from recipes.data.tables.names import (
    FALSE,
    FOLD,
    GROUP,
    ID_WORDS,
    IMAGE_RANKS,
    LABELS,
    NUMBERING,
    PERHAPS_SPLITS,
    SHARED_IDS,
    SOURCE,
    SPLITS,
    TRUE,
    UNASSIGNED,
    WEAK_LABELS,
    flag_of,
    key,
    override,
    split_of,
    words_of,
)
from recipes.errors import DataError


@dataclass
class SplitColumns:
    """Columns about splits, by their positions.

    named: the column whose cells name the split of a row.
    flags: instead of it, columns that are true for the rows of one split, and that split.
    unclear: columns that may name a split, and why they do not say which.
    without: columns that have the name of a split and say nothing, and why.
    """

    named: int | None = None
    flags: dict[int, str] = field(default_factory=dict)
    unclear: dict[int, str] = field(default_factory=dict)
    without: dict[int, str] = field(default_factory=dict)


def find_splits(cells: Cells, free: list[int]) -> SplitColumns:
    """Return what the columns `free` say of splits.

    Raises:
        DataError: for several columns that name a split, and for flags that are neither true nor false.
    """
    found = SplitColumns()
    named = [i for i in free if _names_splits(cells, i)]
    unassigned = [i for i in named if cells.values(i) == {UNASSIGNED}]
    found.without.update(dict.fromkeys(unassigned, "no row is assigned to a split"))
    named = [i for i in named if i not in unassigned]
    for i in (i for i in free if i not in named and i not in found.without):
        _sort(cells, i, found)
    _add_valid(cells, found)
    if len(named) > 1 and len({tuple(map(key, cells.of(i))) for i in named}) == 1:
        named = named[:1]  # they say the same
    held_out = [i for i in found.unclear if (flag := flag_of(cells.keys[i])) and flag.split is None]
    if len(named) > 1 or sum(map(bool, (named, found.flags, held_out))) > 1:
        names = [cells.names[i] for i in sorted({*named, *found.flags, *held_out})]
        raise DataError(
            f"{cells.table} has several columns that name a split, {names}; choose one: {override('split', names[0])}"
        )
    _check_flags(cells, found)
    found.named = next(iter(named), None)
    for i in [*found.unclear] if named or found.flags else []:
        used = found.named if named else min(found.flags)
        found.without[i] = f"the split is {cells.names[used]!r}"
        del found.unclear[i]
    return found


def split_chosen(cells: Cells, chosen: int, free: list[int]) -> SplitColumns:
    """Return what the column `chosen` says of splits; others that seem to name splits do not count.

    Raises:
        DataError: for a column that only says which rows are trained on.
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
        raise DataError(
            f"column {cells.names[min(found.flags)]!r} of {cells.table} says which rows are trained on, but not "
            "whether the others are validation or test images; replace it by a column `split` of train, val and test, "
            f"or ignore it: {override('ignore', cells.names[min(found.flags)])}"
        )


def _names_splits(cells: Cells, i: int) -> bool:
    if cells.keys[i] in SPLITS:
        return True
    values = cells.values(i)
    known = (bool(split_of(value)) or value == UNASSIGNED for value in values)
    if _called_split(cells, i):
        return any(known)
    return all(known) and values != {"valid"} and not _has_other_role(cells, i) and len(cells.names) > 2


def _called_split(cells: Cells, i: int) -> bool:
    """Whether a name has a word such as set, phase or split."""
    return cells.keys[i] in PERHAPS_SPLITS or not (PERHAPS_SPLITS | SPLITS).isdisjoint(cells.words[i])


def _has_other_role(cells: Cells, i: int) -> bool:
    labels = LABELS if LABELS.intersection(cells.keys) else LABELS | WEAK_LABELS
    return cells.keys[i] in labels or cells.keys[i] in IMAGE_RANKS


def _sort(cells: Cells, i: int, found: SplitColumns) -> None:
    """Enter a column whose cells are not all names of splits where it belongs; most columns belong nowhere."""
    if not cells.has_header:
        return  # no column without a name may be left out
    flag, called = flag_of(cells.keys[i]), _called_split(cells, i)
    parts_rows = cells.is_few(i) and len(cells.names) > 2
    if flag and flag.is_clear and cells.is_boolean(i):
        found.flags[i] = flag.split
    elif flag and flag.is_clear and flag.is_question:
        strange = next(cell for cell in cells.of(i) if cell.casefold() not in TRUE | FALSE)
        raise DataError(
            f"column {cells.names[i]!r} of {cells.table} has {strange!r}; expected only true and false, or 1 and 0"
        )
    elif parts_rows and flag:
        found.unclear[i] = "may name a split"
    elif parts_rows and (_numbers_splits(cells, i) or not SPLITS.isdisjoint(cells.words[i])):
        found.unclear[i] = "may name splits: which of them are train, val and test is not known"
    elif parts_rows and not _has_other_role(cells, i) and _speaks_of_splits(cells, i):
        found.unclear[i] = "some of its cells name a split"
    elif flag or called:
        found.without[i] = "its cells name no split"


def _numbers_splits(cells: Cells, i: int) -> bool:
    """Whether a name says nothing but "set" or "phase", and the cells are numbers."""
    words = {word for word in cells.words[i] if not word.isdecimal()}
    return _called_split(cells, i) and words <= PERHAPS_SPLITS | NUMBERING and all(map(is_number, cells.values(i)))


def _speaks_of_splits(cells: Cells, i: int) -> bool:
    """Whether most cells hold a word that names a split, and these are different splits ("train", "internal val")."""
    spoken = [{split_of(word) for word in words_of(value)} - {None} for value in cells.values(i)]
    return len(set().union(*spoken)) > 1 and 2 * sum(len(splits) == 1 for splits in spoken) >= len(spoken)


def _add_valid(cells: Cells, found: SplitColumns) -> None:
    """Read `valid`, which may as well say which images are sound, as the validation split beside `train` or `test`."""
    for i in [i for i in found.unclear if cells.is_boolean(i)]:
        flag = flag_of(cells.keys[i])
        others = [cells.of(other) for other in found.flags]
        apart = all(sum(cell.casefold() in TRUE for cell in row) < 2 for row in zip(cells.of(i), *others, strict=True))
        if flag and flag.split and others and apart and "validation" not in found.flags.values():
            found.flags[i] = flag.split
            del found.unclear[i]


def is_fold(cells: Cells, i: int) -> bool:
    """Whether a column numbers the folds of a cross-validation."""
    words = [word for word in cells.words[i] if not word.isdecimal() and word not in NUMBERING]
    named = FOLD.fullmatch(cells.keys[i]) or (words and FOLD.fullmatch(words[-1]))
    return bool(named) and not cells.is_constant(i)


def is_group(cells: Cells, i: int, label: int) -> bool:
    """Whether rows with one value of a column belong together, so that a split made at random would part them.

    Any `…_id` that several images share counts, unless the label decides it, as it does the number of a genus.
    """
    if not cells.repeats(i) or cells.is_constant(i):
        return False
    if GROUP.fullmatch(cells.keys[i]) or SOURCE.fullmatch(cells.keys[i]):
        return True
    *stem, last = cells.words[i] or ("",)
    shared = LABELS | WEAK_LABELS | SHARED_IDS | IMAGE_RANKS.keys()
    identifies = last in ID_WORDS and stem and "".join(stem) not in shared
    return bool(identifies) and not _has_other_role(cells, i) and not cells.follows(i, label)
