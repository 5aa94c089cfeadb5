"""The main job: labelled images in, the best classifier that a pretrained network can become out."""

import platform
import time
from collections.abc import Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import keras
import numpy as np
import tensorflow as tf

from recipes.arguments import (
    asked_size,
    check_recipe,
    check_size,
    checked_callbacks,
    checked_seed,
    needs_probe,
    seconds,
)
from recipes.arguments import command as in_words
from recipes.audit import audit, usable
from recipes.backbones import Backbone, resolve
from recipes.data import Splits, joined
from recipes.devices import free_memory, prepare_devices
from recipes.errors import DataError
from recipes.evaluation import score
from recipes.features import Extractor, Features
from recipes.fit import Fitted
from recipes.plan import Summary, named, table
from recipes.probe import MIRRORED_BELOW, Probe, probe_backbone
from recipes.result import Gain, Result
from recipes.run_folder import check_output
from recipes.size import natural_size
from recipes.sources import load
from recipes.split import stratified_split
from recipes.suspects import find_suspects
from recipes.training import Start, train


def finetune(
    dataset=None,
    *,
    backbone="auto",
    recipe="auto",
    validation=None,
    time_limit=None,
    seed: int = 0,
    output=None,
    callbacks: Sequence[keras.callbacks.Callback] = (),
) -> Result:
    """Turn an ImageNet-pretrained network into a classifier of your images.

    dataset:    a folder of class folders (or of train/, val/, test/ above them), a CSV of path,label, "tfds:NAME",
                (images, labels), a tf.data.Dataset of (image or encoded bytes, label); None or "digits": the embedded
                handwritten digits.
    backbone:   "auto", a keras.applications call such as "MobileNetV2(alpha=0.35)", a .keras file, a keras.Model,
                "glyphs".
    recipe:     "auto" (measured, see `plan`), "probe", "few", "all", "scratch", one of these `adjusted`, or a Recipe.
    validation: None (the dataset's own split, else a stratified fifth), a fraction, or a dataset. A part that is split
                off here is trained on as well, once everything has been chosen by it.
    time_limit: seconds, or "90s", "10m", "2h", for all together. Audit and probe are always run to their end; the plan
                fits what is left, and training stops in time with the best weights so far.
    seed:       two CPU runs with one seed give the same weights. Sets Python's, NumPy's and TensorFlow's seeds.
    output:     a folder for the saved run; `recipes.load(output)` brings the Result back.
    callbacks:  Keras callbacks for the training by gradient steps; the recipe "probe" has none, and the last training
                on all images does not call them.

    Raises: DataError, BackboneError, RecipeError, OutputError, before anything long begins; TrainingError when the loss
        is no longer a number.

    Example: `recipes.finetune("photos/", output="run")`
    """
    began = time.monotonic()
    check_recipe(recipe)
    seed, callbacks = checked_seed(seed), checked_callbacks(callbacks)
    deadline = began + seconds(time_limit) if time_limit is not None else None
    splits = load("digits" if dataset is None else dataset)
    asked = in_words(dataset, backbone, recipe, validation, time_limit, seed)
    if output is not None:
        output = Path(output).expanduser()
        check_output(output, asked)
    if backbone == "auto" and dataset in (None, "digits"):
        backbone = "glyphs"
    splits = _with_validation(splits, validation)
    prepare_devices()
    keras.utils.set_random_seed(seed)
    network = resolve(backbone)
    clock = _Clock()
    with clock("audit"):
        splits, facts = usable(splits, audit(splits))
        split_here = splits.validation is None
        if split_here:
            splits, facts = _split(splits, facts, 0.2 if validation is None else validation, seed)
    size = asked_size(recipe) or natural_size(network, splits.train)
    check_size(network, size)
    measured = features = None
    if needs_probe(recipe, network):
        with clock("probe"):
            measured, features = _probe(Extractor(network, size), splits, facts, split_here, seed)
            print(measured)
    summary = _summary(network, splits, size, measured, deadline)
    marked = table(summary, measured) if measured else ""
    if marked:
        print(marked)
    chosen = named(recipe, summary, measured)
    if not split_here:
        chosen = replace(chosen, refit=False)
    print(chosen)
    with clock("training"):
        trained = train(Start(network, splits, measured, features), chosen, seed, deadline, callbacks)
    result = Result(
        model=trained.model, class_names=list(splits.train.class_names), recipe=trained.recipe, audit=facts,
        backbone=network.name, history=trained.fitted.history if trained.fitted else {}, probe=measured,
        validation=trained.validation, selection=trained.selection, seconds=clock.seconds, command=asked,
        versions=versions(), table=marked,
    )  # fmt: skip
    with clock("evaluation"):
        if splits.test is not None:
            result.test = score(result.probabilities(splits.test), splits.test.labels)
    result.ledger = _ledger(result, trained.fitted)
    if measured:
        result.suspects = find_suspects(measured, features, splits.train, splits.validation)
    if output is not None:
        result.save(output)
    return result


