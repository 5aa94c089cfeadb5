"""A classifier as a fully convolutional network: every window of a large image classified in one pass."""

import math
from functools import lru_cache

import keras

from recipes.networks.data_format import CHANNELS_LAST
from recipes.networks.heads import POOL

_LARGE = 1024  # pixels, a multiple of any network's stride


def can_be_dense(model: keras.Model) -> bool:
    """Whether the model takes images of any size and averages feature maps before its classifier."""
    return all(side is None for side in model.inputs[0].shape[1:3]) and bool(_pools(model))


@lru_cache(maxsize=2)  # tracing one takes seconds
def dense_model(model: keras.Model, size: int) -> keras.Model:
    """Images (batch, height, width, 3) → (batch, rows, columns, classes): `model`'s outputs at every window of
    size × size pixels, as far apart as the cells of its deepest feature map, sharing its weights.

    The averages of whole feature maps become those of the windows (Sermanet et al., OverFeat, 2014). At size × size
    there is one window, and its outputs are the model's. A size that is no multiple of the `stride` is rounded to one:
    otherwise the windows of one map are not those of another.
    """
    size = whole_cells(model, size)
    parents = {id(pool): parent for parent, pool in _pools(model)}  # ensembles have several of one name

    def convert(layer):
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
    """Pixels from one cell of the deepest averaged feature map to the next; images whose sides are multiples of it have
    the same windows in all maps."""
    return _LARGE // min(_cells(parent, pool, _LARGE) for parent, pool in _pools(model))


def whole_cells(model: keras.Model, size: float) -> int:
    """The multiple of the `stride` nearest to `size` pixels, at least one."""
    step = stride(model)
    return step * max(1, math.floor(size / step + 0.5))


def _pools(model) -> list[tuple[keras.Model, keras.layers.Layer]]:
    """(the model or submodel that holds it, the layer) of every average before the classifier."""
    found = []
    for layer in model.layers:
        if isinstance(layer, keras.Model):
            found += _pools(layer)
        elif layer.name.startswith(POOL) and isinstance(layer, keras.layers.GlobalAveragePooling2D):
            found.append((model, layer))
    return found


def _cells(parent: keras.Model, pool, size: int) -> int:
    """Rows of the feature map that `pool` averages, of an image of size × size."""
    return keras.Model(parent.inputs, pool.input).compute_output_shape((1, size, size, 3))[1]
