"""Train on several TensorFlow devices; the sum over their slices of the batch equals the update of one device."""

import math
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import keras
import tensorflow as tf

from recipes.training.engines.base import Engine
from recipes.training.engines.team import DeviceTeam

_STRIDE = 0x9E3779B9  # difference between the noise seeds of two consecutive replicas


class MirroredTeam(DeviceTeam):
    """Hold devices of this process and the TensorFlow strategy that sums over them."""

    strategy: tf.distribute.Strategy

    def __init__(self, devices: Sequence[str]) -> None:
        # The default reduction would fail: its groups collide with those of another strategy in this process.
        sums = tf.distribute.NcclAllReduce() if "GPU" in devices[0] else tf.distribute.ReductionToOneDevice()
        self.strategy = tf.distribute.MirroredStrategy(list(devices), cross_device_ops=sums)

    @property
    def replicas(self) -> int:
        return self.strategy.num_replicas_in_sync

    def engine(self, model: keras.Model) -> "MirroredEngine":
        return MirroredEngine(model, self)


class MirroredEngine(Engine):
    """Update a model by the gradient of the whole batch's mean loss, computed by the devices of a `MirroredTeam`.

    Every replica computes the gradient of its slice's mean loss, times the slice's share of the batch. The sum over all
    replicas is the gradient of the whole batch, up to rounding, even if the slices have different sizes. Only the
    variables of this process's first device are trained, averaged, saved and restored. The other devices receive a copy
    with each step. Trained batch statistics are synchronised. Each replica draws different noise.
    """

    def __init__(self, model: keras.Model, team: MirroredTeam) -> None:
        super().__init__(model)
        self.team, self.replicas = team, team.replicas
        self._state: list[keras.Variable] = []  # variables that an update changes, apart from weights and metrics
        self._has_gradient: list[bool] = []  # one entry for each trainable variable, set while the update is traced
        self._compiled = False
        self._step: Callable[[Any], dict[str, Any]] = model.train_step

    def build(self, batches: tf.data.Dataset) -> None:
        self.make_variables(batches)
        model, metrics = self.model, {id(v) for v in self.model.metrics_variables}
        self._state = list({id(v): v for v in model.non_trainable_variables if id(v) not in metrics}.values())
        with _synchronised(model) as synchronised:
            self._compiled = bool(model.jit_compile) and not synchronised  # XLA cannot wait for other devices
            spec = self._distributed(batches).element_spec
            self._step = tf.function(self._update, input_signature=[spec], autograph=False).get_concrete_function()

    def stream(self, batches: tf.data.Dataset) -> Iterator:
        return iter(self._distributed(batches))

    def step(self, batch: Any) -> dict[str, Any]:
        return self._step(batch)

    def _distributed(self, batches: tf.data.Dataset) -> Any:
        """Return a distributed dataset that prefetches one slice of each batch to each replica's device."""
        devices = len(self.team.strategy.extended.worker_devices)
        slices = self.for_transfer(batches).flat_map(lambda *batch: _slices(*batch, count=devices))
        blank = tf.nest.map_structure(
            lambda spec: tf.zeros([n or 1 for n in spec.shape], spec.dtype), slices.element_spec
        )
        # The dataset is endless. Otherwise, every step would check on all devices whether it has ended.
        endless = slices.concatenate(tf.data.Dataset.from_tensors(blank).repeat())
        return self.team.strategy.distribute_datasets_from_function(lambda context: endless)

    def _update(self, batch: Any) -> dict[str, Any]:
        model, strategy = self.model, self.team.strategy
        weights = _flat([variable.value for variable in model.trainable_variables])
        state = [tf.convert_to_tensor(variable.value) for variable in self._state]
        scale = model.optimizer.scale_loss(tf.ones(()))  # replicas cannot read the optimizer's variable
        results = strategy.run(self._replica, args=(weights, state, scale, *batch))
        gradients, metrics, state = tf.nest.map_structure(
            lambda values: strategy.experimental_local_results(values)[0], results
        )
        gradients = iter(gradients)
        model.optimizer.apply(
            [next(gradients) if exists else None for exists in self._has_gradient], model.trainable_variables
        )
        for variable, value in zip(self._state, state, strict=True):
            variable.assign(value)
        for variable, value in zip(model.metrics_variables, metrics, strict=True):
            variable.assign(variable.value + value)
        return model.get_metrics_result()

    def _replica(self, weights: Any, state: Any, scale: Any, images: Any, labels: Any, share: Any) -> tuple:
        """Return the summed gradients, the summed additions to the metrics, and this replica's state."""
        context = tf.distribute.get_replica_context()
        number = tf.convert_to_tensor(context.replica_id_in_sync_group)
        noisy = [_noise_of(number, v, value) for v, value in zip(self._state, state, strict=True)]
        compute = tf.function(self._gradients, jit_compile=True, autograph=False) if self._compiled else self._gradients
        gradients, metrics, after = compute(weights, noisy, scale, images, labels, share)
        after = [s + (a - n) if _is_seed(v) else a for v, s, n, a in zip(self._state, state, noisy, after, strict=True)]
        self._has_gradient = [gradient is not None for gradient in gradients]
        gradients = [tf.convert_to_tensor(gradient) for gradient in gradients if gradient is not None]
        total = context.all_reduce(tf.distribute.ReduceOp.SUM, [*gradients, *metrics])
        return total[: len(gradients)], total[len(gradients) :], after

    def _gradients(self, weights: Any, state: Any, scale: Any, images: Any, labels: Any, share: Any) -> tuple:
        """Return the gradients of share · loss of the slice, its additions to the metrics, and the new state."""
        model, weights = self.model, _parts(weights, self.model.trainable_variables)
        metrics = model.metrics_variables
        variables = [*model.trainable_variables, *self._state, *metrics]
        values = [*weights, *state, *(tf.zeros(v.shape, v.dtype) for v in metrics)]
        with tf.GradientTape(watch_accessed_variables=False) as tape:
            tape.watch(weights)
            with keras.StatelessScope(list(zip(variables, values, strict=True))) as scope:
                outputs = model(images, training=True)
                factors = tf.fill(tf.shape(images)[:1], float(self.team.replicas))  # Keras divides by replicas
                loss: Any = model.compute_loss(images, labels, outputs, factors, training=True)
                scaled = loss * tf.cast(share * scale, loss.dtype)
                next(m for m in model.metrics if m.name == "loss").update_state(loss, tf.shape(images)[0])
                model.compute_metrics(images, labels, outputs)
        is_real = share > 0
        added = [tf.where(is_real, scope.get_current_value(v), tf.zeros(v.shape, v.dtype)) for v in metrics]
        return tape.gradient(scaled, weights), added, [scope.get_current_value(v) for v in self._state]


