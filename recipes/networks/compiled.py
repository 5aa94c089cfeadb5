"""Compile calls and gradients of Keras models on every backend of Keras.

Tensors are annotated as `Any`, because their type depends on Keras's backend.
"""

from collections.abc import Callable
from typing import Any

import keras
import numpy as np

_SCALES = (2.0**15, 2.0**8, 1.0)  # factors of a loss in float16: the first factor without an overflow is used


def compiled(function: Callable, model: keras.Model) -> Callable:
    """Return `function`, compiled for batches of any length, with NumPy arrays as results.

    Args:
        function: Function from images to a tensor or a list of tensors, which calls `model` and keras.ops without
            gradients. Changes of the model's variables, such as the seeds of noise, persist.
        model: The model that `function` calls.
    """
    make = {"tensorflow": _traced, "jax": _jitted, "torch": _without_gradients}[keras.backend.backend()]
    run = make(function, model)
    return lambda images: keras.tree.map_structure(keras.ops.convert_to_numpy, run(images))


def fused(function: Callable) -> Callable:
    """Return a function of tensors and lists of tensors, compiled if the backend supports that."""
    if keras.backend.backend() == "tensorflow":
        import tensorflow as tf

        return tf.function(function, autograph=False, reduce_retracing=True)
    if keras.backend.backend() == "jax":
        import jax

        return jax.jit(function)
    return function


def _traced(function: Callable, model: keras.Model) -> Callable:
    import tensorflow as tf

    steps = {}

    def call(images: np.ndarray) -> Any:
        shape = tuple(images.shape[1:])
        if shape not in steps:
            steps[shape] = tf.function(function, input_signature=[tf.TensorSpec((None, *shape))], autograph=False)
        return steps[shape](images)

    return call


def _jitted(function: Callable, model: keras.Model) -> Callable:
    import jax

    variables, changed = model.variables, []

    @jax.jit
    def run(values: list, images: Any) -> tuple[Any, list]:
        with keras.StatelessScope(state_mapping=list(zip(variables, values, strict=True))) as scope:
            outputs = function(images)
        after = [scope.get_current_value(variable) for variable in variables]
        changed[:] = [v for v, new, old in zip(variables, after, values, strict=True) if new is not old]
        return outputs, [new for new, old in zip(after, values, strict=True) if new is not old]

    def call(images: np.ndarray) -> Any:
        outputs, new = run([v.value for v in variables], np.asarray(images))
        for variable, value in zip(changed, new, strict=True):
            variable.assign(value)
        return outputs

    return call


def _without_gradients(function: Callable, model: keras.Model) -> Callable:
    import torch

    def call(images: np.ndarray) -> Any:
        with torch.no_grad():
            return function(keras.ops.convert_to_tensor(np.array(images)))

    return call


def gradient(function: Callable, at: Any) -> Any:
    """Return the gradient of a scalar function at an array; None if the function does not depend on its argument."""
    at = keras.ops.convert_to_tensor(at)
    return {"tensorflow": _tape, "jax": _grad, "torch": _graph}[keras.backend.backend()](function, at)


def _tape(function: Callable, at: Any) -> Any:
    import tensorflow as tf

    with tf.GradientTape() as tape:
        tape.watch(at)
        value = function(at)
    return tape.gradient(value, at)


def _grad(function: Callable, at: Any) -> Any:
    import jax

    return jax.grad(function)(at)


def _graph(function: Callable, at: Any) -> Any:
    import torch

    at = at.detach().requires_grad_()
    return torch.autograd.grad(function(at), at, allow_unused=True)[0]


def weight_gradients(loss: Callable, model: keras.Model) -> list[np.ndarray | None]:
    """Return ∂loss()/∂v for each of the model's trainable variables v.

    Args:
        loss: Function without arguments that calls `model` and returns a scalar tensor.
        model: The model whose trainable variables are differentiated.

    Returns:
        One array per variable; None (on JAX: zeros) if the loss does not depend on the variable.
    """
    return weight_gradient_function(loss, model)()


def weight_gradient_function(loss: Callable, model: keras.Model) -> Callable[..., list[np.ndarray | None]]:
    """Return a function of the loss's arguments that returns the `weight_gradients` at the current weights.

    JAX compiles the function once for each shape. In float16, small gradients would be 0 and large ones infinite, so
    the loss is scaled, like in `fit`.

    Args:
        loss: Function of arrays that calls `model` and returns a scalar tensor.
        model: The model whose trainable variables are differentiated.
    """
    by = {"tensorflow": _by_tape, "jax": _by_scope, "torch": _by_graph}[keras.backend.backend()]
    scaled_gradients = by(lambda scale, *data: keras.ops.multiply(scale, loss(*data)), model)
    half = any(layer.compute_dtype == "float16" for layer in model._flatten_layers())

    def gradients(*data: Any) -> list[np.ndarray | None]:
        parts = []
        for scale in _SCALES if half else (1.0,):
            scaled = scaled_gradients(keras.ops.convert_to_tensor(scale, "float32"), *data)
            parts = [
                None if g is None else np.asarray(keras.ops.convert_to_numpy(g)) / np.float32(scale) for g in scaled
            ]
            if all(g is None or np.isfinite(g).all() for g in parts):
                break
        return parts

    return gradients


def _by_tape(loss: Callable, model: keras.Model) -> Callable:
    import tensorflow as tf

    def gradients(*data: Any) -> list:
        with tf.GradientTape() as tape:
            value = loss(*data)
        found = tape.gradient(value, [v.value for v in model.trainable_variables])
        return [None if g is None else tf.convert_to_tensor(g) for g in found]

    return gradients


def _by_scope(loss: Callable, model: keras.Model) -> Callable:
    import jax

    variables, others = model.trainable_variables, model.non_trainable_variables

    @jax.jit
    def gradients(values: list, rest: list, *data: Any) -> list:
        def stateless_loss(values: list) -> Any:
            mapping = [*zip(variables, values, strict=True), *zip(others, rest, strict=True)]
            with keras.StatelessScope(state_mapping=mapping):
                return loss(*data)

        return jax.grad(stateless_loss)(values)

    return lambda *data: gradients([v.value for v in variables], [v.value for v in others], *data)


def _by_graph(loss: Callable, model: keras.Model) -> Callable:
    import torch

    return lambda *data: torch.autograd.grad(
        loss(*data), [v.value for v in model.trainable_variables], allow_unused=True
    )
