"""The lecture's claims that fit a small machine, each measured on three seeds, as Markdown tables.

    python scripts/reproduce_lecture.py                              # those on scikit-learn's digits: about 15 minutes
    python scripts/reproduce_lecture.py --shared ../shared           # and those on flowers: about 40 minutes
    python scripts/reproduce_lecture.py --only dropout lbfgs --seeds 1

Every claim is a function of a seed that returns {side: {measure: value}}; it runs in a process of its own, and no
held-out image takes part in any choice. Tables show the mean over the seeds ± their standard deviation.
"""

import argparse
import contextlib
import io
import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from measurements import Recorder, add_option

CLAIMS, NEED_SHARED = {}, set()


def claim(text: str, shared: bool = False):
    """Register a claim under its function's name, the lecture's sentence beside it."""

    def register(function):
        CLAIMS[function.__name__] = (text, function)
        if shared:
            NEED_SHARED.add(function.__name__)
        return function

    return register


def digits_arrays(per_class: int, seed: int):
    """(images, labels, held-out images, labels) of 32 × 32 grey digits in 0..1."""
    from recipes.data.digits import digits

    splits = digits(per_class, seed)
    (x, y), (x_test, y_test) = ((part.images[..., :1] / 255.0, part.labels) for part in (splits.train, splits.test))
    return x.astype("float32"), y, x_test.astype("float32"), y_test


def fitted(model, x, y, *, epochs=60, rate=1e-3, batch=32, schedule=None, callbacks=()):
    import keras

    model.compile(keras.optimizers.Adam(schedule or rate), "sparse_categorical_crossentropy", metrics=["accuracy"])
    model.fit(x, y, epochs=epochs, batch_size=batch, verbose=0, callbacks=list(callbacks))
    return model


def right(probabilities, labels) -> dict:
    """The measures that every table has, in percent and nats."""
    from recipes.evaluation.metrics import score

    found = score(probabilities, labels)
    return {
        "accuracy, %": 100 * found.accuracy, "nats": found.nll, "calibration error, %": 100 * found.ece,
        "by chance, %": 100 * found.ece_floor,
    }  # fmt: skip


def small_net(pool=None, wrap=lambda dense: dense, dropout=0.0):
    """Two convolutions, two poolings, a hidden layer of 128: the lecture's kind of network, at digits' size."""
    import keras
    from keras import layers

    pool = pool or (lambda: layers.MaxPooling2D())
    net = [keras.Input((32, 32, 1))]
    for width in (16, 32):
        net += [layers.Conv2D(width, 3, padding="same", activation="relu"), pool()]
    net += [layers.Flatten(), wrap(layers.Dense(128, activation="relu")), layers.Dropout(dropout)]
    return keras.Sequential([*net, layers.Dense(10, activation="softmax")])


@claim("Dropout is an ensemble of subnetworks: averaging samples of it at test time helps a little over weight scaling")
def dropout(seed: int) -> dict:
    nets = {"no dropout": small_net(), "dropout 0.5, weight scaling": small_net(dropout=0.5)}
    return with_samples(nets, seed, "dropout 0.5, mean of 30 samples", 30)


def with_samples(nets: dict, seed: int, name: str, samples: int) -> dict:
    """The rows of a plain and a noisy network, and that of the mean over samples of the noisy one's noise."""
    from layers import monte_carlo

    x, y, x_test, y_test = digits_arrays(20, seed)
    told = {side: right(fitted(net, x, y).predict(x_test, verbose=0), y_test) for side, net in nets.items()}
    noisy = list(nets.values())[-1]
    return told | {name: right(monte_carlo(noisy, x_test, samples=samples, batch_size=256).mean, y_test)}


@claim("DropConnect, which drops weights, regularises like dropout, which drops activations")
def dropconnect(seed: int) -> dict:
    from layers import DropConnect

    x, y, x_test, y_test = digits_arrays(20, seed)
    nets = {
        "plain": small_net(),
        "dropout 0.5": small_net(dropout=0.5),
        "DropConnect 0.5": small_net(wrap=lambda dense: DropConnect(dense, 0.5, seed=seed)),
    }
    return {name: right(fitted(net, x, y).predict(x_test, verbose=0), y_test) for name, net in nets.items()}


@claim("Fractional max pooling: random regions in training, averaged at test time")
def fractional_pooling(seed: int) -> dict:
    from layers import FractionalMaxPooling2D

    fractional = small_net(pool=lambda: FractionalMaxPooling2D(2**0.5, seed=seed))
    nets = {"max pooling by 2": small_net(), "fractional, by √2": fractional}
    return with_samples(nets, seed, "fractional, mean of 12 samples", 12)


