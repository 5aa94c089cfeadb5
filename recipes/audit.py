"""Look at every image once before training: what cannot be read, what is odd, what occurs twice."""

import hashlib
import os
from collections import Counter, defaultdict
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace

import numpy as np
import tensorflow as tf
from rich.progress import track

import augment
from recipes.data import ImageData, Splits
from recipes.errors import DataError
from recipes.sources import load

MAX_PIXELS = 200_000_000
_LARGE_SHARE = 0.02  # more odd files than this are the dataset's nature, not accidents


@dataclass(frozen=True)
class Finding:
    """One kind of oddity: the files that show it and what `finetune` does about them."""

    kind: str
    files: tuple[str, ...]
    action: str
    excluded: bool = False

    def __str__(self) -> str:
        shown = ", ".join(self.files[:3]) + (f" and {len(self.files) - 3} more" if len(self.files) > 3 else "")
        return printable(f"{self.kind}: {shown}: {self.action}")


@dataclass(frozen=True)
class Audit:
    """What the audit met, and the fingerprint of every image's content, by split."""

    findings: tuple[Finding, ...]
    fingerprints: dict[str, tuple[str, ...]]

    @property
    def excluded(self) -> frozenset[str]:
        return frozenset(file for finding in self.findings if finding.excluded for file in finding.files)

    def with_fingerprints(self, fingerprints: dict[str, tuple[str, ...]]) -> "Audit":
        return replace(self, fingerprints=fingerprints)

    def __str__(self) -> str:
        return "\n".join(map(str, self.findings)) or "nothing odd"


@dataclass(frozen=True)
class Facts:
    """What one look at one image tells; `error` is empty where it could be decoded."""

    fingerprint: str = ""
    format: str = ""
    dominant: float = 0.0  # share of the commonest colour
    error: str = ""


def printable(text: str) -> str:
    """`text` with the bytes of file names that are not UTF-8 as \\xNN."""
    return os.fsencode(text).decode("utf-8", "backslashreplace")


def inspect(content: bytes) -> Facts:
    """Decode encoded bytes once. Never raises for bad content: `Facts.error` says what is wrong."""
    if not content:
        return Facts(error="zero bytes")
    kind = augment.file_kind(content)
    if not kind:
        return Facts(error=f"not an image: it begins with {content[:12]!r}")
    try:
        height, width = stored_size(content, kind)
        if height * width > MAX_PIXELS:
            return Facts(format=kind, error=f"too large: {width} × {height} is more than {MAX_PIXELS:,} pixels")
        pixels = augment.decode(tf.constant(content)).numpy()
    except (tf.errors.OpError, ValueError) as error:
        return Facts(format=kind, error=f"damaged {kind}: {str(error).splitlines()[0][:160]}")
    return pixel_facts(pixels, kind)


def stored_size(content: bytes, kind: str) -> tuple[int, int]:
    """(height, width) by the header, before anything is decoded; (0, 0) for WebP, which is at most 16,383 wide."""
    if kind == "jpeg":
        height, width, _ = tf.image.extract_jpeg_shape(content).numpy()
        return int(height), int(width)
    at, size, order = {"png": (16, 4, "big"), "gif": (6, 2, "little"), "bmp": (18, 4, "little")}.get(
        kind, (0, 0, "big")
    )
    width, height = (int.from_bytes(content[i : i + size], order, signed=kind == "bmp") for i in (at, at + size))
    return abs(height), abs(width)


