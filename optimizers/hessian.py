"""Compute Hessian-vector products of a Keras model's loss.

`keras.ops` is not sufficient for these products, because Keras has no automatic differentiation. Each function imports
only the backend that Keras runs on.
"""

from collections.abc import Sequence
from typing import Any

import keras

from .tensors import Tensor, tree


def hessian_product(
    calculator: Any, variables: Sequence[Any], vector: Any, x: Any, y: Any, weights: Any
) -> list[Tensor]:
    """Return ∇²L · v, one tensor for each of `variables`, with L = calculator.compute_loss on one batch.

    On JAX, the method is forward over reverse. On TensorFlow and torch it is the gradient of ∇L · v.

    Args:
        calculator: a compiled `keras.Model`, whose `compute_loss` is used.
        variables: the trainable `keras.Variable`s of the model.
        vector: v, an array for each variable.
        x: inputs of the batch.
        y: targets of the batch.
        weights: weights of the examples, or None.
    """
    product = {"jax": _forward_over_reverse, "tensorflow": _two_tapes, "torch": _two_graphs}[keras.backend.backend()]
    return product(calculator, variables, vector, x, y, weights)


def _loss(calculator: Any, x: Any, y: Any, weights: Any) -> Tensor:
    outputs = calculator(x)
    return calculator.compute_loss(x, y, outputs, weights)


def _forward_over_reverse(
    calculator: Any, variables: Sequence[Any], vector: Any, x: Any, y: Any, weights: Any
) -> list[Tensor]:
    import jax

    if not hasattr(calculator, "_hessian_product"):

        def loss(values: Any, others: Any, x: Any, y: Any, weights: Any) -> Tensor:
            mapping = [*zip(variables, values, strict=True), *others]
            with keras.StatelessScope(state_mapping=mapping):
                return _loss(calculator, x, y, weights)

        def product(values: Any, vector: Any, others: Any, x: Any, y: Any, weights: Any) -> Any:
            fixed = list(zip(calculator.non_trainable_variables, others, strict=True))
            return jax.jvp(jax.grad(lambda w: loss(w, fixed, x, y, weights)), (values,), (vector,))[1]

        calculator._hessian_product = jax.jit(product)
    values = [v.value for v in variables]
    vector = [jax.numpy.asarray(part, value.dtype) for part, value in zip(vector, values, strict=True)]
    others = [v.value for v in calculator.non_trainable_variables]
    return calculator._hessian_product(values, vector, others, x, y, weights)


def _two_tapes(calculator: Any, variables: Sequence[Any], vector: Any, x: Any, y: Any, weights: Any) -> list[Tensor]:
    import tensorflow as tf

    if not hasattr(calculator, "_hessian_product"):
        values = [v.value for v in variables]
        zero: Any = "zero"  # TensorFlow's stubs lack this name of tf.UnconnectedGradients.ZERO

        def product(vector: Any, x: Any, y: Any, weights: Any) -> Any:
            with tf.GradientTape() as outer:
                with tf.GradientTape() as inner:
                    loss = _loss(calculator, x, y, weights)
                maybe_sparse = inner.gradient(loss, values, unconnected_gradients=zero)
                gradients = [tf.convert_to_tensor(g) for g in maybe_sparse]
                along = tf.add_n([tf.reduce_sum(g * v) for g, v in zip(gradients, vector, strict=True)])
            return outer.gradient(along, values, unconnected_gradients=zero)

        calculator._hessian_product = tf.function(product, reduce_retracing=True)
    vector = [tf.convert_to_tensor(part, v.dtype) for part, v in zip(vector, variables, strict=True)]
    return calculator._hessian_product(
        vector, *(None if a is None else tree.map_structure(tf.convert_to_tensor, a) for a in (x, y, weights))
    )


def _two_graphs(calculator: Any, variables: Sequence[Any], vector: Any, x: Any, y: Any, weights: Any) -> list[Tensor]:
    import torch

    values = [v.value for v in variables]
    gradients = torch.autograd.grad(_loss(calculator, x, y, weights), values, create_graph=True, allow_unused=True)
    vector = [torch.as_tensor(part, dtype=v.dtype, device=v.device) for part, v in zip(vector, values, strict=True)]
    along: Any = sum((g * v).sum() for g, v in zip(gradients, vector, strict=True) if g is not None)
    products = torch.autograd.grad(along, values, allow_unused=True)
    return [torch.zeros_like(v) if p is None else p for p, v in zip(products, values, strict=True)]
