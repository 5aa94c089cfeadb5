"""One check of pixel values for all entrances: images hold 0..255, not 0..1 and not preprocessed values."""

import numpy as np
import tensorflow as tf

from .policy import PolicyError

_UNDO = "expected 0..255 RGB: undo your preprocessing first"
_MULTIPLY = "expected 0..255: multiply them by 255"


def range_fault(low: float, high: float, *, floating: bool, highest: float = 255.0) -> str | None:
    """Return what is wrong with pixels that range over low..high, or None.

    Args:
        low: smallest value of the data set.
        high: largest value of the data set.
        floating: whether the values are floating-point numbers: those of 0..1 are refused, integers are not.
        highest: largest value that the type stands for.
    """
    if not (np.isfinite(low) and np.isfinite(high)):
        return "hold values that are not finite"
    if low < 0 or high > highest:
        return f"range over {low:g}..{high:g}; {_UNDO}"
    if floating and 0 < high <= 1:
        return f"range over {low:g}..{high:g}; {_MULTIPLY}"
    return None


def check_images(images, name: str = "images") -> None:
    """Check the range of a whole array of pixels, unless it is a tensor of a graph.

    Raises: PolicyError for values that are not in 0..255 (uint16: 0..65535), and for floats of 0..1.
    """
    if images.dtype in (tf.uint8, tf.string) or not hasattr(images, "numpy") or 0 in images.shape:
        return
    low, high = float(tf.reduce_min(images)), float(tf.reduce_max(images))
    fault = range_fault(low, high, floating=images.dtype.is_floating, highest=_highest(images.dtype))
    if fault:
        raise PolicyError(f"{name} {fault}")


def checked(image) -> tf.Tensor:
    """Return the pixels of one image after checking them, in a graph when it runs.

    A dark image may be no brighter than 1 of 255, so floats of 0..1 are refused only where some have a fraction.

    Raises: PolicyError, or in a graph tf.errors.InvalidArgumentError, for values that are not in 0..255 (uint16:
        0..65535), and for floats of 0..1.
    """
    if image.dtype in (tf.uint8, tf.uint16):
        return image
    pixels = tf.cast(image, tf.float32)
    low, high = tf.reduce_min(pixels), tf.reduce_max(pixels)
    within = (low >= 0) & (high <= _highest(image.dtype))  # false for NaN too
    scaled = (high <= 1) & tf.reduce_any(pixels != tf.round(pixels))
    if hasattr(image, "numpy"):
        if not (within and not scaled):
            raise PolicyError(f"image values {range_fault(float(low), float(high), floating=True)}")
        return image
    checks = [
        tf.debugging.Assert(within, ["image values range over", low, high, _UNDO]),
        tf.debugging.Assert(~scaled, ["image values range over", low, high, _MULTIPLY]),
    ]
    with tf.control_dependencies(checks):
        return tf.identity(image)


def _highest(dtype) -> float:
    return 65535.0 if dtype == tf.uint16 else 255.0
