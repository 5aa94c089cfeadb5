"""Full-batch minimisation of a Keras model's loss over all its trainable variables."""

import keras
import numpy as np
from keras import ops

from optimizers.descent import METHODS, Minimum, minimize_function
from optimizers.linear import fit_linear
from optimizers.losses import multiclass_hinge, softmax_cross_entropy
from optimizers.parameters import is_kernel

CHUNK = 1024  # examples at a time


def minimize(
    model, x, y=None, loss="sparse_categorical_crossentropy", *,
    method="lbfgs", l2=0.0, l1=0.0, tolerance=1e-5, max_iterations=500,
) -> Minimum:  # fmt: skip
    """Set the model's trainable variables to a minimum of mean loss + l2/2 · Σ kernel² + l1 · Σ |kernel|.

    Biases and normalisation parameters are unpenalised. The data stream through the model in chunks, in inference mode:
    dropout and augmentation are off and batch normalisation uses its moving statistics, for a minimiser needs a
    function that gives the same value twice. Sums over chunks are in float64. A model of one Dense layer under softmax
    cross-entropy or `multiclass_hinge` is fitted by `fit_linear`, a preconditioned L-BFGS on the arrays.

    Args:
        model: a built `keras.Model`.
        x: array (n, …), or with `y=None` a re-iterable of batches (x, y): a list, a PyDataset, an unshuffled
            tf.data.Dataset.
        y: array of n targets.
        loss: as for `model.compile`: a name, a `keras.losses.Loss` or a function (y_true, y_pred) → (batch,).
        method: "lbfgs" (with `l1`: OWL-QN), "newton-cg" or "bfgs".
        tolerance: of the largest component of the gradient. Models compute in float32: about 1e-6 is the least they
            reach.
        max_iterations: steps.

    Returns: a `Minimum`; `.converged` and `.message` say whether and why it stopped.

    Raises: ValueError where the model is not built or has nothing to train, where two evaluations differ because
        some noise cannot be switched off, and as `minimize_function`.

    Example: `minimize(model, features, labels, "sparse_categorical_crossentropy", l2=1e-3).loss`
    """
    if method not in METHODS:
        raise ValueError(f"method must be one of {', '.join(METHODS)}. Got {method!r}.")
    if not model.built or not model.trainable_variables:
        raise ValueError(
            "minimize needs a built model with trainable variables: add an Input, or call it on data once."
        )
    linear = _linear(model, x, y, loss) if method == "lbfgs" else None
    if linear:
        return _fit_dense(model, *linear, x, y, l2=l2, l1=l1, tolerance=tolerance, max_iterations=max_iterations)
    objective = _Objective(model, x, y, loss, l2)
    start = objective.position()
    objective.refuse_noise(start)
    penalty = l1 * objective.penalised
    found = minimize_function(
        objective, start, method=method, l1=penalty if l1 else 0.0,
        tolerance=tolerance, max_iterations=max_iterations, precision=objective.precision,
        **({"relative_step": objective.precision ** (1 / 3)} if method == "newton-cg" else {}),
    )  # fmt: skip
    objective.move(found.x)
    return found


