"""Define DropConnect, which masks weights in training and averages the masks out in inference.

Wan, Zeiler, Zhang, LeCun, Fergus: Regularization of Neural Networks using DropConnect, ICML 2013.
"""

import contextlib
import inspect
import math
from collections.abc import Callable, Iterator
from typing import Any

import keras
import numpy as np

from .noise import NoiseWrapper, keep_mask
from .stateless import call_assigning
from .tensors import Shape, Tensor, ops

NODES, NODE_WEIGHTS = np.polynomial.hermite_e.hermegauss(16)
NOT_ELEMENTWISE = ("softmax", "sparsemax", "glu")  # names that contain one of these count, too
ELEMENTWISE_LAYERS = (keras.layers.ReLU, keras.layers.LeakyReLU, keras.layers.ELU, keras.layers.PReLU)


@keras.saving.register_keras_serializable(package="layers")
class DropConnect(NoiseWrapper):
    """Wrap a layer, and multiply each of its kernels elementwise by a random mask in training.

    Training computes a((M ∘ W) x / (1 − rate) + b) with M_ij ~ Bernoulli(1 − rate). M is drawn once per batch or, for
    Dense, once per example, as in the paper. `drop_bias` masks b likewise. This is the inverted form: the paper trains
    without the division and scales W by 1 − rate in inference, so the paper's W is this W divided by 1 − rate.

    Inference "mean" computes a(W x + b), bit-identical to the wrapped layer. Inference "gaussian" is the paper's moment
    matching. The pre-activation is approximated by u ~ N(μ, σ²) with

        μ = W x + b,  σ² = rate / (1 − rate) · (W ∘ W)(x ∘ x)  (+ rate / (1 − rate) · b² if b is masked too),

    and the output is E[a(u)]. It has a closed form for ReLU. For other activations, the paper draws samples, and this
    layer uses 16-point Gauss-Hermite quadrature. For a linear layer, "gaussian" equals "mean".

    The layer needs memory for two further arrays of the kernel's size, with one mask per batch or per example. Examples
    are processed one after another, and the backward pass redraws each mask from its seed.

    Args:
        layer: Dense, Conv1D/2D/3D, DepthwiseConv2D, EinsumDense or any layer with a variable named `…kernel`.
        rate: probability of dropping a weight.
        per_example: draw one mask per example; Dense only.
        inference: "mean" or "gaussian".
        drop_bias: mask biases too.
        seed: an integer, or None for an arbitrary one.

    Raises:
        ValueError: If `rate` is outside [0, 1), the layer has no kernels, `per_example` is used with another layer than
            Dense, or "gaussian" with a layer that has no elementwise `activation` or several kernels.

    Example:
        `DropConnect(keras.layers.Dense(128, activation="relu"), 0.5)`
    """

    def __init__(
        self,
        layer: keras.layers.Layer,
        rate: float,
        *,
        per_example: bool = False,
        inference: str = "mean",
        drop_bias: bool = False,
        seed: int | None = None,
        **kwargs: Any,
    ):
        super().__init__(layer, rate, seed=seed, **kwargs)
        self.per_example, self.inference, self.drop_bias = bool(per_example), inference, bool(drop_bias)
        if inference not in ("mean", "gaussian"):
            raise ValueError(f'DropConnect: inference must be "mean" or "gaussian", got {inference!r}.')
        if per_example and not isinstance(layer, keras.layers.Dense):
            raise ValueError(
                f"DropConnect: per_example needs a Dense layer, got {type(layer).__name__} {layer.name!r}; use "
                f"per_example=False for one mask per batch."
            )
        if inference == "gaussian":
            self._check_activation()
        # Keras reads the accepted arguments and masks from the signature
        self._call_signature = _with_training(inspect.signature(layer.call))
        self._call_has_mask_arg = "mask" in self._call_signature.parameters

    def _check_activation(self) -> None:
        activation = getattr(self.layer, "activation", None)
        activation = activation.activation if isinstance(activation, keras.layers.Activation) else activation
        if isinstance(activation, keras.layers.Layer):
            elementwise, name = isinstance(activation, ELEMENTWISE_LAYERS), type(activation).__name__
        else:
            name = getattr(activation, "__name__", "")
            elementwise = not any(part in name for part in NOT_ELEMENTWISE)
        if not hasattr(self.layer, "activation") or hasattr(self.layer, "cell") or not elementwise:
            raise ValueError(
                'DropConnect: inference="gaussian" needs a linear layer followed by an elementwise activation, got '
                f"{type(self.layer).__name__} {self.layer.name!r} with activation {name!r}; put the activation in a "
                'layer of its own or use inference="mean".'
            )

    def build(self, input_shape: Shape) -> None:
        super().build(input_shape)
        kernels = [variable.name for variable in self._variables("kernel")]
        if not kernels:
            raise ValueError(
                f"DropConnect needs a layer with a kernel; {type(self.layer).__name__} {self.layer.name!r} only has "
                f"the variables {[v.name for v in self.layer.variables]}."
            )
        if self.inference == "gaussian" and len(kernels) > 1:
            raise ValueError(
                'DropConnect: inference="gaussian" needs a layer with one masked kernel; '
                f'{type(self.layer).__name__} {self.layer.name!r} has {kernels}; use inference="mean".'
            )

    def call(self, *args: Any, training: bool | None = None, **kwargs: Any) -> Tensor:
        if self.noisy(training):
            return (self._per_example if self.per_example else self._per_batch)(*args, **kwargs)
        if self.inference == "gaussian" and self.rate and not training:
            return self._gaussian(*args, **kwargs)
        return self.layer(*args, **kwargs)

    def compute_output_spec(self, *args: Any, training: bool | None = None, **kwargs: Any) -> Any:
        return self.layer.compute_output_spec(*args, **kwargs)

    def compute_mask(self, inputs: Tensor, previous_mask: Tensor) -> Tensor:
        return self.layer.compute_mask(inputs, previous_mask) if self.layer.supports_masking else None

    def describe(self) -> str:
        masked = "weights and biases" if self.drop_bias else "weights"
        unit = "example" if self.per_example else "batch"
        return f"{masked} of {type(self.layer).__name__} {self.layer.name}, per {unit}"

    def get_config(self) -> dict[str, Any]:
        own = {"per_example": self.per_example, "inference": self.inference, "drop_bias": self.drop_bias}
        return {**super().get_config(), **own}

    def _variables(self, suffix: str) -> list[keras.Variable]:
        return [variable for variable in self.layer.variables if variable.name.endswith(suffix)]

    def _per_batch(self, *args: Any, **kwargs: Any) -> Tensor:
        masked = self._variables("kernel") + (self._variables("bias") if self.drop_bias else [])
        scale = 1 / (1 - self.rate)
        values = {id(v): ops.where(self.keep_mask(v.shape, "bool"), v * scale, 0) for v in masked}
        outputs, losses = call_assigning(self.layer, values, *args, **kwargs)
        for loss in losses:
            self.add_loss(loss)
        return outputs

    def _per_example(self, inputs: Tensor) -> Tensor:
        dense, dtype = self.layer, self.layer.compute_dtype
        inputs, kernel = ops.cast(inputs, dtype), ops.cast(dense.kernel, dtype)
        examples, *positions, features = ops.shape(inputs)
        seeds = keras.random.randint((examples, 2), 0, 2**31 - 1, seed=self.seed_generator)
        seeds = ops.cast(seeds, self.seed_generator.state.dtype)
        rows = ops.reshape(inputs, (examples, math.prod(positions), features))
        outputs = _masked_matmul(self.rate, seeds)(rows, kernel)
        outputs = ops.reshape(outputs, (examples, *positions, dense.units))
        if dense.use_bias:
            bias = ops.cast(dense.bias, dtype)
            if self.drop_bias:
                shape = (examples, *(1 for _ in positions), dense.units)
                bias = bias * (self.keep_mask(shape, dtype) / (1 - self.rate))
            outputs = outputs + bias
        return self._regularized(outputs if dense.activation is None else dense.activation(outputs))

    def _regularized(self, outputs: Tensor) -> Tensor:
        """Add the wrapped layer's activity regularisation, which its own call would add, and return `outputs`."""
        if self.layer.activity_regularizer is not None:
            loss = self.layer.activity_regularizer(outputs)
            # divided by the number of examples, as in Keras
            self.add_loss(loss / ops.cast(ops.shape(outputs)[0], loss.dtype))
        return outputs

    def _gaussian(self, inputs: Tensor) -> Tensor:
        activation = self.layer.activation or keras.activations.linear
        if activation is keras.activations.linear:
            return self.layer(inputs)
        with _linear(self.layer):
            mean, _ = call_assigning(self.layer, {}, inputs)
            std = self._deviation(ops.cast(inputs, self.layer.compute_dtype))
        return self._regularized(self._expected(activation, mean, std))

    @staticmethod
    def _expected(activation: Callable[[Tensor], Tensor], mean: Tensor, std: Tensor) -> Tensor:
        """Return E[activation(u)] for u ~ N(mean, std²)."""
        if activation is keras.activations.relu:
            z = mean / std
            density = ops.exp(-0.5 * z * z) / math.sqrt(2 * math.pi)
            return mean * (0.5 * (1 + ops.erf(z / math.sqrt(2)))) + std * density
        weights = NODE_WEIGHTS / NODE_WEIGHTS.sum()
        return sum(float(w) * activation(mean + float(z) * std) for z, w in zip(NODES, weights, strict=True))

    def _deviation(self, inputs: Tensor) -> Tensor:
        """Return σ of the pre-activation.

        Inputs and kernel are divided by their largest entries, so that float16 can hold their squares.
        """
        half = keras.backend.standardize_dtype(inputs.dtype) == "float16"
        tiny = 1e-4 if half else 1e-6  # JAX rounds subnormal float16, below 6e-5, to 0, which gives 0 / 0 for x = 0
        (kernel,) = self._variables("kernel")
        width, height = ops.max(ops.abs(inputs)) + tiny, ops.max(ops.abs(kernel)) + tiny
        scale = ops.cast(width, kernel.dtype) * height
        values = {id(kernel): ops.square(kernel / height)}
        for bias in self._variables("bias"):
            values[id(bias)] = ops.square(bias / scale) if self.drop_bias else ops.zeros(bias.shape, bias.dtype)
        variance, _ = call_assigning(self.layer, values, ops.square(inputs / width))
        factor = math.sqrt(self.rate / (1 - self.rate))
        return ops.sqrt(variance + tiny**2) * ops.cast(scale * factor, variance.dtype) + tiny


