"""Apply radial lens distortion to coordinates, so that the image is still sampled once."""

import tensorflow as tf

from .tensors import Tensor


def distort(y: Tensor, x: Tensor, k1: Tensor, size: int) -> tuple[Tensor, Tensor]:
    """Map (y, x) ↦ centre + (p − centre) · (1 + k1 r²), r the distance from the centre in half diagonals.

    This is the one-parameter form of Brown 1966, "Decentering distortion of lenses".

    Args:
        y: pixel coordinates of the output; broadcastable with x.
        x: pixel coordinates of the output.
        k1: > 0 for a barrel, whose corners show points farther outside; < 0 for a pincushion; 0 for the identity.
        size: side of the output.
    """
    half = size / 2
    y, x = y - half, x - half
    factor = 1 + k1 * (tf.square(y) + tf.square(x)) / (2 * half**2)
    return half + y * factor, half + x * factor


def stretched(dy: Tensor, dx: Tensor, y: Tensor, x: Tensor, k1: Tensor, size: int) -> tuple[Tensor, Tensor]:
    """Return the product of the row (dy, dx) with the Jacobian of `distort` at (y, x).

    The Jacobian is (1 + k1 r²) I + k1 p pᵀ / half².
    """
    half = size / 2
    y, x = (y - half) / half, (x - half) / half
    along = k1 * (dy * y + dx * x)
    factor = 1 + k1 * (tf.square(y) + tf.square(x)) / 2
    return dy * factor + along * y, dx * factor + along * x
