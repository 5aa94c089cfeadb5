"""Write and read the JSON messages that the workers of a job send each other."""

import os
from typing import Any

import keras

from recipes import errors
from recipes.data.images import ImageData
from recipes.errors import ClusterError, RecipeError, RecipesError
from recipes.planning.recipe import Recipe
from recipes.planning.recipe_json import recipe_facts

_NUMBER = "_worker"  # name of the attribute that marks errors reported by another worker


def training_message(model: keras.Model, images: ImageData, recipe: Recipe, **settings: object) -> dict:
    """Return the message with which another worker can take part in a training.

    Args:
        model: The compiled model.
        images: The training images; their names and labels are sent, not their pixels.
        recipe: The recipe of the training.
        **settings: Other arguments of the training, as JSON values.

    Raises:
        RecipeError: If the recipe contains code, which is never sent.
    """
    if recipe.policy.extra is not None:
        raise RecipeError(
            "the policy has an extra layer, which cannot be sent to other hosts; leave out the extra layer, or train "
            "on one host",
            code="recipe.extra_layer",
        )
    names = {"names": list(images.names), "labels": images.labels.tolist(), "class_names": list(images.class_names)}
    return {
        "do": "train",
        "task": {"images": names, "recipe": recipe_facts(recipe), **settings},
        "model": model.to_json(),
        "trainable": [layer.trainable for layer in model._flatten_layers()],
        "shapes": shapes(model),
    }


def shapes(model: keras.Model) -> list:
    """Return [path, *shape] of every variable."""
    return [[variable.path, *variable.shape] for variable in model.variables]


def failure_message(error: BaseException, kind: str | None = None) -> dict:
    """Return the message that reports a worker's error; `kind` names the exception that the other workers raise."""
    facts = dict(vars(error)) if isinstance(error, RecipesError) else {}
    number = facts.pop(_NUMBER, None)
    message = {"do": "fail", "kind": kind or type(error).__name__, "text": str(error), "number": number}
    return message | {"facts": {name: value for name, value in map(_plain, facts.items()) if value is not None}}


def _plain(fact: tuple[str, Any]) -> tuple[str, Any]:
    """Return an error's attribute as (name, JSON value); the value is None if it has no JSON form."""
    name, value = fact
    if isinstance(value, os.PathLike):
        return name, os.fspath(value)
    if isinstance(value, tuple | list):
        return name, [_plain(("", each))[1] for each in value]
    return name, value if isinstance(value, str | int | float) else None


def error_from_message(message: dict, number: int = 0) -> BaseException:
    """Return the exception that ended another worker, for this worker to raise.

    The text names the worker where the error happened, even if other workers passed it on.

    Args:
        message: What `failure_message` returned.
        number: The worker that sent it.
    """
    kind, text = message["kind"], message["text"]
    if kind == "KeyboardInterrupt":
        return KeyboardInterrupt()
    if kind == "SystemExit":
        return SystemExit(int(text) if text.isdigit() else 1)
    facts: dict[str, Any] = {
        name: tuple(value) if isinstance(value, list) else value for name, value in message["facts"].items()
    }
    first = message["number"] is None  # the sender is the worker where the error happened
    kind = getattr(errors, kind, ClusterError)
    error = RecipesError.__new__(kind if issubclass(kind, RecipesError) else ClusterError)
    RecipesError.__init__(error, f"worker {number}: {text}" if first else text, **facts)
    setattr(error, _NUMBER, number if first else message["number"])
    return error
