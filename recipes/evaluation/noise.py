"""Average predictions over the random noise of the training."""

from dataclasses import dataclass
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from recipes import augment
from recipes.core.progress import phase
from recipes.data.images import ImageData
from recipes.errors import RecipeError
from recipes.layers import training_mode
from recipes.networks.compiled import compiled
from recipes.planning.recipe import Recipe

_TINY = np.finfo(np.float32).tiny


@dataclass(frozen=True, eq=False)
class Noisy:
    """Moments of predictions under the random noise of the training; see `layers.MonteCarlo`.

    Attributes:
        mean: Mean of the probabilities, (n, classes).
        std: Standard deviation of the probabilities, (n, classes).
        mutual_information: Disagreement of the samples, H(E p) − E H(p), nats, (n,).
    """

    mean: np.ndarray
    std: np.ndarray
    mutual_information: np.ndarray


def noisy(model: keras.Model, data: ImageData, recipe: Recipe, samples: int, seed: int = 0) -> Noisy:
    """Return the moments of several predictions under the random noise of the training.

    Each prediction uses another draw of the training augmentation and of the model's noise layers (dropout,
    DropConnect, stochastic depth, fractional pooling). Batch statistics do not change. If the training images were not
    augmented, `Policy.light` is used.

    Args:
        model: Model from images to probabilities.
        data: The images.
        recipe: The recipe of the model.
        samples: Number of predictions per image.
        seed: Seed of the augmentation.

    Raises:
        RecipeError: If `samples` is below two.
    """
    if samples < 2:
        raise RecipeError(
            f"`samples` must be at least 2 to measure a spread, got {samples}", code="noise.samples", samples=samples
        )
    policy = recipe.noise_policy
    total, squares, entropies = np.zeros(1), np.zeros(1), np.zeros(1)
    source = data.source()

    def sample(epoch: Any) -> tf.data.Dataset:  # Any: a tensor that is used as an integer
        return augment.epoch(source, policy, batch_size=recipe.batch_size, seed=seed, epoch=epoch, shuffle=False)

    batches = tf.data.Dataset.range(samples).flat_map(sample).prefetch(2).as_numpy_iterator()
    per_sample = -(-len(data) // recipe.batch_size)
    with phase("noisy predictions", samples, "draws") as progress, training_mode(model):
        predict = compiled(lambda images: model(images, training=False), model)
        for _ in range(samples):
            rows = [predict(next(batches)[0]) for _ in range(per_sample)]
            p = np.concatenate(rows).astype(np.float64)
            total, squares, entropies = total + p, squares + p**2, entropies + _entropy(p)
            progress.advance()
    mean = total / samples
    variance = np.maximum(squares - samples * mean**2, 0) / (samples - 1)
    return Noisy(mean, np.sqrt(variance), np.maximum(_entropy(mean) - entropies / samples, 0))


def _entropy(p: np.ndarray) -> np.ndarray:
    return -(p * np.log(np.maximum(p, _TINY))).sum(-1)
