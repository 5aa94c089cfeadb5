"""Intercept the gradients that a model's `train_step` passes to its optimizer.

Keras has no public way to do this, so everything that depends on its internals is in this module:

- `GradientInterceptor` takes the place of the optimizer in the model's `__dict__`. Assigning `model.optimizer` would
  make Keras track it, and save it with the model.
- `ReplicatedUpdate` is an optimizer, because Keras's optimizers know how to change the copies of a variable on all
  replicas of a `tf.distribute` strategy alike.
"""

import threading
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import keras

from .multi_tensor import MultiTensorOptimizer
from .tensors import Tensor, ops


class GradientInterceptor:
    """Replace a model's optimizer, and pass the gradients of `train_step` to a receiver.

    Replicas run in threads that take turns during a pass. Each replica has a separate receiver, and the last one to
    finish restores the optimizer.
    """

    def __init__(self, model: keras.Model):
        self.model = model
        self.optimizer: Any = None  # the model's own optimizer, during a pass
        self._active, self._lock, self._local = 0, threading.Lock(), threading.local()

    @contextmanager
    def receiving(self, receiver: Callable[..., Any]) -> Iterator[None]:
        """Call `receiver` instead of the optimizer inside the context."""
        attributes: dict[str, Any] = self.model.__dict__
        with self._lock:
            if not self._active:
                self.optimizer, attributes["optimizer"] = attributes["optimizer"], self
            self._active += 1
        self._local.receiver = receiver
        try:
            yield
        finally:
            with self._lock:
                self._active -= 1
                if not self._active:
                    attributes["optimizer"] = self.optimizer

    def apply_gradients(self, grads_and_vars: Iterable[tuple[Any, Any]]) -> None:
        self.apply(*zip(*grads_and_vars, strict=True))

    def apply(self, gradients: Sequence[Any], variables: Sequence[Any]) -> None:
        self._local.receiver(list(gradients), list(variables))

    def stateless_apply(self, slots: Any, gradients: Sequence[Any], weights: Any) -> tuple[Any, Any]:
        return self._local.receiver(slots, gradients, weights)

    def __getattr__(self, name: str) -> Any:
        return getattr(self.optimizer, name)


class ReplicatedUpdate(MultiTensorOptimizer):
    """Update variables without a learning rate, in the same way on all replicas."""

    def __init__(self):
        super().__init__(0.0)

    def __call__(self, values: Iterable[Any], variables: Iterable[Any]) -> None:
        values, variables = list(values), list(variables)
        if variables:
            self._backend_update_step(values, variables, 0.0)


class Ascend(ReplicatedUpdate):
    """Add ε to each variable, computed from the gradients after they are summed over the replicas."""

    def __init__(self, ascent: Callable[[Sequence[Tensor], Sequence[Tensor]], list[Tensor]]):
        super().__init__()
        self.ascent = ascent

    def __call__(self, values: Iterable[Any], variables: Iterable[Any]) -> None:
        pairs = [(g, v) for g, v in zip(values, variables, strict=True) if g is not None]
        super().__call__((g for g, _ in pairs), (v for _, v in pairs))

    def _update(self, gradients: Sequence[Any], variables: Sequence[Any], rate: Any) -> None:
        weights = [ops.convert_to_tensor(variable) for variable in variables]
        for variable, w, e in zip(variables, weights, self.ascent(weights, gradients), strict=True):
            variable.assign(w + ops.cast(e, w.dtype))


class Assign(ReplicatedUpdate):
    """Assign a value to each variable; the values are passed instead of gradients."""

    def _all_reduce_sum_gradients(self, grads_and_vars: Any) -> Any:
        return grads_and_vars

    def _update(self, gradients: Sequence[Any], variables: Sequence[Any], rate: Any) -> None:
        for variable, value in zip(variables, gradients, strict=True):
            variable.assign(value)
