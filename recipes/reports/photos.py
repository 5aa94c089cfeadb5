"""Read photos again for a page, upright and reduced, as data: URLs."""

import base64
import os
from collections.abc import Iterable, Sequence

import numpy as np
import tensorflow as tf

from recipes import augment
from recipes.auditing.facts import inspect_image
from recipes.augment import drawn
from recipes.data.evaluation_batches import evaluation_batches
from recipes.data.images import ImageData
from recipes.errors import DataError
from recipes.networks.grad_cam import grad_cam
from recipes.runs.record import Record

SIDE = 160  # maximum side of a photo in pixels
_QUALITY = 80
_PREVIEWED, _DRAWS = 3, 5  # number of photos in the augmentation preview, and of draws of each photo


def jpeg_url(pixels: np.ndarray | tf.Tensor, side: int = SIDE) -> str:
    """Return a data: URL of 0..255 RGB pixels (height, width, 3), reduced to sides of at most `side`."""
    height, width = (int(length) for length in np.shape(pixels)[:2])
    longest = max(height, width)
    if longest > side:
        size = [max(1, round(length * side / longest)) for length in (height, width)]
        pixels = tf.image.resize(pixels, size, method="area" if longest >= 2 * side else "bilinear", antialias=True)
    pixels = tf.cast(tf.clip_by_value(tf.round(tf.cast(pixels, tf.float32)), 0, 255), tf.uint8)
    content = tf.io.encode_jpeg(pixels, quality=_QUALITY, optimize_size=True).numpy()
    return "data:image/jpeg;base64," + base64.b64encode(content).decode()


def photo(data: ImageData | None, index: int) -> str | None:
    """Return the data: URL of an image; None if it no longer exists or cannot be decoded."""
    if data is None or not _readable(data, index):
        return None
    if not isinstance(data.images, np.ndarray):
        return jpeg_url(augment.decode(data.encoded(index)))
    pixels = data.images[index]
    return jpeg_url(pixels[..., :3] if pixels.shape[-1] > 1 else np.repeat(pixels, 3, -1))


def photo_named(name: str, held_out: ImageData | None) -> str | None:
    """Return the data: URL of an image, named as a file or as one of the held-out images."""
    if os.path.isfile(name):
        return photo(ImageData([name], np.zeros(1, np.int64), ("",), (name,)), 0)
    names = held_out.names if held_out is not None else ()
    return photo(held_out, names.index(name)) if name in names else None


def readable(data: ImageData, indices: Iterable[int]) -> list[int]:
    """Return the `indices` whose images can be decoded now."""
    return [int(index) for index in indices if _readable(data, int(index))]


def _readable(data: ImageData, index: int) -> bool:
    try:
        return not inspect_image(data, index).error
    except DataError:  # the pack was changed or no longer exists
        return False


def augmented(data: ImageData, policy: augment.Policy) -> list[list[tuple[str, str]]]:
    """Return (data: URL, caption) of some images, each followed by its augmented draws."""
    spread = np.unique(np.linspace(0, len(data) - 1, min(len(data), 4 * _PREVIEWED)).astype(int))
    some = data.subset(readable(data, spread)[:: 4 if len(spread) > 4 else 1][:_PREVIEWED])
    if not len(some):
        return []
    rows = drawn(some.source(), policy, rows=len(some), draws=_DRAWS)
    return [[(jpeg_url(pixels), text) for pixels, text in row] for row in rows]


def heat_maps(result: Record, data: ImageData, classes: Sequence[Sequence[int]]) -> list[list[str]]:
    """Return, per image of `data`, its crop and the same crop under the Grad-CAM of each of its `classes`.

    Raises:
        BackboneError: If the network has no feature map.
    """
    policy = result.recipe.evaluation_policy
    images = np.concatenate([batch for batch, _ in evaluation_batches(data, policy, len(data)).as_numpy_iterator()])
    owner = [i for i, wanted in enumerate(classes) for _ in wanted]
    maps = grad_cam(result.model, images[owner], [c for wanted in classes for c in wanted])
    rows = [[jpeg_url(image)] for image in images]
    for i, heat in zip(owner, maps, strict=True):
        rows[i].append(jpeg_url(_overlaid(images[i], heat)))
    return rows


def _overlaid(image: np.ndarray, heat: np.ndarray) -> np.ndarray:
    """Return 0..255 RGB under a heat map: dark for no evidence of the class, then violet to yellow."""
    from matplotlib import colormaps

    share = (0.35 + 0.3 * heat)[..., None]
    return (1 - share) * image + share * 255 * colormaps["inferno"](heat)[..., :3]
