"""Build a compact residual ConvNet, which is small enough to ship with the library and to train on a CPU."""

import keras
from keras import layers

from recipes.networks.data_format import CHANNELS_LAST


def convnet(size: int = 32, widths: tuple[int, ...] = (16, 64, 104), depth: int = 1) -> keras.Model:
    """Return an untrained network from 0..255 RGB (batch, size, size, 3) to a feature map of widths[-1] channels.

    The feature map has size / 2^len(widths) rows and columns. The first layer is the preprocessing, x / 127.5 − 1,
    followed by a strided 3 × 3 convolution. Each width then has `depth` pre-activation residual blocks x +
    conv(relu(bn(conv(relu(bn(x)))))) (He et al. 2016b). Each width after the first halves the resolution in its first
    block. The default network has about 0.22 million weights.
    """
    images = keras.Input((size, size, 3), name="images")
    x = layers.Rescaling(1 / 127.5, -1.0)(images)
    x = layers.Conv2D(widths[0], 3, strides=2, padding="same", use_bias=False, data_format=CHANNELS_LAST)(x)
    for stage, width in enumerate(widths):
        for block in range(depth):
            x = residual_block(x, width, strides=2 if stage and not block else 1)
    x = layers.ReLU()(layers.BatchNormalization(momentum=0.9)(x))
    return keras.Model(images, x, name="convnet")


def residual_block(x: keras.KerasTensor, width: int, strides: int = 1) -> keras.KerasTensor:
    """Apply a pre-activation block; its shortcut is the identity, or a 1 × 1 convolution if the shape changes."""
    y = layers.ReLU()(layers.BatchNormalization(momentum=0.9)(x))
    if strides != 1 or x.shape[-1] != width:
        x = layers.Conv2D(width, 1, strides=strides, use_bias=False, data_format=CHANNELS_LAST)(y)
    y = layers.Conv2D(width, 3, strides=strides, padding="same", use_bias=False, data_format=CHANNELS_LAST)(y)
    y = layers.ReLU()(layers.BatchNormalization(momentum=0.9)(y))
    return layers.Add()([x, layers.Conv2D(width, 3, padding="same", use_bias=False, data_format=CHANNELS_LAST)(y)])
