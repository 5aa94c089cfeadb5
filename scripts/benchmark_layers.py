"""Time one training step with and without each noise layer; print the ratios.

python scripts/benchmark_layers.py [per_example | drop_connect | residual | pooling | small] [--jit]
KERAS_BACKEND chooses the backend. Plain and noisy steps alternate, so that other load on the machine hits both;
a ratio is that of medians (of means for StochasticResidual, whose steps differ by how many blocks they drop).
"""

import argparse
import resource
import statistics
import sys
import time
from pathlib import Path

import keras
import numpy as np
from measurements import Recorder, add_option

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
import layers

RNG = np.random.default_rng(0)


def trainer(model, x, y, jit):
    """A function that takes one SGD step on (x, y), compiled and warmed up."""
    model.compile(keras.optimizers.SGD(1e-3), "mse", jit_compile=jit)
    data = keras.ops.convert_to_tensor(x), keras.ops.convert_to_tensor(y)
    for _ in range(3):
        model.train_on_batch(*data)
    return lambda: model.train_on_batch(*data)


def race(contenders, rounds, summary=statistics.median):
    """Seconds per call of each contender, called in turn."""
    seconds = {name: [] for name in contenders}
    for _ in range(rounds):
        for name, call in contenders.items():
            start = time.perf_counter()
            call()
            seconds[name].append(time.perf_counter() - start)
    return {name: summary(values) for name, values in seconds.items()}


def report(rows, title, seconds, plain, targets=None, limits=None):
    """Print and record every contender. `targets`, `limits`: name → the most that its ratio may be, and can be."""
    for name, value in seconds.items():
        print(f"{title:28s} {name:28s} {value * 1e3:9.2f} ms  ratio {value / seconds[plain]:.2f}", flush=True)
        if name != plain:
            bounds = {"at_most": (targets or {}).get(name), "limit": (limits or {}).get(name)}
            details = {f"{name}, ms": 1e3 * value, f"{plain}, ms": 1e3 * seconds[plain]}
            rows.add(f"{title}: {name} / {plain}", value / seconds[plain], "×", details=details, **bounds)


def dense_model(wrap):
    return keras.Sequential([keras.Input((1024,)), wrap(keras.layers.Dense(1024, activation="relu"))])


def drop_connect(rows, jit):
    x, y = RNG.normal(size=(2, 256, 1024)).astype("float32")
    wraps = {
        "Dense": lambda dense: dense,
        "DropConnect per batch": lambda dense: layers.DropConnect(dense, 0.5),
    }
    steps = {name: trainer(dense_model(wrap), x, y, jit) for name, wrap in wraps.items()}
    seconds, name = race(steps, 60), "DropConnect per batch"
    report(rows, "Dense 1024→1024, batch 256", seconds, "Dense", {name: 1.5}, {name: 1.0})


def per_example(rows, jit):
    x, y = RNG.normal(size=(2, 256, 1024)).astype("float32")
    steps = {"Dense": trainer(dense_model(lambda dense: dense), x, y, jit)}
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    wrapped = dense_model(lambda dense: layers.DropConnect(dense, 0.5, per_example=True))
    steps["DropConnect per example"] = trainer(wrapped, x, y, jit)
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    report(rows, "Dense 1024→1024, batch 256", race(steps, 5), "Dense")
    print(f"peak memory of the process grew by {(peak - before) / 1024:.0f} MiB; 256 masks would be 1024 MiB")
    details = {"256 masks at once, MiB": 1024}
    rows.add("DropConnect per example: memory beyond Dense", (peak - before) / 1024, "MiB", details=details)


def block(width):
    conv = [keras.layers.Conv2D(width, 3, padding="same", use_bias=False) for _ in range(2)]
    norm = [keras.layers.BatchNormalization() for _ in range(2)]
    return keras.Sequential([conv[0], norm[0], keras.layers.ReLU(), conv[1], norm[1]])


