"""Find the stages of a network: the tensors at which its features are read."""

import math

import keras
from keras.src.ops.node import Node

from recipes.networks.data_format import CHANNELS_LAST
from recipes.networks.heads import POOL

_PADDING = keras.layers.ZeroPadding2D  # padding belongs to the convolution after it, which is in the next stage


def feature_tensors(network: keras.Model, size: int) -> list[keras.KerasTensor]:
    """Return the tensors at the ends of the stages, shallow to deep; the last tensor is the output of the network."""
    tensors = stages(network, size)
    if not any(network.outputs[0] is tensor for tensor in tensors):
        tensors.append(network.outputs[0])
    return tensors


def pooled(tensor: keras.KerasTensor, name: str = "last") -> keras.KerasTensor:
    """Return the pooled features (batch, channels) of a feature map or vector."""
    if len(tensor.shape) != 4:
        return tensor
    return keras.layers.GlobalAveragePooling2D(data_format=CHANNELS_LAST, name=POOL + name)(tensor)


def stages(model: keras.Model, size: int) -> list[keras.KerasTensor]:
    """Return the last tensor at each stride 2^k that all paths from input to output cross, shallow to deep.

    The graph is traversed in topological order. If the tensor that was just produced is the only one not yet consumed,
    every path goes through it.

    Args:
        model: A functional model.
        size: Height and width in pixels of the images for which the strides are computed.
    """
    produced, consumers = [], {}
    for node in operation_nodes(model):
        for tensor in node.input_tensors:
            consumers[id(tensor)] = consumers.get(id(tensor), 0) + 1
        produced += [(node, tensor) for tensor in node.output_tensors]
    open_tensors, found = set(), {}
    for node, tensor in produced:
        for used in node.input_tensors:
            consumers[id(used)] -= 1
            if consumers[id(used)] == 0:
                open_tensors.discard(id(used))
        open_tensors.add(id(tensor))
        if open_tensors == {id(tensor)} and len(tensor.shape) == 4 and not isinstance(node.operation, _PADDING):
            found[id(tensor)] = tensor
    crossed = list(found.values())
    shapes = keras.Model(model.inputs, crossed).compute_output_shape((1, size, size, 3))
    last = {round(math.log2(size / shape[1])): tensor for tensor, shape in zip(crossed, shapes, strict=True)}
    return [tensor for stride, tensor in sorted(last.items()) if stride >= 1]


def operation_nodes(model: keras.Model) -> list[Node]:
    """Return the operation nodes of the model, inputs before outputs."""
    return [node for depth in sorted(model._nodes_by_depth, reverse=True) for node in model._nodes_by_depth[depth]]