def _with_training(signature: inspect.Signature) -> inspect.Signature:
    """Return `signature` with the argument `training` after the other named arguments."""
    parameters = dict(signature.parameters)
    training = parameters.pop("training", inspect.Parameter("training", inspect.Parameter.KEYWORD_ONLY, default=None))
    training = training.replace(kind=inspect.Parameter.KEYWORD_ONLY)
    last = [p for p in parameters.values() if p.kind is inspect.Parameter.VAR_KEYWORD]
    return signature.replace(parameters=[p for p in parameters.values() if p not in last] + [training, *last])


@contextlib.contextmanager
def _linear(layer: Any) -> Iterator[None]:
    """Make `layer` return its pre-activation inside the context."""
    activation = layer.activation
    layer.activation = keras.activations.linear
    try:
        yield
    finally:
        layer.activation = activation


class _Drawn(keras.random.SeedGenerator):
    """Hold a seed that was drawn before, so that a backward pass can repeat the forward pass's draws."""

    def __init__(self, seed: Tensor):
        self.drawn_seed = seed

    def next(self, ordered: bool = True) -> Tensor:
        return self.drawn_seed


def _masked_matmul(rate: float, seeds: Tensor) -> Callable[[Tensor, Tensor], Tensor]:
    """Return f(x, W): y_e = x_e (M_e ∘ W) / (1 − rate), with M_e drawn from seeds[e].

    Both passes process one example at a time.

    Gradients: dx_e = g_e (M_e ∘ W)ᵀ / (1 − rate) and dW = Σ_e M_e ∘ (x_eᵀ g_e) / (1 − rate).
    Shapes: x (examples, positions, in), W (in, out), y (examples, positions, out).
    """

    def masked(values: Tensor, seed: Tensor) -> Tensor:
        return ops.where(keep_mask(values.shape, rate, _Drawn(seed), "bool"), values * (1 / (1 - rate)), 0)

    @ops.custom_gradient
    def matmul(x: Tensor, kernel: Tensor) -> tuple[Tensor, Callable[..., tuple[Tensor, Tensor]]]:
        def gradient(*args: Any, upstream: Tensor = None) -> tuple[Tensor, Tensor]:
            upstream = args[0] if upstream is None else upstream

            def step(i: Tensor, sums: tuple[Tensor, Tensor]) -> tuple[Tensor, Tensor]:
                d_x, d_kernel = sums
                mask = masked(ops.ones_like(kernel), ops.take(seeds, i, axis=0))
                x_i, g_i = ops.take(x, i, axis=0), ops.take(upstream, i, axis=0)
                back = ops.matmul(g_i, ops.transpose(mask * kernel))
                d_x = ops.slice_update(d_x, (i, 0, 0), ops.expand_dims(back, 0))
                return d_x, d_kernel + ops.cast(mask * ops.matmul(ops.transpose(x_i), g_i), d_kernel.dtype)

            # summed in at least float32, because a sum of ones in bfloat16 stops at 256
            start = ops.zeros_like(x), ops.zeros(kernel.shape, keras.backend.result_type(kernel.dtype, "float32"))
            d_x, d_kernel = ops.fori_loop(0, ops.shape(x)[0], step, start)
            return d_x, ops.cast(d_kernel, kernel.dtype)

        return ops.map(lambda each: ops.matmul(each[0], masked(kernel, each[1])), (x, seeds)), gradient

    return matmul
