"""Names for what Keras leaves untyped."""

from typing import Any, TypeAlias

import keras

Tensor: TypeAlias = Any  # of any backend: Keras has no type for it
Shape: TypeAlias = tuple[int | None, ...]
ops: Any = keras.ops  # pyright infers None for the results of most of its functions
tree: Any = keras.tree  # pyright infers unions that fit nowhere
