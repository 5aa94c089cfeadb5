"""Compute a Keras model's loss over a dataset, and its derivatives, as functions of flat trainable variables."""

import copy
from collections.abc import Callable, Iterator, Sequence
from typing import Any, TypeAlias

import keras
import numpy as np
from keras.src.losses.losses import LossFunctionWrapper

from .hessian import hessian_product
from .parameters import dense, is_kernel
from .tensors import Tensor, ops, tree

CHUNK = 1024  # number of examples in a chunk
Batch: TypeAlias = tuple[Any, Any, Any]  # x, y, and weights or None, as in Keras's batches


class ModelObjective:
    """Compute Σ wᵢ lossᵢ / Σ wᵢ + l2/2 · Σ kernel² and its gradient at flat weights, with a Keras model.

    Args:
        model: a built `keras.Model` of one output.
        batches: a function that returns an iterator of (x, y, weights or None).
        loss: as for `model.compile`.
        l2: penalty on the squared kernels.
    """

    def __init__(self, model: keras.Model, batches: Callable[[], Iterator[Batch]], loss: Any, l2: float):
        self.variables, self.batches, self.l2 = model.trainable_variables, batches, l2
        self.sizes = [int(np.prod(v.shape)) for v in self.variables]
        self.penalised = np.repeat([float(is_kernel(v)) for v in self.variables], self.sizes)
        self.precision = max(_rounding(layer.compute_dtype) for layer in model._flatten_layers())
        self.gradients = _GradientReader()
        self.calculator = _Calculator(model, loss)
        # Only JAX compiles, because its eager mode is slow. Loss scaling is off, because it would skip large gradients.
        jit: Any = keras.backend.backend() == "jax"
        self.calculator.compile(optimizer=self.gradients, loss=None, jit_compile=jit, auto_scale_loss=False)

    def position(self) -> np.ndarray:
        """Return the flat weights of the model."""
        return np.concatenate([ops.convert_to_numpy(v).ravel() for v in self.variables]).astype(np.float64)

    def move(self, flat: np.ndarray) -> None:
        """Assign flat weights to the model."""
        for variable, part in zip(self.variables, self._split(flat), strict=True):
            variable.assign(ops.cast(part.astype(np.float32), variable.dtype))

    def __call__(self, flat: np.ndarray) -> tuple[float, np.ndarray]:
        self.move(flat)
        total, count, gradient = 0.0, 0.0, np.zeros(flat.size)
        for x, y, weights in self.batches():
            self.calculator.reset_metrics()
            logs = self.calculator.train_on_batch(x, y, sample_weight=weights, return_dict=True)
            total += float(logs["loss"])
            gradient += self.gradients.read()
            count += _count(x, weights)
        if not count > 0:
            raise ValueError("No example has a positive weight, so there is no loss to minimise. Pass at least one.")
        kernels: Any = self.penalised * flat
        return total / count + self.l2 / 2 * kernels @ kernels, gradient / count + self.l2 * kernels

    def hessian_product(self, flat: np.ndarray, vector: Any) -> np.ndarray:
        """Return the exact ∇²f(flat) · vector, by the backend's automatic differentiation."""
        self.move(flat)
        parts = [part.astype(np.float32) for part in self._split(vector)]
        product, count = np.zeros(flat.size), 0.0
        for x, y, weights in self.batches():
            change = hessian_product(self.calculator, self.variables, parts, x, y, weights)
            product += np.concatenate([ops.convert_to_numpy(part).ravel() for part in change])
            count += _count(x, weights)
        return product / count + self.l2 * self.penalised * vector

    def refuse_noise(self, flat: np.ndarray) -> None:
        """Raise ValueError if two evaluations at the same weights differ by more than rounding."""
        first, second = self(flat)[0], self(flat)[0]
        if abs(first - second) > 10 * self.precision * abs(first):
            raise ValueError(
                f"The loss of the same weights was {first:.8g}, then {second:.8g}, but a full-batch minimiser needs "
                f"a function without noise. Remove layers that are random in inference mode (Monte-Carlo dropout). "
                f"Remove augmentation, and shuffling with a dropped remainder, from the dataset. Otherwise use a "
                f"stochastic optimizer."
            )

    def _split(self, flat: np.ndarray) -> list[Any]:
        parts = np.split(flat, np.cumsum(self.sizes)[:-1])
        return [part.reshape(v.shape) for part, v in zip(parts, self.variables, strict=True)]


