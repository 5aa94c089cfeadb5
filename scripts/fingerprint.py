"""Print SHA-256 digests of what the library computes, to show that a change of the code changes no result.

    python scripts/fingerprint.py [--only NAME ...] [--shared ../shared] [--write FILE] [--compare FILE]

Each row is a finetuning or another computation; its columns are digests of the weights, of the predictions, of the
plan, of the ledger (values without sentences, seconds and costs), and of whatever else the row computes. The digests
hold for one machine and one set of installed packages: run the script before and after a change, in the same
environment. Rows that need real photos and ImageNet weights are skipped, and say so, where `--shared` does not exist.
"""

import argparse
import dataclasses
import hashlib
import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
UPDATES_BEFORE_THE_KILL = 7
CONSTRUCTOR = "MobileNetV2(alpha=0.35)"


def digest(*values) -> str:
    """Return the first 16 hexadecimal digits of the SHA-256 of arrays, bytes and JSON values."""
    import numpy as np

    sha = hashlib.sha256()
    for value in values:
        if isinstance(value, np.ndarray):
            strings = value.dtype == object  # whose bytes would be addresses
            content = repr(value.tolist()).encode() if strings else np.ascontiguousarray(value).tobytes()
            sha.update(f"{value.dtype}{value.shape}".encode() + content)
        else:
            sha.update(value if isinstance(value, bytes) else json.dumps(value, sort_keys=True, default=str).encode())
    return sha.hexdigest()[:16]


def result_digests(result, images) -> dict[str, str]:
    """Return the digests of a Result; `images` are what it predicts."""
    import numpy as np

    fields = dataclasses.asdict(result.recipe) | {"reasons": []}
    fields.pop("decisions", None)  # the reasons, which earlier commits have as sentences under the other name
    rows = [(row.accuracy, row.gain, row.interval, row.nats, row.nats_interval, row.kept) for row in result.ledger]
    return {
        "weights": digest(*result.model.get_weights()),
        "predictions": digest(np.stack([prediction.probabilities for prediction in result.predict(images)])),
        "plan": digest(fields),
        "ledger": digest(rows),
    }


@contextmanager
def working_folder() -> Iterator[Path]:
    """Yield an empty folder, with a feature cache of its own."""
    with tempfile.TemporaryDirectory(prefix="fingerprint-") as folder:
        os.environ["RECIPES_CACHE"] = str(Path(folder) / "cache")
        yield Path(folder)


def finetuned_digits(recipe: str, **changes) -> dict[str, str]:
    import recipes
    from recipes import adjusted

    snapshots = changes.pop("snapshots", 0)
    wanted = adjusted(recipe, **changes) if changes else recipe
    result = recipes.finetune("digits", backbone="glyphs", recipe=wanted, snapshots=snapshots)
    images, _ = drawn_images()
    return result_digests(result, images)


def drawn_images(count: int = 24, size: int = 40):
    """Return uint8 images (n, size, size, 3) of discs and squares on noise, and their class names."""
    import numpy as np

    random = np.random.default_rng(0)
    images = random.integers(90, 160, (count, size, size, 3)).astype(np.uint8)
    names = np.array(["disc", "square"])[np.arange(count) % 2]
    rows, columns = np.mgrid[:size, :size] - size / 2
    for image, name in zip(images, names, strict=True):
        radius = random.uniform(size / 6, size / 3)
        shape = rows**2 + columns**2 < radius**2 if name == "disc" else np.maximum(abs(rows), abs(columns)) < radius
        image[shape] = random.integers(0, 255, 3)
    return images, names


def drawn_folder(root: Path, count: int = 48) -> Path:
    """Write `drawn_images` as a folder of class folders of PNG files."""
    import keras

    for index, (image, name) in enumerate(zip(*drawn_images(count), strict=True)):
        (root / name).mkdir(parents=True, exist_ok=True)
        keras.utils.save_img(root / name / f"{index:03}.png", image, scale=False)
    return root


def drawn_recipe():
    from recipes import adjusted

    return adjusted("all", size=32, test_size=32, epochs=3, batch_size=8, dropout=0.3, averaging=0.9)


def small_network():
    """Return a backbone of two stages with batch normalisation, for 0..255 RGB."""
    import keras

    images = x = keras.Input((None, None, 3))
    x = keras.layers.Rescaling(1 / 127.5, -1)(x)
    for index, filters in enumerate((8, 16)):
        initializer = keras.initializers.HeNormal(seed=index)
        x = keras.layers.Conv2D(filters, 3, strides=2, padding="same", kernel_initializer=initializer)(x)
        x = keras.layers.BatchNormalization()(x)
        x = keras.layers.ReLU()(x)
    return keras.Model(images, x, name="small")


