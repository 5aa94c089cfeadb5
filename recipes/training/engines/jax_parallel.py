"""Train on several JAX devices of one process; each device holds a slice of every batch."""

from collections.abc import Sequence
from typing import Any

import jax
import keras

from recipes.training.engines.team import DeviceTeam


class JaxTeam(DeviceTeam):
    """Share every update among devices of this process, through Keras's `DataParallel`.

    The program is written for the whole batch; JAX sums over the devices where necessary. Trained batch statistics are
    therefore those of the whole batch, and noise is the same as on one device.
    """

    def __init__(self, devices: Sequence[str]) -> None:
        self.distribution = keras.distribution.DataParallel(devices=[name.lower() for name in devices])
        self._devices = len(devices)
        whole = keras.distribution.TensorLayout((), self.distribution.device_mesh)
        self.everywhere = whole.backend_layout

    @property
    def replicas(self) -> int:
        return self._devices

    def spread(self, array: Any) -> Any:
        """Return the array with a slice on each device, or a full copy on each if its length does not divide evenly."""
        if len(array) % self.replicas:
            return jax.device_put(array, self.everywhere)
        return keras.distribution.distribute_tensor(array, self.distribution.get_data_layout(array.shape))
