"""Re-estimate the moving statistics of batch normalization on a dataset."""

import contextlib
import functools
import inspect
import math
from collections.abc import Callable, Iterable, Iterator
from typing import Any

import keras
import numpy as np
from keras.layers import BatchNormalization

from .frozen_statistics import is_frozen, set_class
from .noise import in_training, replaced, untraced
from .tensors import Tensor, ops


def reestimate_batch_statistics(model: keras.Model, dataset: Iterable[Any]) -> list[str]:
    """Set every moving mean and variance of `model` from its activations over `dataset`, without changing weights.

    μ = Σ n_c μ_c / N and σ² = Σ n_c (σ_c² + (μ_c − μ)²) / N over all calls c of the layer, with the mean μ_c and
    variance σ_c² of n_c values, N = Σ n_c. A shared layer has several calls per batch. Only BatchNormalization runs in
    training mode; dropout and other noise are off, as in inference.

    Re-estimation is needed after averaging weights (Izmailov et al. 2018), or when new images differ from the training
    images. Statistics that `freeze_batch_statistics` froze are set too, and stay frozen.

    Args:
        model: any model with BatchNormalization layers.
        dataset: one array of images, or an iterable of batches. A batch is images, or a tuple that begins with images.

    Returns:
        The names of the layers that were set.

    Raises:
        ValueError: If the model has no BatchNormalization, or the dataset is empty.

    Example:
        `reestimate_batch_statistics(model, augment.pipeline(train, policy, batch_size=64).take(50))`
    """
    normalizations = [layer for layer in model._flatten_layers() if isinstance(layer, BatchNormalization)]
    if not normalizations:
        raise ValueError(
            f"reestimate_batch_statistics: model {model.name!r} has no BatchNormalization; expected at "
            f"least one layer of it."
        )
    moments = [_Moments() for _ in normalizations]
    with contextlib.ExitStack() as stack:
        stack.enter_context(untraced(model))
        for layer, total in zip(normalizations, moments, strict=True):
            stack.enter_context(_measuring(layer, total))
        for images in _batches(dataset):
            model(images, training=False)
    called = [(layer, total) for layer, total in zip(normalizations, moments, strict=True) if total.count]
    if not called:
        raise ValueError("reestimate_batch_statistics: the dataset has no batches; pass at least one batch of images.")
    for layer, total in called:
        _assign(layer, total.mean, total.squares / total.count)
    return [layer.name for layer, _ in called]


@contextlib.contextmanager
def _measuring(layer: Any, moments: "_Moments") -> Iterator[None]:
    """Run `layer` in training mode and collect the moments of its inputs; restore the layer at the end."""
    cls, trainable, momentum, statistics = type(layer), layer.trainable, layer.momentum, _statistics(layer)
    try:
        if is_frozen(layer):
            set_class(layer, cls.unfrozen)
        # with this momentum, the moving statistics become those of the call
        layer.trainable, layer.momentum = True, 0.0
        _assign(layer, *map(np.zeros_like, statistics))  # replaces NaN, because a momentum of 0 times NaN is NaN
        with replaced(layer, "call", _observed(layer, moments)):
            yield
    finally:
        set_class(layer, cls)
        layer.trainable, layer.momentum = trainable, momentum
        _assign(layer, *statistics)


class _Moments:
    """Accumulate the mean and the sum of squared deviations of all values (Chan, Golub, LeVeque 1979)."""

    def __init__(self):
        self.count, self.mean, self.squares = 0, np.zeros(()), np.zeros(())

    def add(self, count: int, mean: np.ndarray, variance: np.ndarray) -> None:
        total = self.count + count
        if total:
            shift = mean - self.mean
            self.mean = self.mean + shift * (count / total)
            self.squares = self.squares + count * variance + shift**2 * (self.count * count / total)
            self.count = total


def _observed(layer: Any, moments: "_Moments") -> Callable[..., Any]:
    """Return `layer.call` in training mode; each call adds the moments of its inputs to `moments`."""
    call, signature = in_training(layer), inspect.signature(layer.call)

    @functools.wraps(call)
    def observed(*args: Any, **kwargs: Any) -> Any:
        outputs = call(*args, **kwargs)
        arguments = signature.bind(*args, **kwargs).arguments
        inputs, mask = next(iter(arguments.values())), arguments.get("mask")
        if mask is None:
            count = math.prod(ops.shape(inputs)) // math.prod(layer.moving_mean.shape)
        else:  # masks have one entry per position, and each position has one value per channel
            count = int(ops.convert_to_numpy(ops.sum(ops.cast(mask, "int32"))))
        moments.add(count, *_statistics(layer))
        return outputs

    return observed


def _batches(dataset: Any) -> Iterator[Tensor]:
    if hasattr(dataset, "shape"):
        yield from (dataset[i : i + 32] for i in range(0, len(dataset), 32))
    else:
        yield from (batch[0] if isinstance(batch, tuple) else batch for batch in dataset)


def _statistics(layer: Any) -> list[np.ndarray]:
    return [
        ops.convert_to_numpy(statistic).astype("float64") for statistic in (layer.moving_mean, layer.moving_variance)
    ]


def _assign(layer: Any, mean: np.ndarray, variance: np.ndarray) -> None:
    layer.moving_mean.assign(mean)
    layer.moving_variance.assign(variance)
