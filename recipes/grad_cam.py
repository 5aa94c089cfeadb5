"""Where a classifier looks: Grad-CAM on the last feature map of any network."""

import keras
import numpy as np
import tensorflow as tf
from keras.src.models.functional import Functional

from recipes.errors import BackboneError


def grad_cam(model: keras.Model, images, classes) -> np.ndarray:
    """Per pixel, how much the image speaks for a class by the last feature map A: relu(Σ_k α_k A_k), scaled to 0..1.

    α_k is the mean over the map's cells of ∂logit/∂A_k (Selvaraju et al. 2017). The map is enlarged bilinearly. Of
    several models that are averaged the first one is looked at, on the image itself, not its mirror image.

    model:   the classifier of a Result.
    images:  (n, height, width, 3) of 0..255 RGB.
    classes: (n,) positions of the classes that are asked for.

    Returns float32 (n, height, width); zeros where nothing speaks for the class.

    Raises: BackboneError for a network without feature maps.
    """
    images, member = tf.convert_to_tensor(images, tf.float32), _member(model)
    if member is None:
        raise BackboneError("the model has no layer 'logits'; expected the classifier of a Result")
    with tf.GradientTape() as tape:
        tape.watch(images)
        feature_map, logits = _last_map(member, images)
        if feature_map is None:
            raise BackboneError("the network has no feature map: nothing tells where in the image it looks")
        asked = tf.gather(tf.cast(logits, tf.float32), classes, batch_dims=1)
    slopes = tape.gradient(asked, feature_map)
    if slopes is None:
        raise BackboneError("the network's classes do not depend on its last feature map")
    alpha = tf.reduce_mean(tf.cast(slopes, tf.float32), (1, 2), keepdims=True)
    speaks = tf.nn.relu(tf.reduce_sum(alpha * tf.cast(feature_map, tf.float32), -1, keepdims=True))
    heat = tf.image.resize(speaks, images.shape[1:3])[..., 0]
    return tf.math.divide_no_nan(heat, tf.reduce_max(heat, (1, 2), keepdims=True)).numpy()


def _member(model: keras.Model) -> keras.Model | None:
    """Images → logits: the first such model within the classifier."""
    for layer in model.layers:
        if layer.name == "logits":
            return keras.Model(model.inputs, layer.output)
        if isinstance(layer, Functional) and (found := _member(layer)) is not None:
            return found
    return None


def _last_map(member: keras.Model, images):
    """(the last tensor (n, rows, columns, channels) of several cells that is smaller than the images, the logits), run
    operation by operation."""
    maps = []

    def spied(operation):
        def run(*args, **kwargs):
            graph = getattr(operation, "_functional", operation)  # that of a Sequential
            if isinstance(graph, Functional):
                return graph._run_through_graph(args[0], operation_fn=spied)
            found = operation(*args, **kwargs)
            if isinstance(found, tf.Tensor) and found.ndim == 4 and 1 < found.shape[1] < images.shape[1]:
                maps.append(found)
            return found

        return run

    logits = member._run_through_graph(images, operation_fn=spied)
    return (maps[-1] if maps else None), logits
