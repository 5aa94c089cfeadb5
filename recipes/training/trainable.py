"""Select the layers that a recipe trains, and their learning rates."""

import re
from collections.abc import Sequence
from typing import Any

import keras

from recipes.planning.recipe import Recipe


def unfreeze(model: keras.Model, network: keras.Model, recipe: Recipe, stage_tensors: Sequence[Any]) -> int:
    """Make the recipe's layers trainable, and return the number of trainable layers of the network.

    If the weights are pretrained, batch normalization is frozen, including its statistics.

    Args:
        model: The classifier.
        network: The backbone of the classifier.
        recipe: How to train.
        stage_tensors: The output of each stage of the network, shallow to deep.
    """
    _set_trainable(network, recipe.unfreeze != 0)
    if recipe.unfreeze > 0:
        stages = max(0, len(stage_tensors) - recipe.unfreeze)
        frozen = layers_before(network, stage_tensors[stages - 1]) if stages else set()
        for layer in network.layers:
            _set_trainable(layer, layer not in frozen)
    if recipe.warm_start and network.trainable:
        for layer in model._flatten_layers():
            if isinstance(layer, keras.layers.BatchNormalization):
                layer.trainable = False
    return sum(bool(layer.trainable_weights) for layer in network.layers)


def _set_trainable(layer: keras.layers.Layer, value: bool) -> None:
    """Set `trainable` of a layer and its inner layers, which Keras skips if the outer layer already has the value."""
    for each in layer._flatten_layers():
        each.trainable = value


def stage_rates(
    model: keras.Model, network: keras.Model, stage_tensors: Sequence[Any], decay: float
) -> dict[str, float] | None:
    """Return learning-rate multipliers: `decay` to the power of the number of stages above the variable."""
    if decay == 1.0:
        return None
    trained, rates, seen = {id(v) for v in model.trainable_variables}, {}, set()
    for above, tensor in zip(reversed(range(len(stage_tensors))), stage_tensors, strict=True):
        for layer in layers_before(network, tensor) - seen:
            seen.add(layer)
            rates |= {f"(^|/){re.escape(v.path)}$": decay**above for v in layer.trainable_variables if id(v) in trained}
    return {**rates, ".*": 1.0}


def layers_before(network: keras.Model, tensor: Any) -> set[keras.layers.Layer]:
    """Return the layers of `network` that `tensor` depends on."""
    return set(keras.Model(network.inputs, tensor).layers)
