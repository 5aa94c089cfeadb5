"""`recipes.finetune` with its defaults against the recipe of the Keras transfer-learning guide.

    python scripts/benchmark_finetune.py ../shared                   # 5 datasets × 3 seeds × 2 sides, about 45 minutes
    python scripts/benchmark_finetune.py ../shared --only flowers-20 --seeds 1
    python scripts/benchmark_finetune.py ../shared --regret          # probe, few and all alone: was the plan right?
    python scripts/benchmark_finetune.py ../shared --probe           # recipes.probe against the guide's frozen phase
    python scripts/benchmark_finetune.py ../shared --memory          # peak memory while streaming 50,000 JPEGs

`../shared` is any folder with weights/ (MobileNetV2, alpha 0.35) and data/ (hymenoptera, flowers). Both sides start
from those ImageNet weights, train on the same images and are scored on the same held-out images, each run in a fresh
process of its own, alternating, nothing cached; seconds count from the first look at the data to the trained model,
imports excluded.

The guide (keras.io/guides/transfer_learning): frozen base, Dropout 0.2, Dense, Adam 1e-3 for 20 epochs with RandomFlip
and RandomRotation(0.1); then everything at Adam 1e-5 for 10 epochs, the base called with training=False. Images are
decoded and resized once and kept in memory; the guide's time includes neither that nor its validation after each epoch.
The better of its two phases counts, by held-out accuracy, which favours it. The accuracy of `recipes.probe` is that of
its best row, cross-validated within the training images.
"""

import argparse
import contextlib
import io
import json
import os
import platform
import resource
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from measurements import Recorder, add_option

DATASETS = {"hymenoptera": 224, "flowers-200": 128, "flowers-20": 128, "digits-20": 96, "digits-100": 96}
MADE = {"textures-60": 96, "signs-60": 96, "tiny-100": 96}  # see made_datasets.py; for --regret
SIDES = ["guide", "auto", "probe", "few", "all", "guide, frozen", "recipes.probe"]
PHASES = ((1e-3, 20), (1e-5, 10))  # of the guide: learning rate, epochs
BACKBONE = "MobileNetV2(alpha=0.35)"
TITLES = {"auto": "recipes.finetune", "guide": "the guide", "guide, frozen": "the guide's frozen phase"}
ACCURACY = {
    "hymenoptera": 93.0,
    "flowers-200": 75.0,
}  # targets: per cent; points more than the guide; share of the guide's time
GAIN = {"hymenoptera": 0.0, "flowers-20": 5.0, "digits-20": 8.0, "digits-100": 8.0}
TIME = {"hymenoptera": 0.5, "flowers-20": 0.25, "flowers-200": 1.0}


def dataset(name: str, shared: Path):
    """(training ImageData, held-out ImageData); what is drawn at random is drawn with seed 0."""
    import made_datasets
    import numpy as np

    from recipes.data import digits, sources

    made = {"textures": made_datasets.textures, "signs": made_datasets.signs}
    kind = name.split("-")[0]
    if kind in made:
        return made[kind](int(name.split("-")[1]), 0), made[kind](100, 1)
    if name == "hymenoptera":
        splits = sources.load(shared / "data" / "hymenoptera")
        return splits.train, splits.validation
    per_class = int(name.split("-")[1])
    if name.startswith("digits"):
        splits = digits.digits(per_class)
        return splits.train, splits.test
    data = sources.load(shared / "data" / "flowers").train
    random = np.random.default_rng(0)
    order = [random.permutation(np.flatnonzero(data.labels == c)) for c in range(len(data.class_names))]
    held_out = np.concatenate([rows[:200] for rows in order])
    parts = data.subset(np.concatenate([rows[200 : 200 + per_class] for rows in order])), data.subset(held_out)
    return tuple(map(made_datasets.shrunk, parts)) if kind == "tiny" else parts


