"""The rules of an audit: the criteria of each kind of finding, and what `finetune` does about it."""

import os
from collections import Counter, defaultdict
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from recipes.auditing.facts import Facts
from recipes.auditing.near_duplicates import groups, near_pairs
from recipes.core.output import printable, shortened
from recipes.data.class_names import class_name_findings
from recipes.data.finding import Finding, Unsupported, not_supported
from recipes.data.folders.contents import IMAGE_SUFFIXES
from recipes.data.header_ops import NOT_SUPPORTED
from recipes.data.images import ImageData, Splits

SMALLEST_CLASS = 3  # distinct pictures: two for training, one for validation
IMBALANCED = 4.0  # number of images in the largest class divided by the number in the smallest class
LOSES_FILES = "class loses files"  # the kind of finding
_LOST = 0.1  # a class is reported if at least this share of its files cannot be read
_TINY, _LONG = 16, 10.0  # pixels of the shorter side, longer side / shorter side
_FLAT, _COPIES = 0.9, 10
_FLAT_CONTRAST = 3.0
_ACCIDENTS = 0.02  # largest share of odd files that count as accidents
_TRAITS = {
    "animated": "kept: only the first frame is read",
    "16-bit": "kept: scaled to 8 bits",
    "CMYK": "kept: converted to RGB without their colour profile",
    "alpha": "kept: drawn on a white background",
    "EXIF-rotated": "kept: turned upright according to the EXIF orientation",
}
_FORMATS = {suffix: suffix[1:] for suffix in IMAGE_SUFFIXES} | dict.fromkeys((".jpg", ".jpe", ".jfif"), "jpeg")


@dataclass(frozen=True, eq=False)
class AuditedImage:
    """One image with its name, split, label and facts."""

    name: str
    split: str
    label: int
    facts: Facts


def audited_images(splits: Splits, facts: dict[str, list[Facts]]) -> list[AuditedImage]:
    """Return the images of all splits in order, then the pictures of unsupported formats in class folders."""
    images = [
        AuditedImage(name, split, int(label), fact)
        for split, data in splits.given.items()
        for name, label, fact in zip(data.names, data.labels, facts[split], strict=True)
    ]
    labels = {name: label for label, name in enumerate(splits.train.class_names)}
    lost = [file for file in splits.unsupported if file.class_name in labels]
    return images + [AuditedImage(f.name, f.split, labels[f.class_name], Facts(error=f.error)) for f in lost]


def unreadable(images: list[AuditedImage], class_names: tuple[str, ...]) -> Iterator[Finding]:
    """Find unreadable images by kind of error, and classes with at least a tenth of their files unreadable."""
    by_kind = defaultdict(list)
    for image in images:
        if image.facts.error:
            by_kind[image.facts.error.split(":")[0]].append(image)
    for kind, some in sorted(by_kind.items()):
        if kind == NOT_SUPPORTED:
            yield not_supported([Unsupported(i.name, i.split, class_names[i.label], i.facts.error) for i in some])
            continue
        details = tuple(image.facts.error for image in some)
        yield Finding(kind, _names(some), f"excluded ({some[0].facts.error})", excluded=True, details=details)
    total = Counter(image.label for image in images)
    lost = Counter(image.label for image in images if image.facts.error)
    large = [label for label in sorted(lost) if lost[label] > 1 and lost[label] >= _LOST * total[label]]
    if large:
        classes = tuple(f"{class_names[label]} ({lost[label]} of {total[label]})" for label in large)
        yield Finding(
            LOSES_FILES, classes, "at least a tenth of the class cannot be read; convert or replace these files"
        )


def placeholders(images: list[AuditedImage]) -> Iterator[Finding]:
    """Find pictures with one colour on 90 % of their area, with hardly any contrast, or with ten copies.

    These pictures are excluded unless there are too many to be accidents. Test images do not influence that decision.
    """
    read = [image for image in images if not image.facts.error]
    selecting = [image for image in read if image.split != "test"]
    copies = Counter(image.facts.fingerprint for image in selecting)
    excluded, retained = [], []
    for some in (selecting, [image for image in read if image.split == "test"]):
        odd = [
            image
            for image in some
            if image.facts.dominant > _FLAT
            or image.facts.contrast < _FLAT_CONTRAST
            or copies[image.facts.fingerprint] >= _COPIES
        ]
        (excluded if len(odd) <= max(1, _ACCIDENTS * len(some)) else retained).extend(odd)
    if excluded:
        action = "excluded (almost one colour, or the same picture many times)"
        yield Finding("placeholder", _names(excluded), action, excluded=True)
    action = "kept: almost one colour, or the same picture many times, but too many to be accidents"
    yield from _if_any("flat picture", retained, action)


