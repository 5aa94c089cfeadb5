"""Check a classifier: each check measures one property and compares it with the usual range."""

import math
from collections.abc import Callable, Sequence
from typing import Any

import keras
import numpy as np
from keras import ops

from recipes import layers, optimizers
from recipes.diagnostics.subject import BATCH, Subject, Verdict, redrawn
from recipes.networks.compiled import weight_gradients

FEW = 20  # number of images that any network must be able to learn by heart
_HEART_STEPS, _RATIO_STEPS, _RANGE_STEPS = 150, 10, 60
_RANGE = (1e-6, 1.0)


def initial_loss(subject: Subject) -> Verdict:
    """Check that the loss with a new head equals that of a uniform guess, log(classes)."""
    loss = float(subject.loss(subject.with_new_head(), subject.images[:BATCH], subject.labels[:BATCH]))
    expected = math.log(subject.classes)
    well = math.isfinite(loss) and abs(loss - expected) < 0.5 * expected
    advice = "the head's first weights or the features are too large: draw smaller weights, or normalise the features"
    measured = f"{loss:.2f} nats with a new head, log({subject.classes}) = {expected:.2f}"
    if subject.warm and math.isfinite(loss):
        return Verdict(
            "initial loss", None, f"{measured}; does not apply, because this training began at a linear classifier"
        )
    return Verdict("initial loss", well, measured, "" if well else advice)


def regularisation(subject: Subject) -> Verdict:
    """Check that the penalties of the model's layers raise the loss, but do not dominate it."""
    penalties = [float(loss) for loss in subject.model.losses]
    if not penalties:
        return Verdict(
            "regularisation", None, "no layer has a regularizer (weight decay in the optimizer is not part of the loss)"
        )
    data, added = float(subject.loss(subject.model, subject.images[:BATCH], subject.labels[:BATCH])), sum(penalties)
    well = 0 < added < math.log(subject.classes)
    advice = (
        "a penalty that is not positive cannot regularise: correct the regularizers"
        if added <= 0
        else "the penalty outweighs the loss of a uniform guess: divide it by ten"
    )
    return Verdict("regularisation", well, f"the penalties raise the loss from {data:.2f} to {data + added:.2f} nats",
                   "" if well else advice)  # fmt: skip


def learns_by_heart(subject: Subject) -> Verdict:
    """Check that the model can learn 20 images by heart without noise and penalties."""
    rows = _some_of_each(subject.labels, FEW)
    images, labels, model = subject.images[rows], subject.labels[rows], subject.with_new_head()
    if not model.trainable_variables:
        return Verdict("learns 20 images by heart", None, "nothing in the model is trainable")
    if any(isinstance(layer, keras.layers.BatchNormalization) for layer in model._flatten_layers()):
        layers.reestimate_batch_statistics(model, [images])
    learner, losses = _Learner(subject, model, optimizers.Adam(1e-3)), []
    for _ in range(_HEART_STEPS):
        losses.append(learner.step(images, labels))
        if not math.isfinite(losses[-1]) or losses[-1] < 0.01 * math.log(subject.classes):
            break
    right = float(np.mean(np.argmax(learner.predict_on_batch(images), -1) == labels))
    well = right == 1.0 and losses[-1] < 0.1 * math.log(subject.classes)
    measured = f"loss {losses[-1]:.3f}, {right:.0%} correct after {len(losses)} steps on {len(rows)} images"
    advice = "check the order of the labels, the loss, the scale of the inputs, and frozen layers"
    return Verdict("learns 20 images by heart", well, measured, "" if well else advice, {"loss": losses}, "step")


def activations(subject: Subject) -> Verdict:
    """Check the standard deviations and dead units of all layers' outputs with random weights."""
    model = redrawn(subject.model)
    spread, dead = layer_statistics(model, subject.images[:BATCH], training=True)
    values = list(spread.values())
    early, late = _ends(values)
    measured = (
        f"with random weights, standard deviation {early:.2g} in the first third of {len(values)} layers, {late:.2g} "
        f"in the last; at most {max(dead.values(), default=0.0):.0%} of a layer's units never fire on "
        f"{min(BATCH, len(subject.images))} images"
    )
    advice = activation_advice(values, dead if len(subject.images) >= FEW else {})
    return Verdict("activations", not advice, measured, advice, {"standard deviation": values})


def activation_advice(stds: list[float], dead: dict[str, float]) -> str:
    """Return advice about the activations; empty if they are in the usual range.

    Args:
        stds: Standard deviations of the layers' outputs, in the order of the layers.
        dead: Name of a layer → share of its units that are dead.
    """
    early, late = _ends(stds)
    ratio = late / early if early else math.inf
    if not np.isfinite(stds).all() or (early and ratio >= 1e2):
        return "activations explode: use He initialisation or batch normalisation"
    if max(dead.values(), default=0.0) >= 0.5:
        return "many units are dead: use a smaller learning rate, He initialisation, or leaky ReLU"
    if not early or ratio <= 1e-2:
        return "activations vanish: use He initialisation, batch normalisation, or residual connections"
    return ""