def photos(shared: Path, name: str, per_class: int, target: Path) -> Path:
    """Link the first photos of every class of a dataset in `shared` into a folder of class folders."""
    source = shared / "data" / name
    source = source / "train" if (source / "train").is_dir() else source
    for folder in sorted(path for path in source.iterdir() if path.is_dir()):
        (target / folder.name).mkdir(parents=True)
        for photo in sorted(folder.glob("*.jpg"))[:per_class]:
            (target / folder.name / photo.name).symlink_to(photo.resolve())
    return target


def finetuned_photos(shared: Path, name: str, per_class: int, **options) -> dict[str, str]:
    import recipes

    with working_folder() as root:
        data = photos(shared, name, per_class, root / "photos")
        result = recipes.finetune(data, backbone=CONSTRUCTOR, **options)
        return result_digests(result, sorted(str(path) for path in data.rglob("*.jpg"))[:16])


def augmented_batches() -> dict[str, str]:
    import numpy as np
    import tensorflow as tf

    import augment

    images, names = drawn_images(32)
    labels = (names == "disc").astype(np.int64)
    encoded = [tf.io.encode_png(image).numpy() for image in images]
    policies = {
        "plain": augment.Policy(size=24, short_side=(28, 40)),
        "strong": augment.Policy(
            size=24, short_side=None, area=(0.3, 1.0), rotate=20, shear=5, stretch=0.2, lens=0.1, translate=0.1,
            brightness=(0.7, 1.3), contrast=(0.7, 1.3), saturation=(0.5, 1.5), hue=(-20, 20), erase=0.3,
        ),
        "mixing": augment.Policy(size=24, short_side=(28, 40), mixup=0.2, cutmix=1.0),
    }  # fmt: skip
    found = {}
    for name, policy in policies.items():
        for kind, pixels in (("encoded", encoded), ("pixels", images)):
            data = tf.data.Dataset.from_tensor_slices((pixels, labels))
            batches = augment.pipeline(data, policy, batch_size=8, seed=3, epoch=1, classes=2)
            arrays = [array for batch in batches.as_numpy_iterator() for array in batch]
            found[f"{name}, {kind}"] = digest(*arrays)
    return found


def trained_from_a_folder(dataset, **options) -> dict[str, str]:
    import recipes

    result = recipes.finetune(dataset, backbone=small_network(), recipe=drawn_recipe(), **options)
    return result_digests(result, drawn_images()[0])


def from_folder_and_pack() -> dict[str, str]:
    import recipes

    with working_folder() as root:
        folder = drawn_folder(root / "drawn")
        recipes.pack(folder, root / "packed")
        found = {"folder": trained_from_a_folder(folder), "pack": trained_from_a_folder(root / "packed")}
        return {f"{source}, {name}": value for source, row in found.items() for name, value in row.items()}


def with_an_input_worker() -> dict[str, str]:
    with working_folder() as root:
        folder = drawn_folder(root / "drawn")
        line = [sys.executable, "-m", "recipes", "input-worker", "--host", "localhost", "--port", "0"]
        environment = {**os.environ, "PYTHONPATH": str(ROOT), "PYTHONUNBUFFERED": "1"}
        worker = subprocess.Popen(line, stdout=subprocess.PIPE, text=True, env=environment, cwd=root)
        try:
            address = next(word for text in worker.stdout for word in text.split() if word.startswith("localhost:"))
            return trained_from_a_folder(folder, input_workers=[address.rstrip(".,;")])
        finally:
            worker.terminate()
            worker.wait()


def killed_training(folder: str, output: str) -> None:
    """Train in this process, which kills itself after some updates; started again, it ends."""
    import signal

    import keras

    class Kill(keras.callbacks.Callback):
        def on_train_batch_end(self, batch, logs=None):
            if int(self.model.optimizer.iterations) == UPDATES_BEFORE_THE_KILL:
                os.kill(os.getpid(), signal.SIGKILL)

    first = not Path(output).exists()
    found = trained_from_a_folder(Path(folder), output=output, callbacks=[Kill()] if first else [])
    print(json.dumps(found))


def resumed_after_a_kill() -> dict[str, str]:
    with working_folder() as root:
        folder = drawn_folder(root / "drawn")
        line = [sys.executable, __file__, "--killed-training", str(folder), str(root / "run")]
        environment = {**os.environ, "PYTHONPATH": str(ROOT)}
        first = subprocess.run(line, env=environment, capture_output=True, text=True)
        if first.returncode != -9:
            raise RuntimeError(f"the training was not killed, it ended with {first.returncode}: {first.stderr[-2000:]}")
        second = subprocess.run(line, env=environment, capture_output=True, text=True, check=True)
        return json.loads(second.stdout.strip().splitlines()[-1])


