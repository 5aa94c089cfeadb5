"""Compute updates on JAX by one jitted function of a state that stays on the device."""

from collections.abc import Callable, Iterator
from typing import Any

import jax
import keras
import tensorflow as tf

from recipes.training.engines.base import Engine
from recipes.training.engines.jax_parallel import JaxTeam

_MANY = 2_000  # With fewer updates than this, timing kernels to choose the fastest costs more than it saves.
_KINDS = ("trainable_variables", "non_trainable_variables", "optimizer_variables", "metrics_variables")


class JaxEngine(Engine):
    """Update a compiled model on JAX with Keras's own stateless functions, on one device or a `JaxTeam`.

    Between two calls of `settle`, the values are in a state outside the variables. Each update reuses that state's
    memory. The model holds a reference to that state, so that a callback that reads `self.model` sees current
    variables, as in `model.fit`. An update deletes the value of a variable that a callback stored before it.
    """

    def __init__(self, model: keras.Model, team: JaxTeam | None = None) -> None:
        super().__init__(model)
        self._team = team
        self._state: tuple | None = None
        self._update: Callable[[tuple, Any], tuple[dict[str, Any], tuple]] = model.train_step
        self.replicas = team.replicas if team else 1

    def build(self, batches: tf.data.Dataset) -> None:
        self.reset()
        self.make_variables(batches)
        step = self.model.train_step
        self._update = self._jitted(step) if self.model.jit_compile else step

    def stream(self, batches: tf.data.Dataset) -> Iterator:
        """Return an iterator over the batches; JAX copies the next batch while it computes earlier steps."""
        arrays = self.for_transfer(batches).as_numpy_iterator()
        if self._team is None:
            return map(jax.device_put, arrays)
        spread = self._team.spread
        return (tuple(map(spread, batch)) for batch in arrays)

    def step(self, batch: Any) -> dict[str, Any]:
        model = self.model
        if self._state is None or model._jax_state_synced:  # a callback has read the variables and may have set them
            self._state = self._values()
        logs, self._state = self._update(self._state, batch)
        model._jax_state, model._jax_state_synced = dict(zip(_KINDS, self._state, strict=True)), False
        return logs

    def settle(self) -> None:
        self.model.jax_state_sync()
        self.reset()

    def reset(self) -> None:
        self._state, self.model._jax_state, self.model._jax_state_synced = None, None, True

    def ran_out_of_memory(self, error: Exception) -> bool:
        exhausted = isinstance(error, jax.errors.JaxRuntimeError) and "RESOURCE_EXHAUSTED" in str(error)
        return exhausted or super().ran_out_of_memory(error)

    def _jitted(self, step: Callable) -> Callable:
        layout = {"out_shardings": self._team.everywhere} if self._team else {}
        return jax.jit(step, donate_argnums=0, compiler_options=self._options(), **layout)

    def _options(self) -> dict | None:
        """Return compiler options that skip XLA's timing of kernels for a short training, because it takes a minute."""
        return {"xla_gpu_autotune_level": 0} if self.device == "GPU" and self.updates < _MANY else None

    def _values(self) -> tuple:
        """Return the variables' values in the form that an update returns; any other form causes a recompilation."""
        model = self.model
        groups = (
            model.trainable_variables, model.non_trainable_variables, model.optimizer.variables,
            model.metrics_variables,
        )  # fmt: skip
        values = tuple([v.value for v in variables] for variables in groups)
        return jax.device_put(values, self._team.everywhere) if self._team else values
