"""Call a layer with other values instead of its variables."""

from collections.abc import Mapping
from typing import Any

import keras

from .tensors import Tensor, ops


def call_with(
    layer: keras.layers.Layer, values: Mapping[int, Tensor], *args: Any, **kwargs: Any
) -> tuple[Any, list[Tensor], list[Tensor]]:
    """Call `layer` with `values` {id(variable): tensor} instead of its variables; gradients flow to the tensors.

    No variable is assigned, so the call works inside a `cond` on every backend.

    Returns:
        The outputs, the new value of each of `layer.variables`, and the losses that the call added.
    """
    mapping = [(v, values.get(id(v), ops.convert_to_tensor(v))) for v in layer.variables]
    with keras.StatelessScope(state_mapping=mapping, collect_losses=True) as scope:
        outputs = layer(*args, **kwargs)
    return outputs, [scope.get_current_value(v) for v in layer.variables], list(scope.losses)


def call_assigning(
    layer: keras.layers.Layer, values: Mapping[int, Tensor], *args: Any, **kwargs: Any
) -> tuple[Any, list[Tensor]]:
    """Run `call_with`, assign the changed statistics and seeds, and return the outputs and the added losses."""
    outputs, updates, losses = call_with(layer, values, *args, **kwargs)
    for variable, update in zip(layer.variables, updates, strict=True):
        if not variable.trainable and id(variable) not in values:
            variable.assign(update)
    return outputs, losses
