"""The embedded dataset: scikit-learn's 1,797 real handwritten digits, few of them labelled."""

import numpy as np

from recipes.data.images import DataError, Splits, labelled

SIZE = 32


def digits(per_class: int = 20, seed: int = 0) -> Splits:
    """Handwritten digits with `per_class` labelled images a class for training and all others held out for the test.

    scikit-learn's `load_digits`: 8 × 8 counts of inked pixels, 0..16 (Alpaydin and Kaynak 1998; 43 writers). Here they
    are uint8 RGB images of 32 × 32, bright ink on black: value · 255/16, enlarged fourfold by `enlarge`.

    Raises: DataError when a class has not more than `per_class` images, or none would be left.

    Example: `finetune(digits(per_class=5).train, backbone="glyphs")`
    """
    from sklearn.datasets import load_digits

    bunch = load_digits()
    images, labels = bunch.images.astype(np.float32) * (255 / 16), bunch.target.astype(np.int64)
    smallest = int(np.bincount(labels).min())
    if not 1 <= per_class < smallest:
        raise DataError(
            f"per_class is {per_class}; expected 1 to {smallest - 1}: the smallest class has {smallest} images, "
            "and one of them must be left for the test"
        )
    rng = np.random.default_rng(seed)
    train = np.sort(np.concatenate([rng.permutation(np.flatnonzero(labels == c))[:per_class] for c in range(10)]))
    rgb = np.repeat(np.rint(enlarge(images, SIZE)).astype(np.uint8)[..., None], 3, axis=-1)
    everything = labelled(rgb, labels, [f"digits[{i}]" for i in range(len(labels))])
    test = np.setdiff1d(np.arange(len(labels)), train)
    return Splits(everything.subset(train), None, everything.subset(test))


def enlarge(images: np.ndarray, size: int) -> np.ndarray:
    """Square images (n, side, side) bilinearly enlarged to (n, size, size); border values continue outwards.

    Pixel centres lie at half-integers: output pixel i reads position (i + ½) · side / size.
    """
    weights = interpolation(images.shape[1], size)
    return weights @ images @ weights.T


def interpolation(side: int, size: int) -> np.ndarray:
    """The matrix (size, side) of linear interpolation from `side` samples to `size`; its rows sum to 1."""
    at = np.clip((np.arange(size) + 0.5) * side / size - 0.5, 0, side - 1)
    return np.maximum(0, 1 - np.abs(at[:, None] - np.arange(side))).astype(np.float32)
