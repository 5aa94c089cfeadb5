"""Express geometric transforms as 3×3 matrices, whose product lets the image be sampled once.

A matrix maps a point (y, x, 1) of the output to the point of the image that is shown there. Coordinates are in pixels;
pixel edges are whole numbers, and pixel centres are halves. The rightmost factor acts first. Arguments are numbers, or
tensors (...) that give matrices (..., 3, 3), so one call serves a block of images.
"""

import math
from functools import reduce
from typing import Any, cast

import tensorflow as tf

from .draws import between, draw
from .policy import Policy
from .rand_augment import Operation, operations
from .tensors import Tensor


def _matrix(*rows: Any) -> Tensor:
    """Return a matrix (..., 3, 3) from three rows of three numbers or tensors (...)."""
    entries = [tf.cast(value, tf.float32) for row in rows for value in row]
    shape = tf.shape(max(entries, key=lambda entry: entry.shape.rank))
    entries = tf.stack([tf.broadcast_to(entry, shape) for entry in entries], -1)
    return tf.reshape(entries, tf.concat([shape, (3, 3)], 0))


def translation(y: Tensor, x: Tensor) -> Tensor:
    """Return the matrix that moves a point by (y, x) pixels."""
    return _matrix((1, 0, y), (0, 1, x), (0, 0, 1))


def scaling(y: Tensor, x: Tensor) -> Tensor:
    """Return the matrix that multiplies the coordinates of a point; a negative factor mirrors."""
    return _matrix((y, 0, 0), (0, x, 0), (0, 0, 1))


def rotation(degrees: Tensor) -> Tensor:
    """Return the matrix that turns the picture counter-clockwise."""
    angle = tf.cast(degrees, tf.float32) * (math.pi / 180)
    cos, sin = tf.cos(angle), tf.sin(angle)
    return _matrix((cos, sin, 0), (-sin, cos, 0), (0, 0, 1))


def shear(degrees: Tensor) -> Tensor:
    """Return the matrix that makes vertical lines lean to the right."""
    return _matrix((1, 0, 0), (tf.tan(tf.cast(degrees, tf.float32) * (math.pi / 180)), 1, 0), (0, 0, 1))


def stretch(log2_factor: Tensor) -> Tensor:
    """Return the matrix that multiplies the picture's width / height by 2^log2_factor, at equal area."""
    root = tf.pow(2.0, tf.cast(log2_factor, tf.float32) / 2)
    return scaling(root, 1 / root)


def compose(*matrices: Tensor) -> Tensor:
    """Return the product of the matrices; the last acts first."""
    return reduce(tf.matmul, matrices)


def crop_box(policy: Policy, uniform: Tensor, height: Tensor, width: Tensor) -> Tensor:
    """Return float32 (..., 4), (top, left, height, width) in pixels, of the patch to cut from an image of this size.

    Args:
        policy: the ranges.
        uniform: (..., slots), the image's draws, see `draws.uniforms`.
        height: height of the image.
        width: width of the image.
    """
    size, whole = float(policy.size), tf.stack([height, width], -1)
    if policy.short_side is None:
        patch, central = _area_patch(policy, uniform, whole)
    else:
        scale = between(uniform, "scale", policy.short_side)
        patch, central = (size * tf.minimum(height, width) / scale)[..., None] * tf.ones(2), False
        if policy.centre:  # the image is resized to whole pixels, then cut at whole pixels
            resized = resized_size(height, width, scale)
            return tf.concat([centre_corner(resized, size) * whole / resized, size * whole / resized], -1)
    draws = 0.5 if policy.centre else tf.stack([draw(uniform, "top"), draw(uniform, "left")], -1)
    return tf.concat([tf.where(central, 0.5, draws) * (whole - patch), patch], -1)


def _area_patch(policy: Policy, uniform: Tensor, whole: Tensor) -> tuple[Tensor, Tensor]:
    """Return (height, width) of a patch of random area and aspect ratio, and whether the patch must be central.

    The distribution is that of torchvision's RandomResizedCrop (the "inception" crop, Szegedy et al. 2015): the first
    of ten draws that fits into the image, rounded to pixels. If no draw fits, the patch is the largest central one
    within the range of aspect ratios.
    """
    assert policy.area is not None
    names = [("scale", "aspect"), *((f"scale_{i}", f"aspect_{i}") for i in range(2, 11))]
    log_aspect = (math.log(policy.aspect[0]), math.log(policy.aspect[1]))
    shares = tf.stack([between(uniform, name, policy.area) for name, _ in names], -1)
    area = shares * cast(Tensor, tf.reduce_prod(whole, -1))[..., None]
    aspect = tf.exp(tf.stack([between(uniform, name, log_aspect) for _, name in names], -1))
    patches = tf.sqrt(tf.stack([area / aspect, area * aspect], -1))
    fits = tf.reduce_all((patches >= 0.5) & (tf.round(patches) <= whole[..., None, :]), -1)
    first = tf.one_hot(tf.argmax(fits, -1), len(names))[..., None]
    patch = tf.minimum(tf.reduce_sum(first * patches, -2), whole)
    height, width = whole[..., 0], whole[..., 1]
    largest = tf.stack([tf.minimum(height, width / policy.aspect[0]), tf.minimum(width, height * policy.aspect[1])], -1)
    none = ~tf.reduce_any(fits, -1, keepdims=True)
    return tf.where(none, largest, patch), none


