"""Extract image embeddings: the inputs of the linear classifier at the end of a trained model."""

from typing import Any

import keras
from keras.src.ops.node import Node

from recipes.networks.stages import operation_nodes

_SAMPLE: Any = keras.ops.flip(keras.KerasTensor((1,)), 0)
_FLIP = type(_SAMPLE._keras_history.operation)  # Keras does not export this class


def features_model(model: keras.Model) -> keras.Model | None:
    """Return a model from images to embeddings (batch, channels), the input of the layer "logits" of a classifier.

    The model shares the weights of the classifier. If the classifier averages over mirror images, the embedding only
    describes the image itself. If it averages over several models, the features of all models are concatenated.

    Returns:
        The model, or None if there is no layer "logits".
    """
    tensors = _inputs_of_logits(model)
    if not tensors:
        return None
    joined = keras.layers.Concatenate(name="features_of_all")(tensors) if len(tensors) > 1 else tensors[0]
    return keras.Model(model.inputs, joined, name="features")


def _inputs_of_logits(model: keras.Model) -> list[keras.KerasTensor]:
    nodes = operation_nodes(model)
    for node in nodes:
        if isinstance(node.operation, keras.layers.Dense) and node.operation.name == "logits":
            return [node.input_tensors[0]]
    found = []
    members = [operation for operation in model.operations if isinstance(operation, keras.Model)]
    for member in sorted(members, key=_number):
        inner = _inputs_of_logits(member)
        if inner:
            images = next(node.input_tensors for node in nodes if node.operation is member and not _mirrored(node))
            outputs = keras.Model(member.inputs, inner)(images)
            found += outputs if isinstance(outputs, list | tuple) else [outputs]
    return found


def _mirrored(node: Node) -> bool:
    return any(isinstance(tensor._keras_history.operation, _FLIP) for tensor in node.input_tensors)


def _number(member: keras.Model) -> int:
    """Return the number in a name such as "member_3"."""
    return int("0" + member.name.rpartition("_")[2]) if member.name[-1:].isdecimal() else 0
