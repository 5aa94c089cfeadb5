"""What this machine can do at most, in the units that bound the other benchmarks, and how near a network comes to it.

    python scripts/benchmark_machine.py          # about 20 seconds

Products of float32 matrices, memory traffic, JPEG decoding per core (at full size, and at an eighth, where little but
the entropy decoding is left), synced writing; then the forward pass and a training step of MobileNetV2(alpha=0.35), as
the probe and finetuning run it, in operations per second. Best of several rounds: a limit is what is reached
undisturbed.
"""

import argparse
import os
import platform
import sys
import tempfile
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
sys.path[:0] = [str(Path(__file__).resolve().parents[1]), str(Path(__file__).resolve().parent)]

import keras  # noqa: E402
import numpy as np  # noqa: E402
import tensorflow as tf  # noqa: E402
from benchmark_augment import made_up_photo  # noqa: E402
from measurements import Recorder, add_option  # noqa: E402

CORES = os.cpu_count()
RNG = np.random.default_rng(0)


def best(function, rounds: int = 5) -> float:
    """Seconds of the fastest call."""
    function()
    taken = []
    for _ in range(rounds):
        began = time.perf_counter()
        function()
        taken.append(time.perf_counter() - began)
    return min(taken)


def product(n: int = 3072) -> float:
    """Operations per second of a product of two float32 matrices, two for a multiplication and an addition."""
    a, b = (tf.constant(RNG.normal(size=(n, n)).astype("float32")) for _ in range(2))
    return 2 * n**3 / best(lambda: tf.matmul(a, b).numpy()[0, 0])


def memory(size: int = 2**28) -> float:
    """Bytes read and written per second by copying arrays far larger than the caches, all cores at once."""
    pairs = [(np.ones(size // 4 // CORES, "float32"), np.ones(size // 4 // CORES, "float32")) for _ in range(CORES)]
    with ThreadPoolExecutor(CORES) as pool:
        return 2 * size / best(lambda: list(pool.map(lambda pair: np.copyto(*pair), pairs)))


def decoding(ratio: int) -> tuple[float, int]:
    """JPEGs of 500 × 375 that one core decodes in a second to 1/ratio of their size, and their mean bytes."""
    photos = [made_up_photo(RNG, 375, 500) for _ in range(40)]

    def decode():
        for photo in photos:
            tf.io.decode_jpeg(photo, ratio=ratio, dct_method="INTEGER_FAST")

    return len(photos) / best(decode), sum(map(len, photos)) // len(photos)


def synced_writing(size: int = 2**26) -> float:
    """Bytes per second that reach the disk."""
    content = RNG.bytes(size)
    with tempfile.NamedTemporaryFile(dir=Path.cwd()) as file:

        def write():
            file.seek(0)
            file.write(content)
            file.flush()
            os.fsync(file.fileno())

        return size / best(write, 3)


def forward_operations(model: keras.Model) -> int:
    """Of the convolutions and products, for one image: two for every weight at every position of the output."""
    total = 0
    for layer in model.layers:
        if isinstance(layer, keras.layers.Conv2D | keras.layers.DepthwiseConv2D | keras.layers.Dense):
            total += 2 * int(np.prod(layer.kernel.shape)) * int(np.prod(layer.output.shape[1:-1]))
    return total


def network(size: int, batch: int, trains: bool) -> tuple[float, float]:
    """(images per second, operations per second) of MobileNetV2(alpha=0.35); a training step counts as three passes."""
    model = keras.applications.MobileNetV2((size, size, 3), alpha=0.35, weights=None, classes=10)
    x = tf.constant(RNG.uniform(-1, 1, (batch, size, size, 3)).astype("float32"))
    y = tf.constant(RNG.integers(0, 10, batch))
    model.compile("adam", "sparse_categorical_crossentropy")
    forward = tf.function(lambda: model(x, training=False))
    seconds = best((lambda: model.train_on_batch(x, y)) if trains else lambda: forward().numpy(), 8)
    return batch / seconds, (3 if trains else 1) * batch * forward_operations(model) / seconds


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    add_option(parser)
    rows = Recorder("machine", parser.parse_args().rows)
    peak = product()
    rows.add("product of float32 matrices, all cores", peak / 1e9, "GFLOP/s")
    print(f"{platform.processor() or platform.machine()}, {CORES} cores, TensorFlow {tf.__version__}")
    print(f"float32 product        {peak / 1e9:8.0f} GFLOP/s, all cores")
    traffic = memory() / 1e9
    print(f"memory                 {traffic:8.1f} GB/s read and written, all cores")
    rows.add("memory, read and written by copying, all cores", traffic, "GB/s")
    for ratio in (1, 8):
        rate, size = decoding(ratio)
        print(f"JPEG at 1/{ratio}            {rate:8.0f} images/s and core, 500 × 375, {size / 1e3:.0f} KB")
        rows.add(
            f"JPEG of 500 × 375 decoded at 1/{ratio} of its size", rate, "images/s and core", details={"bytes": size}
        )
    written = synced_writing() / 1e9
    print(f"synced writing         {1e3 * written:8.0f} MB/s")
    rows.add("synced writing", written, "GB/s")
    for size, batch, trains in ((224, 32, False), (128, 32, True)):
        rate, work = network(size, batch, trains)
        what = "training step" if trains else "forward pass "
        share = f"{work / 1e9:.0f} GFLOP/s, {work / peak:.1%} of the product's"
        print(f"MobileNetV2(0.35), {what} at {size} px: {rate:.0f} images/s = {share}")
        details = {"GFLOP/s": work / 1e9, "share of the product's rate": work / peak}
        name = f"MobileNetV2(alpha=0.35), {what.strip()} at {size} px, batches of {batch}"
        rows.add(name, rate, "images/s", details=details)


if __name__ == "__main__":
    main()
