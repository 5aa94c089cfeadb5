"""Draw RandAugment's operations and their strengths for each image.

Shears and translations are part of the image's matrix, see `geometry`. `pixel_operations` applies the other operations
after the image is resampled. The strengths are those of keras-cv's RandAugment.
"""

from typing import NamedTuple

import tensorflow as tf

from .draws import draw, normal
from .policy import Policy
from .tensors import Tensor

# fmt: off
OPERATIONS = (
    "identity", "auto contrast", "equalize", "solarize", "colour", "contrast", "brightness",
    "shear_x", "shear_y", "translate_x", "translate_y",
)
# fmt: on
_MOST_ADDED = 110.0  # grey levels that solarize adds at strength 1; more would destroy most of the image


class Operation(NamedTuple):
    """Hold one operation for each image of a batch.

    Attributes:
        kind: (...) int32, index into `OPERATIONS`.
        amount: (...) float32: grey levels that solarize and brightness add; share of grey in the result of colour;
            factor of contrast; pixels of a shear per pixel; fraction of the side of a translation.
        threshold: (...) float32, grey level at and above which solarize inverts.
    """

    kind: Tensor
    amount: Tensor
    threshold: Tensor

    def only(self, name: str) -> Tensor:
        """Return the amounts of the operation `name`, 0 for images with another operation."""
        return tf.where(self.kind == OPERATIONS.index(name), self.amount, 0.0)


def operations(policy: Policy, uniform: Tensor) -> list[Operation]:
    """Return a policy's operations for images with the draws (..., slots), in the order in which they act."""
    return [_drawn(policy, uniform, i) for i in range(policy.rand_operations)]


def _drawn(policy: Policy, uniform: Tensor, number: int) -> Operation:
    kind = tf.cast(len(OPERATIONS) * draw(uniform, f"rand_kind_{number}"), tf.int32)
    slots = [f"rand_{name}_{number}" for name in ("first", "second")]
    strengths = policy.rand_magnitude + policy.rand_stddev * normal(uniform, *slots)
    strength, second = tf.unstack(tf.clip_by_value(strengths, 0.0, 1.0), axis=-1)
    even = policy.rand_magnitude * (2 * draw(uniform, slots[0]) - 1)
    shear = tf.where(draw(uniform, slots[1]) < 0.5, -strength, strength)
    unused = tf.zeros_like(strength)
    amounts = {
        "solarize": _MOST_ADDED * strength,
        "colour": strength,
        "contrast": 1 + even,
        "brightness": 255 * even,
        "shear_x": shear,
        "shear_y": shear,
        "translate_x": even,
        "translate_y": even,
    }
    each = tf.stack([amounts.get(name, unused) for name in OPERATIONS], -1)
    return Operation(kind, tf.gather(each, kind, axis=-1, batch_dims=kind.shape.rank), 255 * (1 - second))


def captions(policy: Policy, uniform: Tensor) -> list[str]:
    """Return the operations and amounts for one image with the draws (slots,), as text."""
    forms = {
        "solarize": "solarize {0:+.0f} from {1:.0f}",
        "colour": "colour {2:.0%}",
        "contrast": "contrast × {0:.2f}",
        "brightness": "brightness {0:+.0f}",
        "shear_x": "shear x {0:+.2f}",
        "shear_y": "shear y {0:+.2f}",
        "translate_x": "translate x {0:+.0%}",
        "translate_y": "translate y {0:+.0%}",
    }
    names = [(OPERATIONS[int(drawn.kind)], drawn) for drawn in operations(policy, uniform)]
    return [
        forms.get(name, name).format(float(drawn.amount), float(drawn.threshold), 1 - float(drawn.amount))
        for name, drawn in names
    ]
