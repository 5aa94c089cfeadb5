"""What each of our layers and optimizers costs on a GPU: contests of benchmark_gpu.py, each against its counterpart."""

from collections.abc import Callable
from dataclasses import dataclass
from functools import cache, partial

import jax
import keras
import numpy as np
from gpu_steps import residual_network, training
from jax import numpy as jnp

import layers
import optimizers

RANDOM = np.random.default_rng(0)


@dataclass(frozen=True)
class Contest:
    """`makers`: name → function that makes a contestant; the first one is what the others are measured against."""

    title: str
    makers: dict[str, Callable]
    least: int = 1
    """Steps of a turn at least, where they differ by chance."""


@dataclass(frozen=True)
class Sizes:
    dense: int = 4096
    """Units of a dense layer, and examples that it is given."""
    one_by_one: int = 256
    """Examples of DropConnect per example, which takes them one after the other, through a quarter of the units."""
    images: int = 256
    side: int = 56
    channels: int = 64
    depth: int = 8
    blocks: tuple = (3, 4, 6, 3)
    width: int = 64


TINY = Sizes(dense=16, one_by_one=2, images=2, side=8, channels=4, depth=2, blocks=(1,), width=4)


def layer_contests(sizes: Sizes) -> list[Contest]:
    wide, narrow = sizes.dense, sizes.dense // 4
    return [
        Contest(
            f"{sizes.depth} residual blocks of {sizes.channels} channels, {sizes.images} images of {sizes.side} px",
            {
                "no noise": partial(_residual, sizes, lambda branch, rate: _added(branch)),
                "StochasticDepth, rates up to 0.5": partial(
                    _residual, sizes, lambda branch, rate: _added(branch, layers.StochasticDepth(rate))
                ),
                "StochasticResidual, rates up to 0.5": partial(
                    _residual, sizes, lambda branch, rate: layers.StochasticResidual(branch, rate)
                ),
            },
            least=50,
        ),
        Contest(
            f"Dense {wide} → {wide}, {wide} examples",
            {
                "Dense": partial(_dense, wide, wide, lambda dense: dense),
                "DropConnect": partial(_dense, wide, wide, lambda dense: layers.DropConnect(dense, 0.5)),
            },
        ),
        Contest(
            f"Conv2D, then a pool to fewer pixels, {sizes.images} images of {sizes.side} px",
            {
                "MaxPooling2D(2)": partial(_pooled, sizes, keras.layers.MaxPooling2D),
                "FractionalMaxPooling2D": partial(_pooled, sizes, layers.FractionalMaxPooling2D),
                "FractionalMaxPooling2D, disjoint": partial(
                    _pooled, sizes, lambda: layers.FractionalMaxPooling2D(overlapping=False)
                ),
                "FractionalMaxPooling2D, random": partial(
                    _pooled, sizes, lambda: layers.FractionalMaxPooling2D(mode="random")
                ),
            },
        ),
        Contest(
            f"3 × 3 convolution to {2 * sizes.channels} channels, {sizes.images} images of {sizes.side} px",
            {
                "Conv2D, ReLU": partial(_convolved, sizes, partial(_convolution, 2 * sizes.channels)),
                "Maxout of 2 pieces": partial(
                    _convolved,
                    sizes,
                    lambda: layers.Maxout(sizes.channels, 2, kernel_size=(3, 3), padding="same"),
                ),
                "DropConnect around Conv2D": partial(
                    _convolved, sizes, lambda: layers.DropConnect(_convolution(2 * sizes.channels), 0.5)
                ),
            },
        ),
        Contest(
            f"Dense {narrow} → {narrow}, {sizes.one_by_one} examples",
            {
                "Dense": partial(_dense, narrow, sizes.one_by_one, lambda dense: dense),
                "DropConnect per example": partial(
                    _dense, narrow, sizes.one_by_one, lambda dense: layers.DropConnect(dense, 0.5, per_example=True)
                ),
            },
        ),
    ]


