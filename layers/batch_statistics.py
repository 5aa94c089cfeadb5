"""Batch normalisation at finetuning time: keep the statistics that the weights were trained with."""

import keras
import numpy as np
from keras.layers import BatchNormalization

from layers.noise import training_mode


def freeze_batch_statistics(model: keras.Model) -> list[str]:
    """Make every BatchNormalization of `model`, nested ones included, run on its moving statistics, also in `fit`.

    Keras runs a BatchNormalization whose `trainable` is False in inference mode: y = γ (x − μ) / √(σ² + ε) + β with
    the moving μ and σ², which then do not move; γ and β are frozen too. `model(x, training=False)` does not achieve
    this inside a functional model, because `fit` overrides it. Compile afterwards.

    Returns the names of the layers that were frozen.
    """
    frozen = []
    for layer in model._flatten_layers(include_self=False, recursive=True):
        if isinstance(layer, BatchNormalization):
            layer.trainable = False
            frozen.append(layer.name)
    return frozen


def reestimate_batch_statistics(model: keras.Model, dataset) -> list[str]:
    """Set every moving mean and variance of `model` to those of its activations over `dataset`; weights stay.

    μ = Σ n_b μ_b / N and σ² = Σ n_b (σ_b² + μ_b²) / N − μ², with μ_b and σ_b² of batch b of n_b examples. Only
    BatchNormalization runs in training mode: dropout and its kin are off, as they are when the model is used.
    Needed after averaging weights (Izmailov et al. 2018) or when the new images differ from the old ones.

    dataset: one array of images, or an iterable of batches: images, or tuples that begin with images.
    Returns the names of the layers that were set. Raises ValueError for a model without them or an empty dataset.

    Example: `reestimate_batch_statistics(model, augment.pipeline(train, policy, batch_size=64).take(50))`
    """
    normalizations = [layer for layer in model._flatten_layers() if isinstance(layer, BatchNormalization)]
    if not normalizations:
        raise ValueError(f"reestimate_batch_statistics: model {model.name!r} has no BatchNormalization.")
    before = [(layer.trainable, layer.momentum, *_statistics(layer)) for layer in normalizations]
    examples, totals = 0, [(0.0, 0.0)] * len(normalizations)
    try:
        for layer in normalizations:
            layer.trainable, layer.momentum = True, 0.0  # the moving statistics become the batch's
        with training_mode(normalizations):
            for images in _batches(dataset):
                model(images, training=False)
                count = len(keras.tree.flatten(images)[0])
                examples += count
                totals = [_add(total, layer, count) for total, layer in zip(totals, normalizations, strict=True)]
    finally:
        for layer, (trainable, momentum, mean, variance) in zip(normalizations, before, strict=True):
            layer.trainable, layer.momentum = trainable, momentum
            layer.moving_mean.assign(mean)
            layer.moving_variance.assign(variance)
    if not examples:
        raise ValueError("reestimate_batch_statistics: the dataset has no batches.")
    for layer, (first, second) in zip(normalizations, totals, strict=True):
        mean = first / examples
        layer.moving_mean.assign(mean)
        layer.moving_variance.assign(np.maximum(second / examples - mean**2, 0))
    return [layer.name for layer in normalizations]


def _batches(dataset):
    if hasattr(dataset, "shape"):
        yield from (dataset[i : i + 32] for i in range(0, len(dataset), 32))
    else:
        yield from (batch[0] if isinstance(batch, tuple) else batch for batch in dataset)


def _statistics(layer):
    return [
        keras.ops.convert_to_numpy(statistic).astype("float64")
        for statistic in (layer.moving_mean, layer.moving_variance)
    ]


def _add(total, layer, count):
    mean, variance = _statistics(layer)
    return total[0] + count * mean, total[1] + count * (variance + mean**2)
