"""Rebuild a functional model from its graph, with some layers replaced and some inserted."""

import itertools
from collections.abc import Callable, Mapping
from typing import Any

import keras

from .residual import graph_of
from .tensors import Tensor, tree


def rebuild(
    model: keras.Model,
    replaced: Mapping[int, Callable[[Any], keras.Operation]],
    inserted: Mapping[tuple[int, int], Mapping[int, keras.layers.Layer]],
    copy: bool,
) -> keras.Model:
    """Return `model` with some layers replaced or inserted, and with the same weights and inference.

    Args:
        model: a functional model.
        replaced: {id(operation): function from that operation, or its copy, to its replacement}. A layer of the
            operation's own class gets the operation's weights.
        inserted: {(id(network), call number): {index of an input: layer to put before it}}.
        copy: copy the layers and weights instead of sharing them with `model`.
    """
    made: dict[int, Any] = {}
    moved: list[tuple[Any, Any]] = []

    def make(operation: keras.Operation) -> keras.Operation:
        if graph_of(operation) is not None:
            return clone(graph_of(operation), operation.name)
        is_layer = isinstance(operation, keras.layers.Layer)
        fresh = type(operation).from_config(operation.get_config()) if copy and is_layer else operation
        final = replaced[id(operation)](fresh) if id(operation) in replaced else fresh
        target = final if type(final) is type(operation) else fresh
        if target is not operation:
            moved.append((operation, target))
        return final

    def clone(network: keras.Model, name: str) -> keras.Model:
        numbers = itertools.count()

        def call(operation: keras.Operation, *args: Any, **kwargs: Any) -> Any:
            args, kwargs = _with_inserted(inserted.get((id(network), next(numbers)), {}), args, kwargs)
            if id(operation) not in made:
                made[id(operation)] = make(operation)
            return made[id(operation)](*args, **kwargs)

        cloned = keras.models.clone_model(network, clone_function=lambda operation: operation, call_function=call)
        cloned.name = name
        return cloned

    rebuilt = clone(model, model.name)
    for old, new in moved:  # the call above builds the new layers
        if copy:
            new.set_weights(old.get_weights())
        else:
            _share_variables(old, new)
        for layer in new._flatten_layers():
            if isinstance(layer, keras.layers.Normalization):
                layer.finalize_state()  # the layer computes with a constant made from its weights
    return rebuilt


def _with_inserted(layers: Mapping[int, keras.layers.Layer], args: Any, kwargs: Any) -> tuple[Any, Any]:
    """Return the arguments of a call with `layers[i]` applied to their i-th tensor."""
    numbers = itertools.count()

    def insert(x: Tensor) -> Any:
        layer = layers.get(next(numbers)) if isinstance(x, keras.KerasTensor) else None
        return x if layer is None else layer(x)

    return tree.map_structure(insert, (args, kwargs))


def _share_variables(old: keras.layers.Layer, new: keras.layers.Layer) -> None:
    """Make `new`, a layer built like `old`, use the weights of `old`."""
    for source, target in zip(old._flatten_layers(), new._flatten_layers(), strict=True):
        if source is target:
            continue
        target._tracker.unlock()
        for name, variable in list(vars(source).items()):
            if isinstance(variable, keras.Variable):
                target._untrack_variable(getattr(target, name))
                setattr(target, name, variable)
        target._tracker.lock()
    if [id(weight) for weight in new.weights] != [id(weight) for weight in old.weights]:
        raise ValueError(
            f"{type(old).__name__} {old.name!r} does not hold its weights as attributes, so its noise cannot be set in "
            "a model that shares them; use copy=True."
        )
