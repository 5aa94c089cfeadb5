"""Define the base of all noise layers: a rate, a seed, and a switch that is independent of the rest of the model."""

import contextlib
import functools
import inspect
import numbers
from collections.abc import Callable, Iterator, Sequence
from typing import Any, Self

import keras

from .tensors import Shape, Tensor, ops, tree

# Noise layers of other packages are recognised by class name, so that these packages need not be imported. The
# ConvNeXt of keras.applications has its own StochasticDepth; keras-cv has DropPath, StochasticDepth and DropBlock2D.
FOREIGN = {"StochasticDepth", "DropPath", "DropBlock2D"}
# names of the rate in Keras's and other noise layers
RATE_NAMES = ("rate", "drop_path_rate", "drop_prob", "drop_rate", "stddev")
BUILT_IN = (
    keras.layers.Dropout,
    keras.layers.AlphaDropout,
    keras.layers.GaussianDropout,
    keras.layers.GaussianNoise,
)


class NoiseLayer(keras.layers.Layer):
    """Compute y = f(x, z) with noise z in training, and its expectation over z in inference.

    The draws are a function of `seed` and of the number of calls.

    Attributes:
        rate: The probability of dropping, in [0, 1).
        noise_on: Whether to draw noise in inference, too. `monte_carlo` sets this switch, which does not affect
            BatchNormalization.
    """

    def __init__(self, rate: float, *, seed: int | None = None, **kwargs: Any):
        super().__init__(**kwargs)
        self.rate = check_rate(rate, type(self).__name__)
        self.seed = seed
        self.noise_on = False
        self.seed_generator = keras.random.SeedGenerator(seed)
        self.supports_masking = True

    def noisy(self, training: bool | None) -> bool:
        """Return whether this call draws noise."""
        return bool(training or self.noise_on) and self.rate > 0

    def keep_mask(self, shape: Sequence[Any], dtype: str = "float32") -> Tensor:
        """Draw a tensor of 1 with probability 1 − rate, else 0."""
        return keep_mask(shape, self.rate, self.seed_generator, dtype)

    def describe(self) -> str:
        """Return a description of what is dropped, for `describe_noise`."""
        return "activations"

    def get_config(self) -> dict[str, Any]:
        return {**super().get_config(), "rate": self.rate, "seed": self.seed}


def _of_wrapped(name: str) -> property:
    """Return a property for an attribute of the wrapped layer, absent if the layer has no such attribute."""
    return property(lambda self: getattr(self.layer, name), lambda self, value: setattr(self.layer, name, value))


class NoiseWrapper(NoiseLayer):
    """Add noise around another layer, which builds and casts its inputs and variables as without a wrapper."""

    # keras.layers.Bidirectional reads and sets these attributes.
    go_backwards = _of_wrapped("go_backwards")
    return_sequences, return_state = _of_wrapped("return_sequences"), _of_wrapped("return_state")
    stateful, states, reset_state = _of_wrapped("stateful"), _of_wrapped("states"), _of_wrapped("reset_state")
    zero_output_for_mask = _of_wrapped("zero_output_for_mask")

    def __init__(self, layer: keras.layers.Layer, rate: float, *, seed: int | None = None, **kwargs: Any):
        if not isinstance(layer, keras.layers.Layer):
            raise TypeError(f"{type(self).__name__} needs a keras.layers.Layer to wrap, got {layer!r}.")
        kwargs.setdefault("dtype", layer.dtype_policy)
        super().__init__(rate, seed=seed, autocast=False, **kwargs)
        self.layer: Any = layer  # typed as Any, because subclasses use attributes of the layer's own class

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        if not self.layer.built:  # `build` would only get the shape of the first argument
            self._trace(*args, **kwargs)
        return super().__call__(*args, **kwargs)

    def build(self, input_shape: Shape) -> None:
        # Keras considers such a layer built before its variables exist
        default = getattr(self.layer.build, "_is_default", False)
        if default or not self.layer.built:
            self._trace(tree.map_shape_structure(keras.KerasTensor, input_shape))

    def _trace(self, *args: Any, **kwargs: Any) -> None:
        """Build the wrapped layer by a symbolic call, as Keras does, so that layers without `build` are built too."""

        def symbolic(x: Tensor) -> Any:
            return keras.KerasTensor(x.shape, keras.backend.standardize_dtype(x.dtype)) if hasattr(x, "shape") else x

        self.layer(*tree.map_structure(symbolic, args), **tree.map_structure(symbolic, kwargs))

    def compute_output_shape(self, input_shape: Shape) -> Shape:
        inputs = tree.map_shape_structure(keras.KerasTensor, input_shape)
        return tree.map_structure(lambda x: x.shape, self.layer.compute_output_spec(inputs))

    def get_config(self) -> dict[str, Any]:
        return {**super().get_config(), "layer": keras.saving.serialize_keras_object(self.layer)}

    @classmethod
    def from_config(cls, config: dict[str, Any], custom_objects: dict[str, Any] | None = None) -> Self:
        config = dict(config)
        inner = config.pop("layer")
        if "go_backwards" in config:  # keras.layers.Bidirectional sets this attribute to reverse a layer
            inner = {**inner, "config": {**inner["config"], "go_backwards": config.pop("go_backwards")}}
        layer = keras.saving.deserialize_keras_object(inner, custom_objects=custom_objects)
        return cls(layer, config.pop("rate"), **config)


def check_rate(rate: float, owner: str) -> float:
    """Return `rate` as a float; raise a ValueError that names `owner` unless 0 ≤ rate < 1."""
    if isinstance(rate, bool) or not isinstance(rate, numbers.Real) or not 0 <= rate < 1:
        raise ValueError(f"{owner}: rate must be the probability of dropping, a number in [0, 1); got {rate!r}.")
    return float(rate)


