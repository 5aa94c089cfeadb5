"""The loss of a training."""

from collections.abc import Sequence

import keras


@keras.saving.register_keras_serializable("recipes")
class AdjustedCrossentropy(keras.losses.Loss):
    """Cross-entropy of softmax(logits + log π) with label smoothing, π the share of each class in the training images.

    The logits that minimise it are those of classes that are equally frequent (logit adjustment, Menon et al. 2021);
    with a uniform π it is the usual cross-entropy.
    """

    def __init__(self, shares: Sequence[float], label_smoothing: float = 0.0, name="adjusted_crossentropy", **kwargs):
        super().__init__(name=name, **kwargs)
        self.shares, self.label_smoothing = [float(share) for share in shares], label_smoothing

    def call(self, y_true, y_pred):
        if len(y_true.shape) < len(y_pred.shape):  # a user's `Babysitter(sample=(images, labels))`
            y_true = keras.ops.one_hot(keras.ops.cast(y_true, "int32"), y_pred.shape[-1])
        logits = y_pred + keras.ops.log(keras.ops.convert_to_tensor(self.shares, y_pred.dtype))
        return keras.losses.categorical_crossentropy(
            y_true, logits, from_logits=True, label_smoothing=self.label_smoothing
        )

    def get_config(self):
        return {**super().get_config(), "shares": self.shares, "label_smoothing": self.label_smoothing}
