"""Where a classifier looks: Grad-CAM on the last feature map of any network."""

import keras
import numpy as np
import tensorflow as tf
from keras import ops
from keras.src.models.functional import Functional

from recipes.errors import BackboneError
from recipes.networks.compiled import fused, gradient


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
    member = _member(model)
    if member is None:
        raise BackboneError("the model has no layer 'logits'; expected the classifier of a Result")
    images, rows = ops.convert_to_tensor(images, "float32"), np.asarray(classes)[:, None]

    def looked(images):
        maps, _ = _maps(member, images)
        if not maps:
            return None
        last = len(maps) - 1

        def asked(change):
            logits = ops.cast(_maps(member, images, last, change)[1], "float32")
            return ops.sum(ops.take_along_axis(logits, rows, 1))

        return maps[last], gradient(asked, ops.zeros_like(maps[last]))

    found = (fused(looked) if keras.backend.backend() == "jax" else looked)(images)
    if found is None:
        raise BackboneError("the network has no feature map: nothing tells where in the image it looks")
    feature_map, slopes = (None if x is None else ops.convert_to_numpy(x).astype(np.float32) for x in found)
    if slopes is None:
        raise BackboneError("the network's classes do not depend on its last feature map")
    speaks = np.maximum((slopes.mean((1, 2), keepdims=True) * feature_map).sum(-1, keepdims=True), 0)
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


def _maps(member: keras.Model, images, changed: int = -1, change=None):
    """(all tensors (n, rows, columns, channels) of several cells that are smaller than the images, the logits), run
    operation by operation; to the map at position `changed` something is added."""
    maps = []

    def spied(operation):
        def run(*args, **kwargs):
            graph = getattr(operation, "_functional", operation)  # that of a Sequential
            if isinstance(graph, Functional):
                return graph._run_through_graph(args[0], operation_fn=spied)
            found = operation(*args, **kwargs)
            if ops.is_tensor(found) and len(found.shape) == 4 and 1 < found.shape[1] < images.shape[1]:
                found = found + change if len(maps) == changed else found
                maps.append(found)
            return found

        return run

    logits = member._run_through_graph(images, operation_fn=spied)
    return maps, logits
