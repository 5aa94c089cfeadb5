"""Put noise into a model that exists: same weights, bit-identical inference, noisier training."""

import itertools
from functools import partial

import keras

from layers.drop_connect import DropConnect
from layers.noise import BUILT_IN, NoiseWrapper, check_rate, drops_branches
from layers.residual import calls, graph_of, residual_branches
from layers.stochastic_depth import StochasticDepth, linear_rates


def add_stochastic_depth(model, rate, *, copy=False) -> keras.Model:
    """A model whose residual branches are dropped at rates that rise linearly to `rate` at the last one.

    Branches are found from the graph, also in nested models, and with a projection on the shortcut. Where the branch
    already ends in such noise (EfficientNet, ConvNeXt with drop_path_rate) its rate is set instead.
    `copy=False`: the layers, and so the weights, are shared with `model`; `copy=True`: independent ones of equal value.
    `model` keeps its rates. Compile the result.
    Raises ValueError for a bad rate, TypeError for a model without a graph, ValueError for one without branches.

    Example: `model = add_stochastic_depth(keras.applications.ResNet50V2(), 0.2)`
    """
    check_rate(rate, "add_stochastic_depth")
    model = _functional(model, "add_stochastic_depth")
    places = list(_places(model))
    if not places:
        raise ValueError(
            f"add_stochastic_depth: model {model.name!r} has no residual branches (no sum of a tensor and a function "
            "of it), so there is nothing to drop; see set_dropout and add_drop_connect."
        )
    replaced, noise = {}, {}
    for (network, branch), branch_rate in zip(places, linear_rates(len(places), rate), strict=True):
        if drops_branches(branch.producer):
            replaced[id(branch.producer)] = partial(_with_rate, rate=branch_rate)
        else:
            name = f"{calls(network)[branch.call][0].name}_stochastic_depth"
            noise[id(network), branch.call] = branch.index, StochasticDepth(branch_rate, name=name)
    return _rebuild(model, replaced, noise, copy)


def add_drop_connect(model, rate, *, where=None, copy=False) -> keras.Model:
    """A model in which the layers that `where(layer)` selects, every Dense by default, are wrapped in DropConnect.

    Existing DropConnect gets the new rate. `copy` as in `add_stochastic_depth`.
    Raises ValueError for a bad rate and where no layer is selected, TypeError for a model without a graph.

    Example: `add_drop_connect(model, 0.5, where=lambda layer: layer.name == "predictions")`
    """
    check_rate(rate, "add_drop_connect")
    model = _functional(model, "add_drop_connect")
    where = where or (lambda layer: isinstance(layer, keras.layers.Dense))
    replaced = {}
    for _, _, layer in _operations(model):
        if isinstance(layer, DropConnect) and where(layer.layer):
            replaced[id(layer)] = partial(_with_rate, rate=rate)
        elif isinstance(layer, keras.layers.Layer) and where(layer):
            replaced[id(layer)] = partial(_in_drop_connect, rate=rate)
    if not replaced:
        raise ValueError(f"add_drop_connect: no layer of model {model.name!r} is selected; `where` chooses others.")
    return _rebuild(model, replaced, {}, copy)


def set_dropout(model, rate, *, copy=False) -> keras.Model:
    """A model whose dropout layers drop at `rate`; if it has none, one is put before its last Dense layer.

    Dropout of whole residual branches is `add_stochastic_depth`'s and stays. `copy` as in `add_stochastic_depth`.
    Raises ValueError for a bad rate and a model with neither Dropout nor Dense, TypeError for one without a graph.

    Example: `model = set_dropout(keras.applications.MobileNetV2(), 0.5)`
    """
    check_rate(rate, "set_dropout")
    model = _functional(model, "set_dropout")
    operations = list(_operations(model))
    replaced = {
        id(layer): partial(_with_rate, rate=rate)
        for _, _, layer in operations
        if isinstance(layer, BUILT_IN) and hasattr(layer, "rate") and not drops_branches(layer)
    }
    if replaced:
        return _rebuild(model, replaced, {}, copy)
    dense = [place for place in operations if isinstance(place[2], keras.layers.Dense)]
    if not dense:
        raise ValueError(
            f"set_dropout: model {model.name!r} has neither a Dropout to set nor a Dense to put one before."
        )
    network, number, last = dense[-1]
    dropout = keras.layers.Dropout(rate, name=f"{last.name}_dropout")
    return _rebuild(model, {}, {(id(network), number): (0, dropout)}, copy)


def _functional(model, caller):
    if graph_of(model) is None:
        raise TypeError(
            f"{caller} needs a model with a graph, Functional or a built Sequential; got {type(model).__name__}. In a "
            "subclassed model put StochasticDepth, DropConnect and Dropout where they belong."
        )
    if isinstance(model, keras.Sequential):
        return keras.Model(model.inputs[0], model.outputs[0], name=model.name)
    return model


def _operations(network):
    """(network, call number, operation) of `network` and the networks nested in it, in the order of the graph."""
    for number, (operation, _, _) in enumerate(calls(network)):
        if graph_of(operation) is None:
            yield network, number, operation
        else:
            yield from _operations(graph_of(operation))


def _places(network):
    """(network, branch) of every residual branch of `network` and of the networks nested in it, in the same order."""
    branches = {branch.call: branch for branch in residual_branches(network)}
    for number, (operation, _, _) in enumerate(calls(network)):
        if number in branches:
            yield network, branches[number]
        elif graph_of(operation) is not None:
            yield from _places(graph_of(operation))


def _with_rate(layer, rate):
    """A layer like `layer` at another rate; what it wraps is shared."""
    config = layer.get_config()
    config["drop_path_rate" if "drop_path_rate" in config else "rate"] = rate
    if isinstance(layer, NoiseWrapper):
        del config["layer"]
        return type(layer)(layer.layer, config.pop("rate"), **config)
    return type(layer).from_config(config)


def _in_drop_connect(layer, rate):
    return DropConnect(layer, rate, name=f"{layer.name}_drop_connect")


def _rebuild(model, replaced, noise, copy):
    """Run `model`'s graph anew.

    replaced: {id(operation): function from that operation, or its copy, to what takes its place};
    noise: {(id(network), call number): (index of an input, layer to put before it)}.
    """
    made, copies = {}, []

    def make(operation):
        if graph_of(operation) is not None:
            return clone(graph_of(operation), operation.name)
        fresh = operation
        if copy and isinstance(operation, keras.layers.Layer):
            fresh = type(operation).from_config(operation.get_config())
            copies.append((operation, fresh))
        return replaced[id(operation)](fresh) if id(operation) in replaced else fresh

    def clone(network, name):
        numbers = itertools.count()

        def call(operation, *args, **kwargs):
            number = next(numbers)
            if (id(network), number) in noise:
                args, kwargs = _before_input(*noise[id(network), number], args, kwargs)
            if id(operation) not in made:
                made[id(operation)] = make(operation)
            return made[id(operation)](*args, **kwargs)

        cloned = keras.models.clone_model(network, clone_function=lambda operation: operation, call_function=call)
        cloned.name = name
        return cloned

    rebuilt = clone(model, model.name)
    for old, new in copies:
        new.set_weights(old.get_weights())
    return rebuilt


def _before_input(index, layer, args, kwargs):
    """The arguments of a call with `layer` applied to their tensor number `index`."""
    numbers = itertools.count()
    return keras.tree.map_structure(
        lambda x: layer(x) if isinstance(x, keras.KerasTensor) and next(numbers) == index else x, (args, kwargs)
    )
