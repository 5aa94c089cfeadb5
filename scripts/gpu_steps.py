"""What the contestants of benchmark_gpu.py share: the residual network, its arithmetic, compiled steps, the race."""

import itertools
import math
import statistics
import time

import jax
import keras
from jax import numpy as jnp


def residual_network(blocks=(3, 4, 6, 3), width=64, size=224, classes=1000) -> keras.Model:
    """ResNet-50 as keras.applications has it (version 1, stride in the first 1 × 1 convolution, biases), for uint8.

    The layers are named like the modules of torch_residual.py. It gives logits; the cast and the scaling to −1 … 1 are
    done on the device.
    """
    x = inputs = keras.Input((size, size, 3), dtype="uint8")
    x = keras.layers.Rescaling(1 / 127.5, -1, name="scale")(x)
    x = _convolution(keras.layers.ZeroPadding2D(3)(x), width, 7, 2, "valid", "", "stem")
    x = keras.layers.MaxPooling2D(3, 2)(keras.layers.ZeroPadding2D(1)(keras.layers.ReLU()(x)))
    for stage, depth in enumerate(blocks):
        for block in range(depth):
            stride = 2 if stage and not block else 1
            x = _bottleneck(x, width * 2**stage, stride, not block, f"stage{stage}_block{block}_")
    x = keras.layers.GlobalAveragePooling2D()(x)
    return keras.Model(inputs, keras.layers.Dense(classes, name="head", dtype="float32")(x))


def _bottleneck(x, width, stride, widens, name):
    shortcut = _convolution(x, 4 * width, 1, stride, "same", name, "shortcut") if widens else x
    x = keras.layers.ReLU()(_convolution(x, width, 1, stride, "same", name, "narrow"))
    x = keras.layers.ReLU()(_convolution(x, width, 3, 1, "same", name, "middle"))
    x = _convolution(x, 4 * width, 1, 1, "same", name, "wide")
    return keras.layers.ReLU()(keras.layers.Add()([shortcut, x]))


def _convolution(x, width, kernel, stride, padding, block, name):
    x = keras.layers.Conv2D(width, kernel, stride, padding, name=f"{block}{name}_convolution")(x)
    return keras.layers.BatchNormalization(epsilon=1.001e-5, name=f"{block}{name}_norm")(x)


def step_flops(model: keras.Model) -> int:
    """Floating-point operations of the convolutions and matrix products of a training step, per image.

    A multiplication and an addition are two; the forward pass, the gradient of the kernels and that of the inputs cost
    the same, but for the first layer, whose inputs need no gradient.
    """
    forward = []
    for layer in model.layers:
        if isinstance(layer, keras.layers.Conv2D | keras.layers.Dense):
            forward.append(2 * math.prod(layer.kernel.shape) * math.prod(layer.output.shape[1:-1]))
    return 3 * sum(forward) - forward[0]


def training(model: keras.Model, data: tuple):
    """Steps of `model.fit`'s own compiled function on one batch that lies on the device: steps → runs and awaits them.

    The state stays on the device between the steps, as it does inside an epoch of `fit`.
    """
    model.optimizer.build(model.trainable_variables)
    model.make_train_function()
    groups = (model.trainable_variables, model.non_trainable_variables)
    groups += (model.optimizer.variables, model.metrics_variables)
    state = tuple([jnp.copy(variable.value) for variable in group] for group in groups)
    batches = itertools.repeat((*data, None))

    def run(steps: int) -> None:
        nonlocal state
        logs = {}
        for _ in range(steps):
            logs, state = model.train_function(state, batches)
        jax.block_until_ready(state)
        if not math.isfinite(float(logs["loss"])):  # arithmetic on NaN takes other times
            raise FloatingPointError(f"the loss of {model.name} became {float(logs['loss'])}")

    return run


def repeated(function, *arguments):
    """steps → calls `function` on the same arguments that often, and awaits the last result."""

    def run(steps: int) -> None:
        for _ in range(steps):
            result = function(*arguments)
        jax.block_until_ready(result)

    return run


def race(contestants: dict, rounds: int, *, turn: float = 0.2, least: int = 1) -> dict[str, float]:
    """Name → median over the rounds of the seconds per step. All take turns, and run as many steps a turn.

    A contestant is a function of the number of steps that returns when they are done: None, or the seconds that they
    took, where it has a clock of its own. Each has been called before. turn: seconds of the slowest one's turn, about;
    least: steps of a turn at least.
    """

    def seconds(call, steps):
        began = time.perf_counter()
        own = call(steps)
        return (time.perf_counter() - began if own is None else own) / steps

    slowest = max(seconds(call, 2) for call in contestants.values())
    steps = min(200, max(least, math.ceil(turn / slowest)))
    taken = {name: [] for name in contestants}
    for _ in range(rounds):
        for name, call in contestants.items():
            taken[name].append(seconds(call, steps))
    return {name: statistics.median(values) for name, values in taken.items()}
