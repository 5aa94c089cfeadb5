"""Check pixel values: images must be in 0..255, not in 0..1 and not preprocessed."""

import numpy as np
import tensorflow as tf

from .policy import PolicyError
from .tensors import Tensor

_UNDO = "expected 0..255 RGB: undo your preprocessing first"
_CONVERT = "convert them, such as Booleans by np.uint8(255) * images"
_MULTIPLY = "expected 0..255: multiply them by 255"


def range_fault(low: float, high: float, *, floating: bool, highest: float = 255.0) -> str | None:
    """Return what is wrong with pixels that range over low..high, or None.

    Args:
        low: smallest value of the data set.
        high: largest value of the data set.
        floating: whether the values are floating-point numbers, which may not lie in 0..1; integers may.
        highest: largest possible value of the type.
    """
    if not (np.isfinite(low) and np.isfinite(high)):
        return "contain values that are not finite"
    if low < 0 or high > highest:
        return f"range over {low:g}..{high:g}; {_UNDO}"
    if floating and 0 < high <= 1:
        return f"range over {low:g}..{high:g}; {_MULTIPLY}"
    return None


def check_type(images: Tensor, name: str = "images") -> None:
    """Check that pixels are real numbers; encoded bytes are allowed, too. This holds in graphs as well.

    Raises:
        PolicyError: They are Booleans, complex numbers, or of another type.
    """
    if not (images.dtype.is_integer or images.dtype.is_floating or images.dtype == tf.string):
        raise PolicyError(f"{name} are of the type {images.dtype.name}; expected numbers in 0..255: {_CONVERT}")


def check_images(images: Tensor, name: str = "images") -> None:
    """Check the range of an array of pixels, unless it is a tensor of a graph.

    Raises:
        PolicyError: Values are not in 0..255 (uint16: 0..65535), floats are in 0..1, or the type is wrong.
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

    Outside graphs, floats in 0..1 are rejected too, unless all are whole numbers as in a mask. In a graph
    `checked_batch` does that, because a single image may really be so dark.

    Raises:
        PolicyError: The type is wrong, or the range is wrong, outside a graph.
        tf.errors.InvalidArgumentError: The range is wrong, in a graph.
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
    within = (low >= 0) & (high <= 255)  # false for NaN too
    with tf.control_dependencies([tf.debugging.Assert(within, ["image values range over", low, high, _UNDO])]):
        return tf.identity(image)


def checked_batch(pixels: Tensor) -> Tensor:
    """Return the pixels of a batch of floating-point images after checking that they are not in 0..1.

    Raises:
        tf.errors.InvalidArgumentError: They are in 0..1, in a graph.
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
