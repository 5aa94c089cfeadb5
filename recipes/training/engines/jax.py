"""Updates on JAX: one jitted function of a state that lives on the device."""

import jax
import tensorflow as tf

from recipes.training.engines.base import Engine

_MANY = 2_000  # updates, from which on it pays to have their kernels chosen by trial
_KINDS = ("trainable_variables", "non_trainable_variables", "optimizer_variables", "metrics_variables")


class JaxEngine(Engine):
    """Updates of a compiled model on JAX, in Keras's own way.

    Between `settle`s the numbers are in a state outside of the variables, whose memory each update uses again. The
    model knows of it, so that a callback that asks for its `self.model` meets variables that are up to date, as in
    `model.fit`; variables that it has kept from before are empty.
    """

    def build(self, batches: tf.data.Dataset) -> None:
        self.reset()
        self._make_variables(batches.element_spec[1].shape[-1])
        step = self.model.train_step
        self._update = self._jitted(step) if self.model.jit_compile else step

    def stream(self, batches: tf.data.Dataset):
        """JAX copies to the device while the steps before are computed."""
        return map(jax.device_put, self._on_the_way(batches).as_numpy_iterator())

    def step(self, batch) -> dict:
        model = self.model
        if self._state is None or model._jax_state_synced:  # someone has seen the variables, and may have changed them
            self._state = self._values()
        logs, self._state = self._update(self._state, batch)
        model._jax_state, model._jax_state_synced = dict(zip(_KINDS, self._state, strict=True)), False
        return logs

    def _jitted(self, step):
        return jax.jit(step, donate_argnums=0, compiler_options=self._options())

    def _options(self) -> dict | None:
        """A short training on a GPU takes kernels as they come: XLA times the candidates for a minute and more."""
        return {"xla_gpu_autotune_level": 0} if self.device == "GPU" and self.updates < _MANY else None

    def _values(self) -> tuple:
        """The state that the variables hold, in the form that an update returns it: in another JAX compiles again."""
        model = self.model
        groups = (
            model.trainable_variables, model.non_trainable_variables, model.optimizer.variables,
            model.metrics_variables,
        )  # fmt: skip
        return tuple([v.value for v in variables] for variables in groups)

    def settle(self) -> None:
        self.model.jax_state_sync()
        self.reset()

    def reset(self) -> None:
        self._state, self.model._jax_state, self.model._jax_state_synced = None, None, True

    def ran_out_of_memory(self, error: Exception) -> bool:
        ours = isinstance(error, jax.errors.JaxRuntimeError) and "RESOURCE_EXHAUSTED" in str(error)
        return ours or super().ran_out_of_memory(error)
