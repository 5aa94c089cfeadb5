"""Check that pixel values are in 0..255, not in 0..1 and not preprocessed."""

import numpy as np
import tensorflow as tf

from .policy import PolicyError
from .tensors import Tensor

_UNDO = "expected 0..255 RGB; undo your preprocessing first"
_CONVERT = "convert them, such as Booleans by np.uint8(255) * images"
_MULTIPLY = "expected 0..255; multiply them by 255"


def range_fault(low: float, high: float, *, floating: bool, highest: float = 255.0) -> str | None:
    """Return the fault of pixels that range over low..high as text, or None.

    Args:
        low: smallest value of the data set.
        high: largest value of the data set.
        floating: whether the values are floating-point numbers, which may not lie in 0..1; integers may.
        highest: largest possible value of the type.
    """
    if not (np.isfinite(low) and np.isfinite(high)):
        return "contain NaN or infinite values; expected numbers in 0..255. Remove these values"
    if low < 0 or high > highest:
        return f"range over {low:g}..{high:g}; {_UNDO}"
    if floating and 0 < high <= 1:
        return f"range over {low:g}..{high:g}; {_MULTIPLY}"
    return None


def check_type(images: Tensor, name: str = "images") -> None:
    """Check, also in graphs, that images are real numbers or encoded bytes.

    Raises:
        PolicyError: If the images are Booleans, complex numbers, or of another type.
    """
    if not (images.dtype.is_integer or images.dtype.is_floating or images.dtype == tf.string):
        raise PolicyError(f"{name} are of the type {images.dtype.name}; expected numbers in 0..255; {_CONVERT}")


def check_images(images: Tensor, name: str = "images") -> None:
    """Check the range of an array of pixels; a tensor of a graph is not checked.

    Raises:
        PolicyError: If values are not in 0..255 (uint16: 0..65535), floats are in 0..1, or the type is wrong.
    """
    check_type(images, name)
    if images.dtype in (tf.uint8, tf.string) or not hasattr(images, "numpy") or 0 in images.shape:
        return
    low, high = float(tf.reduce_min(images)), float(tf.reduce_max(images))
    fault = range_fault(low, high, floating=images.dtype.is_floating, highest=_highest(images.dtype))
    if fault:
        raise PolicyError(f"{name} {fault}")


def checked(image: Tensor) -> Tensor:
    """Return the pixels of one image after checking that they are in 0..255 (uint16: 0..65535).

    Outside graphs, floats in 0..1 are rejected too, unless all are whole numbers as in a mask. In a graph,
    `checked_batch` rejects them, because a single image may really be so dark.

    Raises:
        PolicyError: If the type is wrong or, outside a graph, the range is wrong.
        tf.errors.InvalidArgumentError: If the range is wrong in a graph.
    """
    if image.dtype in (tf.uint8, tf.uint16):
        return image
    check_type(image, "image values")
    low, high = (tf.cast(bound(image), tf.float32) for bound in (tf.reduce_min, tf.reduce_max))
    if hasattr(image, "numpy"):
        fault = range_fault(float(low), float(high), floating=bool(_fractions(image)))
        if fault:
            raise PolicyError(f"image values {fault}")
        return image
    within = (low >= 0) & (high <= 255)  # the comparison is also false for NaN
    with tf.control_dependencies([tf.debugging.Assert(within, ["image values range over", low, high, _UNDO])]):
        return tf.identity(image)


def checked_batch(pixels: Tensor) -> Tensor:
    """Return a batch of floating-point images after checking that its pixels are not in 0..1.

    Raises:
        tf.errors.InvalidArgumentError: If the pixels are in 0..1, when the graph runs.
    """
    high = tf.reduce_max(pixels)
    message = ["images of a batch range up to", high, _MULTIPLY]
    with tf.control_dependencies([tf.debugging.Assert((high > 1) | ~_fractions(pixels), message)]):
        return tf.identity(pixels)


def _fractions(pixels: Tensor) -> Tensor:
    """Return whether any value is not a whole number."""
    return tf.reduce_any(pixels != tf.round(pixels)) if pixels.dtype.is_floating else tf.constant(False)


def _highest(dtype: tf.DType) -> float:
    return 65535.0 if dtype == tf.uint16 else 255.0
