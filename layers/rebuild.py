"""Run a functional model's graph anew, with some layers replaced and some inserted."""

import itertools

import keras

from .residual import graph_of


def rebuild(model, replaced, inserted, copy) -> keras.Model:
    """`model` with other layers in some places; inference and weights as they were, shared with `model` or copied.

    replaced: {id(operation): function from that operation, or its copy, to what takes its place}. A layer of the
    operation's own class gets the operation's weights.
    inserted: {(id(network), call number): {index of an input: layer to put before it}}.
    """
    made, moved = {}, []

    def make(operation):
        if graph_of(operation) is not None:
            return clone(graph_of(operation), operation.name)
        is_layer = isinstance(operation, keras.layers.Layer)
        fresh = type(operation).from_config(operation.get_config()) if copy and is_layer else operation
        final = replaced[id(operation)](fresh) if id(operation) in replaced else fresh
        target = final if type(final) is type(operation) else fresh
        if target is not operation:
            moved.append((operation, target))
        return final

    def clone(network, name):
        numbers = itertools.count()

        def call(operation, *args, **kwargs):
            args, kwargs = _with_inserted(inserted.get((id(network), next(numbers)), {}), args, kwargs)
            if id(operation) not in made:
                made[id(operation)] = make(operation)
            return made[id(operation)](*args, **kwargs)

        cloned = keras.models.clone_model(network, clone_function=lambda operation: operation, call_function=call)
        cloned.name = name
        return cloned

    rebuilt = clone(model, model.name)
    for old, new in moved:  # only now are the new layers built
        if copy:
            new.set_weights(old.get_weights())
        else:
            _share_variables(old, new)
        for layer in new._flatten_layers():
            if isinstance(layer, keras.layers.Normalization):
                layer.finalize_state()  # it computes with a constant made of its weights
    return rebuilt


def _with_inserted(layers, args, kwargs):
    """The arguments of a call with `layers[i]` applied to their tensor number i."""
    numbers = itertools.count()

    def insert(x):
        layer = layers.get(next(numbers)) if isinstance(x, keras.KerasTensor) else None
        return x if layer is None else layer(x)

    return keras.tree.map_structure(insert, (args, kwargs))


def _share_variables(old, new):
    """Let `new`, a layer built like `old`, use `old`'s weights."""
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