@claim("Stochastic depth trains a deep network in less time, and all of it is there at test time")
def stochastic_depth(seed: int) -> dict:
    import keras
    import numpy as np
    from benchmark_layers import residual_network

    from layers import reestimate_batch_statistics

    x, y, x_test, y_test = (np.repeat(a, 3, -1) if a.ndim == 4 else a for a in digits_arrays(20, seed))
    told = {}
    for name, last in (("54 residual blocks", 0.0), ("stochastic depth, the last branch dropped half the time", 0.5)):
        scores = residual_network(last)
        net = keras.Model(scores.inputs, keras.layers.Softmax()(scores.outputs[0]))
        fitted(net, x, y, epochs=1)  # traces
        began = time.perf_counter()
        net.fit(x, y, epochs=25, batch_size=32, verbose=0)
        spent = (time.perf_counter() - began) / 25
        reestimate_batch_statistics(net, x)  # their moving averages lag behind so few steps
        told[name] = right(net.predict(x_test, verbose=0), y_test) | {"seconds an epoch": spent}
    return told


@claim("Warm restarts (SGDR) reach in the same epochs what one cosine does; their snapshots make an ensemble for free")
def restarts(seed: int) -> dict:
    import keras
    import numpy as np

    import optimizers

    x, y, x_test, y_test = digits_arrays(20, seed)
    epochs, cycles = 60, 5
    updates = -(-len(x) // 32) * epochs
    one = fitted(small_net(), x, y, epochs=epochs, schedule=optimizers.Cosine(2e-3, updates))
    ends = []

    class Collect(keras.callbacks.Callback):
        def on_epoch_end(self, epoch, logs=None):
            if (epoch + 1) % (epochs // cycles) == 0:
                ends.append(self.model.predict(x_test, verbose=0))

    several = optimizers.CosineRestarts(2e-3, updates // cycles)
    fitted(small_net(), x, y, epochs=epochs, schedule=several, callbacks=[Collect()])
    return {
        "one cosine": right(one.predict(x_test, verbose=0), y_test),
        "restarts, the last end": right(ends[-1], y_test),
        "restarts, mean of the 5 ends": right(np.mean(ends, 0), y_test),
    }


@claim("Independent models averaged give about 2 % extra; a soup of finetuned ones costs one model")
def ensembles(seed: int) -> dict:
    import recipes
    from recipes.data.digits import digits

    splits = digits(20, seed)
    recipe = recipes.adjusted("scratch", epochs=40)
    runs = [recipes.finetune(splits.train, backbone="glyphs", recipe=recipe, seed=5 * seed + i) for i in range(5)]
    return joined(runs, splits.test)


def joined(runs, test, validation=None) -> dict:
    """The mean single run, the ensemble, and the soup of results, on the held-out part."""
    import recipes

    told = {"one model, on average": averages([right(run.probabilities(test), test.labels) for run in runs])}
    told["ensemble of 5"] = right(recipes.ensemble(runs).probabilities(test), test.labels)
    if all(run.recipe.warm_start for run in runs):
        told["soup"] = right(recipes.soup(runs, validation).probabilities(test), test.labels)
    return told


def averages(runs: list[dict]) -> dict:
    return {measure: sum(run[measure] for run in runs) / len(runs) for measure in runs[0]}


@claim("Random search finds better hyperparameters than a grid of as many trials")
def random_search(seed: int) -> dict:
    import numpy as np

    x, y, x_test, y_test = digits_arrays(20, seed)
    random = np.random.default_rng(seed)
    grid = [(rate, batch) for rate in (1e-5, 1e-3, 1e-1) for batch in (8, 32, 128)]
    drawn = [(10 ** random.uniform(-5, -1), int(2 ** random.uniform(3, 7))) for _ in grid]
    validation = random.permutation(len(x)) % 4 == 0

    def best(trials):
        nets = [fitted(small_net(), x[~validation], y[~validation], epochs=15, rate=r, batch=b) for r, b in trials]
        losses = [net.evaluate(x[validation], y[validation], verbose=0)[0] for net in nets]
        return right(nets[int(np.nanargmin(losses))].predict(x_test, verbose=0), y_test)

    return {"grid, 9 trials": best(grid), "random, 9 trials": best(drawn)}


@claim("Full-batch L-BFGS suits a deterministic problem that fits the memory; mini-batches win elsewhere")
def lbfgs(seed: int) -> dict:
    import keras

    import optimizers

    x, y, x_test, y_test = digits_arrays(20, seed)

    def side(train):
        keras.utils.set_random_seed(seed)
        net = keras.Sequential([keras.Input((32, 32, 1)), keras.layers.Flatten(), keras.layers.Dense(64, "tanh"),
                                keras.layers.Dense(10, "softmax")])  # fmt: skip
        began = time.perf_counter()
        train(net)
        spent = time.perf_counter() - began
        loss = float(keras.losses.sparse_categorical_crossentropy(y, net.predict(x, verbose=0)).numpy().mean())
        return {**right(net.predict(x_test, verbose=0), y_test), "training loss": loss, "seconds": spent}

    return {
        "L-BFGS, full batch": side(lambda net: optimizers.minimize(net, x, y, l2=1e-3, max_iterations=200)),
        "Adam, mini-batches": side(lambda net: fitted(net, x, y, epochs=100)),
    }


@claim("On flowers: 5 independent runs averaged give about 2 % extra, a soup of them costs one model", shared=True)
def flowers_averages(seed: int) -> dict:
    splits, test = flowers(seed)
    return joined([run_of(splits, 5 * seed + i) for i in range(5)], test, splits.validation)


@claim(
    "On flowers: 5 snapshots of one run cost its training time and beat its single model, a temperature repairs the "
    "confidence",
    shared=True,
)
def flowers_snapshots(seed: int) -> dict:
    splits, test = flowers(seed)
    told = {}
    for name, count in (("one model", 0), ("snapshots of one run", 5)):
        run = run_of(splits, 5 * seed, count)
        spent = {"training, s": run.seconds["training"]}
        told[name] = right(run.probabilities(test), test.labels) | spent
        run.model.get_layer("temperature").scale = 1.0
        run.model.make_predict_function(force=True)
        told[f"{name}, without temperature"] = right(run.probabilities(test), test.labels) | spent
        print(f"seed {seed}, {name}: {run.recipe}, {run.calibration}, {told}", file=sys.stderr)
    return told


BACKBONE = "MobileNetV2(alpha=0.35)"


def flowers(seed: int):
    """(160 photos a class for training and 40 to choose by, 200 to test by), as benchmark_finetune.py draws them."""
    import benchmark_finetune

    from recipes.data.images import Splits
    from recipes.data.split import stratified_split

    train, test = benchmark_finetune.dataset("flowers-200", Path(os.environ["SHARED"]))
    names = [str(i) for i in range(len(train))]
    inside, outside = stratified_split(train.labels, names, 0.2, seed=seed, class_names=train.class_names)
    return Splits(train.subset(inside), train.subset(outside)), test


def run_of(splits, seed: int, snapshots: int = 0):
    import recipes

    return recipes.finetune(splits, backbone=BACKBONE, recipe="all", seed=seed, snapshots=snapshots)


def table(name: str, runs: list[dict]) -> str:
    """Markdown: one row per side, mean ± standard deviation over the seeds."""
    import numpy as np

    measures = list(next(iter(runs[0].values())))
    lines = [f"**{CLAIMS[name][0]}** (`{name}`, {len(runs)} seeds)", "", "| | " + " | ".join(measures) + " |"]
    lines.append("|---" * (1 + len(measures)) + "|")
    for side in runs[0]:
        values = [[run[side][measure] for run in runs] for measure in measures]
        cells = [f"{np.mean(v):.3g} ± {np.std(v, ddof=len(v) > 1):.2g}" for v in values]
        lines.append(f"| {side} | " + " | ".join(cells) + " |")
    return "\n".join(lines) + "\n"


def record(rows: Recorder, name: str, runs: list[dict]) -> None:
    """Add a row for every side: its first measure, the accuracy, and the others as details."""
    import numpy as np

    for side in runs[0]:
        values = {measure: [run[side][measure] for run in runs] for measure in runs[0][side]}
        details = {measure: f"{np.mean(v):.3g} ± {np.std(v, ddof=len(v) > 1):.2g}" for measure, v in values.items()}
        accuracy = float(np.mean(values["accuracy, %"]))
        rows.add(f"{name}: {side}", accuracy, "%", details=details | {"seeds": len(runs)})


def one(name: str, seed: int) -> dict:
    """One claim in this process."""
    import keras

    keras.utils.set_random_seed(seed)
    with contextlib.redirect_stdout(io.StringIO()):
        return CLAIMS[name][1](seed)


def in_process_of_its_own(name: str, seed: int, shared: Path | None) -> dict:
    with tempfile.TemporaryDirectory() as home:
        if shared:
            shutil.copytree(shared / "weights", Path(home) / "models")
        environment = {**os.environ, "KERAS_HOME": home, "RECIPES_CACHE": home, "TF_CPP_MIN_LOG_LEVEL": "3",
                       "SHARED": str(shared or "")}  # fmt: skip
        line = [sys.executable, __file__, "--one", name, str(seed)]
        done = subprocess.run(line, env=environment, capture_output=True, text=True)
    if done.returncode:
        raise SystemExit(f"{name}, seed {seed}, failed:\n{done.stderr[-3000:]}")
    return json.loads(done.stdout.splitlines()[-1])


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--shared", type=Path, help="folder with weights/ and data/flowers: the claims on flowers too")
    parser.add_argument("--only", nargs="+", choices=list(CLAIMS))
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--one", nargs=2, help=argparse.SUPPRESS)
    add_option(parser)
    asked = parser.parse_args()
    rows = Recorder("lecture", asked.rows)
    if asked.one:
        print(json.dumps(one(asked.one[0], int(asked.one[1]))))
        return
    names = asked.only or [name for name in CLAIMS if asked.shared or name not in NEED_SHARED]
    lacking = [name for name in names if name in NEED_SHARED and not asked.shared]
    if lacking:
        raise SystemExit(f"{', '.join(lacking)} need --shared FOLDER, with weights/ and data/flowers in it")
    for name in names:
        runs = [in_process_of_its_own(name, seed, asked.shared) for seed in range(asked.seeds)]
        print(table(name, runs), flush=True)
        record(rows, name, runs)


if __name__ == "__main__":
    main()