def exported_answers() -> dict[str, str]:
    """Return digests of what SavedModels answer to PNG and JPEG bytes and to bytes that are no image."""
    import tensorflow as tf

    import recipes

    images = drawn_images(8)[0]
    content = [tf.io.encode_png(image).numpy() for image in images[:4]]
    content += [tf.io.encode_jpeg(image).numpy() for image in images[4:]] + [b"no image"]
    with working_folder() as root:
        result = recipes.finetune(drawn_folder(root / "drawn"), backbone=small_network(), recipe="probe")
        found = {}
        for name, options in (("1 crop", {}), ("10 crops, top 1", {"crops": 10, "top_k": 1, "abstain": 0.9})):
            folder = result.export(root / name / "1", **options)
            answer = tf.saved_model.load(str(folder)).signatures["serving_default"](image_bytes=tf.constant(content))
            found[name] = digest(*(answer[key].numpy() for key in sorted(answer) if key != "error"))
        return found


def rows(shared: Path) -> dict[str, Callable[[], dict[str, str]] | None]:
    """Return name → computation; None where `shared` would be needed and does not exist."""
    real = shared.is_dir()
    return {
        "digits probe": lambda: finetuned_digits("probe"),
        "digits few": lambda: finetuned_digits("few", epochs=3),
        "digits all": lambda: finetuned_digits("all", epochs=3),
        "digits scratch": lambda: finetuned_digits("scratch", epochs=3),
        "digits snapshots": lambda: finetuned_digits("all", epochs=6, snapshots=3),
        "hymenoptera auto": (lambda: finetuned_photos(shared, "hymenoptera", 30)) if real else None,
        "flowers few": (lambda: finetuned_photos(shared, "flowers", 20, recipe=flowers_recipe())) if real else None,
        "folder and pack": from_folder_and_pack,
        "input worker": with_an_input_worker,
        "resume": resumed_after_a_kill,
        "augmentation": augmented_batches,
        "export": exported_answers,
    }


def flowers_recipe():
    from recipes import adjusted

    return adjusted("few", size=96, epochs=2)


def prepare_weights(shared: Path) -> None:
    """Let Keras find the ImageNet weights of `shared` in place of a download."""
    if shared.is_dir() and "KERAS_HOME" not in os.environ:
        home = Path(tempfile.mkdtemp(prefix="keras-home-"))
        (home / "models").symlink_to(shared / "weights")
        os.environ["KERAS_HOME"] = str(home)


def differences(before: dict, after: dict) -> list[str]:
    """Return a line for each digest that is in both and differs."""
    return [
        f"{name}, {column}: {before[name][column]} before, {after[name][column]} now"
        for name in sorted(set(before) & set(after))
        for column in sorted(set(before[name]) & set(after[name]))
        if before[name][column] != after[name][column]
    ]


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", nargs="*", default=[], help="names of rows; all by default")
    parser.add_argument("--shared", type=Path, default=ROOT.parent / "shared", help="real photos and ImageNet weights")
    parser.add_argument("--write", type=Path, help="a JSON file for the digests")
    parser.add_argument("--compare", type=Path, help="a JSON file that --write wrote; exit with 1 where digests differ")
    parser.add_argument("--killed-training", nargs=2, metavar=("FOLDER", "OUTPUT"), help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    sys.path.insert(0, str(ROOT))
    if arguments.killed_training:
        killed_training(*arguments.killed_training)
        return 0
    prepare_weights(arguments.shared)
    computations = rows(arguments.shared.resolve())
    if unknown := set(arguments.only) - set(computations):
        parser.error(f"unknown rows {sorted(unknown)}; expected some of {list(computations)}")
    found = {}
    for name in arguments.only or computations:
        if computations[name] is None:
            print(f"{name}: skipped, {arguments.shared} does not exist", file=sys.stderr)
            continue
        with working_folder():
            found[name] = computations[name]()
        for column, value in found[name].items():
            print(f"{name:18} {column:26} {value}", file=sys.stderr, flush=True)
    if arguments.write:
        arguments.write.write_text(json.dumps(found, indent=1) + "\n")
    changed = differences(json.loads(arguments.compare.read_text()), found) if arguments.compare else []
    print("\n".join(changed) if changed else f"{len(found)} rows" + (", none differs" if arguments.compare else ""))
    return int(bool(changed))


if __name__ == "__main__":
    sys.exit(main())
