"""Images per second of `augment` against albumentations, Keras layers, keras-cv and bare JPEG decoding.

    pip install albumentations==2.0.8 opencv-python-headless keras-cv
    python scripts/benchmark_augment.py [FOLDER of JPEGs] [--photos FOLDER of large JPEGs] [--only colour]

Every contestant gets the same files in memory, two threads, batches of 64 at 224 pixels, and the same transforms (Keras
and keras-cv have no PCA offset, so theirs is the few lines of TensorFlow that their users would write). They take
turns, several rounds, and the best round of each counts: on a shared machine the slow rounds measure the neighbours.
Without a folder the JPEGs are made from noise with the spectrum of photos.
"""

import argparse
import os
import subprocess
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from functools import partial
from pathlib import Path

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
ROOT = Path(__file__).resolve().parents[1]
sys.path[:0] = [str(ROOT), str(ROOT / "scripts")]

import keras  # noqa: E402
import numpy as np  # noqa: E402
import tensorflow as tf  # noqa: E402
from measurements import Recorder, add_option  # noqa: E402

import augment  # noqa: E402

THREADS, BATCH, SIZE = 2, 64, 224
COLOURS = {"brightness": (0.6, 1.4), "contrast": (0.6, 1.4), "saturation": (0.6, 1.4), "hue": (-18, 18)}
COLOUR = augment.Policy(SIZE, short_side=None, area=(0.25, 1.0), pca=0.1, **COLOURS)
GEOMETRY = augment.Policy(
    SIZE, short_side=None, area=(0.25, 1.0), pca=0.1, rotate=15, shear=10, translate=0.1, lens=0.1, **COLOURS
)


def made_up_photo(rng, height, width, sharpness=np.inf) -> bytes:
    """A JPEG of noise whose amplitude falls as 1 / frequency, as that of photos does.

    sharpness: cycles per pixel where a lens's blur sets in; 0.2 gives 4 MB for 12 megapixels, as telephones do.
    """
    frequency = np.hypot(np.fft.fftfreq(height)[:, None, None], np.fft.rfftfreq(width)[None, :, None])
    spectrum = np.fft.rfft2(rng.normal(size=(height, width, 3)), axes=(0, 1)) / np.maximum(frequency, 1 / width)
    noise = np.fft.irfft2(spectrum * np.exp(-((frequency / sharpness) ** 2)), s=(height, width), axes=(0, 1))
    pixels = np.clip(128 + 50 * noise / noise.std(), 0, 255).astype(np.uint8)
    return tf.io.encode_jpeg(pixels, quality=92).numpy()


def read(folder, count, height, width) -> list[bytes]:
    """Up to `count` JPEGs of a folder of about that size, or as many made up."""
    if folder is None:
        rng = np.random.default_rng(0)
        size = (height, width) if height < 1000 else (height, width, 0.2)
        return [made_up_photo(rng, *size) for _ in range(48 if height < 1000 else 4)]
    contents = []
    for file in sorted(Path(folder).rglob("*.jp*g")):
        content = file.read_bytes()
        shape = tf.io.extract_jpeg_shape(content).numpy()
        if 0.8 < np.sqrt(shape[0] * shape[1] / (height * width)) < 1.25:
            contents.append(content)
    if not contents:
        raise SystemExit(f"no JPEG of about {width} × {height} pixels in {folder}")
    return contents[:count]


def endless(contents):
    """tf.data.Dataset of the files, over and over."""
    table = tf.constant(contents)
    indices = tf.data.Dataset.range(len(contents)).repeat()
    return indices.map(lambda i: tf.gather(table, i))


def two_threads(dataset):
    options = tf.data.Options()
    options.threading.private_threadpool_size = THREADS
    options.threading.max_intra_op_parallelism = 1
    return dataset.with_options(options)


def ours(contents, policy):
    table = tf.constant(contents)
    source = augment.Source(10**6, lambda index: (tf.gather(table, index % len(contents)), index))
    return two_threads(augment.epoch(source, policy, batch_size=BATCH))


def ours_cached(contents, policy, count=4096):
    """Endless later epochs of `count` images whose decoded pixels the first epoch has cached."""
    table = tf.constant(contents)
    source = augment.Source(count, lambda index: (tf.gather(table, index % len(contents)), index))
    batches = two_threads(augment.pipeline(source, policy, batch_size=BATCH, cache="decoded"))
    for _ in batches:
        pass
    while True:
        yield from batches


def bare_decoding(contents):
    def decode(content):
        return tf.reduce_max(tf.io.decode_jpeg(content, channels=3)[::64, ::64])

    return two_threads(endless(contents).map(decode, num_parallel_calls=THREADS).batch(BATCH).prefetch(2))


