"""Which layers of a network a recipe trains, and at which learning rates."""

import re
from collections.abc import Sequence

import keras

from recipes.planning.recipe import Recipe


def unfreeze(model: keras.Model, network: keras.Model, recipe: Recipe, stage_tensors: Sequence) -> int:
    """Make trainable what the recipe trains, whatever was trainable before; return how many of the network's layers
    that is.

    Batch normalization, its statistics included, stays as it is wherever the weights are pretrained.
    """
    _set_trainable(network, recipe.unfreeze != 0)
    if recipe.unfreeze > 0:
        kept = max(0, len(stage_tensors) - recipe.unfreeze)
        frozen = layers_before(network, stage_tensors[kept - 1]) if kept else set()
        for layer in network.layers:
            _set_trainable(layer, layer not in frozen)
    if recipe.warm_start and network.trainable:
        for layer in model._flatten_layers():
            if isinstance(layer, keras.layers.BatchNormalization):
                layer.trainable = False
    return sum(bool(layer.trainable_weights) for layer in network.layers)


def _set_trainable(layer: keras.layers.Layer, value: bool) -> None:
    """Set it of `layer` and all within: TensorFlow skips a value that the outermost layer has already."""
    for each in layer._flatten_layers():
        each.trainable = value


def stage_rates(
    model: keras.Model, network: keras.Model, stage_tensors: Sequence, decay: float
) -> dict[str, float] | None:
    """Multipliers of the learning rate: `decay` to the power of the number of stages above the variable's layer."""
    if decay == 1.0:
        return None
    trained, rates, seen = {id(v) for v in model.trainable_variables}, {}, set()
    for above, tensor in zip(reversed(range(len(stage_tensors))), stage_tensors, strict=True):
        for layer in layers_before(network, tensor) - seen:
            seen.add(layer)
            rates |= {f"(^|/){re.escape(v.path)}$": decay**above for v in layer.trainable_variables if id(v) in trained}
    return {**rates, ".*": 1.0}


def layers_before(network: keras.Model, tensor) -> set:
    """The layers of `network` that `tensor` depends on."""
    return set(keras.Model(network.inputs, tensor).layers)