def batches_of(x: Any, y: Any, sample_weight: Any) -> Callable[[], Iterator[Batch]]:
    """Return a function that iterates over (x, y, weights or None): chunks of arrays, or an iterable's batches.

    Raises:
        ValueError: If the iterable can be read only once.
    """
    if y is not None:
        return lambda: _chunks(x, y, sample_weight)
    if sample_weight is not None:
        raise ValueError("Sample weights of batches must be their third element: (x, y, weights).")
    if hasattr(x, "__next__"):
        raise ValueError(
            f"A minimiser reads the data many times, but a {type(x).__name__} can be read only once. Pass arrays, a "
            f"list of "
            "batches, a PyDataset or a tf.data.Dataset."
        )
    if isinstance(x, keras.utils.PyDataset):
        return lambda: (_triple(x[i]) for i in range(x.num_batches))
    return lambda: (_triple(batch) for batch in x)


def _triple(batch: Any) -> Batch:
    if not isinstance(batch, (tuple, list)) or len(batch) not in (2, 3):
        raise ValueError(f"Batches must be (x, y) or (x, y, weights). Got a {type(batch).__name__}.")
    x, y, weights = (*batch, None)[:3]
    return x, y, weights


def _chunks(x: Any, y: Any, sample_weight: Any) -> Iterator[Batch]:
    data = (x, y) if sample_weight is None else (x, y, sample_weight)
    lengths = {len(array) for array in tree.flatten(data)}
    if len(lengths) != 1:
        raise ValueError(f"x, y and sample_weight must have the same number of examples. Got {sorted(lengths)}.")
    for at in range(0, lengths.pop(), CHUNK):
        yield _triple(tree.map_structure(lambda array, at=at: array[at : at + CHUNK], data))


def _count(x: Any, weights: Any) -> float:
    if weights is not None:
        return float(np.sum(ops.convert_to_numpy(weights), dtype=np.float64))
    return len(tree.flatten(x)[0])


def _rounding(dtype: str) -> float:
    """Return the relative rounding error of a number of this type."""
    digits = {"bfloat16": 8, "float16": 11, "float32": 24, "float64": 53}
    return 0.5 ** digits.get(dtype, 24)


class _Calculator(keras.Model):
    """Wrap a model in inference mode, so that `train_on_batch` computes its gradient on every backend.

    The loss of a batch is the weighted sum over its examples. The loss of an example with many outputs is their mean.
    """

    def __init__(self, model: keras.Model, loss: Any):
        super().__init__(name="objective", autocast=False)
        no_reduction: Any = None
        loss = keras.losses.get(loss)
        if isinstance(loss, keras.losses.Loss):
            loss = copy.copy(loss)
            loss.reduction = no_reduction
        else:  # gives the targets the rank of the outputs, as compile() does
            loss = LossFunctionWrapper(loss, reduction=no_reduction)
        self.model, self.per_example = model, loss

    def call(self, x: Any) -> Tensor:
        return self.model(x, training=False)

    def compute_loss(
        self, x: Any = None, y: Any = None, y_pred: Tensor = None, sample_weight: Any = None, training: bool = True
    ) -> Tensor:
        values = self.per_example(y, y_pred)
        size = ops.shape(y_pred)[0]
        if len(values.shape) == 0:
            if sample_weight is not None:
                raise ValueError(
                    "Sample weights need a loss for each example. Pass a function (y_true, y_pred) → (batch,)."
                )
            return (values + sum(self.losses)) * ops.cast(size, values.dtype)
        values = ops.mean(ops.reshape(values, (size, -1)), 1)
        if sample_weight is None:
            return ops.sum(values) + sum(self.losses) * ops.cast(size, values.dtype)
        weights = ops.cast(ops.reshape(sample_weight, (-1,)), values.dtype)
        return ops.sum(weights * values) + sum(self.losses) * ops.sum(weights)


class _GradientReader(keras.optimizers.Optimizer):
    """Store the gradients without changing the variables."""

    def __init__(self):
        super().__init__(learning_rate=0.0, name="gradient_reader")

    def build(self, variables: Sequence[Any]) -> None:
        super().build(variables)
        self.slots = self.add_optimizer_variables(variables, "gradient")

    def update_step(self, gradient: Tensor, variable: Any, learning_rate: Tensor) -> None:
        self.assign(self.slots[self._get_variable_index(variable)], dense(gradient))

    def read(self) -> np.ndarray:
        return np.concatenate([ops.convert_to_numpy(slot).ravel() for slot in self.slots]).astype(np.float64)
