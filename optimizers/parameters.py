"""Which variables are kernels: what weight decay and penalties act on."""

import keras

_UNPENALISED = ("bias", "gamma", "beta")


def is_kernel(variable: keras.Variable) -> bool:
    """Whether `variable` is a kernel, and not a bias, a normalisation's scale or offset, or another vector or scalar.

    A bias shifts and a normalisation parameter rescales: shrinking them does not make the function smoother. Attention
    has biases of two axes, hence the name counts as well as the shape.
    """
    return len(variable.shape) > 1 and variable.name.rsplit("/", 1)[-1] not in _UNPENALISED
