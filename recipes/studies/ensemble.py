"""Join several results by the mean of their predictions or of their weights."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace

import keras
import numpy as np

from recipes.auditing.audit import Audit
from recipes.core.output import safe_output
from recipes.data.images import ImageData
from recipes.errors import RecipeError
from recipes.evaluation.calibrate import calibrated, tempered
from recipes.evaluation.ledger import TELLING, Gain, gain_over
from recipes.evaluation.metrics import score
from recipes.evaluation.predictions import Judged
from recipes.evaluation.selection import Score, Selection, image_weights
from recipes.networks.classifier import recalibrated
from recipes.networks.data_format import CHANNELS_LAST
from recipes.result import Result
from recipes.studies.compatible import check_architectures, check_independent, checked
from recipes.training.batches import shown


@safe_output()
def ensemble(results: Iterable[Result], validation: object = None) -> Result:
    """Return a Result whose predictions are the means of the predictions of `results`.

    Args:
        results: At least two results of the same classes, of any networks and image sizes.
        validation: Labelled images that no result was trained on, in any form that `finetune` takes. These images fit a
            temperature, which is used if its gain exceeds the noise, and fill the ledger. None skips both.

    Raises:
        RecipeError: If there are fewer than two results, their classes differ, or two results share their weights.

    Example:
        `recipes.ensemble([recipes.finetune("photos/", seed=s) for s in range(5)], "held_out/").export("serving")`
    """
    members = checked(results, "ensemble")
    check_independent(members)
    size = max(result.recipe.evaluation_policy.size for result in members)
    joint = _joint(
        members, _mean_model(members, size), f"ensemble of {len(members)}", size,
        mirror=all(result.recipe.mirror for result in members),
    )  # fmt: skip
    joint.recipe = joint.recipe.because(
        "ensemble", "the mean of the predictions of {models} models", models=len(members)
    )
    if validation is None:
        return joint
    return _evaluated(joint, members, _labelled(joint, validation), None, "ensemble", cost=float(len(members)))


@safe_output()
def soup(results: Iterable[Result], validation: object = None) -> Result:
    """Return a Result with the mean of the weights of `results`, at the cost of one model (Wortsman et al. 2022).

    The greedy soup starts with the best run, then adds each run that does not raise the validation loss (negative
    log-likelihood at the best temperature). The runs must share their pretrained start, because weights of independent
    random starts have no meaningful mean.

    Args:
        results: At least two results of one architecture and of the same classes. Images are classified at the first
            result's image size.
        validation: Labelled images that no result was trained on; None averages the weights of all runs.

    Raises:
        RecipeError: If there are fewer than two results, their classes or architectures differ, or their starts are
            random.
    """
    members = checked(results, "soup")
    mixed = _mixed(members, validation)
    if mixed.data is None:
        return mixed.result
    if len(mixed.data) < 2:
        raise RecipeError(
            "soup: validation has one image, which cannot both select and evaluate; give at least two",
            code="ensemble.one_image",
        )  # fmt: skip
    honest = cross_selected(members, mixed.data)
    mixed.result.selection = Selection.of(honest.argmax(1) == mixed.data.labels, len(members))
    return _evaluated(mixed.result, members, mixed.data, honest, mixed.name, cost=1.0)


def cross_selected(results: Sequence[Result], data: ImageData) -> np.ndarray:
    """Return each image's probabilities (n, classes) by the soup that the other half of the images selects."""
    half = np.random.default_rng(0).permutation(len(data)) % 2
    probabilities = np.empty((len(data), len(results[0].class_names)))
    for selecting in (0, 1):
        inside, outside = np.flatnonzero(half == selecting), np.flatnonzero(half != selecting)
        joint = _mixed(results, data.subset(inside)).result
        probabilities[outside] = joint.probabilities(data.subset(outside))
    return probabilities


@dataclass(frozen=True, eq=False)
class _Soup:
    """Hold a soup before its evaluation, the images that selected its runs (None if none did), and its name."""

    result: Result
    data: ImageData | None
    name: str


def _mixed(results: Sequence[Result], validation: object) -> _Soup:
    check_architectures(results)
    weights = [result.model.get_weights() for result in results]
    first = results[0].recipe
    joint = _joint(results, _untempered(results[0].model), "soup", first.evaluation_policy.size, bool(first.mirror))
    data = None if validation is None else _labelled(joint, validation)
    chosen = list(range(len(results))) if data is None else _greedy(joint, weights, data)
    joint.model.set_weights(_mean(weights, chosen))
    how = "selected by validation loss"
    if data is None:
        how = "without a selection of runs and without a temperature, because there are no validation images"
    text = f"the mean of the weights of {{chosen}} of {{runs}} runs, {how}"
    joint.recipe = joint.recipe.because("soup", text, chosen=len(chosen), runs=len(results))
    return _Soup(joint, data, f"soup of {len(chosen)} of {len(results)}")


def _labelled(joint: Result, validation: object) -> ImageData:
    if isinstance(validation, ImageData) and list(validation.class_names) == list(joint.class_names):
        return validation
    return joint.evaluable(validation)


