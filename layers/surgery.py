"""Add noise to an existing model, with the same weights and bit-identical inference."""

import warnings
from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

import keras

from .drop_connect import DropConnect
from .noise import (
    RATE_NAMES,
    NoiseWrapper,
    check_rate,
    drops_branches,
    is_whole_branch,
    noise_layers,
    noise_rate,
)
from .rebuild import rebuild
from .residual import Branch, calls, graph_of, residual_branches
from .stochastic_depth import StochasticDepth, linear_rates

ACTIVATION_DROPOUT = (
    keras.layers.Dropout,
    keras.layers.SpatialDropout1D,
    keras.layers.SpatialDropout2D,
    keras.layers.SpatialDropout3D,
    keras.layers.AlphaDropout,
    keras.layers.GaussianDropout,
)


def add_stochastic_depth(model: keras.Model, rate: float, *, copy: bool = False) -> keras.Model:
    """Return a model whose residual branches are dropped at rates that rise linearly to `rate` at the last branch.

    Branches are found in the graph, also in nested models and with a projection on the shortcut. If a branch already
    ends in a layer that drops it (EfficientNet, ConvNeXt with drop_path_rate), this layer's rate is set. `model` keeps
    its rates. Compile the returned model. A warning reports several branches that share one dropping layer, which has a
    single rate.

    Args:
        model: a functional or built Sequential model.
        rate: probability of dropping the last branch, in [0, 1).
        copy: copy the layers and weights, instead of sharing them with `model`.

    Raises:
        ValueError: If `rate` is outside [0, 1), the model has no branches, or existing noise has no rate in its
            configuration.
        TypeError: If the model has no graph.

    Example:
        `model = add_stochastic_depth(keras.applications.ResNet50V2(), 0.2)`
    """
    rate = check_rate(rate, "add_stochastic_depth")
    model = _functional(model, "add_stochastic_depth")
    sums = list(_sums(model, set()))
    if not sums:
        raise ValueError(
            f"add_stochastic_depth: model {model.name!r} has no residual branches (no sum of a tensor and a function "
            "of it), so there is nothing to drop; use set_dropout or add_drop_connect."
        )
    replaced, inserted, names = {}, {}, _Names(model)
    for (network, branches), branch_rate in zip(sums, linear_rates(len(sums), rate), strict=True):
        for branch in branches:
            for dropper in branch.droppers:
                if id(dropper) in replaced:
                    warnings.warn(
                        f"add_stochastic_depth: {dropper.name!r} drops several branches, which all get the last "
                        f"branch's rate. Use a separate layer for each branch to get rising rates.",
                        stacklevel=2,
                    )
                replaced[id(dropper)] = partial(_with_rate, rate=branch_rate)
            if not branch.droppers:
                name = names.new(f"{calls(network)[branch.call].operation.name}_stochastic_depth")
                layer = StochasticDepth(branch_rate, name=name)
                inserted.setdefault((id(network), branch.call), {})[branch.index] = layer
    return rebuild(model, replaced, inserted, copy)


def add_drop_connect(
    model: keras.Model, rate: float, *, where: Callable[[keras.layers.Layer], bool] | None = None, copy: bool = False
) -> keras.Model:
    """Return a model in which selected layers, every Dense by default, are wrapped in DropConnect.

    An existing DropConnect gets the new rate. A wrapper is named `…_drop_connect`. At an output of the model, it has
    the name of the wrapped layer, so that losses by name still work.

    Args:
        model: a functional or built Sequential model.
        rate: probability of dropping a weight, in [0, 1).
        where: function that returns whether a layer is wrapped; default: every Dense.
        copy: copy the layers and weights, instead of sharing them with `model`.

    Raises:
        ValueError: If `rate` is outside [0, 1), or no layer is selected.
        TypeError: If the model has no graph.

    Example:
        `add_drop_connect(model, 0.5, where=lambda layer: layer.name == "predictions")`
    """
    rate = check_rate(rate, "add_drop_connect")
    model = _functional(model, "add_drop_connect")
    where = where or (lambda layer: isinstance(layer, keras.layers.Dense))
    replaced, names = {}, _Names(model)
    heads = [x._keras_history.operation for x in model.outputs]
    for _, _, layer in _operations(model):
        if isinstance(layer, DropConnect) and where(layer.layer):
            replaced[id(layer)] = partial(_with_rate, rate=rate)
        elif isinstance(layer, keras.layers.Layer) and id(layer) not in replaced and where(layer):
            name = layer.name if layer in heads else names.new(f"{layer.name}_drop_connect")
            replaced[id(layer)] = partial(DropConnect, rate=rate, name=name)
    if not replaced:
        raise ValueError(
            f"add_drop_connect: no layer of model {model.name!r} is selected; pass a `where` that "
            f"returns True for at least one layer."
        )
    return rebuild(model, replaced, {}, copy)


