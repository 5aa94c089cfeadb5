"""Images per second from a folder and from the pack of it; from one input worker and from two.

    python scripts/benchmark_input.py [FOLDER of class folders] [--quick] [--only pack|workers|index]

Pack: both sides take turns in one run, medians of the rounds, both shuffled as a training shuffles. `read` is reading
alone; `forgotten` reads what the page cache was asked to forget; `batches` is what a training waits for, augmented at
224 pixels; `far` is reading alone where each opening and each reading of a file lasts 2 ms longer (simulated by
slow_files.c, which needs a C compiler). Seconds depend on what else runs, processor time an image less so. To reach: at
least the folder's speed in batches, forgotten and far.

Index: what a million rows take on the disk, in memory, and to open; asked for alone.

Workers: each is a process on cores of its own, the trainer is simulated by whatever takes the batches as fast as they
come, on the cores that are left. To reach, where there are at least six cores: two workers 1.6 times as fast as one.
Without a folder the JPEGs are made from noise with the spectrum of photos, about 110 KB each.
"""

import argparse
import os
import platform
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
ROOT = Path(__file__).resolve().parents[1]
sys.path[:0] = [str(ROOT), str(ROOT / "scripts")]

import numpy as np  # noqa: E402
import tensorflow as tf  # noqa: E402
from benchmark_augment import made_up_photo  # noqa: E402

import augment  # noqa: E402
import recipes  # noqa: E402
from augment.guard import PARALLEL_CALLS  # noqa: E402
from recipes.input_workers import InputWorkers  # noqa: E402
from recipes.manifest import INDEX, MANIFEST, Manifest, Shard, sha256, write_index  # noqa: E402
from recipes.records import FRAME  # noqa: E402
from recipes.remote import Remote  # noqa: E402
from recipes.sources import load  # noqa: E402

BATCH, POLICY = 64, augment.Policy.light(224)


def made_folder(root: Path, count: int) -> Path:
    rng = np.random.default_rng(0)
    photos = [made_up_photo(rng, 375, 500) for _ in range(min(count, 48))]
    for i in range(count):
        (root / f"class{i % 4}").mkdir(parents=True, exist_ok=True)
        (root / f"class{i % 4}" / f"{i:06}.jpg").write_bytes(photos[i % len(photos)] + i.to_bytes(4, "little"))
    return root


def forget(folder: Path) -> None:
    """Ask the page cache to drop the files of a folder."""
    os.sync()
    for path in folder.rglob("*.*"):
        with open(path, "rb") as file:
            os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)


def consumed(dataset) -> int:
    return sum(int(images.shape[0]) for images, _ in dataset)


def read_only(source, epoch: int):
    def length(position):
        index = source.index(position, tf.constant(epoch, tf.int64), seed=0, shuffle=True)
        return tf.strings.length(source.read(index)[0]), index

    length = tf.autograph.experimental.do_not_convert(length)
    return tf.data.Dataset.range(source.size).map(length, num_parallel_calls=PARALLEL_CALLS).batch(BATCH)


def batches(source, epoch: int):
    return augment.epoch(source, POLICY, batch_size=BATCH, seed=0, epoch=epoch)


def cost(make, source, epoch: int) -> tuple[float, float]:
    """Images per second, and processor time of an image in microseconds."""
    dataset = make(source, epoch)
    began, used = time.perf_counter(), time.process_time()
    count = consumed(dataset)
    return count / (time.perf_counter() - began), (time.process_time() - used) / count * 1e6


def compare_pack(folder: Path, packed: Path, rounds: int, rows=("read", "forgotten", "batches")) -> None:
    sources = {root: load(root).train.source() for root in (folder, packed)}
    for told in rows:
        costs = {root: [] for root in sources}
        for number in range(rounds + 1):
            for root, source in sources.items():
                if told == "forgotten":
                    forget(root)
                costs[root].append(cost(batches if told == "batches" else read_only, source, number))
        of_folder, of_pack = (np.median(found[1:], 0) for found in costs.values())  # the first warms up
        (rate, used), (rate_, used_) = of_folder, of_pack
        print(f"{told:10}{rate:10,.0f}{rate_:10,.0f}{rate_ / rate:16.2f}{used:16,.0f}{used_:8,.0f}", flush=True)


def compare_far(folder: Path, packed: Path, rounds: int) -> None:
    """In a process whose files are slow."""
    library = packed.parent / "slow_files.so"
    subprocess.run(["cc", "-shared", "-fPIC", "-O2", "-o", library, ROOT / "scripts/slow_files.c", "-ldl"], check=True)
    slow = {"LD_PRELOAD": str(library), "SLOW_FILES": f"{folder.resolve()}:{packed.resolve()}"}
    program = "from benchmark_input import *; import sys; a, b, n = sys.argv[1:]\n"
    program += "compare_pack(Path(a), Path(b), int(n), ['far'])"
    command = [sys.executable, "-c", program, folder.resolve(), packed.resolve(), str(rounds)]
    environment = os.environ | slow | {"SLOW_MICROSECONDS": "2000", "PYTHONPATH": f"{ROOT}:{ROOT / 'scripts'}"}
    subprocess.run(command, check=True, env=environment)


