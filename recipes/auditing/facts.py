"""One look at one image: it is read and decoded once, and everything that the audit wants to know is noted."""

import hashlib
import os
import stat
import threading
from concurrent.futures import ThreadPoolExecutor
from contextlib import nullcontext
from dataclasses import dataclass

import numpy as np
import tensorflow as tf
from rich.console import Console
from rich.progress import track
from threadpoolctl import threadpool_limits

import augment
from recipes.auditing.headers import Header, read_header
from recipes.auditing.near_duplicates import Signature, luminance, signature
from recipes.core.limits import MAX_BYTES, MAX_PIXELS
from recipes.data.header_ops import why_undecodable
from recipes.data.images import ImageData

_FINE = 1_000_000  # pixels that a large JPEG is decoded to at least: enough to tell any two pictures apart
_ALONE = 16_000_000  # pixels; larger images are decoded one at a time, so that their memory does not add up
_BLOCK = 16  # images a task
_lock = threading.Lock()


@dataclass(frozen=True)
class Facts:
    """What one look at one image tells; `error` is empty where it could be decoded.

    fingerprint: hash of the decoded, upright pixels (of a JPEG of 4 megapixels and more, at reduced size).
    format:      "jpeg", "png", "gif", "bmp", "webp", "array".
    size:        (height, width) as stored.
    dominant:    share of the commonest colour.
    contrast:    standard deviation of the luminance, of 255.
    traits:      see `Header`, and "EXIF-rotated".
    signature:   for near-duplicates; None where the image is too small to have one.
    """

    fingerprint: str = ""
    format: str = ""
    size: tuple[int, int] = (0, 0)
    dominant: float = 0.0
    contrast: float = 255.0
    traits: frozenset[str] = frozenset()
    signature: Signature | None = None
    error: str = ""


def look(data: ImageData, title: str = "looking at the images") -> list[Facts]:
    """`Facts` of every image, in order; computed in parallel, with a progress bar for 500 images and more."""
    blocks = [range(start, min(start + _BLOCK, len(data))) for start in range(0, len(data), _BLOCK)]
    # On matrices as small as a signature's, BLAS threads wait for each other ten times as long as they compute.
    with threadpool_limits(1, "blas"), ThreadPoolExecutor(os.cpu_count()) as pool:
        facts = pool.map(lambda block: [look_at(data, index) for index in block], blocks)
        shown = track(facts, title, len(blocks), console=Console(stderr=True), transient=True, disable=len(data) < 500)
        return [fact for block in shown for fact in block]


def look_at(data: ImageData, index: int) -> Facts:
    """`Facts` of one image. Never raises for a bad file: `Facts.error` says what is wrong."""
    if data.in_memory_pixels:
        return pixel_facts(data.images[index], Header("array"))
    if data.on_disk:
        try:
            status = os.stat(data.images[index])
        except OSError as error:
            return Facts(error=f"cannot be read: {error.strerror}")
        except ValueError as error:  # a null byte
            return Facts(error=f"cannot be read: its path is no path: {error}")
        if not stat.S_ISREG(status.st_mode):  # opening a pipe would wait for ever
            return Facts(error="no regular file: it is a pipe, a device or a folder")
        if status.st_size > MAX_BYTES:
            return Facts(error=f"too large: {status.st_size:,} bytes are more than {MAX_BYTES:,}")
    try:
        return inspect(data.encoded(index))
    except OSError as error:
        return Facts(error=f"cannot be read: {error.strerror}")


def inspect(content: bytes) -> Facts:
    """Decode encoded bytes once, unless their header says that they are too large to be decoded."""
    if not content:
        return Facts(error="zero bytes")
    header = read_header(content)
    facts = Facts(format=header.kind, size=(header.height, header.width), traits=_traits(header))
    error = _refused(content, header)
    if not error:
        try:
            with _lock if header.pixels > _ALONE else nullcontext():
                return pixel_facts(_decode(content, header), header)
        except (tf.errors.OpError, ValueError) as raised:
            error = _not_supported(content) or f"{_damage(header)}: {_said(raised)}"
    return Facts(**vars(facts) | {"error": error})


def _traits(header: Header) -> frozenset[str]:
    return header.traits | ({"EXIF-rotated"} if header.orientation > 1 else set())


def _refused(content: bytes, header: Header) -> str:
    """Why these bytes are not decoded; empty where they may be."""
    if not header.kind:
        return _not_supported(content) or f"not an image: it begins with {content[:12]!r}"
    if header.pixels > MAX_PIXELS:
        return f"too large: {header.width} × {header.height} is more than {MAX_PIXELS:,} pixels"
    if not header.pixels:
        return _not_supported(content) or f"{_damage(header)}: its header tells no size"
    return ""


def _not_supported(content: bytes) -> str:
    """The error for a file of a format, or variant of one, that `augment.decode` does not read; empty for others."""
    return why_undecodable(tf.constant(content), "").numpy().decode()


def _damage(header: Header) -> str:
    return f"{'truncated' if 'truncated' in header.traits else 'damaged'} {header.kind}"


def _said(raised: Exception) -> str:
    """The line of TensorFlow's message that says what is wrong, without the names of its internals."""
    lines = str(raised).split("\n\t [[")[0].splitlines()
    line = lines[-1] if lines[0].startswith("Graph execution error") else lines[0]
    return line.split("}} ")[-1].split(" [Op:")[0].removeprefix("assertion failed: ").strip("[]")[:160]


def _decode(content: bytes, header: Header) -> np.ndarray:
    """What `augment.decode` makes of the bytes; a JPEG of 4 megapixels and more at a half, quarter or eighth."""
    if header.kind != "jpeg":
        return augment.decode(tf.constant(content)).numpy()
    ratio = max(r for r in (1, 2, 4, 8) if r == 1 or header.pixels >= _FINE * r**2)
    pixels = tf.io.decode_jpeg(content, channels=3, ratio=ratio, dct_method="INTEGER_ACCURATE").numpy()
    return upright(pixels, header.orientation)


def upright(pixels: np.ndarray, orientation: int) -> np.ndarray:
    """Undo an EXIF orientation: 2-4 mirror and turn by 180°, 5-8 are those transposed."""
    if orientation >= 5:
        pixels, orientation = pixels.transpose(1, 0, 2), orientation - 4
    pixels = pixels[::-1] if orientation in (3, 4) else pixels
    return pixels[:, ::-1] if orientation in (2, 3) else pixels


def pixel_facts(pixels: np.ndarray, header: Header) -> Facts:
    """`Facts` of decoded pixels (height, width, channels)."""
    pixels = np.ascontiguousarray(pixels)
    digest = hashlib.blake2b(repr(pixels.shape).encode(), digest_size=16)
    digest.update(pixels)
    sample = pixels[tuple(slice(None, None, max(1, side // 48)) for side in pixels.shape[:2])]
    colours = sample.astype(np.uint32) @ np.array([1, 1 << 8, 1 << 16, 1 << 24][: sample.shape[-1]], np.uint32)
    dominant = float(np.unique(colours, return_counts=True)[1].max() / colours.size)
    contrast = float(luminance(sample).std())
    size = (header.height, header.width) if header.height else pixels.shape[:2]
    return Facts(digest.hexdigest(), header.kind, size, dominant, contrast, _traits(header), signature(pixels))
