"""Discriminative finetuning: a learning rate for every depth of the network."""

import re
from collections import defaultdict

import keras
from keras import ops

from optimizers.multi_tensor import MultiTensorOptimizer
from optimizers.schedules import current_rate


@keras.saving.register_keras_serializable("optimizers")
class Discriminative(keras.optimizers.Optimizer):
    """Any Keras optimizer with a learning rate of its own for each variable: multiplier × the optimizer's rate.

    x ← x − m α (u(g) + λ x): the rate itself is multiplied, weight decay's share included, and not the gradient, which
    Adam would undo. Everything else (schedule, clipping, accumulation, `ReduceLROnPlateau`) is the wrapped
    optimizer's, which belongs to this object from now on. Source: Howard and Ruder, ULMFiT, 2018; Clark et al.,
    ELECTRA, 2020.

    Args:
        optimizer: a `keras.optimizers.Optimizer` that has not been built.
        multipliers: regular expression → multiplier ≥ 0, tried in order on `variable.path` (`re.search`); the first
            that matches counts. See `layerwise_decay` for multipliers by depth.

    Raises: ValueError, when the optimizer is built, for a pattern that decides about no variable, and for a variable
        that no pattern matches (end with `".*": 1.0` for a default).

    Example: `Discriminative(optimizers.Adam(1e-3), {"head/": 1.0, ".*": 0.1})`
    """

    def __init__(self, optimizer, multipliers, *, name="discriminative"):
        super().__init__(learning_rate=0.0, name=name)
        optimizer = keras.optimizers.get(optimizer)
        if optimizer.built:
            raise ValueError("Discriminative needs an optimizer that has not been built: make a new one.")
        for pattern, multiplier in multipliers.items():
            if not multiplier >= 0:
                raise ValueError(f"Multipliers must not be negative. Got {multiplier} for {pattern!r}.")
        self.optimizer, self.multipliers = optimizer, dict(multipliers)
        self._update, self._decay = optimizer._backend_update_step, optimizer._apply_weight_decay
        optimizer._backend_update_step = self._update_by_multiplier
        optimizer._apply_weight_decay = self._decay_by_multiplier
        optimizer._get_current_learning_rate = lambda: current_rate(optimizer)

    def build(self, variables):
        if self.built:
            return
        self._assigned = tuple(_assign(self.multipliers, [variable.path for variable in variables]))
        if isinstance(self.optimizer, MultiTensorOptimizer):
            self.optimizer.partition = self._assigned
        self.optimizer.build(variables)
        self.built = True

    def _groups(self, variables):
        """Multiplier → positions in `variables`."""
        groups = defaultdict(list)
        for i, variable in enumerate(variables):
            groups[self._assigned[self.optimizer._get_variable_index(variable)]].append(i)
        return groups

    def _update_by_multiplier(self, grads, trainable_variables, learning_rate):
        for multiplier, members in self._groups(trainable_variables).items():
            rate = learning_rate if multiplier == 1 else learning_rate * multiplier
            self._update([grads[i] for i in members], [trainable_variables[i] for i in members], rate)

    def _decay_by_multiplier(self, variables):
        decay = self.optimizer.weight_decay
        if not decay:
            return
        for multiplier, members in self._groups(variables).items():
            self.optimizer.weight_decay = decay * multiplier
            self._decay([variables[i] for i in members])
        self.optimizer.weight_decay = decay

    def apply(self, grads, trainable_variables=None):
        if not self.built:
            self.build(list(trainable_variables))
        self.optimizer.apply(grads, trainable_variables)

    def stateless_apply(self, optimizer_variables, grads, trainable_variables):
        own = len(self._variables)
        trainable, inner = self.optimizer.stateless_apply(optimizer_variables[own:], grads, trainable_variables)
        return trainable, [ops.convert_to_tensor(v) for v in optimizer_variables[:own]] + inner

    @property
    def variables(self):
        return self._variables + self.optimizer.variables

    @property
    def iterations(self):
        return self.optimizer.iterations

    @property
    def learning_rate(self):
        return self.optimizer.learning_rate

    @learning_rate.setter
    def learning_rate(self, rate):
        self.optimizer.learning_rate = rate

    def scale_loss(self, loss):
        return self.optimizer.scale_loss(loss)

    def finalize_variable_values(self, var_list):
        self.optimizer.finalize_variable_values(var_list)

    def get_config(self):
        inner = keras.saving.serialize_keras_object(self.optimizer)
        return {"name": self.name, "optimizer": inner, "multipliers": self.multipliers}

    @classmethod
    def from_config(cls, config, custom_objects=None):
        inner = keras.saving.deserialize_keras_object(config["optimizer"], custom_objects=custom_objects)
        return cls(inner, config["multipliers"], name=config["name"])


def layerwise_decay(model, decay: float) -> dict[str, float]:
    """Multipliers for `Discriminative`: `decay`ᵈ, d the number of stages between a variable and the model's end.

    A stage is a run of layers with outputs of one height and width; everything after the last feature map is stage 0,
    the head. Where a model has no feature maps each layer with weights is a stage. Variables of layers nested in the
    model count by the layer that holds them inside.

    Args:
        model: a built `keras.Model`, functional or Sequential.
        decay: in (0, 1]; 0.3 to 0.8 for pretrained convolutional networks.

    Example: `Discriminative(optimizers.Adam(1e-3), layerwise_decay(model, 0.5))`
    """
    if not 0 < decay <= 1:
        raise ValueError(f"decay must be in (0, 1]: the rate falls towards the input. Got {decay}.")
    stages, sizes = [], []
    for layer in _leaves(model):
        if layer.trainable_variables:
            sizes.append(_map_size(layer))
            stages.append([variable.path.removeprefix(f"{model.name}/") for variable in layer.trainable_variables])
    by_size = any(size is not None for size in sizes)
    depth, multipliers = 0, {}
    for i in reversed(range(len(stages))):
        last = i + 1 == len(stages)
        if not last and (sizes[i] != sizes[i + 1] if by_size else True):
            depth += 1
        multipliers.update({f"(^|/){re.escape(path)}$": decay**depth for path in stages[i]})
    return multipliers


def _leaves(model):
    for layer in model.layers:
        if isinstance(layer, keras.Model):
            yield from _leaves(layer)
        else:
            yield layer


def _map_size(layer):
    """(height, width) of the layer's output, or None where it is no feature map."""
    output = getattr(layer, "output", None)
    return tuple(output.shape[1:3]) if len(getattr(output, "shape", ())) == 4 else None


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
