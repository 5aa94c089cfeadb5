"""What the audit costs beside decoding the same files, on folders of photos and on JPEGs made here.

Usage: python scripts/benchmark_audit.py [FOLDER ...] [--made 5000] [--repeats 3]
"""

import argparse
import os
import platform
import statistics
import tempfile
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import numpy as np
import tensorflow as tf
from measurements import Recorder, add_option

import augment
import recipes
from recipes.data.sources import load


def made(folder: Path, count: int, size=(375, 500)) -> Path:
    """`count` JPEGs of blobs and noise in ten classes, of the size and weight (about 100 KB) of ImageNet's."""
    random = np.random.default_rng(0)
    noise = random.normal(0, 14, (*size, 3))
    for i in range(count):
        coarse = random.uniform(0, 255, (8, 8, 3)).astype(np.float32)
        blobs = tf.image.resize(coarse, size, "bicubic").numpy()
        image = np.clip(blobs + np.roll(noise, random.integers(0, size), (0, 1)), 0, 255).astype(np.uint8)
        path = folder / str(i % 10) / f"{i:05}.jpg"
        path.parent.mkdir(exist_ok=True)
        path.write_bytes(tf.io.encode_jpeg(image, quality=90).numpy())
    return folder


def decode_all(data) -> None:
    """Read and decode every file, on all cores, and nothing else."""

    def decode(files):
        for file in files:
            content = tf.io.read_file(file)
            if augment.file_kind(content.numpy()[:12]) == "jpeg":
                tf.io.decode_jpeg(content, channels=3, dct_method="INTEGER_ACCURATE")
            else:
                augment.decode(content)

    with ThreadPoolExecutor(os.cpu_count()) as pool:
        list(pool.map(decode, [data.images[i : i + 16] for i in range(0, len(data), 16)]))


def seconds(function, repeats: int) -> tuple[float, float]:
    """Medians of wall and processor seconds."""
    pairs = []
    for _ in range(repeats):
        wall, cpu = time.perf_counter(), time.process_time()
        function()
        pairs.append((time.perf_counter() - wall, time.process_time() - cpu))
    return tuple(statistics.median(column) for column in zip(*pairs, strict=True))


def compare(name: str, folder: Path, repeats: int, rows: Recorder) -> None:
    splits = load(folder)
    images = sum(len(data) for data in splits.given.values())
    decode, decode_cpu = seconds(lambda: [decode_all(data) for data in splits.given.values()], repeats)
    audit, audit_cpu = seconds(lambda: recipes.audit(folder), repeats)
    print(
        f"{name}: {images} images, decoding alone {decode:.2f} s ({decode_cpu:.2f} s of processors), "
        f"audit {audit:.2f} s ({audit_cpu:.2f} s), {images / audit:.0f} images/s, {audit / decode:.2f} × decoding"
    )
    details = {"images": images, "audit, s": audit, "decoding alone, s": decode, "images/s": images / audit,
               "audit, s of processor": audit_cpu, "decoding alone, s of processor": decode_cpu}  # fmt: skip
    limit = {"limit": 1.0, "limit_text": "an audit of every pixel decodes every pixel"}
    rows.add(f"audit / decoding alone, {name}", audit / decode, "×", details=details, **limit)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("folders", nargs="*", type=Path, help="folders of class folders")
    parser.add_argument("--made", type=int, default=5000, help="JPEGs of 500 × 375 to make, 0 for none")
    parser.add_argument("--repeats", type=int, default=3)
    add_option(parser)
    options = parser.parse_args()
    rows = Recorder("audit", options.rows)
    print(f"{os.cpu_count()} cores, {platform.processor() or platform.machine()}, TensorFlow {tf.__version__}")
    for folder in options.folders:
        compare(folder.name, folder, options.repeats, rows)
    if options.made:
        with tempfile.TemporaryDirectory() as folder:
            made_here = made(Path(folder), options.made)
            compare(f"{options.made:,} JPEGs of 500 × 375 made here", made_here, options.repeats, rows)


if __name__ == "__main__":
    main()