def set_dropout(model: keras.Model, rate: float, *, copy: bool = False) -> keras.Model:
    """Return a model whose dropout has this rate; without dropout, one is inserted before the last Dense layer.

    The rate is set in every Dropout layer and in recurrent and attention layers (`dropout`, `recurrent_dropout`), also
    inside other layers. Dropout of whole residual branches, which `add_stochastic_depth` sets, does not change. A new
    Dropout is never inserted into a residual branch. A warning reports dropout that keeps its rate because the layer's
    configuration does not contain the rate.

    Args:
        model: a functional or built Sequential model.
        rate: probability of dropping, in [0, 1).
        copy: copy the layers and weights, instead of sharing them with `model`.

    Raises:
        ValueError: If `rate` is outside [0, 1), or the model has neither Dropout nor a Dense outside residual branches.
        TypeError: If the model has no graph.

    Example:
        `model = set_dropout(keras.applications.MobileNetV2(), 0.5)`
    """
    rate = check_rate(rate, "set_dropout")
    model = _functional(model, "set_dropout")
    droppers = [operation for _, _, operation in _operations(model) if _dropout_in(operation)]
    if droppers:
        return rebuild(model, {id(layer): partial(_with_dropout, rate=rate) for layer in droppers}, {}, copy)
    off_branches = _operations(model, off_branches=True)
    dense = [place for place in off_branches if isinstance(_wrapped(place[2]), keras.layers.Dense)]
    if not dense:
        raise ValueError(
            f"set_dropout: model {model.name!r} has no Dropout, and no Dense layer outside residual branches before "
            f"which to insert one; add Dropout in the model's code."
        )
    network, number, last = dense[-1]
    dropout = keras.layers.Dropout(rate, name=_Names(model).new(f"{_wrapped(last).name}_dropout"))
    return rebuild(model, {}, {(id(network), number): {0: dropout}}, copy)


def _functional(model: keras.Model, caller: str) -> keras.Model:
    if graph_of(model) is None:
        raise TypeError(
            f"{caller} needs a Functional or a built Sequential model, got {type(model).__name__}. In a subclassed "
            f"model, add StochasticDepth, DropConnect and Dropout in its code."
        )
    if isinstance(model, keras.Sequential):
        return keras.Model(model.inputs[0], model.outputs[0], name=model.name)
    return model


def _operations(network: keras.Model, off_branches: bool = False) -> Iterator[tuple[keras.Model, int, keras.Operation]]:
    """Yield (network, call number, operation) of `network` and its nested networks, in graph order."""
    skipped = frozenset().union(*(branch.own for branch in residual_branches(network))) if off_branches else ()
    for number, call in enumerate(calls(network)):
        if number in skipped:
            continue
        inner = graph_of(call.operation)
        if inner is None:
            yield network, number, call.operation
        else:
            yield from _operations(inner, off_branches)


def _sums(network: keras.Model, seen: set[int]) -> Iterator[tuple[keras.Model, list[Branch]]]:
    """Yield (network, branches) for every residual sum of `network` and its nested networks, each network once."""
    if id(network) in seen:
        return
    seen.add(id(network))
    found: dict[int, list[Branch]] = {}
    for branch in residual_branches(network):
        found.setdefault(branch.call, []).append(branch)
    for number, call in enumerate(calls(network)):
        inner = graph_of(call.operation)
        if number in found:
            yield network, found[number]
        elif inner is not None:
            yield from _sums(inner, seen)


class _Names:
    """Generate names that no operation of a model has."""

    def __init__(self, model: keras.Model):
        self.taken = {operation.name for _, _, operation in _operations(model)}

    def new(self, name: str) -> str:
        number, free = 0, name
        while free in self.taken:
            number += 1
            free = f"{name}_{number}"
        self.taken.add(free)
        return free


def _wrapped(layer: keras.Operation) -> keras.Operation:
    return layer.layer if isinstance(layer, DropConnect) else layer


def _with_rate(layer: keras.layers.Layer, rate: float) -> keras.layers.Layer:
    """Return a copy of `layer` with another rate; a wrapped layer is shared."""
    config = layer.get_config()
    names = [name for name in RATE_NAMES if name in config]
    if not names:
        raise ValueError(
            f"The rate of {type(layer).__name__} {layer.name!r} cannot be set: its configuration has "
            f"{sorted(config)}, but none of {RATE_NAMES}. Set the rate where the layer is created."
        )
    config[names[0]] = rate
    if isinstance(layer, NoiseWrapper):
        del config["layer"]
        wrapper: Any = type(layer)  # each subclass has its own constructor
        return wrapper(layer.layer, config.pop("rate"), **config)
    return type(layer).from_config(config)


def _dropout_in(operation: keras.Operation) -> list:
    """Return the layers in `operation`, including itself, that drop activations."""
    if isinstance(operation, ACTIVATION_DROPOUT):
        return [] if drops_branches(operation) else [operation]
    inside = noise_layers(operation) if isinstance(operation, keras.layers.Layer) else []
    kinds = (*ACTIVATION_DROPOUT, keras.layers.RNN, keras.layers.Attention)
    return [layer for layer in inside if isinstance(layer, kinds) and not drops_branches(layer)]


def _with_dropout(layer: keras.layers.Layer, rate: float) -> keras.layers.Layer:
    """Return a copy of `layer` with `rate` for all dropout in its configuration."""
    config = _retuned({"class_name": type(layer).__name__, "config": layer.get_config()}, rate)["config"]
    fresh = type(layer).from_config(config)
    missed = [inner.name for inner in _dropout_in(fresh) if noise_rate(inner) != rate]
    if missed:
        warnings.warn(
            f"set_dropout: {missed} in {type(layer).__name__} {layer.name!r} keep their rate, which is not in the "
            "layer's configuration. Set it where the layer is created.",
            stacklevel=2,
        )
    return fresh


def _retuned(config: Any, rate: float) -> Any:
    """Return a serialised layer, or a part of one, with `rate` for every rate of dropout above 0."""
    if isinstance(config, (list, tuple)):
        return type(config)(_retuned(part, rate) for part in config)
    if not isinstance(config, dict):
        return config
    retuned = {key: _retuned(value, rate) for key, value in config.items()}
    for key, value in config.items():
        if "dropout" in key and isinstance(value, float) and value > 0:
            retuned[key] = rate
    is_dropout = config.get("class_name") in {kind.__name__ for kind in ACTIVATION_DROPOUT}
    if is_dropout and not is_whole_branch(config["config"].get("noise_shape")):
        retuned["config"] = {**retuned["config"], "rate": rate}
    return retuned
