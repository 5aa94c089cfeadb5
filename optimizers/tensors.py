"""Name types that Keras lacks."""

from collections.abc import Callable
from typing import Any, TypeAlias

import keras

Tensor: TypeAlias = Any  # a tensor of any backend, for which Keras has no type
LearningRate: TypeAlias = float | keras.optimizers.schedules.LearningRateSchedule | Callable[[], Any]
ops: Any = keras.ops  # pyright infers None for the results of most of these functions
tree: Any = keras.tree  # pyright infers unions that match no argument
