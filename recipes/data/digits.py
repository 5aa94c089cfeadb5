"""The embedded dataset: scikit-learn's 1,797 handwritten digits, with a small training set."""

from typing import Any, cast

import numpy as np

from recipes.data.images import Splits, labelled
from recipes.errors import DataError

SIZE = 32


def digits(per_class: int = 20, seed: int = 0) -> Splits:
    """Return handwritten digits, with `per_class` training images per class and all others as test images.

    The images of scikit-learn's `load_digits` are 8 × 8 counts of inked pixels, 0..16, by 43 writers (Alpaydin and
    Kaynak 1998). Each count is multiplied by 255/16, and `enlarge` enlarges the images fourfold. The results are uint8
    RGB images of 32 × 32 pixels with bright ink on black.

    Args:
        per_class: Number of training images per class.
        seed: Seed of the choice of training images.

    Raises:
        DataError: If `per_class` is below 1, or leaves no test image of some class.

    Example:
        >>> finetune(digits(per_class=5).train, backbone="glyphs")
    """
    from sklearn.datasets import load_digits

    bunch = cast(Any, load_digits())  # the stubs only describe the result that is a pair
    images, labels = bunch.images.astype(np.float32) * (255 / 16), bunch.target.astype(np.int64)
    smallest = int(np.bincount(labels).min())
    if not 1 <= per_class < smallest:
        raise DataError(
            f"`per_class` must be 1 to {smallest - 1}, got {per_class}: the smallest class has {smallest} images, "
            "and at least one of them must remain as a test image",
            code="digits.per_class", value=per_class,
        )  # fmt: skip
    rng = np.random.default_rng(seed)
    train = np.sort(np.concatenate([rng.permutation(np.flatnonzero(labels == c))[:per_class] for c in range(10)]))
    rgb = np.repeat(np.rint(enlarge(images, SIZE)).astype(np.uint8)[..., None], 3, axis=-1)
    everything = labelled(rgb, labels, [f"digits[{i}]" for i in range(len(labels))])
    test = np.setdiff1d(np.arange(len(labels)), train)
    return Splits(everything.subset(train), None, everything.subset(test))


def enlarge(images: np.ndarray, size: int) -> np.ndarray:
    """Return square images (n, side, side) enlarged bilinearly to (n, size, size), with the border values repeated.

    Pixel centres lie at half-integers: output pixel i reads position (i + ½) · side / size.
    """
    weights = interpolation(images.shape[1], size)
    return weights @ images @ weights.T


def interpolation(side: int, size: int) -> np.ndarray:
    """Return the matrix (size, side) of linear interpolation from `side` samples to `size`; its rows sum to 1."""
    at = np.clip((np.arange(size) + 0.5) * side / size - 0.5, 0, side - 1)
    return np.maximum(0, 1 - np.abs(at[:, None] - np.arange(side))).astype(np.float32)
