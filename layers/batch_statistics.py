"""Batch normalisation at finetuning time: keep the statistics that the weights were trained with."""

import keras


def freeze_batch_statistics(model: keras.Model) -> list[str]:
    """Make every BatchNormalization of `model`, nested ones included, run on its moving statistics, also in `fit`.

    Keras runs a BatchNormalization whose `trainable` is False in inference mode: y = γ (x − μ) / √(σ² + ε) + β with
    the moving μ and σ², which then do not move; γ and β are frozen too. `model(x, training=False)` does not achieve
    this inside a functional model, because `fit` overrides it. Compile afterwards.

    Returns the names of the layers that were frozen.
    """
    frozen = []
    for layer in model._flatten_layers(include_self=False, recursive=True):
        if isinstance(layer, keras.layers.BatchNormalization):
            layer.trainable = False
            frozen.append(layer.name)
    return frozen