def traits(images: list[AuditedImage]) -> Iterator[Finding]:
    """Find images that are converted, have a wrong extension, an extreme size, or a name that is not UTF-8."""
    read = [image for image in images if not image.facts.error]
    for trait, action in _TRAITS.items():
        yield from _if_any(trait, [image for image in read if trait in image.facts.traits], action)
    promised = [(image, _FORMATS.get(os.path.splitext(image.name)[1].lower())) for image in read]
    misnamed = [image for image, format in promised if format not in (None, image.facts.format)]
    yield from _if_any("wrong extension", misnamed, "kept: read by their content, not by their extensions")
    sized = [image for image in read if image.facts.format != "array"]
    extreme = [i for i in sized if min(i.facts.size) < _TINY or max(i.facts.size) > _LONG * min(i.facts.size)]
    if len(extreme) <= len(sized) / 2:
        action = (
            f"kept: one side is below {_TINY} pixels, or one side is {_LONG:g} times the other; a crop loses most "
            "of the image"
        )
        yield from _if_any("extreme size", extreme, action)
    foreign = [image for image in images if image.name != printable(image.name)]
    yield from _if_any("name not UTF-8", foreign, "kept: the invalid bytes of the name are shown as \\xNN")


def duplicates(images: list[AuditedImage]) -> Iterator[Finding]:
    """Find images with the same pixels."""
    places = defaultdict(list)
    for image in images:
        if image.facts.fingerprint:
            places[image.facts.fingerprint].append(image)
    yield from _repeated("duplicate", [group for group in places.values() if len(group) > 1])


def near_duplicates(images: list[AuditedImage]) -> tuple[list[Finding], dict[str, str]]:
    """Find near-duplicates, and return the groups that must stay on one side of a split.

    Returns:
        The findings, and a map from each fingerprint to the smallest one of its group. Test images do not connect other
        images to a group.
    """
    first = {}
    for image in images:
        if image.facts.signature:
            first.setdefault(image.facts.fingerprint, image)
    distinct = list(first.values())
    not_test = np.array([image.split != "test" for image in distinct], bool)
    pairs = near_pairs([i.facts.signature for i in distinct], [i.label for i in distinct], not_test)
    same = _representatives(distinct, pairs[not_test[pairs].all(1)])
    group_of, places = _representatives(distinct, pairs), defaultdict(list)
    for image in images:
        if image.facts.fingerprint in group_of:
            places[group_of[image.facts.fingerprint]].append(image)
    return list(_repeated("near-duplicate", list(places.values()))), same


def _representatives(images: list[AuditedImage], pairs: np.ndarray) -> dict[str, str]:
    """Map each fingerprint that occurs in a pair to the smallest fingerprint of its connected group."""
    prints = [image.facts.fingerprint for image in images]
    return {prints[i]: min(prints[j] for j in group) for group in groups(len(images), pairs) for i in group}


def _repeated(kind: str, repeated: list[list[AuditedImage]]) -> Iterator[Finding]:
    """Report groups of equal pictures, each group as the most serious kind that applies."""
    cases: tuple[tuple[str, Callable[[list[AuditedImage]], bool], str], ...] = (
        (f"{kind} across splits", lambda group: len({image.split for image in group}) > 1,
         "kept: these duplicates make the accuracy on held-out images optimistic"),
        (f"{kind} across classes", lambda group: len({image.label for image in group}) > 1,
         f"kept: one of the labels {'must' if kind == 'duplicate' else 'may'} be wrong"),
        (kind, lambda group: True, "kept: a split made by `finetune` puts them on one side"),
    )  # fmt: skip
    for name, matches, action in cases:
        shown = [group for group in repeated if matches(group)]
        if shown:
            files = tuple(image.name for group in shown for image in group)
            others = ([other.name for other in group if other is not image] for group in shown for image in group)
            details = tuple(f"like {shortened(names, 1)}" for names in others)
            yield Finding(name, files, action, details=details)
        repeated = [group for group in repeated if not matches(group)]


def classes(
    data: ImageData, fingerprints: Sequence[str], excluded: frozenset[str], must_split: bool
) -> Iterator[Finding]:
    """Find oddities in the classes of the training images, ignoring excluded images.

    Args:
        data: The training images.
        fingerprints: Fingerprint of each training image.
        excluded: Names of excluded images.
        must_split: Whether the validation images must be split off the training images.
    """
    yield from class_name_findings(data.class_names)
    images = zip(data.names, data.labels.tolist(), fingerprints, strict=True)
    usable = [(label, fingerprint) for name, label, fingerprint in images if name not in excluded]
    counts, distinct = Counter(label for label, _ in usable), Counter(label for label, _ in set(usable))
    shown = [f"{name} ({counts[i]})" for i, name in enumerate(data.class_names)]
    small = tuple(text for i, text in enumerate(shown) if distinct[i] < SMALLEST_CLASS)
    if small and must_split:
        action = (
            f"an error unless a validation dataset is given: a split needs {SMALLEST_CLASS} distinct pictures per class"
        )
        yield Finding("class too small to split", small, action)
    if shown:
        least, most = (f(range(len(shown)), key=lambda i: counts[i]) for f in (min, max))
        if counts[most] >= IMBALANCED * max(1, counts[least]):
            yield Finding("imbalance", (shown[most], shown[least]), "kept: the plan gives every class the same weight")


def _names(images: list[AuditedImage]) -> tuple[str, ...]:
    return tuple(image.name for image in images)


def _if_any(kind: str, images: list[AuditedImage], action: str) -> Iterator[Finding]:
    if images:
        yield Finding(kind, _names(images), action)