class Worker:
    """`recipes input-worker` in a process on the given cores."""

    def __init__(self, cores: list[int]):
        command = [sys.executable, "-m", "recipes", "input-worker", "--host", "localhost", "--port", "0"]
        with_cores = ["taskset", "-c", ",".join(map(str, cores)), *command]
        self.process = subprocess.Popen(with_cores, stdout=subprocess.PIPE, text=True, cwd=ROOT)
        self.address = [self.process.stdout.readline() for _ in range(2)][1].split()[-1]


def transport(address: str, count: int) -> None:
    """What sending alone takes: batches of which nothing has to be made."""
    batch = tf.zeros((BATCH, POLICY.size, POLICY.size, 3))
    with Remote(address, tf.data.Dataset.from_tensors(batch).repeat(count // BATCH)) as remote:
        remote.next()
        began = time.perf_counter()
        for _ in range(count // BATCH - 1):
            remote.next()
        taken = time.perf_counter() - began
    size = batch.numpy().nbytes / BATCH
    rate = (count - BATCH) / taken
    print(f"sending alone, one worker: {rate:,.0f} images/s of {size / 1000:.0f} KB, {rate * size / 1e6:,.0f} MB/s")


def compare_workers(folder: Path, rounds: int) -> None:
    cores = sorted(os.sched_getaffinity(0))
    share = max(1, len(cores) // 3)
    workers = [Worker(cores[:share]), Worker(cores[share : 2 * share])]
    left = cores[2 * share :] or cores
    os.sched_setaffinity(0, left)
    print(f"\n{len(cores)} cores: {share} for each worker, {len(left)} for what takes the batches")
    try:
        transport(workers[0].address, 6 * BATCH if rounds < 3 else 40 * BATCH)
        data, found = load(folder).train, {1: [], 2: []}
        for number in range(rounds + 1):
            for count in found:
                used = InputWorkers([worker.address for worker in workers[:count]]).checked(data)
                stream = iter(
                    used.workers.batches(
                        used, POLICY, batch_size=BATCH, seed=0, start=number, stop=number + 2, first_batch=0
                    )
                )
                taken = [next(stream) for _ in range(2 * count)]  # until the kernels are compiled and the queues run
                began = time.perf_counter()
                images = sum(int(x.shape[0]) for x, _ in stream)
                found[count].append(images / (time.perf_counter() - began))
                del taken
        one, two = (statistics.median(rates[1:]) for rates in found.values())
        print(f"1 worker {one:,.0f} images/s, 2 workers {two:,.0f}: ratio {two / one:.2f}")
        if len(cores) < 6:
            print("with fewer than six cores the workers share theirs with what takes the batches: no proof either way")
    finally:
        for worker in workers:
            worker.process.kill()


def index_of_a_million(root: Path, rows: int = 1_000_000) -> None:
    names = [f"class{i % 100:03}/image{i:08}.jpg".encode() for i in range(rows)]
    order = np.random.default_rng(0).permutation(rows)
    write_index(root / INDEX, np.full(rows, 100), np.arange(rows) % 100, order, names)
    shard = Shard("train-00000-of-00001.tfrecord", "train", rows, (100 + FRAME) * rows, "never read")
    with open(root / shard.name, "wb") as file:
        file.truncate(shard.bytes)
    told = Manifest("made", tuple(f"class{i:03}" for i in range(100)), (shard,), sha256(root / INDEX))
    (root / MANIFEST).write_text(told.text())
    before, began = resident(), time.perf_counter()
    data = load(root).train
    source = data.source()
    seconds, on_disk = time.perf_counter() - began, os.path.getsize(root / INDEX) / rows
    print(
        f"{source.size:,} rows, names of {len(names[0])} bytes: {on_disk:.0f} bytes a row on the disk, "
        f"{(resident() - before) / rows:.0f} in memory, opened in {seconds:.1f} s; load {os.getloadavg()[0]:.1f}"
    )


def resident() -> int:
    """Bytes of this process in memory."""
    return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", nargs="?", type=Path)
    parser.add_argument("--quick", action="store_true", help="few images, two rounds")
    parser.add_argument("--only", choices=("pack", "workers", "index"))
    asked = parser.parse_args()
    count, rounds = (256, 2) if asked.quick else (2048, 5)
    if asked.only == "index":
        with tempfile.TemporaryDirectory() as root:
            return index_of_a_million(Path(root))
    scratch = Path(tempfile.mkdtemp(prefix="benchmark-input-", dir=os.environ.get("TMPDIR")))
    try:
        folder = asked.folder or made_folder(scratch / "folder", count)
        data, began = load(folder).train, time.perf_counter()
        if asked.only != "workers":
            recipes.pack(folder, scratch / "pack")
        packing = len(data) / (time.perf_counter() - began)
        size = sum(os.path.getsize(path) for path in data.images) / len(data)
        load_now = ", ".join(f"{number:.1f}" for number in os.getloadavg())
        print(
            f"{len(data)} images of {size / 1000:.0f} KB on average; {platform.machine()}, {os.cpu_count()} cores, "
            f"TensorFlow {tf.__version__}, load {load_now}"
        )
        if asked.only != "workers":
            print(f"packing: {packing:,.0f} images/s\n\n{'images/s':10}{'folder':>10}{'pack':>10}{'pack / folder':>16}"
                  f"{'CPU us: folder':>16}{'pack':>8}", flush=True)  # fmt: skip
            compare_pack(folder, scratch / "pack", rounds)
            compare_far(folder, scratch / "pack", rounds)
        if asked.only != "pack":
            compare_workers(folder, rounds)
    finally:
        shutil.rmtree(scratch)


if __name__ == "__main__":
    main()
