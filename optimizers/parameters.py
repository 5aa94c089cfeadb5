"""Determine properties of variables and gradients that several optimizers need."""

from typing import Any

import keras

from .tensors import Tensor, ops

_UNPENALISED = ("bias", "gamma", "beta")


def is_kernel(variable: keras.Variable) -> bool:
    """Return whether `variable` is a kernel, not a bias, a normalisation parameter, or another vector or scalar.

    Shrinking a bias, which shifts, or a normalisation parameter, which rescales, does not make the function smoother.
    Attention has biases with two axes, so the name is checked as well as the shape.
    """
    return len(variable.shape) > 1 and variable.name.rsplit("/", 1)[-1] not in _UNPENALISED


def dense(gradient: Any) -> Tensor:
    """Return a gradient as a dense tensor of its variable's shape; None stays None.

    The gradient of an embedding is sparse: `tf.IndexedSlices` on TensorFlow (also after a gather), BCOO on JAX, or a
    sparse tensor on torch. Rows that occur several times in a batch are summed.
    """
    if gradient is None:
        return None
    if keras.backend.backend() == "tensorflow":
        import tensorflow as tf

        return tf.convert_to_tensor(gradient)  # Keras's own conversion does not change IndexedSlices
    if getattr(gradient, "is_sparse", False):  # a torch tensor, because Keras only converts JAX's type
        gradient = gradient.to_dense()
    return ops.convert_to_tensor(gradient, sparse=False)
