"""How one update is computed: what a training asks of the backend that Keras runs on, and TensorFlow's answer."""

from collections.abc import Iterator

import keras
import tensorflow as tf

from recipes.core.devices import accelerator

AHEAD = 2  # batches that are on the device before they are needed


class Engine:
    """Updates of a compiled model, on the TensorFlow backend.

    `build` once the callbacks have the model, then `step` for each batch of the `stream`. What `step` returns may still
    be on its way: it is the reading of a value that waits for the device.

    device: where it trains, in words: "CPU", "GPU".
    shard:  (index, count): which slice of every batch it wants from this process.
    replicas: devices of all hosts that share a batch.
    updates: how many are planned, where it is known.
    """

    shard, replicas, updates = (0, 1), 1, 0

    def __init__(self, model: keras.Model):
        self.model, self.device = model, accelerator() or "CPU"

    def announce(self, task: dict) -> None:
        """Say what is about to be trained, to those who take part in it elsewhere."""

    def build(self, batches: tf.data.Dataset) -> None:
        """The optimizer's and the metrics' variables, and the compiled update.

        batches: such as it will be given: (images, soft labels).
        """
        self._make_variables(batches.element_spec[1].shape[-1])
        self._step = tf.function(
            self.model.train_step, input_signature=[self._on_the_way(batches).element_spec], autograph=False,
            jit_compile=self.model.jit_compile,
        )  # fmt: skip

    def stream(self, batches: tf.data.Dataset) -> Iterator:
        """The batches, some of them on the device ahead of their time."""
        batches = self._on_the_way(batches)
        if self.device != "CPU":
            batches = batches.apply(tf.data.experimental.prefetch_to_device(f"/{self.device}:0", AHEAD))
        return iter(batches)

    def step(self, batch) -> dict:
        """One update; returns the metrics of the epoch so far, loss included."""
        return self._step(batch)

    def settle(self) -> None:
        """From here on the model's, optimizer's and metrics' variables hold what the last step has made of them, and
        the next one begins from what they hold then."""

    def reset(self) -> None:
        """After a step that failed: the variables hold nothing that counts until they are assigned again."""

    def ran_out_of_memory(self, error: Exception) -> bool:
        return isinstance(error, tf.errors.ResourceExhaustedError)

    def _make_variables(self, classes: int) -> None:
        model = self.model
        model.optimizer.build(model.trainable_variables)
        nothing = keras.ops.zeros((1, classes))
        model.compute_metrics(None, nothing, nothing)
        model.reset_metrics()

    def _on_the_way(self, batches: tf.data.Dataset) -> tf.data.Dataset:
        """In the form that travels to the device: whole numbers, a quarter of the bytes, where a network that computes
        in 16 bits would see no finer ones anyway (bfloat16 has 8 of them); the first layer casts them."""
        if self.device == "CPU" or keras.config.dtype_policy().compute_dtype == "float32":
            return batches
        return batches.map(lambda images, *rest: (tf.saturate_cast(tf.round(images), tf.uint8), *rest))


def engine_for(model: keras.Model) -> Engine:
    """The engine of Keras's backend, and of the devices that train together."""
    from recipes.training.engines.team import team

    if together := team():
        return together.engine(model)
    if keras.backend.backend() == "jax":
        from recipes.training.engines.jax import JaxEngine

        return JaxEngine(model)
    if keras.backend.backend() == "torch":
        from recipes.training.engines.torch import TorchEngine

        return TorchEngine(model)
    return Engine(model)
