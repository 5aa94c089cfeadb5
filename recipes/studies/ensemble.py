"""Several results as one: the mean of their predictions, or of their weights."""

import os
from collections.abc import Sequence
from dataclasses import fields, replace

import keras
import numpy as np

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
from recipes.planning.recipe import Recipe
from recipes.result import Result
from recipes.training.batches import shown


@safe_output()
def ensemble(results: Sequence[Result], validation=None) -> Result:
    """A Result whose predictions are the means of those of `results`.

    results:    at least two, of the same classes; of any networks and image sizes.
    validation: labelled images that none of them was trained on, in any form that `finetune` takes: they fit the
                temperature of the mean, if that gains beyond its noise, and fill the ledger. None: neither is done.

    Raises: RecipeError for fewer than two results, other classes, and results that share their weights.

    Example: `recipes.ensemble([recipes.finetune("photos/", seed=s) for s in range(5)], "held_out/").export("serving")`
    """
    results = _alike(results, "ensemble")
    _independent(results)
    size = max(result.recipe.evaluation_policy.size for result in results)
    told = f"the mean of the predictions of {len(results)} models"
    mirror = all(result.recipe.mirror for result in results)
    joint = _joint(results, _mean_model(results, size), f"ensemble of {len(results)}", told, size, mirror)
    return _judged(joint, results, validation, "ensemble", cost=float(len(results)))


@safe_output()
def soup(results: Sequence[Result], validation=None) -> Result:
    """A Result with the mean of the weights of `results`: one model's cost at test time (Wortsman et al. 2022).

    Greedy: the best run first, then each run whose weights, averaged in, do not raise the validation loss (negative
    log-likelihood at the best temperature). The runs must share their pretrained start: weights of independent random
    starts have no meaningful mean.

    results:    at least two runs of one architecture, of the same classes; images are shown at the first one's size.
    validation: labelled images that none of them was trained on; None: nothing can be chosen, all runs are averaged.

    Raises: RecipeError for fewer than two results, other classes, other architectures, or random starts.
    """
    results = list(results)
    joint, data, trick = poured(results, validation)
    if data is None:
        return joint
    if len(data) < 2:
        raise RecipeError("soup: one validation image can not both choose and judge; give at least two")
    honest = judged_by_halves(results, data)
    joint.selection = Selection.of(honest.argmax(1) == data.labels, len(results))
    return _judged(joint, results, data, trick, cost=1.0, honest=honest)


def judged_by_halves(results, data: ImageData) -> np.ndarray:
    """(n, classes) probabilities of each image by the soup that the other half of the images chooses."""
    half = np.random.default_rng(0).permutation(len(data)) % 2
    found = np.empty((len(data), len(results[0].class_names)))
    for chooses in (0, 1):
        inside, outside = np.flatnonzero(half == chooses), np.flatnonzero(half != chooses)
        joint, *_ = poured(results, data.subset(inside))
        found[outside] = joint.probabilities(data.subset(outside))
    return found


def poured(results: Sequence[Result], validation) -> tuple[Result, ImageData | None, str]:
    """The soup of `results` before it is judged, the images that chose it, and what it is called."""
    results = _alike(results, "soup")
    _same_architecture(results)
    weights = [result.model.get_weights() for result in results]
    first = results[0].recipe
    joint = _joint(results, _untempered(results[0].model), "soup", "", first.evaluation_policy.size, bool(first.mirror))
    data = validation if validation is None else _labelled(joint, validation)
    chosen = list(range(len(results))) if data is None else _greedy(joint, weights, data)
    joint.model.set_weights(_mean(weights, chosen))
    told = f"the mean of the weights of {len(chosen)} of {len(results)} runs"
    told += ", all for want of validation images, at no temperature" if data is None else ", chosen by validation loss"
    joint.recipe = joint.recipe.because(told)
    return joint, data, f"soup of {len(chosen)} of {len(results)}"


def _labelled(joint: Result, validation) -> ImageData:
    known = isinstance(validation, ImageData) and list(validation.class_names) == list(joint.class_names)
    return validation if known else joint.evaluable(validation)


def _alike(results, what: str) -> list[Result]:
    results = list(results)
    strange = [type(result).__name__ for result in results if not isinstance(result, Result)]
    if len(results) < 2 or strange:
        raise RecipeError(f"{what} takes at least two Results; got {strange or len(results)}")
    for result in results[1:]:
        if list(result.class_names) != list(results[0].class_names):
            raise RecipeError(
                f"{what}: the classes differ: {results[0].class_names} and {result.class_names}; train all on the same "
                "classes"
            )
    return results


