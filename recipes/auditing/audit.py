"""Look at every image once before training: what cannot be read, what is odd, what occurs twice."""

import csv
import warnings
from collections import Counter
from dataclasses import dataclass, field, replace
from itertools import zip_longest
from pathlib import Path

from recipes.auditing import rules as oddities
from recipes.auditing.facts import look
from recipes.core.output import printable, safe_output
from recipes.data.finding import Finding
from recipes.data.folders.layout import Layout
from recipes.data.images import ImageData, Splits
from recipes.data.packs.manifest import verify
from recipes.data.sources import load
from recipes.errors import DataError, OutputError

__all__ = ["Audit", "Finding", "audit", "check_trainable", "look", "usable"]


@dataclass(frozen=True)
class Audit:
    """What the audit met, and the fingerprint of every image's content, by split.

    same: of images that are nearly the same, each fingerprint with the one that stands for all of them.
    layout: what a folder was taken for; None for another form of dataset, and for the audit of a saved run.
    """

    findings: tuple[Finding, ...]
    fingerprints: dict[str, tuple[str, ...]]
    same: dict[str, str] = field(default_factory=dict)
    layout: Layout | None = field(default=None, compare=False)

    @property
    def excluded(self) -> frozenset[str]:
        return frozenset(file for finding in self.findings if finding.excluded for file in finding.files)

    def pictures(self, data: ImageData) -> list[str]:
        """The fingerprints of the training images `data`, one for all that are the same or nearly so; a class that
        would have too few pictures to be split by this keeps the fingerprints as they are."""
        exact = self.fingerprints["train"]
        near = [self.same.get(fingerprint, fingerprint) for fingerprint in exact]
        distinct = Counter(label for label, _ in set(zip(data.labels.tolist(), near, strict=True)))
        few = {label for label, pictures in distinct.items() if pictures < oddities.SMALLEST_CLASS}
        return [e if label in few else n for e, n, label in zip(exact, near, data.labels.tolist(), strict=True)]

    def with_fingerprints(self, fingerprints: dict[str, tuple[str, ...]]) -> "Audit":
        return replace(self, fingerprints=fingerprints)

    def check_clean(self) -> None:
        """Raise DataError listing the findings, if there are any."""
        if self.findings:
            raise DataError(f"{len(self.findings)} kinds of findings, which `strict` rejects:\n{self}")

    def to_csv(self, path) -> None:
        """Write every finding, one row per file or class: finding, file, detail, action, excluded (yes or no).

        Raises: OutputError when the file cannot be written, or exists and holds something else than findings.
        """
        path, header = Path(path).expanduser(), ("finding", "file", "detail", "action", "excluded")
        try:
            if path.exists() and not path.read_bytes().startswith(",".join(header).encode()):
                raise OutputError(f"{path} exists and holds no findings of an audit; choose another file")
            with path.open("w", newline="", encoding="utf-8") as file:
                rows = csv.writer(file)
                rows.writerow(header)
                for finding in self.findings:
                    for name, detail in zip_longest(finding.files, finding.details, fillvalue=""):
                        cells = finding.kind, name, detail, finding.action, "yes" if finding.excluded else "no"
                        rows.writerow(map(printable, cells))
        except OSError as error:
            raise OutputError(f"{path} cannot be written: {error.strerror}; choose another file") from error

    def __str__(self) -> str:
        found = "\n".join(map(str, self.findings)) or "nothing odd"
        return f"{self.layout}\n{found}" if self.layout else found


@safe_output()
def audit(dataset, *, strict: bool = False) -> Audit:
    """Decode every image of `dataset` once and report what is odd, each with what `finetune` does about it.

    Excluded are images that cannot be read, are cut off, or would take more than 100 million pixels to decode (told by
    the header alone), and placeholders: one flat picture among photos. Files that are no images at all are an error in
    `finetune`, because they show that the folder is not what its user thinks. All else is kept: formats that are
    converted (16-bit, CMYK, alpha, animated, EXIF-rotated), exact and near-duplicates, of which a split made here never
    separates two, and classes that are few, unlike in size, or alike in name.

    strict: findings are an error.

    Raises: DataError when `dataset` is none of the supported forms, when a pack was altered, or, if `strict`, listing
        what was found.
    """
    splits = load(dataset)
    if splits is not dataset:  # the images of a pack are looked at in any case, each against its own hash
        verify(splits.given.values())
    found = images_audited(splits)
    of_classes = oddities.classes(splits.train, found.fingerprints["train"], found.excluded, splits.validation is None)
    found = replace(found, findings=(*found.findings, *of_classes, *splits.unread), layout=splits.layout)
    if strict:
        found.check_clean()
    return found


def images_audited(splits: Splits) -> Audit:
    """What `audit` tells of the images, nothing of the classes and of files that were not read."""
    facts = {name: look(data) for name, data in splits.given.items()}
    images = oddities.seen(splits, facts)
    near, same = oddities.near_duplicates(images)
    found = (
        *oddities.unreadable(images, splits.train.class_names), *oddities.placeholders(images),
        *oddities.traits(images), *oddities.duplicates(images), *near,
    )  # fmt: skip
    for finding in found:
        if finding.kind == oddities.LOSES_FILES:
            warnings.warn(str(finding), stacklevel=2)
    prints = {split: tuple(fact.fingerprint for fact in looks) for split, looks in facts.items()}
    return Audit(found, prints, same)


def usable(splits: Splits, audit: Audit) -> tuple[Splits, Audit]:
    """`splits` without the excluded images, and the audit with the fingerprints of what is left.

    Raises: DataError for files that are no images, and when too little is left to train on.
    """
    for finding in audit.findings:
        if finding.kind == "not an image":
            raise DataError(
                f"{len(finding.files)} file(s) with an image's name are no images: {', '.join(finding.files[:5])} "
                f"{finding.action.removeprefix('excluded ')}; remove or replace them"
            )
    excluded = audit.excluded
    keep = {s: [i for i, n in enumerate(d.names) if n not in excluded] for s, d in splits.given.items()}
    splits = replace(splits, **{split: data.subset(keep[split]) for split, data in splits.given.items()})
    prints = {split: tuple(audit.fingerprints[split][i] for i in kept) for split, kept in keep.items()}
    check_trainable(splits.train)
    for split, data in splits.given.items():
        if len(data) == 0:
            raise DataError(f"no image of the {split} split can be used; see `recipes audit`")
    return splits, audit.with_fingerprints(prints)


def check_trainable(data: ImageData) -> None:
    """Raises DataError unless there are two classes with two images each."""
    if len(data.class_names) < 2:
        raise DataError(
            f"there is one class only, {list(data.class_names)}; a classifier needs at least two: "
            "put images of something else into a second folder"
        )
    small = [f"{name} ({n})" for name, n in zip(data.class_names, data.counts, strict=True) if n < 2]
    if small:
        raise DataError(
            f"classes with fewer than 2 readable images: {', '.join(small)}; add images or remove the class"
        )
