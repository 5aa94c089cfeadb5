"""Mix images of a batch and their labels in the same shares, and erase boxes."""

import math
from typing import Any

import tensorflow as tf

from .draws import between, draw
from .policy import Policy, PolicyError
from .tensors import Tensor

IMAGENET_MEAN = (123.675, 116.28, 103.53)


def mix(images: Tensor, labels: Any, policy: Policy, uniform: Tensor) -> tuple[Tensor, Tensor]:
    """Mix every image with the one before it in the batch, by MixUp or CutMix.

    The partner has the share w ~ Beta(a, a):

        MixUp:   (1 − w) · image + w · partner                       Zhang et al. 2018, "mixup"
        CutMix:  a box of area w at a random place, cut at the border, comes from the partner; w becomes the area that
                 was pasted                                            Yun et al. 2019, "CutMix"
        labels:  (1 − w) · label + w · partner's label

    Args:
        images: (batch, size, size, 3).
        labels: (batch, classes).
        policy: the parameters a.
        uniform: (batch, slots), the images' draws.

    Returns:
        Mixed images and labels of the same shapes.
    """
    size = policy.size
    cut = _cuts(policy, uniform)
    share = beta_quantile(tf.where(cut, policy.cutmix, policy.mixup), draw(uniform, "mix_share"))
    side = tf.sqrt(share) * size
    edges = []
    for name in ("mix_top", "mix_left"):
        centre = draw(uniform, name) * size
        edges += [tf.clip_by_value(tf.round(centre + sign * side / 2), 0, size) for sign in (-1, 1)]
    top, bottom, left, right = edges
    pasted = (bottom - top) * (right - left) / size**2
    weight = tf.where(cut, pasted, share)
    mask: Tensor = tf.where(cut[:, None, None], _box(top, bottom, left, right, size), share[:, None, None])
    mask = mask[..., None]
    mixed = images * (1 - mask) + tf.roll(images, 1, 0) * mask
    return mixed, labels * (1 - weight[:, None]) + tf.roll(labels, 1, 0) * weight[:, None]


def _cuts(policy: Policy, uniform: Tensor) -> Tensor:
    """Return which images of the batch get CutMix; the others get MixUp."""
    chance = 0.5 if policy.mixup and policy.cutmix else float(policy.cutmix > 0)
    return draw(uniform, "mix_kind") < chance


def _box(top: Tensor, bottom: Tensor, left: Tensor, right: Tensor, size: int) -> Tensor:
    """Return float32 (batch, size, size): 1 inside rows top..bottom and columns left..right (batch,), 0 outside."""
    at = tf.range(size, dtype=tf.float32)
    rows = (at >= top[:, None]) & (at < bottom[:, None])
    columns = (at >= left[:, None]) & (at < right[:, None])
    return tf.cast(rows[:, :, None] & columns[:, None, :], tf.float32)


def beta_quantile(a: Tensor, probability: Tensor) -> Tensor:
    """Return quantiles of Beta(a, a) (batch,), by bisection of the incomplete beta function to 2^-24."""
    a = tf.cast(a, tf.float32) + tf.zeros_like(probability)
    low, high = tf.zeros_like(probability), tf.ones_like(probability)
    for _ in range(24):
        middle = (low + high) / 2
        below = tf.math.betainc(a, a, middle) < probability
        low, high = tf.where(below, middle, low), tf.where(below, high, middle)
    return (low + high) / 2


def soft_labels(labels: Any, classes: int | None) -> Tensor:
    """Return float32 (batch, classes) of integer labels (batch,) or (batch, 1); one-hot or soft rows do not change.

    Raises:
        PolicyError: If the number of classes is unknown, or rows have another width.
        tf.errors.InvalidArgumentError: If an integer is outside 0..classes-1 when the graph runs.
    """
    countable = labels.dtype.is_integer or labels.dtype.is_bool
    if labels.shape.rank == 2 and labels.dtype.is_integer and labels.shape[1] == 1:
        labels = labels[:, 0]
    if labels.shape.rank == 2 and (countable or labels.dtype.is_floating):
        if classes not in (None, labels.shape[1]):
            raise PolicyError(f"label rows have {labels.shape[1]} numbers; expected classes = {classes} of them")
        return tf.cast(labels, tf.float32)
    if labels.shape.rank != 1 or not labels.dtype.is_integer:
        raise PolicyError(
            f"labels are {labels.dtype.name} {labels.shape}; expected integers (batch,) or one-hot rows for mixing"
        )
    if classes is None:
        raise PolicyError("mixup and cutmix make soft labels: pass classes=, the number of classes, or one-hot labels")
    wide = tf.cast(labels, tf.int64)
    wrong = (wide < 0) | (wide >= classes)
    label = wide[tf.argmax(wrong)] if labels.shape[0] != 0 else -1
    message = [
        f"a label is not in 0..{classes - 1} (classes = {classes}); correct the labels or classes. The label is",
        label,
    ]
    with tf.control_dependencies([tf.debugging.Assert(~tf.reduce_any(wrong), message)]):
        return tf.one_hot(wide, classes)


def erase(images: Tensor, policy: Policy, uniform: Tensor) -> Tensor:
    """Erase a box of 2-33 % of the area with probability `policy.erase` (random erasing, Zhong et al. 2020).

    The box has one colour. Its width / height is log-uniform in [0.3, 3.3]; the box is clipped to the image.
    """
    if not policy.erase:
        return images
    size = policy.size
    root_area = tf.sqrt(between(uniform, "erase_area", (0.02, 0.33))) * size
    root_aspect = tf.exp(0.5 * between(uniform, "erase_aspect", (math.log(0.3), math.log(3.3))))
    on = tf.cast(draw(uniform, "erase") < policy.erase, tf.float32)
    height = on * tf.clip_by_value(tf.round(root_area / root_aspect), 1, size)
    width = tf.clip_by_value(tf.round(root_area * root_aspect), 1, size)
    top = tf.floor(draw(uniform, "erase_top") * (size - height + 1))
    left = tf.floor(draw(uniform, "erase_left") * (size - width + 1))
    mask = _box(top, top + height, left, left + width, size)[..., None]
    colour = tf.constant(IMAGENET_MEAN if policy.fill is None else policy.fill, tf.float32)
    return images * (1 - mask) + mask * colour
