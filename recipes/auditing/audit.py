"""Audit every image once before training: find unreadable, odd and duplicate images."""

import os
import warnings
from collections import Counter
from dataclasses import dataclass, field, replace
from itertools import zip_longest

from recipes.auditing import rules
from recipes.auditing.facts import inspect_images
from recipes.core.card import CardTable, card
from recipes.core.files import write_csv
from recipes.core.output import safe_output, shortened
from recipes.core.text import counted, described
from recipes.data.finding import Finding
from recipes.data.folders.layout import Layout
from recipes.data.images import ImageData, Splits
from recipes.data.packs.manifest import verify
from recipes.data.sources import load
from recipes.errors import DataError

__all__ = ["Audit", "Finding", "audit", "check_trainable", "inspect_images", "usable"]

_SHOWN = 20  # largest number of findings in the card


@dataclass(frozen=True)
class Audit:
    """The findings of an audit, and the fingerprint of every image's content.

    Attributes:
        findings: The findings, one for each kind.
        fingerprints: For each split, the fingerprint of each image.
        same: Maps the fingerprint of each near-duplicate to the fingerprint that represents its group.
        layout: Arrangement of a folder; None for other forms of datasets, and for the audit of a saved run.
    """

    findings: tuple[Finding, ...]
    fingerprints: dict[str, tuple[str, ...]]
    same: dict[str, str] = field(default_factory=dict)
    layout: Layout | None = field(default=None, compare=False)

    @property
    def excluded(self) -> frozenset[str]:
        return frozenset(file for finding in self.findings if finding.excluded for file in finding.files)

    def pictures(self, data: ImageData) -> list[str]:
        """Return the fingerprints of the training images `data`, the same one for all near-duplicates of a group.

        If a class would then have too few distinct pictures for a split, it keeps the exact fingerprints.
        """
        exact = self.fingerprints["train"]
        near = [self.same.get(fingerprint, fingerprint) for fingerprint in exact]
        distinct = Counter(label for label, _ in set(zip(data.labels.tolist(), near, strict=True)))
        few = {label for label, pictures in distinct.items() if pictures < rules.SMALLEST_CLASS}
        return [e if label in few else n for e, n, label in zip(exact, near, data.labels.tolist(), strict=True)]

    def with_fingerprints(self, fingerprints: dict[str, tuple[str, ...]]) -> "Audit":
        return replace(self, fingerprints=fingerprints)

    def check_clean(self) -> None:
        """Raise a DataError that lists the findings, if there are any."""
        if self.findings:
            raise DataError(
                f"`strict` rejects {len(self.findings)} kinds of findings:\n{self}",
                code="audit.findings", findings=self.findings,
            )  # fmt: skip

    def to_csv(self, path: str | os.PathLike) -> None:
        """Write all findings to a CSV file, with one row per file or class.

        The columns are finding, file, detail, action, and excluded (yes or no).

        Raises:
            OutputError: If the file cannot be written, or exists and is not a list of findings.
        """
        rows = (
            (finding.kind, name, detail, finding.action, "yes" if finding.excluded else "no")
            for finding in self.findings
            for name, detail in zip_longest(finding.files, finding.details, fillvalue="")
        )
        header = ("finding", "file", "detail", "action", "excluded")
        write_csv(path, header, rows, contents="findings of an audit", code="audit")

    def __str__(self) -> str:
        found = "\n".join(map(str, self.findings)) or "nothing odd"
        return f"{self.layout}\n{found}" if self.layout else found

    def __repr__(self) -> str:
        return described("Audit", *self._counts)

    @property
    def _counts(self) -> tuple[str, str]:
        """Texts with the number of kinds of findings and the number of excluded files."""
        kinds = counted(len(self.findings), "kind of finding", "kinds of findings")
        return kinds, f"{counted(len(self.excluded), 'file')} excluded"

    def _repr_html_(self) -> str:
        """Return the card that a notebook shows."""
        rows = [(f.kind, f"{len(f.files):,}", shortened(f.files, 2), f.action) for f in self.findings[:_SHOWN]]
        more = len(self.findings) - len(rows)
        table = CardTable(("finding", "files", "such as", "what finetune does"), rows, f"and {more} more" * (more > 0))
        images = counted(sum(map(len, self.fingerprints.values())), "image")
        layout = [("layout", str(self.layout).removeprefix("layout: "))] if self.layout else []
        answer = self._counts[1] if self.findings else "nothing odd"
        return card(answer, f"audit: {self._counts[0]} in {images}", layout, table)


