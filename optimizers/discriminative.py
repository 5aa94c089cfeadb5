"""Discriminative finetuning: a learning rate for every depth of the network."""

import math
import re
from collections import defaultdict

import keras

from .multi_tensor import MultiTensorOptimizer
from .schedules import current_rate
from .wrapper import Wrapper


@keras.saving.register_keras_serializable("optimizers")
class Discriminative(Wrapper):
    """Any Keras optimizer with a learning rate of its own for each variable: multiplier × the optimizer's rate.

    x ← x − m α (u(g) + λ x): the rate itself is multiplied, weight decay's share included, and not the gradient, which
    Adam would undo. Everything else (schedule, clipping, accumulation, moving averages, `ReduceLROnPlateau`) is the
    wrapped optimizer's, which belongs to this object from now on. A `LossScaleOptimizer` may be inside or around.
    Source: Howard and Ruder, ULMFiT, 2018; Clark et al., ELECTRA, 2020.

    Args:
        optimizer: a `keras.optimizers.Optimizer` that has not been built.
        multipliers: regular expression → multiplier ≥ 0, tried in order on `variable.path` (`re.search`); the first
            that matches counts. See `layerwise_decay` for multipliers by depth.

    Raises: ValueError for an optimizer whose rule cannot be told apart by variable (Keras's `MultiOptimizer`, another
        `Discriminative`); when the optimizer is built, for a pattern that decides about no variable, and for a variable
        that no pattern matches (end with `".*": 1.0` for a default).

    Example: `Discriminative(optimizers.Adam(1e-3), {"head/": 1.0, ".*": 0.1})`
    """

    def __init__(self, optimizer, multipliers, *, name=None):
        optimizer = keras.optimizers.get(optimizer)
        if optimizer.built:
            raise ValueError("Discriminative needs an optimizer that has not been built: make a new one.")
        for pattern, multiplier in multipliers.items():
            if not 0 <= multiplier < math.inf:
                raise ValueError(f"Multipliers must not be negative. Got {multiplier} for {pattern!r}.")
        super().__init__(optimizer, name)
        self.multipliers = dict(multipliers)
        self._rule = _innermost(optimizer)
        self._decay = self._rule._apply_weight_decay
        self._rule._get_current_learning_rate = lambda rule=self._rule: current_rate(rule)
        if not isinstance(self._rule, MultiTensorOptimizer):
            _intercept(self._rule, self._multiplier)
            self._rule._apply_weight_decay = self._decay_by_multiplier

    def build(self, variables):
        if self.built or not variables:  # none: Keras's loader of .h5 files builds every optimizer without variables
            return
        self._assigned = tuple(_assign(self.multipliers, [variable.path for variable in variables]))
        if isinstance(self._rule, MultiTensorOptimizer):
            self._rule.multipliers = self._assigned
        super().build(variables)

    def _multiplier(self, variable) -> float:
        return self._assigned[self._rule._get_variable_index(variable)]

    def _decay_by_multiplier(self, variables):
        decay = self._rule.weight_decay
        if not decay:
            return
        groups = defaultdict(list)
        for variable in variables:
            groups[self._multiplier(variable)].append(variable)
        for multiplier, members in groups.items():
            self._rule.weight_decay = decay * multiplier
            self._decay(members)
        self._rule.weight_decay = decay

    def get_config(self):
        inner = keras.saving.serialize_keras_object(self.optimizer)
        return {"name": self.name, "optimizer": inner, "multipliers": self.multipliers}

    @classmethod
    def from_config(cls, config, custom_objects=None):
        inner = keras.saving.deserialize_keras_object(config["optimizer"], custom_objects=custom_objects)
        return cls(inner, config["multipliers"], name=config["name"])


def _innermost(optimizer):
    """The optimizer whose `update_step` changes the variables, inside of a LossScaleOptimizer or not."""
    while isinstance(optimizer, keras.optimizers.LossScaleOptimizer):
        optimizer = optimizer.inner_optimizer
    delegates = type(optimizer).update_step is keras.optimizers.Optimizer.update_step
    if delegates and not isinstance(optimizer, MultiTensorOptimizer):
        raise ValueError(
            f"{type(optimizer).__name__} has no update_step of its own, so Discriminative cannot set a rate for each "
            "variable. Wrap the optimizer inside of it."
        )
    return optimizer


