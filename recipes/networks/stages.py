"""A network's stages: the tensors at which its features are read."""

import keras

from recipes.networks.backbones import stages
from recipes.networks.data_format import CHANNELS_LAST
from recipes.networks.heads import POOL


def feature_tensors(network: keras.Model, size: int) -> list:
    """The tensors at the ends of the network's stages, shallow to deep; the last is what the network itself ends in."""
    tensors = stages(network, size)
    if not any(network.outputs[0] is tensor for tensor in tensors):
        tensors.append(network.outputs[0])
    return tensors


def pooled(tensor, name: str = "last"):
    """(batch, channels) of a feature map or vector."""
    if len(tensor.shape) != 4:
        return tensor
    return keras.layers.GlobalAveragePooling2D(data_format=CHANNELS_LAST, name=POOL + name)(tensor)
