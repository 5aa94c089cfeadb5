"""What one training is made of."""

from collections.abc import Mapping
from dataclasses import dataclass

import keras

from recipes.data.images import ImageData
from recipes.planning.recipe import Recipe


@dataclass(frozen=True, eq=False)
class Task:
    """A model and all that decides which weights a training gives it.

    Attributes:
        model: Images 0..255 → logits. The training compiles it.
        images: The training images.
        recipe: How to train.
        seed: Seed of the shuffling and the augmentation.
        rates: Regular expressions of variables' paths → multiplier of the learning rate, see
            `optimizers.Discriminative`; None: one rate for all.
    """

    model: keras.Model
    images: ImageData
    recipe: Recipe
    seed: int
    rates: Mapping[str, float] | None = None
