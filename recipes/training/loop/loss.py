"""Define the loss of a training."""

from collections.abc import Sequence
from typing import Any

import keras


@keras.saving.register_keras_serializable("recipes")
class AdjustedCrossentropy(keras.losses.Loss):
    """Compute the cross-entropy of softmax(logits + log π) with label smoothing; π holds the shares of the classes.

    The logits that minimise this loss are those of equally frequent classes (logit adjustment, Menon et al. 2021). With
    a uniform π the loss is the usual cross-entropy.

    Args:
        shares: π, the share of each class in the training images.
        label_smoothing: ε: the labels become (1 − ε) · label + ε / classes.
        name: Name of the loss.
        **kwargs: Other arguments of `keras.losses.Loss`.
    """

    def __init__(
        self, shares: Sequence[float], label_smoothing: float = 0.0, name: str = "adjusted_crossentropy", **kwargs: Any
    ) -> None:
        super().__init__(name=name, **kwargs)
        self.shares, self.label_smoothing = [float(share) for share in shares], label_smoothing

    def call(self, y_true: Any, y_pred: Any) -> Any:
        if len(y_true.shape) < len(y_pred.shape):  # integers from a `Babysitter(sample=(images, labels))`
            y_true = keras.ops.one_hot(keras.ops.cast(y_true, "int32"), y_pred.shape[-1])
        logits = y_pred + keras.ops.log(keras.ops.convert_to_tensor(self.shares, y_pred.dtype))
        return keras.losses.categorical_crossentropy(
            y_true, logits, from_logits=True, label_smoothing=self.label_smoothing
        )

    def get_config(self) -> dict[str, Any]:
        return {**super().get_config(), "shares": self.shares, "label_smoothing": self.label_smoothing}
