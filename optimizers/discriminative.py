"""Finetune with one learning rate for each depth of the network (discriminative finetuning)."""

import math
import re
from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, Self

import keras

from .multi_tensor import MultiTensorOptimizer
from .schedules import current_rate
from .tensors import Tensor
from .wrapper import Wrapper


@keras.saving.register_keras_serializable("optimizers")
class Discriminative(Wrapper):
    """Give each variable of any Keras optimizer its own learning rate: multiplier × the optimizer's rate.

    The update is x ← x − m α (u(g) + λ x). The multiplier m applies to the rate, also for weight decay, and not to the
    gradient, because Adam would cancel it. Everything else (schedule, clipping, accumulation, moving averages,
    `ReduceLROnPlateau`) comes from the wrapped optimizer, which must not be used elsewhere. A `LossScaleOptimizer` may
    be inside this optimizer or around it.

    Args:
        optimizer: a `keras.optimizers.Optimizer` that has not been built.
        multipliers: regular expression → multiplier ≥ 0, tried in order on `variable.path` (`re.search`). The first
            match is used. See `layerwise_decay` for multipliers by depth.

    Raises:
        ValueError: If the optimizer has no update rule for single variables (Keras's `MultiOptimizer`, another
            `Discriminative`). When the optimizer is built, if a pattern is used for no variable, or no pattern matches
            a variable (end with `".*": 1.0` for a default).

    Source: Howard and Ruder, ULMFiT, 2018; Clark et al., ELECTRA, 2020.

    Example:
        `Discriminative(optimizers.Adam(1e-3), {"head/": 1.0, ".*": 0.1})`
    """

    def __init__(
        self, optimizer: keras.optimizers.Optimizer, multipliers: Mapping[str, float], *, name: str | None = None
    ):
        inner: Any = keras.optimizers.get(optimizer)
        if inner.built:
            raise ValueError("Discriminative needs an optimizer that has not been built. Create a new one.")
        for pattern, multiplier in multipliers.items():
            if not 0 <= multiplier < math.inf:
                raise ValueError(f"Multipliers must be at least 0. Got {multiplier} for {pattern!r}.")
        super().__init__(inner, name)
        self.multipliers = dict(multipliers)
        self._assigned: tuple[float, ...] = ()
        self._rule = _innermost(inner)
        self._decay = self._rule._apply_weight_decay
        self._rule._get_current_learning_rate = lambda rule=self._rule: current_rate(rule)
        if not isinstance(self._rule, MultiTensorOptimizer):
            _intercept(self._rule, self._multiplier)
            self._rule._apply_weight_decay = self._decay_by_multiplier

    def build(self, variables: Sequence[Any]) -> None:
        if self.built or not variables:  # Keras's loader of .h5 files builds every optimizer without variables
            return
        self._assigned = tuple(_assign(self.multipliers, [variable.path for variable in variables]))
        if isinstance(self._rule, MultiTensorOptimizer):
            self._rule.multipliers = self._assigned
        super().build(variables)

    def _multiplier(self, variable: Any) -> float:
        index: int = self._rule._get_variable_index(variable)
        return self._assigned[index]

    def _decay_by_multiplier(self, variables: Sequence[Any]) -> None:
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

    def get_config(self) -> dict[str, Any]:
        inner = keras.saving.serialize_keras_object(self.optimizer)
        return {"name": self.name, "optimizer": inner, "multipliers": self.multipliers}

    @classmethod
    def from_config(cls, config: dict[str, Any], custom_objects: dict[str, Any] | None = None) -> Self:
        inner = keras.saving.deserialize_keras_object(config["optimizer"], custom_objects=custom_objects)
        return cls(inner, config["multipliers"], name=config["name"])