def _independent(results) -> None:
    """Check that no two results share a weight, for a model file holds it once and could not be loaded again.

    Raises: RecipeError, naming the two.
    """
    owner = {}
    for i, result in enumerate(results):
        for weight in result.model.weights:
            if (first := owner.setdefault(id(weight), i)) != i:
                raise RecipeError(
                    f"ensemble: {_named(results, first)} and {_named(results, i)} share their weights: they are the "
                    "same run, or one is an ensemble with the other in it. Expected different runs; give each once"
                )


def _same_architecture(results) -> None:
    """Check that the weights of all results have a meaningful mean.

    Raises: RecipeError, naming the first run that differs, in what, and what to run instead.
    """
    for i, result in enumerate(results):
        if not result.recipe.warm_start:
            raise RecipeError(
                f"soup: {_named(results, i)} begins with random weights (recipe {result.recipe.name!r}), and weights "
                "of independent random starts have no meaningful mean. " + _PREDICTIONS
            )
    for i, result in enumerate(results[1:], 1):
        if differing := _difference(result, results[0]):
            raise RecipeError(
                f"soup: {_named(results, i)} {differing[0]}, but {_named(results, 0)} {differing[1]}; a soup needs "
                "runs of one architecture and one pretrained start. Train one of them again by the recipe of the "
                "other: `recipes finetune PHOTOS --backbone BACKBONE --recipe RUN --seed SEED`, where RUN is the "
                "folder of the other run (in Python `recipe=recipes.load(RUN).recipe`), and with the same `--epochs`, "
                f"if any. {_what_differs(result.recipe, results[0].recipe)}{_PREDICTIONS}"
            )


_PREDICTIONS = "`recipes ensemble` averages the predictions of any runs."


def _named(results, i: int) -> str:
    """The place of a run among the arguments, with its seed."""
    seed = results[i].command.get("seed")
    return f"run {i + 1} of {len(results)}" + ("" if seed is None else f" (seed {seed})")


def _what_differs(one: Recipe, other: Recipe) -> str:
    """The fields in which two recipes differ, as a sentence; empty where there are none."""
    names = [field.name for field in fields(Recipe) if field.name not in ("reasons", "policy")]
    values = [(name, getattr(one, name), getattr(other, name)) for name in names]
    told = [f"{name} ({first} and {second})" for name, first, second in values if first != second]
    return f"Their recipes differ in {', '.join(told)}. " if told else ""


def _difference(one: Result, other: Result) -> list[str] | None:
    """What each of two results is, in words, where their weights have no meaningful mean; None where they have."""
    pair = (one, other)
    shapes = [[tuple(weight.shape) for weight in result.model.weights] for result in pair]
    fits = shapes[0] == shapes[1]
    starts, taps, models = zip(*((r.backbone, r.recipe.taps, _members(r)) for r in pair), strict=True)
    files = {os.path.abspath(start) for start in starts if start.endswith(".keras")}
    if len(files) == 2 or (not fits and starts[0] != starts[1]):
        return [f"begins from {start}" for start in starts]
    if taps[0] != taps[1] and not (fits and None in taps):  # None: the last stage, which may also be named
        return [f"classifies from {_stages(each)}" for each in taps]
    if fits:
        return None
    if models[0] != models[1]:
        return [f"averages the predictions of {count} network{'s' * (count > 1)}" for count in models]
    return [f"has {len(each)} weights of other shapes" for each in shapes]


def _members(result: Result) -> int:
    """Networks whose predictions the model averages, such as snapshots."""
    return max(1, sum(layer.name.startswith("member_") for layer in result.model.layers))


def _stages(taps) -> str:
    if taps is None:
        return "the last stage"
    return f"stage{'s' * (len(taps) > 1)} {', '.join(str(tap + 1) for tap in taps)}"


