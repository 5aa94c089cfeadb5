"""Pretrain a compact network on a large dataset, as a backbone for smaller similar datasets."""

import os
from pathlib import Path
from typing import Any

import keras

from recipes.core.devices import prepare_devices
from recipes.core.files import write_whole
from recipes.core.output import safe_output
from recipes.errors import RecipeError
from recipes.finetuning import finetune
from recipes.networks.convnet import convnet
from recipes.planning.ready_made import Adjusted, adjusted
from recipes.planning.recipe import Recipe
from recipes.planning.request import checked_seed
from recipes.result import Result
from recipes.runs.record import Record

SIZE = 32
BACKBONE = "backbone.keras"


@safe_output()
def pretrain(
    dataset: object,
    *,
    recipe: Recipe | Adjusted | None = None,
    output: str | os.PathLike | None = None,
    seed: int = 0,
) -> Result:
    """Train a compact residual ConvNet on `dataset` from random weights, as a backbone for other trainings.

    Args:
        dataset: Any dataset that `finetune` takes. The network improves with more classes, more images, and images
            similar to those that it will be finetuned on.
        recipe: A Recipe without warm start, or `adjusted("scratch", ...)`; None: "scratch" at 32 pixels. The network
            will only take images of the recipe's size.
        output: A folder for the saved run and for backbone.keras, the trained network without its classifier.
        seed: Two CPU runs with one seed give the same weights.

    Raises:
        RecipeError: If the recipe builds on trained weights.
        DataError: If the dataset cannot be used, see `finetune`.
        OutputError: If the output folder cannot be written, see `finetune`.

    Example:
        >>> pretrain("many_drawings/", output="drawings")
        >>> finetune("my_few_drawings/", backbone="drawings/backbone.keras")
    """
    recipe = recipe or adjusted("scratch", size=SIZE)
    if not _is_from_scratch(recipe):
        raise RecipeError(
            f"recipe is {recipe!r}; pretraining begins with random weights: "
            "give a Recipe with warm_start=False, or adjusted('scratch', ...)",
            code="recipe.not_from_scratch",
            field="recipe",
            value=recipe,
        )
    changes: dict[str, Any] = {"size": recipe.size} if isinstance(recipe, Recipe) else dict(recipe.changes)
    prepare_devices()  # sets the precision before the network is made
    keras.utils.set_random_seed(checked_seed(seed))  # the run's command includes the random weights
    result = finetune(dataset, backbone=convnet(changes.get("size", SIZE)), recipe=recipe, seed=seed, output=output)
    if output is not None:
        write_whole(Path(output) / BACKBONE, network(result).save)
    return result


def _is_from_scratch(recipe: object) -> bool:
    if isinstance(recipe, Adjusted):
        return recipe.recipe == "scratch"
    return isinstance(recipe, Recipe) and not recipe.warm_start and recipe.epochs > 0


def network(result: Record) -> keras.Model:
    """Return the trained network of a `pretrain` Result without its classifier, from 0..255 RGB to a feature map."""
    layers = {layer.name: layer for layer in result.model.layers}
    return layers.get("member_0", result.model).get_layer("convnet")
