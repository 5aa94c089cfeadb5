"""Derive the classes from labels that are text, and check the names of classes."""

import re
from collections import Counter, defaultdict
from collections.abc import Iterator, Sequence

import numpy as np

from recipes.data.finding import Finding
from recipes.data.labels import MULTI_LABEL, alike, clean, is_number
from recipes.errors import DataError

_PERHAPS_MISSING = frozenset({"none", "null", "na", "n/a", "#n/a"})
# separators between several labels
_JOINERS = re.compile(r"[|;,/\\+&\n\t，、；]+|(?<=\s)and(?=\s)|(?<=_)and(?=_)", re.IGNORECASE)
# numbers that describe a region of an image: a box, or the runs of a mask
_REGION = re.compile(r"(\S+ )?[-\d.]+([ ,;]+[-\d.]+){3,}( .*)?")


def classes_of(labels: np.ndarray) -> list[str]:
    """Return the sorted class names among text labels, each as `clean` returns it.

    Raises:
        DataError: If a label consists of several labels, or one number is spelled in several ways.
    """
    known = sorted(set(map(clean, labels.tolist())))
    spellings = defaultdict(list)
    for name in known:
        if is_number(name):
            spellings[float(name)].append(name)
    for names in spellings.values():
        if len(names) > 1:
            raise DataError(
                f"labels {names} are several spellings of one number; expected one spelling: write the number in "
                "one way",
                code="labels.spellings", labels=tuple(names),
            )  # fmt: skip
    regions = [name for name in known if _REGION.fullmatch(name)]
    if len(regions) > max(1, len(known) / 2):
        raise DataError(
            f"labels such as {regions[0]!r:.80} are lists of numbers, like boxes or masks; expected class names. "
            "Object detection and segmentation are not supported: give one class name per image",
            code="labels.regions", label=regions[0],
        )  # fmt: skip
    several = _several_in_one(known)
    if several:
        example, separator = several
        raise DataError(
            f"label {example!r} consists of several labels, separated by {separator!r}: {MULTI_LABEL}. If the "
            "label is the name of one class, write it with another separator, such as an underscore",
            code="labels.multi_label", label=example, separator=separator,
        )  # fmt: skip
    return known


def _several_in_one(names: list[str]) -> tuple[str, str] | None:
    """Return the first label that is a list of labels, and its separator; None if every label is one name.

    A label is a list if it is written as a list of Python or JSON, or as "cat|dog". "cat/dog" is a list if cat and dog
    are also labels. Otherwise labels are lists if most of them consist of other labels. If a few words form many
    labels, the labels are lists if many of them are parts of others. Therefore "red panda", "Pepper, bell" and "salt &
    pepper" are names.
    """
    known = frozenset(names)
    for name in names:
        if re.fullmatch(r"\[\s*\]|\[.*['\",].*\]|\{.*['\",].*\}|\(.*,.*\)", name, re.DOTALL):
            return name, name[0]
        if re.search(r"[^\s|]\s*\|\s*[^\s|]", name):
            return name, "|"
    for name in names:
        joiner, parts = re.search(_JOINERS, name), re.split(_JOINERS, name)
        if joiner and all(part.strip(" _") in known for part in parts):
            return name, joiner[0].strip()
    for separator in ";, _-":
        parts = {name: frozenset(filter(None, map(str.strip, name.split(separator)))) for name in names}
        lists = [name for name in names if len(parts[name]) > 1]
        words = Counter(word for each in parts.values() for word in each)
        if separator == ";":  # this separator is hardly ever a part of a name
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
    """Return the position (n,) of each text label among `class_names`.

    A label that is not a class name matches the class whose name is equal after `clean`.

    Raises:
        DataError: If labels are not among the classes; the message suggests classes with a similar spelling.
    """
    position = {clean(name): i for i, name in enumerate(class_names)} | {name: i for i, name in enumerate(class_names)}
    found = {name: position.get(name, position.get(clean(name))) for name in set(labels.tolist())}
    strange = sorted(name for name, i in found.items() if i is None)
    if strange:
        similar = {alike(name): name for name in class_names}
        meant = [f"{name!r} for {similar[alike(name)]!r}" for name in strange if alike(name) in similar]
        hint = f" (spelled {', '.join(meant[:5])}?)" if meant else ""
        raise DataError(
            f"labels {strange[:5]} are not among the classes {list(class_names)}{hint}; rename these labels, or "
            "leave out their images",
            code="labels.unknown", labels=tuple(strange),
        )  # fmt: skip
    return np.array([found[name] for name in labels.tolist()], np.int64)


def class_name_findings(class_names: Sequence[str]) -> Iterator[Finding]:
    """Find similar class names, numbers that may be a scale, and names that may mean a missing value."""
    groups = defaultdict(list)
    for name in class_names:
        groups[alike(name)].append(name)
    for names in groups.values():
        if len(names) > 1:
            action = "kept as separate classes: if these names mean the same class, give it one name"
            yield Finding("alike class names", tuple(map(repr, names)), action)
    if len(class_names) > 2 and all(map(is_number, class_names)):
        values = sorted(map(float, class_names))
        if values != list(range(len(values))):
            action = (
                f"kept as {len(values)} classes without an order: grades, ratings and measurements are not "
                "predicted as numbers; if these are measurements, join the values into a few ranges"
            )
            yield Finding("numbers as class names", tuple(sorted(class_names, key=float)), action)
    odd = tuple(repr(name) for name in class_names if name.casefold() in _PERHAPS_MISSING)
    if odd:
        action = "kept as a class: if this name means a missing label, leave out these images"
        yield Finding("name of a missing value", odd, action)
