"""Radial lens distortion, a map of coordinates: it rides along in the one resample."""

import tensorflow as tf


def distort(y, x, k1, size: int):
    """(y, x) ↦ centre + (p − centre) · (1 + k1 r²), r the distance from the centre in half diagonals.

    y, x: output pixel coordinates, broadcastable; k1 > 0 looks outward in the corners (barrel), k1 < 0 inward
    (pincushion), 0 is the identity. One-parameter form of Brown 1966, "Decentering distortion of lenses".
    """
    half = size / 2
    y, x = y - half, x - half
    factor = 1 + k1 * (tf.square(y) + tf.square(x)) / (2 * half**2)
    return half + y * factor, half + x * factor


def stretched(dy, dx, y, x, k1, size: int):
    """The product of the row (dy, dx) with the Jacobian of `distort` at (y, x): (1 + k1 r²) I + k1 p pᵀ / half²."""
    half = size / 2
    y, x = (y - half) / half, (x - half) / half
    along = k1 * (dy * y + dx * x)
    factor = 1 + k1 * (tf.square(y) + tf.square(x)) / 2
    return dy * factor + along * y, dx * factor + along * x
