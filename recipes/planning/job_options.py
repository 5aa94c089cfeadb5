"""Define the options of `finetune` that few users need, and help for unknown keywords."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from difflib import get_close_matches
from typing import Any, TypedDict

from recipes.core.text import described
from recipes.planning.recipe import Recipe

_ARGUMENTS = ("dataset", "backbone", "recipe", "validation", "time_limit", "seed", "output", "callbacks", "verbose")
_FIXED = "the training uses Adam with decoupled weight decay and a warm-up and cosine schedule"
_HELP = {
    "optimizer": (
        f"{_FIXED}; recipes.adjusted('auto', learning_rate=..., weight_decay=...) changes these values, and "
        "recipes.optimizers has optimizers for your own model.fit"
    ),
    "loss": "the loss is cross-entropy; recipes.adjusted('auto', label_smoothing=..., balanced=True) changes the loss",
    "metrics": (
        "accuracy, macro accuracy, log-likelihood and calibration error are always measured; for other metrics, use "
        "result.probabilities(images)"
    ),
    "class_weight": (
        "use recipe=recipes.adjusted('auto', balanced=True) to give every class the same weight; the plan sets this "
        "option for very unequal classes"
    ),
    "target": "every image has one class so far; several labels per image, numbers and grades are not supported yet",
    "quality": "use time_limit= to limit the time, and recipe= to choose what is trained",
    "model": "use backbone=model",
    "weights": "use backbone='MobileNetV2(weights=None)' for random weights, or backbone='network.keras'",
    "freeze": (
        "use recipe='probe' to freeze the network, recipe='few' to train its deepest stages, or recipe='all' to "
        "train all stages"
    ),
    "lr": "use recipe=recipes.adjusted('auto', learning_rate=...)",
    "image_size": "use recipe=recipes.adjusted('auto', size=...)",
    "augment": "use recipe=recipes.adjusted('auto', policy=recipes.augment.Policy.strong(224))",
    "validation_data": "use validation=dataset",
    "validation_split": "use validation=0.2",
    "x": "use dataset=(images, labels)",
    "y": "use dataset=(images, labels)",
    "directory": "use output='run'",
    "gpus": "use devices=2, or devices=('GPU:0', 'GPU:1')",
}
_SAME = {
    "steps_per_epoch": "epochs", "learning_rate_schedule": "optimizer", "sample_weight": "class_weight",
    "pretrained": "weights", "trainable": "freeze", "data_augmentation": "augment", "augmentation": "augment",
    "img_size": "image_size", "input_shape": "image_size", "val": "validation_data", "output_dir": "directory",
    "images": "x", "labels": "y", "num_gpus": "gpus", "strategy": "gpus",
}  # fmt: skip


@dataclass(frozen=True)
class Options:
    """Options of `finetune` that few users need.

    Attributes:
        snapshots: Number of learning-rate cycles within the same epochs. The predictions at the ends of the cycles are
            averaged, see `Recipe.snapshots`.
        strict: Whether to raise an error for any finding of the audit, see `audit`.
        devices: Devices that train together: None (all GPUs that TensorFlow sees), a number, or names such as ("GPU:0",
            "GPU:1"). Each device computes a slice of every batch, and the batch size is that of the recipe. The result
            equals that of one device up to the order of floating-point sums. The same command on several hosts, each
            with its own TF_CONFIG, trains on all of them, see docs/distributed.md.
        input_workers: Addresses, such as ["host:5050"], of machines on which `recipes input-worker` runs. These
            machines read and augment the training images for this process. The batches stay the same. See
            docs/scale.md.
    """

    snapshots: int = 0
    strict: bool = False
    devices: int | str | Sequence[str] | None = None
    input_workers: Sequence[str] = ()

    def __repr__(self) -> str:
        changed = (field for field in fields(self) if getattr(self, field.name) != field.default)
        return described("Options", *(f"{field.name}={getattr(self, field.name)!r}" for field in changed))


class OptionValues(TypedDict, total=False):
    """Keywords of `finetune` that are the fields of `Options`."""

    snapshots: int
    strict: bool
    devices: int | str | Sequence[str] | None
    input_workers: Sequence[str]


def options_of(values: Mapping[str, Any]) -> Options:
    """Return the options with these values.

    Raises:
        TypeError: If a keyword is not a field of `Options`; the message says what to use instead.
    """
    known = [field.name for field in fields(Options)]
    for name in values:
        if name not in known:
            raise TypeError(f"finetune() has no keyword {name!r}{_help(name, known)}")
    return Options(**values)


def _help(name: str, options: Sequence[str]) -> str:
    of_recipe = [field.name for field in fields(Recipe) if field.name != "decisions"]
    same = _SAME.get(name, name)
    if same in _HELP:
        return f": {_HELP[same]}"
    if same in of_recipe:
        return f": use recipe=recipes.adjusted('auto', {same}=...)"
    known = [*_ARGUMENTS, *options]
    close = get_close_matches(name, [*known, *of_recipe], 1)
    if close and close[0] in of_recipe:
        return f": did you mean recipe=recipes.adjusted('auto', {close[0]}=...)?"
    return f": did you mean {close[0]!r}?" if close else f"; it has {', '.join(known)}"
