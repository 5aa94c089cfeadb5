"""Keep an average of weights that the training step updates, with the state to save."""

import math
from collections.abc import Sequence
from typing import Any

import keras
import numpy as np
from keras.src.saving.keras_saveable import KerasSaveable

from .tensors import Tensor, ops
from .wrapper import Wrapper


class WeightAverage(KerasSaveable):
    """Average `variables` after updates start + every, start + 2 · every, …, in one float32 vector.

    average ← average + share · (weights − average). For a moving average without the bias of its start, the share of
    the n-th weights is (1 − decay) / (1 − decayⁿ). For the mean, without decay, the share is 1 / n. While the model's
    variables contain the average, `raw` stores the weights from which training continues in host memory.

    Keras saves this object with the weights as an attribute of the model, and ignores it on loading if the model has no
    such attribute.
    """

    def __init__(self, variables: Sequence[Any], *, decay: float | None = None, start: int = 0, every: int = 1):
        self.variables = list(variables)
        self.decay, self.start, self.every = decay, start, every
        self.optimizer: keras.optimizers.Optimizer | None = None
        size = sum(math.prod(v.shape) for v in self.variables)
        options = {"initializer": "zeros", "trainable": False, "aggregation": "only_first_replica"}
        self.count = keras.Variable(shape=(), dtype="float32", name="average_count", **options)
        self.average = keras.Variable(shape=(size,), dtype="float32", name="weight_average", **options)
        self.raw: np.ndarray | None = None

    def belongs_to(self, optimizer: keras.optimizers.Optimizer, variables: Sequence[Any]) -> bool:
        """Return whether this object averages exactly these variables, updated by exactly this optimizer."""
        return self.optimizer is optimizer and [id(v) for v in self.variables] == [id(v) for v in variables]

    def update(self, before: Tensor, after: Tensor) -> None:
        """Add the weights to the average if the number of updates rose from `before` to an `after` that is due."""
        decay = self.decay
        due = ops.logical_and(ops.greater(after, before), ops.greater(after, self.start))
        due = ops.cast(ops.logical_and(due, ops.equal(ops.mod(after - self.start, self.every), 0)), "float32")
        count = self.count + due
        n = ops.maximum(count, 1.0)
        # expm1 is used, because 1 − decayⁿ would cancel half the digits of a float32.
        share = (1 - decay) / -ops.expm1(n * math.log(decay)) if decay else 1.0 if decay == 0 else 1 / n
        weights = ops.concatenate([ops.cast(ops.reshape(v, (-1,)), "float32") for v in self.variables])
        # the general form would lose small weights to cancellation after large ones
        if decay is not None and decay < 0.5:
            average = (1 - share) * self.average + share * weights
            self.average.assign(ops.where(due > 0, average, self.average.value))
        else:
            self.average.assign(self.average + due * share * (weights - self.average))
        self.count.assign(count)

    def swap_in(self, statistics: Sequence[keras.Variable]) -> bool:
        """Assign the average to the variables, and store `statistics` with the raw weights.

        Return False if there is no average, or if the variables contain it already.
        """
        if self.raw is not None or not ops.convert_to_numpy(self.count):
            return False
        self.raw = _read([*self.variables, *statistics])
        for variable, value in zip(self.variables, self._averages(), strict=True):
            variable.assign(value)
        return True

    def swap_out(self, statistics: Sequence[keras.Variable]) -> None:
        """Restore the raw weights or, if the variables no longer contain the average, start a new average."""
        if self.raw is None:
            return
        raw, self.raw = self.raw, None
        ours = all(
            np.array_equal(ops.convert_to_numpy(variable), ops.convert_to_numpy(value))
            for variable, value in zip(self.variables, self._averages(), strict=True)
        )
        if not ours:
            self.count.assign(0.0)
            return
        for variable, part in zip(
            [*self.variables, *statistics], _parts(raw, [*self.variables, *statistics]), strict=True
        ):
            variable.assign(part)

    def _averages(self) -> list[Tensor]:
        """Return the averages in the shapes and dtypes of the variables."""
        parts = _parts(ops.convert_to_numpy(self.average), self.variables)
        return [ops.cast(part, variable.dtype) for part, variable in zip(parts, self.variables, strict=True)]

    def _obj_type(self) -> str:
        return "Operation"  # the simplest type of object that Keras saves

    def save_own_variables(self, store: Any) -> None:
        store["count"] = ops.convert_to_numpy(self.count)
        store["average"] = ops.convert_to_numpy(self.average)
        if self.raw is not None:
            store["raw"] = self.raw

    def load_own_variables(self, store: Any) -> None:
        stored = set(store.keys())
        if {"count", "average"} <= stored:  # without these values, the file was saved before an average existed
            self.count.assign(np.array(store["count"]))
            self.average.assign(np.array(store["average"]))
            self.raw = np.array(store["raw"]) if "raw" in stored else None


class AveragingOptimizer(Wrapper):
    """Wrap a model's optimizer during `fit` with a `WeightAveraging` callback; saving and loading use the inner one."""

    def __init__(self, optimizer: keras.optimizers.Optimizer, average: WeightAverage):
        super().__init__(optimizer, "averaging")
        self.__dict__["weight_average"] = average  # set without Keras's tracking, because the model saves the average
        average.optimizer = optimizer
        for variable in (average.count, average.average):
            self._track_variable(variable)

    def apply(self, grads: Sequence[Any], trainable_variables: Sequence[Any] | None = None) -> None:
        before = self.optimizer.iterations + 0  # a copy: torch counts in place
        super().apply(grads, trainable_variables)
        self.weight_average.update(before, ops.convert_to_tensor(self.optimizer.iterations))

    def stateless_apply(
        self, optimizer_variables: Sequence[Tensor], grads: Sequence[Any], trainable_variables: Sequence[Any]
    ) -> tuple[Any, Any]:
        trainable, new = super().stateless_apply(optimizer_variables, grads, trainable_variables)
        with keras.StatelessScope(state_mapping=zip(self.variables, optimizer_variables, strict=True)):
            before = self.optimizer.iterations + 0  # a copy: torch counts in place
        mapping = [*zip(self.variables, new, strict=True), *zip(self._trainable_variables, trainable, strict=True)]
        with keras.StatelessScope(state_mapping=mapping) as scope:
            self.weight_average.update(before, ops.convert_to_tensor(self.optimizer.iterations))
        return trainable, [scope.get_current_value(variable) for variable in self.variables]

    def save_own_variables(self, store: Any) -> None:
        self.optimizer.save_own_variables(store)

    def load_own_variables(self, store: Any) -> None:
        self.optimizer.load_own_variables(store)

    def get_config(self) -> dict[str, Any]:
        return self.optimizer.get_config()


def _read(variables: Sequence[Any]) -> np.ndarray:
    return np.concatenate([ops.convert_to_numpy(v).ravel() for v in variables], dtype=np.float32)


def _parts(flat: np.ndarray, variables: Sequence[Any]) -> list[np.ndarray]:
    ends = np.cumsum([math.prod(v.shape) for v in variables])
    return [part.reshape(v.shape) for part, v in zip(np.split(flat, ends[:-1]), variables, strict=True)]