def _joint(results: Sequence[Result], model: keras.Model, name: str, size: int, mirror: bool) -> Result:
    """Return a Result of `model` with the facts that all results share and the sum of all durations."""
    first = results[0]
    recipe = replace(
        first.recipe, size=size, policy=first.recipe.policy.resized(size), test_size=size, crops=1, scales=None,
        mirror=mirror, refit=False, decisions=(),
    )  # fmt: skip
    phases = {phase for result in results for phase in result.seconds}
    return Result(
        model=model, class_names=list(first.class_names), recipe=recipe, history={}, audit=_joint_audit(results),
        backbone=f"{name}: " + ", ".join(sorted({r.backbone for r in results})), versions=first.versions,
        seconds={phase: sum(r.seconds.get(phase, 0.0) for r in results) for phase in sorted(phases)},
        command={name.split()[0]: [r.command for r in results]},
    )  # fmt: skip


def _joint_audit(results: Sequence[Result]) -> Audit:
    """Return the first audit, with fingerprints of all images used to train or select any result."""
    prints = [result.audit.fingerprints for result in results]
    every = {split: tuple(dict.fromkeys(p for each in prints for p in each.get(split, ()))) for split in prints[0]}
    return results[0].audit.with_fingerprints(every)


def _mean_model(results: Sequence[Result], size: int) -> keras.Model:
    sizes = [result.recipe.evaluation_policy.size for result in results]
    fixed = len(set(sizes)) > 1 or any(r.model.inputs[0].shape[1] is not None for r in results)
    images = keras.Input((size if fixed else None,) * 2 + (3,), name="images")
    outputs = []
    for i, (result, side) in enumerate(zip(results, sizes, strict=True)):
        member = keras.Model(result.model.inputs, result.model.outputs[0], name=f"member_{i}")
        view = images
        if side != size:
            view = keras.layers.Resizing(
                side, side, antialias=True, data_format=CHANNELS_LAST, name=f"at_{side}_{i}"
            )(images)  # fmt: skip
        outputs.append(member(view))
    mean = keras.layers.Average(dtype="float32", name="mean_of_members")(outputs)
    return keras.Model(images, mean, name="classifier")


def _untempered(model: keras.Model) -> keras.Model:
    """Return an independent copy of the model with temperature 1."""

    def copy(layer: keras.layers.Layer) -> keras.layers.Layer:
        config = layer.get_config()
        return layer.__class__.from_config(config | {"scale": 1.0} if layer.name == "temperature" else config)

    return keras.models.clone_model(model, clone_function=copy)


def _greedy(joint: Result, weights: Sequence[list[np.ndarray]], data: ImageData) -> list[int]:
    """Return the positions of the runs in the greedy soup."""
    counts = image_weights(data.labels, len(joint.class_names), joint.recipe.balanced)
    images = shown(data, joint.recipe)

    def loss(chosen: Sequence[int]) -> float:
        joint.model.set_weights(_mean(weights, chosen))
        probabilities = joint.model.predict(images, verbose=0)[: len(data)].astype(np.float64)
        return Score.of(np.log(np.maximum(probabilities, 1e-12)), data.labels, counts).loss

    alone = [loss([i]) for i in range(len(weights))]
    order = sorted(range(len(weights)), key=alone.__getitem__)
    chosen, best = order[:1], alone[order[0]]
    for i in order[1:]:
        with_it = loss([*chosen, i])
        if with_it <= best:
            chosen, best = [*chosen, i], with_it
    return chosen


def _mean(weights: Sequence[list[np.ndarray]], chosen: Sequence[int]) -> list[np.ndarray]:
    """Return the mean weights of the chosen runs; integer counters are those of the first run."""
    columns = zip(*(weights[i] for i in chosen), strict=True)
    return [
        column[0]
        if np.issubdtype(column[0].dtype, np.integer)
        else np.mean(column, 0, dtype=np.float64).astype(column[0].dtype)
        for column in columns
    ]


def _evaluated(
    joint: Result, results: Sequence[Result], data: ImageData, honest: np.ndarray | None, trick: str, *, cost: float
) -> Result:
    """Return `joint` with a fitted temperature, its validation accuracy and its ledger.

    Args:
        joint: The joint result.
        results: The members of the joint result.
        data: The validation images.
        honest: Probabilities (n, classes) for the ledger if the labels selected the members of `joint`; else None.
        trick: Name of the row in the ledger.
        cost: Cost of a prediction, as a multiple of one model's.
    """
    members, labels = [result.probabilities(data) for result in results], data.labels
    probabilities = joint.probabilities(data)
    single = float(np.mean([(p.argmax(1) == labels).mean() for p in members]))
    row = gain_over(trick, members, probabilities if honest is None else honest, labels, requested=True, cost=cost)
    rows = [Gain("one model, on average", single), row]
    if len(labels) >= TELLING:
        calibration, row = calibrated(np.log(np.maximum(probabilities[None].astype(np.float64), 1e-12)), labels)
        rows.append(row)
        if row.kept:
            joint.model, joint.calibration = recalibrated(joint.model, calibration.temperature), calibration
            probabilities = tempered(probabilities, labels)
    joint.validation, joint.ledger, joint.held_out = score(probabilities, labels, joint.class_names), tuple(rows), data
    joint.judged = Judged(labels, probabilities.astype(np.float32))
    return joint
