"""Measure each image of a dataset once: read and decode it, and collect all facts that the audit needs."""

import hashlib
import os
import threading
from concurrent.futures import ThreadPoolExecutor
from contextlib import nullcontext
from dataclasses import dataclass, replace
from typing import cast

import numpy as np
import tensorflow as tf
from threadpoolctl import threadpool_limits

from recipes import augment
from recipes.auditing.headers import Header, read_header
from recipes.auditing.near_duplicates import Signature, luminance, signature
from recipes.augment import upright
from recipes.core.files import size_and_fault
from recipes.core.limits import MAX_PIXELS
from recipes.core.progress import phase
from recipes.data.header_ops import why_undecodable
from recipes.data.images import ImageData

_FINE = 1_000_000  # smallest number of pixels to which a large JPEG is decoded; enough to distinguish pictures
_ALONE = 16_000_000  # images with more pixels are decoded one at a time, so that their memory does not add up
_BLOCK = 16  # number of images per task
_lock = threading.Lock()


@dataclass(frozen=True)
class Facts:
    """The measured properties of one image.

    Attributes:
        fingerprint: Hash of the decoded, upright pixels; JPEGs of at least 4 megapixels are decoded at reduced size.
        format: "jpeg", "png", "gif", "bmp", "webp", or "array".
        size: (height, width) as stored, in pixels.
        dominant: Share of the pixels that have the most frequent colour.
        contrast: Standard deviation of the luminance, which is in 0..255.
        traits: The traits in `Header`, or "EXIF-rotated".
        signature: Signature for the search for near-duplicates; None for an image that is too small to have one.
        error: Reason why the image cannot be decoded; empty if it can be decoded.
    """

    fingerprint: str = ""
    format: str = ""
    size: tuple[int, int] = (0, 0)
    dominant: float = 0.0
    contrast: float = 255.0
    traits: frozenset[str] = frozenset()
    signature: Signature | None = None
    error: str = ""


def inspect_images(data: ImageData, title: str = "inspecting the images") -> list[Facts]:
    """Return the facts of every image in order; images are measured in parallel."""
    blocks = [range(start, min(start + _BLOCK, len(data))) for start in range(0, len(data), _BLOCK)]
    # On the small matrices of a signature, BLAS threads wait for each other ten times as long as they compute.
    with threadpool_limits(1, "blas"), ThreadPoolExecutor(os.cpu_count()) as pool, phase(title, len(data)) as progress:
        facts = []
        for block in pool.map(lambda block: [inspect_image(data, index) for index in block], blocks):
            facts += block
            progress.update(len(facts))
        return facts


def inspect_image(data: ImageData, index: int) -> Facts:
    """Return the facts of one image. The function never raises for a bad file; `Facts.error` describes the problem."""
    if data.pixels is not None:
        return pixel_facts(data.pixels[index], Header("array"))
    if data.paths is not None:
        _, fault = size_and_fault(data.paths[index])
        if fault:
            return Facts(error=fault)
    try:
        return inspect(data.encoded(index))
    except OSError as error:
        return Facts(error=f"cannot be read: {error.strerror}")


def inspect(content: bytes) -> Facts:
    """Return the facts of encoded bytes, which are decoded unless their header declares too many pixels."""
    if not content:
        return Facts(error="zero bytes")
    header = read_header(content)
    facts = Facts(format=header.kind, size=(header.height, header.width), traits=_traits(header))
    error = _rejection(content, header)
    if not error:
        try:
            with _lock if header.pixels > _ALONE else nullcontext():
                return pixel_facts(_decode(content, header), header)
        except (tf.errors.OpError, ValueError) as raised:
            error = _not_supported(content) or f"{_damage(header)}: {_reason(raised)}"
    return replace(facts, error=error)


def _traits(header: Header) -> frozenset[str]:
    return header.traits | ({"EXIF-rotated"} if header.orientation > 1 else set())


def _rejection(content: bytes, header: Header) -> str:
    """Return the reason not to decode these bytes; empty if they are safe to decode."""
    if not header.kind:
        return _not_supported(content) or f"not an image: it begins with {content[:12]!r}"
    if header.pixels > MAX_PIXELS:
        return f"too large: {header.width} × {header.height} is more than {MAX_PIXELS:,} pixels"
    if not header.pixels:
        return _not_supported(content) or f"{_damage(header)}: its header has no size"
    return ""


def _not_supported(content: bytes) -> str:
    """Return the error for a format or variant that `augment.decode` does not support; empty for supported ones."""
    error = cast(bytes, why_undecodable(tf.constant(content), "").numpy())  # the stubs only declare arrays
    return error.decode()


def _damage(header: Header) -> str:
    return f"{'truncated' if 'truncated' in header.traits else 'damaged'} {header.kind}"


def _reason(raised: Exception) -> str:
    """Return the line of TensorFlow's message that describes the problem, without the names of its internals."""
    lines = str(raised).split("\n\t [[")[0].splitlines()
    line = lines[-1] if lines[0].startswith("Graph execution error") else lines[0]
    return line.split("}} ")[-1].split(" [Op:")[0].removeprefix("assertion failed: ").strip("[]")[:160]


def _decode(content: bytes, header: Header) -> np.ndarray:
    """Decode like `augment.decode`, but a JPEG of at least 4 megapixels at 1/2, 1/4 or 1/8 of its size."""
    if header.kind != "jpeg":
        return augment.decode(tf.constant(content)).numpy()
    ratio = max(r for r in (1, 2, 4, 8) if r == 1 or header.pixels >= _FINE * r**2)
    with tf.device("CPU:0"):  # copying the image to an accelerator and back costs more than turning it
        pixels = tf.io.decode_jpeg(content, channels=3, ratio=ratio, dct_method="INTEGER_ACCURATE")
        return upright(pixels, tf.constant(header.orientation)).numpy()


def pixel_facts(pixels: np.ndarray, header: Header) -> Facts:
    """Return the facts of decoded pixels (height, width, channels)."""
    pixels = np.ascontiguousarray(pixels)
    digest = hashlib.blake2b(repr(pixels.shape).encode(), digest_size=16)
    digest.update(pixels.data)
    sample = pixels[tuple(slice(None, None, max(1, side // 48)) for side in pixels.shape[:2])]
    colours = sample.astype(np.uint32) @ np.array([1, 1 << 8, 1 << 16, 1 << 24][: sample.shape[-1]], np.uint32)
    dominant = float(np.unique(colours, return_counts=True)[1].max() / colours.size)
    contrast = float(luminance(sample).std())
    size = (header.height, header.width) if header.height else (pixels.shape[0], pixels.shape[1])
    return Facts(digest.hexdigest(), header.kind, size, dominant, contrast, _traits(header), signature(pixels))
