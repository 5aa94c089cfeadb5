"""Sharpness-aware minimisation: descend by the gradient at the worst point nearby."""

from contextlib import contextmanager
from functools import partial

import keras
from keras import ops


def sharpness_aware(model: keras.Model, rho: float = 0.05, adaptive: bool = False) -> keras.Model:
    """The same model, whose `fit` now takes two passes a step: up to w + ε, then the update of w by the gradient there.

    SAM: ε = ρ g / ‖g‖. ASAM (`adaptive`): ε = ρ T² g / ‖T g‖ with T = |w| + 0.01, which does not change when a layer is
    scaled by s and the next one by 1/s. The model's own `train_step` is run twice, hence its loss, loss scaling and
    optimizer are its own; the loss and metrics reported, and the batch statistics kept, are those of the first pass,
    at w, and both passes draw the same dropout (on torch if the layer has a seed; otherwise Keras uses torch's global
    generator). The model is changed in place; what it saves is the plain model. Under `tf.distribute`, compute ε on
    one replica only: strategies with several are refused.

    Args:
        model: compiled or not; compile and fit it as usual.
        rho: ρ, the radius; 0.05, for ASAM 0.5 to 2.
        adaptive: ASAM.

    Raises: ValueError for rho ≤ 0, or for a model that is sharpness-aware already.

    Source: Foret et al., 2021; Kwon et al., ASAM, 2021.

    Example: `sharpness_aware(model).fit(images, labels)`
    """
    if not rho > 0:
        raise ValueError(f"rho must be positive; without it, fit the plain model. Got {rho}.")
    if "train_step" in vars(model):
        raise ValueError("The model's train_step is replaced already: is it sharpness-aware?")
    step = _stateless_step if keras.backend.backend() == "jax" else _stateful_step
    model.train_step = partial(step, model, model.train_step, partial(_ascent, rho=rho, adaptive=adaptive))
    model.train_function = None
    return model


def _ascent(weights, gradients, *, rho, adaptive):
    """ε for each weight; 0 where there is no gradient."""
    gradients = [None if g is None else ops.cast(ops.convert_to_tensor(g), "float32") for g in gradients]
    spread = [ops.abs(ops.cast(w, "float32")) + 0.01 if adaptive else 1.0 for w in weights]
    scaled = [None if g is None else t * g for t, g in zip(spread, gradients, strict=True)]
    norm = ops.sqrt(sum(ops.sum(ops.square(s)) for s in scaled if s is not None))
    factor = rho / ops.maximum(norm, 1e-12)
    return [0.0 if s is None else factor * t * s for t, s in zip(spread, scaled, strict=True)]


def _stateless_step(model, train_step, ascent, state, data):
    """JAX: the state goes in and comes out."""
    weights, others, slots, metrics = state
    optimizer = model.optimizer
    seen = []

    def climb(slots, gradients, weights):
        seen.append([w + ops.cast(e, w.dtype) for w, e in zip(weights, ascent(weights, gradients), strict=True)])
        return seen[-1], slots

    def descend(slots, gradients, _):
        return optimizer.stateless_apply(slots, gradients, weights)

    with _optimizer(model, _Stand(optimizer, stateless_apply=climb)):
        logs, (_, kept, _, kept_metrics) = train_step(state, data)
    with _optimizer(model, _Stand(optimizer, stateless_apply=descend)):
        _, (weights, _, slots, _) = train_step((seen[0], others, slots, metrics), data)
    return logs, (weights, kept, slots, kept_metrics)


def _stateful_step(model, train_step, ascent, data):
    """TensorFlow and torch: the state is in variables."""
    optimizer = model.optimizer
    strategy = getattr(optimizer, "_distribution_strategy", None)
    if strategy is not None and strategy.num_replicas_in_sync > 1:
        raise ValueError("sharpness_aware does not work with several replicas: fit on one device.")
    before = _copies(model.non_trainable_variables)
    held = []

    def climb(gradients, variables):
        held[:] = _copies(variables)
        for variable, w, e in zip(variables, held, ascent(held, gradients), strict=True):
            variable.assign(w + ops.cast(e, w.dtype))

    def descend(gradients, variables):
        _assign(variables, held)
        optimizer.apply(gradients, variables)

    with _optimizer(model, _Stand(optimizer, apply=climb)):
        logs = train_step(data)
    after = [(v, _copies(v)) for v in (model.non_trainable_variables, model.metrics_variables)]
    _assign(model.non_trainable_variables, before)
    with _optimizer(model, _Stand(optimizer, apply=descend)):
        train_step(data)
    for variables, values in after:
        _assign(variables, values)
    return logs


class _Stand:
    """Stands in for the optimizer during one pass: `train_step` hands it the gradients."""

    def __init__(self, optimizer, apply=None, stateless_apply=None):
        self.optimizer, self.apply, self.stateless_apply = optimizer, apply, stateless_apply

    def apply_gradients(self, grads_and_vars):
        gradients, variables = zip(*grads_and_vars, strict=True)
        self.apply(list(gradients), list(variables))

    def __getattr__(self, name):
        return getattr(self.optimizer, name)


@contextmanager
def _optimizer(model, stand):
    """`model.optimizer` is `stand` for a while; set past Keras's tracking, which would save it."""
    own = vars(model)["optimizer"]
    vars(model)["optimizer"] = stand
    try:
        yield
    finally:
        vars(model)["optimizer"] = own


def _copies(variables):
    return [ops.copy(variable.value) for variable in variables]


def _assign(variables, values):
    for variable, value in zip(variables, values, strict=True):
        variable.assign(value)
