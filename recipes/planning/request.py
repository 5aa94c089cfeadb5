"""Check the arguments of a job before any long computation."""

import hashlib
import math
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, replace
from difflib import get_close_matches
from functools import cached_property
from pathlib import Path
from typing import Any

import keras
import numpy as np

from recipes.data.images import ImageData, Splits
from recipes.errors import BackboneError, RecipeError
from recipes.networks.backbones import Backbone
from recipes.networks.stages import feature_tensors
from recipes.planning import NAMES
from recipes.planning.constructor_text import constructor_text
from recipes.planning.job_options import Options
from recipes.planning.ready_made import Adjusted
from recipes.planning.recipe import Recipe


def seconds(limit: float | str | None) -> float | None:
    """Return the seconds of a time limit such as 90, "90", "90s", "10m", "2h" or "1h30m"; None for None.

    Raises:
        RecipeError: For any other value.
    """
    if limit is None:
        return None
    if isinstance(limit, int | float) and not isinstance(limit, bool) and limit > 0:
        return float(limit)
    match = re.fullmatch(r"(?:(\d+(?:\.\d+)?)h)?(?:(\d+(?:\.\d+)?)m)?(?:(\d+(?:\.\d+)?)s?)?", str(limit).strip())
    parts = [float(part or 0) for part in match.groups()] if match else []
    total = math.fsum(part * unit for part, unit in zip(parts, (3600, 60, 1), strict=False))
    if total <= 0:
        raise _invalid("time_limit", limit, "a number of seconds, or a text such as '90s', '10m' or '1h30m'")
    return total


def _invalid(field: str, value: object, expected: str) -> RecipeError:
    return RecipeError(f"{field} is {value!r}; expected {expected}", code=f"request.{field}", field=field, value=value)


def _name(recipe: Adjusted | str) -> str:
    return recipe.recipe if isinstance(recipe, Adjusted) else recipe


def _requested(recipe: Recipe | Adjusted | str, field: str) -> Any:
    return dict(recipe.changes).get(field) if isinstance(recipe, Adjusted) else getattr(recipe, field, None)


def requested_size(recipe: Recipe | Adjusted | str) -> int | None:
    """Return the requested image size in pixels; None if the plan decides."""
    return _requested(recipe, "size")


def requested_taps(recipe: Recipe | Adjusted | str) -> tuple[int, ...] | None:
    """Return the stages that the user requested for the classifier; None if the plan decides."""
    return _requested(recipe, "taps")


def check_recipe(recipe: object) -> None:
    """Check that `recipe` is a Recipe, an Adjusted recipe, or the name of a recipe.

    Raises:
        RecipeError: If `recipe` has another type or is an unknown name.
    """
    names = ("auto", *NAMES)
    name = recipe.recipe if isinstance(recipe, Adjusted) else recipe
    if not isinstance(recipe, Recipe) and name not in names:
        raise _invalid(
            "recipe",
            recipe,
            f"one of {names}, the result of recipes.adjusted, or a Recipe such as recipes.load(folder).recipe"
            f"{_hint(name, names)}",
        )


def _hint(name: object, names: Sequence[str]) -> str:
    close = get_close_matches(str(name), names, 1)
    return f"; did you mean {close[0]!r}?" if close else ""


def needs_probe(recipe: Recipe | Adjusted | str, network: Backbone) -> bool:
    """Return whether training starts from the linear classifier on the pretrained network.

    Raises:
        RecipeError: If the recipe needs trained weights and those of the network are random.
    """
    if isinstance(recipe, Recipe):
        return recipe.warm_start
    if not network.pretrained and _name(recipe) not in ("auto", "scratch"):
        raise RecipeError(
            f"recipe {_name(recipe)!r} needs trained weights, but the weights of {network.name} are random: use "
            "recipe='scratch', or omit weights=None",
            code="request.random_weights",
            recipe=_name(recipe),
            backbone=network.name,
        )
    return network.pretrained and _name(recipe) != "scratch"


def check_fits(network: Backbone, recipe: Recipe | Adjusted | str, size: int) -> None:
    """Check that the network accepts the requested image sizes and has the requested stages.

    Args:
        network: The backbone.
        recipe: The recipe that the user requested.
        size: Side of the training images, pixels.

    Raises:
        BackboneError: If the network does not accept images of a requested size.
        RecipeError: If the network lacks a requested stage, or a test scale is smaller than the images.
    """
    test_size, taps, scales = (_requested(recipe, name) for name in ("test_size", "taps", "scales"))
    for name, pixels in {"size": size, "test_size": test_size or size}.items():
        if network.fixed_size not in (None, pixels):
            raise BackboneError(
                f"{network.name} only accepts images of {network.fixed_size} × {network.fixed_size} pixels; the "
                f"recipe's {name} is {pixels}",
                code="backbone.fixed_size",
                field=name,
                value=pixels,
            )
        try:
            network.activations(pixels)
        except ValueError as error:
            raise BackboneError(
                f"{network.name} accepts no images of {pixels} × {pixels} pixels, the recipe's {name}: {error}",
                code="backbone.size",
                field=name,
                value=pixels,
            ) from error
    if scales and min(scales) < (test_size or size):
        raise _invalid("scales", scales, f"at least the images' side, {test_size or size}")
    if taps and max(taps) >= (stages := len(feature_tensors(network.network, size))):
        raise _invalid("taps", taps, f"stages of {network.name}, which has the stages 0 to {stages - 1}")


