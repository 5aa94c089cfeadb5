"""Re-estimate batch statistics for averaged weights, and check the data for it."""

from collections.abc import Iterator
from typing import Any

import keras

from .tensors import ops, tree

BATCH = 32  # batch size for data that is one array


def check_reestimation_data(data: Any) -> None:
    """Raise ValueError if the data cannot be read at every evaluation.

    Data may be one array of images, a `PyDataset`, a finite `tf.data.Dataset`, or any other iterable of batches that
    can be read more than once.
    """
    wanted = "`data` must be one array of images or an iterable of batches that can be read more than once"
    if hasattr(data, "shape"):
        if not len(data.shape) or not data.shape[0]:
            raise ValueError(f"{wanted}. Got an array of shape {tuple(data.shape)}, which has no images.")
    elif hasattr(data, "__next__"):
        raise ValueError(f"{wanted}. Got a {type(data).__name__}, which can be read only once. Pass a list of batches.")
    elif isinstance(data, (str, bytes, dict)) or not (hasattr(data, "__iter__") or _is_py_dataset(data)):
        raise ValueError(f"{wanted}. Got a {type(data).__name__}.")
    elif isinstance(data, (list, tuple)) and not data:
        raise ValueError(f"{wanted}. Got an empty {type(data).__name__}.")
    elif isinstance(data, (list, tuple)):
        return
    elif hasattr(data, "cardinality") and int(data.cardinality()) == -1:
        raise ValueError(f"{wanted}. Got a dataset without an end. Limit the number of batches, `data.take(50)`.")


def check_batches(model: keras.Model, data: Any) -> None:
    """Raise ValueError before the training if `model` cannot take the batches of `data`.

    One example of the first batch passes through the model or, for a list, one example of every shape.
    """
    if not trainable_normalisations(model):
        return
    tried = set()
    for inputs in _batches(data):
        shapes = tuple(tuple(getattr(part, "shape", ())) for part in tree.flatten(inputs))
        form = tuple(shape[1:] for shape in shapes)
        if form not in tried:
            try:
                model(tree.map_structure(lambda part: part[:1], inputs), training=False)
            except Exception as error:
                got = " and ".join(map(str, shapes))
                raise ValueError(
                    f"The model cannot take a batch of shape {got} of `data`, from which batch statistics are "
                    f"re-estimated ({error}). Pass one array of images, or an iterable of batches of inputs as for "
                    f"`model.predict`."
                ) from error
            tried.add(form)
        if not isinstance(data, (list, tuple)):
            break
    if not tried:
        raise ValueError(
            "`data`, from which batch statistics are re-estimated, has no batches. Pass at least one batch."
        )


def reestimate(model: keras.Model, data: Any) -> None:
    """Set moving statistics to the mean over the batches of `data`, weighted by size, for the current weights."""
    layers = trainable_normalisations(model)
    if not layers:
        return
    momenta = [layer.momentum for layer in layers]
    others = [v for v in model.non_trainable_variables if not any(v is s for layer in layers for s in layer.variables)]
    saved = [ops.copy(variable.value) for variable in others]
    seen = 0
    try:
        for inputs in _batches(data):
            size = len(tree.flatten(inputs)[0])
            for layer in layers:
                layer.momentum = seen / (seen + size)
            model(inputs, training=True)
            seen += size
    finally:
        for layer, momentum in zip(layers, momenta, strict=True):
            layer.momentum = momentum
        # restores the seeds of dropout, with which training continues
        for variable, value in zip(others, saved, strict=True):
            variable.assign(value)


def trainable_normalisations(model: keras.Model) -> list[Any]:
    """Return the trainable BatchNormalization layers of `model`."""
    return [
        layer
        for layer in model._flatten_layers()
        if isinstance(layer, keras.layers.BatchNormalization) and layer.trainable
    ]


def _batches(data: Any) -> Iterator[Any]:
    if hasattr(data, "shape"):
        batches = (data[i : i + BATCH] for i in range(0, len(data), BATCH))
    elif _is_py_dataset(data):  # iterating over a PyDataset may not end
        batches = (data[i] for i in range(data.num_batches))
    else:
        batches = data
    return (batch[0] if isinstance(batch, tuple) else batch for batch in batches)


def _is_py_dataset(data: Any) -> bool:
    return isinstance(data, keras.utils.PyDataset)
