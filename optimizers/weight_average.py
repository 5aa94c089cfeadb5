"""An average of weights that the training step itself keeps, and what of it must be saved."""

import math

import keras
import numpy as np
from keras import ops
from keras.src.saving.keras_saveable import KerasSaveable

from .wrapper import Wrapper


class WeightAverage(KerasSaveable):
    """The average of `variables` after updates start + every, start + 2 · every, …, all in one float32 vector.

    average ← average + share · (weights − average), where the share of the n-th weights is (1 − decay) / (1 − decayⁿ),
    a moving average without the bias of its start, or 1 / n without decay, the mean. While the average is in the
    model's variables, `raw` holds the weights that training goes on with, on the host.

    As a model's attribute Keras saves it with the weights, and ignores it where the model has no such attribute.
    """

    def __init__(self, variables, *, decay: float | None = None, start: int = 0, every: int = 1):
        self.variables, self.rule, self.optimizer = list(variables), (decay, start, every), None
        size = sum(math.prod(v.shape) for v in self.variables)
        options = {"initializer": "zeros", "trainable": False, "aggregation": "only_first_replica"}
        self.count = keras.Variable(shape=(), dtype="float32", name="average_count", **options)
        self.average = keras.Variable(shape=(size,), dtype="float32", name="weight_average", **options)
        self.raw = None

    def belongs_to(self, optimizer, variables) -> bool:
        """Whether it is about these very variables, moved by this very optimizer."""
        return self.optimizer is optimizer and [id(v) for v in self.variables] == [id(v) for v in variables]

    def update(self, before, after):
        """Blend the weights in, where the count of updates has gone from `before` to an `after` that is due."""
        decay, start, every = self.rule
        due = ops.logical_and(ops.greater(after, before), ops.greater(after, start))
        due = ops.cast(ops.logical_and(due, ops.equal(ops.mod(after - start, every), 0)), "float32")
        count = self.count + due
        n = ops.maximum(count, 1.0)
        # expm1: 1 − decayⁿ would cancel to half the digits of a float32.
        share = (1 - decay) / -ops.expm1(n * math.log(decay)) if decay else 1.0 if decay == 0 else 1 / n
        weights = ops.concatenate([ops.cast(ops.reshape(v, (-1,)), "float32") for v in self.variables])
        if decay is not None and decay < 0.5:  # there the form below would cancel after large weights
            average = (1 - share) * self.average + share * weights
            self.average.assign(ops.where(due > 0, average, self.average.value))
        else:
            self.average.assign(self.average + due * share * (weights - self.average))
        self.count.assign(count)

    def swap_in(self, statistics) -> bool:
        """The average into the variables; `statistics` are kept with the raw weights. False where there is nothing to
        do."""
        if self.raw is not None or not ops.convert_to_numpy(self.count):
            return False
        self.raw = _read([*self.variables, *statistics])
        for variable, value in zip(self.variables, self._averages(), strict=True):
            variable.assign(value)
        return True

    def swap_out(self, statistics):
        """The raw weights back; not over weights that are no longer the average, which begins anew from them."""
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

    def _averages(self):
        """In the shapes and dtypes of the variables."""
        parts = _parts(ops.convert_to_numpy(self.average), self.variables)
        return [ops.cast(part, variable.dtype) for part, variable in zip(parts, self.variables, strict=True)]

    def _obj_type(self):
        return "Operation"  # Keras saves objects of the kinds it knows; this is the plainest

    def save_own_variables(self, store):
        store["count"] = ops.convert_to_numpy(self.count)
        store["average"] = ops.convert_to_numpy(self.average)
        if self.raw is not None:
            store["raw"] = self.raw

    def load_own_variables(self, store):
        stored = set(store.keys())
        if {"count", "average"} <= stored:  # else saved before there was an average
            self.count.assign(np.array(store["count"]))
            self.average.assign(np.array(store["average"]))
            self.raw = np.array(store["raw"]) if "raw" in stored else None


class AveragingOptimizer(Wrapper):
    """The optimizer of a model during `fit` with a `WeightAveraging` callback; saves and loads as the one inside."""

    def __init__(self, optimizer, average: WeightAverage):
        super().__init__(optimizer, "averaging")
        vars(self)["weight_average"] = average  # the model saves it
        average.optimizer = optimizer
        for variable in (average.count, average.average):
            self._track_variable(variable)

    def apply(self, grads, trainable_variables=None):
        before = self.optimizer.iterations + 0  # a copy: torch counts in place
        super().apply(grads, trainable_variables)
        self.weight_average.update(before, ops.convert_to_tensor(self.optimizer.iterations))

    def stateless_apply(self, optimizer_variables, grads, trainable_variables):
        trainable, new = super().stateless_apply(optimizer_variables, grads, trainable_variables)
        with keras.StatelessScope(state_mapping=zip(self.variables, optimizer_variables, strict=True)):
            before = self.optimizer.iterations + 0  # a copy: torch counts in place
        mapping = [*zip(self.variables, new, strict=True), *zip(self._trainable_variables, trainable, strict=True)]
        with keras.StatelessScope(state_mapping=mapping) as scope:
            self.weight_average.update(before, ops.convert_to_tensor(self.optimizer.iterations))
        return trainable, [scope.get_current_value(variable) for variable in self.variables]

    def save_own_variables(self, store):
        self.optimizer.save_own_variables(store)

    def load_own_variables(self, store):
        self.optimizer.load_own_variables(store)

    def get_config(self):
        return self.optimizer.get_config()


def _read(variables):
    return np.concatenate([ops.convert_to_numpy(v).ravel() for v in variables], dtype=np.float32)


def _parts(flat, variables):
    ends = np.cumsum([math.prod(v.shape) for v in variables])
    return [part.reshape(v.shape) for part, v in zip(np.split(flat, ends[:-1]), variables, strict=True)]