def pixels(data, size: int):
    """uint8 (n, size, size, 3), resized as keras.utils.image_dataset_from_directory does."""
    import numpy as np
    import tensorflow as tf

    import augment

    images = data.images if data.in_memory_pixels else [augment.decode(data.encoded(i)) for i in range(len(data))]
    return np.stack([tf.image.resize(image, (size, size)).numpy().astype("uint8") for image in images])


def guide(train, held_out, size: int, seed: int, phases=PHASES) -> dict:
    """The guide's phases: held-out accuracy and seconds after each."""
    import keras
    import tensorflow as tf
    from keras import layers

    keras.utils.set_random_seed(seed)
    began = time.perf_counter()
    batches = tf.data.Dataset.from_tensor_slices((pixels(train, size), train.labels)).cache()
    batches = batches.shuffle(len(train)).batch(32).prefetch(10)
    base = keras.applications.MobileNetV2(alpha=0.35, include_top=False, input_shape=(224, 224, 3))
    base = keras.models.clone_model(base, input_tensors=keras.Input((size, size, 3))) if size != 224 else base
    source = keras.applications.MobileNetV2(alpha=0.35, include_top=False, input_shape=(224, 224, 3))
    base.set_weights(source.get_weights())
    base.trainable = False
    inputs = keras.Input((size, size, 3))
    x = layers.RandomRotation(0.1)(layers.RandomFlip("horizontal")(inputs))
    x = base(layers.Rescaling(1 / 127.5, offset=-1)(x), training=False)
    x = layers.Dropout(0.2)(layers.GlobalAveragePooling2D()(x))
    model = keras.Model(inputs, layers.Dense(len(train.class_names))(x))
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    spent, found, asked = 0.0, [], pixels(held_out, size)
    began += time.perf_counter() - began  # decoding of both sides of the split is not training
    for rate, epochs in phases:
        base.trainable = rate == 1e-5
        began = time.perf_counter()
        model.compile(keras.optimizers.Adam(rate), loss, metrics=["accuracy"])
        model.fit(batches, epochs=epochs, verbose=0)
        spent += time.perf_counter() - began
        right = model.predict(asked, verbose=0).argmax(1) == held_out.labels
        found.append({"accuracy": float(right.mean()), "seconds": spent})
    return {"phases": found, **max(found, key=lambda phase: phase["accuracy"]), "seconds": spent}


def ours(train, held_out, size: int, seed: int, recipe: str) -> dict:
    """`recipes.finetune`: held-out accuracy, seconds, what was planned."""
    import recipes
    from recipes.data.images import Splits

    began = time.perf_counter()
    told = io.StringIO()
    validation = held_out if size == 224 else None  # hymenoptera's own split
    with contextlib.redirect_stdout(told):
        result = recipes.finetune(Splits(train, validation), backbone=BACKBONE, recipe=recipe, seed=seed)
    spent = time.perf_counter() - began
    found = result.evaluate(held_out)
    return {
        "accuracy": found.accuracy, "interval": found.interval, "seconds": spent, "recipe": result.recipe.name,
        "size": result.recipe.size, "reasons": result.recipe.reasons, "phases": result.seconds,
        "validation": result.validation.accuracy, "ledger": [str(gain) for gain in result.ledger],
    }  # fmt: skip


def measured(train, seed: int) -> dict:
    """`recipes.probe`: seconds, and the cross-validated accuracy of its best row."""
    import recipes

    began = time.perf_counter()
    with contextlib.redirect_stdout(io.StringIO()):
        head = recipes.probe(train, backbone=BACKBONE, seed=seed).head
    return {"seconds": time.perf_counter() - began, "accuracy": head.accuracy, "interval": head.interval}


def one(name: str, side: str, seed: int, shared: Path) -> dict:
    """One run in this process."""
    if name == "memory":
        told = stream(int(side))
        return {**told, "peak_gib": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20}
    train, held_out = dataset(name, shared)
    size = {**DATASETS, **MADE}[name]
    if side.startswith("guide"):
        told = guide(train, held_out, size, seed, PHASES[:1] if "frozen" in side else PHASES)
    else:
        told = measured(train, seed) if side == "recipes.probe" else ours(train, held_out, size, seed, side)
    return {**told, "n": len(held_out), "peak_gib": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20}


