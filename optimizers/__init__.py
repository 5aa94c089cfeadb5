"""Provide Keras optimizers, schedules and full-batch minimisers, from SGD with momentum to L-BFGS."""

from .averaging import PolyakAveraging, UniformAveraging
from .descent import minimize_function
from .discriminative import Discriminative, layerwise_decay
from .first_order import AdaGrad, Adam, Momentum, Nesterov, RMSProp
from .full_batch import minimize
from .linear import LinearFit, fit_linear, fit_linear_path
from .losses import multiclass_hinge, softmax_cross_entropy
from .minimum import Minimum
from .sam import sharpness_aware
from .schedules import (
    Cosine,
    CosineRestarts,
    Cyclic,
    ExponentialDecay,
    InverseTimeDecay,
    StepDecay,
    Then,
    Warmup,
)
from .weight_average import AveragingOptimizer as AveragingOptimizer  # `recipes` uses this name, which is not public

__all__ = [
    "AdaGrad",
    "Adam",
    "Cosine",
    "CosineRestarts",
    "Cyclic",
    "Discriminative",
    "ExponentialDecay",
    "InverseTimeDecay",
    "LinearFit",
    "Minimum",
    "Momentum",
    "Nesterov",
    "PolyakAveraging",
    "RMSProp",
    "StepDecay",
    "Then",
    "UniformAveraging",
    "Warmup",
    "fit_linear",
    "fit_linear_path",
    "layerwise_decay",
    "minimize",
    "minimize_function",
    "multiclass_hinge",
    "sharpness_aware",
    "softmax_cross_entropy",
]