def _intercept(optimizer, multiplier):
    """One update step as ever, in which every variable sees its own rate."""
    update = optimizer.update_step

    def update_step(gradient, variable, learning_rate):
        m = multiplier(variable)
        update(gradient, variable, learning_rate if m == 1 else learning_rate * m)

    optimizer.update_step = update_step
    if hasattr(optimizer, "_parallel_update_step"):  # of torch: all variables at one rate; take Keras's loop instead
        parallel = next(cls for cls in type(optimizer).__mro__ if "_backend_update_step" in vars(cls))
        optimizer._backend_update_step = super(parallel, optimizer)._backend_update_step


def layerwise_decay(model, decay: float) -> dict[str, float]:
    """Multipliers for `Discriminative`: `decay`ᵈ, d the number of stages between a variable and the model's end.

    A stage is a run of layers with outputs of one height and width; everything after the last feature map is stage 0,
    the head. Layers without a map of their own before that, such as squeeze-and-excitation's on 1 × 1 maps, belong to
    the next map. Where a model has no feature maps each layer with weights is a stage. Variables of layers nested in
    the model count by the layer that holds them inside.

    Args:
        model: a built `keras.Model`, functional or Sequential, with an input of fixed height and width.
        decay: in (0, 1]; 0.3 to 0.8 for pretrained convolutional networks.

    Raises: ValueError for another decay, maps of unknown size, or variables of one path that need two multipliers.

    Example: `Discriminative(optimizers.Adam(1e-3), layerwise_decay(model, 0.5))`
    """
    if not 0 < decay <= 1:
        raise ValueError(f"decay must be in (0, 1]: the rate falls towards the input. Got {decay}.")
    layers = [layer for layer in _leaves(model) if layer.trainable_variables]
    first = _is_channels_first(model)
    maps = [_map_size(layer, first) for layer in layers]
    by_map = any(maps)
    depth, below, multipliers = 0, None, {}
    for layer, size in zip(reversed(layers), reversed(maps), strict=True):
        size = (size or below) if by_map else layer
        if multipliers and size != below:
            depth += 1
        below = size
        for variable in layer.trainable_variables:
            pattern = f"(^|/){re.escape(variable.path.removeprefix(f'{model.name}/'))}$"
            if multipliers.setdefault(pattern, decay**depth) != decay**depth:
                raise ValueError(
                    f"Two variables at different depths have the path {variable.path!r}, by which Discriminative knows "
                    "them: give the layers of nested models different names."
                )
    return multipliers


def _leaves(model):
    for layer in model.layers:
        if isinstance(layer, keras.Model):
            yield from _leaves(layer)
        else:
            yield layer


def _is_channels_first(model) -> bool:
    """By the first layer that states it: the model may have been made under another default."""
    stated = (layer.data_format for layer in _leaves(model) if hasattr(layer, "data_format"))
    return next(stated, keras.config.image_data_format()) == "channels_first"


def _map_size(layer, first: bool):
    """(height, width) of the layer's output, or None where it is no feature map or one of 1 × 1."""
    output = getattr(layer, "output", None)
    if len(getattr(output, "shape", ())) != 4:
        return None
    size = tuple(output.shape[2:4] if first else output.shape[1:3])
    if None in size:
        raise ValueError(
            f"The feature map of layer {layer.name!r} has the size {size}: build the model with an input of fixed "
            "height and width to tell its stages apart."
        )
    return None if size == (1, 1) else size


def _assign(multipliers, paths) -> list[float]:
    """The multiplier of each path."""
    compiled = [(pattern, re.compile(pattern)) for pattern in multipliers]
    chosen = [next((pattern for pattern, regex in compiled if regex.search(path)), None) for path in paths]
    missing = [path for path, pattern in zip(paths, chosen, strict=True) if pattern is None]
    if missing:
        raise ValueError(
            f"No pattern of {list(multipliers)} matches {len(missing)} of {len(paths)} trainable variables: "
            f'{", ".join(missing[:5])}{" …" if len(missing) > 5 else ""}. End with ".*": 1.0 for a default.'
        )
    for pattern, regex in compiled:
        if pattern not in chosen:
            late = any(regex.search(path) for path in paths)
            why = (
                "comes too late: earlier patterns match all its variables" if late else "matches no trainable variable"
            )
            raise ValueError(f"The pattern {pattern!r} {why}. Paths look like {', '.join(paths[:3])}.")
    return [multipliers[pattern] for pattern in chosen]
