"""Updates on JAX by several devices: one function of a batch that lies on all of them, a slice on each."""

from collections.abc import Iterator, Sequence

import jax
import keras

from recipes.training.engines.jax import JaxEngine
from recipes.training.engines.team import Together


class JaxTeam(Together):
    """Devices of this process, by Keras's `DataParallel`."""

    def __init__(self, devices: Sequence[str]):
        self.distribution = keras.distribution.DataParallel(devices=[name.lower() for name in devices])
        self.replicas = len(devices)

    def engine(self, model: keras.Model) -> "ParallelJaxEngine":
        return ParallelJaxEngine(model, self)


class ParallelJaxEngine(JaxEngine):
    """As on one device: JAX computes what is written for the whole batch, and sums over the devices where it must. So
    batch statistics that are trained are the whole batch's, and noise is that of one device.

    A last batch that does not divide by the devices is computed whole by each of them.
    """

    def __init__(self, model: keras.Model, team: JaxTeam):
        super().__init__(model)
        self.team, self.replicas = team, team.replicas
        whole = keras.distribution.TensorLayout((), team.distribution.device_mesh)
        self._everywhere = whole.backend_layout

    def stream(self, batches) -> Iterator:
        return (tuple(map(self._spread, batch)) for batch in self._on_the_way(batches).as_numpy_iterator())

    def _jitted(self, step):
        return jax.jit(step, donate_argnums=0, out_shardings=self._everywhere, compiler_options=self._options())

    def _values(self) -> tuple:
        return jax.device_put(super()._values(), self._everywhere)

    def _spread(self, array):
        if len(array) % self.replicas:
            return jax.device_put(array, self._everywhere)
        return keras.distribution.distribute_tensor(array, self.team.distribution.get_data_layout(array.shape))