class _Objective:
    """Flat weights → (mean loss + l2/2 · Σ kernel², its gradient), with the model as calculator."""

    def __init__(self, model, x, y, loss, l2):
        self.variables = model.trainable_variables
        self.sizes = [int(np.prod(v.shape)) for v in self.variables]
        self.penalised = np.repeat([float(is_kernel(v)) for v in self.variables], self.sizes)
        self.precision = (
            float(np.finfo(str(self.variables[0].dtype)).eps) / 2 if _is_numpy_float(self.variables[0]) else 1e-3
        )
        self.l2, self.x, self.y = l2, x, y
        self.gradients = _GradientReader()
        self.calculator = _Calculator(model, loss)
        # Compiling pays where there is no eager mode worth having.
        jit = keras.backend.backend() == "jax"
        self.calculator.compile(optimizer=self.gradients, loss=None, jit_compile=jit)

    def position(self) -> np.ndarray:
        return np.concatenate([ops.convert_to_numpy(v).ravel() for v in self.variables]).astype(np.float64)

    def move(self, flat):
        for variable, part in zip(self.variables, np.split(flat, np.cumsum(self.sizes)[:-1]), strict=True):
            variable.assign(part.reshape(variable.shape).astype(str(variable.dtype)))

    def __call__(self, flat):
        self.move(flat)
        total, count, gradient = 0.0, 0, np.zeros(flat.size)
        for x, y in self._chunks():
            self.calculator.reset_metrics()
            logs = self.calculator.train_on_batch(x, y, return_dict=True)
            total += float(logs["loss"])
            gradient += self.gradients.read()
            count += len(y)
        kernels = self.penalised * flat
        return total / count + self.l2 / 2 * kernels @ kernels, gradient / count + self.l2 * kernels

    def _chunks(self):
        if self.y is None:
            for batch in self.x:
                yield batch[0], batch[1]
        else:
            for at in range(0, len(self.y), CHUNK):
                yield self.x[at : at + CHUNK], self.y[at : at + CHUNK]

    def refuse_noise(self, flat):
        first, second = self(flat)[0], self(flat)[0]
        if abs(first - second) > 10 * self.precision * abs(first):
            raise ValueError(
                f"The loss of the same weights was {first:.8g}, then {second:.8g}. A full-batch minimiser needs "
                "a function without noise: remove layers that are random in inference mode too (Monte-Carlo dropout); "
                "from the dataset, augmentation and shuffling with a dropped remainder; or use a stochastic optimizer."
            )


def _is_numpy_float(variable):
    return str(variable.dtype) in ("float16", "float32", "float64")


class _Calculator(keras.Model):
    """The model in inference mode as something `train_on_batch` differentiates: Keras's one backend-neutral gradient.

    The loss of a batch is the sum over its examples (for losses of many outputs per example, of their mean).
    """

    def __init__(self, model, loss):
        super().__init__(name="objective")
        loss = keras.losses.get(loss)
        self.model = model
        self.per_example = loss.call if isinstance(loss, keras.losses.Loss) else loss

    def call(self, x):
        return self.model(x, training=False)

    def compute_loss(self, x=None, y=None, y_pred=None, sample_weight=None, training=True):
        mean = ops.mean(self.per_example(y, y_pred)) + sum(self.losses)
        return mean * ops.cast(ops.shape(y_pred)[0], mean.dtype)


class _GradientReader(keras.optimizers.Optimizer):
    """Keeps the gradients and leaves the variables alone."""

    def __init__(self):
        super().__init__(learning_rate=0.0, name="gradient_reader")

    def build(self, variables):
        super().build(variables)
        self.slots = self.add_optimizer_variables(variables, "gradient")

    def update_step(self, gradient, variable, learning_rate):
        self.assign(self.slots[self._get_variable_index(variable)], ops.convert_to_tensor(gradient))

    def read(self) -> np.ndarray:
        return np.concatenate([ops.convert_to_numpy(slot).ravel() for slot in self.slots]).astype(np.float64)


def _linear(model, x, y, loss):
    """(the Dense layer, "softmax" or "hinge") where the model is a linear classifier on arrays, else None."""
    if y is None or np.ndim(x) != 2 or np.ndim(y) != 1:
        return None
    graph = getattr(model, "_functional", None) or model  # of a Sequential
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


def _fit_dense(model, dense, loss, x, y, **options) -> Minimum:
    start = ops.convert_to_numpy(dense.kernel), ops.convert_to_numpy(dense.bias)
    fit = fit_linear(x, y, classes=dense.units, loss=loss, start=start, **options)
    dense.kernel.assign(fit.kernel)
    dense.bias.assign(fit.bias)
    return fit.minimum
