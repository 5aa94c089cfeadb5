"""Drop whole residual branches in training, and use all branches in inference (stochastic depth).

Huang, Sun, Liu, Sedra, Weinberger: Deep Networks with Stochastic Depth, ECCV 2016, arXiv:1603.09382.
"""

import numbers
from collections.abc import Sequence
from typing import Any

import keras

from .noise import NoiseLayer, NoiseWrapper, check_rate
from .stateless import call_with
from .tensors import Shape, Tensor, ops


def linear_rates(depth: int, last: float) -> list[float]:
    """Return the dropping rates of residual branches 1 … L under linear decay: rate_l = l/L · last.

    In the paper's survival probabilities p = 1 − rate, the equation is p_l = 1 − l/L (1 − p_L), with p_L = 0.5.

    Args:
        depth: the number of branches L.
        last: the rate of branch L.

    Raises:
        ValueError: If `depth` is not a positive integer, or `last` is not in [0, 1).
    >>> linear_rates(4, 0.5)
    [0.125, 0.25, 0.375, 0.5]
    """
    if not isinstance(depth, numbers.Integral) or depth < 1:
        raise ValueError(f"linear_rates: depth must be a number of residual branches, at least 1, got {depth!r}.")
    last = check_rate(last, "linear_rates")
    return [last * branch / depth for branch in range(1, depth + 1)]


@keras.saving.register_keras_serializable(package="layers")
class StochasticDepth(NoiseLayer):
    """Drop a residual branch with probability `rate`: y = x + StochasticDepth(rate)(f(x)).

    Training computes f · b / (1 − rate), b ~ Bernoulli(1 − rate), with one b per example or per batch. Inference
    returns f. This is the inverted form: the paper trains with f · b and multiplies by 1 − rate in inference. Both
    forms have the same expectation. Multiplying each branch's last layer by 1 − rate gives the paper's network.

    Args:
        rate: probability of dropping a branch.
        per_example: whether to draw b once per example instead of once per batch. Inputs have any shape (batch, …).
        seed: an integer, or None for an arbitrary one.

    Raises:
        ValueError: `rate` is outside [0, 1).

    Example:
        `x = keras.layers.Add()([x, StochasticDepth(0.2)(branch(x))])`
    """

    def __init__(self, rate: float, *, per_example: bool = True, seed: int | None = None, **kwargs: Any):
        super().__init__(rate, seed=seed, **kwargs)
        self.per_example = bool(per_example)

    def call(self, inputs: Tensor, training: bool | None = None) -> Tensor:
        if not self.noisy(training):
            return inputs
        examples = ops.shape(inputs)[0] if self.per_example else 1
        keep = self.keep_mask((examples,) + (1,) * (len(inputs.shape) - 1), inputs.dtype)
        return inputs * (keep / (1 - self.rate))

    def compute_output_shape(self, input_shape: Shape) -> Shape:
        return input_shape

    def describe(self) -> str:
        return f"residual branch, per {'example' if self.per_example else 'batch'}"

    def get_config(self) -> dict[str, Any]:
        return {**super().get_config(), "per_example": self.per_example}


@keras.saving.register_keras_serializable(package="layers")
class StochasticResidual(NoiseWrapper):
    """Compute a residual block y = x + b / (1 − rate) · branch(x), skipping dropped branches.

    Training draws one b ~ Bernoulli(1 − rate) per batch. If b = 0, the branch's forward pass, gradient and updates of
    BatchNormalization statistics are skipped. Inference computes x + branch(x). See StochasticDepth for the convention.

    Args:
        branch: any layer or model that keeps the shape of its input.
        rate: probability of dropping the branch.
        seed: an integer, or None for an arbitrary one.

    Raises:
        ValueError: If `rate` is outside [0, 1), or the branch changes the shape.

    Example:
        `StochasticResidual(keras.Sequential([Conv2D(16, 3, padding="same"), BatchNormalization()]), 0.5)`
    """

    def __init__(self, branch: keras.layers.Layer, rate: float, *, seed: int | None = None, **kwargs: Any):
        super().__init__(branch, rate, seed=seed, **kwargs)

    def build(self, input_shape: Shape) -> None:
        super().build(input_shape)
        output_shape = self.layer.compute_output_spec(keras.KerasTensor(input_shape, self.compute_dtype)).shape
        if tuple(output_shape) != tuple(input_shape):
            raise ValueError(
                f"StochasticResidual adds its branch to its input: the branch {self.layer.name!r} must keep the "
                f"shape {tuple(input_shape)}, got {tuple(output_shape)}."
            )

    def call(self, inputs: Tensor, training: bool | None = None) -> Tensor:
        shortcut = ops.cast(inputs, self.compute_dtype)
        if not self.noisy(training):
            return shortcut + self._branch(self.layer(inputs))
        state = [ops.convert_to_tensor(variable) for variable in self.layer.variables]
        updated = [i for i, variable in enumerate(self.layer.variables) if not variable.trainable]
        adds_loss = []

        def with_branch() -> tuple[Tensor, list[Tensor], Tensor]:
            values = dict(zip(map(id, self.layer.variables), state, strict=True))
            branch, new, losses = call_with(self.layer, values, inputs)
            adds_loss.extend(losses[:1])
            loss = sum((ops.cast(each, "float32") for each in losses), ops.zeros((), "float32"))
            return shortcut + self._branch(branch) / (1 - self.rate), [new[i] for i in updated], loss

        def without_branch() -> tuple[Tensor, list[Tensor], Tensor]:
            return shortcut + self._no_gradient(state), [state[i] for i in updated], ops.zeros((), "float32")

        keep = self.keep_mask((), "bool")
        outputs, new, loss = ops.cond(keep, with_branch, without_branch)
        for i, value in zip(updated, new, strict=True):
            self.layer.variables[i].assign(value)
        if adds_loss:
            self.add_loss(loss)
        return outputs

    def _no_gradient(self, state: Sequence[Tensor]) -> Tensor:
        """Return 0 with a gradient of 0 for each weight.

        Without this gradient, eager backends make no step if all branches are dropped.
        """
        trainable = [x for x, variable in zip(state, self.layer.variables, strict=True) if variable.trainable]
        zeros = (ops.cast(0 * ops.sum(x[:0]) if x.shape else 0 * x, self.compute_dtype) for x in trainable)
        return sum(zeros, ops.zeros((), self.compute_dtype))

    def compute_output_shape(self, input_shape: Shape) -> Shape:
        return input_shape

    def describe(self) -> str:
        return "residual branch, per batch, not computed when dropped"

    def _branch(self, outputs: Tensor) -> Tensor:
        return ops.cast(outputs, self.compute_dtype)
