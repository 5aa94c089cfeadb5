"""What every noise layer shares: a rate, a seed, and being on or off independently of the rest of the model."""

import contextlib
import functools
import inspect
import numbers

import keras

# Noise of other houses, known by class name so that their packages need not be imported (keras.applications' ConvNeXt
# has a StochasticDepth of its own; keras-cv has DropPath, StochasticDepth and DropBlock2D).
FOREIGN = {"StochasticDepth", "DropPath", "DropBlock2D"}
RATE_NAMES = ("rate", "drop_path_rate", "drop_prob", "drop_rate", "stddev")  # what they and Keras's layers call it
BUILT_IN = (
    keras.layers.Dropout,
    keras.layers.AlphaDropout,
    keras.layers.GaussianDropout,
    keras.layers.GaussianNoise,
)


class NoiseLayer(keras.layers.Layer):
    """A layer y = f(x, z) with noise z in training and its expectation over z in inference.

    `rate` in [0, 1) is the probability of dropping. The draws are a function of `seed` and of the number of calls.
    `noise_on = True` draws also in inference; `monte_carlo` sets it, and BatchNormalization does not notice.
    """

    def __init__(self, rate, *, seed=None, **kwargs):
        super().__init__(**kwargs)
        self.rate = check_rate(rate, type(self).__name__)
        self.seed = seed
        self.noise_on = False
        self.seed_generator = keras.random.SeedGenerator(seed)
        self.supports_masking = True

    def noisy(self, training) -> bool:
        """Whether this call draws noise."""
        return bool(training or self.noise_on) and self.rate > 0

    def keep_mask(self, shape, dtype="float32"):
        """1 with probability 1 − rate, else 0."""
        return keep_mask(shape, self.rate, self.seed_generator, dtype)

    def describe(self) -> str:
        """What is dropped; `describe_noise` prints it."""
        return "activations"

    def get_config(self):
        return {**super().get_config(), "rate": self.rate, "seed": self.seed}


def _of_wrapped(name: str) -> property:
    """An attribute that is the wrapped layer's, and absent where that has none."""
    return property(lambda self: getattr(self.layer, name), lambda self, value: setattr(self.layer, name, value))


class NoiseWrapper(NoiseLayer):
    """A noise layer around another, which builds itself and casts its inputs and variables as if it stood alone."""

    # what keras.layers.Bidirectional reads and sets
    go_backwards = _of_wrapped("go_backwards")
    return_sequences, return_state = _of_wrapped("return_sequences"), _of_wrapped("return_state")
    stateful, states, reset_state = _of_wrapped("stateful"), _of_wrapped("states"), _of_wrapped("reset_state")
    zero_output_for_mask = _of_wrapped("zero_output_for_mask")

    def __init__(self, layer, rate, *, seed=None, **kwargs):
        if not isinstance(layer, keras.layers.Layer):
            raise TypeError(f"{type(self).__name__} wraps a keras.layers.Layer, got {layer!r}.")
        kwargs.setdefault("dtype", layer.dtype_policy)
        super().__init__(rate, seed=seed, autocast=False, **kwargs)
        self.layer = layer

    def __call__(self, *args, **kwargs):
        if not self.layer.built:  # here, where every argument is known; `build` sees the shape of the first alone
            self._trace(*args, **kwargs)
        return super().__call__(*args, **kwargs)

    def build(self, input_shape):
        default = getattr(self.layer.build, "_is_default", False)  # such a layer counts as built without its variables
        if default or not self.layer.built:
            self._trace(keras.tree.map_shape_structure(keras.KerasTensor, input_shape))

    def _trace(self, *args, **kwargs):
        """Build the wrapped layer by a symbolic call, as Keras does, so that layers without `build` are built too."""

        def symbolic(x):
            return keras.KerasTensor(x.shape, keras.backend.standardize_dtype(x.dtype)) if hasattr(x, "shape") else x

        self.layer(*keras.tree.map_structure(symbolic, args), **keras.tree.map_structure(symbolic, kwargs))

    def compute_output_shape(self, input_shape):
        inputs = keras.tree.map_shape_structure(keras.KerasTensor, input_shape)
        return keras.tree.map_structure(lambda x: x.shape, self.layer.compute_output_spec(inputs))

    def get_config(self):
        return {**super().get_config(), "layer": keras.saving.serialize_keras_object(self.layer)}

    @classmethod
    def from_config(cls, config, custom_objects=None):
        config = dict(config)
        inner = config.pop("layer")
        if "go_backwards" in config:  # where keras.layers.Bidirectional sets it to turn a layer around
            inner = {**inner, "config": {**inner["config"], "go_backwards": config.pop("go_backwards")}}
        layer = keras.saving.deserialize_keras_object(inner, custom_objects=custom_objects)
        return cls(layer, config.pop("rate"), **config)


def check_rate(rate, owner: str) -> float:
    """`rate` as a float; a ValueError naming `owner` unless 0 ≤ rate < 1."""
    if isinstance(rate, bool) or not isinstance(rate, numbers.Real) or not 0 <= rate < 1:
        raise ValueError(f"{owner}: rate is the probability of dropping, a number in [0, 1); got {rate!r}.")
    return float(rate)


def keep_mask(shape, rate, seed, dtype="float32"):
    """1 with probability 1 − rate, else 0; drawn in float32, where a small rate does not round to another one."""
    return keras.ops.cast(keras.random.uniform(shape, dtype="float32", seed=seed) >= rate, dtype)


