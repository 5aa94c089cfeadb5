"""Provide Keras layers that train with noise and average the noise out at test time."""

from .batch_statistics import reestimate_batch_statistics
from .drop_connect import DropConnect
from .fractional_max_pooling import FractionalMaxPooling2D, fractional_max_pool
from .frozen_statistics import freeze_batch_statistics, unfreeze_batch_statistics
from .maxout import Maxout
from .monte_carlo import MonteCarlo, monte_carlo
from .noise import describe_noise
from .noise import training_mode as training_mode  # `recipes` uses this name, which is not public
from .stochastic_depth import StochasticDepth, StochasticResidual, linear_rates
from .surgery import add_drop_connect, add_stochastic_depth, set_dropout

__all__ = [
    "DropConnect",
    "FractionalMaxPooling2D",
    "Maxout",
    "MonteCarlo",
    "StochasticDepth",
    "StochasticResidual",
    "add_drop_connect",
    "add_stochastic_depth",
    "describe_noise",
    "fractional_max_pool",
    "freeze_batch_statistics",
    "linear_rates",
    "monte_carlo",
    "reestimate_batch_statistics",
    "set_dropout",
    "unfreeze_batch_statistics",
]