def albumentations_batches(contents, geometry):
    """The same transforms in albumentations + OpenCV, two threads, yielding float32 batches."""
    import albumentations as A
    import cv2

    cv2.setNumThreads(1)
    steps = [
        A.RandomResizedCrop((SIZE, SIZE), scale=COLOUR.area, ratio=COLOUR.aspect),
        A.HorizontalFlip(p=0.5),
    ]
    if geometry:
        steps += [
            A.Affine(rotate=(-15, 15), shear=(-10, 10), translate_percent=(-0.1, 0.1), p=1.0),
            A.OpticalDistortion(distort_limit=0.1, p=1.0),
        ]
    steps += [
        A.ColorJitter(brightness=(0.6, 1.4), contrast=(0.6, 1.4), saturation=(0.6, 1.4), hue=(-0.05, 0.05), p=1.0),
        A.FancyPCA(alpha=0.1, p=1.0),
    ]
    local = threading.local()

    def one(content):
        if not hasattr(local, "transform"):
            local.transform = A.Compose(steps)
        image = cv2.imdecode(np.frombuffer(content, np.uint8), cv2.IMREAD_COLOR)
        return local.transform(image=cv2.cvtColor(image, cv2.COLOR_BGR2RGB))["image"].astype(np.float32)

    with ThreadPoolExecutor(THREADS) as pool:
        at = 0
        while True:
            yield np.stack(list(pool.map(one, (contents[(at + i) % len(contents)] for i in range(BATCH)))))
            at += BATCH


def layers_in_tf_data(contents, layers):
    """Decoding, a random crop and Resizing per image, then preprocessing layers per batch, as their guides show it.

    The PCA offset comes after the layers in the same map.
    """
    resize = keras.layers.Resizing(SIZE, SIZE)
    eigenvalues = tf.constant(augment.IMAGENET_PCA.eigenvalues, tf.float32)
    eigenvectors = tf.constant(augment.IMAGENET_PCA.eigenvectors, tf.float32)

    def crop(content):
        image = tf.io.decode_jpeg(content, channels=3)
        begin, size, _ = tf.image.sample_distorted_bounding_box(
            tf.shape(image),
            tf.zeros((0, 0, 4)),
            area_range=COLOUR.area,
            aspect_ratio_range=COLOUR.aspect,
            use_image_if_no_bounding_boxes=True,
        )
        return resize(tf.ensure_shape(tf.slice(image, begin, size), (None, None, 3)))

    def whole(images):
        for layer in layers:
            images = layer(images, training=True)
        alpha = tf.random.normal((tf.shape(images)[0], 3), stddev=COLOUR.pca)
        offsets = tf.matmul(255 * alpha * eigenvalues, eigenvectors, transpose_b=True)
        return tf.clip_by_value(images + offsets[:, None, None], 0.0, 255.0)

    batches = endless(contents).map(crop, num_parallel_calls=THREADS).batch(BATCH)
    return two_threads(batches.map(whole, num_parallel_calls=THREADS).prefetch(2))


def keras_layers(contents):
    return layers_in_tf_data(
        contents,
        [
            keras.layers.RandomFlip("horizontal"),
            keras.layers.RandomBrightness(0.4, value_range=(0, 255)),
            keras.layers.RandomContrast(0.4, value_range=(0, 255)),
            keras.layers.RandomSaturation((0.3, 0.7), value_range=(0, 255)),
            keras.layers.RandomHue(0.05, value_range=(0, 255)),
        ],
    )


def keras_cv_layers(contents):
    import keras_cv

    return layers_in_tf_data(
        contents,
        [
            keras_cv.layers.RandomFlip("horizontal"),
            keras_cv.layers.RandomColorJitter(
                value_range=(0, 255),
                brightness_factor=0.4,
                contrast_factor=0.4,
                saturation_factor=(0.3, 0.7),
                hue_factor=0.05,
            ),
        ],
    )


def rand_augment(contents, policy):
    """RandAugment on random crops with mirror images and PCA: ours, and keras-cv's layer in both pipelines."""
    import keras_cv

    theirs = keras_cv.layers.RandAugment((0, 255), policy.rand_operations, policy.rand_magnitude, policy.rand_stddev)
    extra = replace(policy, rand_operations=0, extra=theirs)
    return {
        "augment": lambda: ours(contents, policy),
        "keras-cv's layer": lambda: layers_in_tf_data(contents, [keras_cv.layers.RandomFlip("horizontal"), theirs]),
        "keras-cv's layer as extra": lambda: ours(contents, extra),
    }


def medians(contestants, seconds, rounds) -> dict[str, tuple[float, float]]:
    """The median rate and processor time of each contestant over rounds in which they take turns."""
    each = [race(contestants, seconds, 1) for _ in range(rounds)]
    return {name: tuple(np.median([results[name] for results in each], 0)) for name in contestants}


def measure(batches, seconds) -> tuple[float, float]:
    """(images per second, milliseconds of processor time per image) of an iterator of batches."""
    start, busy, count = time.perf_counter(), time.process_time(), 0
    while time.perf_counter() - start < seconds:
        next(batches)
        count += BATCH
    return count / (time.perf_counter() - start), 1000 * (time.process_time() - busy) / count


