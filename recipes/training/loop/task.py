"""Hold the inputs of one training."""

from collections.abc import Mapping
from dataclasses import dataclass

import keras

from recipes.data.images import ImageData
from recipes.planning.recipe import Recipe


@dataclass(frozen=True, eq=False)
class Task:
    """Hold a model and everything that determines its trained weights.

    Attributes:
        model: The network, from images 0..255 to logits; the training compiles it.
        images: The training images.
        recipe: How to train.
        seed: Seed of the shuffling and the augmentation.
        rates: Regular expressions of variables' paths → multiplier of the learning rate, see
            `optimizers.Discriminative`; None for one rate.
    """

    model: keras.Model
    images: ImageData
    recipe: Recipe
    seed: int
    rates: Mapping[str, float] | None = None
