"""Define the interface through which a training computes its updates on every backend of Keras."""

from abc import ABC, abstractmethod
from collections.abc import Iterator
from typing import Any

import keras
import tensorflow as tf

from recipes.core.devices import accelerator


class Engine(ABC):
    """Updates of a compiled model.

    Call `build` once the callbacks have the model, then `step` for each batch of the `stream`. The device may not have
    computed the returned metrics yet; reading a value waits for the device.

    Attributes:
        device: Kind of device that trains: "CPU", "GPU" or "TPU".
        shard: (index, count) of the slice of every batch that this process prepares.
        replicas: Number of devices on all hosts that share a batch.
        updates: Number of planned updates; 0 if unknown.
        drift: Largest difference between a weight here and the same weight in the leading process.
    """

    shard: tuple[int, int] = (0, 1)
    replicas: int = 1
    updates: int = 0
    drift: float = 0.0

    def __init__(self, model: keras.Model) -> None:
        self.model, self.device = model, accelerator() or "CPU"

    @abstractmethod
    def build(self, batches: tf.data.Dataset) -> None:
        """Create the variables of the optimizer and the metrics, and compile the update.

        Args:
            batches: A dataset with the element specification of the training batches: (images, soft labels).
        """

    @abstractmethod
    def stream(self, batches: tf.data.Dataset) -> Iterator:
        """Return an iterator over the batches that moves some of them to the device ahead of time."""

    @abstractmethod
    def step(self, batch: Any) -> dict[str, Any]:
        """Compute one update and return the metrics of the epoch so far, including the loss."""

    def announce(self, task: dict[str, Any]) -> None:  # noqa: B027  (only engines with followers send it)
        """Send the description of the next training to the processes that follow this one."""

    def follow(self, stream: Iterator) -> None:
        """Take part in the steps of the leading process until that process ends the training."""
        raise NotImplementedError(
            f"{type(self).__name__} trains in one process; expected the engine of a cluster, ClusterEngine"
        )

    def settle(self) -> None:  # noqa: B027  (only engines that hold their state elsewhere implement it)
        """Write the result of the last step to the variables of the model, the optimizer and the metrics.

        The next step starts from the values of these variables, which a callback may change.
        """

    def reset(self) -> None:  # noqa: B027  (likewise)
        """Discard the state after a failed step; the caller assigns the variables before the next step."""

    def ran_out_of_memory(self, error: Exception) -> bool:
        """Return whether `error` means that the device's memory is exhausted."""
        return isinstance(error, tf.errors.ResourceExhaustedError)

    def make_variables(self, batches: tf.data.Dataset) -> None:
        """Create the variables of the optimizer and of the metrics."""
        self.model.optimizer.build(self.model.trainable_variables)
        labels: Any = batches.element_spec[1]  # pyright: ignore[reportIndexIssue,reportArgumentType]  stubs: any nest
        blank = keras.ops.zeros((1, labels.shape[-1]))
        self.model.compute_metrics(None, blank, blank)
        self.model.reset_metrics()

    def for_transfer(self, batches: tf.data.Dataset) -> tf.data.Dataset:
        """Return the batches in the form in which they travel to the device.

        For networks that compute in 16 bits, images travel as whole numbers, in a quarter of the bytes. The network
        loses no precision, because bfloat16 has 8 significant bits. The first layer casts the numbers.
        """
        if self.device == "CPU" or keras.config.dtype_policy().compute_dtype == "float32":
            return batches
        return batches.map(lambda images, *rest: (tf.saturate_cast(tf.round(images), tf.uint8), *rest))
