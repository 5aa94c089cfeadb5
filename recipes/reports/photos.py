"""Photos for a page: found where they still are, upright, small, as data: URLs."""

import base64
import os
from collections.abc import Sequence

import numpy as np
import tensorflow as tf

import augment
from augment.preview import drawn
from recipes.auditing.facts import inspect_image
from recipes.data.evaluation_batches import evaluation_batches
from recipes.data.images import ImageData
from recipes.errors import BackboneError, DataError
from recipes.networks.grad_cam import grad_cam
from recipes.runs.record import Record

SIDE = 160  # pixels, at most
_QUALITY = 80
_VARIED, _DRAWS = 3, 5  # photos in the augmentation preview, and draws of each


def jpeg_url(pixels, side: int = SIDE) -> str:
    """A data: URL of 0..255 RGB pixels (height, width, 3), made smaller where a side is longer than `side`."""
    longest = max(pixels.shape[:2])
    if longest > side:
        size = [max(1, round(length * side / longest)) for length in pixels.shape[:2]]
        pixels = tf.image.resize(pixels, size, method="area" if longest >= 2 * side else "bilinear", antialias=True)
    pixels = tf.cast(tf.clip_by_value(tf.round(tf.cast(pixels, tf.float32)), 0, 255), tf.uint8)
    content = tf.io.encode_jpeg(pixels, quality=_QUALITY, optimize_size=True).numpy()
    return "data:image/jpeg;base64," + base64.b64encode(content).decode()


def photo(data: ImageData | None, index: int) -> str | None:
    """The data: URL of an image; None where it is not at hand any more or cannot be decoded."""
    if not _at_hand(data, index):
        return None
    if not data.in_memory_pixels:
        return jpeg_url(augment.decode(data.encoded(index)))
    pixels = data.images[index]
    return jpeg_url(pixels[..., :3] if pixels.shape[-1] > 1 else np.repeat(pixels, 3, -1))


def photo_called(name: str, held_out: ImageData | None) -> str | None:
    """The same of an image by its name: a file, or one of the held-out images."""
    if os.path.isfile(name):
        return photo(ImageData([name], np.zeros(1, np.int64), ("",), (name,)), 0)
    names = held_out.names if held_out is not None else ()
    return photo(held_out, names.index(name)) if name in names else None


def at_hand(data: ImageData | None, indices: Sequence[int]) -> list[int]:
    """Those of `indices` whose images can be decoded now."""
    return [int(index) for index in indices if _at_hand(data, int(index))]


def _at_hand(data: ImageData | None, index: int) -> bool:
    try:
        return data is not None and not inspect_image(data, index).error
    except DataError:  # a pack that was altered or is gone
        return False


def variations(data: ImageData, policy: augment.Policy) -> list[list[tuple[str, str]]]:
    """(data: URL, caption) of some images, each followed by draws of the augmentation."""
    spread = np.unique(np.linspace(0, len(data) - 1, min(len(data), 4 * _VARIED)).astype(int))
    some = data.subset(at_hand(data, spread)[:: 4 if len(spread) > 4 else 1][:_VARIED])
    if not len(some):
        return []
    rows = drawn(some.source(), policy, rows=len(some), draws=_DRAWS)
    return [[(jpeg_url(pixels), text) for pixels, text in row] for row in rows]


def heat_maps(result: Record, data: ImageData, classes: Sequence[Sequence[int]]) -> tuple[list[list[str]], str]:
    """Per image of `data` its crop and, for each of the classes asked of it, the same under its Grad-CAM; or no rows,
    and why."""
    policy = result.recipe.evaluation_policy
    images = np.concatenate([batch for batch, _ in evaluation_batches(data, policy, len(data)).as_numpy_iterator()])
    owner = [i for i, asked in enumerate(classes) for _ in asked]
    try:
        maps = grad_cam(result.model, images[owner], [c for asked in classes for c in asked])
    except BackboneError as error:
        return [], str(error)
    rows = [[jpeg_url(image)] for image in images]
    for i, heat in zip(owner, maps, strict=True):
        rows[i].append(jpeg_url(_under(images[i], heat)))
    return rows, ""


def _under(image: np.ndarray, heat: np.ndarray) -> np.ndarray:
    """0..255 RGB with what is hot over it: dark where nothing speaks for the class, then violet to yellow."""
    from matplotlib import colormaps

    share = (0.35 + 0.3 * heat)[..., None]
    return (1 - share) * image + share * 255 * colormaps["inferno"](heat)[..., :3]