def resized_size(height: Tensor, width: Tensor, scale: Tensor) -> Tensor:
    """Return float32 (..., 2), the size in whole pixels of an image whose short side is resized to `scale`.

    The long side is truncated, as in torchvision's Resize.
    """
    whole = tf.cast(tf.stack([height, width], -1), tf.float32)
    short = tf.reduce_min(whole, -1, keepdims=True)
    scale = tf.floor(tf.cast(scale, tf.float32))[..., None]
    return tf.floor((whole * scale + 0.5) / short)  # adding 0.5 keeps a whole quotient from being rounded down


def centre_corner(resized: Tensor, size: Any) -> Tensor:
    """Return the (top, left) of the central crop, half pixels rounded to even, as in torchvision's CenterCrop."""
    return tf.round((resized - size) / 2)


def output_to_image(policy: Policy, uniform: Tensor, box: Tensor) -> Tensor:
    """Return the matrices (..., 3, 3) from pixels of the output to pixels of the image, for patches (..., 4).

    The picture is cut, scaled, sheared, stretched, turned, shifted and mirrored, in this order. RandAugment's shears
    and shifts follow.
    """
    middle, scale = box[..., :2] + box[..., 2:] / 2, box[..., 2:] / policy.size
    half = policy.size / 2
    chain = [translation(middle[..., 0], middle[..., 1]), scaling(scale[..., 0], scale[..., 1])]
    for name, make in (("shear", shear), ("stretch", stretch), ("rotate", rotation)):
        if policy.moves(name):
            chain.append(make(between(uniform, name, policy.range(name))))
    if policy.moves("translate"):
        shift = [policy.size * between(uniform, name, policy.range("translate")) for name in ("shift_y", "shift_x")]
        chain.append(translation(-shift[0], -shift[1]))
    if policy.flip:
        chain.append(scaling(1.0, tf.where(draw(uniform, "flip") < policy.flip, -1.0, 1.0)))
    chain += [_operation(operation, half) for operation in operations(policy, uniform)]
    return compose(*chain, translation(-half, -half))


def _operation(drawn: Operation, half: float) -> Tensor:
    """Return the matrix of RandAugment's shear or shift about the output's centre; the identity for other operations.

    As in keras-cv, shears do not move the centre of the upper left pixel.
    """
    shear_y, shear_x = drawn.only("shear_y"), drawn.only("shear_x")
    shift_y, shift_x = 2 * half * drawn.only("translate_y"), 2 * half * drawn.only("translate_x")
    fixed = half - 0.5
    return _matrix((1, shear_y, fixed * shear_y - shift_y), (shear_x, 1, fixed * shear_x - shift_x), (0, 0, 1))


def folded(matrix: Tensor, middle: Tensor, size: Tensor) -> Tensor:
    """Return equivalent matrices (n, 2, 3) for a reflecting border, whose points lie near the image.

    Args:
        matrix: (n, 2, 3), output pixel (y, x, 1) → point of the image.
        middle: (n, 2), the point shown at the output's centre, which may be far beyond the image's edges.
        size: (n, 2) float32, the images' (height, width), inside which the new point lies.
    """
    period = 2 * size
    periods = tf.floor(middle / period)
    offset = matrix[:, :, 2] - period * periods
    mirrored = (middle - period * periods > size)[..., None]
    matrix = tf.concat([matrix[:, :, :2], offset[..., None]], 2)
    other_way = tf.concat([-matrix[:, :, :2], (period - offset)[..., None]], 2)
    return tf.where(mirrored, other_way, matrix)


# For each EXIF orientation 1-8, the stored image's (y, x) as a signed permutation of the upright image's (y, x).
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


def upright_to_stored(orientation: Tensor, height: Tensor, width: Tensor) -> Tensor:
    """Return the matrices (..., 3, 3) from the upright image to the stored image of height × width (floats)."""
    turn = tf.gather(tf.constant(_STORED, tf.float32), orientation - 1)
    (yy, yx), (xy, xx) = ((turn[..., i, 0], turn[..., i, 1]) for i in (0, 1))
    return _matrix((yy, yx, -tf.minimum(yy + yx, 0) * height), (xy, xx, -tf.minimum(xy + xx, 0) * width), (0, 0, 1))
