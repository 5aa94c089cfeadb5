"""Compare what this library reads of image files with what Pillow reads, and exit with 1 when a verdict is wrong.

Usage: python scripts/check_decoders.py FOLDER [FOLDER ...] [--tolerance 3] [--known NAME …] [--verbose]

Every file below the folders is checked whose name or content is that of a format that this library claims to read. The
reference is Pillow's first frame, turned as its EXIF orientation says, laid over white where it is transparent, and
scaled to 8 bits. Public collections of odd files are the test images of Pillow (Tests/images), image-rs (tests/images),
wuffs (test/data) and libjpeg-turbo (testimages).
"""

import argparse
import io
import os
import sys
import warnings
from collections import Counter
from contextlib import suppress
from pathlib import Path

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import numpy as np
import tensorflow as tf
from measurements import Recorder, add_option
from PIL import Image

import augment
from recipes.auditing.facts import inspect
from recipes.data.folders.contents import IMAGE_SUFFIXES
from recipes.data.header_ops import MAX_PIXELS, NOT_SUPPORTED, refusal, why_undecodable

GOOD = (
    "agreed",
    "not supported",
    "refused by Pillow too",
    "refused for its size",
    "read, refused by Pillow",
    "known to differ",
)
BAD = ("wrong pixels", "wrongly refused", "entrances disagree")


def reference(content: bytes) -> np.ndarray | None:
    """uint8 RGB (height, width, 3) as Pillow reads it; None where Pillow refuses the file."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            image = Image.open(io.BytesIO(content))
            image.load()
            image = upright(image, content)
            if image.mode.startswith("I"):  # 16-bit grey, which Pillow would clip at 255
                grey = np.asarray(image).astype(np.int64)
                shown = np.where(grey == image.info.get("transparency"), 255, (grey + 128) // 257)
                return np.repeat(shown.astype(np.uint8)[..., None], 3, 2)
            if image.has_transparency_data:
                white = Image.new("RGBA", image.size, "white")
                image = Image.alpha_composite(white, image.convert("RGBA"))
            return np.asarray(image.convert("RGB"))
    except Exception:  # Pillow raises errors of many types for files that it cannot read
        return None


def upright(image: Image.Image, content: bytes) -> Image.Image:
    """`image` turned by the orientation of its EXIF block: not by XMP, nor by text that ImageMagick writes into PNG."""
    exif = Image.Exif()
    if image.format != "PNG" or b"eXIf" in content:
        with suppress(Exception):  # of many types, for blocks that make no sense: then the image is upright
            exif.load(image.info.get("exif", b""))
    turns = {
        2: Image.Transpose.FLIP_LEFT_RIGHT, 3: Image.Transpose.ROTATE_180, 4: Image.Transpose.FLIP_TOP_BOTTOM,
        5: Image.Transpose.TRANSPOSE, 6: Image.Transpose.ROTATE_270, 7: Image.Transpose.TRANSVERSE,
        8: Image.Transpose.ROTATE_90,
    }  # fmt: skip
    turn = turns.get(exif.get(0x0112))
    turned = image if turn is None else image.transpose(turn)
    turned.info = image.info
    return turned


def decoded(content: bytes) -> tuple[np.ndarray | None, str]:
    """uint8 RGB by the operations that training and the exported SavedModel run, or None and the export's error."""
    encoded = tf.constant(content)
    try:
        error = refusal(encoded, MAX_PIXELS).numpy().decode()
        return (None, error) if error else (augment.decode(encoded).numpy(), "")
    except tf.errors.OpError:
        return None, why_undecodable(encoded, "damaged").numpy().decode()


def verdict(content: bytes, tolerance: int) -> tuple[str, str]:
    """One of `GOOD` and `BAD`, and details."""
    audited = inspect(content).error
    if audited.startswith("too large"):
        return "refused for its size", audited
    found, error = decoded(content)
    if bool(error) != bool(audited) or error.startswith(NOT_SUPPORTED) != audited.startswith(NOT_SUPPORTED):
        return "entrances disagree", f"audit: {audited!r}, export: {error!r}"
    if audited.startswith(NOT_SUPPORTED):
        return "not supported", audited
    expected = reference(content)
    if expected is None:
        return ("refused by Pillow too" if audited else "read, refused by Pillow"), audited
    if audited:
        return "wrongly refused", audited
    if found.shape != expected.shape:
        return "wrong pixels", f"size is {found.shape[:2]}, expected {expected.shape[:2]}"
    difference = int(np.abs(found.astype(int) - expected).max())
    return ("agreed" if difference <= tolerance else "wrong pixels"), f"differs by up to {difference}"


def claimed(path: Path, content: bytes) -> str:
    """The format of a file that this library claims to read; empty for other files."""
    return augment.file_kind(content) or ("other" if path.suffix.lower() in IMAGE_SUFFIXES else "")


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("folders", nargs="+", type=Path)
    parser.add_argument("--tolerance", type=int, default=3, help="largest difference of a colour value, of 255")
    parser.add_argument("--known", nargs="*", default=[], help="names of files that may differ")
    parser.add_argument("--verbose", action="store_true", help="print the verdict on every file")
    add_option(parser)
    options = parser.parse_args()
    rows = Recorder("decoders", options.rows)
    counts = Counter()
    for path in sorted(path for folder in options.folders for path in folder.rglob("*") if path.is_file()):
        content = path.read_bytes()
        kind = claimed(path, content)
        if kind:
            name, detail = verdict(content, options.tolerance)
            name = "known to differ" if name in BAD and path.name in options.known else name
            counts[kind, name] += 1
            if options.verbose or name in BAD:
                print(f"{name}: {path}: {detail}")
    kinds = sorted({kind for kind, _ in counts})
    print(f"{'':26}" + "".join(f"{kind:>7}" for kind in kinds) + f"{'all':>7}")
    for name in GOOD + BAD:
        row = [counts[kind, name] for kind in kinds]
        print(f"{name:26}" + "".join(f"{count:7}" for count in (*row, sum(row))))
        details, target = dict(zip(kinds, row, strict=True)), {"at_most": 0} if name in BAD else {}
        rows.add(name, sum(row), "files", details=details, **target)
    return int(any(counts[kind, name] for kind in kinds for name in BAD))


if __name__ == "__main__":
    sys.exit(main())