def in_process_of_its_own(name: str, side: str, seed: int, shared: Path) -> dict:
    """`one` in a fresh process whose KERAS_HOME holds the weights."""
    with tempfile.TemporaryDirectory() as home:
        (Path(home) / "models").mkdir()
        for file in (shared / "weights").glob("*.h5"):
            shutil.copy(file, Path(home) / "models")
        environment = {**os.environ, "KERAS_HOME": home, "RECIPES_CACHE": home, "TF_CPP_MIN_LOG_LEVEL": "3"}
        line = [sys.executable, __file__, str(shared), "--one", name, side, str(seed)]
        done = subprocess.run(line, env=environment, capture_output=True, text=True)
    if done.returncode:
        raise SystemExit(f"{name} {side} seed {seed} failed:\n{done.stderr[-3000:]}")
    return json.loads(done.stdout.splitlines()[-1])


def compare(names, sides, seeds: int, shared: Path, rows: Recorder) -> None:
    """Every run's line as it ends, then a table: mean accuracy, its 95 % interval, median seconds, against the first
    side."""
    from rich.console import Console
    from rich.table import Table

    table = Table("dataset", "side", "accuracy", "95 % interval", "seconds", "gain, points", "time ratio", "GiB",
                  title=f"{seeds} seeds; {machine()}")  # fmt: skip
    for name in names:
        told = {side: [] for side in sides}
        for seed in range(seeds):
            for side in sides:
                run = in_process_of_its_own(name, side, seed, shared)
                told[side].append(run)
                print(json.dumps({"dataset": name, "side": side, "seed": seed, **run}), flush=True)
        first = told[sides[0]]
        for side, runs in told.items():
            low, high = pooled_interval(runs)
            gain = 100 * (mean(runs, "accuracy") - mean(first, "accuracy"))
            ratio = median(runs, "seconds") / median(first, "seconds")
            table.add_row(
                name, side, f"{mean(runs, 'accuracy'):.1%}", f"{low:.1%} to {high:.1%}",
                f"{median(runs, 'seconds'):.0f}", f"{gain:+.1f}", f"{ratio:.2f}",
                f"{max(run['peak_gib'] for run in runs):.1f}",
            )  # fmt: skip
        record(rows, name, told)
    Console(width=130).print(table)


def record(rows: Recorder, name: str, runs_of: dict) -> None:
    """Add the rows of a dataset: each side's accuracy, and what sets the others apart from the first side."""
    first, *others = runs_of
    percent = {side: 100 * mean(runs, "accuracy") for side, runs in runs_of.items()}
    spent = {side: median(runs, "seconds") for side, runs in runs_of.items()}
    for side, runs in runs_of.items():
        details = {"seconds": spent[side], "seeds": len(runs), "GiB": max(run["peak_gib"] for run in runs)}
        interval = tuple(100 * end for end in pooled_interval(runs))
        target = {"at_least": ACCURACY.get(name)} if side == "auto" else {}
        rows.add(f"{name}: accuracy, {titled(side)}", percent[side], "%", interval=interval, details=details, **target)
    if first == "auto":
        accuracies = zip(*([run["accuracy"] for run in runs] for runs in runs_of.values()), strict=True)
        lost = max(100 * (max(seed) - seed[0]) for seed in accuracies)
        rows.add(f"{name}: points lost by the plan", lost, "points", at_most=1.0, details=percent)
        return
    for side in others:
        pair, gain, share = f"{titled(side)}, {titled(first)}", GAIN.get(name), TIME.get(name)
        gain, share = (gain, share) if side == "auto" else (0.0, 0.25) if side == "recipes.probe" else (None, None)
        rows.add(f"{name}: gain in accuracy, {pair}", percent[side] - percent[first], "points", at_least=gain)
        details = {f"{titled(each)}, s": spent[each] for each in (side, first)}
        rows.add(f"{name}: time, {pair}", spent[side] / spent[first], "×", at_most=share, details=details)


