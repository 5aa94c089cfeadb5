"""Geometric transforms as 3×3 matrices: they multiply into one, and the image is sampled once.

A matrix takes a point (y, x, 1) of the output to the point of the image that is seen there. Points are in pixels, edges
at whole numbers and centres at halves. The rightmost factor acts first.
"""

import math
from functools import reduce

import tensorflow as tf

from augment.draws import between, draw
from augment.policy import Policy


def _rows(*rows) -> tf.Tensor:
    return tf.stack([tf.stack([tf.cast(value, tf.float32) for value in row]) for row in rows])


def translation(y, x) -> tf.Tensor:
    """(y, x) ↦ the point moved by (y, x) pixels."""
    return _rows((1, 0, y), (0, 1, x), (0, 0, 1))


def scaling(y, x) -> tf.Tensor:
    """(y, x) ↦ the point with its coordinates multiplied; a negative factor mirrors."""
    return _rows((y, 0, 0), (0, x, 0), (0, 0, 1))


def rotation(degrees) -> tf.Tensor:
    """Makes the picture appear turned counter-clockwise."""
    angle = tf.cast(degrees, tf.float32) * (math.pi / 180)
    cos, sin = tf.cos(angle), tf.sin(angle)
    return _rows((cos, sin, 0), (-sin, cos, 0), (0, 0, 1))


def shear(degrees) -> tf.Tensor:
    """Makes vertical lines lean to the right."""
    return _rows((1, 0, 0), (tf.tan(tf.cast(degrees, tf.float32) * (math.pi / 180)), 1, 0), (0, 0, 1))


def stretch(log2_factor) -> tf.Tensor:
    """Makes the picture 2^log2_factor times as wide for its height, at equal area."""
    root = tf.pow(2.0, tf.cast(log2_factor, tf.float32) / 2)
    return scaling(root, 1 / root)


def compose(*matrices) -> tf.Tensor:
    """The product of the matrices; the last acts first."""
    return reduce(tf.matmul, matrices)


def crop_box(policy: Policy, uniform, height, width) -> tf.Tensor:
    """(top, left, height, width) in pixels of the patch that is cut from an image (float32 height, width).

    uniform: the image's draws, see `draws.uniforms`.
    """
    size, short = float(policy.size), tf.minimum(height, width)
    if policy.area:
        root_area = tf.sqrt(between(uniform, "scale", policy.area) * height * width)
        root_aspect = tf.exp(0.5 * between(uniform, "aspect", tuple(map(math.log, policy.aspect))))
        patch = tf.minimum(tf.stack([root_area / root_aspect, root_area * root_aspect]), tf.stack([height, width]))
    else:
        patch = tf.stack([1.0, 1.0]) * size * short / between(uniform, "scale", policy.short_side)
    whole = tf.stack([height, width])
    if not policy.centre:
        corner = tf.stack([draw(uniform, "top"), draw(uniform, "left")]) * (whole - patch)
    elif policy.area:
        corner = (whole - patch) / 2
    else:  # what resizing to whole pixels and cutting at whole pixels gives
        resized = tf.round(whole * (size / patch))
        patch = size * whole / resized
        corner = tf.floor((resized - size) / 2) * whole / resized
    return tf.concat([corner, patch], 0)


def output_to_image(policy: Policy, uniform, box) -> tf.Tensor:
    """The 3×3 matrix from pixels of the size × size output to pixels of the image, for the patch `box`.

    Order, from the picture's point of view: the patch is cut and scaled, sheared, stretched, turned, shifted, mirrored.
    """
    middle, scale = box[:2] + box[2:] / 2, box[2:] / policy.size
    half = policy.size / 2
    mirror = tf.where(draw(uniform, "flip") < policy.flip, -1.0, 1.0) if policy.flip else 1.0
    inner = []
    for name, make in (("shear", shear), ("stretch", stretch), ("rotate", rotation)):
        if policy.moves(name):
            inner.append(make(between(uniform, name, policy.range(name))))
    if policy.moves("translate"):
        shift = [policy.size * between(uniform, name, policy.range("translate")) for name in ("shift_y", "shift_x")]
        inner.append(translation(-shift[0], -shift[1]))
    if not inner:  # the same product, written out: this runs for every image
        (y, x), (step_y, step_x) = tf.unstack(middle), tf.unstack(scale)
        step_x = step_x * mirror
        return _rows((step_y, 0, y - half * step_y), (0, step_x, x - half * step_x), (0, 0, 1))
    outer = (translation(middle[0], middle[1]), scaling(scale[0], scale[1]))
    return compose(*outer, *inner, scaling(1.0, mirror), translation(-half, -half))


# Per EXIF orientation 1-8, the (y, x) of the stored image as a signed permutation of the upright image's (y, x).
_STORED = (
    ((1, 0), (0, 1)),
    ((1, 0), (0, -1)),
    ((-1, 0), (0, -1)),
    ((-1, 0), (0, 1)),
    ((0, 1), (1, 0)),
    ((0, -1), (1, 0)),
    ((0, -1), (-1, 0)),
    ((0, 1), (-1, 0)),
)


def upright_to_stored(orientation, height, width) -> tf.Tensor:
    """The 3×3 matrix from the upright image to the stored one, whose size is height × width (floats)."""
    turn = tf.gather(tf.constant(_STORED, tf.float32), orientation - 1)
    far = tf.reduce_sum(tf.minimum(turn, 0), 1)
    top = tf.concat([turn, -far[:, None] * tf.stack([height, width])[:, None]], 1)
    return tf.concat([top, [[0.0, 0.0, 1.0]]], 0)