def _ends(values: list[float]) -> tuple[float, float]:
    """Return the medians of the first and the last third."""
    third = max(1, len(values) // 3)
    return (float(np.median(values[:third])), float(np.median(values[-third:]))) if values else (1.0, 1.0)


def gradients(subject: Subject) -> Verdict:
    """Check the norm of each layer's gradient at the start of training."""
    model = subject.with_new_head()
    if not model.trainable_variables:
        return Verdict("gradients", None, "nothing in the model is trainable")
    images, labels = subject.images[:BATCH], subject.labels[:BATCH]
    slopes = weight_gradients(lambda: subject.loss(model, images, labels), model)
    kernels = [norm for _, norm in kernel_norms(model, slopes)]
    none = sum(norm == 0 for norm in kernels)
    advice = gradient_advice(kernels) if kernels else "no kernel is trainable"
    measured = f"norms {min(kernels, default=0):.2g} to {max(kernels, default=0):.2g} over {len(kernels)} kernels"
    measured += f", {none} of them zero" if none else ""
    return Verdict("gradients", not advice, measured, advice, {"gradient norm": kernels})


def gradient_advice(kernels: list[float]) -> str:
    """Return advice about the norms of the kernels' gradients; empty if they are in the usual range."""
    if not np.isfinite(kernels).all() or max(kernels, default=0.0) >= 1e3 * math.sqrt(len(kernels)):
        return "gradients explode: clip them, or lower the learning rate"
    if not all(kernels):
        return (
            "weights without a gradient learn nothing: check whether they are connected to the loss, and whether the "
            "units before them are dead"
        )
    return ""


def update_ratio(subject: Subject) -> Verdict:
    """Check ‖update‖ / ‖weights‖ of every kernel at the recipe's learning rate; about 1e-3 is good."""
    model = subject.with_new_head()
    kernels = [v for v in model.trainable_variables if len(v.shape) > 1]
    if not kernels or subject.rate is None:
        why = "nothing in the model is trainable" if not kernels else "the recipe takes no gradient steps"
        return Verdict("update-to-weight ratio", None, why)
    learner = _Learner(subject, model, subject.optimizer(subject.rate))
    ratios = []
    for images, labels in subject.batches(_RATIO_STEPS):
        before = copied_arrays(kernels)
        learner.step(images, labels)
        ratios.append(update_ratios(copied_arrays(kernels), before))
    per_layer = np.median(ratios, 0)
    middle = float(np.median(per_layer))
    well = 1e-4 < middle < 1e-2
    advice = "raise the learning rate" if middle <= 1e-4 else "lower the learning rate" if middle >= 1e-2 else ""
    if not math.isfinite(middle):
        advice = "the weights became NaN or infinite: lower the learning rate"
    spread = f"{per_layer.min():.1e} to {per_layer.max():.1e}"
    measured = f"{middle:.1e} in the median layer ({spread}) at learning rate {subject.rate:g}"
    return Verdict("update-to-weight ratio", well, measured, advice, {"update / weight": per_layer.tolist()})


def rate_range(subject: Subject) -> Verdict:
    """Measure the loss while the learning rate grows exponentially from 1e-6 to 1 (Smith 2017)."""
    model = subject.with_new_head()
    if not model.trainable_variables:
        return Verdict("learning rate range", None, "nothing in the model is trainable")
    optimizer = subject.optimizer(_RANGE[0])
    learner = _Learner(subject, model, optimizer)
    rates, smooth = np.geomspace(*_RANGE, _RANGE_STEPS), None
    losses: list[float] = []
    for rate, (images, labels) in zip(rates, subject.batches(_RANGE_STEPS), strict=True):
        optimizer.learning_rate = float(rate)
        loss = learner.step(images, labels)
        smooth = loss if smooth is None else 0.7 * smooth + 0.3 * loss
        losses.append(smooth)
        if not math.isfinite(smooth) or smooth > 3 * max(losses[0], math.log(subject.classes)):
            break
    if not math.isfinite(losses[0]):
        return Verdict("learning rate range", False, "the loss is NaN or infinite before the first update",
                       "check the scale of the inputs, and the labels")  # fmt: skip
    best = int(np.nanargmin(losses))
    suggested = float(rates[best]) / 3
    curves = {"rate": rates[: len(losses)].tolist(), "loss": losses}
    if subject.rate is None:
        measured = f"the loss falls until {rates[best]:.1e}, so about {suggested:.1e} is suitable"
        return Verdict("learning rate range", None, measured, curves=curves)
    well = suggested / 10 <= subject.rate <= float(rates[best])
    measured = f"the loss falls until {rates[best]:.1e}, so use about {suggested:.1e} instead of {subject.rate:g}"
    advice = "" if well else f"try a learning rate of {suggested:.1e}"
    return Verdict("learning rate range", well, measured, advice, curves)


def copied_arrays(variables: Sequence[keras.Variable]) -> list[np.ndarray]:
    """Return copies as NumPy arrays, because compiling the comparison for the device would cost more."""
    return [np.array(ops.convert_to_numpy(v)).astype("float32", copy=False) for v in variables]


def update_ratios(after: Sequence[np.ndarray], before: Sequence[np.ndarray]) -> np.ndarray:
    """Return ‖after − before‖ / ‖before‖ of every pair; ‖after‖ if `before` is zero."""
    pairs = zip(after, before, strict=True)
    return np.array([np.linalg.norm(a - b) / (np.linalg.norm(b) or 1.0) for a, b in pairs])


def kernel_norms(model: keras.Model, slopes: Sequence[np.ndarray | None]) -> list[tuple[str, float]]:
    """Return each kernel's path and gradient norm, from the gradients of all trainable variables."""
    kernels = [(v.path, g) for v, g in zip(model.trainable_variables, slopes, strict=True) if len(v.shape) > 1]
    return [(path, 0.0 if g is None else float(np.linalg.norm(g.astype(np.float32)))) for path, g in kernels]


def layer_statistics(
    model: keras.Model, images: np.ndarray, training: bool
) -> tuple[dict[str, float], dict[str, float]]:
    """Call `model` eagerly and return measurements of its layers by name, without changing the layers.

    Returns:
        Two dicts: the standard deviation of the outputs of each layer with a trainable kernel, and, for each layer with
            rectified outputs, the share of units that are zero for all images. For a layer that is called twice, the
            last call counts.
    """
    seen: dict[str, tuple[float | None, float | None]] = {}

    def recording(layer: keras.Layer, call: Callable) -> Callable:
        def wrapped(*args: Any, **kwargs: Any) -> Any:
            outputs = call(*args, **kwargs)
            if ops.is_tensor(outputs) and len(outputs.shape) > 1:
                out = np.asarray(ops.convert_to_numpy(outputs))
                has_kernel = any(len(weight.shape) > 1 for weight in layer.trainable_weights)
                spread = float(out.std(dtype=np.float32)) if has_kernel else None
                seen[layer.path or layer.name] = spread, _dead_share(out)  # clones without weights have no path
            return outputs

        return wrapped

    leaves = [layer for layer in model._flatten_layers() if not layer._layers]
    for layer in leaves:
        layer.call = recording(layer, layer.call)
    try:
        model(images, training=training)
    finally:
        for layer in leaves:
            del layer.call
    spreads = {name: spread for name, (spread, _) in seen.items() if spread is not None}
    return spreads, {name: share for name, (_, share) in seen.items() if share is not None}


def _dead_share(out: np.ndarray) -> float | None:
    """Return the share of a layer's units that are zero for all images; None if the outputs are not rectified."""
    zero = (out == 0).reshape(-1, out.shape[-1])
    if out.min() < 0 or not zero.any() or out.shape[-1] == 1:
        return None
    return float(zero.all(0).mean())


class _Learner(keras.Model):
    """Train a model by the loss in inference mode, without penalties."""

    def __init__(self, subject: Subject, model: keras.Model, optimizer: keras.optimizers.Optimizer) -> None:
        super().__init__(name="learner", autocast=False)
        self.model, self.cross_entropy = model, subject.cross_entropy
        self.compile(optimizer, loss=None, auto_scale_loss=False)

    def call(self, images: Any) -> Any:
        return self.model(images, training=False)

    def compute_loss(
        self, x: Any = None, y: Any = None, y_pred: Any = None, sample_weight: Any = None, training: bool = True
    ) -> Any:
        return self.cross_entropy(y, y_pred)

    def step(self, images: np.ndarray, labels: np.ndarray) -> float:
        """Compute one update and return the loss before the update."""
        return float(self.train_on_batch(images, labels, return_dict=True)["loss"])


def _some_of_each(labels: np.ndarray, count: int) -> np.ndarray:
    """Return the positions of `count` images from as many classes as possible."""
    order = np.random.default_rng(0).permutation(len(labels))
    rank = np.zeros(len(labels), int)
    for c in np.unique(labels):
        mine = order[labels[order] == c]
        rank[mine] = np.arange(len(mine))
    return np.argsort(rank, kind="stable")[:count]
