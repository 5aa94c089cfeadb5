"""Calls and derivatives of Keras models, on whatever backend Keras runs."""

from collections.abc import Callable

import keras
import numpy as np

_SCALES = (2.0**15, 2.0**8, 1.0)  # of a loss in float16: the first at which no derivative overflows


def compiled(function: Callable, model: keras.Model) -> Callable:
    """`function` of one array of images, as NumPy arrays of what it returns; compiled for batches of any length.

    function: images → tensors or a list of them, by calls of `model` and keras.ops, without gradients. What it changes
        in the model's variables, such as the seeds of noise, is kept.
    """
    make = {"tensorflow": _traced, "jax": _jitted, "torch": _without_gradients}[keras.backend.backend()]
    run = make(function, model)
    return lambda images: keras.tree.map_structure(keras.ops.convert_to_numpy, run(images))


def fused(function: Callable) -> Callable:
    """A function of tensors and lists of them, as one where the backend compiles."""
    if keras.backend.backend() == "tensorflow":
        import tensorflow as tf

        return tf.function(function, autograph=False, reduce_retracing=True)
    if keras.backend.backend() == "jax":
        import jax

        return jax.jit(function)
    return function


def _traced(function, model):
    import tensorflow as tf

    steps = {}

    def call(images):
        shape = tuple(images.shape[1:])
        if shape not in steps:
            steps[shape] = tf.function(function, input_signature=[tf.TensorSpec((None, *shape))], autograph=False)
        return steps[shape](images)

    return call


def _jitted(function, model):
    import jax

    variables, changed = model.variables, []

    @jax.jit
    def run(values, images):
        with keras.StatelessScope(state_mapping=list(zip(variables, values, strict=True))) as scope:
            outputs = function(images)
        after = [scope.get_current_value(variable) for variable in variables]
        changed[:] = [v for v, new, old in zip(variables, after, values, strict=True) if new is not old]
        return outputs, [new for new, old in zip(after, values, strict=True) if new is not old]

    def call(images):
        outputs, new = run([v.value for v in variables], np.asarray(images))
        for variable, value in zip(changed, new, strict=True):
            variable.assign(value)
        return outputs

    return call


def _without_gradients(function, model):
    import torch

    def call(images):
        with torch.no_grad():
            return function(keras.ops.convert_to_tensor(np.array(images)))

    return call


def gradient(function: Callable, at):
    """The derivative of a scalar function of one tensor, at an array."""
    at = keras.ops.convert_to_tensor(at)
    return {"tensorflow": _tape, "jax": _grad, "torch": _graph}[keras.backend.backend()](function, at)


def _tape(function, at):
    import tensorflow as tf

    with tf.GradientTape() as tape:
        tape.watch(at)
        value = function(at)
    return tape.gradient(value, at)


def _grad(function, at):
    import jax

    return jax.grad(function)(at)


def _graph(function, at):
    import torch

    at = at.detach().requires_grad_()
    return torch.autograd.grad(function(at), at, allow_unused=True)[0]


def weight_gradients(loss: Callable, model: keras.Model) -> list[np.ndarray | None]:
    """∂loss()/∂v of the model's trainable variables; None, or on JAX zeros, where the loss does not depend on one.

    loss: () → a scalar tensor, by calls of `model`.
    """
    return weight_slopes(loss, model)()


def weight_slopes(loss: Callable, model: keras.Model) -> Callable:
    """The same as a function of what the loss is one of, of the weights as they are when it is called: JAX compiles it
    once for each shape.

    In float16 small derivatives would be 0 and large ones infinite: there the loss is scaled on the way, as `fit` does.

    loss: arrays → a scalar tensor, by calls of `model`.
    """
    by = {"tensorflow": _by_tape, "jax": _by_scope, "torch": _by_graph}[keras.backend.backend()]
    found = by(lambda scale, *data: keras.ops.multiply(scale, loss(*data)), model)
    half = any(layer.compute_dtype == "float16" for layer in model._flatten_layers())

    def slopes(*data):
        for scale in _SCALES if half else (1.0,):
            scaled = found(keras.ops.convert_to_tensor(scale, "float32"), *data)
            parts = [None if g is None else keras.ops.convert_to_numpy(g) / np.float32(scale) for g in scaled]
            if all(g is None or np.isfinite(g).all() for g in parts):
                break
        return parts

    return slopes


def _by_tape(loss, model):
    import tensorflow as tf

    def found(*data):
        with tf.GradientTape() as tape:
            value = loss(*data)
        slopes = tape.gradient(value, [v.value for v in model.trainable_variables])
        return [None if g is None else tf.convert_to_tensor(g) for g in slopes]

    return found


def _by_scope(loss, model):
    import jax

    variables, others = model.trainable_variables, model.non_trainable_variables

    @jax.jit
    def slopes(values, rest, *data):
        def of(values):
            mapping = [*zip(variables, values, strict=True), *zip(others, rest, strict=True)]
            with keras.StatelessScope(state_mapping=mapping):
                return loss(*data)

        return jax.grad(of)(values)

    return lambda *data: slopes([v.value for v in variables], [v.value for v in others], *data)


def _by_graph(loss, model):
    import torch

    return lambda *data: torch.autograd.grad(
        loss(*data), [v.value for v in model.trainable_variables], allow_unused=True
    )
