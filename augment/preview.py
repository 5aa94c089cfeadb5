"""Show the effect of a policy on some images."""

from typing import TYPE_CHECKING, Any

import numpy as np
import tensorflow as tf

from .decode import decode
from .draws import between, draw, normal, uniforms
from .geometry import crop_box
from .guard import reason_of
from .pca import IMAGENET_PCA, PCA
from .pipeline import render, with_extra
from .policy import Policy, PolicyError
from .rand_augment import captions
from .region import as_rgb, fetch
from .source import as_source
from .tensors import Tensor

if TYPE_CHECKING:
    from matplotlib.figure import Figure

DRAWS = 8


def preview(dataset: Any, policy: Policy, *, rows: int = 4, seed: int = 0, pca: PCA | None = None) -> "Figure":
    """Return a matplotlib Figure of `rows` originals, each with eight augmented draws and their parameters.

    Args:
        dataset: as for `pipeline`; its first images are shown. Mixing is not shown.

    Raises: PolicyError for a dataset without examples, and for an image that cannot be decoded, with its name.

    >>> augment.preview(dataset, augment.Policy.strong()).savefig("preview.png")
    """
    from matplotlib.figure import Figure  # a heavy package that is needed only in this function

    pictures = drawn(dataset, policy, rows=rows, seed=seed, pca=pca)
    figure = Figure(figsize=(1.6 * (DRAWS + 1), 2.15 * len(pictures)), layout="constrained")
    axes = figure.subplots(len(pictures), DRAWS + 1, squeeze=False)
    for line, shown in zip(axes, pictures, strict=True):
        for cell, (pixels, text) in zip(line, shown, strict=True):
            _show(cell, pixels, text)
    return figure


def drawn(
    dataset: Any, policy: Policy, *, rows: int = 4, draws: int = DRAWS, seed: int = 0, pca: PCA | None = None
) -> list[list[tuple[np.ndarray, str]]]:
    """Return (uint8 pixels, caption) of the first `rows` images, each followed by `draws` augmented ones.

    Raises: PolicyError for a dataset without examples, and for an image that cannot be decoded, with its name.
    """
    images = _first_images(dataset, rows)
    if not images:
        raise PolicyError("the dataset is empty; expected at least one image to show")
    shown = []
    for index, (name, image) in enumerate(images):
        pixels = _pixels(name, image)
        height, width = pixels.shape[:2]
        shown.append([(_bytes(pixels), f"{width} × {height}")])
        for epoch in range(draws):
            uniform = uniforms(seed, epoch, index)
            region = tf.nest.map_structure(lambda t: t[None], fetch(image, policy, uniform))
            view = render(region, uniform[None], policy, pca or IMAGENET_PCA)
            caption = describe(policy, uniform, height, width)  # pyright: ignore[reportArgumentType]  (known sizes)
            shown[-1].append((_bytes(with_extra(view, policy)[0]), caption))
    return shown


def _first_images(dataset, count: int) -> list:
    """Return (name, image) of the first examples."""
    source = as_source(dataset)
    once = tf.data.Dataset.from_tensors(tf.constant(0, tf.int64))
    examples = source.examples(once, seed=0, shuffle=False, first=0)
    named = lambda index: source.called(index).numpy().decode("utf-8", "replace")  # noqa: E731
    return [
        (named(index), source.take(index, payload)[0]) for _, _, index, end, payload in examples.take(count) if not end
    ]


def _pixels(name: str, image):
    if image.dtype != tf.string:
        return as_rgb(image)
    try:
        return decode(image)
    except tf.errors.OpError as error:
        raise PolicyError(
            f"cannot show {name} ({reason_of(error)}); leave this image out, or convert it to a supported format"
        ) from error


def _bytes(pixels: Tensor) -> np.ndarray:
    return tf.cast(tf.clip_by_value(tf.round(tf.cast(pixels, tf.float32)), 0, 255), tf.uint8).numpy()


def _show(axes: Any, pixels: Tensor, text: str) -> None:
    axes.imshow(pixels)
    axes.set_xlabel(text, fontsize=5, linespacing=1.1)
    axes.set_xticks([])
    axes.set_yticks([])


def describe(policy: Policy, uniform: Tensor, height: int, width: int) -> str:
    """Return the varying parameters of an augmentation as text, from the draws and the size of an image."""

    def value(name: str, slot: str | None = None) -> float:
        return float(between(uniform, slot or name, policy.range(name)))

    words = []
    if policy.area:
        *_, high, wide = crop_box(policy, uniform, float(height), float(width)).numpy()
        words += [f"area {high * wide / (height * width):.0%}"]
    elif policy.short_side and policy.short_side[0] < policy.short_side[1]:
        words += [f"short side {value('short_side', 'scale'):.0f}"]
    if policy.flip and float(draw(uniform, "flip")) < policy.flip:
        words += ["mirrored"]
    if policy.moves("translate"):
        words += [f"shift {value('translate', 'shift_x'):+.0%} {value('translate', 'shift_y'):+.0%}"]
    units = {"rotate": "°", "stretch": "", "shear": "°", "lens": "", "hue": "°"}
    words += [f"{name} {value(name):+.2g}{unit}" for name, unit in units.items() if policy.moves(name)]
    multipliers = ("brightness", "contrast", "saturation")
    words += [f"{name} {value(name):.2f}" for name in multipliers if policy.range(name) != (1, 1)]
    if policy.pca:
        alpha = policy.pca * normal(uniform, "pca_1", "pca_2", "pca_3").numpy()
        words += ["α " + " ".join(f"{a:+.2f}" for a in alpha)]
    words += captions(policy, uniform)
    if policy.erase and float(draw(uniform, "erase")) < policy.erase:
        words += ["erased"]
    return "\n".join(", ".join(words[i : i + 2]) for i in range(0, len(words), 2))
