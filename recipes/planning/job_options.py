"""The options of `finetune` that few users need, and help for keywords that it does not have."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from difflib import get_close_matches
from typing import Any, TypedDict

from recipes.planning.recipe import Recipe

_ARGUMENTS = ("dataset", "backbone", "recipe", "validation", "time_limit", "seed", "output", "callbacks", "verbose")
_FIXED = "the training uses Adam with decoupled weight decay and a warm-up and cosine schedule"
_HELP = {
    "optimizer": f"{_FIXED}; recipes.adjusted('auto', learning_rate=..., weight_decay=...) changes its numbers, and "
    "recipes.optimizers has optimizers for your own model.fit",
    "loss": "the loss is cross-entropy; recipes.adjusted('auto', label_smoothing=..., balanced=True) changes it",
    "metrics": "accuracy, macro accuracy, log-likelihood and calibration error are always measured; for others, use "
    "result.probabilities(images)",
    "class_weight": "use recipe=recipes.adjusted('auto', balanced=True) to give every class the same weight; the plan "
    "does so itself for very unequal classes",
    "model": "use backbone=model",
    "weights": "use backbone='MobileNetV2(weights=None)' for random weights, or backbone='network.keras'",
    "freeze": "use recipe='probe' to freeze the network, 'few' to train its deepest stages, 'all' to train all",
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
        snapshots: Number of cycles of the learning rate in the same epochs; the weights at their ends are averaged, see
            `Recipe.snapshots`.
        strict: Raise an error for any finding of the audit, see `audit`.
        devices: Devices that train together: None (all GPUs that TensorFlow sees), a number, or names such as
            ("GPU:0", "GPU:1"). Each has a slice of every batch, whose size stays the recipe's: the result is that of
            one device, up to the order of floating-point sums. The same command on several hosts, each with its
            TF_CONFIG, trains on all of them, see docs/distributed.md.
        input_workers: Addresses, such as ["host:5050"], of machines on which `recipes input-worker` runs: they read and
            augment the training images instead of this process, with the same batches. See docs/scale.md.
    """

    snapshots: int = 0
    strict: bool = False
    devices: int | str | Sequence[str] | None = None
    input_workers: Sequence[str] = ()


class OptionValues(TypedDict, total=False):
    """The fields of `Options` as keywords."""

    snapshots: int
    strict: bool
    devices: int | str | Sequence[str] | None
    input_workers: Sequence[str]


def options_of(values: Mapping[str, Any]) -> Options:
    """Return the options with these values.

    Raises:
        TypeError: For a keyword that is no field of `Options`; the message says what to use instead.
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
