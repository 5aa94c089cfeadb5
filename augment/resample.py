"""Sample every output pixel once from its image, with antialiasing if the image shrinks."""

from collections.abc import Callable, Sequence
from functools import reduce
from operator import add
from typing import Any

import tensorflow as tf

from .antialias import reflected
from .draws import between
from .lens import distort, stretched
from .policy import Policy
from .region import Region
from .tensors import Border, Tensor


def resample(region: Region, policy: Policy, uniform: Tensor, compiled: bool = False) -> Tensor:
    """Return float32 (batch, size, size, 3) of a batch of regions.

    With s image pixels per output pixel, the weight of an image pixel at distance d along an axis is, for an image that
    is only scaled,

        max(0, 1 − |d| / max(s, 1)), divided by the sum of all such weights inside the image.

    This is the triangle filter of Pillow's BILINEAR and of `tf.image.resize(antialias=True)`. It covers at most four
    pixels for any s ≤ 2. Images that shrink further were resized to the output's pixels before, with the same weights.

    If the image is rotated, sheared or distorted, each pixel is the mean of two bilinear samples per axis that lie δ =
    min(1, √(⅔ (s² − 1))) image pixels apart (0 for s ≤ 1). Up to s = 1.6, this kernel has the variance of the triangle.
    Its weights sum to one, and it needs three taps per axis for any s ≤ 2. Larger factors are first reduced by
    whole-number shrinking. With lens distortion, s and δ depend on the position. Barrel corners with s above 1.6 show
    slight aliasing.

    Args:
        region: the regions, batched.
        policy: the augmentation.
        uniform: (batch, slots), the images' draws.
        compiled: compile with XLA, in separate kernels. In one kernel, XLA would repeat the first computation for every
            use of its result.
    """
    kernel: Callable[[Callable[..., Any]], Callable[..., Any]] = lambda f: f  # noqa: E731
    if compiled:
        kernel = lambda f: tf.function(f, jit_compile=True, autograph=False)  # noqa: E731
    if not policy.axis_aligned:
        at_once = kernel(lambda pixels, frame, matrix: _at_once(pixels, frame, matrix, policy, uniform))
        return at_once(*region)
    taps = kernel(lambda frame, matrix: _scaled_taps(frame, matrix, policy))
    rows, row_weights, columns, column_weights = taps(region.frame, region.matrix)
    lines = kernel(_down)(region.pixels, rows, row_weights)
    image = kernel(_along)(lines, columns, column_weights)
    if policy.border is not None and policy.fill is not None:
        image += _beyond(row_weights, column_weights, policy.fill)
    return image


def _down(pixels: Tensor, rows: Any, weights: Sequence[Tensor]) -> Tensor:
    """Return weighted sums of rows, float32 (batch, size, 3 · width); rows and weights are (batch, size, 1) per tap."""
    taps = (tf.gather(pixels, row[:, :, 0], axis=1, batch_dims=1) for row in rows)
    return reduce(add, (weight * tf.cast(tap, tf.float32) for weight, tap in zip(weights, taps, strict=True)))


def _along(lines: Tensor, columns: Sequence[Tensor], weights: Sequence[Tensor]) -> Tensor:
    """Return weighted sums of columns (batch, size, size, 3); columns and weights are (batch, 1, size) per tap."""
    pixels = tf.reshape(lines, (tf.shape(lines)[0], lines.shape[1], -1, 3))
    taps = (tf.gather(pixels, column[:, 0], axis=2, batch_dims=1) for column in columns)
    return reduce(add, (weight[..., None] * tap for weight, tap in zip(weights, taps, strict=True)))


def _scaled_taps(
    frame: Tensor, matrix: Tensor, policy: Policy
) -> tuple[list[Tensor], list[Tensor], list[Tensor], list[Tensor]]:
    """Return four indices and weights along each axis, for images that are only scaled; see `_all_taps`."""
    y, x = coordinates(matrix, policy, None)
    scale = tf.abs(tf.linalg.diag_part(matrix[:, :, :2]))[..., None, None]
    frame = frame[..., None, None]
    along_y = _triangle_taps(y, scale[:, 0], frame[:, :, 0], policy.border)
    return *along_y, *_triangle_taps(x, scale[:, 1], frame[:, :, 1], policy.border)


def _triangle_taps(centre: Tensor, scale: Tensor, frame: Tensor, border: Border) -> tuple[list[Tensor], list[Tensor]]:
    """Return indices into the region and weights of the four pixels along one axis that interpolate `centre`."""
    count, start, whole = frame[:, 0], frame[:, 1], frame[:, 2]
    half = tf.clip_by_value(scale, 1, 2)
    first = tf.floor(centre - half + 0.5)
    positions = [first + k for k in range(4)]
    weights = [_triangle((position + 0.5 - centre) / half) for position in positions]
    indices = [tf.cast(position, tf.int32) + start for position in positions]
    inside = [
        tf.where((index >= 0) & (index < whole), weight, 0) for index, weight in zip(indices, weights, strict=True)
    ]
    total = reduce(add, inside if border is None else weights)
    if border == "reflect":
        indices = [reflected(index, whole) for index in indices]
    else:
        weights = inside
    return [tf.clip_by_value(index - start, 0, count - 1) for index in indices], [weight / total for weight in weights]


