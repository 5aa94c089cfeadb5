"""Define losses of linear classifiers as functions for `model.compile` and `minimize`."""

import keras

from .tensors import Tensor, ops


@keras.saving.register_keras_serializable("optimizers")
def multiclass_hinge(y_true: Tensor, y_pred: Tensor) -> Tensor:
    """Return the multiclass SVM loss: Σ_{j≠y} max(0, s_j − s_y + 1).

    Args:
        y_true: (batch,) or (batch, 1) integer classes y.
        y_pred: (batch, classes) scores s.

    Returns:
        (batch,) losses.

    Source: Weston and Watkins, 1999.
    """
    classes = y_pred.shape[-1]
    right = ops.one_hot(ops.cast(ops.reshape(y_true, (-1,)), "int32"), classes, dtype=y_pred.dtype)
    margins = y_pred - ops.sum(right * y_pred, -1, keepdims=True) + 1
    return ops.sum((1 - right) * ops.maximum(margins, 0), -1)


@keras.saving.register_keras_serializable("optimizers")
def softmax_cross_entropy(y_true: Tensor, y_pred: Tensor) -> Tensor:
    """Return the softmax cross-entropy −log softmax(s)_y.

    Args:
        y_true: (batch,) or (batch, 1) integer classes y.
        y_pred: (batch, classes) scores s, not probabilities.

    Returns:
        (batch,) losses.
    """
    return ops.sparse_categorical_crossentropy(ops.reshape(y_true, (-1,)), y_pred, from_logits=True)
