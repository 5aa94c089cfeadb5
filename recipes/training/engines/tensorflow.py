"""Compute each update on TensorFlow by one compiled function."""

from collections.abc import Callable, Iterator
from typing import Any

import keras
import tensorflow as tf

from recipes.training.engines.base import Engine

AHEAD = 2  # number of batches that are copied to the device before they are needed


class TensorflowEngine(Engine):
    """Update a compiled model on TensorFlow, on one device."""

    def __init__(self, model: keras.Model) -> None:
        super().__init__(model)
        self._step: Callable[[Any], dict[str, Any]] = model.train_step

    def build(self, batches: tf.data.Dataset) -> None:
        self.make_variables(batches)
        self._step = tf.function(
            self.model.train_step, input_signature=[self.for_transfer(batches).element_spec], autograph=False,
            jit_compile=self.model.jit_compile,
        )  # fmt: skip

    def stream(self, batches: tf.data.Dataset) -> Iterator:
        batches = self.for_transfer(batches)
        if self.device != "CPU":
            batches = batches.apply(tf.data.experimental.prefetch_to_device(f"/{self.device}:0", AHEAD))
        return iter(batches)

    def step(self, batch: Any) -> dict[str, Any]:
        return self._step(batch)
