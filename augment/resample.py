"""The only sampler: every output pixel is read once from its image, bilinearly, antialiased where the image shrinks."""

import tensorflow as tf

from augment.draws import between
from augment.lens import distort
from augment.policy import Policy
from augment.region import Region


def resample(region: Region, policy: Policy, uniform) -> tf.Tensor:
    """float32 (batch, size, size, 3) of a batch of regions; `uniform` (batch, slots) are the images' draws.

    With s image pixels per output pixel, each pixel is the mean of two bilinear samples per axis that lie
    δ = min(1, √(⅔ (s² − 1))) image pixels apart (0 where s ≤ 1). Up to s = 1.6 that kernel has the variance of the
    triangle of width s which `tf.image.resize(antialias=True)` uses; it sums to one everywhere, and needs three taps an
    axis for any s ≤ 2. Larger shrinking is done before, by whole factors.
    """
    y, x = coordinates(region.matrix, policy, uniform)
    scale = tf.norm(region.matrix[:, :, :2], axis=2)
    apart = tf.minimum(tf.sqrt(tf.maximum(tf.square(scale) - 1, 0) * (2 / 3)), 1)
    frame = region.frame[..., None, None]
    rows, row_weights = _taps(y, apart[:, 0], frame[:, :, 0], policy.fill is None)
    columns, column_weights = _taps(x, apart[:, 1], frame[:, :, 1], policy.fill is None)
    pixels = tf.reshape(region.pixels, (tf.shape(region.pixels)[0], -1, 3))
    width, image = frame[:, 0, 1], 0.0
    for row, row_weight in zip(rows, row_weights, strict=True):
        line = 0.0
        for column, weight in zip(columns, column_weights, strict=True):
            tap = tf.gather(pixels, row * width + column, batch_dims=1)
            line += weight[..., None] * tf.cast(tap, tf.float32)
        image += row_weight[..., None] * line
    if policy.fill is not None:
        inside = sum(row_weights) * sum(column_weights)
        image += (1 - inside[..., None]) * tf.constant(policy.fill, tf.float32)
    return image


def coordinates(matrix, policy: Policy, uniform):
    """Where in the image the centres of the output's pixels lie: y and x that broadcast to (batch, size, size).

    Axis-aligned policies give y of shape (batch, size, 1) and x of (batch, 1, size), so that all that depends on one
    of them costs next to nothing.
    """
    centres = tf.range(policy.size, dtype=tf.float32) + 0.5
    y, x = centres[None, :, None], centres[None, None, :]
    entry = matrix[..., None, None]
    if policy.axis_aligned:
        return entry[:, 0, 0] * y + entry[:, 0, 2], entry[:, 1, 1] * x + entry[:, 1, 2]
    if policy.moves("lens"):
        k1 = between(uniform, "lens", policy.range("lens"))
        y, x = distort(y, x, k1[:, None, None], policy.size)
    return tuple(entry[:, i, 0] * y + entry[:, i, 1] * x + entry[:, i, 2] for i in (0, 1))


def _taps(centre, apart, frame, reflect: bool):
    """Indices into the region and weights of the three pixels along one axis from which `centre` is interpolated."""
    count, start, whole = frame[:, 0], frame[:, 1], frame[:, 2]
    half = apart[:, None, None] / 2
    first = tf.floor(centre - half - 0.5)
    indices, weights = [], []
    for k in range(3):
        position = first + k
        distance = position + 0.5 - centre
        weight = (_triangle(distance - half) + _triangle(distance + half)) / 2
        index = tf.cast(position, tf.int32)
        if reflect:
            index = tf.where(index < 0, -1 - index, index)
            index = tf.where(index < whole, index, 2 * whole - 1 - index)
        else:
            weight = tf.where((index >= 0) & (index < whole), weight, 0.0)
        indices.append(tf.clip_by_value(index - start, 0, count - 1))
        weights.append(weight)
    return indices, weights


def _triangle(distance):
    return tf.maximum(1 - tf.abs(distance), 0)
