"""Name types that TensorFlow's stubs lack."""

from typing import Any, TypeAlias

Tensor: TypeAlias = Any  # a tf.Tensor, whose stub lacks slices with `...` and operators such as % and ~
Border: TypeAlias = str | tuple[float, float, float] | None  # see `Policy.border`
