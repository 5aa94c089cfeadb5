"""Names for what TensorFlow's stubs leave untyped."""

from typing import Any, TypeAlias

Tensor: TypeAlias = Any  # a tf.Tensor: its stub lacks slices with `...` and operators such as % and ~
Border: TypeAlias = str | tuple[float, float, float] | None  # see `Policy.border`
