"""Several devices of one process on JAX: every batch lies on all of them, a slice on each."""

from collections.abc import Sequence
from typing import Any

import jax
import keras

from recipes.training.engines.team import DeviceTeam


class JaxTeam(DeviceTeam):
    """Devices of this process that share every update, through Keras's `DataParallel`.

    JAX computes what is written for the whole batch and sums over the devices where it must. Batch statistics that are
    trained are therefore those of the whole batch, and noise is that of one device.
    """

    def __init__(self, devices: Sequence[str]) -> None:
        self.distribution = keras.distribution.DataParallel(devices=[name.lower() for name in devices])
        self.replicas = len(devices)
        whole = keras.distribution.TensorLayout((), self.distribution.device_mesh)
        self.everywhere = whole.backend_layout

    def spread(self, array: Any) -> Any:
        """Return the array with a slice on each device, or whole on each where it does not divide."""
        if len(array) % self.replicas:
            return jax.device_put(array, self.everywhere)
        return keras.distribution.distribute_tensor(array, self.distribution.get_data_layout(array.shape))
