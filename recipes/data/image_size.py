"""Choose the image size to train at."""

from typing import Protocol

import numpy as np

from recipes import augment
from recipes.data.images import ImageData

FEW = 120  # training images


class _Network(Protocol):
    """The image sizes of a backbone: its natural size, and its only size if the network accepts no other."""

    @property
    def size(self) -> int: ...

    @property
    def fixed_size(self) -> int | None: ...


def natural_size(backbone: _Network, data: ImageData) -> int:
    """Return the training image size: the natural size of the backbone, or less if most images are smaller.

    A frozen network is most accurate at its natural size, but enlarging a photo beyond its pixels only adds cost. A
    small dataset is used at the natural size, because its cost does not matter. Other sizes are multiples of 32 and at
    least 96. A network with a fixed size always gets that size.
    """
    if backbone.fixed_size:
        return backbone.fixed_size
    if len(data) < FEW:
        return backbone.size
    typical = typical_side(data)
    return int(min(backbone.size, max(96, 32 * round(typical / 32))))


def typical_side(data: ImageData, sample: int = 64) -> float:
    """Return the median short side, in pixels, of up to `sample` images from all parts of the dataset."""
    if data.pixels is not None:
        return float(min(data.pixels.shape[1:3]))
    chosen = np.linspace(0, len(data) - 1, min(sample, len(data))).astype(int)
    return float(np.median([min(augment.decode(data.encoded(i)).numpy().shape[:2]) for i in chosen]))
