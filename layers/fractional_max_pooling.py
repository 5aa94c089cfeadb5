"""Define fractional max-pooling, which shrinks an image by a factor between 1 and 2 over random regions.

Graham: Fractional Max-Pooling, 2014, arXiv:1412.6071.
"""

import functools
import math
import numbers
from collections.abc import Callable
from typing import Any

import keras
import numpy as np

from .noise import NoiseLayer
from .tensors import Shape, Tensor, ops


def output_length(length: int, ratio: float) -> int:
    """Return max(⌊length / ratio⌋, half the length), so that every region has one or two pixels."""
    return max(math.floor(length / ratio), math.ceil(length / 2))


def pseudorandom_boundaries(length: int, pooled: int, offset: Tensor, numpy: Any = ops) -> Tensor:
    """Return region boundaries b_0 = 0 … b_pooled = length: b_i = ⌈α (i + u)⌉ − ⌈α u⌉, α = length / pooled.

    u in (0, 1) is given as the integer `offset` = ⌈length · u⌉ in 1 … length, because integers have no rounding errors.
    """
    steps = numpy.arange(pooled + 1, dtype="int32") * length + offset
    return (steps + (pooled - 1)) // pooled - (offset + (pooled - 1)) // pooled


def random_boundaries(length: int, pooled: int, seed: keras.random.SeedGenerator) -> Tensor:
    """Return region boundaries whose increments are the required ones and twos in uniformly random order."""
    order = ops.argsort(keras.random.uniform((pooled,), seed=seed))
    increments = 1 + ops.cast(order < length - pooled, "int32")
    return ops.concatenate([ops.zeros((1,), "int32"), ops.cumsum(increments)])


def fractional_max_pool(
    images: Tensor, rows: Tensor, columns: Tensor, *, overlapping: bool = True, axes: tuple[int, int] = (1, 2)
) -> Tensor:
    """Return the maxima of `images` over the rectangles with the boundaries `rows` × `columns` along `axes`.

    Region i contains pixels b_i … b_{i+1} − 1, and with `overlapping` also b_{i+1}, the first pixel of the next region.
    b begins with 0 and ends with the length. With α = length / regions, the increments of b are ⌊α⌋ or ⌈α⌉, or 1 and 2
    if α < 2. The result agrees with `tf.nn.fractional_max_pool` for the sequences that it returns. The gradient goes to
    the first of equal pixels.

    Raises:
        ValueError: If the number of boundaries is unknown, or boundaries in a list or NumPy array break these rules.
            The values of tensors are not checked, because they may be unknown.
    """
    for boundaries, axis in zip((rows, columns), axes, strict=True):
        boundaries, widest = _checked(boundaries, images.shape[axis], axis)
        images = _pool(boundaries, axis, overlapping, widest)(images)
    return images


def _checked(boundaries: Tensor, length: int, axis: int) -> tuple[Tensor, int]:
    """Return `boundaries` and the largest number of pixels that a region may have."""
    known = not ops.is_tensor(boundaries)
    boundaries = np.asarray(boundaries, "int32") if known else boundaries
    if boundaries.shape[0] is None:
        raise ValueError(
            f"fractional_max_pool: the number of boundaries along axis {axis} must be known, got the shape "
            f"{boundaries.shape}; set the shape, in TensorFlow with tf.ensure_shape."
        )
    widest = max(2, math.ceil(length / (boundaries.shape[0] - 1)))
    if known:
        steps = np.diff(boundaries)
        if boundaries[0] != 0 or boundaries[-1] != length or steps.min() < 1 or steps.max() > widest:
            raise ValueError(
                f"fractional_max_pool: boundaries along axis {axis} must rise from 0 to {length} in steps of 1 to "
                f"{widest}, got {boundaries.tolist()}."
            )
    return boundaries, widest


def _pool(boundaries: Tensor, axis: int, overlapping: bool, widest: int) -> Callable[[Tensor], Tensor]:
    """Return the function from x to the maxima of its regions along `axis`.

    The gradient is computed by gathering, because a scatter is several times slower.
    """
    first, end = boundaries[:-1], boundaries[1:]

    @ops.custom_gradient
    def pool(x: Tensor) -> tuple[Tensor, Callable[..., Tensor]]:
        length = x.shape[axis]
        places = [first, *(ops.minimum(first + i, end - 1) for i in range(1, widest - 1)), end - 1]
        candidates = [ops.take(x, index, axis=axis) for index in places]
        largest = own = functools.reduce(ops.maximum, candidates)
        shared = ops.take(x, ops.minimum(end, length - 1), axis=axis) if overlapping else None
        if shared is not None:
            largest = ops.maximum(own, shared)

        def gradient(*args: Any, upstream: Tensor = None) -> Tensor:
            upstream = args[0] if upstream is None else upstream
            zero = ops.zeros_like(upstream)
            begins = ops.any(ops.expand_dims(first, 1) == ops.arange(length, dtype=first.dtype), axis=0)
            region = ops.cumsum(ops.cast(begins, "int32")) - 1
            to_own = upstream if shared is None else ops.where(own >= shared, upstream, zero)
            parts, left = [], to_own
            for candidate in candidates[:-1]:
                parts.append(ops.where(candidate >= own, left, zero))
                left = left - parts[-1]
            if overlapping:  # the first pixel of region r + 1 is also the last one of region r
                # the last region shares no pixel, so no value rolls over to the first region
                parts[0] = parts[0] + ops.roll(upstream - to_own, 1, axis=axis)
            place = ops.arange(length, dtype="int32") - ops.take(ops.cast(first, "int32"), region)
            index = region + place * first.shape[0]
            return ops.take(ops.concatenate([*parts, left], axis=axis), index, axis=axis)

        return largest, gradient

    return pool


