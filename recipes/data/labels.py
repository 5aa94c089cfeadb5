"""What the labels of images are: class names or integers, read in one way wherever they come from."""

import functools
import re
import unicodedata
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Sequence
from enum import Enum
from numbers import Integral, Real

import numpy as np

from recipes.data.finding import Finding
from recipes.errors import DataError

MISSING = frozenset({"", "nan", "NaN", "<NA>", "NaT"})  # how pandas and NumPy write a missing value as text
_PERHAPS_MISSING = frozenset({"none", "null", "na", "n/a", "#n/a"})
_SCALARS = (str, bytes, Real, set, frozenset, dict, type(None))
_NUMBER = re.compile(r"[+-]?(\d+\.?\d*|\.\d+)(e[+-]?\d+)?", re.IGNORECASE)
_JOINERS = re.compile(r"[|;,/\\+&\n\t，、；]+|(?<=\s)and(?=\s)|(?<=_)and(?=_)", re.IGNORECASE)  # between several labels
_REGION = re.compile(r"(\S+ )?[-\d.]+([ ,;]+[-\d.]+){3,}( .*)?")  # of an image: a box, or the runs of a mask
_MULTI_LABEL = (
    "this is multi-label data, which is not supported yet: keep one label per image, or train one classifier for each "
    "label on a column that says yes or no"
)


@functools.lru_cache(2**16)
def clean(name: str) -> str:
    """Return `name` in the Unicode form NFC, without blanks and invisible characters at its ends."""
    return unicodedata.normalize("NFC", stripped(name))


def stripped(name: str) -> str:
    """Return `name` without blanks and invisible characters at its ends."""
    if name.isascii() and name.isprintable():
        return name.strip()
    visible = [i for i, c in enumerate(name) if not (c.isspace() or unicodedata.category(c) in ("Cf", "Cc"))]
    return name[visible[0] : visible[-1] + 1] if visible else ""


def is_number(text: str) -> bool:
    return _NUMBER.fullmatch(text) is not None


def alike(name: str) -> str:
    """Return what two spellings of one name share: case, blanks, signs and Unicode forms do not count.

    Numbers are alike if their values are equal: "1", "01" and "1.0".
    """
    plain = unicodedata.normalize("NFKC", clean(name)).casefold()
    return f"{float(plain):g}" if is_number(plain) else re.sub(r"[\W_]+", "", plain) or plain


def as_labels(labels, names: Sequence[str] = ()) -> np.ndarray:
    """Return labels as one array (n,): of text if they are class names, otherwise of integers or of whole floats.

    Booleans become the names "False" and "True", one-hot rows become integers.

    Args:
        labels: list, array, column of a table, or (n, classes) one-hot rows.
        names: what to call each image in an error.

    Raises:
        DataError: for missing labels, several labels per image, a mix of text and numbers, or any other type.
    """
    if isinstance(labels, np.ma.MaskedArray):  # a masked label is a missing one
        labels = labels.tolist() if np.ma.is_masked(labels) else labels.data
    array = labels if isinstance(labels, np.ndarray) else _array(labels)
    if array.ndim == 2:
        array = _from_rows(array)
    if array.ndim != 1:
        raise DataError(f"labels have shape {array.shape}; expected one integer or name per image, or one-hot rows")
    shown = names if len(names) == len(array) else [f"label {i}" for i in range(len(array))]
    if array.dtype.kind in "iu":
        return array
    if array.dtype.kind not in "fbSUO":
        raise DataError(f"labels are of the type {array.dtype}; expected class names or integers 0, 1, 2, …")
    values = [value.value if isinstance(value, Enum) else value for value in array.tolist()]
    values = [value.item() if isinstance(value, np.generic) else value for value in values]
    _check_missing(values, shown)
    kinds = {_kind(value): i for i, value in reversed([*enumerate(values)])}
    for kind, i in kinds.items():
        if kind == "several":
            raise DataError(f"the label of {shown[i]} is {values[i]!r:.80}, several labels: {_MULTI_LABEL}")
        if kind == "other":
            name = type(values[i]).__name__
            raise DataError(f"the label of {shown[i]} is of the type {name}; expected class names or integers")
    if len(kinds) > 1:
        examples = ", ".join(f"{values[i]!r} ({shown[i]})" for i in kinds.values())
        raise DataError(f"labels mix {' and '.join(sorted(kinds))}: {examples}; give only names or only integers")
    if "number" in kinds:
        whole = all(isinstance(value, Integral) for value in values)
        return _integers(values) if whole else np.array(values, np.float64)
    return np.array([_text(value, name) for value, name in zip(values, shown, strict=True)], str)