def residual_network(last, depth=54, size=32):
    """ResNet-110 of the paper: 54 residual blocks of 16, 32 and 64 channels."""
    x = inputs = keras.Input((size, size, 3))
    for number, rate in enumerate(layers.linear_rates(depth, last)):
        if number % (depth // 3) == 0:
            width = 16 * 2 ** (number // (depth // 3))
            x = keras.layers.Conv2D(width, 3, strides=1 if number == 0 else 2, padding="same")(x)
        branch = block(width)
        x = layers.StochasticResidual(branch, rate)(x) if last else keras.layers.Add()([x, branch(x)])
    x = keras.layers.GlobalAveragePooling2D()(x)
    return keras.Model(inputs, keras.layers.Dense(10)(x))


def residual(rows, jit):
    x, y = RNG.normal(size=(64, 32, 32, 3)).astype("float32"), RNG.normal(size=(64, 10)).astype("float32")
    steps = {
        "54 residual blocks": trainer(residual_network(0.0), x, y, jit),
        "StochasticResidual p_L = 0.5": trainer(residual_network(0.5), x, y, jit),
    }
    seconds, name = race(steps, 30, statistics.mean), "StochasticResidual p_L = 0.5"
    report(rows, "ResNet-110, batch 64", seconds, "54 residual blocks", {name: 0.8}, {name: 0.75})


def pooling(rows, jit):
    import tensorflow as tf

    images = tf.constant(RNG.normal(size=(32, 64, 64, 32)).astype("float32"))
    for overlapping in (False, True):
        layer = layers.FractionalMaxPooling2D(1.44, overlapping=overlapping)

        def theirs(x, overlapping=overlapping):
            return tf.nn.fractional_max_pool(x, [1, 1.44, 1.44, 1], pseudo_random=True, overlapping=overlapping)[0]

        def ours(x, layer=layer):
            return layer(x, training=True)

        def with_gradient(pool):
            def step(x):
                with tf.GradientTape() as tape:
                    tape.watch(x)
                    y = tf.reduce_sum(tf.square(pool(x)))
                return tape.gradient(y, x)

            return step

        title = "overlapping" if overlapping else "disjoint"
        for kind, of in (("forward", lambda pool: pool), ("forward + gradient", with_gradient)):
            calls = {"tf.nn": tf.function(of(theirs)), "layers": tf.function(of(ours), jit_compile=jit)}
            for call in calls.values():
                call(images)
            race_calls = {name: (lambda call=call: call(images).numpy()) for name, call in calls.items()}
            report(rows, f"pool {title} {kind}", race(race_calls, 20), "tf.nn", {"layers": 0.9})


def small(rows, jit):
    """The other layers in a small convolutional network."""
    x, y = RNG.normal(size=(64, 32, 32, 3)).astype("float32"), RNG.normal(size=(64, 10)).astype("float32")

    def network(before=None, pool=None, activation=None):
        hidden = keras.layers.Conv2D(32, 3, padding="same", activation="relu")
        parts = [keras.Input((32, 32, 3)), activation or hidden, before, pool or keras.layers.MaxPooling2D()]
        parts += [keras.layers.Conv2D(32, 3, activation="relu"), keras.layers.GlobalAveragePooling2D()]
        return keras.Sequential([part for part in [*parts, keras.layers.Dense(10)] if part is not None])

    networks = {
        "plain": network(),
        "StochasticDepth": network(before=layers.StochasticDepth(0.2)),
        "FractionalMaxPooling2D": network(pool=layers.FractionalMaxPooling2D()),
        "Maxout 2 pieces": network(activation=layers.Maxout(32, 2, kernel_size=(3, 3), padding="same")),
        "DropConnect convolution": network(
            activation=layers.DropConnect(keras.layers.Conv2D(32, 3, padding="same", activation="relu"), 0.2)
        ),
    }
    report(rows, "small network", race({name: trainer(m, x, y, jit) for name, m in networks.items()}, 30), "plain")


def main(arguments=None):
    parts = {f.__name__: f for f in (per_example, drop_connect, residual, pooling, small)}
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("part", nargs="*", help=f"of {', '.join(parts)}; by default all")
    parser.add_argument("--jit", action="store_true", help="compile with XLA")
    add_option(parser)
    arguments = parser.parse_args(arguments)
    variant = ["XLA"] * arguments.jit + [keras.backend.backend()] * (keras.backend.backend() != "tensorflow")
    rows = Recorder("layers", arguments.rows, ", ".join(variant))
    if unknown := set(arguments.part) - set(parts):
        parser.error(f"unknown parts {sorted(unknown)}; there are {', '.join(parts)}")
    print(f"keras {keras.__version__}, {keras.backend.backend()}, jit {arguments.jit}")
    for name, part in parts.items():  # per_example first: peak memory only ever grows
        if name in arguments.part or not arguments.part:
            part(rows, arguments.jit)


if __name__ == "__main__":
    main()
