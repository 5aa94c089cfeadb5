"""The network that is trained: backbone, pooling, linear classifier, in one graph that takes 0..255 RGB."""

import keras
import numpy as np

from layers import unfreeze_batch_statistics
from recipes.networks.backbones import Backbone
from recipes.networks.stages import feature_tensors, pooled


def fresh(network: keras.Model) -> keras.Model:
    """The same architecture with newly drawn weights and batch statistics that follow a short training.

    Batch normalisation momenta of 0.999, as some pretrained networks carry, would need thousands of steps; they are
    lowered to 0.9. Statistics that `layers.freeze_batch_statistics` froze move again: they belong to the old weights.
    """

    def renew(layer):
        config = layer.get_config()
        if isinstance(layer, keras.layers.BatchNormalization):
            config["momentum"] = min(0.9, config["momentum"])
        return layer.__class__.from_config(config)

    clone = keras.models.clone_model(network, clone_function=renew)
    unfreeze_batch_statistics(clone)
    return clone


def copied(network: keras.Model) -> keras.Model:
    """The same network with weights of its own."""
    copy = keras.models.clone_model(network)
    _copy_weights(network, copy)
    return copy


def _copy_weights(network: keras.Model, copy: keras.Model) -> None:
    """By layers' names: a clone may hold its layers in another order, and names its inputs anew."""
    for layer in network.layers:
        if not layer.weights:
            continue
        twin = copy.get_layer(layer.name)
        if isinstance(layer, keras.Model):
            _copy_weights(layer, twin)
        else:
            twin.set_weights(layer.get_weights())


def logits_model(
    backbone: Backbone, classes: int, size: int, *, taps=None, dropout: float = 0.0, seed: int = 0
) -> keras.Model:
    """(batch, height, width, 3) of 0..255 → (batch, classes) logits in float32, of any size that the network takes.

    size: of the images that its stages are told by.
    taps: positions of the stages whose pooled features are classified, concatenated; None is the network's end.
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
    logits = keras.layers.Dense(classes, kernel_initializer=initializer, dtype="float32", name="logits")(features)
    return keras.Model(images, logits, name="classifier")


def set_head(model: keras.Model, kernel: np.ndarray, bias: np.ndarray) -> None:
    """Put a linear classifier (channels, classes), (classes,) into a `logits_model`."""
    model.get_layer("logits").set_weights([kernel, bias])


def recalibrated(model: keras.Model, temperature: float) -> keras.Model:
    """A model of probabilities p → softmax(log p / temperature)."""
    floor = keras.layers.Rescaling(1.0, 1e-12, dtype="float32", name="floor")  # log 0 is no number
    logits = keras.ops.log(floor(model.outputs[0]))
    cooled = keras.layers.Rescaling(1 / temperature, dtype="float32", name="joint_temperature")(logits)
    probabilities = keras.layers.Softmax(dtype="float32", name="calibrated")(cooled)
    return keras.Model(model.inputs, probabilities, name="classifier")


def with_probabilities(models, *, mirror: bool = False, temperature: float = 1.0) -> keras.Model:
    """(batch, height, width, 3) of 0..255 → the mean of softmax(logits / temperature) in float32, sharing the weights.

    models: one model of logits, or several whose predictions are averaged; all take the same images.
    mirror: average over the images and their mirror images too.
    """
    models = models if isinstance(models, list | tuple) else [models]
    images = models[0].inputs[0]
    softmax = keras.layers.Softmax(dtype="float32", name="probabilities")
    cooler = keras.layers.Rescaling(1 / temperature, dtype="float32", name="temperature")
    views = [images, keras.ops.flip(images, axis=2)] if mirror else [images]
    if len(models) == len(views) == 1:
        logits = [models[0].outputs[0]]
    else:  # as layers of their own, or a copy of the whole would have each shared weight twice
        members = [keras.Model(m.inputs, m.outputs[0], name=f"member_{i}") for i, m in enumerate(models)]
        logits = [member(view) for member in members for view in views]
    outputs = [softmax(cooler(x)) for x in logits]
    mean = keras.layers.Average(dtype="float32", name="mean")(outputs) if len(outputs) > 1 else outputs[0]
    return keras.Model(images, mean, name="classifier")
