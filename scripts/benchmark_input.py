"""Images per second from a folder and from the pack of it; from one input worker and from two.

    python scripts/benchmark_input.py [FOLDER of class folders] [--quick] [--only pack|workers|index] [--share 0.4]

Pack: both sides take turns in one run, medians of the rounds, both shuffled as a training shuffles. `read` is reading
alone; `forgotten` reads what the page cache was asked to forget; `batches` is what a training waits for, augmented at
224 pixels; `far` is reading alone where each opening and each reading of a file lasts 2 ms longer (simulated by
slow_files.c, which needs a C compiler). Seconds depend on what else runs, processor time an image less so. To reach: at
least the folder's speed in batches, forgotten and far.

Index: what a million rows take on the disk, in memory, and to open; asked for alone.

Workers: each is a process on cores of its own, the trainer is simulated by whatever takes the batches as fast as they
come, on the cores that are left. To reach, where there are at least six cores: two workers 1.6 times as fast as one.
On fewer, --share 0.4 gives each worker that much of a core and no more (Linux control groups, needs root): both then
fit on one core, and what takes the batches has another to itself. It shows whether taking turns and receiving from
several at once hold workers up; not what whole cores would give, nor the network between machines.
Without a folder the JPEGs are made from noise with the spectrum of photos, about 110 KB each.
"""

import argparse
import json
import os
import platform
import shutil
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
from measurements import Recorder, add_option  # noqa: E402

import augment  # noqa: E402
import recipes  # noqa: E402
from augment.guard import PARALLEL_CALLS  # noqa: E402
from recipes.data.packs.manifest import INDEX, MANIFEST, Manifest, Shard, sha256, write_index  # noqa: E402
from recipes.data.packs.records import FRAME  # noqa: E402
from recipes.data.sources import load  # noqa: E402
from recipes.training.input.stream import Remote  # noqa: E402
from recipes.training.input.workers import InputWorkers  # noqa: E402

BATCH, POLICY = 64, augment.Policy.light(224)
PACK_ROWS = {
    "read": "reading alone from the page cache",
    "forgotten": "reading alone after the page cache was asked to forget",
    "batches": "augmented batches from the page cache",
    "far": "reading alone, each opening and reading of a file 2 ms longer",
}


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


def compare_pack(folder: Path, packed: Path, rounds: int, rows=("read", "forgotten", "batches")) -> dict:
    """Row → images per second of the folder and of the pack, processor time an image of both in microseconds."""
    figures = {}
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
        figures[told] = [float(value) for value in (rate, rate_, used, used_)]
    return figures


def record_pack(rows: Recorder, figures: dict) -> None:
    for told, (rate, rate_, used, used_) in figures.items():
        details = {"folder, images/s": rate, "pack, images/s": rate_, "folder, µs of processor an image": used,
                   "pack, µs of processor an image": used_}  # fmt: skip
        rows.add(f"pack / folder, {PACK_ROWS[told]}", rate_ / rate, "×", at_least=1.0, details=details)


def compare_far(folder: Path, packed: Path, rounds: int) -> dict:
    """`compare_pack` in a process whose files are slow."""
    library = packed.parent / "slow_files.so"
    subprocess.run(["cc", "-shared", "-fPIC", "-O2", "-o", library, ROOT / "scripts/slow_files.c", "-ldl"], check=True)
    slow = {"LD_PRELOAD": str(library), "SLOW_FILES": f"{folder.resolve()}:{packed.resolve()}"}
    program = "from benchmark_input import *; import sys; a, b, n = sys.argv[1:]\n"
    program += "print(json.dumps(compare_pack(Path(a), Path(b), int(n), ['far'])))"
    command = [sys.executable, "-c", program, folder.resolve(), packed.resolve(), str(rounds)]
    environment = os.environ | slow | {"SLOW_MICROSECONDS": "2000", "PYTHONPATH": f"{ROOT}:{ROOT / 'scripts'}"}
    *lines, figures = subprocess.run(
        command, check=True, env=environment, stdout=subprocess.PIPE, text=True
    ).stdout.splitlines()
    print(*lines, sep="\n", flush=True)
    return json.loads(figures)


class Worker:
    """`recipes input-worker` in a process on the given cores.

    share: of a core, that it gets at most; 0: no limit.
    """

    def __init__(self, cores: list[int], share: float):
        command = [sys.executable, "-m", "recipes", "input-worker", "--host", "localhost", "--port", "0"]
        with_cores = ["taskset", "-c", ",".join(map(str, cores)), *command]
        self.process = subprocess.Popen(with_cores, stdout=subprocess.PIPE, text=True, cwd=ROOT)
        self.address = [self.process.stdout.readline() for _ in range(2)][1].split()[-1]
        self.group = self._limited(share) if share else None

    def _limited(self, share: float) -> Path:
        """The control group that the process is in from here on."""
        root, period = Path("/sys/fs/cgroup"), 20_000  # microseconds
        limits = {"cpu.max": f"{share * period:.0f} {period}"}
        if (root / "cpu").is_dir():  # version 1 of control groups
            root, limits = root / "cpu", {"cpu.cfs_period_us": period, "cpu.cfs_quota_us": f"{share * period:.0f}"}
        else:
            (root / "cgroup.subtree_control").write_text("+cpu")
        group = root / f"benchmark-input-{self.process.pid}"
        group.mkdir()
        for name, value in (limits | {"cgroup.procs": self.process.pid}).items():
            (group / name).write_text(str(value))
        return group

    def used(self) -> float:
        """Seconds of processor so far."""
        fields = Path(f"/proc/{self.process.pid}/stat").read_text().rpartition(")")[2].split()
        return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")

    def close(self) -> None:
        self.process.kill()
        self.process.wait()
        if self.group:
            self.group.rmdir()


