"""Measure the images of a pack: their sizes, and a key by which a resumed pack recognises them."""

import hashlib
import os

import numpy as np

from recipes.core.files import size_and_fault
from recipes.core.output import shortened
from recipes.data.images import ImageData
from recipes.data.packs.records import digest
from recipes.errors import DataError


def sizes_and_key(data: ImageData) -> tuple[np.ndarray, bytes]:
    """Return an upper bound of each image's encoded size in bytes, and a key that identifies the images.

    The key of files only depends on their sizes and modification times.

    Raises:
        DataError: If some images cannot be packed; the message names them.
    """
    if data.pixels is not None:
        if data.pixels.dtype != np.uint8 and not (data.pixels == np.round(data.pixels)).all():
            raise DataError(
                f"the images are {data.pixels.dtype} with fractions, but a pack stores uint8; round the values, "
                "or give files",
                code="pack.fractions",
            )
        sizes = np.full(len(data), 2 * data.pixels[0].size + 1024)
        return sizes, hashlib.sha256(np.ascontiguousarray(data.pixels).data).digest()
    if data.records is not None:
        return data.records.index.size[data.records.rows], repr(data.records).encode()
    if data.paths is None:
        images = [data.encoded(i) for i in range(len(data))]
        return np.array([len(image) for image in images]), b"".join(map(digest, images))
    files = [size_and_fault(path) for path in data.paths]
    faults = {name: fault for name, (_, fault) in zip(data.names, files, strict=True) if fault}
    if faults:
        shown = shortened([f"{name}: {fault}" for name, fault in faults.items()], separator="; ")
        raise DataError(
            f"{len(faults)} images cannot be packed ({shown}); repair or delete these images, and pack again",
            code="pack.unreadable_images", images=tuple(faults), reasons=tuple(faults.values()),
        )  # fmt: skip
    changed = [(size, os.stat(path).st_mtime_ns) for (size, _), path in zip(files, data.paths, strict=True)]
    return np.array([size for size, _ in files], np.int64), repr(changed).encode()
