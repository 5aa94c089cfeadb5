"""What every public layer must satisfy, on every backend; `test_layer_contracts` checks it."""

from collections.abc import Callable
from dataclasses import dataclass

import keras

import layers


@dataclass(frozen=True)
class Contract:
    """How to make a layer, `make(rate=…, seed=…)`, of which one without noise ignores both, and what it takes."""

    make: Callable
    shape: tuple
    random: bool = True
    has_rate: bool = True
    exact_mean: bool = True  # the mean of training outputs is the inference output


def branch():
    return keras.Sequential([keras.layers.Conv2D(3, 3, padding="same"), keras.layers.BatchNormalization()])


@keras.saving.register_keras_serializable(package="tests")
class Composite(keras.layers.Layer):
    """A layer of layers without `build`, as users write them."""

    def __init__(self, **kwargs):
        super().__init__(**kwargs)
        self.first, self.second = keras.layers.Dense(4, activation="relu"), keras.layers.Dense(6)

    def call(self, inputs):
        return self.second(self.first(inputs))


def drop_connect(make_layer, **options):
    return lambda rate=0.4, seed=1: layers.DropConnect(make_layer(), rate, seed=seed, **options)


def fractional(**options):
    return lambda rate=0.4, seed=1: layers.FractionalMaxPooling2D(1.44, seed=seed, **options)


CONTRACTS = {
    "DropConnect": Contract(drop_connect(lambda: keras.layers.Dense(4)), (6,)),
    "DropConnect per example": Contract(drop_connect(lambda: keras.layers.Dense(4), per_example=True), (6,)),
    "DropConnect per example, tokens": Contract(
        drop_connect(lambda: keras.layers.Dense(4), per_example=True, drop_bias=True), (3, 6)
    ),
    "DropConnect with biases": Contract(
        drop_connect(lambda: keras.layers.Dense(4, bias_initializer="ones"), drop_bias=True), (6,)
    ),
    "DropConnect gaussian": Contract(
        drop_connect(lambda: keras.layers.Dense(4, activation="relu"), inference="gaussian"), (6,), exact_mean=False
    ),
    "DropConnect Conv1D": Contract(drop_connect(lambda: keras.layers.Conv1D(4, 3)), (7, 3)),
    "DropConnect Conv2D": Contract(drop_connect(lambda: keras.layers.Conv2D(4, 3)), (7, 7, 3)),
    "DropConnect Conv3D": Contract(drop_connect(lambda: keras.layers.Conv3D(2, 2)), (4, 4, 4, 2)),
    "DropConnect DepthwiseConv2D": Contract(drop_connect(lambda: keras.layers.DepthwiseConv2D(3)), (7, 7, 3)),
    "DropConnect EinsumDense": Contract(drop_connect(lambda: keras.layers.EinsumDense("abc,cd->abd", (3, 4))), (3, 6)),
    "DropConnect SeparableConv2D": Contract(
        drop_connect(lambda: keras.layers.SeparableConv2D(4, 3)), (7, 7, 3), exact_mean=False
    ),
    "DropConnect LSTM": Contract(  # TensorFlow has no orthogonal matrices in bfloat16
        drop_connect(lambda: keras.layers.LSTM(4, recurrent_initializer="normal")), (5, 3), exact_mean=False
    ),
    "DropConnect composite": Contract(drop_connect(Composite), (6,), exact_mean=False),
    "StochasticDepth": Contract(lambda rate=0.4, seed=1: layers.StochasticDepth(rate, seed=seed), (5, 3)),
    "StochasticDepth per batch": Contract(
        lambda rate=0.4, seed=1: layers.StochasticDepth(rate, per_example=False, seed=seed), (5, 3)
    ),
    "StochasticResidual": Contract(
        lambda rate=0.4, seed=1: layers.StochasticResidual(keras.layers.Dense(6), rate, seed=seed), (6,)
    ),
    "StochasticResidual composite": Contract(
        lambda rate=0.4, seed=1: layers.StochasticResidual(Composite(), rate, seed=seed), (6,)
    ),
    "StochasticResidual with statistics": Contract(
        lambda rate=0.4, seed=1: layers.StochasticResidual(branch(), rate, seed=seed), (5, 5, 3), exact_mean=False
    ),
    "FractionalMaxPooling2D": Contract(fractional(), (13, 10, 3), has_rate=False, exact_mean=False),
    "FractionalMaxPooling2D random": Contract(
        fractional(mode="random", overlapping=False), (13, 10, 3), has_rate=False, exact_mean=False
    ),
    "Maxout": Contract(lambda rate=0, seed=1: layers.Maxout(4, 3), (6,), random=False, has_rate=False),
    "Maxout convolution": Contract(
        lambda rate=0, seed=1: layers.Maxout(4, 2, kernel_size=(3, 3), padding="same"),
        (7, 7, 3),
        random=False,
        has_rate=False,
    ),
}