def noise_rate(layer) -> float | None:
    """The rate (for Gaussian noise its standard deviation) at which `layer` injects noise; None if it injects none."""
    if isinstance(layer, (NoiseLayer, *BUILT_IN)) or type(layer).__name__ in FOREIGN:
        return next((getattr(layer, name) for name in RATE_NAMES if hasattr(layer, name)), None)
    if isinstance(layer, keras.layers.Attention):
        return layer.dropout or None
    rates = [getattr(cell, name, 0) for cell in _cells(layer) for name in ("dropout", "recurrent_dropout")]
    return max(rates, default=0) or None


def noise_layers(model) -> list:
    """The layers of `model`, nested ones included, that inject noise in training, in the order of the model."""
    return [
        layer
        for layer in nested(model)
        if (layer.noisy(training=True) if isinstance(layer, NoiseLayer) else noise_rate(layer))
    ]


def nested(layer, seen=None):
    """`layer` and all that it holds, but for the cells of recurrent layers: these draw when their owner does."""
    seen = set() if seen is None else seen
    if id(layer) not in seen:
        seen.add(id(layer))
        yield layer
        cells = _cells(layer)
        seen.update(map(id, cells))
        for owner in (layer, *cells):
            for inner in owner._flatten_layers(include_self=False, recursive=False):
                yield from nested(inner, seen)


def _cells(layer) -> list:
    """The cells of a recurrent layer, stacked ones included; none of other layers."""

    def flat(cell):
        return [cell, *(inner for each in getattr(cell, "cells", ()) for inner in flat(each))]

    if not isinstance(layer, keras.layers.RNN):
        return []
    return [cell for cell in flat(layer.cell) if isinstance(cell, keras.layers.Layer)]


@contextlib.contextmanager
def training_mode(model):
    """Run the noise layers of `model`, and none of the layers they hold, in training mode, whatever the call's mode."""
    with contextlib.ExitStack() as stack:
        stack.enter_context(untraced(model))
        for layer in noise_layers(model):
            if isinstance(layer, NoiseLayer):
                stack.callback(setattr, layer, "noise_on", layer.noise_on)
                layer.noise_on = True
            elif "training" in inspect.signature(layer.call).parameters:
                stack.enter_context(replaced(layer, "call", in_training(layer)))
        yield


@contextlib.contextmanager
def untraced(model):
    """Let `model` and all it holds run as Python what they have as `tf.function`, whose trace keeps its first mode."""
    with contextlib.ExitStack() as stack:
        for layer in nested(model):
            owners = (layer, *type(layer).__mro__)
            traced = {name for owner in owners for name, x in vars(owner).items() if hasattr(x, "python_function")}
            for name in traced:
                stack.enter_context(replaced(layer, name, getattr(layer, name).python_function))
        yield


@contextlib.contextmanager
def replaced(layer, name, method):
    """Give `layer` another method; set past Layer.__setattr__, which tracks state: this is none."""
    own = {name: vars(layer)[name]} if name in vars(layer) else {}
    object.__setattr__(layer, name, method)
    try:
        yield
    finally:
        object.__delattr__(layer, name)
        vars(layer).update(own)


def in_training(layer):
    """`layer.call` with its argument `training` replaced by True.

    What it passes on to layers of its own, Keras would keep as the mode of all layers that come after: so it is reset.
    """
    call, signature = layer.call, inspect.signature(layer.call)

    @functools.wraps(call)
    def training_call(*args, **kwargs):
        bound = signature.bind(*args, **kwargs)
        bound.arguments["training"] = True
        context = layer._get_call_context()
        mode = context.get_value("training")
        try:
            return call(*bound.args, **bound.kwargs)
        finally:
            context.set_value("training", mode)

    return training_call


def describe_noise(model, print_fn=print) -> None:
    """Print one line per layer that injects noise: its name, its class, its rate and what it drops.

    Example: `describe_noise(model)` prints

        block_2_add_stochastic_depth  StochasticDepth  0.067  residual branch, per example
        dropout                       Dropout          0.2    activations
    """
    rows = [(layer.name, type(layer).__name__, _rate(layer), _what(layer)) for layer in noise_layers(model)]
    if not rows:
        print_fn(f"{model.name}: no layer injects noise.")
        return
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    for row in rows:
        print_fn("  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip())


def drops_branches(layer) -> bool:
    """Whether `layer` multiplies a whole residual branch by one draw, per example or per batch."""
    named = type(layer).__name__ in {"StochasticDepth", "StochasticResidual", "DropPath"}
    return named or is_whole_branch(getattr(layer, "noise_shape", None))


def is_whole_branch(noise_shape) -> bool:
    """Whether dropout of this `noise_shape` draws once per example or per batch."""
    return bool(noise_shape) and all(n == 1 for n in noise_shape[1:])


def _rate(layer) -> str:
    rate = noise_rate(layer)
    return f"{rate:.3g}" if rate else "-"


def _what(layer) -> str:
    if isinstance(layer, NoiseLayer):
        return layer.describe()
    if drops_branches(layer):
        return "residual branch, per example"
    if isinstance(layer, keras.layers.GaussianNoise):
        return "adds Gaussian noise of this standard deviation"
    if isinstance(layer, keras.layers.GaussianDropout):
        return "multiplies activations by Gaussian noise"
    if "Spatial" in type(layer).__name__:
        return "channels"
    if isinstance(layer, keras.layers.Attention):
        return "attention weights"
    return "recurrent inputs and states" if _cells(layer) else "activations"
