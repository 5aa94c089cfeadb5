"""Find near-duplicates: pictures that look the same although their bytes differ, such as resized copies."""

from collections.abc import Sequence
from functools import lru_cache
from itertools import pairwise

import numpy as np

SMALLEST = 64  # pixels of the shorter side; smaller pictures lack the detail to distinguish equal from similar pictures
_BITS_APART = 6
_BANDS = (0, 9, 18, 27, 36, 45, 54, 64)  # one more than the differing bits, so that near hashes agree in some band
_ALIKE = 0.85
_SAMPLE, _FEWEST = 20_000, 100  # number of random pairs that measure how similar pictures of one class are

Signature = tuple[int, bytes]  # a perceptual hash of 64 bits, and a thumbnail of 16 × 16 luminances


def signature(pixels: np.ndarray) -> Signature | None:
    """Return the DCT hash ("pHash", Zauner 2010) and a thumbnail of a picture (height, width, channels).

    The luminance is averaged to 32 × 32 and transformed by the discrete cosine transform. Each of the 8 × 8 lowest
    frequencies, except the constant one, gives one bit, which is set above their median. The result is None for
    pictures with a side below 64 pixels.
    """
    height, width = pixels.shape[:2]
    if min(height, width) < SMALLEST:
        return None
    grey = luminance(pixels[:: max(1, height // 128), :: max(1, width // 128)])
    small = _averages(grey.shape[0]) @ grey @ _averages(grey.shape[1]).T
    low = (_cosines() @ small @ _cosines().T).ravel()
    bits = low > np.median(low[1:])
    bits[0] = False
    thumbnail = np.rint(small.reshape(16, 2, 16, 2).mean((1, 3))).astype(np.uint8)
    return int.from_bytes(np.packbits(bits).tobytes(), "big"), thumbnail.tobytes()


def luminance(pixels: np.ndarray) -> np.ndarray:
    """Return the float32 luma (ITU-R BT.601) (height, width) of RGB, RGBA or grey pixels (height, width, channels)."""
    if pixels.shape[-1] < 3:
        return pixels[..., 0].astype(np.float32)
    return pixels[..., :3].astype(np.float32) @ np.array([0.299, 0.587, 0.114], np.float32)


@lru_cache(maxsize=512)
def _averages(side: int) -> np.ndarray:
    """Return the matrix (32, side) whose row i averages the interval from i·side/32 to (i+1)·side/32."""
    edges = np.arange(33) * side / 32
    pixel = np.arange(side)
    inside = np.minimum(edges[1:, None], pixel + 1) - np.maximum(edges[:-1, None], pixel)
    return (np.maximum(inside, 0) * 32 / side).astype(np.float32)


@lru_cache(maxsize=1)
def _cosines() -> np.ndarray:
    """Return the matrix (8, 32) of the lowest frequencies of the type-II discrete cosine transform."""
    return np.cos(np.pi / 32 * (np.arange(32) + 0.5) * np.arange(8)[:, None]).astype(np.float32)


def near_pairs(
    signatures: Sequence[Signature | None], labels: Sequence[int] | np.ndarray, reference: np.ndarray | None = None
) -> np.ndarray:
    """Return the positions (pairs, 2) of near-duplicates.

    The hashes of near-duplicates differ in at most 6 of 64 bits, and the correlation r of their thumbnails is at least
    0.85. In addition, artanh r is at least four standard deviations above the mean of random pairs within a class,
    because drawings of one letter correlate by chance. Only hashes that agree in one of seven bands of bits are
    compared.

    Args:
        signatures: The result of `signature` for each picture.
        labels: The class (n,) of each picture.
        reference: Whether each picture (n,) may be among the random pairs; None allows all pictures.
    """
    where = np.array([i for i, s in enumerate(signatures) if s is not None], np.int64)
    if len(where) < 2:
        return np.zeros((0, 2), np.int64)
    hashes = np.array([signatures[i][0] for i in where], np.uint64)
    pairs = np.unique(np.concatenate([_near(hashes, *band) for band in pairwise(_BANDS)]), axis=0)
    thumbnails = np.stack([np.frombuffer(signatures[i][1], np.uint8) for i in where])
    chosen = slice(None) if reference is None else np.asarray(reference, bool)[where]
    required = _required_correlation(thumbnails[chosen], np.asarray(labels)[where][chosen])
    return where[pairs[_correlation(thumbnails, pairs) >= required]]


def _required_correlation(thumbnails: np.ndarray, labels: np.ndarray) -> float:
    """Return the correlation above which two pictures of one class are not similar merely by chance."""
    if not len(labels):
        return _ALIKE
    pairs = np.random.default_rng(0).integers(0, len(labels), (_SAMPLE, 2))
    pairs = np.unique(pairs[(labels[pairs[:, 0]] == labels[pairs[:, 1]]) & (pairs[:, 0] < pairs[:, 1])], axis=0)
    if len(pairs) < _FEWEST:
        return _ALIKE
    z = np.arctanh(np.clip(_correlation(thumbnails, pairs), -0.999, 0.999))
    # a robust estimate, because the pairs may contain duplicates
    deviation = 1.4826 * np.median(np.abs(z - np.median(z)))
    return max(_ALIKE, float(np.tanh(np.median(z) + 4 * deviation)))


def _near(hashes: np.ndarray, low: int, high: int) -> np.ndarray:
    """Return the pairs whose hashes agree in the bits from `low` to `high` and differ in few bits."""
    keys = (hashes >> np.uint64(low)) & np.uint64(2 ** (high - low) - 1)
    order = np.argsort(keys, kind="stable")
    keys, hashes = keys[order], hashes[order]
    found, first, ahead = [np.zeros((0, 2), np.int64)], np.arange(len(keys)), 1
    while len(first):
        first = first[first + ahead < len(keys)]
        first = first[keys[first] == keys[first + ahead]]
        differing = hashes[first] ^ hashes[first + ahead]
        apart = np.unpackbits(differing.view(np.uint8).reshape(-1, 8), axis=1).sum(1)
        near = first[apart <= _BITS_APART]
        found.append(np.sort(np.stack([order[near], order[near + ahead]], 1), 1))
        ahead += 1
    return np.concatenate(found)


def _correlation(thumbnails: np.ndarray, pairs: np.ndarray, block: int = 65_536) -> np.ndarray:
    found = [np.zeros(0)]
    for start in range(0, len(pairs), block):
        a, b = (thumbnails[pairs[start : start + block, side]].astype(np.float32) for side in (0, 1))
        a, b = a - a.mean(1, keepdims=True), b - b.mean(1, keepdims=True)
        found.append((a * b).sum(1) / np.maximum(np.sqrt((a * a).sum(1) * (b * b).sum(1)), 1e-6))
    return np.concatenate(found)


def groups(count: int, pairs: np.ndarray) -> list[list[int]]:
    """Return the groups of at least two positions in 0..count-1 that are connected by pairs."""
    from scipy.sparse import coo_array
    from scipy.sparse.csgraph import connected_components

    graph = coo_array((np.ones(len(pairs), bool), (pairs[:, 0], pairs[:, 1])), (count, count))
    label = connected_components(graph, directed=False)[1]
    touched = np.unique(pairs)
    return [touched[label[touched] == one].tolist() for one in dict.fromkeys(label[touched].tolist())]
