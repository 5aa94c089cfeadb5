"""Sharpness-aware minimisation: descend by the gradient at the worst point nearby."""

import threading
from contextlib import contextmanager, nullcontext
from functools import partial

import keras
from keras import ops

from .multi_tensor import MultiTensorOptimizer
from .parameters import dense


def sharpness_aware(model: keras.Model, rho: float = 0.05, adaptive: bool = False) -> keras.Model:
    """The same model, whose `fit` now takes two passes a step: up to w + ε, then the update of w by the gradient there.

    SAM: ε = ρ g / ‖g‖. ASAM (`adaptive`): ε = ρ T² g / ‖T g‖ with T = |w| + 0.01, which does not change when a layer is
    scaled by s and the next one by 1/s. The model's own `train_step` is run twice, hence its loss, loss scaling and
    optimizer are its own; the loss and metrics reported, and the batch statistics kept, are those of the first pass,
    at w, and both passes draw the same dropout (on torch if the layer has a seed; otherwise Keras uses torch's global
    generator). The model is changed in place; what it saves is the plain model. On several replicas of a
    `tf.distribute` strategy ε comes from the gradient of the whole batch, as on one device.

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
    ascent, stand = partial(_ascent, rho=rho, adaptive=adaptive), _Stand(model)
    if keras.backend.backend() == "jax":
        step = partial(_stateless_step, model.train_step, stand, ascent)
    else:
        strategy = getattr(model, "distribute_strategy", None)
        with strategy.scope() if strategy is not None else nullcontext():
            step = partial(_stateful_step, model.train_step, stand, _Climb(ascent), _Put())
    model.train_step = step
    model.train_function = None
    return model


def _ascent(weights, gradients, *, rho, adaptive):
    """ε for each weight; 0 where there is no gradient."""
    gradients = [None if g is None else ops.cast(dense(g), "float32") for g in gradients]
    spread = [ops.abs(ops.cast(w, "float32")) + 0.01 if adaptive else 1.0 for w in weights]
    scaled = [None if g is None else t * g for t, g in zip(spread, gradients, strict=True)]
    norm = ops.sqrt(sum(ops.sum(ops.square(s)) for s in scaled if s is not None))
    factor = rho / ops.maximum(norm, 1e-12)
    return [0.0 if s is None else factor * t * s for t, s in zip(spread, scaled, strict=True)]


def _stateless_step(train_step, stand, ascent, state, data):
    """JAX: the state goes in and comes out."""
    weights, others, slots, metrics = state
    seen = []

    def climb(slots, gradients, weights):
        seen.append([w + ops.cast(e, w.dtype) for w, e in zip(weights, ascent(weights, gradients), strict=True)])
        return seen[-1], slots

    def descend(slots, gradients, _):
        return stand.optimizer.stateless_apply(slots, gradients, weights)

    with stand.receiving(climb):
        logs, (_, kept, _, kept_metrics) = train_step(state, data)
    with stand.receiving(descend):
        _, (weights, _, slots, _) = train_step((seen[0], others, slots, metrics), data)
    return logs, (weights, kept, slots, kept_metrics)


def _stateful_step(train_step, stand, climb, put, data):
    """TensorFlow and torch: the state is in variables."""
    model = stand.model
    before = _copies(model.non_trainable_variables)
    held = []

    def ascend(gradients, variables):
        held[:] = _copies(variables)
        climb(gradients, variables)

    def descend(gradients, variables):
        put(held, variables)
        stand.optimizer.apply(gradients, variables)

    with stand.receiving(ascend):
        logs = train_step(data)
    after, metrics = _copies(model.non_trainable_variables), _copies(model.metrics_variables)
    put(before, model.non_trainable_variables)
    with stand.receiving(descend):
        train_step(data)
    put(after, model.non_trainable_variables)
    for variable, value in zip(model.metrics_variables, metrics, strict=True):
        variable.assign(value)  # each replica has its own
    return logs


class _Move(MultiTensorOptimizer):
    """Assigns to variables. An optimizer because Keras's know how to change the copies on all replicas alike."""

    def __init__(self):
        super().__init__(0.0)

    def __call__(self, values, variables):
        if variables:
            self._backend_update_step(list(values), list(variables), 0.0)


class _Climb(_Move):
    """variable ← variable + ε, from gradients, which are summed over the replicas first."""

    def __init__(self, ascent):
        super().__init__()
        self.ascent = ascent

    def __call__(self, gradients, variables):
        super().__call__(
            *zip(*((g, v) for g, v in zip(gradients, variables, strict=True) if g is not None), strict=True)
        )

    def _update(self, gradients, variables, rate):
        weights = [ops.convert_to_tensor(variable) for variable in variables]
        for variable, w, e in zip(variables, weights, self.ascent(weights, gradients), strict=True):
            variable.assign(w + ops.cast(e, w.dtype))


class _Put(_Move):
    """variable ← value, the same on all replicas."""

    def _all_reduce_sum_gradients(self, grads_and_vars):
        return grads_and_vars

    def _update(self, values, variables, rate):
        for variable, value in zip(variables, values, strict=True):
            variable.assign(value)


class _Stand:
    """Stands in for the model's optimizer during a pass: `train_step` hands it the gradients.

    Replicas run in threads of their own that take turns in the middle of a pass: each has its own receiver, and the
    last one out puts the optimizer back. It is set past Keras's tracking, which would save it.
    """

    def __init__(self, model):
        self.model, self.optimizer = model, None
        self.inside, self.lock, self.local = 0, threading.Lock(), threading.local()

    @contextmanager
    def receiving(self, receiver):
        with self.lock:
            if not self.inside:
                self.optimizer, vars(self.model)["optimizer"] = vars(self.model)["optimizer"], self
            self.inside += 1
        self.local.receiver = receiver
        try:
            yield
        finally:
            with self.lock:
                self.inside -= 1
                if not self.inside:
                    vars(self.model)["optimizer"] = self.optimizer

    def apply_gradients(self, grads_and_vars):
        self.apply(*zip(*grads_and_vars, strict=True))

    def apply(self, gradients, variables):
        self.local.receiver(list(gradients), list(variables))

    def stateless_apply(self, slots, gradients, weights):
        return self.local.receiver(slots, gradients, weights)

    def __getattr__(self, name):
        return getattr(self.optimizer, name)


def _copies(variables):
    return [ops.copy(variable.value) for variable in variables]
