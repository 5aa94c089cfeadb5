"""Draw random numbers as a pure function of (seed, epoch, example index), without state or order.

The numbers are splitmix64 hashes (Steele, Lea and Flood 2014, "Fast splittable pseudorandom number generators"). One
call serves a batch of seeds, while TensorFlow's stateless generators take one seed at a time.
"""

import tensorflow as tf

from .tensors import Tensor

MOST_OPERATIONS = 4  # maximum number of RandAugment's operations on one image

# One name per draw. Add new names at the end, so that the draws of a seed do not change.
# fmt: off
SLOTS = (
    "scale", "aspect", "top", "left", "flip",
    "rotate", "shift_y", "shift_x", "stretch", "shear", "lens",
    "brightness", "contrast", "saturation", "hue", "pca_1", "pca_2", "pca_3",
    "mix_share", "mix_kind", "mix_top", "mix_left",
    "erase", "erase_area", "erase_aspect", "erase_top", "erase_left",
    *(f"{name}_{attempt}" for attempt in range(2, 11) for name in ("scale", "aspect")),
    *(f"rand_{name}_{i}" for i in range(MOST_OPERATIONS) for name in ("kind", "first", "second")),
)
# fmt: on
_POSITION = {name: i for i, name in enumerate(SLOTS)}
_GOLDEN = 0x9E3779B97F4A7C15


def _scramble(z: Tensor) -> Tensor:
    """Apply the splitmix64 finaliser: every input bit affects every output bit."""
    for shift, factor in ((30, 0xBF58476D1CE4E5B9), (27, 0x94D049BB133111EB)):
        z = tf.bitwise.bitwise_xor(z, tf.bitwise.right_shift(z, tf.constant(shift, tf.uint64)))
        z = z * tf.constant(factor, tf.uint64)
    return tf.bitwise.bitwise_xor(z, tf.bitwise.right_shift(z, tf.constant(31, tf.uint64)))


def _absorb(state: Tensor, number: Tensor) -> Tensor:
    """Return the state of a random stream after it absorbs one more integer."""
    return _scramble(state + (tf.cast(number, tf.uint64) + 1) * tf.constant(_GOLDEN, tf.uint64))


def bits(seed: int, epoch: Tensor, index: Tensor) -> Tensor:
    """Return 64 random bits (uint64) for each element of broadcastable integers or integer tensors."""
    state = tf.constant(0, tf.uint64)
    for number in (seed, epoch, index):
        state = _absorb(state, tf.cast(tf.convert_to_tensor(number), tf.int64))
    return state


def uniforms(seed: int, epoch: Tensor, index: Tensor) -> Tensor:
    """Return the independent uniform draws (..., len(SLOTS)) float32 in (0, 1) of the example `index` (...)."""
    slots = tf.range(len(SLOTS), dtype=tf.int64)
    hashed = _absorb(bits(seed, epoch, index)[..., None], slots)
    top = tf.cast(tf.bitwise.right_shift(hashed, tf.constant(41, tf.uint64)), tf.int32)
    return (tf.cast(top, tf.float32) + 0.5) * 2.0**-23


def draw(uniform: Tensor, name: str) -> Tensor:
    """Return the draw called `name` of `uniforms(...)`, of shape (...)."""
    return uniform[..., _POSITION[name]]


def between(uniform: Tensor, name: str, bounds: tuple[float, float]) -> Tensor:
    """Return the draw called `name`, scaled to (low, high)."""
    low, high = bounds
    return low + (high - low) * draw(uniform, name)


def normal(uniform: Tensor, *names: str) -> Tensor:
    """Return standard normal draws (..., len(names)), by the inverse of the distribution function."""
    u = tf.stack([draw(uniform, name) for name in names], -1)
    return 2**0.5 * tf.math.erfinv(2 * u - 1)
