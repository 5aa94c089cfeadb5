"""Choose the image size to train at."""

from typing import Protocol

import numpy as np

from recipes import augment
from recipes.data.images import ImageData

FEW = 120  # training images


class _Network(Protocol):
    """The sizes of a backbone: its own, and the only one that it takes, if there is one."""

    @property
    def size(self) -> int: ...

    @property
    def fixed_size(self) -> int | None: ...


def natural_size(backbone: _Network, data: ImageData) -> int:
    """Return the image size to train at: the backbone's own, or less if most images are smaller.

    Enlarging a photo beyond its pixels adds cost and no information, yet a frozen network is most accurate at its own
    size. With few images the cost does not matter, so that they are used at that size. Sizes are multiples of 32 and
    at least 96. A network with a fixed size is always used at that.
    """
    if backbone.fixed_size:
        return backbone.fixed_size
    if len(data) < FEW:
        return backbone.size
    typical = typical_side(data)
    return int(min(backbone.size, max(96, 32 * round(typical / 32))))


def typical_side(data: ImageData, sample: int = 64) -> float:
    """Return the median short side, in pixels, of up to `sample` images spread over the dataset."""
    if data.pixels is not None:
        return float(min(data.pixels.shape[1:3]))
    chosen = np.linspace(0, len(data) - 1, min(sample, len(data))).astype(int)
    return float(np.median([min(augment.decode(data.encoded(i)).numpy().shape[:2]) for i in chosen]))
