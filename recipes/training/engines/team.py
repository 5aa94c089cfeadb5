"""Several devices that share every update: each has a slice of the batch, their sum is what one would compute."""

import math
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, nullcontext
from contextvars import ContextVar

import keras
import tensorflow as tf

from recipes.core.devices import accelerator
from recipes.errors import RecipeError
from recipes.training.engines.base import Engine

_STRIDE = 0x9E3779B9  # between the seeds of two replicas' noise
_TEAM: ContextVar["Together | None"] = ContextVar("team", default=None)


class Together:
    """Devices that share every update. In `with`, models are trained by all of them.

    replicas: how many, of all hosts.
    """

    replicas, hosts = 1, 1

    def engine(self, model: keras.Model) -> Engine:
        raise NotImplementedError

    def __enter__(self):
        self._token = _TEAM.set(self)
        return self

    def __exit__(self, *error):
        _TEAM.reset(self._token)


class Team(Together):
    """Devices of this process on TensorFlow, and the strategy that they reduce by."""

    def __init__(self, devices: Sequence[str]):
        sums = tf.distribute.NcclAllReduce() if "GPU" in devices[0] else tf.distribute.ReductionToOneDevice()
        # not the default, whose groups would collide with those of another strategy in this process
        self.strategy = tf.distribute.MirroredStrategy(list(devices), cross_device_ops=sums)

    @property
    def replicas(self) -> int:
        """Devices of all workers."""
        return self.strategy.num_replicas_in_sync

    def engine(self, model: keras.Model) -> Engine:
        return Replicated(model, self)


def team() -> Together | None:
    """Who trains here; None: one device."""
    return _TEAM.get()


def trainers() -> str:
    """What trains here, in words: of another number of devices the weights differ in bits."""
    among, kind = team() or Together(), accelerator() or "CPU"
    return f"{among.replicas} {kind}" + (f" on {among.hosts} hosts" if among.hosts > 1 else "")


def together(devices):
    """A context in which `devices` train together, see `chosen_devices`; nothing where that is the one that trains
    anyway."""
    names = chosen_devices(devices)
    if names == chosen_devices(None)[:1]:
        return nullcontext()
    if keras.backend.backend() == "jax":
        from recipes.training.engines.jax_parallel import JaxTeam

        return JaxTeam(names)
    return Team(names)


def _listed(kind: str) -> list[str]:
    """Names of the devices of a kind that Keras's backend sees."""
    if keras.backend.backend() == "tensorflow":
        return [":".join(device.name.split(":")[-2:]) for device in tf.config.list_logical_devices(kind)]
    if keras.backend.backend() == "jax":
        there = keras.distribution.list_devices()  # GPUs, or TPUs, or the CPU's
        return [name.upper() for name in there if name.startswith("cpu") == (kind == "CPU")]
    return [f"{kind}:0"] if (kind == "GPU") == (accelerator() == "GPU") else []  # torch trains on one


def chosen_devices(devices, listed=_listed) -> tuple[str, ...]:
    """Names of the devices that are to train: ("GPU:0", "GPU:1").

    devices: None (all GPUs, else the CPU), how many, or names.
    listed:  what lists those of a kind.

    Raises: RecipeError for devices that are not there, none, or one twice.
    """
    gpus = listed("GPU")
    there = gpus or listed("CPU")
    if devices is None:
        return tuple(gpus or there[:1])
    if isinstance(devices, int) and not isinstance(devices, bool):
        asked = there[:devices] if 0 < devices <= len(there) else None
    else:
        asked = [devices] if isinstance(devices, str) else list(devices) if isinstance(devices, list | tuple) else None
    if not asked or len({*asked}) < len(asked) or not {*asked} <= {*there}:
        raise RecipeError(
            f"devices is {devices!r}; expected how many, or names, of {there}, each once; None takes "
            f"{'all of them' if gpus else 'the first'}"
        )
    return tuple(asked)


