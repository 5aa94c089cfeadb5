"""The main job: labelled images in, the best classifier that a pretrained network can become out."""

import math
import re
import time
from collections.abc import Sequence
from contextlib import contextmanager
from pathlib import Path

import keras

from recipes.audit import audit, usable
from recipes.backbones import Backbone, BackboneError, resolve, stages
from recipes.classifier import fresh, logits_model, set_head, with_probabilities
from recipes.data import DataError, Splits
from recipes.devices import prepare_devices
from recipes.evaluation import score
from recipes.fit import fit, unfreeze
from recipes.plan import BY_NAME, Recipe, RecipeError, Summary, named, natural_size
from recipes.probe import Probe, probe_backbone
from recipes.result import Result, check_output
from recipes.sources import load
from recipes.split import stratified_split


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
    recipe:     "auto" (measured, see `plan`), "probe", "few", "all", "scratch", or a Recipe.
    validation: None (the dataset's own split, else a stratified fifth), a fraction, or a dataset.
    time_limit: seconds, or "90s", "10m", "2h"; training stops in time with the best weights so far.
    seed:       two CPU runs with one seed give the same weights. Sets Python's, NumPy's and TensorFlow's seeds.
    output:     a folder for the saved run; `recipes.load(output)` brings the Result back.
    callbacks:  Keras callbacks for the training.

    Raises: DataError, BackboneError, RecipeError, before anything long begins.

    Example: `recipes.finetune("photos/", output="run")`
    """
    began = time.monotonic()
    _check_recipe(recipe)
    deadline = began + seconds(time_limit) if time_limit is not None else None
    command = _command(dataset, backbone, recipe, validation, time_limit, seed)
    if output is not None:
        check_output(Path(output), command)
    splits = load("digits" if dataset is None else dataset)
    if backbone == "auto" and dataset in (None, "digits"):
        backbone = "glyphs"
    splits = _with_validation(splits, validation)
    prepare_devices()
    keras.utils.set_random_seed(seed)
    network = resolve(backbone)
    clock = _Clock()
    with clock("audit"):
        splits, facts = usable(splits, audit(splits))
        if splits.validation is None:
            splits, facts = _split(splits, facts, 0.2 if validation is None else validation, seed)
    size = recipe.size if isinstance(recipe, Recipe) else natural_size(network, splits.train)
    _check_size(network, size)
    warm = recipe.warm_start if isinstance(recipe, Recipe) else recipe != "scratch" and network.pretrained
    measured = None
    if warm:
        with clock("probe"):
            measured = probe_backbone(network, splits.train, facts.fingerprints["train"], size, seed)
            print(measured)
    summary = Summary(len(splits.train), len(splits.train.class_names), size, network.pretrained)
    chosen = named(recipe, summary, measured)
    print(chosen)
    with clock("training"):
        model, history, chosen = _train(network, splits, chosen, measured, seed, deadline, callbacks)
    result = Result(
        model=model, class_names=list(splits.train.class_names), recipe=chosen, history=history, audit=facts,
        backbone=network.name, probe=measured, seconds=clock.seconds, command=command,
    )  # fmt: skip
    with clock("evaluation"):
        result.validation = score(result.probabilities(splits.validation), splits.validation.labels)
        if splits.test is not None:
            result.test = score(result.probabilities(splits.test), splits.test.labels)
    if output is not None:
        result.save(output)
    return result


def _train(network: Backbone, splits: Splits, recipe: Recipe, measured: Probe | None, seed, deadline, callbacks):
    """The classifier, its history, and the recipe with what training had to say."""
    body = network if recipe.warm_start else network.with_network(fresh(network.network))
    classes = len(splits.train.class_names)
    model = logits_model(body, classes, recipe.size, dropout=recipe.dropout, seed=seed)
    if recipe.warm_start:
        set_head(model, measured.last.classifier.kernel, measured.last.classifier.bias)
    if not recipe.epochs:
        return with_probabilities(model), {}, recipe
    unfreeze(model, body.network, recipe, stages(body.network, recipe.size))
    history, best_epoch, cut = fit(
        model, splits.train, splits.validation, recipe, seed=seed, deadline=deadline, callbacks=callbacks
    )
    done = len(history.get("val_loss", ()))
    if cut:
        recipe = recipe.because(f"the time limit ended training after {done} of {recipe.epochs} epochs")
    if best_epoch:
        recipe = recipe.because(f"epoch {best_epoch} of {done} had the lowest validation loss and was kept")
    elif recipe.warm_start:
        recipe = recipe.because("no epoch beat the linear classifier on the validation images, so that is what you get")
    return with_probabilities(model), history, recipe


def seconds(limit) -> float:
    """Seconds in 90, "90", "90s", "10m", "2h" or "1h30m".

    Raises: RecipeError for anything else.
    """
    if isinstance(limit, int | float) and not isinstance(limit, bool) and limit > 0:
        return float(limit)
    match = re.fullmatch(r"(?:(\d+(?:\.\d+)?)h)?(?:(\d+(?:\.\d+)?)m)?(?:(\d+(?:\.\d+)?)s?)?", str(limit).strip())
    parts = [float(part or 0) for part in match.groups()] if match else []
    total = math.fsum(part * unit for part, unit in zip(parts, (3600, 60, 1), strict=False))
    if total <= 0:
        raise RecipeError(f"time_limit is {limit!r}; expected seconds, or a text such as '90s', '10m' or '1h30m'")
    return total


def _check_recipe(recipe) -> None:
    known = ["auto", "probe", *BY_NAME]
    if not isinstance(recipe, Recipe) and recipe not in known:
        raise RecipeError(f"recipe is {recipe!r}; expected one of {known} or a Recipe")


def _check_size(network: Backbone, size: int) -> None:
    if network.fixed_size not in (None, size):
        raise BackboneError(
            f"{network.name} takes only {network.fixed_size} × {network.fixed_size}; recipe.size is {size}"
        )


def _command(dataset, backbone, recipe, validation, time_limit, seed) -> dict:
    """What was asked for, in words: another command on the same output folder is refused."""
    asked = dict(dataset=dataset, backbone=backbone, recipe=recipe, validation=validation, time_limit=time_limit)
    return {name: _in_words(value) for name, value in asked.items()} | {"seed": seed}


def _in_words(value):
    if value is None or isinstance(value, str | int | float):
        return value
    return str(value) if isinstance(value, Path | Recipe) else type(value).__name__


def _with_validation(splits: Splits, validation) -> Splits:
    if validation is None:
        return splits
    if isinstance(validation, int | float):
        if not 0 < validation < 1:
            raise DataError(f"validation is {validation}; expected a fraction between 0 and 1, or a dataset")
        return Splits(splits.train, None, splits.test)
    return Splits(splits.train, load(validation, splits.train.class_names).train, splits.test)


def _split(splits: Splits, facts, fraction: float, seed: int):
    prints = facts.fingerprints["train"]
    inside, outside = stratified_split(splits.train.labels, prints, fraction, seed=seed)
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
