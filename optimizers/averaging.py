"""Averages of the weights along the path of training: what is evaluated and saved in place of the last ones."""

import math

import keras
import numpy as np
from keras import ops
from keras.src.saving.keras_saveable import KerasSaveable


class WeightAveraging(keras.callbacks.Callback):
    """Keeps an average of the weights; puts it in their place while the model is evaluated, at epoch ends and after
    training.

    Put it first among the callbacks, so that `ModelCheckpoint`, `BackupAndRestore` and `EarlyStopping` see the average.
    The moving statistics of batch normalisation are averaged with the weights, or with `data` re-estimated for the
    averaged weights. Weights and backups saved by Keras hold both the average and the raw weights, so that a resumed
    run (same callbacks) goes on exactly as an uninterrupted one; a saved `.keras` file opens as the plain averaged
    model.

    Subclasses define `weight(steps, count)`, the share of the newest weights in the average.

    Args:
        every: updates between two looks at the weights; more is cheaper and hardly differs.
        data: batches of inputs, or of (inputs, …), to re-estimate batch statistics from.
    """

    def __init__(self, *, every: int = 1, data=None):
        super().__init__()
        if every < 1:
            raise ValueError(f"every must be at least 1 update. Got {every}.")
        self.every, self.data = every, data

    def weight(self, steps: int, count: int) -> float:
        """Share of the newest weights, `steps` updates after the last look; `count` updates since the average began."""
        raise NotImplementedError(f"{type(self).__name__} defines no weight(steps, count).")

    def begins(self) -> int:
        """Number of updates after which the average begins."""
        return 0

    def set_model(self, model):
        super().set_model(model)
        variables = _averaged(model)
        state = getattr(model, "weight_average", None)
        if state is None or [id(v) for v in state.variables] != [id(v) for v in variables]:
            model.weight_average = state = _Average(variables)
        self.state = state

    def on_train_begin(self, logs=None):
        self._swap_out()

    def on_epoch_begin(self, epoch, logs=None):
        self._swap_out()

    def on_train_batch_end(self, batch, logs=None):
        state, updates = self.state, int(ops.convert_to_numpy(self.model.optimizer.iterations))
        if updates <= self.begins():
            return
        if state.origin < 0:
            state.origin = state.updates = max(self.begins(), updates - 1)
        steps = updates - state.updates
        if steps >= self.every:
            state.blend(self.weight(steps, updates - state.origin))
            state.updates = updates

    def on_test_begin(self, logs=None):
        self._evaluating = self._swap_in()

    def on_test_end(self, logs=None):
        if self._evaluating:
            self._swap_out()

    def on_epoch_end(self, epoch, logs=None):
        self._swap_in()

    def on_train_end(self, logs=None):
        self._swap_in()

    def _swap_in(self) -> bool:
        model, state = self.model, self.state
        if state.raw is not None or state.average is None:
            return False
        state.swap_in()
        if self.data is not None:
            _reestimate(model, self.data)
        return True

    def _swap_out(self):
        _ = self.model  # on JAX the property copies the trainer's state into the variables
        self.state.swap_out()


class PolyakAveraging(WeightAveraging):
    """The lecture's moving average, x_test ← decay · x_test + (1 − decay) · x after every update.

    From x_test = 0 and with the bias of that start divided out, as Adam does: the share of the newest weights after t
    updates is (1 − decay) / (1 − decayᵗ), and after the first the average is the weights.

    Args:
        decay: in [0, 1); 0.995 remembers about 200 updates.
        every, data: of `WeightAveraging`.

    Source: Polyak and Juditsky, 1992; Kingma and Ba, 2015, section 7.2.

    Example: `model.fit(x, y, callbacks=[optimizers.PolyakAveraging()])`
    """

    def __init__(self, decay: float = 0.995, *, every: int = 1, data=None):
        super().__init__(every=every, data=data)
        if not 0 <= decay < 1:
            raise ValueError(f"decay must be in [0, 1). Got {decay}.")
        self.decay = decay

    def weight(self, steps, count):
        return (1 - self.decay**steps) / (1 - self.decay**count)


class UniformAveraging(WeightAveraging):
    """The mean of the weights after updates start + every, start + 2 · every, …

    Stochastic weight averaging (Izmailov et al., 2018) with `every` the updates of an epoch or of a cycle.

    Args:
        start: the number of updates after which the average begins.
        every, data: of `WeightAveraging`.

    Example: `UniformAveraging(start=30 * n, every=n, data=images)`, n updates an epoch.
    """

    def __init__(self, start: int, *, every: int = 1, data=None):
        super().__init__(every=every, data=data)
        if start < 0:
            raise ValueError(f"start must not be negative. Got {start}.")
        self.start = start

    def begins(self):
        return self.start

    def weight(self, steps, count):
        return steps / count


class _Average(KerasSaveable):
    """The average and, while it is in the model's variables, the raw weights. As a model's attribute Keras saves it
    with the weights, and ignores it where the model has no such attribute."""

    def __init__(self, variables):
        self.variables = variables
        self.average = self.raw = None  # all variables in one flat float32 vector, on the host
        self.origin, self.updates = -1, -1  # counts of updates: where the average begins, where it stands

    def blend(self, weight):
        current = self._read()
        if self.average is None:
            self.average = current
        else:
            current -= self.average
            current *= weight
            self.average += current

    def swap_in(self):
        self.raw = self._read()
        self._write(self.average)

    def swap_out(self):
        if self.raw is not None:
            self._write(self.raw)
            self.raw = None

    def _read(self):
        return np.concatenate([v.numpy().ravel() for v in self.variables], dtype=np.float32)

    def _write(self, flat):
        ends = np.cumsum([math.prod(variable.shape) for variable in self.variables])
        for variable, part in zip(self.variables, np.split(flat, ends[:-1]), strict=True):
            variable.assign(part.reshape(variable.shape))

    def _obj_type(self):
        return "Operation"  # Keras saves objects of the kinds it knows; this is the plainest

    def save_own_variables(self, store):
        store["updates"] = np.array([self.origin, self.updates])
        for name in ("average", "raw"):
            if getattr(self, name) is not None:
                store[name] = getattr(self, name)

    def load_own_variables(self, store):
        stored = set(store.keys())
        if "updates" in stored:  # else saved before there was an average
            self.origin, self.updates = np.array(store["updates"]).tolist()
            self.average, self.raw = (np.array(store[n]) if n in stored else None for n in ("average", "raw"))


def _averaged(model):
    statistics = (
        variable
        for layer in model._flatten_layers()
        if isinstance(layer, keras.layers.BatchNormalization) and layer.trainable
        for variable in layer.non_trainable_variables
    )
    return [*model.trainable_variables, *statistics]


def _reestimate(model, data):
    """Moving statistics := their mean over the batches of `data`, under the present weights."""
    layers = [
        layer
        for layer in model._flatten_layers()
        if isinstance(layer, keras.layers.BatchNormalization) and layer.trainable
    ]
    if not layers:
        return
    momenta = [layer.momentum for layer in layers]
    others = [v for v in model.non_trainable_variables if not any(v is s for layer in layers for s in layer.variables)]
    held = [ops.copy(variable.value) for variable in others]
    try:
        for i, batch in enumerate(data):
            for layer in layers:
                layer.momentum = i / (i + 1)
            model(batch[0] if isinstance(batch, (tuple, list)) else batch, training=True)
    finally:
        for layer, momentum in zip(layers, momenta, strict=True):
            layer.momentum = momentum
        for variable, value in zip(others, held, strict=True):  # the seeds of dropout, which training goes on with
            variable.assign(value)