def keep_mask(shape: Sequence[Any], rate: float, seed: keras.random.SeedGenerator, dtype: str = "float32") -> Tensor:
    """Draw a tensor of 1 with probability 1 − rate, else 0.

    The draws are in float32, because a small rate would be rounded in 16 bits.
    """
    return ops.cast(keras.random.uniform(shape, dtype="float32", seed=seed) >= rate, dtype)


def noise_rate(layer: keras.layers.Layer) -> float | None:
    """Return the noise rate of `layer` (the standard deviation for Gaussian noise); None if it has no noise."""
    if isinstance(layer, (NoiseLayer, *BUILT_IN)) or type(layer).__name__ in FOREIGN:
        return next((getattr(layer, name) for name in RATE_NAMES if hasattr(layer, name)), None)
    if isinstance(layer, keras.layers.Attention):
        return layer.dropout or None
    rates = [getattr(cell, name, 0) for cell in _cells(layer) for name in ("dropout", "recurrent_dropout")]
    return max(rates, default=0) or None


def noise_layers(model: keras.Model) -> list:
    """Return the layers of `model`, also nested ones, that inject noise in training, in the order of the model."""
    return [
        layer
        for layer in nested(model)
        if (layer.noisy(training=True) if isinstance(layer, NoiseLayer) else noise_rate(layer))
    ]


def nested(layer: keras.layers.Layer, seen: set[int] | None = None) -> Iterator[Any]:
    """Yield `layer` and all layers inside it except cells of recurrent layers, whose noise the outer layer controls."""
    seen = set() if seen is None else seen
    if id(layer) not in seen:
        seen.add(id(layer))
        yield layer
        cells = _cells(layer)
        seen.update(map(id, cells))
        for owner in (layer, *cells):
            for inner in owner._flatten_layers(include_self=False, recursive=False):
                yield from nested(inner, seen)


def _cells(layer: keras.layers.Layer) -> list:
    """Return the cells of a recurrent layer, also stacked ones; other layers have none."""

    def flat(cell: Any) -> list[Any]:
        return [cell, *(inner for each in getattr(cell, "cells", ()) for inner in flat(each))]

    if not isinstance(layer, keras.layers.RNN):
        return []
    return [cell for cell in flat(layer.cell) if isinstance(cell, keras.layers.Layer)]


@contextlib.contextmanager
def training_mode(model: keras.Model) -> Iterator[None]:
    """Run the noise layers of `model`, but not the layers inside these, in training mode in every call."""
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
def untraced(model: keras.Model) -> Iterator[None]:
    """Run every `tf.function` of `model` and its layers as Python, because a trace keeps the mode of its first call."""
    with contextlib.ExitStack() as stack:
        for layer in nested(model):
            owners = (layer, *type(layer).__mro__)
            traced = {name for owner in owners for name, x in vars(owner).items() if hasattr(x, "python_function")}
            for name in traced:
                stack.enter_context(replaced(layer, name, getattr(layer, name).python_function))
        yield


@contextlib.contextmanager
def replaced(layer: keras.layers.Layer, name: str, method: Callable[..., Any]) -> Iterator[None]:
    """Replace a method of `layer` inside the context, without Layer.__setattr__, which would track it as state."""
    attributes: dict[str, Any] = layer.__dict__
    own = {name: attributes[name]} if name in attributes else {}
    object.__setattr__(layer, name, method)
    try:
        yield
    finally:
        object.__delattr__(layer, name)
        attributes.update(own)


def in_training(layer: keras.layers.Layer) -> Callable[..., Any]:
    """Return `layer.call` with its argument `training` replaced by True.

    The mode is reset afterwards, because Keras would keep it for all later layers.
    """
    call, signature = layer.call, inspect.signature(layer.call)

    @functools.wraps(call)
    def training_call(*args: Any, **kwargs: Any) -> Any:
        bound = signature.bind(*args, **kwargs)
        bound.arguments["training"] = True
        context = layer._get_call_context()
        mode = context.get_value("training")
        try:
            return call(*bound.args, **bound.kwargs)
        finally:
            context.set_value("training", mode)

    return training_call


def describe_noise(model: keras.Model, print_fn: Callable[[str], object] = print) -> None:
    """Print one line per layer that injects noise: its name, its class, its rate and what it drops.

    Args:
        model: any Keras model.
        print_fn: function that is called with each line.

    Example:
        `describe_noise(model)` prints

            block_2_add_stochastic_depth  StochasticDepth  0.067  residual branch, per example
            dropout                       Dropout          0.2    activations
    """
    rows = [(layer.name, type(layer).__name__, _rate(layer), _dropped(layer)) for layer in noise_layers(model)]
    if not rows:
        print_fn(f"{model.name}: no layer injects noise.")
        return
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    for row in rows:
        print_fn("  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip())


def drops_branches(layer: keras.layers.Layer) -> bool:
    """Return whether `layer` multiplies a whole residual branch by one draw, per example or per batch."""
    named = type(layer).__name__ in {"StochasticDepth", "StochasticResidual", "DropPath"}
    return named or is_whole_branch(getattr(layer, "noise_shape", None))


def is_whole_branch(noise_shape: Sequence[int | None] | None) -> bool:
    """Return whether dropout of this `noise_shape` draws once per example or per batch."""
    return bool(noise_shape) and all(n == 1 for n in noise_shape[1:])


def _rate(layer: keras.layers.Layer) -> str:
    rate = noise_rate(layer)
    return f"{rate:.3g}" if rate else "-"


def _dropped(layer: keras.layers.Layer) -> str:
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
