"""Small datasets and networks that the tests make for themselves."""

import socket
import struct
import zlib
from pathlib import Path

import numpy as np
import tensorflow as tf

COLOURS = {"blue": (40, 60, 200), "green": (50, 180, 60), "red": (210, 50, 40)}


def picture(colour, seed: int, size=(40, 48)) -> np.ndarray:
    """uint8 (height, width, 3): a disc of one colour somewhere on noise."""
    random = np.random.default_rng(seed)
    height, width = size
    image = random.integers(90, 160, (height, width, 3)).astype(np.uint8)
    y, x = random.uniform(0.35, 0.65, 2) * size
    rows, columns = np.mgrid[:height, :width]
    image[(rows - y) ** 2 + (columns - x) ** 2 < (min(size) / 3) ** 2] = colour
    return image


def jpeg(image) -> bytes:
    return tf.io.encode_jpeg(image, quality=95).numpy()


def png(image) -> bytes:
    return tf.io.encode_png(image).numpy()


def png_bomb(width: int, height: int) -> bytes:
    """A whole grey PNG of one colour: 30,000 × 30,000 in less than a megabyte."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    packer = zlib.compressobj(9)
    row = bytes(1 + width)
    data = b"".join(packer.compress(row) for _ in range(height)) + packer.flush()
    head = struct.pack(">IIBBBBB", width, height, 8, 0, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", head) + chunk(b"IDAT", data) + chunk(b"IEND", b"")


def arrays(per_class: int = 12, classes: int = 3, seed: int = 0):
    """(images (n, 40, 48, 3), names of their classes)."""
    names = sorted(COLOURS)[:classes]
    images = [
        picture(COLOURS[name], seed * 10_000 + 100 * c + i) for c, name in enumerate(names) for i in range(per_class)
    ]
    return np.stack(images), np.repeat(names, per_class)


def folder(root: Path, per_class: int = 12, classes: int = 3, seed: int = 0) -> Path:
    """A folder of class folders of JPEG files."""
    images, names = arrays(per_class, classes, seed)
    for i, (image, name) in enumerate(zip(images, names, strict=True)):
        (root / name).mkdir(parents=True, exist_ok=True)
        (root / name / f"{i:03}.jpg").write_bytes(jpeg(image))
    return root


def small_network(path: Path | None = None, seed: int = 0):
    """A convolutional backbone of two stages for 0..255 RGB, batch normalisation and dropout included."""
    import keras

    initializers = [keras.initializers.HeNormal(seed=seed + i) for i in range(2)]
    images = keras.Input((None, None, 3))
    x = keras.layers.Rescaling(1 / 127.5, -1)(images)
    for i, initializer in enumerate(initializers):
        x = keras.layers.Conv2D(8 * (i + 1), 3, strides=2, padding="same", kernel_initializer=initializer)(x)
        x = keras.layers.BatchNormalization()(x)
        x = keras.layers.ReLU()(x)
    network = keras.Model(images, x, name="small")
    if path is not None:
        network.save(path)
    return network


def addresses(count: int) -> tuple[str, ...]:
    """host:port of free ports on loopback."""
    free = [socket.create_server(("127.0.0.1", 0)) for _ in range(count)]
    names = tuple(f"127.0.0.1:{one.getsockname()[1]}" for one in free)
    for one in free:
        one.close()
    return names
