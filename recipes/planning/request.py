"""The arguments of a job, checked before anything long begins."""

import hashlib
import math
import re
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import keras
import numpy as np

from recipes.data.images import ImageData, Splits
from recipes.errors import BackboneError, RecipeError
from recipes.networks.backbones import Backbone
from recipes.networks.stages import feature_tensors
from recipes.planning.recipe import NAMES, Adjusted, Recipe


def seconds(limit: float | str | None) -> float | None:
    """Return the seconds in 90, "90", "90s", "10m", "2h" or "1h30m"; None for None.

    Raises:
        RecipeError: For anything else.
    """
    if limit is None:
        return None
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


def _asked(recipe, name: str):
    return dict(recipe.changes).get(name) if isinstance(recipe, Adjusted) else getattr(recipe, name, None)


def asked_size(recipe) -> int | None:
    return _asked(recipe, "size")


def asked_taps(recipe) -> tuple[int, ...] | None:
    return _asked(recipe, "taps")


def check_recipe(recipe) -> None:
    names = ("auto", *NAMES)
    if not isinstance(recipe, Recipe) and _name(recipe) not in names:
        raise RecipeError(
            f"recipe is {recipe!r}; expected one of {names}, one of these adjusted, or a Recipe, such as "
            "recipes.load(folder).recipe"
        )


def needs_probe(recipe, network: Backbone) -> bool:
    """Whether training starts from the linear classifier on the network as it is."""
    if isinstance(recipe, Recipe):
        return recipe.warm_start
    if not network.pretrained and _name(recipe) not in ("auto", "scratch"):
        raise RecipeError(
            f"recipe {_name(recipe)!r} builds on trained weights, but those of {network.name} are random: "
            "use recipe='scratch', or leave weights=None out"
        )
    return network.pretrained and _name(recipe) != "scratch"


def check_fits(network: Backbone, recipe, size: int) -> None:
    """That the network takes images of the sizes that were asked for, and has the stages.

    Raises: BackboneError, RecipeError.
    """
    test_size, taps, scales = (_asked(recipe, name) for name in ("test_size", "taps", "scales"))
    side = network.fixed_size
    for name, pixels in {"size": size, "test_size": test_size or size}.items():
        if side not in (None, pixels):
            raise BackboneError(
                f"{network.name} takes only images of {side} × {side} pixels; the recipe's {name} is {pixels}"
            )
        try:
            network.activations(pixels)
        except ValueError as error:
            raise BackboneError(
                f"{network.name} takes no images of {pixels} × {pixels} pixels, the recipe's {name}: {error}"
            ) from error
    if scales and min(scales) < (test_size or size):
        raise RecipeError(f"Recipe.scales is {scales}; expected at least the images' side, {test_size or size}")
    if taps and max(taps) >= (stages := len(feature_tensors(network.network, size))):
        raise RecipeError(f"Recipe.taps is {taps}; {network.name} has the stages 0 to {stages - 1}")


@dataclass(frozen=True, eq=False)
class Request:
    """The arguments of `finetune` that decide what is computed; see there.

    Raises:
        RecipeError: For a recipe, seed, time limit, number of snapshots or callback that is none.
    """

    dataset: object = None
    backbone: object = "auto"
    recipe: object = "auto"
    validation: object = None
    time_limit: float | str | None = None
    seed: int = 0
    snapshots: int = 0
    strict: bool = False
    callbacks: Sequence[keras.callbacks.Callback] = ()

    def __post_init__(self):
        check_recipe(self.recipe)
        seconds(self.time_limit)
        for name, checked in (
            ("seed", checked_seed),
            ("snapshots", checked_snapshots),
            ("callbacks", checked_callbacks),
        ):
            object.__setattr__(self, name, checked(getattr(self, name)))

    @property
    def seconds(self) -> float | None:
        """The time limit in seconds."""
        return seconds(self.time_limit)

    @property
    def uses_digits(self) -> bool:
        """Whether the dataset is the embedded handwritten digits."""
        return self.dataset is None or (isinstance(self.dataset, str) and self.dataset == "digits")

    @cached_property
    def command(self) -> dict:
        """The arguments as JSON values: another command on the same output folder is rejected."""
        names = ("dataset", "backbone", "recipe", "validation", "time_limit")
        words = {name: _in_words(getattr(self, name)) for name in names} | {"seed": self.seed}
        return words | ({"snapshots": self.snapshots} if self.snapshots else {})


def checked_snapshots(snapshots) -> int:
    """Raises: RecipeError unless it is a whole number of at least 0."""
    if isinstance(snapshots, bool) or not isinstance(snapshots, int | np.integer) or snapshots < 0:
        raise RecipeError(f"snapshots is {snapshots!r}; expected how many, such as 5, or 0")
    return int(snapshots)


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
    if not isinstance(value, keras.Model):
        value = getattr(value, "model", value)  # of a Result that is the backbone
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


def checked_seed(seed) -> int:
    if isinstance(seed, bool) or not isinstance(seed, int | np.integer) or not 0 <= seed < 2**32:
        raise RecipeError(f"seed is {seed!r}; expected an integer from 0 to 2³² − 1")
    return int(seed)


def checked_callbacks(callbacks) -> list[keras.callbacks.Callback]:
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
