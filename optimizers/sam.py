"""Minimise sharpness-aware: descend by the gradient at the worst nearby point."""

from collections.abc import Callable, Sequence
from contextlib import nullcontext
from functools import partial
from typing import Any, TypeAlias

import keras

from .interception import Ascend, Assign, GradientInterceptor
from .parameters import dense
from .tensors import Tensor, ops

Ascent: TypeAlias = Callable[[Sequence[Tensor], Sequence[Tensor]], list[Tensor]]  # (weights, gradients) → ε


def sharpness_aware(model: keras.Model, rho: float = 0.05, adaptive: bool = False) -> keras.Model:
    """Change `fit` of a model so that each step moves to w + ε, then updates w by the gradient at w + ε.

    SAM uses ε = ρ g / ‖g‖. ASAM (`adaptive`) uses ε = ρ T² g / ‖T g‖ with T = |w| + 0.01, which does not change when
    one layer is scaled by s and the next one by 1/s.

    The model's own `train_step` runs twice, so its loss, loss scaling and optimizer do not change. The reported loss
    and metrics, and the batch statistics, are those of the first pass, at w. Both passes draw the same dropout, on
    torch only if the layer has a seed, because Keras otherwise uses torch's global generator. The model is changed in
    place, and is saved as the plain model. On several replicas of a `tf.distribute` strategy, ε is computed from the
    gradient of the whole batch, as on one device.

    Args:
        model: a compiled or uncompiled model; compile and fit it as usual.
        rho: ρ, the radius; typically 0.05, and for ASAM 0.5 to 2.
        adaptive: whether to use ASAM.

    Returns:
        The same model.

    Raises:
        ValueError: If `rho` is not positive, or the model is already sharpness-aware.

    Source: Foret et al., 2021; Kwon et al., ASAM, 2021.

    Example:
        `sharpness_aware(model).fit(images, labels)`
    """
    if not rho > 0:
        raise ValueError(f"rho must be positive. Got {rho}.")
    if "train_step" in vars(model):
        raise ValueError(
            "The model's train_step has already been replaced, so the model may be sharpness-aware. Pass a new model."
        )
    ascent, interceptor = partial(_ascent, rho=rho, adaptive=adaptive), GradientInterceptor(model)
    if keras.backend.backend() == "jax":
        step = partial(_stateless_step, model.train_step, interceptor, ascent)
    else:
        strategy = getattr(model, "distribute_strategy", None)
        with strategy.scope() if strategy is not None else nullcontext():
            step = partial(_stateful_step, model.train_step, interceptor, Ascend(ascent), Assign())
    model.train_step = step
    model.train_function = None
    return model


def _ascent(weights: Any, gradients: Sequence[Any], *, rho: float, adaptive: bool) -> list[Tensor]:
    """Return ε of each weight; 0 for weights without a gradient."""
    gradients = [None if g is None else ops.cast(dense(g), "float32") for g in gradients]
    spread = [ops.abs(ops.cast(w, "float32")) + 0.01 if adaptive else 1.0 for w in weights]
    scaled = [None if g is None else t * g for t, g in zip(spread, gradients, strict=True)]
    norm = ops.sqrt(sum(ops.sum(ops.square(s)) for s in scaled if s is not None))
    factor = rho / ops.maximum(norm, 1e-12)
    return [0.0 if s is None else factor * t * s for t, s in zip(spread, scaled, strict=True)]


def _stateless_step(
    train_step: Callable[..., Any], interceptor: GradientInterceptor, ascent: Ascent, state: Any, data: Any
) -> Any:
    """Take one step on JAX, where the state is passed and returned."""
    weights, others, slots, metrics = state
    perturbed = []

    def ascend(slots: Any, gradients: Sequence[Any], weights: Any) -> tuple[Any, Any]:
        perturbed[:] = [w + ops.cast(e, w.dtype) for w, e in zip(weights, ascent(weights, gradients), strict=True)]
        return list(perturbed), slots

    def descend(slots: Any, gradients: Sequence[Any], _: Any) -> tuple[Any, Any]:
        return interceptor.optimizer.stateless_apply(slots, gradients, weights)

    with interceptor.receiving(ascend):
        logs, (_, first_others, _, first_metrics) = train_step(state, data)
    with interceptor.receiving(descend):
        _, (weights, _, slots, _) = train_step((perturbed, others, slots, metrics), data)
    return logs, (weights, first_others, slots, first_metrics)


def _stateful_step(
    train_step: Callable[..., Any], interceptor: GradientInterceptor, ascend: Ascend, assign: Assign, data: Any
) -> Any:
    """Take one step on TensorFlow and torch, where the state is in variables."""
    model = interceptor.model
    before = _copies(model.non_trainable_variables)
    original = []

    def receive_first(gradients: Sequence[Any], variables: Sequence[Any]) -> None:
        original[:] = _copies(variables)
        ascend(gradients, variables)

    def receive_second(gradients: Sequence[Any], variables: Sequence[Any]) -> None:
        assign(original, variables)
        interceptor.optimizer.apply(gradients, variables)

    with interceptor.receiving(receive_first):
        logs = train_step(data)
    after, metrics = _copies(model.non_trainable_variables), _copies(model.metrics_variables)
    assign(before, model.non_trainable_variables)
    with interceptor.receiving(receive_second):
        train_step(data)
    assign(after, model.non_trainable_variables)
    for variable, value in zip(model.metrics_variables, metrics, strict=True):
        variable.assign(value)  # each replica has separate metrics
    return logs


def _copies(variables: Sequence[Any]) -> list[Tensor]:
    return [ops.copy(variable.value) for variable in variables]
