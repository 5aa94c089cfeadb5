"""Define first-order update rules in their published form: SGD with momentum, Nesterov, AdaGrad, RMSProp, Adam.

Keras's built-in optimizers of these names differ in details that decide whether a published recipe works; each
docstring lists these. Every rule is a pure function of tensors, (gradient, slots, …) → (change, new slots), with x ← x
− change; the classes wrap it for `model.fit` on all Keras backends.
"""

import math
from collections.abc import Sequence
from typing import Any

import keras

from .multi_tensor import MultiTensorOptimizer
from .tensors import LearningRate, Tensor, ops

register = keras.saving.register_keras_serializable("optimizers")


def momentum_update(g: Tensor, v: Tensor, *, rate: Any, rho: float) -> tuple[Tensor, Tensor]:
    """Return (change, v) of v ← ρv + g; change = αv."""
    v = rho * v + g
    return rate * v, v


def nesterov_update(g: Tensor, v: Tensor, *, rate: Any, rho: float) -> tuple[Tensor, Tensor]:
    """Return (change, v') of v' = ρv − αg; change = ρv − (1 + ρ)v', written without cancellation as αg − ρv'."""
    v = rho * v - rate * g
    return rate * g - rho * v, v


def adagrad_update(g: Tensor, s: Tensor, *, rate: Any, epsilon: float) -> tuple[Tensor, Tensor]:
    """Return (change, s) of s ← s + g²; change = αg / (√s + ε)."""
    s = s + g * g
    return rate * g / (ops.sqrt(s) + epsilon), s


def rmsprop_update(g: Tensor, s: Tensor, *, rate: Any, rho: float, epsilon: float) -> tuple[Tensor, Tensor]:
    """Return (change, s) of s ← ρs + (1 − ρ)g²; change = αg / (√s + ε)."""
    s = _moving_average(s, g * g, rho)
    return rate * g / (ops.sqrt(s) + epsilon), s


def adam_update(
    g: Tensor,
    m: Tensor,
    s: Tensor,
    *,
    step: Tensor,
    rate: Any,
    beta_1: float,
    beta_2: float,
    epsilon: Tensor,
    bias_correction: bool = True,
) -> tuple[Tensor, Tensor, Tensor]:
    """Return (change, m, s) of m ← β₁m + (1 − β₁)g; s ← β₂s + (1 − β₂)g²; change = α m̂ / (√ŝ + ε).

    m̂ = m / (1 − β₁ᵗ) and ŝ = s / (1 − β₂ᵗ), or m̂ = m and ŝ = s without bias correction.
    """
    m = _moving_average(m, g, beta_1)
    s = _moving_average(s, g * g, beta_2)
    if bias_correction:  # the correction is applied to the scalars: α m̂ / (√ŝ + ε) = α' m / (√s + ε')
        correction = ops.sqrt(_one_minus_power(beta_2, step))
        rate, epsilon = rate * correction / _one_minus_power(beta_1, step), epsilon * correction
    return rate * m / (ops.sqrt(s) + epsilon), m, s


def _moving_average(average: Tensor, value: Any, decay: float) -> Tensor:
    """Return decay · average + (1 − decay) · value.

    For a decay of at least 1/2, a form is used whose steady state is exactly `value`, although 1 − decay is rounded.
    For a smaller decay, this form would suffer from cancellation: an average of 1e8 would absorb a value of 1e-6 even
    if decay is 0.
    """
    if decay < 0.5:
        return decay * average + (1 - decay) * value
    return average + (1 - decay) * (value - average)


def _one_minus_power(beta: float, step: Tensor) -> Tensor:
    """Return 1 − βᵗ without cancellation, which costs float32 half its digits at β = 0.999 and small t."""
    return -ops.expm1(step * math.log(beta)) if beta > 0 else ops.ones_like(step)