def _joint(results, model: keras.Model, name: str, told: str, size: int, mirror: bool) -> Result:
    """A Result of all: what is common is the first one's, what adds up is summed."""
    first = results[0]
    recipe = replace(
        first.recipe, size=size, policy=first.recipe.policy.resized(size), test_size=size, crops=1, scales=None,
        mirror=mirror, refit=False, reasons=(told,) if told else (),
    )  # fmt: skip
    phases = {phase for result in results for phase in result.seconds}
    return Result(
        model=model, class_names=list(first.class_names), recipe=recipe, history={}, audit=_joint_audit(results),
        backbone=f"{name}: " + ", ".join(sorted({r.backbone for r in results})), versions=first.versions,
        seconds={phase: sum(r.seconds.get(phase, 0.0) for r in results) for phase in sorted(phases)},
        command={name.split()[0]: [r.command for r in results]},
    )  # fmt: skip


def _joint_audit(results):
    """The first one's, with all images that any of them was trained on or chosen by."""
    prints = [result.audit.fingerprints for result in results]
    every = {split: tuple(dict.fromkeys(p for each in prints for p in each.get(split, ()))) for split in prints[0]}
    return results[0].audit.with_fingerprints(every)


def _mean_model(results, size: int) -> keras.Model:
    sizes = [result.recipe.evaluation_policy.size for result in results]
    fixed = len(set(sizes)) > 1 or any(r.model.inputs[0].shape[1] is not None for r in results)
    images = keras.Input((size if fixed else None,) * 2 + (3,), name="images")
    outputs = []
    for i, (result, side) in enumerate(zip(results, sizes, strict=True)):
        member = keras.Model(result.model.inputs, result.model.outputs[0], name=f"member_{i}")
        resized = dict(antialias=True, data_format=CHANNELS_LAST, name=f"at_{side}_{i}")
        view = images if side == size else keras.layers.Resizing(side, side, **resized)(images)
        outputs.append(member(view))
    mean = keras.layers.Average(dtype="float32", name="mean_of_members")(outputs)
    return keras.Model(images, mean, name="classifier")


def _untempered(model: keras.Model) -> keras.Model:
    """An independent copy whose temperature is 1."""

    def copy(layer):
        config = layer.get_config()
        return layer.__class__.from_config(config | {"scale": 1.0} if layer.name == "temperature" else config)

    return keras.models.clone_model(model, clone_function=copy)


def _greedy(joint: Result, weights, data: ImageData) -> list[int]:
    counts = image_weights(data.labels, len(joint.class_names), joint.recipe.balanced)
    images = shown(data, joint.recipe)

    def loss(chosen):
        joint.model.set_weights(_mean(weights, chosen))
        found = joint.model.predict(images, verbose=0)[: len(data)].astype(np.float64)
        return Score.of(np.log(np.maximum(found, 1e-12)), data.labels, counts).loss

    alone = [loss([i]) for i in range(len(weights))]
    order = sorted(range(len(weights)), key=alone.__getitem__)
    chosen, best = order[:1], alone[order[0]]
    for i in order[1:]:
        found = loss([*chosen, i])
        if found <= best:
            chosen, best = [*chosen, i], found
    return chosen


def _mean(weights, chosen) -> list[np.ndarray]:
    """Of the chosen runs' weights; whole numbers, which count and weigh nothing, are the first one's."""
    columns = zip(*(weights[i] for i in chosen), strict=True)
    return [
        column[0]
        if np.issubdtype(column[0].dtype, np.integer)
        else np.mean(column, 0, dtype=np.float64).astype(column[0].dtype)
        for column in columns
    ]


def _judged(joint: Result, results, validation, trick: str, cost: float, honest=None) -> Result:
    """`joint` with the temperature of its own, its validation accuracy and its ledger, where there are images."""
    if validation is None:
        return joint
    data = _labelled(joint, validation)
    members, labels = [result.probabilities(data) for result in results], data.labels
    found = joint.probabilities(data)
    single = float(np.mean([(p.argmax(1) == labels).mean() for p in members]))
    row = gain_over(trick, members, found if honest is None else honest, labels, cost=cost)
    row = replace(row, kept=True, note=row.note.rpartition(": ")[0] + ": asked for")  # it is not undone
    rows = [Gain("one model, on average", single), row]
    if len(labels) >= TELLING:
        calibration, row = calibrated(np.log(np.maximum(found[None].astype(np.float64), 1e-12)), labels)
        rows.append(row)
        if row.kept:
            joint.model, joint.calibration = recalibrated(joint.model, calibration.temperature), calibration
            found = tempered(found, labels)
    joint.validation, joint.ledger, joint.held_out = score(found, labels), tuple(rows), data
    joint.judged = Judged(labels, found.astype(np.float32))
    return joint