def _array(labels) -> np.ndarray:
    """Without the conversions that NumPy makes of a mixed list: NaN among names would become the name "nan"."""
    if hasattr(labels, "__array__"):
        return np.asarray(labels)
    if isinstance(labels, str | bytes | set | frozenset | dict) or not isinstance(labels, Iterable):
        kind = type(labels).__name__
        raise DataError(f"labels are of the type {kind}; expected a list or an array of one integer or name per image")
    values = list(labels)
    if any(isinstance(value, list | tuple) or np.ndim(value) for value in values if not isinstance(value, _SCALARS)):
        try:
            return np.asarray(values)
        except ValueError:
            raise DataError(f"labels are lists of several lengths, several labels per image: {_MULTI_LABEL}") from None
    array = np.empty(len(values), object)
    values = [None if value is np.ma.masked else value for value in values]
    array[:] = [np.asarray(value).item() if hasattr(value, "__array__") else value for value in values]
    return array


def _from_rows(rows: np.ndarray) -> np.ndarray:
    """Labels (n, 1), or one-hot rows (n, classes), as (n,)."""
    if rows.shape[1] == 1:
        return rows[:, 0]
    if rows.dtype.kind in "iufb" and len(rows):
        binary, sums = np.isin(rows, (0, 1)).all(), rows.sum(1)
        if binary and (sums == 1).all():
            return rows.argmax(1)
        if not binary and np.allclose(sums, 1, atol=1e-3) and rows.min() >= 0:
            raise DataError(
                f"labels are rows of {rows.shape[1]} probabilities; soft labels are not supported: give the most "
                "probable class, labels.argmax(1)"
            )
        if not binary:
            raise DataError(f"labels have shape {rows.shape}; expected one integer or name per image, or one-hot rows")
    raise DataError(f"labels are rows of {rows.shape[1]}, and not every row has exactly one 1: {_MULTI_LABEL}")


def _check_missing(values: list, shown: Sequence[str]) -> None:
    missing = [i for i, value in enumerate(values) if _is_missing(value)]
    if missing:
        examples = ", ".join(f"{shown[i]} ({values[i]!r})" for i in missing[:5])
        raise DataError(
            f"{len(missing)} of {len(values)} labels are missing: {examples}; label these images or leave them out "
            "(a class of that name: rename it)"
        )


def _is_missing(value) -> bool:
    if isinstance(value, bytes | str):
        text = value.decode("utf-8", "replace") if isinstance(value, bytes) else value
        return clean(text) in MISSING
    if value is None or type(value).__name__ in ("NAType", "NaTType"):
        return True
    return isinstance(value, Real | np.generic) and value != value  # NaN, and NumPy's NaT


def _kind(value) -> str:
    if isinstance(value, bool):
        return "boolean"
    if isinstance(value, str | bytes):
        return "text"
    if isinstance(value, Real):
        return "number"
    return "several" if isinstance(value, list | tuple | set | frozenset | dict | np.ndarray) else "other"


def _integers(values: list) -> np.ndarray:
    try:
        return np.array(values, np.int64)
    except OverflowError:
        raise DataError(f"labels out of range: {max(values, key=abs)}; integer labels count from 0") from None


def _text(value, name: str) -> str:
    if isinstance(value, bytes):
        try:
            value = value.decode()
        except UnicodeDecodeError:
            raise DataError(f"the label of {name} is {value!r}, which is not UTF-8; encode names as UTF-8") from None
    return str(value)


def whole_numbers(labels: np.ndarray, class_names: Sequence[str] | None = None) -> np.ndarray:
    """Return labels which are text; if all are whole numbers with a point ("2.0", "2.000000"), without it.

    class_names: classes that the labels are to be found among; if they are, the labels stay as they are.
    """
    if class_names is not None and set(labels.tolist()) <= set(class_names):
        return labels
    if not len(labels) or not all(re.fullmatch(r"[+-]?\d+\.0*", label) for label in set(labels.tolist())):
        return labels
    return np.array([label.partition(".")[0] for label in labels.tolist()], str)