@register
class Momentum(MultiTensorOptimizer):
    """Update by stochastic gradient descent with momentum: v ← ρv + g, x ← x − αv.

    The rate scales the step, not the velocity, as in `torch.optim.SGD`. Keras's `SGD(momentum=ρ)` uses v ← ρv − αg, so
    under a schedule the velocity keeps the old rate for about 1 / (1 − ρ) steps after every change. `rho=0` is plain
    SGD. Source: Polyak, 1964; Sutskever et al., 2013.

    Args:
        learning_rate: α.
        rho: ρ in [0, 1), the friction: 0.9 or 0.99.

    Example: `model.compile(optimizers.Momentum(optimizers.Cosine(0.1, steps), weight_decay=5e-4), loss)`
    """

    slots = ("velocity",)

    def __init__(
        self,
        learning_rate: LearningRate = 0.01,
        rho: float = 0.9,
        *,
        weight_decay: float | None = None,
        decay_biases: bool = False,
        **options: Any,
    ):
        super().__init__(learning_rate, weight_decay=weight_decay, decay_biases=decay_biases, **options)
        self.rho = _fraction("rho", rho)

    def rule(
        self, gradient: Tensor, slots: Sequence[Tensor], rate: Any, step: Tensor
    ) -> tuple[Tensor, Sequence[Tensor]]:
        change, *slots = momentum_update(gradient, *slots, rate=rate, rho=self.rho)
        return change, slots

    def get_config(self) -> dict[str, Any]:
        return {**super().get_config(), "rho": self.rho}


@register
class Nesterov(Momentum):
    """Update by Nesterov's accelerated gradient after a change of variables: v' = ρv − αg, x ← x − ρv + (1 + ρ)v'.

    The stored x is the look-ahead point, where the gradient is computed. The rule equals Keras's `SGD(nesterov=True)`,
    with the rate inside the velocity. `torch.optim.SGD(nesterov=True)` applies the rate outside the velocity, which is
    equal for a constant rate. Source: Nesterov, 1983; Bengio et al., 2013.

    Args:
        learning_rate: α.
        rho: ρ in [0, 1).

    Example: `model.compile(optimizers.Nesterov(0.01), loss)`
    """

    def rule(
        self, gradient: Tensor, slots: Sequence[Tensor], rate: Any, step: Tensor
    ) -> tuple[Tensor, Sequence[Tensor]]:
        change, *slots = nesterov_update(gradient, *slots, rate=rate, rho=self.rho)
        return change, slots


@register
class AdaGrad(MultiTensorOptimizer):
    """Update by AdaGrad: s ← s + g², x ← x − αg / (√s + ε), where s starts at 0.

    The first step is α in every coordinate, independent of the gradient's scale. Keras's `Adagrad` starts s at 0.1,
    which slows small gradients by orders of magnitude, and puts ε inside the root. Source: Duchi et al., 2011.

    Args:
        learning_rate: α.
        epsilon: ε.

    Example: `model.compile(optimizers.AdaGrad(0.01), loss)`
    """

    slots = ("squares",)

    def __init__(
        self,
        learning_rate: LearningRate = 0.01,
        epsilon: float = 1e-7,
        *,
        weight_decay: float | None = None,
        decay_biases: bool = False,
        **options: Any,
    ):
        super().__init__(learning_rate, weight_decay=weight_decay, decay_biases=decay_biases, **options)
        self.epsilon = _positive("epsilon", epsilon)

    def rule(
        self, gradient: Tensor, slots: Sequence[Tensor], rate: Any, step: Tensor
    ) -> tuple[Tensor, Sequence[Tensor]]:
        change, *slots = adagrad_update(gradient, *slots, rate=rate, epsilon=self.epsilon)
        return change, slots

    def get_config(self) -> dict[str, Any]:
        return {**super().get_config(), "epsilon": self.epsilon}


