"""Define Maxout, a learnt piecewise linear activation.

Goodfellow, Warde-Farley, Mirza, Courville, Bengio: Maxout Networks, ICML 2013, arXiv:1302.4389.
"""

import numbers
from typing import Any, Self

import keras

from .tensors import Shape, Tensor, ops

CONVOLUTIONS = {1: keras.layers.Conv1D, 2: keras.layers.Conv2D, 3: keras.layers.Conv3D}


@keras.saving.register_keras_serializable(package="layers")
class Maxout(keras.layers.Layer):
    """Compute the largest of `pieces` affine functions per unit: y_u = max_k (x · W_uk + b_uk).

    The layer is dense by default: (…, features) → (…, units). With `kernel_size`, a tuple of 1, 2 or 3 sizes, the
    affine functions are convolutions, and the maximum is over channels. The shapes then are (batch, h, w, c) → (batch,
    h', w', units), or with data_format="channels_first" (batch, c, h, w) → (batch, units, h', w'). ReLU is the case of
    two pieces of which one is 0, and |x| the case of W₁ = −W₂. A dense Maxout passes masks through.

    Args:
        units: number of outputs.
        pieces: number of affine functions per unit.
        kernel_size: size of the convolution, or None for a dense layer.
        strides: strides of the convolution.
        padding: padding of the convolution, "valid" or "same".
        data_format: data format of the convolution; the default is `keras.config.image_data_format()`.

    Raises:
        ValueError: If `units` or `pieces` is not a positive integer, or the length of `kernel_size` is not 1, 2 or 3.

    Example:
        `Maxout(128, 4)`, `Maxout(64, 2, kernel_size=(3, 3), padding="same")`
    """

    def __init__(
        self,
        units: int,
        pieces: int,
        *,
        kernel_size: tuple[int, ...] | None = None,
        strides: int = 1,
        padding: str = "valid",
        data_format: str | None = None,
        **kwargs: Any,
    ):
        super().__init__(**kwargs)
        for name, value in (("units", units), ("pieces", pieces)):
            if isinstance(value, bool) or not isinstance(value, numbers.Integral) or value < 1:
                raise ValueError(f"Maxout: {name} must be a positive integer, got {value!r}.")
        units, pieces = int(units), int(pieces)
        if isinstance(kernel_size, numbers.Integral):
            raise ValueError(
                f"Maxout: kernel_size must be a tuple with one size per dimension, got {kernel_size!r}; for images use "
                f"({kernel_size}, {kernel_size})."
            )
        self.units, self.pieces, self.strides, self.padding = units, pieces, strides, padding
        self.supports_masking = kernel_size is None
        self.kernel_size = None if kernel_size is None else tuple(kernel_size)
        self.data_format = keras.config.image_data_format() if data_format is None else data_format
        if self.data_format not in ("channels_last", "channels_first"):
            raise ValueError(f'Maxout: data_format must be "channels_last" or "channels_first", got {data_format!r}.')
        self.axis = 1 if self.kernel_size is not None and self.data_format == "channels_first" else -1
        if self.kernel_size is None:
            self.affine = keras.layers.Dense(units * pieces, dtype=self.dtype_policy)
        elif len(self.kernel_size) in CONVOLUTIONS:
            convolution = CONVOLUTIONS[len(self.kernel_size)]
            self.affine = convolution(
                units * pieces, self.kernel_size, strides, padding, self.data_format, dtype=self.dtype_policy
            )
        else:
            raise ValueError(
                f"Maxout: kernel_size must have 1, 2 or 3 entries, one per dimension, got {kernel_size!r}."
            )

    def build(self, input_shape: Shape) -> None:
        self.affine.build(input_shape)

    def call(self, inputs: Tensor) -> Tensor:
        affine = self.affine(inputs)
        shape = ops.shape(affine)
        if self.axis == 1:
            return ops.max(ops.reshape(affine, (shape[0], self.pieces, self.units, *shape[2:])), axis=1)
        return ops.max(ops.reshape(affine, (*shape[:-1], self.pieces, self.units)), axis=-2)

    def compute_output_shape(self, input_shape: Shape) -> Shape:
        shape = list(self.affine.compute_output_shape(input_shape))
        shape[self.axis] = self.units
        return tuple(shape)

    @classmethod
    def from_config(cls, config: dict[str, Any]) -> Self:
        return super().from_config({"data_format": "channels_last", **config})  # earlier versions saved this name

    def get_config(self) -> dict[str, Any]:
        own = ("units", "pieces", "kernel_size", "strides", "padding", "data_format")
        return {**super().get_config(), **{name: getattr(self, name) for name in own}}