def optimizer_contests(sizes: Sizes) -> list[Contest]:
    ours, theirs = optimizers, keras.optimizers
    pairs = {
        "Adam": (lambda _: theirs.Adam(1e-6), lambda _: ours.Adam(1e-6)),
        "Adam with decay": (
            lambda _: theirs.AdamW(1e-6, weight_decay=1e-4), lambda _: ours.Adam(1e-6, weight_decay=1e-4)
        ),
        "Momentum": (lambda _: theirs.SGD(1e-6, 0.9), lambda _: ours.Momentum(1e-6)),
        "Nesterov": (lambda _: theirs.SGD(1e-6, 0.9, nesterov=True), lambda _: ours.Nesterov(1e-6)),
        "RMSProp": (lambda _: theirs.RMSprop(1e-6), lambda _: ours.RMSProp(1e-6)),
        "AdaGrad": (lambda _: theirs.Adagrad(1e-6), lambda _: ours.AdaGrad(1e-6)),
    }  # fmt: skip
    update, step = partial(_update, sizes), partial(_optimized, sizes)
    contests = [
        Contest(f"update of ResNet-50's variables, {name}", {"Keras": partial(update, k), name: partial(update, o)})
        for name, (k, o) in pairs.items()
    ]
    contests[1:1] = [
        Contest("update of ResNet-50's variables, learning rates by depth",
                {"Adam": partial(update, pairs["Adam"][1]), "Discriminative(Adam)": partial(update, _by_depth)}),
        Contest(f"training step of {sizes.depth} residual blocks",
                {"Adam": partial(step, lambda model: None),
                 "PolyakAveraging": partial(step, lambda model: optimizers.PolyakAveraging().set_model(model)),
                 "UniformAveraging": partial(step, lambda model: optimizers.UniformAveraging(0).set_model(model)),
                 "sharpness_aware": partial(step, optimizers.sharpness_aware)}),
    ]  # fmt: skip
    return contests


def _by_depth(model):
    return optimizers.Discriminative(optimizers.Adam(1e-6), optimizers.layerwise_decay(model, 0.5))


def _trained(model, *shape, optimizer=None, change=None):
    """Training steps of `model` on `shape` random numbers, towards random targets."""
    model.compile(optimizer or keras.optimizers.SGD(1e-4), "mse")
    if change:
        change(model)
    x = jnp.asarray(RANDOM.normal(size=shape), "bfloat16")
    run = training(model, (x, jnp.asarray(RANDOM.normal(size=(shape[0], *model.output_shape[1:])), "float32")))
    run(1)
    return run


def _dense(units, examples, wrap):
    dense = wrap(keras.layers.Dense(units, activation="relu"))
    return _trained(keras.Sequential([keras.Input((units,)), dense]), examples, units)


def _convolution(channels):
    return keras.layers.Conv2D(channels, 3, padding="same", activation="relu")


def _blocks(sizes, join):
    x = inputs = keras.Input((sizes.side, sizes.side, sizes.channels))
    for rate in layers.linear_rates(sizes.depth, 0.5):
        parts = [keras.layers.Conv2D(sizes.channels, 3, padding="same"), keras.layers.BatchNormalization()]
        x = join(keras.Sequential([*parts, keras.layers.ReLU()]), rate)(x)
    return keras.Model(inputs, keras.layers.GlobalAveragePooling2D(dtype="float32")(x))


def _added(branch, noise=lambda x: x):
    return lambda x: keras.layers.Add()([x, noise(branch(x))])


def _shape(sizes):
    return sizes.images, sizes.side, sizes.side, sizes.channels


def _residual(sizes, join):
    return _trained(_blocks(sizes, join), *_shape(sizes))


def _optimized(sizes, change):
    model = _blocks(sizes, lambda branch, rate: _added(branch))
    return _trained(model, *_shape(sizes), optimizer=optimizers.Adam(1e-5), change=change)


def _pooled(sizes, pool):
    parts = [_convolution(sizes.channels), pool(), keras.layers.GlobalAveragePooling2D(dtype="float32")]
    return _trained(keras.Sequential([keras.Input(_shape(sizes)[1:]), *parts]), *_shape(sizes))


def _convolved(sizes, layer):
    parts = [layer(), keras.layers.GlobalAveragePooling2D(dtype="float32")]
    return _trained(keras.Sequential([keras.Input(_shape(sizes)[1:]), *parts]), *_shape(sizes))


@cache
def _network_and_gradients(sizes):
    model = residual_network(sizes.blocks, sizes.width, 224, 1000 if sizes.width == 64 else 4)
    return model, [jnp.asarray(1e-3 * RANDOM.normal(size=v.shape), "float32") for v in model.trainable_variables]


def _update(sizes, make):
    """Updates of all of the network's variables by fixed gradients."""
    model, gradients = _network_and_gradients(sizes)
    optimizer = make(model)
    optimizer.build(model.trainable_variables)
    weights, slots = ([jnp.copy(v.value) for v in vs] for vs in (model.trainable_variables, optimizer.variables))
    compiled = jax.jit(lambda w, slots, g: optimizer.stateless_apply(slots, g, w), donate_argnums=(0, 1))

    def run(steps: int) -> None:
        nonlocal weights, slots
        for _ in range(steps):
            weights, slots = compiled(weights, slots, gradients)
        jax.block_until_ready(weights)

    run(1)
    return run
