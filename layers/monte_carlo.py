"""Average many noisy predictions of a model and measure their disagreement.

Gal, Ghahramani: Dropout as a Bayesian Approximation, ICML 2016; Houlsby et al.: Bayesian Active Learning, 2011 (BALD).
"""

import contextlib
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import keras
import numpy as np

from .noise import nested, noise_layers, training_mode
from .tensors import ops, tree


@dataclass(frozen=True)
class MonteCarlo:
    """Hold the moments of a model's predictions over the noise.

    Attributes:
        mean: (batch, …), mean of the model's outputs.
        std: (batch, …), unbiased standard deviation of the model's outputs.
        mutual_information: (batch,) in nats, H(E p) − E H(p), the disagreement of the samples. The value is None if the
            outputs are not probabilities over the last axis. One number per image, or a last axis of one, counts as the
            probability of "yes".
    """

    mean: np.ndarray
    std: np.ndarray
    mutual_information: np.ndarray | None

    def __repr__(self) -> str:
        information = self.mutual_information
        disagreement = "" if information is None else f", mean mutual_information {np.mean(information):.4g} nats"
        return f"MonteCarlo(shape {np.shape(self.mean)}, mean std {np.mean(self.std):.4g}{disagreement})"


def monte_carlo(model: keras.Model, images: Any, *, samples: int = 20, batch_size: int = 32) -> MonteCarlo:
    """Predict `images` `samples` times with only the noise layers active, E_z f(x, z) ≈ 1/S Σ_s f(x, z_s).

    Noise layers are those that `describe_noise` lists. All other layers, such as BatchNormalization, run in inference
    mode and do not change. Every batch starts from the current states of stateful layers, which do not change either.

    Args:
        model: any Keras model with one input structure and one output.
        images: an array, or the structure of arrays that the model takes.
        samples: number of predictions per image.
        batch_size: images per prediction.

    Raises:
        ValueError: If `samples` is below 2, there are no images, or the model has no noise or several outputs.

    Example:
        Find the ten most ambiguous images:
        `monte_carlo(model, images, samples=50).mutual_information.argsort()[-10:]`
    """
    if samples < 2:
        raise ValueError(
            f"monte_carlo: samples must be at least 2, so that there is a standard deviation, got {samples!r}."
        )
    if not noise_layers(model):
        raise ValueError(
            f"monte_carlo: model {model.name!r} has no noise layer with a rate above 0, so all samples are equal; "
            f"add noise with set_dropout, add_stochastic_depth or add_drop_connect."
        )
    length = len(tree.flatten(images)[0])
    if not length:
        raise ValueError("monte_carlo: images is empty; pass at least one image.")
    with training_mode(model):
        parts = [_moments(model, _slice(images, i, i + batch_size), samples) for i in range(0, length, batch_size)]
    mean, std, information = (np.concatenate(part) for part in zip(*parts, strict=True))
    return MonteCarlo(mean, std, None if np.isnan(information).any() else information)


def _slice(images: Any, start: int, stop: int) -> Any:
    return tree.map_structure(lambda array: array[start:stop], images)


def _moments(model: keras.Model, batch: Any, samples: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    draws = []
    for _ in range(samples):
        with _restored_states(model):
            draws.append(_prediction(model, batch))
    draws = np.stack(draws)
    return draws.mean(axis=0), draws.std(axis=0, ddof=1), _mutual_information(draws)


@contextlib.contextmanager
def _restored_states(model: keras.Model) -> Iterator[None]:
    """Restore the states of stateful recurrent layers at the end."""
    stateful = [layer for layer in nested(model) if isinstance(layer, keras.layers.RNN) and layer.stateful]
    states = [tree.flatten(layer.states or ()) for layer in stateful]
    before = [[ops.convert_to_numpy(state).copy() for state in each] for each in states]
    yield
    for layer, variables, values in zip(stateful, states, before, strict=True):
        if not variables:  # the call above has built the layer
            layer.reset_state()
        for variable, value in zip(variables, values, strict=True):
            variable.assign(value)


def _prediction(model: keras.Model, batch: Any) -> np.ndarray:
    outputs = tree.flatten(model(batch, training=False))
    if len(outputs) != 1:
        raise ValueError(
            f"monte_carlo: model {model.name!r} has {len(outputs)} outputs; expected one. Pass a model of one "
            f"output, keras.Model(model.inputs, model.outputs[0])."
        )
    return ops.convert_to_numpy(outputs[0]).astype("float64")


def _mutual_information(draws: np.ndarray) -> np.ndarray:
    """Return the mutual information of draws (samples, batch, …, classes) or (samples, batch).

    The result is NaN if the draws are not probabilities.
    """
    if draws.ndim == 2:
        draws = draws[..., None]
    if draws.shape[-1] == 1:
        draws = np.concatenate([1 - draws, draws], axis=-1)
    if draws.min() < 0 or np.abs(draws.sum(axis=-1) - 1).max() > 1e-2:
        return np.full(draws.shape[1], np.nan)
    information = _entropy(draws.mean(axis=0)) - _entropy(draws).mean(axis=0)
    return np.maximum(information.reshape(len(information), -1).mean(axis=1), 0)


def _entropy(p: np.ndarray) -> np.ndarray:
    return -np.sum(p * np.log(np.maximum(p, 1e-300)), axis=-1)
