"""The encoded images of an export's proof: held-out ones, and every way in which a picture can be stored."""

import io
import struct
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import tensorflow as tf

from recipes.data.images import ImageData
from recipes.data.sources import load
from recipes.errors import DataError

LIMIT = 500  # held-out images, evenly spaced; more would prove no more
_SHAPES = ((17, 90), (200, 31), (1, 1))


@dataclass(frozen=True, eq=False)
class ProofImages:
    """Encoded images.

    Attributes:
        contents: The images as files hold them.
        names: A name for each image, for messages.
        description: Which images they are, for the proof.
    """

    contents: list[bytes]
    names: list[str]
    description: str


def proof_images(held_out: ImageData | None, class_names: Sequence[str], dataset: object = None) -> ProofImages:
    """Return images of `dataset`, by default the held-out images, followed by generated ones.

    Raises:
        DataError: `dataset` cannot be read.
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
        raise DataError("none of the images given as proof can be read", code="proof.unreadable")
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
    """Return up to LIMIT images (pixels as PNG), their names, and the number of images that cannot be read."""
    at = np.unique(np.linspace(0, len(data) - 1, min(LIMIT, len(data))).astype(int))
    contents, names = [], []
    for i in at:
        try:
            contents.append(_encoded(np.asarray(data.images[i])) if data.in_memory_pixels else data.encoded(i))
        except (OSError, DataError):
            continue  # the caller reports the number of these
        names.append(data.names[i])
    return contents, names, len(at) - len(contents)


def _encoded(pixels: np.ndarray) -> bytes:
    return tf.io.encode_png(np.round(pixels).astype(np.uint8)).numpy()


def made_images(photo: bytes | None) -> list[tuple[str, bytes]]:
    """Return the name and content of generated images.

    They show one picture as JPEG in all orientations, PNG (grey, alpha, 16 bits), GIF and BMP; others have odd shapes.

    Args:
        photo: The picture as JPEG bytes; None: noise with a disc.
    """
    picture = _pattern(120, 160) if photo is None else _shrunk(photo)
    jpeg = tf.io.encode_jpeg(picture, quality=90).numpy()
    made = [(f"JPEG with EXIF orientation {n}", with_orientation(jpeg, n)) for n in range(1, 9)]
    alpha = np.concatenate([picture, np.full_like(picture[..., :1], 128)], -1)
    made += [
        ("PNG", _encoded(picture)),
        ("grey PNG", _encoded(picture[..., :1])),
        ("PNG with alpha", _encoded(alpha)),
        ("16-bit PNG", tf.io.encode_png(picture.astype(np.uint16) * 257).numpy()),
        ("BMP", bmp(picture)),
        ("GIF", gif(picture)),
    ]
    return made + [(f"PNG of {w} × {h}", _encoded(_pattern(h, w))) for h, w in _SHAPES]


def _shrunk(photo: bytes) -> np.ndarray:
    """Return the photo with sides of at most 640 pixels, as uint8, without its orientation."""
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


def with_orientation(jpeg: bytes, orientation: int) -> bytes:
    """Return `jpeg` with an EXIF segment that holds only the orientation."""
    entry = struct.pack(">HHIHH", 0x0112, 3, 1, orientation, 0)
    tiff = b"MM\x00\x2a" + struct.pack(">IH", 8, 1) + entry + struct.pack(">I", 0)
    body = b"Exif\x00\x00" + tiff
    return jpeg[:2] + b"\xff\xe1" + struct.pack(">H", len(body) + 2) + body + jpeg[2:]


def bmp(picture: np.ndarray) -> bytes:
    """Return a 24-bit BMP of uint8 RGB."""
    height, width = picture.shape[:2]
    rows = np.zeros((height, -(-3 * width // 4) * 4), np.uint8)
    rows[:, : 3 * width] = picture[::-1, :, ::-1].reshape(height, -1)
    size = rows.size
    head = struct.pack("<2sIHHI", b"BM", 54 + size, 0, 0, 54)
    return head + struct.pack("<IiiHHIIiiII", 40, width, height, 1, 24, 0, size, 2835, 2835, 0, 0) + rows.tobytes()


def gif(picture: np.ndarray) -> bytes:
    """Return a GIF of uint8 RGB in 6 × 6 × 6 colours, uncompressed: 9-bit codes, cleared before the tables grow."""
    height, width = picture.shape[:2]
    levels = np.arange(6) * 51
    palette = np.stack(np.meshgrid(levels, levels, levels, indexing="ij"), -1).reshape(-1, 3).astype(np.uint8)
    nearest = np.round(picture / 51).astype(int) @ [36, 6, 1]
    codes = []
    for start in range(0, nearest.size, 200):
        codes += [256, *nearest.ravel()[start : start + 200].tolist()]
    bits = "".join(f"{code:09b}"[::-1] for code in [*codes, 257])
    data = np.packbits(np.array([int(b) for b in bits.ljust(-(-len(bits) // 8) * 8, "0")], np.uint8), bitorder="little")
    out = io.BytesIO()
    out.write(b"GIF89a" + struct.pack("<HHBBB", width, height, 0xF7, 0, 0))
    out.write(palette.tobytes() + bytes(3 * 256 - palette.size))
    out.write(b"\x2c" + struct.pack("<HHHHB", 0, 0, width, height, 0) + b"\x08")
    for start in range(0, len(data), 255):
        block = data[start : start + 255].tobytes()
        out.write(bytes([len(block)]) + block)
    out.write(b"\x00\x3b")
    return out.getvalue()