def classes_of(labels: np.ndarray) -> list[str]:
    """Return the sorted class names that occur among labels which are text, each as `clean` returns it.

    Raises:
        DataError: where a label is several labels in one, or one number is spelled in several ways.
    """
    known = sorted(set(map(clean, labels.tolist())))
    spellings = defaultdict(list)
    for name in known:
        if is_number(name):
            spellings[float(name)].append(name)
    for names in spellings.values():
        if len(names) > 1:
            raise DataError(f"labels {names} are several spellings of one number; write it in one way")
    regions = [name for name in known if _REGION.fullmatch(name)]
    if len(regions) > max(1, len(known) / 2):
        raise DataError(
            f"labels such as {regions[0]!r:.80} are lists of numbers, as boxes and masks are; expected class names: "
            "object detection and segmentation are not supported"
        )
    several = _several_in_one(known)
    if several:
        example, separator = several
        raise DataError(
            f"label {example!r} is several labels in one, separated by {separator!r}: {_MULTI_LABEL}. If it is the "
            "name of one class, write it with another sign, such as an underscore"
        )
    return known


def _several_in_one(names: list[str]) -> tuple[str, str] | None:
    """A label that is a list of labels, and what separates them; None where every label is one name.

    A list as Python or JSON writes it is one, and so is "cat/dog" where cat and dog are labels too. Otherwise labels
    are lists if most of them are made of other labels, or, where few words make many labels, if many of them are a part
    of another: "red panda", "Pepper, bell" and "salt & pepper" are names.
    """
    known = frozenset(names)
    for name in names:
        if re.fullmatch(r"\[\s*\]|\[.*['\",].*\]|\{.*['\",].*\}|\(.*,.*\)", name, re.DOTALL):
            return name, name[0]
    for name in names:
        parts = re.split(_JOINERS, name)
        if len(parts) > 1 and all(part.strip(" _") in known for part in parts):
            return name, re.search(_JOINERS, name)[0].strip()
    for separator in "|;, _-":
        parts = {name: frozenset(filter(None, map(str.strip, name.split(separator)))) for name in names}
        lists = [name for name in names if len(parts[name]) > 1]
        words = Counter(word for each in parts.values() for word in each)
        if separator in "|;":  # hardly ever a part of a name
            found = [name for name in lists if any(words[word] > 1 for word in parts[name])]
        else:
            found = [name for name in lists if parts[name] <= known]
            found = found if len(found) > max(1, len(lists) / 2) else []
        if not found and separator not in "_-" and len(words) < len(names) >= 8:
            some = [*parts.values()][:500]
            within = sum(any(one < other for other in some) for one in some)
            found = lists if within > len(some) / 4 else []
        if found:
            return found[0], separator
    return None


def positions_of(labels: np.ndarray, class_names: Sequence[str]) -> np.ndarray:
    """Return the position (n,) of each label, which is text, among `class_names`.

    A label that is none of them as it stands is one of them if `clean` makes both equal.

    Raises:
        DataError: for labels that are not among them, with the class that is spelled alike, if there is one.
    """
    position = {clean(name): i for i, name in enumerate(class_names)} | {name: i for i, name in enumerate(class_names)}
    found = {name: position.get(name, position.get(clean(name))) for name in set(labels.tolist())}
    strange = sorted(name for name, i in found.items() if i is None)
    if strange:
        similar = {alike(name): name for name in class_names}
        meant = [f"{name!r} for {similar[alike(name)]!r}" for name in strange if alike(name) in similar]
        hint = f" (spelled {', '.join(meant[:5])}?)" if meant else ""
        raise DataError(
            f"labels {strange[:5]} are not among the classes {list(class_names)}{hint}; rename them, or leave them out"
        )
    return np.array([found[name] for name in labels.tolist()], np.int64)


def class_name_findings(class_names: Sequence[str]) -> Iterator[Finding]:
    """What is odd about the names of classes: names alike, numbers that look like a scale, names for missing values."""
    groups = defaultdict(list)
    for name in class_names:
        groups[alike(name)].append(name)
    for names in groups.values():
        if len(names) > 1:
            action = "kept as several classes: give them one name if they are one"
            yield Finding("alike class names", tuple(map(repr, names)), action)
    if len(class_names) > 2 and all(map(is_number, class_names)):
        values = sorted(map(float, class_names))
        if values != list(range(len(values))):
            action = (
                f"kept as {len(values)} classes without an order; grades, ratings and measurements are not predicted "
                "as numbers, so join values into a few ranges if these are measurements"
            )
            yield Finding("numbers as class names", tuple(sorted(class_names, key=float)), action)
    odd = tuple(repr(name) for name in class_names if name.casefold() in _PERHAPS_MISSING)
    if odd:
        action = "kept as a class: leave these images out if their label is missing"
        yield Finding("name of a missing value", odd, action)
