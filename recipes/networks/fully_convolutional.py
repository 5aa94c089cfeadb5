"""Convert a classifier to a fully convolutional network, which classifies all windows of a large image in one pass."""

import math
from functools import lru_cache

import keras

from recipes.networks.data_format import CHANNELS_LAST
from recipes.networks.heads import POOL

_LARGE = 1024  # pixels, a multiple of any network's stride


def can_be_dense(model: keras.Model) -> bool:
    """Return whether the model accepts images of any size and averages feature maps before its classifier."""
    return all(side is None for side in model.inputs[0].shape[1:3]) and bool(_pools(model))


@lru_cache(maxsize=2)  # tracing takes seconds
def dense_model(model: keras.Model, size: int) -> keras.Model:
    """Return a model from images (batch, height, width, 3) to outputs (batch, rows, columns, classes) of all windows.

    The result shares the weights of `model` and returns its outputs at every window of size × size pixels. Neighbouring
    windows are one cell of the deepest feature map apart. Averages over whole feature maps become averages over windows
    (Sermanet et al., OverFeat, 2014). An image of size × size pixels has one window with the outputs of `model`. `size`
    is rounded to a multiple of the `stride`, because otherwise the windows of different feature maps would differ.
    """
    size = whole_cells(model, size)
    parents = {id(pool): parent for parent, pool in _pools(model)}  # ensembles have several layers of the same name

    def convert(layer: keras.layers.Layer) -> keras.layers.Layer:
        if parent := parents.get(id(layer)):
            step = stride(model) * _cells(parent, layer, _LARGE) // _LARGE
            return keras.layers.AveragePooling2D(
                _cells(parent, layer, size), strides=step, padding="valid", data_format=CHANNELS_LAST, name=layer.name,
                dtype=layer.dtype_policy,
            )  # fmt: skip
        if isinstance(layer, keras.Model) and _pools(layer):
            return keras.models.clone_model(layer, clone_function=convert)
        return layer

    return keras.models.clone_model(model, clone_function=convert)


@lru_cache(maxsize=2)
def stride(model: keras.Model) -> int:
    """Return the distance in pixels between neighbouring cells of the deepest averaged feature map.

    Images whose sides are multiples of the stride have the same windows in all feature maps.
    """
    return _LARGE // min(_cells(parent, pool, _LARGE) for parent, pool in _pools(model))


def whole_cells(model: keras.Model, size: float) -> int:
    """Return the multiple of the `stride` nearest to `size` pixels, at least one stride."""
    step = stride(model)
    return step * max(1, math.floor(size / step + 0.5))


def _pools(model: keras.Model) -> list[tuple[keras.Model, keras.layers.Layer]]:
    """Return every pooling layer before the classifier, each as a pair of the model that contains it and the layer."""
    found = []
    for layer in model.layers:
        if isinstance(layer, keras.Model):
            found += _pools(layer)
        elif layer.name.startswith(POOL) and isinstance(layer, keras.layers.GlobalAveragePooling2D):
            found.append((model, layer))
    return found


def _cells(parent: keras.Model, pool: keras.layers.Layer, size: int) -> int:
    """Return the number of rows of the feature map that `pool` averages, for an image of size × size."""
    return keras.Model(parent.inputs, pool.input).compute_output_shape((1, size, size, 3))[1]