@safe_output()
def audit(dataset: object, *, strict: bool = False) -> Audit:
    """Decode every image of `dataset` once, and report each oddity and what `finetune` does about it.

    `finetune` excludes images that cannot be read, are truncated, or declare more than 100 million pixels. It also
    excludes placeholders, which are flat pictures among photos. If files are not images at all, `finetune` raises an
    error, because the folder probably is not the intended one. All other images are used. Some formats are converted
    (16-bit, CMYK, alpha, animated, EXIF-rotated). A split made by `finetune` never separates exact or near-duplicates.
    Classes that are small, of very different sizes, or similar in name are reported.

    Args:
        dataset: Any dataset that `finetune` takes.
        strict: Whether to raise an error if there are findings.

    Raises:
        DataError: If `dataset` has no supported form, a pack was altered, or there are findings and `strict` is set.
    """
    splits = load(dataset)
    if splits is not dataset:  # each image of a pack is also compared with its own hash
        verify(splits.given.values())
    found = images_audited(splits)
    classes = rules.classes(splits.train, found.fingerprints["train"], found.excluded, splits.validation is None)
    found = replace(found, findings=(*found.findings, *classes, *splits.unread), layout=splits.layout)
    if strict:
        found.check_clean()
    return found


def images_audited(splits: Splits) -> Audit:
    """Return the audit of the images, without findings about classes or about files that were not read."""
    facts = {name: inspect_images(data) for name, data in splits.given.items()}
    images = rules.audited_images(splits, facts)
    near, same = rules.near_duplicates(images)
    found = (
        *rules.unreadable(images, splits.train.class_names), *rules.placeholders(images),
        *rules.traits(images), *rules.duplicates(images), *near,
    )  # fmt: skip
    for finding in found:
        if finding.kind == rules.LOSES_FILES:
            warnings.warn(str(finding), stacklevel=2)
    fingerprints = {split: tuple(fact.fingerprint for fact in images) for split, images in facts.items()}
    return Audit(found, fingerprints, same)


def usable(splits: Splits, audit: Audit) -> tuple[Splits, Audit]:
    """Return `splits` without the excluded images, and the audit with the fingerprints of the remaining images.

    Raises:
        DataError: If a file is not an image, or too few images remain for the training.
    """
    for finding in audit.findings:
        if finding.kind == "not an image":
            raise DataError(
                f"{len(finding.files)} file(s) with an image's name are not images: {', '.join(finding.files[:5])} "
                f"{finding.action.removeprefix('excluded ')}; remove or replace these files",
                code="audit.not_an_image", files=finding.files,
            )  # fmt: skip
    excluded = audit.excluded
    rows = {s: [i for i, n in enumerate(d.names) if n not in excluded] for s, d in splits.given.items()}
    splits = replace(splits, **{split: data.subset(rows[split]) for split, data in splits.given.items()})
    fingerprints = {split: tuple(audit.fingerprints[split][i] for i in chosen) for split, chosen in rows.items()}
    check_trainable(splits.train)
    for split, data in splits.given.items():
        if len(data) == 0:
            raise DataError(
                f"no image of the {split} split can be used; see `recipes audit`", code="audit.empty_split", split=split
            )
    return splits, audit.with_fingerprints(fingerprints)


def check_trainable(data: ImageData) -> None:
    """Raise DataError unless there are two classes, and each class has two images."""
    if len(data.class_names) < 2:
        raise DataError(
            f"there is only one class, {list(data.class_names)}; a classifier needs at least two: add images of "
            "another class in a second folder",
            code="audit.one_class", class_names=data.class_names,
        )  # fmt: skip
    small = [f"{name} ({n})" for name, n in zip(data.class_names, data.counts, strict=True) if n < 2]
    if small:
        raise DataError(
            f"classes with fewer than 2 readable images: {', '.join(small)}; add images or remove the class",
            code="audit.small_class", classes=tuple(small),
        )  # fmt: skip
