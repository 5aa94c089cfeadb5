"""Wrap an optimizer so that the wrapper behaves like it towards Keras and its callbacks."""

from collections.abc import Sequence
from typing import Any

import keras

from .tensors import Tensor, ops

_FORWARDED = (
    "weight_decay", "clipnorm", "clipvalue", "global_clipnorm", "loss_scale_factor", "gradient_accumulation_steps",
    "use_ema", "ema_momentum", "ema_overwrite_frequency", "_model_variables_moving_average", "_accumulated_gradients",
)  # fmt: skip


class Wrapper(keras.optimizers.Optimizer):
    """Delegate everything to `self.optimizer`.

    A subclass's variables come first in `variables`. Attributes of Keras's base optimizer are read from and written to
    the wrapped optimizer, so that `SwapEMAWeights`, `ReduceLROnPlateau` and an outer `LossScaleOptimizer` work.
    """

    def __init__(self, optimizer: keras.optimizers.Optimizer, name: str | None):
        super().__init__(learning_rate=0.0, name=name)
        self.optimizer: Any = optimizer  # typed as Any, because private attributes are used, too

    def build(self, variables: Sequence[Any]) -> None:
        if not self.optimizer.built:
            self.optimizer.build(variables)
        # Without Keras's tracking, because these variables are not the optimizer's own.
        self.__dict__["_trainable_variables"] = list(variables)
        self.built = True

    def apply(self, grads: Sequence[Any], trainable_variables: Sequence[Any] | None = None) -> None:
        if not self.built and trainable_variables is not None:
            self.build(list(trainable_variables))
        self.optimizer.apply(grads, trainable_variables)

    def stateless_apply(
        self, optimizer_variables: Sequence[Tensor], grads: Sequence[Any], trainable_variables: Sequence[Any]
    ) -> tuple[Any, Any]:
        own = len(self._variables)
        trainable, inner = self.optimizer.stateless_apply(optimizer_variables[own:], grads, trainable_variables)
        return trainable, [ops.convert_to_tensor(v) for v in optimizer_variables[:own]] + list(inner)

    @property
    def variables(self) -> list[Any]:
        return self._variables + self.optimizer.variables

    @property
    def iterations(self) -> Any:
        return self.optimizer.iterations

    @property
    def learning_rate(self) -> Any:
        return self.optimizer.learning_rate

    @learning_rate.setter
    def learning_rate(self, rate: Any) -> Any:
        self.optimizer.learning_rate = rate

    def set_weights(self, weights: Any) -> None:
        """Assign to all variables, including the wrapped optimizer's, which Keras's method skips."""
        if not self.built:
            raise ValueError(f"{self.name} has no weights to set before it is built. Call `build(variables)` first.")
        shapes, given = ([tuple(v.shape) for v in values] for values in (self.variables, weights))
        if given != shapes:
            raise ValueError(f"The weights must have the shapes {shapes}, got {given}.")
        for variable, weight in zip(self.variables, weights, strict=True):
            variable.assign(weight)

    def scale_loss(self, loss: Any) -> Any:
        return self.optimizer.scale_loss(loss)

    def finalize_variable_values(self, var_list: Sequence[Any]) -> None:
        self.optimizer.finalize_variable_values(var_list)

    def exclude_from_weight_decay(
        self, var_list: Sequence[Any] | None = None, var_names: Sequence[str] | None = None
    ) -> None:
        self.optimizer.exclude_from_weight_decay(var_list, var_names)


def _forwarded(name: str) -> property:
    def read(self) -> Any:
        return getattr(vars(self)["optimizer"], name) if "optimizer" in vars(self) else None

    def write(self, value: Any) -> None:
        if "optimizer" in vars(self):  # otherwise Keras's constructor sets its default
            setattr(self.optimizer, name, value)

    return property(read, write)


for _name in _FORWARDED:
    setattr(Wrapper, _name, _forwarded(_name))
