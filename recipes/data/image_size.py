"""Which image size to train at."""

import numpy as np

import augment

FEW = 120  # training images


def natural_size(backbone, data) -> int:
    """The image size to train at: the backbone's own, or less where most images are smaller than that.

    Enlarging a photo beyond its pixels adds cost and no information, yet a frozen network knows best what it sees at
    its own size: with few images, where the cost does not matter, all are shown at that. Sizes are multiples of 32, at
    least 96, and never another than the only one that a network takes.
    """
    if backbone.fixed_size:
        return backbone.fixed_size
    if len(data) < FEW:
        return backbone.size
    typical = typical_side(data)
    return int(min(backbone.size, max(96, 32 * round(typical / 32))))


def typical_side(data, sample: int = 64) -> float:
    """Median short side in pixels of up to `sample` images spread over the dataset."""
    if data.in_memory_pixels:
        return float(min(data.images.shape[1:3]))
    chosen = np.linspace(0, len(data) - 1, min(sample, len(data))).astype(int)
    return float(np.median([min(augment.decode(data.encoded(i)).shape[:2]) for i in chosen]))
