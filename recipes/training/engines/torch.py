"""Updates on torch, operation by operation."""

import numpy as np
import tensorflow as tf
import torch

from recipes.training.engines.base import Engine


class TorchEngine(Engine):
    """Updates of a compiled model on torch."""

    def build(self, batches: tf.data.Dataset) -> None:
        self._make_variables(batches.element_spec[1].shape[-1])
        self._learning = False

    def stream(self, batches: tf.data.Dataset):
        return (tuple(map(self._put, batch)) for batch in self._on_the_way(batches).as_numpy_iterator())

    def step(self, batch) -> dict:
        if not self._learning:
            self.model.train()  # for layers that hold modules of torch
            self._learning = True
        return self.model.train_step(batch)

    def settle(self) -> None:
        self.model.eval()
        self._learning = False

    def ran_out_of_memory(self, error: Exception) -> bool:
        ours = isinstance(error, torch.OutOfMemoryError) or "can't allocate memory" in str(error)
        return ours or super().ran_out_of_memory(error)

    def _put(self, array: np.ndarray):
        """On the device; from pinned memory, so that the host does not wait for the steps before."""
        tensor = torch.from_numpy(np.array(array))
        if self.device == "CPU":
            return tensor
        device = self.model.variables[0].value.device
        return tensor.pin_memory().to(device, non_blocking=True) if device.type == "cuda" else tensor.to(device)