def race(contestants, seconds, rounds) -> dict[str, tuple[float, float]]:
    """The best rate and the least processor time of each contestant, which take turns."""
    best = dict.fromkeys(contestants, (0.0, np.inf))
    for _ in range(rounds):
        for name, make in contestants.items():
            batches = iter(make())
            for _ in range(3):
                next(batches)
            speed, busy = measure(batches, seconds)
            best[name] = max(best[name][0], speed), min(best[name][1], busy)
            del batches
    return best


def report(title, results, reference, goals, rows):
    print(f"\n{title}")
    speed, busy = results[reference]
    for name, (other_speed, other_busy) in results.items():
        line = f"  {name:24s} {other_speed:6.0f} images/s {other_busy:7.2f} ms of processor an image"
        if name != reference:
            line += (
                f"   {reference}: {speed / other_speed:5.2f} × the rate, {other_busy / busy:5.2f} × by processor time"
            )
            target = {"at_least": float(goals[name].split()[0])} if name in goals else {}
            details = {f"{reference}, images/s": speed, f"{name}, images/s": other_speed,
                       f"{reference}, ms of processor": busy, f"{name}, ms of processor": other_busy}  # fmt: skip
            rows.add(f"{title}: {reference} / {name}", speed / other_speed, "×", details=details, **target)
        print(line + (f", to reach {goals[name]}" if name in goals else ""), flush=True)


def peak_memory(copies: int) -> int:
    """Peak resident MiB of a process that makes one epoch of `copies` × 512 images."""
    code = f"""
import resource, sys
sys.path[:0] = [{str(ROOT)!r}, {str(ROOT / "scripts")!r}]
import benchmark_augment as b, numpy as np, tensorflow as tf, augment
content = tf.constant(b.made_up_photo(np.random.default_rng(0), 375, 500))
source = augment.Source(512 * {copies}, lambda index: (content, index))
for _ in augment.epoch(source, b.COLOUR, batch_size=b.BATCH): pass
print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024)
"""
    answer = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    return int(answer.split()[-1])


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("folder", nargs="?", help="JPEGs of about 500 × 375 pixels")
    parser.add_argument("--photos", help="JPEGs of about 12 megapixels")
    parser.add_argument("--seconds", type=float, default=4)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--only", choices=["colour", "geometry", "rand", "cache", "photos", "memory"])
    add_option(parser)
    arguments = parser.parse_args()
    rows = Recorder("augment", arguments.rows)
    table = partial(report, rows=rows)
    pace = (arguments.seconds, arguments.rounds)
    chosen = lambda name: arguments.only in (None, name)  # noqa: E731
    small = read(arguments.folder, 512, 375, 500)
    if chosen("colour"):
        rates = race(
            {
                "augment": lambda: ours(small, COLOUR),
                "albumentations": lambda: albumentations_batches(small, False),
                "Keras layers": lambda: keras_layers(small),
                "keras-cv layers": lambda: keras_cv_layers(small),
                "bare decoding": lambda: bare_decoding(small),
            },
            *pace,
        )
        goals = {"albumentations": "2.8 ×", "Keras layers": "4 ×", "bare decoding": "0.7 ×"}
        table("crop, flip, brightness, contrast, saturation, hue, PCA, from JPEG", rates, "augment", goals)
    if chosen("geometry"):
        contestants = {
            "augment": lambda: ours(small, GEOMETRY),
            "albumentations": lambda: albumentations_batches(small, True),
        }
        table(
            "rotation, shear, translation, lens added", race(contestants, *pace), "augment", {"albumentations": "1.5 ×"}
        )
    if chosen("rand"):
        policy = replace(augment.Policy.rand_augment(SIZE), area=COLOUR.area, pca=COLOUR.pca)
        table("RandAugment, medians", medians(rand_augment(small, policy), *pace), "augment", {})
    if chosen("cache"):
        cached = ours_cached(small, COLOUR)
        contestants = {
            "augment, decoded cache": lambda: cached,
            "albumentations": lambda: albumentations_batches(small, False),
        }
        goals = {"albumentations": "4.5 ×"}
        table("later epochs from the decoded cache", race(contestants, *pace), "augment, decoded cache", goals)
    if chosen("photos"):
        large = read(arguments.photos, 24, 3000, 4000)
        contestants = {
            "augment": lambda: ours(large, COLOUR),
            "albumentations": lambda: albumentations_batches(large, False),
        }
        rates = race(contestants, max(20, pace[0]), 1)
        table("12-megapixel JPEGs", rates, "augment", {"albumentations": "2.5 ×"})
    if chosen("memory"):
        peaks = {f"{512 * n} images": peak_memory(n) for n in (1, 4)}
        print("\npeak memory of an epoch: " + ", ".join(f"{images} {peak} MiB" for images, peak in peaks.items()))
        for images, peak in peaks.items():
            rows.add(f"peak memory of an epoch of {images}", peak / 1024, "GiB")


if __name__ == "__main__":
    main()