def titled(side: str) -> str:
    return TITLES.get(side, side)


def mean(runs, what: str) -> float:
    return sum(run[what] for run in runs) / len(runs)


def median(runs, what: str) -> float:
    return sorted(run[what] for run in runs)[len(runs) // 2]


def pooled_interval(runs) -> tuple[float, float]:
    """Of the mean accuracy over the seeds: Wilson's for one held-out set, since the seeds share its images."""
    from recipes.evaluation.metrics import wilson_interval

    n = runs[0]["n"]
    return wilson_interval(round(mean(runs, "accuracy") * n), n)


def machine() -> str:
    with open("/proc/cpuinfo", encoding="utf-8") as file:
        model = next((line.split(":")[1].strip() for line in file if line.startswith("model name")), platform.machine())
    return f"{model}, {os.cpu_count()} cores, load {os.getloadavg()[0]:.1f} at the start"


def memory(images: int, shared: Path, rows: Recorder) -> None:
    """Peak memory of a probe that streams generated JPEGs of 224 px from disk."""
    told = in_process_of_its_own("memory", str(images), 0, shared)
    print(f"{images:,} JPEGs of 224 px: peak {told['peak_gib']:.2f} GiB in {told['seconds']:.0f} s; {machine()}")
    name = f"peak memory of finetune on {images:,} JPEGs of 224 px, linear classifier"
    rows.add(name, told["peak_gib"], "GiB", at_most=3.0, details={"seconds": told["seconds"]})


def stream(images: int) -> dict:
    """`finetune` with the linear classifier on that many files of coloured noise in ten classes of ten tints."""
    import numpy as np
    import tensorflow as tf

    import recipes

    random = np.random.default_rng(0)
    with tempfile.TemporaryDirectory() as folder:
        for i in range(10):
            (Path(folder) / f"class{i}").mkdir()
        for i in range(images):
            blocks = random.integers(0, 200, (14, 14, 3)) + np.array([5 * (i % 10), 0, 0])
            pixels = blocks.astype(np.uint8).repeat(16, 0).repeat(16, 1)
            (Path(folder) / f"class{i % 10}" / f"{i}.jpg").write_bytes(tf.io.encode_jpeg(pixels).numpy())
        began = time.perf_counter()
        with contextlib.redirect_stdout(io.StringIO()):
            recipes.finetune(folder, backbone=BACKBONE, recipe="probe")
        return {"seconds": time.perf_counter() - began}


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("shared", type=Path)
    parser.add_argument("--only", nargs="+", choices=[*DATASETS, *MADE])
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--sides", nargs="+", choices=SIDES, default=SIDES[:2])
    parser.add_argument("--regret", action="store_true", help="the same as --sides auto probe few all")
    parser.add_argument("--probe", action="store_true", help="the same as --sides 'guide, frozen' recipes.probe")
    parser.add_argument("--memory", type=int, nargs="?", const=50_000, help="peak memory with that many images")
    parser.add_argument("--one", nargs=3, help=argparse.SUPPRESS)
    add_option(parser)
    asked = parser.parse_args()
    rows = Recorder("finetune", asked.rows)
    if asked.one:
        print(json.dumps(one(asked.one[0], asked.one[1], int(asked.one[2]), asked.shared)))
    elif asked.memory:
        memory(asked.memory, asked.shared, rows)
    else:
        names = asked.only or [*DATASETS, *(MADE if asked.regret else ())]
        sides = SIDES[1:5] if asked.regret else SIDES[5:] if asked.probe else asked.sides
        compare(names, sides, asked.seeds, asked.shared, rows)


if __name__ == "__main__":
    main()
