"""Collect the images of an export's proof: held-out images, and one picture in every supported encoding."""

import io
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import tensorflow as tf
from PIL import Image
from PIL.ExifTags import Base

from recipes.data.images import ImageData
from recipes.data.sources import load
from recipes.errors import DataError

LIMIT = 500  # maximum number of held-out images, evenly spaced; more would not strengthen the proof
_SHAPES = ((17, 90), (200, 31), (1, 1))


@dataclass(frozen=True, eq=False)
class ProofImages:
    """Hold the encoded images of a proof.

    Attributes:
        contents: The encoded bytes of each image.
        names: A name for each image, for messages.
        description: Description of the images for the proof's message.
    """

    contents: list[bytes]
    names: list[str]
    description: str


def proof_images(held_out: ImageData | None, class_names: Sequence[str], dataset: object = None) -> ProofImages:
    """Return images of `dataset`, by default the held-out images, followed by generated images.

    Raises:
        DataError: If `dataset` cannot be read.
    """
    if dataset is not None:
        _, data = list(load(dataset, tuple(class_names)).given.items())[-1]
        source = "images given as proof"
    else:
        data, source = held_out, "validation images"
    contents, names, unreadable = _read(data) if data is not None else ([], [], 0)
    if data is None:
        description = "no validation images available"
    elif dataset is not None and not contents:
        raise DataError(
            "none of the images given as proof can be read; give undamaged images in a supported format",
            code="proof.unreadable",
        )
    else:
        description = f"{len(contents)} {source}"
        description += f" of {len(data)}" if len(data) > LIMIT else ""
        description += f" ({unreadable} more cannot be read any longer)" if unreadable else ""
    made = made_images(next((c for c in contents if c.startswith(b"\xff\xd8\xff")), None))
    return ProofImages(
        contents=contents + [content for _, content in made],
        names=names + [name for name, _ in made],
        description=f"{description}, and {len(made)} generated images (EXIF 1-8, PNG, BMP, GIF, odd shapes)",
    )


def _read(data: ImageData) -> tuple[list[bytes], list[str], int]:
    """Return up to LIMIT images (pixels as PNG), their names, and the number of unreadable images."""
    at = np.unique(np.linspace(0, len(data) - 1, min(LIMIT, len(data))).astype(int))
    contents, names = [], []
    for i in at:
        try:
            contents.append(_encoded(np.asarray(data.images[i])) if data.in_memory_pixels else data.encoded(i))
        except (OSError, DataError):
            continue  # the caller reports the number of unreadable images
        names.append(data.names[i])
    return contents, names, len(at) - len(contents)


def _encoded(pixels: np.ndarray) -> bytes:
    return tf.io.encode_png(np.round(pixels).astype(np.uint8)).numpy()


def made_images(photo: bytes | None) -> list[tuple[str, bytes]]:
    """Return the names and contents of generated images.

    One picture is stored as JPEG in all orientations, PNG (grey, alpha, 16 bits), GIF and BMP. Other images have odd
    shapes.

    Args:
        photo: The picture as JPEG bytes; None: noise with a disc.
    """
    picture = _pattern(120, 160) if photo is None else _shrunk(photo)
    made = []
    for n in range(1, 9):
        exif = Image.Exif()
        exif[Base.Orientation] = n
        made.append((f"JPEG with EXIF orientation {n}", _file(picture, "JPEG", quality=90, exif=exif)))
    alpha = np.concatenate([picture, np.full_like(picture[..., :1], 128)], -1)
    made += [
        ("PNG", _encoded(picture)),
        ("grey PNG", _encoded(picture[..., :1])),
        ("PNG with alpha", _encoded(alpha)),
        ("16-bit PNG", tf.io.encode_png(picture.astype(np.uint16) * 257).numpy()),
        ("BMP", _file(picture, "BMP")),
        ("GIF", _file(picture, "GIF")),
    ]
    return made + [(f"PNG of {w} × {h}", _encoded(_pattern(h, w))) for h, w in _SHAPES]


def _shrunk(photo: bytes) -> np.ndarray:
    """Return the photo as uint8 with sides of at most 640 pixels, without its EXIF orientation."""
    pixels = tf.io.decode_jpeg(photo, channels=3)
    sides = np.array(pixels.shape[:2])
    size = np.maximum(1, sides * min(1.0, 640 / sides.max())).astype(int)
    return np.round(tf.image.resize(pixels, size, antialias=True)).clip(0, 255).astype(np.uint8)


def _pattern(height: int, width: int) -> np.ndarray:
    random = np.random.default_rng(height * 10_000 + width)
    image = random.integers(60, 200, (height, width, 3)).astype(np.uint8)
    rows, columns = np.mgrid[:height, :width]
    image[(rows / height - 0.4) ** 2 + (columns / width - 0.3) ** 2 < 0.05] = random.integers(0, 256, 3)
    return image


def _file(picture: np.ndarray, format: str, **options: Any) -> bytes:
    """Return uint8 RGB pixels as the bytes of an image file written by Pillow."""
    file = io.BytesIO()
    Image.fromarray(picture).save(file, format, **options)
    return file.getvalue()
