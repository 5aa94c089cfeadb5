"""Compute updates on torch, one operation at a time."""

from collections.abc import Iterator
from typing import Any

import keras
import numpy as np
import tensorflow as tf
import torch

from recipes.training.engines.base import Engine


class TorchEngine(Engine):
    """Update a compiled model on torch, on one device."""

    def __init__(self, model: keras.Model) -> None:
        super().__init__(model)
        self._in_training_mode = False

    def build(self, batches: tf.data.Dataset) -> None:
        self.make_variables(batches)

    def stream(self, batches: tf.data.Dataset) -> Iterator:
        return (tuple(map(self._put, batch)) for batch in self.for_transfer(batches).as_numpy_iterator())

    def step(self, batch: Any) -> dict[str, Any]:
        if not self._in_training_mode:
            self.model.train()  # layers may contain torch modules
            self._in_training_mode = True
        return self.model.train_step(batch)

    def settle(self) -> None:
        self.model.eval()
        self._in_training_mode = False

    def ran_out_of_memory(self, error: Exception) -> bool:
        exhausted = isinstance(error, torch.OutOfMemoryError) or "can't allocate memory" in str(error)
        return exhausted or super().ran_out_of_memory(error)

    def _put(self, array: np.ndarray) -> torch.Tensor:
        """Copy the array to the device, through pinned memory, so that the host does not wait for earlier steps."""
        tensor = torch.from_numpy(np.array(array))
        if self.device == "CPU":
            return tensor
        device = self.model.variables[0].value.device
        return tensor.pin_memory().to(device, non_blocking=True) if device.type == "cuda" else tensor.to(device)
