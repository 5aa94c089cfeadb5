"""Read labels: class names or integers, in the same way for every source."""

import functools
import re
import unicodedata
from collections.abc import Iterable, Sequence
from enum import Enum
from numbers import Integral, Real
from typing import Any

import numpy as np

from recipes.errors import DataError

MISSING = frozenset({"", "nan", "NaN", "<NA>", "NaT"})  # texts that pandas and NumPy write for missing values
_SCALARS = (str, bytes, Real, set, frozenset, dict, type(None))
_NUMBER = re.compile(r"[+-]?(\d+\.?\d*|\.\d+)(e[+-]?\d+)?", re.IGNORECASE)
MULTI_LABEL = (
    "multi-label data is not supported yet; keep one label per image, or train one classifier for each label on "
    "a column of yes and no"
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
    """Return whether `text` is a decimal number, such as "1", "-2.5" or "1e3"."""
    return _NUMBER.fullmatch(text) is not None


def alike(name: str) -> str:
    """Return a key that is equal for similar spellings, which ignores case, blanks, punctuation and Unicode forms.

    Numbers have the same key if their values are equal, as for "1", "01" and "1.0".
    """
    plain = unicodedata.normalize("NFKC", clean(name)).casefold()
    return f"{float(plain):g}" if is_number(plain) else re.sub(r"[\W_]+", "", plain) or plain


def as_labels(labels: Any, names: Sequence[str] = ()) -> np.ndarray:
    """Return labels as one array (n,) of text for class names, otherwise of integers or floats.

    Booleans become the names "False" and "True", one-hot rows become integers.

    Args:
        labels: A list, an array, a column of a table, or one-hot rows (n, classes).
        names: The name of each image in errors.

    Raises:
        DataError: If labels are missing, several per image, a mix of text and numbers, or of a wrong type.
    """
    if isinstance(labels, np.ma.MaskedArray):  # a masked entry is a missing label
        labels = labels.tolist() if np.ma.is_masked(labels) else labels.data
    array = labels if isinstance(labels, np.ndarray) else _array(labels)
    if array.ndim == 2:
        array = _from_rows(array)
    if array.ndim != 1:
        raise _wrong_shape(array)
    shown = names if len(names) == len(array) else [f"label {i}" for i in range(len(array))]
    if array.dtype.kind in "iu":
        return array
    if array.dtype.kind not in "fbSUO":
        seen = f"labels are of the type {array.dtype}; expected class names or integers 0, 1, 2, …"
        raise DataError(seen, code="labels.type", type=str(array.dtype))
    values = [_unwrapped(value, name) for value, name in zip(array.tolist(), shown, strict=True)]
    missing = [i for i, value in enumerate(values) if _is_missing(value)]
    if missing:
        images = tuple(shown[i] for i in missing)
        raise DataError(missing_labels(values, shown, missing), code="labels.missing", images=images)
    kinds = {_kind(value): i for i, value in reversed([*enumerate(values)])}
    if (i := kinds.get("several")) is not None:
        raise DataError(
            f"the label of {shown[i]} is {values[i]!r:.80}, several labels: {MULTI_LABEL}",
            code="labels.multi_label", image=shown[i],
        )  # fmt: skip
    if (i := kinds.get("other")) is not None:
        kind = type(values[i]).__name__
        raise DataError(
            f"the label of {shown[i]} is of the type {kind}; expected class names or integers",
            code="labels.type", image=shown[i], type=kind,
        )  # fmt: skip
    if len(kinds) > 1:
        examples = ", ".join(f"{values[i]!r} ({shown[i]})" for i in kinds.values())
        raise DataError(
            f"labels mix {' and '.join(sorted(kinds))}: {examples}; expected one kind: give only names or only "
            "integers",
            code="labels.mixed", kinds=tuple(sorted(kinds)),
        )  # fmt: skip
    if "number" not in kinds:
        return np.array(values, str)
    try:
        return np.array(values, np.int64 if all(isinstance(value, Integral) for value in values) else np.float64)
    except OverflowError:
        largest = max(values, key=abs)
        raise DataError(
            f"labels out of range: {largest}; integer labels count from 0", code="labels.out_of_range", value=largest
        ) from None


def _unwrapped(value: Any, image: str) -> Any:
    """Return the value of an Enum's member, the number in a NumPy scalar, and the text of bytes."""
    value = value.value if isinstance(value, Enum) else value
    value = value.item() if isinstance(value, np.generic) else value
    if not isinstance(value, bytes):
        return value
    try:
        return value.decode()
    except UnicodeDecodeError:
        raise DataError(
            f"the label of {image} is {value!r}, which is not valid UTF-8; encode names as UTF-8",
            code="labels.encoding", image=image,
        ) from None  # fmt: skip


def _wrong_shape(array: np.ndarray) -> DataError:
    return DataError(
        f"labels have shape {array.shape}; expected one integer or name per image, or one-hot rows",
        code="labels.shape", shape=array.shape,
    )  # fmt: skip


def _array(labels: Any) -> np.ndarray:
    """Return an array without NumPy's conversion of mixed lists, which would turn NaN into the name "nan"."""
    if hasattr(labels, "__array__"):
        return np.asarray(labels)
    if isinstance(labels, str | bytes | set | frozenset | dict) or not isinstance(labels, Iterable):
        kind = type(labels).__name__
        raise DataError(
            f"labels are of the type {kind}; expected a list or an array of one integer or name per image",
            code="labels.type", type=kind,
        )  # fmt: skip
    values = list(labels)
    if any(isinstance(value, list | tuple) or np.ndim(value) for value in values if not isinstance(value, _SCALARS)):
        try:
            return np.asarray(values)
        except ValueError:
            raise DataError(
                f"labels are lists of different lengths, several labels per image: {MULTI_LABEL}",
                code="labels.multi_label",
            ) from None
    array = np.empty(len(values), object)
    values = [None if value is np.ma.masked else value for value in values]
    array[:] = [np.asarray(value).item() if hasattr(value, "__array__") else value for value in values]
    return array


def _from_rows(rows: np.ndarray) -> np.ndarray:
    """Return labels (n, 1), or one-hot rows (n, classes), as (n,)."""
    if rows.shape[1] == 1:
        return rows[:, 0]
    if rows.dtype.kind in "iufb" and len(rows):
        binary, sums = np.isin(rows, (0, 1)).all(), rows.sum(1)
        if binary and (sums == 1).all():
            return rows.argmax(1)
        if not binary and np.allclose(sums, 1, atol=1e-3) and rows.min() >= 0:
            raise DataError(
                f"labels are rows of {rows.shape[1]} probabilities; soft labels are not supported: give the most "
                "probable class, labels.argmax(1)",
                code="labels.probabilities",
            )
        if not binary:
            raise _wrong_shape(rows)
    raise DataError(
        f"labels are rows of {rows.shape[1]}, and not every row has exactly one 1: {MULTI_LABEL}",
        code="labels.multi_label",
    )


def missing_labels(labels: Sequence[object], images: Sequence[str], missing: Sequence[int]) -> str:
    """Return the message about missing labels at the positions `missing`."""
    examples = ", ".join(f"{images[i]} ({labels[i]!r})" for i in missing[:5])
    return (
        f"{len(missing):,} of {len(labels):,} labels are missing: {examples}; label these images or leave them "
        "out (if the text is the name of a class, rename the class)"
    )


def _is_missing(value: object) -> bool:
    if isinstance(value, str):
        return clean(value) in MISSING
    is_nan = isinstance(value, Real) and value != value
    return value is None or is_nan or type(value).__name__ in ("NAType", "NaTType")


def _kind(value: object) -> str:
    if isinstance(value, bool):
        return "boolean"
    if isinstance(value, str):
        return "text"
    if isinstance(value, Real):
        return "number"
    return "several" if isinstance(value, list | tuple | set | frozenset | dict | np.ndarray) else "other"


def whole_numbers(labels: np.ndarray, class_names: Sequence[str] | None = None) -> np.ndarray:
    """Return text labels; if all are whole numbers with a decimal point, such as "2.0", return them without it.

    Args:
        labels: Text labels (n,).
        class_names: Known classes. If all labels are among them, the labels stay unchanged.
    """
    if class_names is not None and set(labels.tolist()) <= set(class_names):
        return labels
    if not len(labels) or not all(re.fullmatch(r"[+-]?\d+\.0*", label) for label in set(labels.tolist())):
        return labels
    return np.array([label.partition(".")[0] for label in labels.tolist()], str)