@register
class RMSProp(MultiTensorOptimizer):
    """Update by RMSProp, the leaky AdaGrad: s ← ρs + (1 − ρ)g², x ← x − αg / (√s + ε).

    Keras's `RMSprop` puts ε inside the root, √(s + ε). With the default 1e-7, this stalls gradients below 3e-4.
    `torch.optim.RMSprop(alpha=ρ)` equals this rule. Source: Tieleman and Hinton, 2012.

    Args:
        learning_rate: α.
        rho: ρ in [0, 1), the decay of the mean of squares.
        epsilon: ε.

    Example: `model.compile(optimizers.RMSProp(1e-3), loss)`
    """

    slots = ("squares",)

    def __init__(
        self, learning_rate: LearningRate=1e-3, rho: float=0.99, epsilon: float=1e-8, *,
        weight_decay: float | None=None, decay_biases: bool=False, **options: Any,
    ):  # fmt: skip
        super().__init__(learning_rate, weight_decay=weight_decay, decay_biases=decay_biases, **options)
        self.rho, self.epsilon = _fraction("rho", rho), _positive("epsilon", epsilon)

    def rule(
        self, gradient: Tensor, slots: Sequence[Tensor], rate: Any, step: Tensor
    ) -> tuple[Tensor, Sequence[Tensor]]:
        change, *slots = rmsprop_update(gradient, *slots, rate=rate, rho=self.rho, epsilon=self.epsilon)
        return change, slots

    def get_config(self) -> dict[str, Any]:
        return {**super().get_config(), "rho": self.rho, "epsilon": self.epsilon}


@register
class Adam(MultiTensorOptimizer):
    """Update by Adam: momentum and RMSProp with bias correction.

    m ← β₁m + (1 − β₁)g, s ← β₂s + (1 − β₂)g², x ← x − α m̂ / (√ŝ + ε), m̂ = m / (1 − β₁ᵗ), ŝ = s / (1 − β₂ᵗ). With
    `bias_correction=False`, m̂ = m and ŝ = s, and the first steps are about 3α. Keras's `Adam` adds ε to √s before the
    correction, so its ε is 1 / √(1 − β₂ᵗ) times larger at step t, and 32 times at the first step. With `weight_decay`,
    the rule is AdamW, equal to `torch.optim.AdamW` except that biases have no decay. Source: Kingma and Ba, 2015;
    Loshchilov and Hutter, 2019.

    Args:
        learning_rate: α.
        beta_1: β₁ in [0, 1), decay of the mean of gradients.
        beta_2: β₂ in [0, 1), decay of the mean of squares.
        epsilon: ε.
        bias_correction: whether to divide out the bias of the averages, which start at zero.

    Example: `model.compile(optimizers.Adam(optimizers.Warmup(optimizers.Cosine(1e-3, 900), 100)), loss)`
    """

    slots = ("mean", "squares")

    def __init__(
        self, learning_rate: LearningRate=1e-3, beta_1: float=0.9, beta_2: float=0.999, epsilon: float=1e-8, *,
        bias_correction: bool=True, weight_decay: float | None=None, decay_biases: bool=False, **options: Any,
    ):  # fmt: skip
        super().__init__(learning_rate, weight_decay=weight_decay, decay_biases=decay_biases, **options)
        self.beta_1, self.beta_2 = _fraction("beta_1", beta_1), _fraction("beta_2", beta_2)
        self.epsilon, self.bias_correction = _positive("epsilon", epsilon), bias_correction

    def rule(
        self, gradient: Tensor, slots: Sequence[Tensor], rate: Any, step: Tensor
    ) -> tuple[Tensor, Sequence[Tensor]]:
        change, *slots = adam_update(
            gradient, *slots, step=step, rate=rate, beta_1=self.beta_1, beta_2=self.beta_2,
            epsilon=self.epsilon, bias_correction=self.bias_correction,
        )  # fmt: skip
        return change, slots

    def get_config(self) -> dict[str, Any]:
        own = {"beta_1": self.beta_1, "beta_2": self.beta_2, "epsilon": self.epsilon}
        return {**super().get_config(), **own, "bias_correction": self.bias_correction}


def _fraction(name: str, value: Any) -> float:
    if not 0 <= value < 1:
        raise ValueError(f"{name} must be in [0, 1), because at 1 old gradients never decay. Got {name}={value}.")
    return value


def _positive(name: str, value: Any) -> float:
    if not value > 0:
        raise ValueError(
            f"{name} must be positive, to avoid a division by zero at a zero gradient. Got {name}={value}."
        )
    return value
