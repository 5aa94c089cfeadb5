"""Use the data format channels last, whatever `image_data_format` in keras.json says."""

from collections.abc import Iterator
from contextlib import contextmanager

import keras

CHANNELS_LAST = "channels_last"


@contextmanager
def channels_last() -> Iterator[None]:
    """Make channels last the default format of the layers that are built inside the block."""
    before = keras.config.image_data_format()
    keras.config.set_image_data_format(CHANNELS_LAST)
    try:
        yield
    finally:
        keras.config.set_image_data_format(before)


def channels_first_layer(model: keras.Model) -> str | None:
    """Return the name of a layer in `model`, also in nested models, with channels first; None without such a layer."""
    layers = (layer for layer in model._flatten_layers() if getattr(layer, "data_format", None) == "channels_first")
    return next((layer.name for layer in layers), None)