def _innermost(optimizer: keras.optimizers.Optimizer) -> Any:
    """Return the optimizer whose `update_step` changes the variables, unwrapped from any LossScaleOptimizer."""
    while isinstance(optimizer, keras.optimizers.LossScaleOptimizer):
        optimizer = optimizer.inner_optimizer
    delegates = type(optimizer).update_step is keras.optimizers.Optimizer.update_step
    if delegates and not isinstance(optimizer, MultiTensorOptimizer):
        raise ValueError(
            f"{type(optimizer).__name__} does not define update_step, so Discriminative cannot set a rate for each "
            f"variable. Wrap the inner optimizer."
        )
    return optimizer


def _intercept(optimizer: keras.optimizers.Optimizer, multiplier: Callable[[Any], float]) -> None:
    """Replace the update step by a step with a separate rate for every variable."""
    update = optimizer.update_step

    def update_step(gradient: Tensor, variable: Any, learning_rate: Tensor) -> None:
        m = multiplier(variable)
        update(gradient, variable, learning_rate if m == 1 else learning_rate * m)

    optimizer.update_step = update_step
    # replaces torch's update with one rate for all variables by Keras's loop
    if hasattr(optimizer, "_parallel_update_step"):
        parallel = next(cls for cls in type(optimizer).__mro__ if "_backend_update_step" in vars(cls))
        optimizer._backend_update_step = super(parallel, optimizer)._backend_update_step


def layerwise_decay(model: keras.Model, decay: float) -> dict[str, float]:
    """Return multipliers `decay`ᵈ for `Discriminative`, where d is the number of stages after a variable.

    A stage is a sequence of layers with outputs of one height and width; everything after the last feature map is stage
    0, the head. Earlier layers without a feature map as output, such as squeeze-and-excitation on 1 × 1 maps, belong to
    the next map. In a model without feature maps, each layer with weights is a stage. In nested models, the innermost
    layers count.

    Args:
        model: a built `keras.Model`, functional or Sequential, with an input of fixed height and width.
        decay: in (0, 1]; 0.3 to 0.8 for pretrained convolutional networks.

    Returns:
        Regular expression of a variable's path → multiplier.

    Raises:
        ValueError: If `decay` is outside (0, 1], the size of a map is unknown, or variables of one path need two
            multipliers.

    Example:
        `Discriminative(optimizers.Adam(1e-3), layerwise_decay(model, 0.5))`
    """
    if not 0 < decay <= 1:
        raise ValueError(f"decay must be in (0, 1], so that the rate falls towards the input. Got {decay}.")
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
                    f"Two variables at different depths have the same path {variable.path!r}, by which Discriminative "
                    "identifies them. Give the layers of nested models different names."
                )
    return multipliers


def _leaves(model: keras.Model) -> Iterator[Any]:
    for layer in model.layers:
        if isinstance(layer, keras.Model):
            yield from _leaves(layer)
        else:
            yield layer


def _is_channels_first(model: keras.Model) -> bool:
    """Return whether the first layer with a data format is channels-first; Keras's default may have changed."""
    stated = (layer.data_format for layer in _leaves(model) if hasattr(layer, "data_format"))
    return next(stated, keras.config.image_data_format()) == "channels_first"


def _map_size(layer: keras.layers.Layer, first: bool) -> tuple[int, int] | None:
    """Return (height, width) of the layer's output, or None if the output is not a feature map or is 1 × 1."""
    shape = getattr(getattr(layer, "output", None), "shape", ())
    if len(shape) != 4:
        return None
    size = tuple(shape[2:4] if first else shape[1:3])
    if None in size:
        raise ValueError(
            f"The feature map of layer {layer.name!r} has the size {size}. Build the model with an input of fixed "
            "height and width, because stages are identified by size."
        )
    return None if size == (1, 1) else size


def _assign(multipliers: Mapping[str, float], paths: Sequence[str]) -> list[float]:
    """Return the multiplier of each path."""
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
            why = "is not used: earlier patterns match all its variables" if late else "matches no trainable variable"
            raise ValueError(f"The pattern {pattern!r} {why}. Paths look like {', '.join(paths[:3])}.")
    return [multipliers[pattern] for pattern in chosen if pattern is not None]