def _slices(images: tf.Tensor, labels: tf.Tensor, total: Any = None, *, count: int) -> tf.data.Dataset:
    """Split a batch into `count` slices (images, labels, share of the batch); a blank image fills an empty slice.

    Args:
        images: This process's images of the batch.
        labels: Their labels.
        total: Number of images of the batch on all workers; default: that of `images`.
        count: Number of slices.
    """
    n: Any = tf.shape(images, tf.int64)[0]  # Any: the stubs lack operators of tensors
    total = n if total is None else total

    def one(index: Any) -> tuple:
        begin = index * (n // count) + tf.minimum(index, n % count)
        size = n // count + tf.cast(index < n % count, n.dtype)
        parts = [part[begin : begin + size] for part in (images, labels)]
        blank = [tf.zeros((1, *part.shape[1:]), part.dtype) for part in parts]
        return *tf.cond(size > 0, lambda: parts, lambda: blank), tf.cast(size / total, tf.float32)

    return tf.data.Dataset.range(count).map(tf.autograph.experimental.do_not_convert(one))


@contextmanager
def _synchronised(model: keras.Model) -> Iterator[Sequence[keras.layers.Layer]]:
    """Synchronise the trained batch statistics over all replicas, and yield the layers that have them.

    The setting is temporary because other backends refuse to load a model that was saved with it.
    """
    layers = [
        layer for layer in model._flatten_layers()
        if isinstance(layer, keras.layers.BatchNormalization) and layer.trainable and not layer.synchronized
    ]  # fmt: skip
    for layer in layers:
        layer.synchronized = True
    try:
        yield layers
    finally:
        for layer in layers:
            layer.synchronized = False


def _is_seed(variable: keras.Variable) -> bool:
    return variable.name == "seed_generator_state"


def _noise_of(replica: Any, variable: keras.Variable, value: Any) -> Any:
    """Return a replica's noise seed if the variable is a seed, else the variable's value."""
    if not _is_seed(variable):
        return value
    stride = tf.cast(tf.constant(_STRIDE, tf.int64), value.dtype)
    return value + tf.stack([tf.cast(replica, value.dtype) * stride, tf.zeros((), value.dtype)])


def _flat(tensors: Sequence[tf.Tensor]) -> list[tf.Tensor]:
    """Concatenate the tensors of each dtype into one vector, which is copied to another device in one transfer."""
    return [tf.concat([tf.reshape(t, [-1]) for t in tensors if t.dtype == kind], 0) for kind in _kinds(tensors)]


def _parts(flat: Sequence[tf.Tensor], variables: Sequence[keras.Variable]) -> list[tf.Tensor]:
    """Split the vectors that `_flat` returned into tensors again."""
    found = {}
    for vector in flat:
        indices = [i for i, v in enumerate(variables) if v.value.dtype == vector.dtype]
        parts = tf.split(vector, [math.prod(variables[i].shape) for i in indices])
        found |= {i: tf.reshape(part, variables[i].shape) for i, part in zip(indices, parts, strict=True)}
    return [found[i] for i in range(len(variables))]


def _kinds(tensors: Sequence[tf.Tensor]) -> list[tf.DType]:
    return sorted({t.dtype for t in tensors}, key=str)
