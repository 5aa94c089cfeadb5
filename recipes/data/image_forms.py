"""Convert and check images in the forms that a caller may pass: paths, bytes, arrays, open files, Pillow images."""

import io
import os
import sys
from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Any, cast

import numpy as np
import tensorflow as tf

from recipes.augment import range_fault
from recipes.errors import DataError

if TYPE_CHECKING:
    from PIL import Image


def plain(image: Any) -> Any:
    """Return a Pillow image, an open file or a buffer as `bytes`; return any other object unchanged.

    Raises:
        DataError: If a file is open as text.
    """
    if isinstance(image, bytearray | memoryview):
        return bytes(image)
    pillow = sys.modules.get("PIL.Image")  # a caller that passes a Pillow image has already imported Pillow
    if pillow and isinstance(image, pillow.Image):
        return _png(image)
    if hasattr(image, "read"):
        content = image.read()
        if not isinstance(content, bytes):
            raise DataError(
                "an image is a file that is open as text; expected binary mode: open it with mode 'rb', or give "
                "its path",
                code="images.text_file",
            )
        return content
    return image


def listed(images: Any) -> Any:
    """Return the images of any iterable as a list of `plain` images; return arrays and paths unchanged."""
    alone = isinstance(images, str | bytes | os.PathLike | Mapping) or hasattr(images, "__array__")
    if alone or not isinstance(images, Iterable):
        return images
    return [plain(image) for image in images]


def _png(image: "Image.Image") -> bytes:
    """Return a Pillow image as the bytes of a PNG file, turned upright according to its EXIF orientation."""
    from PIL import ImageOps

    image, content = ImageOps.exif_transpose(image), io.BytesIO()
    if image.mode not in ("1", "L", "LA", "P", "RGB", "RGBA", "I", "I;16"):  # the modes that PNG supports
        image = image.convert("RGB")
    image.save(content, "PNG", compress_level=1)
    return content.getvalue()


def stacked(images: Iterable[object], name: str = "images") -> np.ndarray | list[bytes]:
    """Return one array for images of one size, or PNG files for images of several sizes.

    Raises:
        DataError: If `check_pixels` rejects the images.
    """
    try:
        arrays = [np.asarray(image) for image in images]
    except ValueError as error:  # rows of different lengths, or a pair of image and label
        raise DataError(
            f"{name} contain an object that is not an array of pixels ({error}); expected arrays (height, width, "
            "3) in 0..255",
            code="images.shape",
        ) from None
    if len({image.shape for image in arrays}) == 1:
        return check_pixels(np.stack(arrays), name)
    brightest = max(float(image.max()) if image.size and image.dtype.kind in "fiu" else 0.0 for image in arrays)
    checked = [check_pixels(image[None], f"{name}[{i}]", brightest)[0] for i, image in enumerate(arrays)]
    files = [tf.io.encode_png(np.round(image).astype(np.uint8)).numpy() for image in checked]
    return cast(list[bytes], files)  # the stubs only declare arrays


def check_pixels(images: np.ndarray, name: str = "images", brightest: float | None = None) -> np.ndarray:
    """Return the caller's array as uint8 or float32 (n, height, width, 1 | 3 | 4) in 0..255.

    Args:
        images: Pixels (n, height, width) or (n, height, width, channels).
        name: Name of the images in messages.
        brightest: Largest value of the dataset to which these images belong.

    Raises:
        DataError: If the shape or the range is wrong (0..1 is the usual mistake), or values are not finite.
    """
    images = np.asarray(images)
    if images.dtype == object:
        raise DataError(
            f"{name} are an array of objects; expected one array (n, height, width, 3), a folder, or a dataset",
            code="images.type",
        )
    if images.ndim == 3:
        images = images[..., None]
    if images.ndim != 4 or images.shape[-1] not in (1, 3, 4) or 0 in images.shape[1:]:
        raise DataError(
            f"{name} have shape {images.shape}; expected (n, height, width, 3), channels last",
            code="images.shape",
            shape=images.shape,
        )
    if images.dtype == np.uint8:
        return images
    if images.dtype.kind not in "fiu":
        raise DataError(
            f"{name} are {images.dtype}; expected uint8 or float in 0..255",
            code="images.type", type=str(images.dtype),
        )  # fmt: skip
    low, high = (float(images.min()), float(images.max())) if images.size else (0.0, 255.0)
    fault = range_fault(low, high, floating=images.dtype.kind == "f" and (brightest or 0) <= 1)
    if fault:
        raise DataError(f"{name} {fault}", code="images.range", low=low, high=high)
    return images.astype(np.float32)