class Replicated(Engine):
    """Updates by the devices of a `Team`: the gradient of the whole batch's mean loss, and one step of the optimizer.

    Every replica computes the gradient of its slice's mean loss, times the slice's share of the batch; the sum over all
    replicas is the gradient of the whole batch, to the order of floating-point sums, however unevenly it divides. The
    weights are those of this process's first device: one set of variables is trained, averaged, saved and restored, and
    the others get a copy with each step. Batch statistics that are trained are synchronised. Each replica draws noise
    of its own.
    """

    def __init__(self, model: keras.Model, team: Team):
        super().__init__(model)
        self.team, self.replicas = team, team.replicas

    def build(self, batches: tf.data.Dataset) -> None:
        self._make_variables(batches.element_spec[1].shape[-1])
        model, metrics = self.model, {id(v) for v in self.model.metrics_variables}
        self._state = list({id(v): v for v in model.non_trainable_variables if id(v) not in metrics}.values())
        with _synchronised(model) as synchronised:
            self._compiled = bool(model.jit_compile) and not synchronised  # XLA cannot wait for other devices
            spec = self._distributed(batches).element_spec
            self._step = tf.function(self._update, input_signature=[spec], autograph=False).get_concrete_function()

    def stream(self, batches: tf.data.Dataset) -> Iterator:
        return iter(self._distributed(batches))

    def _distributed(self, batches):
        """A slice for each replica at a time; on its device ahead of time."""
        devices = len(self.team.strategy.extended.worker_devices)
        slices = self._on_the_way(batches).flat_map(lambda *batch: _slices(*batch, count=devices))
        blank = tf.nest.map_structure(
            lambda spec: tf.zeros([n or 1 for n in spec.shape], spec.dtype), slices.element_spec
        )
        endless = slices.concatenate(tf.data.Dataset.from_tensors(blank).repeat())  # else each step asks for the end
        return self.team.strategy.distribute_datasets_from_function(lambda context: endless)

    def _update(self, batch):
        model, strategy = self.model, self.team.strategy
        weights = _flat([variable.value for variable in model.trainable_variables])
        state = [tf.convert_to_tensor(variable.value) for variable in self._state]
        scale = model.optimizer.scale_loss(tf.ones(()))  # here, for another device cannot read the optimizer's variable
        results = strategy.run(self._replica, args=(weights, state, scale, *batch))
        gradients, metrics, state = tf.nest.map_structure(
            lambda values: strategy.experimental_local_results(values)[0], results
        )
        gradients = iter(gradients)
        model.optimizer.apply([next(gradients) if there else None for there in self._there], model.trainable_variables)
        for variable, value in zip(self._state, state, strict=True):
            variable.assign(value)
        for variable, value in zip(model.metrics_variables, metrics, strict=True):
            variable.assign(variable.value + value)
        return model.get_metrics_result()

    def _replica(self, weights, state, scale, images, labels, share):
        context = tf.distribute.get_replica_context()
        number = tf.convert_to_tensor(context.replica_id_in_sync_group)
        noisy = [_noise_of(number, v, value) for v, value in zip(self._state, state, strict=True)]
        find = tf.function(self._gradients, jit_compile=True, autograph=False) if self._compiled else self._gradients
        gradients, metrics, after = find(weights, noisy, scale, images, labels, share)
        after = [s + (a - n) if _is_seed(v) else a for v, s, n, a in zip(self._state, state, noisy, after, strict=True)]
        self._there = [gradient is not None for gradient in gradients]
        gradients = [tf.convert_to_tensor(gradient) for gradient in gradients if gradient is not None]
        total = context.all_reduce(tf.distribute.ReduceOp.SUM, [*gradients, *metrics])
        return total[: len(gradients)], total[len(gradients) :], after

    def _gradients(self, weights, state, scale, images, labels, share):
        """Of the slice's loss times its share of the batch; what it adds to the metrics; the state after it."""
        model, weights = self.model, _parts(weights, self.model.trainable_variables)
        metrics = model.metrics_variables
        variables = [*model.trainable_variables, *self._state, *metrics]
        values = [*weights, *state, *(tf.zeros(v.shape, v.dtype) for v in metrics)]
        with tf.GradientTape(watch_accessed_variables=False) as tape:
            tape.watch(weights)
            with keras.StatelessScope(list(zip(variables, values, strict=True))) as scope:
                outputs = model(images, training=True)
                undone = tf.fill(tf.shape(images)[:1], float(self.team.replicas))  # Keras divides by as many
                loss = model.compute_loss(images, labels, outputs, undone, training=True)
                scaled = loss * tf.cast(share * scale, loss.dtype)
                next(m for m in model.metrics if m.name == "loss").update_state(loss, tf.shape(images)[0])
                model.compute_metrics(images, labels, outputs)
        real = share > 0
        added = [tf.where(real, scope.get_current_value(v), tf.zeros(v.shape, v.dtype)) for v in metrics]
        return tape.gradient(scaled, weights), added, [scope.get_current_value(v) for v in self._state]


def _slices(images, labels, whole=None, *, count: int) -> tf.data.Dataset:
    """(images, labels, share of the batch) of each of `count` slices; a blank image of no share where there is none.

    whole: how many images the batch has on all workers; default: these.
    """
    n = tf.shape(images, tf.int64)[0]
    whole = n if whole is None else whole

    def one(index):
        begin = index * (n // count) + tf.minimum(index, n % count)
        size = n // count + tf.cast(index < n % count, n.dtype)
        parts = [part[begin : begin + size] for part in (images, labels)]
        blank = [tf.zeros((1, *part.shape[1:]), part.dtype) for part in parts]
        return *tf.cond(size > 0, lambda: parts, lambda: blank), tf.cast(size / whole, tf.float32)

    return tf.data.Dataset.range(count).map(tf.autograph.experimental.do_not_convert(one))


@contextmanager
def _synchronised(model: keras.Model):
    """The layers whose batch statistics are trained, which reduce them over all replicas meanwhile; a model that was
    saved so would be refused by other backends."""
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


def _is_seed(variable) -> bool:
    return variable.name == "seed_generator_state"


def _noise_of(replica, variable, value):
    """The seed of a replica's noise; anything else as it is."""
    if not _is_seed(variable):
        return value
    stride = tf.cast(tf.constant(_STRIDE, tf.int64), value.dtype)
    return value + tf.stack([tf.cast(replica, value.dtype) * stride, tf.zeros((), value.dtype)])


def _flat(tensors) -> list[tf.Tensor]:
    """One vector of each dtype, which travels to another device at once."""
    return [tf.concat([tf.reshape(t, [-1]) for t in tensors if t.dtype == kind], 0) for kind in _kinds(tensors)]


def _parts(flat, variables) -> list[tf.Tensor]:
    """What `_flat` has put together."""
    found = {}
    for vector in flat:
        mine = [i for i, v in enumerate(variables) if v.value.dtype == vector.dtype]
        parts = tf.split(vector, [math.prod(variables[i].shape) for i in mine])
        found |= {i: tf.reshape(part, variables[i].shape) for i, part in zip(mine, parts, strict=True)}
    return [found[i] for i in range(len(variables))]


def _kinds(tensors) -> list:
    return sorted({t.dtype for t in tensors}, key=str)
