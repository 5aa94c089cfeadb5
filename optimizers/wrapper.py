"""An optimizer around another one that behaves, to Keras and its callbacks, like the one inside."""

import keras
from keras import ops

_FORWARDED = (
    "weight_decay", "clipnorm", "clipvalue", "global_clipnorm", "loss_scale_factor", "gradient_accumulation_steps",
    "use_ema", "ema_momentum", "ema_overwrite_frequency", "_model_variables_moving_average", "_accumulated_gradients",
)  # fmt: skip


class Wrapper(keras.optimizers.Optimizer):
    """Hands everything on to `self.optimizer`. Subclasses add variables of their own, which come first in `variables`.

    The attributes of Keras's base optimizer are the wrapped one's, for reading and writing, so that `SwapEMAWeights`,
    `ReduceLROnPlateau` and a `LossScaleOptimizer` around find what they look for.
    """

    def __init__(self, optimizer: keras.optimizers.Optimizer, name: str | None):
        super().__init__(learning_rate=0.0, name=name)
        self.optimizer = optimizer

    def build(self, variables):
        if not self.optimizer.built:
            self.optimizer.build(variables)
        vars(self)["_trainable_variables"] = list(variables)  # past Keras's tracking: they are not this optimizer's own
        self.built = True

    def apply(self, grads, trainable_variables=None):
        if not self.built:
            self.build(list(trainable_variables))
        self.optimizer.apply(grads, trainable_variables)

    def stateless_apply(self, optimizer_variables, grads, trainable_variables):
        own = len(self._variables)
        trainable, inner = self.optimizer.stateless_apply(optimizer_variables[own:], grads, trainable_variables)
        return trainable, [ops.convert_to_tensor(v) for v in optimizer_variables[:own]] + list(inner)

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

    def set_weights(self, weights):
        """Assign to all variables, the wrapped optimizer's included; Keras's method knows this object's own only."""
        if not self.built:
            raise ValueError(f"{self.name} has no weights to set before it is built. Call `build(variables)` first.")
        shapes, given = ([tuple(v.shape) for v in values] for values in (self.variables, weights))
        if given != shapes:
            raise ValueError(f"The weights must have the shapes {shapes}, got {given}.")
        for variable, weight in zip(self.variables, weights, strict=True):
            variable.assign(weight)

    def scale_loss(self, loss):
        return self.optimizer.scale_loss(loss)

    def finalize_variable_values(self, var_list):
        self.optimizer.finalize_variable_values(var_list)

    def exclude_from_weight_decay(self, var_list=None, var_names=None):
        self.optimizer.exclude_from_weight_decay(var_list, var_names)


def _forwarded(name):
    def read(self):
        return getattr(vars(self)["optimizer"], name) if "optimizer" in vars(self) else None

    def write(self, value):
        if "optimizer" in vars(self):  # else Keras's constructor sets its default
            setattr(self.optimizer, name, value)

    return property(read, write)


for _name in _FORWARDED:
    setattr(Wrapper, _name, _forwarded(_name))
