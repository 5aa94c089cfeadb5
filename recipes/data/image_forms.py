"""The forms in which a caller may hold images: paths, encoded bytes, arrays, open files, Pillow images."""

import io
import os
import sys
from collections.abc import Iterable, Mapping

from recipes.errors import DataError


def plain(image):
    """Return a Pillow image, an open file or a buffer as `bytes`, anything else as it is.

    Raises:
        DataError: A file is open as text.
    """
    if isinstance(image, bytearray | memoryview):
        return bytes(image)
    pillow = sys.modules.get("PIL.Image")  # whoever has such an image has imported it
    if pillow and isinstance(image, pillow.Image):
        return _png(image)
    if hasattr(image, "read"):
        content = image.read()
        if not isinstance(content, bytes):
            raise DataError("an image is a file that is open as text; open it in binary mode, 'rb', or give its path")
        return content
    return image


def listed(images):
    """Return the images of a generator or another iterable as a list of `plain` ones; arrays and paths as they are."""
    alone = isinstance(images, str | bytes | os.PathLike | Mapping) or hasattr(images, "__array__")
    if alone or not isinstance(images, Iterable):
        return images
    return [plain(image) for image in images]


def _png(image) -> bytes:
    """Return a Pillow image as a PNG file, upright as its EXIF orientation says."""
    from PIL import ImageOps

    image, content = ImageOps.exif_transpose(image), io.BytesIO()
    if image.mode not in ("1", "L", "LA", "P", "RGB", "RGBA", "I", "I;16"):  # PNG has no others
        image = image.convert("RGB")
    image.save(content, "PNG", compress_level=1)
    return content.getvalue()
