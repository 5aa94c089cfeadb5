"""Step one of transfer learning: train a compact network on a large dataset that resembles the one to come."""

from pathlib import Path

import keras

from recipes.core.devices import prepare_devices
from recipes.core.files import write_whole
from recipes.core.output import safe_output
from recipes.errors import RecipeError
from recipes.finetuning import finetune
from recipes.networks.convnet import convnet
from recipes.planning.recipe import Adjusted, Recipe, adjusted
from recipes.planning.request import checked_seed
from recipes.result import Result

SIZE = 32
BACKBONE = "backbone.keras"


@safe_output()
def pretrain(dataset, *, recipe=None, output=None, seed: int = 0) -> Result:
    """Train a compact residual ConvNet on `dataset` from random weights, to start other trainings from.

    dataset: anything that `finetune` takes; the more classes and images, and the more they resemble the images that
             the network is for, the better.
    recipe:  a Recipe without warm start, or `adjusted("scratch", ...)`; None: "scratch" at 32 pixels. Its size is that
             of the only images that the network will take.
    output:  a folder for the saved run, and in it backbone.keras: the trained network without its classifier.
    seed:    two CPU runs with one seed give the same weights.

    Raises: RecipeError for a recipe that builds on trained weights; DataError and OutputError as `finetune` does.

    Example:
        pretrain("many_drawings/", output="drawings")
        finetune("my_few_drawings/", backbone="drawings/backbone.keras")
    """
    recipe = recipe or adjusted("scratch", size=SIZE)
    if not _from_scratch(recipe):
        raise RecipeError(
            f"recipe is {recipe!r}; pretraining begins with random weights: "
            "give a Recipe with warm_start=False, or adjusted('scratch', ...)"
        )
    size = recipe.size if isinstance(recipe, Recipe) else dict(recipe.changes).get("size", SIZE)
    prepare_devices()  # before the network is made, which computes in the precision that is chosen here
    keras.utils.set_random_seed(checked_seed(seed))  # the network is a part of the command that an output folder keeps
    result = finetune(dataset, backbone=convnet(size), recipe=recipe, seed=seed, output=output)
    if output is not None:
        write_whole(Path(output) / BACKBONE, network(result).save)
    return result


def _from_scratch(recipe) -> bool:
    if isinstance(recipe, Adjusted):
        return recipe.recipe == "scratch"
    return isinstance(recipe, Recipe) and not recipe.warm_start and recipe.epochs > 0


def network(result: Result):
    """The trained network of a `pretrain` Result, without its classifier: 0..255 RGB → feature map."""
    within = {layer.name: layer for layer in result.model.layers}
    return within.get("member_0", result.model).get_layer("convnet")
