"""Keras optimizers, schedules and full-batch minimisers, from SGD with momentum to L-BFGS."""

from optimizers.first_order import AdaGrad, Adam, Momentum, Nesterov, RMSProp
from optimizers.schedules import (
    Cosine,
    CosineRestarts,
    Cyclic,
    ExponentialDecay,
    InverseTimeDecay,
    StepDecay,
    Warmup,
)

__all__ = [
    "AdaGrad",
    "Adam",
    "Cosine",
    "CosineRestarts",
    "Cyclic",
    "ExponentialDecay",
    "InverseTimeDecay",
    "Momentum",
    "Nesterov",
    "RMSProp",
    "StepDecay",
    "Warmup",
]