@keras.saving.register_keras_serializable(package="layers")
class FractionalMaxPooling2D(NoiseLayer):
    """Max-pool (batch, h, w, c) to (batch, h', w', c) over random regions of one or two pixels a side.

    The height is h' = max(⌊h / ratio⌋, ⌈h / 2⌉) with 1 < ratio < 2, and w' likewise, so a small odd side at a ratio
    near 2 shrinks less. In training, each call draws one layout of rows and one of columns: "pseudorandom" (regular
    with a random phase) or "random" (any order of steps of 1 and 2). Inference always uses the pseudorandom layout of
    phase u = ½. The paper averages several random layouts, as `monte_carlo` does. Height and width must be known when
    the layer is built.

    Args:
        ratio: the factor to shrink by, in (1, 2).
        mode: "pseudorandom" or "random".
        overlapping: let neighbouring regions share a row or column of pixels.
        data_format: "channels_last" or "channels_first"; the default is `keras.config.image_data_format()`.
        seed: an integer, or None for an arbitrary one.

    Raises:
        ValueError: If `ratio` is outside (1, 2), or `mode` or the image size is unknown.

    Example:
        `FractionalMaxPooling2D(2 ** 0.5)`
    """

    def __init__(
        self,
        ratio: float = 1.44,
        *,
        mode: str = "pseudorandom",
        overlapping: bool = True,
        data_format: str | None = None,
        seed: int | None = None,
        **kwargs: Any,
    ):
        if isinstance(ratio, bool) or not isinstance(ratio, numbers.Real) or not 1 < ratio < 2:
            raise ValueError(f"FractionalMaxPooling2D: ratio must lie strictly between 1 and 2, got {ratio!r}.")
        if mode not in ("random", "pseudorandom"):
            raise ValueError(f'FractionalMaxPooling2D: mode must be "random" or "pseudorandom", got {mode!r}.')
        super().__init__(0.0, seed=seed, **kwargs)
        self.ratio, self.mode, self.overlapping = float(ratio), mode, bool(overlapping)
        self.data_format = keras.config.image_data_format() if data_format is None else data_format
        if self.data_format not in ("channels_last", "channels_first"):
            raise ValueError(f'data_format must be "channels_last" or "channels_first", got {data_format!r}.')
        self.axes = (1, 2) if self.data_format == "channels_last" else (2, 3)
        self.supports_masking = False

    def build(self, input_shape: Shape) -> None:
        if len(input_shape) != 4 or any(input_shape[axis] is None for axis in self.axes):
            raise ValueError(
                "FractionalMaxPooling2D needs images of four dimensions with known height and width, got the shape "
                f"{tuple(input_shape)}. Give Input(shape=(height, width, channels))."
            )

    def noisy(self, training: bool | None) -> bool:
        return bool(training or self.noise_on)

    def call(self, inputs: Tensor, training: bool | None = None) -> Tensor:
        boundaries = [self._boundaries(inputs.shape[axis], self.noisy(training)) for axis in self.axes]
        return fractional_max_pool(inputs, *boundaries, overlapping=self.overlapping, axes=self.axes)

    def _boundaries(self, length: int, noisy: bool) -> Tensor:
        pooled = output_length(length, self.ratio)
        if not noisy:
            return pseudorandom_boundaries(length, pooled, (length + 1) // 2, np)  # a constant of the graph
        if self.mode == "random":
            return random_boundaries(length, pooled, self.seed_generator)
        offset = keras.random.randint((), 1, length + 1, seed=self.seed_generator)
        return pseudorandom_boundaries(length, pooled, offset)

    def compute_output_shape(self, input_shape: Shape) -> Shape:
        shape = list(input_shape)
        for axis in self.axes:
            length = shape[axis]
            shape[axis] = None if length is None else output_length(length, self.ratio)
        return tuple(shape)

    def describe(self) -> str:
        return f"{self.mode} layout of pooling regions, per batch"

    def get_config(self) -> dict[str, Any]:
        config = super().get_config()
        del config["rate"]
        own = ("ratio", "mode", "overlapping", "data_format")
        return {**config, **{name: getattr(self, name) for name in own}}
