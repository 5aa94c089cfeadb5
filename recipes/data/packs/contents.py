"""Measure the images that are to be packed: their sizes, and a key by which a resumed pack recognises them."""

import hashlib
import os
import stat

import numpy as np

from recipes.core.limits import MAX_BYTES
from recipes.data.images import ImageData
from recipes.data.packs.records import digest
from recipes.errors import DataError


def encoded_sizes(data: ImageData) -> np.ndarray:
    """Return an upper bound of the encoded size of each image, in bytes.

    Raises:
        DataError: Some images cannot be packed; the message names them.
    """
    if data.pixels is not None:
        if data.pixels.dtype != np.uint8 and not (data.pixels == np.round(data.pixels)).all():
            raise DataError(
                f"the images are {data.pixels.dtype} with fractions; round them to uint8, or give files",
                code="pack.fractions",
            )
        return np.full(len(data), 2 * data.pixels[0].size + 1024)
    if data.records is not None:
        return data.records.index.size[data.records.rows]
    if data.paths is None:
        return np.array([len(data.encoded(i)) for i in range(len(data))])
    files = [_size(path) for path in data.paths]
    faults = {name: fault for name, (_, fault) in zip(data.names, files, strict=True) if fault}
    if faults:
        shown = "; ".join(f"{name}: {fault}" for name, fault in [*faults.items()][:5])
        shown += f" and {len(faults) - 5} more" if len(faults) > 5 else ""
        raise DataError(
            f"{len(faults)} images cannot be packed ({shown}); repair or delete them, and pack again",
            code="pack.unreadable_images", images=tuple(faults), reasons=tuple(faults.values()),
        )  # fmt: skip
    return np.array([size for size, _ in files], np.int64)


def _size(path: str) -> tuple[int, str]:
    """Return the size of a file in bytes, and why it cannot be packed; "" if it can."""
    try:
        status = os.stat(path)
    except OSError as error:
        return 0, error.strerror or str(error)
    if status.st_size > MAX_BYTES:
        return 0, f"{status.st_size:,} bytes are more than {MAX_BYTES:,}"
    readable = stat.S_ISREG(status.st_mode) and os.access(path, os.R_OK)
    return status.st_size, "" if readable else "not a regular file that may be read"


def content_key(data: ImageData, sizes: np.ndarray) -> bytes:
    """Return a key that changes with the images; for files it depends on size and time of change alone."""
    if data.paths is not None:
        pairs = zip(sizes, data.paths, strict=True)
        return repr([(int(size), os.stat(path).st_mtime_ns) for size, path in pairs]).encode()
    if data.pixels is not None:
        return hashlib.sha256(np.ascontiguousarray(data.pixels).data).digest()
    if data.records is not None:
        return repr(data.records).encode()
    return b"".join(digest(data.encoded(i)) for i in range(len(data)))