def transport(address: str, count: int, rows: Recorder) -> None:
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
    rows.add("sending alone, one input worker", rate, "images/s", details={"MB/s": rate * size / 1e6})


def compare_workers(folder: Path, rounds: int, share: float, rows: Recorder) -> None:
    cores = sorted(os.sched_getaffinity(0))
    each = max(1, len(cores) // 3)
    places = [cores[:1]] * 2 if share else [cores[:each], cores[each : 2 * each]]
    left = [core for core in cores if not any(core in place for place in places)] or cores
    workers = []
    try:
        for place in places:
            workers.append(Worker(place, share))
        for thread in os.listdir("/proc/self/task"):
            os.sched_setaffinity(int(thread), left)
        told = f"{share:g} of one core for each worker" if share else f"{each} for each worker"
        print(f"\n{len(cores)} cores: {told}, {len(left)} for what takes the batches")
        transport(workers[0].address, 6 * BATCH if rounds < 3 else 40 * BATCH, rows)
        data, found = load(folder).train, {1: [], 2: []}
        for number in range(rounds + 1):
            for count in found:
                found[count].append(taken(data, workers[:count], number))
        one, two = (np.median(rates[1:], 0) for rates in found.values())
        print(f"{'workers':10}{'images/s':>10}{'cores used: each worker':>26}{'what takes the batches':>26}")
        for count, (rate, busy, mine) in ((1, one), (2, two)):
            print(f"{count:<10}{rate:10,.0f}{busy:26.2f}{mine:26.2f}")
        ratios = ", ".join(f"{b[0] / a[0]:.2f}" for a, b in zip(found[1][1:], found[2][1:], strict=True))
        print(f"ratio {two[0] / one[0]:.2f} (round by round: {ratios}); load {os.getloadavg()[0]:.1f}")
        details = {"one, images/s": one[0], "two, images/s": two[0], "cores used by each of two": two[1],
                   "by what takes the batches": two[2], "rounds": ratios, "cores for each": told}  # fmt: skip
        rows.add("two input workers / one", two[0] / one[0], "×", at_least=1.6, details=details)
        if len(cores) < 6 and not share:
            print("with fewer than six cores the workers share theirs with what takes the batches: no proof either way")
    finally:
        for worker in workers:
            worker.close()


def taken(data, workers: list[Worker], epoch: int) -> tuple[float, float, float]:
    """Images per second of two epochs, taken as fast as they come; cores that a worker and that this process used."""
    used = InputWorkers([worker.address for worker in workers]).checked(data)
    stream = iter(
        used.workers.batches(used, POLICY, batch_size=BATCH, seed=0, start=epoch, stop=epoch + 2, first_batch=0)
    )
    for _ in range(2 * len(workers)):  # until the kernels are compiled and the queues run
        next(stream)
    busy, mine, began = sum(worker.used() for worker in workers), time.process_time(), time.perf_counter()
    images = sum(int(x.shape[0]) for x, _ in stream)
    seconds = time.perf_counter() - began
    busy = (sum(worker.used() for worker in workers) - busy) / len(workers)
    return images / seconds, busy / seconds, (time.process_time() - mine) / seconds


def index_of_a_million(root: Path, record: Recorder, rows: int = 1_000_000) -> None:
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
    in_memory = (resident() - before) / rows
    print(
        f"{source.size:,} rows, names of {len(names[0])} bytes: {on_disk:.0f} bytes a row on the disk, "
        f"{in_memory:.0f} in memory, opened in {seconds:.1f} s; load {os.getloadavg()[0]:.1f}"
    )
    details = {"bytes a row on the disk": on_disk, "bytes a name": len(names[0]), "seconds to open": seconds}
    record.add(f"memory of the index of a pack of {source.size:,} images", in_memory, "bytes a row", details=details)


def resident() -> int:
    """Bytes of this process in memory."""
    return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", nargs="?", type=Path)
    parser.add_argument("--quick", action="store_true", help="few images, two rounds")
    parser.add_argument("--only", choices=("pack", "workers", "index"))
    parser.add_argument(
        "--share", type=float, default=0.0, help="of a core, that each worker gets at most, such as 0.4"
    )
    add_option(parser)
    asked = parser.parse_args()
    recorder = Recorder("input", asked.rows)
    count, rounds = (256, 2) if asked.quick else (2048, 5)
    if asked.only == "index":
        with tempfile.TemporaryDirectory() as root:
            return index_of_a_million(Path(root), recorder)
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
            recorder.add("packing", packing, "images/s")
            record_pack(recorder, compare_pack(folder, scratch / "pack", rounds))
            record_pack(recorder, compare_far(folder, scratch / "pack", rounds))
        if asked.only != "pack":
            compare_workers(folder, rounds, asked.share, recorder)
    finally:
        shutil.rmtree(scratch)


if __name__ == "__main__":
    main()
