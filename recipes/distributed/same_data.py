"""Collect the facts by which several workers check that they have loaded the same images."""

import hashlib
from pathlib import Path
from typing import Any

import numpy as np

from recipes.data.images import ImageData, Splits
from recipes.data.packs.records import Records

_SIZES = 10_000  # maximum number of files whose sizes are compared


def data_facts(splits: Splits) -> dict:
    """Return the facts about the images that must be the same at all workers, name → value.

    The facts are the number of images, a hash of their names and labels, and a hash of their file sizes or, for a pack,
    of its checksums.
    """
    facts = {}
    for split, data in splits.given.items():
        names = hashlib.blake2b(digest_size=6)
        names.update(repr((data.names, data.labels.tolist(), data.class_names)).encode("utf-8", "surrogateescape"))
        facts |= {
            f"{split} images": len(data),
            f"{split} names": names.hexdigest(),
            f"{split} files": _content_hash(data),
        }
    return facts


def _content_hash(data: ImageData) -> str:
    contents = hashlib.blake2b(digest_size=6)
    if isinstance(data.images, Records):
        contents.update(repr(data.images).encode())
    else:
        for i in np.unique(np.linspace(0, len(data) - 1, min(len(data), _SIZES)).astype(int)):
            contents.update(_content(data.images[i]))
    return contents.hexdigest()


def _content(image: Any) -> bytes:  # ImageData's type does not say which kind of images it holds
    if isinstance(image, np.ndarray):
        return np.ascontiguousarray(image).tobytes()
    if isinstance(image, bytes):
        return image
    try:
        return str(Path(image).stat().st_size).encode()
    except OSError:
        return b"cannot be read"  # the audit reports and excludes an unreadable file