def pixel_facts(pixels: np.ndarray, kind: str = "array") -> Facts:
    """Fingerprint and flatness of decoded pixels."""
    pixels = np.ascontiguousarray(pixels)
    fingerprint = hashlib.blake2b(repr(pixels.shape).encode() + pixels.tobytes(), digest_size=16).hexdigest()
    step = max(1, min(pixels.shape[:2]) // 64)
    sample = pixels[::step, ::step].astype(np.uint32)
    colours = sample @ np.array([1, 1 << 8, 1 << 16, 1 << 24][: sample.shape[-1]], np.uint32)
    return Facts(fingerprint, kind, np.unique(colours, return_counts=True)[1].max() / colours.size)


def look(data: ImageData, title: str = "looking at the images") -> list[Facts]:
    """`Facts` of every image, in parallel."""
    if data.in_memory_pixels:
        return [pixel_facts(image) for image in data.images]

    def one(index: int) -> Facts:
        try:
            return inspect(data.encoded(index))
        except OSError as error:
            return Facts(error=f"cannot be read: {error.strerror}")

    with ThreadPoolExecutor(os.cpu_count()) as pool:
        return list(track(pool.map(one, range(len(data))), title, total=len(data), disable=len(data) < 500))


def audit(dataset) -> Audit:
    """Decode every image of `dataset` once and report what is odd, each with what `finetune` does about it.

    Unreadable images are excluded; files that are no images at all are an error in `finetune`, because they show
    that the folder is not what its user thinks. Placeholders (one flat picture among photos) are excluded; exact
    duplicates are kept, on one side of any split that is made here.

    Raises: DataError when `dataset` is none of the supported forms.
    """
    splits = load(dataset)
    facts = {name: look(data) for name, data in splits.given.items()}
    everything = [
        (name, fact)
        for split, data in splits.given.items()
        for name, fact in zip(data.names, facts[split], strict=True)
    ]
    findings = [*_unreadable(everything), *_placeholders(everything), *_duplicates(splits, facts)]
    if splits.ignored:
        findings.append(
            Finding("not read", splits.ignored, "no image format that is read, or outside the class folders")
        )
    return Audit(tuple(findings), {split: tuple(fact.fingerprint for fact in looks) for split, looks in facts.items()})


def _unreadable(everything) -> list[Finding]:
    groups = defaultdict(list)
    for name, fact in everything:
        if fact.error:
            groups[fact.error.split(":")[0]].append((name, fact.error))
    return [
        Finding(kind, tuple(name for name, _ in group), f"excluded ({group[0][1]})", excluded=True)
        for kind, group in sorted(groups.items())
    ]


def _placeholders(everything) -> list[Finding]:
    """One flat colour over 90 % of the picture, or the same picture ten times; never when that is the dataset's way."""
    read = [(name, fact) for name, fact in everything if not fact.error]
    copies = Counter(fact.fingerprint for _, fact in read)
    flat = tuple(name for name, fact in read if fact.dominant > 0.9 or copies[fact.fingerprint] >= 10)
    if not flat or len(flat) > max(1, _LARGE_SHARE * len(read)):
        return []
    return [Finding("placeholder", flat, "excluded (almost one colour, or the same picture many times)", excluded=True)]


def _duplicates(splits: Splits, facts: dict[str, list[Facts]]) -> list[Finding]:
    places = defaultdict(list)
    for split, data in splits.given.items():
        for name, label, fact in zip(data.names, data.labels, facts[split], strict=True):
            if fact.fingerprint:
                places[fact.fingerprint].append((name, split, int(label)))
    same = [group for group in places.values() if len(group) > 1]
    kinds = (
        ("duplicate across splits", lambda group: len({split for _, split, _ in group}) > 1,
         "kept: the accuracy on the held-out side is too high by them"),
        ("duplicate across classes", lambda group: len({label for _, _, label in group}) > 1,
         "kept: one of the labels must be wrong"),
        ("duplicate", lambda group: True, "kept, always on one side of a split made here"),
    )  # fmt: skip
    findings = []
    for kind, matches, action in kinds:
        files = tuple(name for group in same if matches(group) for name, _, _ in group)
        same = [group for group in same if not matches(group)]
        if files:
            findings.append(Finding(kind, files, action))
    return findings


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
    return splits, Audit(audit.findings, prints)


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
