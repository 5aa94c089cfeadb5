"""Compute Grad-CAM on the last feature map of any network: where the classifier finds evidence for a class."""

from collections.abc import Callable, Sequence
from typing import Any

import keras
import numpy as np
import tensorflow as tf
from keras import ops
from keras.src.models.functional import Functional

from recipes.errors import BackboneError
from recipes.networks.compiled import fused, gradient


def grad_cam(model: keras.Model, images: np.ndarray, classes: Sequence[int] | np.ndarray) -> np.ndarray:
    """Return the evidence for a class at each pixel, by Grad-CAM: relu(Σ_k α_k A_k), scaled to 0..1.

    A is the last feature map, and α_k is the mean over its cells of ∂logit/∂A_k (Selvaraju et al. 2017). The result is
    enlarged bilinearly. For an average of several models, the first model is used, on the image and not on its mirror
    image.

    Args:
        model: The classifier of a Result.
        images: (n, height, width, 3) of 0..255 RGB.
        classes: Position of a class for each image, (n,).

    Returns:
        Evidence as float32 (n, height, width); 0 means no evidence for the class.

    Raises:
        BackboneError: If the network has no feature maps.
    """
    member = _member(model)
    if member is None:
        raise BackboneError(
            "the model has no layer 'logits'; expected the classifier of a Result", code="backbone.no_logits"
        )
    tensor: Any = ops.convert_to_tensor(images, "float32")
    rows = np.asarray(classes)[:, None]

    def map_and_gradient(images: Any) -> tuple[Any, Any] | None:
        maps, _ = _maps(member, images)
        if not maps:
            return None
        last = len(maps) - 1

        def score(change: Any) -> Any:
            logits = ops.cast(_maps(member, images, last, change)[1], "float32")
            return ops.sum(ops.take_along_axis(logits, rows, 1))

        return maps[last], gradient(score, ops.zeros_like(maps[last]))

    found = (fused(map_and_gradient) if keras.backend.backend() == "jax" else map_and_gradient)(tensor)
    if found is None:
        raise BackboneError(
            "the network has no feature map, which Grad-CAM needs; use a network with convolutions",
            code="backbone.no_feature_map",
        )
    if found[1] is None:
        raise BackboneError(
            "the outputs of the network do not depend on its last feature map, so Grad-CAM cannot be computed",
            code="backbone.no_gradient",
        )
    feature_map, slopes = (np.asarray(ops.convert_to_numpy(x)).astype(np.float32) for x in found)
    evidence = np.maximum((slopes.mean((1, 2), keepdims=True) * feature_map).sum(-1, keepdims=True), 0)
    heat: Any = tf.image.resize(evidence, tensor.shape[1:3])
    heat = heat[..., 0]
    return tf.math.divide_no_nan(heat, tf.reduce_max(heat, (1, 2), keepdims=True)).numpy()


def _member(model: keras.Model) -> keras.Model | None:
    """Return the first model from images to logits within the classifier."""
    for layer in model.layers:
        if layer.name == "logits":
            return keras.Model(model.inputs, layer.output)
        if isinstance(layer, Functional) and (found := _member(layer)) is not None:
            return found
    return None


def _maps(member: keras.Model, images: Any, changed: int = -1, change: Any = None) -> tuple[list, Any]:
    """Return the logits, and all feature maps that are smaller than the images but have several cells.

    The operations of the graph are run one by one; `change` is added to the feature map at position `changed`.
    """
    maps = []

    def recorded(operation: Callable) -> Callable:
        def run(*args: Any, **kwargs: Any) -> Any:
            graph = getattr(operation, "_functional", operation)  # the functional model of a Sequential
            if isinstance(graph, Functional):
                return graph._run_through_graph(args[0], operation_fn=recorded)
            found = operation(*args, **kwargs)
            if ops.is_tensor(found) and len(found.shape) == 4 and 1 < found.shape[1] < images.shape[1]:
                found = found + change if len(maps) == changed else found
                maps.append(found)
            return found

        return run

    logits = member._run_through_graph(images, operation_fn=recorded)
    return maps, logits