def _probe(look: Extractor, splits: Splits, facts, split_here: bool, seed) -> tuple[Probe, Features]:
    """The probe of the training images, and the features of training and validation images in that order.

    What was one dataset before the split is looked at as one, in one pass.
    """
    train, validation = splits.train, splits.validation
    prints = [*facts.fingerprints["train"]], [*facts.fingerprints["validation"]]
    mirrored = len(train) + len(validation) < MIRRORED_BELOW
    if split_here:
        both = look(joined(train, validation), [*prints[0], *prints[1]], mirrored=mirrored)
    else:
        parts = [look(data, p, mirrored=mirrored) for data, p in zip((train, validation), prints, strict=True)]
        stages = [np.concatenate(pair, 1) for pair in zip(*(part.stages for part in parts), strict=True)]
        both = Features(stages, parts[0].image_seconds, parts[0].origin)
    return probe_backbone(look, train, prints[0], seed, both[: len(train)]), both


def _summary(network: Backbone, splits: Splits, size: int, measured: Probe | None, deadline) -> Summary:
    counts = splits.train.counts
    return Summary(
        images=len(splits.train), classes=len(splits.train.class_names), size=size, pretrained=network.pretrained,
        held_out=len(splits.validation), imbalance=float(counts.max() / max(1, counts.min())),
        weights=network.network.count_params(), activations=network.activations(size), memory=free_memory(),
        image_seconds=measured.image_seconds if measured else 0.0,
        seconds_left=None if deadline is None else deadline - time.monotonic(),
    )  # fmt: skip


def _ledger(result: Result, fitted: Fitted | None) -> tuple[Gain, ...]:
    """What the linear classifier and what the training after it were worth on the validation images."""
    rows = []
    if result.recipe.warm_start:
        start = fitted.start.accuracy if fitted else result.validation.accuracy
        rows.append(Gain("linear classifier on the frozen network", start, None, result.probe.seconds))
    if fitted:
        trick = "finetuning" if rows else "training from scratch"
        if rows and not fitted.better:
            trick += " (not beyond the noise: undone)"
        end = fitted.best.accuracy
        rows.append(Gain(trick, end, end - rows[0].accuracy if rows else None, result.seconds["training"]))
    return tuple(rows)


def _with_validation(splits: Splits, validation) -> Splits:
    if validation is None:
        return splits
    if isinstance(validation, int | float):
        if not 0 < validation < 1:
            raise DataError(f"validation is {validation}; expected a fraction between 0 and 1, or a dataset")
        return replace(splits, validation=None)
    given = load(validation, splits.train.class_names).train
    if not set(given.names).isdisjoint(splits.train.names):
        given = replace(given, names=tuple(f"validation {name}" for name in given.names))
    return replace(splits, validation=given)


def _split(splits: Splits, facts, fraction: float, seed: int):
    prints = facts.fingerprints["train"]
    train = splits.train
    pictures = facts.pictures(train)
    inside, outside = stratified_split(train.labels, pictures, fraction, seed=seed, class_names=train.class_names)
    parts = {"train": inside, "validation": outside}
    fingerprints = facts.fingerprints | {name: tuple(prints[i] for i in where) for name, where in parts.items()}
    train, held_out = (splits.train.subset(where) for where in parts.values())
    return Splits(train, held_out, splits.test), facts.with_fingerprints(fingerprints)


class _Clock:
    """Wall-clock seconds by phase."""

    def __init__(self):
        self.seconds: dict[str, float] = {}

    @contextmanager
    def __call__(self, phase: str):
        began = time.monotonic()
        yield
        self.seconds[phase] = time.monotonic() - began


def versions() -> dict[str, str]:
    """Of Python and the libraries that decide what a run computes."""
    return {
        "python": platform.python_version(),
        "tensorflow": tf.__version__,
        "keras": keras.__version__,
        "numpy": np.__version__,
    }
