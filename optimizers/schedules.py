"""Define learning rates as functions of the number of updates t, for any Keras optimizer."""

import math
import reprlib
from collections.abc import Callable, Sequence
from typing import Any, Self

import keras
import numpy as np

from .tensors import Tensor, ops

_SHORT = reprlib.Repr()
_SHORT.maxother = 120  # maximum number of characters of a schedule in the repr of another one
register = keras.saving.register_keras_serializable("optimizers")


def current_rate(optimizer: keras.optimizers.Optimizer) -> Any:
    """Return the optimizer's current learning rate, by a schedule at the number of updates.

    Keras evaluates a schedule at the number of batches, which is n times too large with
    `gradient_accumulation_steps=n`.
    """
    rate = optimizer._learning_rate
    if isinstance(rate, keras.optimizers.schedules.LearningRateSchedule):
        return rate(optimizer.iterations)
    return rate() if callable(rate) and not isinstance(rate, keras.Variable) else rate


class Schedule(keras.optimizers.schedules.LearningRateSchedule):
    """Compute a learning rate α(t), where t counts updates from 0.

    Subclasses store their arguments as attributes of the same name. With `gradient_accumulation_steps`, the optimizers
    of this package and those inside `Discriminative` count updates. Other Keras optimizers count batches, so multiply
    the lengths of their schedules by the steps.
    """

    arguments: tuple[str, ...] = ()

    def __call__(self, step: Tensor) -> Tensor:
        return self.rate(ops.cast(step, "float32"))

    def rate(self, t: Tensor) -> Tensor:
        """Return α(t) for a float32 tensor t."""
        raise NotImplementedError(f"{type(self).__name__} has no rate(t). Define this method in the subclass.")

    def plot(self, steps: int, axes: Any = None) -> Any:
        """Draw α(t) for t = 0 … steps − 1, and return the matplotlib axes."""
        import matplotlib.pyplot as plt

        axes = axes or plt.subplots(figsize=(6, 3), layout="constrained")[1]
        t = np.unique(np.linspace(0, steps - 1, min(steps, 2000)).round())
        axes.plot(t, [float(self(at)) for at in t], label=type(self).__name__)
        axes.set(xlabel="updates", ylabel="learning rate")
        return axes

    def get_config(self) -> dict[str, Any]:
        return {name: getattr(self, name) for name in self.arguments}

    def __repr__(self) -> str:
        arguments = (f"{name}={_SHORT.repr(value)}" for name, value in vars(self).items())
        return f"{type(self).__name__}({', '.join(arguments)})"


@register
class StepDecay(Schedule):
    """Decay in steps: α(t) = α₀ · factorᵏ, where k is the number of `boundaries` that t has reached.

    Args:
        initial: α₀.
        boundaries: increasing numbers of updates.
        factor: in (0, 1].

    Raises:
        ValueError: If `initial` is not positive, or `boundaries` do not increase.

    Example:
        `StepDecay(0.1, boundaries=[30 * n, 60 * n, 90 * n])` with n updates per epoch.
    """

    arguments = ("initial", "boundaries", "factor")

    def __init__(self, initial: float, boundaries: Sequence[int], factor: float = 0.1):
        self.initial, self.boundaries, self.factor = _positive("initial", initial), list(boundaries), factor
        if self.boundaries != sorted(set(self.boundaries)):
            raise ValueError(f"boundaries must increase strictly. Got {self.boundaries}.")

    def rate(self, t: Tensor) -> Tensor:
        reached = sum(ops.cast(t >= boundary, "float32") for boundary in self.boundaries)
        return self.initial * self.factor**reached


@register
class ExponentialDecay(Schedule):
    """Decay exponentially: α(t) = α₀ · exp(−k t / period).

    Args:
        initial: α₀.
        k: the decay per period.
        period: updates per unit of t; with the number of updates per epoch, the unit is an epoch.
    """

    arguments = ("initial", "k", "period")

    def __init__(self, initial: float, k: float, period: float = 1):
        self.initial, self.k, self.period = _positive("initial", initial), k, _positive("period", period)

    def rate(self, t: Tensor) -> Tensor:
        return self.initial * ops.exp(-self.k * t / self.period)


@register
class InverseTimeDecay(Schedule):
    """Decay inversely with time: α(t) = α₀ / (1 + k t / period).

    Σα diverges and Σα² converges, as the conditions of Robbins and Monro (1951) require.

    Args:
        initial: α₀.
        k: the decay per period.
        period: updates per unit of t; with the number of updates per epoch, the unit is an epoch.
    """

    arguments = ("initial", "k", "period")

    def __init__(self, initial: float, k: float, period: float = 1):
        self.initial, self.k, self.period = _positive("initial", initial), k, _positive("period", period)

    def rate(self, t: Tensor) -> Tensor:
        return self.initial / (1 + self.k * t / self.period)


@register
class Cosine(Schedule):
    """Decay along a cosine: α(t) = α₁ + (α₀ − α₁)(1 + cos(π t / steps)) / 2, and α₁ from t = steps on.

    Args:
        initial: α₀.
        steps: number of updates from α₀ to α₁.
        minimum: α₁.

    Source: Loshchilov and Hutter, SGDR, 2017, without restarts.
    """

    arguments = ("initial", "steps", "minimum")

    def __init__(self, initial: float, steps: int, minimum: float = 0.0):
        self.initial, self.steps, self.minimum = _positive("initial", initial), _positive("steps", steps), minimum

    def rate(self, t: Tensor) -> Tensor:
        return _cosine(self.initial, self.minimum, ops.minimum(t / self.steps, 1.0))


