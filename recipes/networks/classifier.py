"""Build the network that is trained: backbone, pooling and linear classifier in one graph, from 0..255 RGB."""

from collections.abc import Sequence

import keras
import numpy as np

from recipes.layers import unfreeze_batch_statistics
from recipes.networks.backbones import Backbone
from recipes.networks.stages import feature_tensors, pooled


def fresh(network: keras.Model) -> keras.Model:
    """Return the same architecture with random weights, and batch statistics that adapt in a short training.

    Some pretrained networks have batch normalisation momenta of 0.999, which would need thousands of steps; the
    function lowers them to 0.9. Statistics that `layers.freeze_batch_statistics` froze are updated again, because they
    belong to the old weights.
    """
    clone = keras.models.clone_model(network, clone_function=_reinitialised)
    unfreeze_batch_statistics(clone)
    return clone


def _reinitialised(layer: keras.layers.Layer) -> keras.layers.Layer:
    config = layer.get_config()
    if isinstance(layer, keras.layers.BatchNormalization):
        config["momentum"] = min(0.9, config["momentum"])
    return layer.__class__.from_config(config)


def copied(network: keras.Model) -> keras.Model:
    """Return a copy of the network that shares no weights with it."""
    copy = keras.models.clone_model(network)
    _copy_weights(network, copy)
    return copy


def _copy_weights(network: keras.Model, copy: keras.Model) -> None:
    """Copy weights by layer name, because a clone may store its layers in another order, and renames its inputs."""
    for layer in network.layers:
        if not layer.weights:
            continue
        twin = copy.get_layer(layer.name)
        if isinstance(layer, keras.Model):
            _copy_weights(layer, twin)
        else:
            twin.set_weights(layer.get_weights())


def logits_model(
    backbone: Backbone,
    classes: int,
    size: int,
    *,
    taps: Sequence[int] | None = None,
    dropout: float = 0.0,
    seed: int = 0,
) -> keras.Model:
    """Return a classifier from images (batch, height, width, 3) of 0..255 to float32 logits (batch, classes).

    The classifier accepts the same image sizes as the network.

    Args:
        backbone: The network and its preprocessing.
        classes: Number of classes.
        size: Image size in pixels from which the network's stages are determined.
        taps: Positions of the stages whose pooled features are concatenated and classified; None takes the output of
            the network.
        dropout: Dropout rate of the features.
        seed: Seed of the linear classifier's initial weights and of the dropout.
    """
    network, side = backbone.network, backbone.fixed_size
    images = keras.Input((side, side, 3), name="images")
    if taps is None:
        features = pooled(backbone(images))
    else:
        tensors = feature_tensors(network, size)
        read = keras.Model(network.inputs, [pooled(tensors[tap], f"{tap}") for tap in taps], name=network.name)
        outputs = backbone(images, read)
        features = keras.layers.Concatenate(name="features")(outputs) if len(taps) > 1 else outputs[0]
    if dropout:
        features = keras.layers.Dropout(dropout, seed=seed, name="dropout")(features)
    initializer = keras.initializers.GlorotUniform(seed=seed)
    dense = keras.layers.Dense(
        classes,
        kernel_initializer=initializer,  # pyright: ignore[reportArgumentType] - Keras's stub infers str from the default
        dtype="float32",
        name="logits",
    )
    return keras.Model(images, dense(features), name="classifier")


def set_head(model: keras.Model, kernel: np.ndarray, bias: np.ndarray) -> None:
    """Set the kernel (channels, classes) and the bias (classes,) of the linear classifier of a `logits_model`."""
    model.get_layer("logits").set_weights([kernel, bias])


def recalibrated(model: keras.Model, temperature: float) -> keras.Model:
    """Return a model from probabilities p to softmax(log p / temperature)."""
    floor = keras.layers.Rescaling(1.0, 1e-12, dtype="float32", name="floor")  # avoids log 0
    logits = keras.ops.log(floor(model.outputs[0]))
    cooled = keras.layers.Rescaling(1 / temperature, dtype="float32", name="joint_temperature")(logits)
    probabilities = keras.layers.Softmax(dtype="float32", name="calibrated")(cooled)
    return keras.Model(model.inputs, probabilities, name="classifier")


def with_probabilities(
    models: keras.Model | Sequence[keras.Model], *, mirror: bool = False, temperature: float = 1.0
) -> keras.Model:
    """Return a model of the mean of softmax(logits / temperature) in float32; it shares the weights of `models`.

    Args:
        models: One model of logits, or several models whose predictions are averaged. All accept the same images
            (batch, height, width, 3) of 0..255.
        mirror: Whether to average over the images and their mirror images.
        temperature: Divisor of the logits.
    """
    models = [models] if isinstance(models, keras.Model) else models
    images = models[0].inputs[0]
    softmax = keras.layers.Softmax(dtype="float32", name="probabilities")
    cooler = keras.layers.Rescaling(1 / temperature, dtype="float32", name="temperature")
    views = [images, keras.ops.flip(images, axis=2)] if mirror else [images]
    if len(models) == len(views) == 1:
        logits = [models[0].outputs[0]]
    else:  # nested as layers, because a copy of the whole graph would contain each shared weight twice
        members = [keras.Model(m.inputs, m.outputs[0], name=f"member_{i}") for i, m in enumerate(models)]
        logits = [member(view) for member in members for view in views]
    outputs = [softmax(cooler(x)) for x in logits]
    mean = keras.layers.Average(dtype="float32", name="mean")(outputs) if len(outputs) > 1 else outputs[0]
    return keras.Model(images, mean, name="classifier")