@dataclass(frozen=True, eq=False)
class Request:
    """The arguments of `finetune` that decide what is computed; see `finetune`.

    Raises:
        RecipeError: If the recipe, the seed, the time limit, the number of snapshots or a callback is invalid.
    """

    dataset: object = None
    backbone: object = "auto"
    recipe: Recipe | Adjusted | str = "auto"
    validation: object = None
    time_limit: float | str | None = None
    seed: int = 0
    callbacks: Sequence[keras.callbacks.Callback] = ()
    options: Options = field(default_factory=Options)

    def __post_init__(self) -> None:
        check_recipe(self.recipe)
        seconds(self.time_limit)
        object.__setattr__(self, "seed", checked_seed(self.seed))
        object.__setattr__(self, "callbacks", checked_callbacks(self.callbacks))
        options = replace(self.options, snapshots=checked_snapshots(self.options.snapshots))
        object.__setattr__(self, "options", options)

    @property
    def seconds(self) -> float | None:
        """The time limit in seconds."""
        return seconds(self.time_limit)

    @property
    def uses_digits(self) -> bool:
        """Whether the dataset is the embedded dataset of handwritten digits."""
        return self.dataset is None or (isinstance(self.dataset, str) and self.dataset == "digits")

    @cached_property
    def command(self) -> dict[str, Any]:
        """The arguments as JSON values. An output folder rejects a second command with other values."""
        names = ("dataset", "backbone", "recipe", "validation", "time_limit")
        values = {name: _json_value(getattr(self, name)) for name in names} | {"seed": self.seed}
        return values | ({"snapshots": self.options.snapshots} if self.options.snapshots else {})


def checked_snapshots(snapshots: object) -> int:
    """Return the number of snapshots.

    Raises:
        RecipeError: If the value is not a whole number of at least 0.
    """
    if isinstance(snapshots, bool) or not isinstance(snapshots, int | np.integer) or snapshots < 0:
        raise _invalid("snapshots", snapshots, "a number of snapshots, such as 5, or 0")
    return int(snapshots)


def _json_value(value: object) -> object:
    if value is None or isinstance(value, str | int | float):
        return value
    if isinstance(value, Path):
        return str(value)
    if isinstance(value, Recipe | Adjusted):
        return constructor_text(value)
    return f"{type(value).__name__} {_digest(value)}"


def _digest(value: Any) -> str:
    """Return a hash of the content of an argument (12 hexadecimal digits), so that other data gives another command."""
    digest = hashlib.blake2b(digest_size=6)
    if not isinstance(value, keras.Model):
        value = getattr(value, "model", value)  # the backbone is a Result
    if isinstance(value, keras.Model):
        value = value.get_weights()
    elif isinstance(value, Splits):
        value = [part for data in value.given.values() for part in (data.labels, data.images)]
    elif isinstance(value, ImageData):
        value = [value.labels, value.images]
    elif not isinstance(value, list | tuple):
        return "?"  # the content of a stream is unknown until it is read
    for part in value:
        if isinstance(part, np.ndarray) and part.dtype != object:
            digest.update(np.ascontiguousarray(part).tobytes())
        else:
            digest.update(repr(part).encode("utf-8", "surrogateescape"))
    return digest.hexdigest()


def checked_seed(seed: object) -> int:
    """Return the seed.

    Raises:
        RecipeError: If the value is not a whole number from 0 to 2³² − 1.
    """
    if isinstance(seed, bool) or not isinstance(seed, int | np.integer) or not 0 <= seed < 2**32:
        raise _invalid("seed", seed, "an integer from 0 to 2³² − 1")
    return int(seed)


def checked_verbosity(verbose: object) -> int:
    """Return the verbosity, 0, 1 or 2; False is 0 and True is 1.

    Raises:
        RecipeError: If the value is none of these.
    """
    if isinstance(verbose, int | np.integer) and 0 <= verbose <= 2:
        return int(verbose)
    raise _invalid("verbose", verbose, "0 (warnings and errors), 1 (phases), or 2 (every decision)")


def checked_callbacks(
    callbacks: keras.callbacks.Callback | Iterable[keras.callbacks.Callback],
) -> list[keras.callbacks.Callback]:
    """Return the callbacks as a list.

    Raises:
        RecipeError: If an object is not a callback, or a callback sets the learning rate.
    """
    callbacks = [callbacks] if isinstance(callbacks, keras.callbacks.Callback) else list(callbacks)
    for callback in callbacks:
        if isinstance(callback, keras.callbacks.ReduceLROnPlateau | keras.callbacks.LearningRateScheduler):
            raise RecipeError(
                f"{type(callback).__name__} cannot be used: the learning rate follows the warm-up and the cosine "
                "schedule of the recipe; omit this callback, or set the learning rate by recipes.adjusted(..., "
                "learning_rate=...)",
                code="request.callbacks",
                field="callbacks",
                value=callback,
            )
        if not isinstance(callback, keras.callbacks.Callback):
            raise _invalid("callbacks", callback, "Keras callbacks")
    return callbacks