@register
class CosineRestarts(Schedule):
    """Restart cosine cycles of T₀, T₀·m, T₀·m², … updates at α₀ (SGDR).

    Args:
        initial: α₀.
        period: T₀, the number of updates in the first cycle.
        multiplier: m ≥ 1, "T_mult".
        minimum: α₁, approached at the end of every cycle.

    Source: Loshchilov and Hutter, 2017, equation 5.
    """

    arguments = ("initial", "period", "multiplier", "minimum")

    def __init__(self, initial: float, period: float, multiplier: float = 1, minimum: float = 0.0):
        self.initial, self.period = _positive("initial", initial), _positive("period", period)
        self.multiplier, self.minimum = multiplier, minimum
        if multiplier < 1:
            raise ValueError(f"multiplier must be at least 1, so that cycles do not shrink. Got {multiplier}.")

    def rate(self, t: Tensor) -> Tensor:
        if self.multiplier == 1:
            return _cosine(self.initial, self.minimum, ops.mod(t, self.period) / self.period)
        growth = 1 + t * (self.multiplier - 1) / self.period
        cycle = ops.floor(ops.log(growth) / math.log(self.multiplier))
        # The logarithm may round to the wrong side of a restart, so the cycle's integer ends are compared.
        cycle = ops.where(t >= self._start(cycle + 1), cycle + 1, cycle)
        cycle = ops.where(t < self._start(cycle), cycle - 1, cycle)
        return _cosine(self.initial, self.minimum, (t - self._start(cycle)) / (self.period * self.multiplier**cycle))

    def _start(self, cycle: Tensor) -> Tensor:
        starts = self.period * (self.multiplier**cycle - 1) / (self.multiplier - 1)
        return ops.round(starts) if isinstance(self.period * self.multiplier, int) else starts


@register
class Cyclic(Schedule):
    """Repeat `cycles` cosines of ⌈steps / cycles⌉ updates, for a snapshot ensemble of the networks at the cycles' ends.

    Args:
        initial: α₀.
        steps: number of updates of the complete training.
        cycles: number of snapshots.

    Source: Huang et al., Snapshot ensembles, 2017, equation 2.
    """

    arguments = ("initial", "steps", "cycles")

    def __init__(self, initial: float, steps: int, cycles: int):
        self.initial, self.steps, self.cycles = _positive("initial", initial), _positive("steps", steps), cycles
        if not 1 <= cycles <= steps:
            raise ValueError(f"cycles must be from 1 to steps={steps}. Got {cycles}.")

    @property
    def period(self) -> int:
        """Return the number of updates in a cycle; snapshots are due after updates period, 2 · period, …"""
        return math.ceil(self.steps / self.cycles)

    def rate(self, t: Tensor) -> Tensor:
        return _cosine(self.initial, 0.0, ops.mod(t, self.period) / self.period)


@register
class Warmup(Schedule):
    """Warm up linearly, α(t) = α₀ (t + 1) / (steps + 1) for t < steps, then follow `schedule` from its t = 0.

    The first update has a rate above 0, and the ramp reaches α₀ = schedule(0) at t = steps.

    Args:
        schedule: any schedule, or a float for a constant rate.
        steps: number of updates of the ramp.

    Source: Goyal et al., Accurate, large minibatch SGD, 2017, section 2.2.
    """

    def __init__(self, schedule: Any, steps: int):
        self.schedule, self.steps = schedule, _positive("steps", steps)

    def rate(self, t: Tensor) -> Tensor:
        if not callable(self.schedule):
            return self.schedule * ops.minimum((t + 1) / (self.steps + 1), 1.0)
        after = self.schedule(ops.maximum(t - self.steps, 0.0))
        return after * ops.minimum((t + 1) / (self.steps + 1), 1.0)

    def get_config(self) -> dict[str, Any]:
        return {"schedule": keras.saving.serialize_keras_object(self.schedule), "steps": self.steps}

    @classmethod
    def from_config(cls, config: dict[str, Any]) -> Self:
        return cls(keras.saving.deserialize_keras_object(config["schedule"]), config["steps"])


@register
class Then(Schedule):
    """Follow `first` for t < steps, then `second` from its t = 0.

    Args:
        first: a schedule.
        steps: number of updates of the first schedule.
        second: a schedule.

    Raises:
        ValueError: If `first` or `second` is not a schedule.

    Example:
        Use the learning rate of fast geometric ensembling: `Then(Cosine(0.1, 800), 800, CosineRestarts(0.03, 100))`.
    """

    def __init__(self, first: Callable[[Tensor], Tensor], steps: int, second: Callable[[Tensor], Tensor]):
        if not (callable(first) and callable(second)):
            raise ValueError(f"first and second must be schedules, such as Cosine. Got {first!r} and {second!r}.")
        self.first, self.steps, self.second = first, _positive("steps", steps), second

    def rate(self, t: Tensor) -> Tensor:
        return ops.where(t < self.steps, self.first(t), self.second(ops.maximum(t - self.steps, 0.0)))

    def get_config(self) -> dict[str, Any]:
        first, second = map(keras.saving.serialize_keras_object, (self.first, self.second))
        return {"first": first, "steps": self.steps, "second": second}

    @classmethod
    def from_config(cls, config: dict[str, Any]) -> Self:
        first, second = (keras.saving.deserialize_keras_object(config[name]) for name in ("first", "second"))
        return cls(first, config["steps"], second)


def _cosine(start: float, end: float, fraction: Tensor) -> Tensor:
    return end + (start - end) * 0.5 * (1 + ops.cos(math.pi * fraction))


def _positive(name: str, value: Any) -> Any:
    if not value > 0:
        raise ValueError(f"{name} must be positive. Got {name}={value}.")
    return value
