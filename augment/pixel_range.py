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
    """Return the pixels of one image after checking that they are in 0..255 (uint16: 0..65535).

    Outside of graphs, floats of 0..1 are refused too, unless all are whole numbers as in a mask. In a graph that is
    left to `checked_batch`, for one image of many may be as dark as that.

    Raises: PolicyError, or in a graph tf.errors.InvalidArgumentError.
    """
    if image.dtype in (tf.uint8, tf.uint16):
        return image
    low, high = (tf.cast(bound(image), tf.float32) for bound in (tf.reduce_min, tf.reduce_max))
    if hasattr(image, "numpy"):
        fault = range_fault(float(low), float(high), floating=bool(_fractions(image)))
        if fault:
            raise PolicyError(f"image values {fault}")
        return image
    within = (low >= 0) & (high <= 255)  # false for NaN too
    with tf.control_dependencies([tf.debugging.Assert(within, ["image values range over", low, high, _UNDO])]):
        return tf.identity(image)


def checked_batch(pixels) -> tf.Tensor:
    """Return the pixels of a batch of floating-point images after refusing those of 0..1.

    Raises: tf.errors.InvalidArgumentError, in a graph.
    """
    high = tf.reduce_max(pixels)
    said = ["images of a batch range up to", high, _MULTIPLY]
    with tf.control_dependencies([tf.debugging.Assert((high > 1) | ~_fractions(pixels), said)]):
        return tf.identity(pixels)


def _fractions(pixels):
    """Whether any value is not a whole number."""
    return tf.reduce_any(pixels != tf.round(pixels)) if pixels.dtype.is_floating else tf.constant(False)


def _highest(dtype) -> float:
    return 65535.0 if dtype == tf.uint16 else 255.0
