"""The main job: labelled images in, the best classifier that a pretrained network can become out."""

import hashlib
import math
import platform
import re
import time
from collections.abc import Sequence
from contextlib import contextmanager
from pathlib import Path

import keras
import numpy as np
import tensorflow as tf

from recipes.audit import audit, usable
from recipes.backbones import Backbone, resolve, stages
from recipes.classifier import fresh, logits_model, set_head, with_probabilities
from recipes.data import ImageData, Splits
from recipes.devices import prepare_devices
from recipes.errors import BackboneError, DataError, RecipeError
from recipes.evaluation import score
from recipes.fit import Fitted, fit, unfreeze
from recipes.plan import BY_NAME, Adjusted, Recipe, Summary, named, natural_size
from recipes.probe import Probe, probe_backbone
from recipes.result import Gain, Result
from recipes.run_folder import check_output
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
    recipe:     "auto" (measured, see `plan`), "probe", "few", "all", "scratch", one of these `adjusted`, or a Recipe.
    validation: None (the dataset's own split, else a stratified fifth), a fraction, or a dataset.
    time_limit: seconds, or "90s", "10m", "2h", for all together. Audit and probe are always run to their end; training
                stops in time with the best weights so far.
    seed:       two CPU runs with one seed give the same weights. Sets Python's, NumPy's and TensorFlow's seeds.
    output:     a folder for the saved run; `recipes.load(output)` brings the Result back.
    callbacks:  Keras callbacks for the training by gradient steps; the recipe "probe" has none.

    Raises: DataError, BackboneError, RecipeError, OutputError, before anything long begins; TrainingError when the loss
        is no longer a number.

    Example: `recipes.finetune("photos/", output="run")`
    """
    began = time.monotonic()
    _check_recipe(recipe)
    seed, callbacks = _checked_seed(seed), _checked_callbacks(callbacks)
    deadline = began + seconds(time_limit) if time_limit is not None else None
    splits = load("digits" if dataset is None else dataset)
    command = _command(dataset, backbone, recipe, validation, time_limit, seed)
    if output is not None:
        output = Path(output).expanduser()
        check_output(output, command)
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
    size = _asked_size(recipe) or natural_size(network, splits.train)
    _check_size(network, size)
    measured = None
    if _needs_probe(recipe, network):
        with clock("probe"):
            measured = probe_backbone(network, splits.train, facts.fingerprints["train"], size, seed)
            print(measured)
    summary = Summary(len(splits.train), len(splits.train.class_names), size, network.pretrained)
    chosen = named(recipe, summary, measured)
    print(chosen)
    with clock("training"):
        model, fitted, chosen = _train(network, splits, chosen, measured, seed, deadline, callbacks)
    result = Result(
        model=model, class_names=list(splits.train.class_names), recipe=chosen, audit=facts, backbone=network.name,
        history=fitted.history if fitted else {}, probe=measured, seconds=clock.seconds, command=command,
        versions=versions(),
    )  # fmt: skip
    with clock("evaluation"):
        result.validation = score(result.probabilities(splits.validation), splits.validation.labels)
        if splits.test is not None:
            result.test = score(result.probabilities(splits.test), splits.test.labels)
    result.ledger = _ledger(result, fitted)
    if output is not None:
        result.save(output)
    return result


def _train(network: Backbone, splits: Splits, recipe: Recipe, measured: Probe | None, seed, deadline, callbacks):
    """The classifier, how its training went (None where there was none), and the recipe with what training said."""
    body = network if recipe.warm_start else network.with_network(fresh(network.network))
    model = logits_model(body, len(splits.train.class_names), recipe.size, dropout=recipe.dropout, seed=seed)
    if recipe.warm_start:
        set_head(model, measured.last.classifier.kernel, measured.last.classifier.bias)
    if not recipe.epochs:
        if callbacks:
            recipe = recipe.because("no gradient steps are taken, so the callbacks were not called")
        return with_probabilities(model), None, recipe
    unfreeze(model, body.network, recipe, stages(body.network, recipe.size))
    fitted = fit(model, splits.train, splits.validation, recipe, seed=seed, deadline=deadline, callbacks=callbacks)
    done = len(fitted.history.get("val_loss", ()))
    if fitted.cut:
        recipe = recipe.because(f"the time limit ended training after {done} of {recipe.epochs} epochs")
    recipe = recipe.because(f"epoch {fitted.best_epoch} of {done} had the lowest validation loss")
    if recipe.warm_start:
        gain, error = fitted.gain
        told = f"on the validation images training gained {gain:.3f} ± {error:.3f} nats of likelihood"
        verdict = "kept" if fitted.better else "not beyond the noise, so the linear classifier is what you get"
        recipe = recipe.because(f"{told} and went from {{:.1%}} to {{:.1%}}: {verdict}".format(*fitted.accuracies))
    return with_probabilities(model), fitted, recipe


def _ledger(result: Result, fitted: Fitted | None) -> tuple[Gain, ...]:
    """What the linear classifier and what the training after it were worth on the validation images."""
    start, end = fitted.accuracies if fitted else (result.validation.accuracy,) * 2
    rows = []
    if result.recipe.warm_start:
        rows.append(Gain("linear classifier on the frozen network", start, None, result.probe.seconds))
    if fitted:
        trick = "finetuning" if rows else "training from scratch"
        if rows and not fitted.better:
            trick += " (not beyond the noise: undone)"
        rows.append(Gain(trick, end, end - start if rows else None, result.seconds["training"]))
    return tuple(rows)


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


def _name(recipe) -> str:
    return recipe.recipe if isinstance(recipe, Adjusted) else recipe


def _asked_size(recipe) -> int | None:
    return dict(recipe.changes).get("size") if isinstance(recipe, Adjusted) else getattr(recipe, "size", None)


def _check_recipe(recipe) -> None:
    known = ["auto", "probe", *BY_NAME]
    if not isinstance(recipe, Recipe) and _name(recipe) not in known:
        raise RecipeError(f"recipe is {recipe!r}; expected one of {known}, one of these adjusted, or a Recipe")


def _needs_probe(recipe, network: Backbone) -> bool:
    """Whether training starts from the linear classifier on the network as it is."""
    if isinstance(recipe, Recipe):
        return recipe.warm_start
    if not network.pretrained and _name(recipe) not in ("auto", "scratch"):
        raise RecipeError(
            f"recipe {_name(recipe)!r} builds on trained weights, but those of {network.name} are random: "
            "use recipe='scratch', or leave weights=None out"
        )
    return network.pretrained and _name(recipe) != "scratch"


def _check_size(network: Backbone, size: int) -> None:
    if network.fixed_size not in (None, size):
        side = network.fixed_size
        raise BackboneError(f"{network.name} takes only images of {side} × {side} pixels; the recipe's size is {size}")


def _command(dataset, backbone, recipe, validation, time_limit, seed) -> dict:
    """What was asked for, in words: another command on the same output folder is refused."""
    asked = dict(dataset=dataset, backbone=backbone, recipe=recipe, validation=validation, time_limit=time_limit)
    return {name: _in_words(value) for name, value in asked.items()} | {"seed": seed}


def _in_words(value):
    if value is None or isinstance(value, str | int | float):
        return value
    if isinstance(value, Path):
        return str(value)
    if isinstance(value, Recipe | Adjusted):
        return repr(value)
    return f"{type(value).__name__} {_digest(value)}"


def _digest(value) -> str:
    """Twelve hexadecimal digits of what an argument in memory holds, so that other data is another command."""
    digest = hashlib.blake2b(digest_size=6)
    if isinstance(value, keras.Model):
        value = value.get_weights()
    elif isinstance(value, Splits):
        value = [part for data in value.given.values() for part in (data.labels, data.images)]
    elif isinstance(value, ImageData):
        value = [value.labels, value.images]
    elif not isinstance(value, list | tuple):
        return "?"  # a stream, which cannot be looked at without reading it
    for part in value:
        if isinstance(part, np.ndarray) and part.dtype != object:
            digest.update(np.ascontiguousarray(part).tobytes())
        else:
            digest.update(repr(part).encode("utf-8", "surrogateescape"))
    return digest.hexdigest()


def _checked_seed(seed) -> int:
    if isinstance(seed, bool) or not isinstance(seed, int | np.integer) or not 0 <= seed < 2**32:
        raise RecipeError(f"seed is {seed!r}; expected an integer from 0 to 2³² − 1")
    return int(seed)


def _checked_callbacks(callbacks) -> list[keras.callbacks.Callback]:
    callbacks = [callbacks] if isinstance(callbacks, keras.callbacks.Callback) else list(callbacks)
    for callback in callbacks:
        if isinstance(callback, keras.callbacks.ReduceLROnPlateau | keras.callbacks.LearningRateScheduler):
            raise RecipeError(
                f"{type(callback).__name__} cannot be used: the learning rate follows the recipe's warm-up and cosine; "
                "leave it out, or change the rate by recipes.adjusted(..., learning_rate=...)"
            )
        if not isinstance(callback, keras.callbacks.Callback):
            raise RecipeError(f"callbacks hold a {type(callback).__name__}; expected Keras callbacks")
    return callbacks


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
    train = splits.train
    inside, outside = stratified_split(train.labels, prints, fraction, seed=seed, class_names=train.class_names)
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