def _at_once(pixels: Tensor, frame: Tensor, matrix: Tensor, policy: Policy, uniform: Tensor) -> Tensor:
    """Resample images whose rows are not parallel to rows of the output."""
    rows, row_weights, columns, column_weights = _all_taps(frame, matrix, policy, uniform)
    width, image = tf.shape(pixels)[2] // 3, 0.0
    pixels = tf.reshape(pixels, (tf.shape(pixels)[0], -1, 3))
    for row, row_weight in zip(rows, row_weights, strict=True):
        line = 0.0
        for column, weight in zip(columns, column_weights, strict=True):
            tap = tf.gather(pixels, row * width + column, batch_dims=1)
            line += weight[..., None] * tf.cast(tap, tf.float32)
        image += row_weight[..., None] * line
    return image if policy.fill is None else image + _beyond(row_weights, column_weights, policy.fill)


def _beyond(
    row_weights: Sequence[Tensor], column_weights: Sequence[Tensor], colour: tuple[float, float, float]
) -> Tensor:
    """Return the border colour's contribution to each pixel, one minus the sum of its weights inside."""
    inside: Tensor = sum(row_weights) * sum(column_weights)
    return (1 - inside[..., None]) * tf.constant(colour, tf.float32)


def _all_taps(
    frame: Tensor, matrix: Tensor, policy: Policy, uniform: Tensor
) -> tuple[list[Tensor], list[Tensor], list[Tensor], list[Tensor]]:
    """Return three indices and weights along each axis: rows, weights of rows, columns, weights of columns."""
    y, x = coordinates(matrix, policy, uniform)
    apart = tf.minimum(tf.sqrt(tf.maximum(_squared_scale(matrix, policy, uniform) - 1, 0) * (2 / 3)), 1)
    frame = frame[..., None, None]
    reflect, far = policy.fill is None, policy.rand_operations > 0
    rows = _taps(y, apart[:, 0], frame[:, :, 0], reflect, far)
    return *rows, *_taps(x, apart[:, 1], frame[:, :, 1], reflect, far)


def _squared_scale(matrix: Tensor, policy: Policy, uniform: Tensor) -> Tensor:
    """Return the square of s along each axis at the output's pixels, (batch, 2, 1 | size, 1 | size)."""
    dy, dx = (matrix[:, :, i, None, None] for i in (0, 1))
    if policy.moves("lens"):
        centres = tf.range(policy.size, dtype=tf.float32) + 0.5
        k1 = between(uniform, "lens", policy.range("lens"))[:, None, None, None]
        dy, dx = stretched(dy, dx, centres[:, None], centres, k1, policy.size)
    return tf.square(dy) + tf.square(dx)


def coordinates(matrix: Tensor, policy: Policy, uniform: Tensor) -> tuple[Tensor, Tensor]:
    """Return the positions of the output's pixel centres in the region: y and x broadcast to (batch, size, size).

    Axis-aligned policies give y of shape (batch, size, 1) and x of (batch, 1, size), so that computations on a single
    coordinate are cheap.
    """
    centres = tf.range(policy.size, dtype=tf.float32) + 0.5
    y, x = centres[None, :, None], centres[None, None, :]
    entry = matrix[..., None, None]
    if policy.axis_aligned:
        return entry[:, 0, 0] * y + entry[:, 0, 2], entry[:, 1, 1] * x + entry[:, 1, 2]
    if policy.moves("lens"):
        k1 = between(uniform, "lens", policy.range("lens"))
        y, x = distort(y, x, k1[:, None, None], policy.size)
    row, column = (entry[:, i, 0] * y + entry[:, i, 1] * x + entry[:, i, 2] for i in (0, 1))
    return row, column


def _taps(centre: Tensor, apart: Tensor, frame: Tensor, reflect: bool, far: bool) -> tuple[list[Tensor], list[Tensor]]:
    """Return indices into the region and weights of the three pixels along one axis that interpolate `centre`."""
    count, start, whole = frame[:, 0], frame[:, 1], frame[:, 2]
    half = apart / 2
    first = tf.floor(centre - half - 0.5)
    indices, weights = [], []
    for k in range(3):
        position = first + k
        distance = position + 0.5 - centre
        weight = (_triangle(distance - half) + _triangle(distance + half)) / 2
        index = tf.cast(position, tf.int32) + start
        if reflect:
            index = reflected(index, whole)
            if far:
                index = reflected(index, whole)
        else:
            weight = tf.where((index >= 0) & (index < whole), weight, 0.0)
        indices.append(tf.clip_by_value(index - start, 0, count - 1))
        weights.append(weight)
    return indices, weights


def _triangle(distance: Tensor) -> Tensor:
    return tf.maximum(1 - tf.abs(distance), 0)
