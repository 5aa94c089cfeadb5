"""Minimise a Keras model's loss on a whole dataset over all its trainable variables."""

from typing import Any

import keras
import numpy as np

from .descent import METHODS, minimize_function
from .linear import fit_linear
from .losses import multiclass_hinge, softmax_cross_entropy
from .minimum import Minimum
from .model_objective import ModelObjective, batches_of
from .tensors import ops


def minimize(
    model: keras.Model, x: Any, y: Any=None, loss: Any="sparse_categorical_crossentropy", *, sample_weight: Any=None,
    method: str="lbfgs", l2: float=0.0, l1: float=0.0, tolerance: float=1e-5, max_iterations: int=500,
) -> Minimum:  # fmt: skip
    """Set the model's trainable variables to a minimum of Σ wᵢ lossᵢ / Σ wᵢ + l2/2 · Σ kernel² + l1 · Σ |kernel|.

    Biases and normalisation parameters have no penalty. The data pass through the model in chunks, in inference mode.
    Dropout and augmentation are off, and batch normalisation uses its moving statistics, because a minimiser needs a
    function that returns the same value twice. Sums over chunks are in float64. A model of one Dense layer under
    softmax cross-entropy or `multiclass_hinge` is fitted by `fit_linear`, a preconditioned L-BFGS on the arrays.

    Args:
        model: a built `keras.Model` of one output.
        x: array (n, …), or a list or dict of arrays; or with `y=None` a re-iterable of batches (x, y) or
            (x, y, weights): a list, a PyDataset, an unshuffled tf.data.Dataset.
        y: array of n targets.
        loss: as for `model.compile`: a name, a `keras.losses.Loss` or a function (y_true, y_pred) → (batch,).
        sample_weight: array of n weights wᵢ.
        method: "lbfgs" (with `l1`: OWL-QN), "newton-cg" (by exact Hessian-vector products) or "bfgs".
        l2: penalty on the squared kernels.
        l1: penalty on the absolute kernels.
        tolerance: largest component of the gradient at convergence. In float32, models reach about 1e-6.
        max_iterations: largest number of steps.

    Returns:
        A `Minimum`; `.converged` and `.message` say whether and why it stopped.

    Raises:
        ValueError: If the model is not built or has no trainable variables, a penalty is negative, the data can be read
            only once, or two evaluations differ because some noise cannot be switched off; also as in
            `minimize_function`.

    Example:
        `minimize(model, features, labels, "sparse_categorical_crossentropy", l2=1e-3).loss`
    """
    if method not in METHODS:
        raise ValueError(f"method must be one of {', '.join(METHODS)}. Got {method!r}.")
    for name, penalty in (("l1", l1), ("l2", l2)):
        if not 0 <= penalty < np.inf:
            raise ValueError(f"{name} must be finite and not negative. Got {penalty}.")
    if not model.built or not model.trainable_variables:
        raise ValueError(
            "minimize needs a built model with trainable variables. Add an Input, or call the model on data once."
        )
    options = {"tolerance": tolerance, "max_iterations": max_iterations}
    linear = _linear(model, x, y, loss) if method == "lbfgs" else None
    if linear:
        return _fit_dense(*linear, x, y, sample_weight, l2=l2, l1=l1, **options)
    objective = ModelObjective(model, batches_of(x, y, sample_weight), loss, l2)
    start = objective.position()
    objective.refuse_noise(start)
    if method == "newton-cg":
        options["hessian_product"] = objective.hessian_product
    penalty = l1 * objective.penalised
    found = minimize_function(
        objective, start, method=method, l1=penalty if l1 else 0.0, precision=objective.precision, **options
    )
    objective.move(found.x)
    return found


def _linear(model: keras.Model, x: Any, y: Any, loss: Any) -> tuple[keras.layers.Dense, str] | None:
    """Return the Dense layer, and "softmax" or "hinge", if the model is a linear classifier on arrays, else None."""
    if y is None or getattr(x, "ndim", 0) != 2 or np.ndim(y) != 1:
        return None
    graph = getattr(model, "_functional", None) or model  # the functional model inside a Sequential
    operations = [o for o in getattr(graph, "operations", ()) if not isinstance(o, keras.layers.InputLayer)]
    if len(operations) != 1 or type(operations[0]) is not keras.layers.Dense:
        return None
    dense, loss = operations[0], keras.losses.get(loss)
    if not dense.use_bias or dense.lora_enabled or model.losses or len(dense.trainable_variables) != 2:
        return None
    scores, probabilities = dense.activation is keras.activations.linear, dense.activation is keras.activations.softmax
    if loss is multiclass_hinge and scores:
        return dense, "hinge"
    if isinstance(loss, keras.losses.SparseCategoricalCrossentropy) and loss.get_config().get("ignore_class") is None:
        softmax = scores if loss.get_config()["from_logits"] else probabilities
    else:
        softmax = (loss is softmax_cross_entropy and scores) or (
            loss is keras.losses.sparse_categorical_crossentropy and probabilities
        )
    return (dense, "softmax") if softmax else None


def _fit_dense(dense: keras.layers.Dense, loss: str, x: Any, y: Any, sample_weight: Any, **options: Any) -> Minimum:
    start = ops.convert_to_numpy(dense.kernel), ops.convert_to_numpy(dense.bias)
    fit = fit_linear(x, y, sample_weight, classes=dense.units, loss=loss, start=start, **options)
    kernel, bias = dense.trainable_variables
    kernel.assign(fit.kernel)
    bias.assign(fit.bias)
    return fit.minimum
