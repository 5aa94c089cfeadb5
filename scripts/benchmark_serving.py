"""What `recipes serve` answers in a second, against the Keras model called directly in a loop, in one run.

    python scripts/benchmark_serving.py --photos ../shared/data/hymenoptera --weights ../shared/weights [--work DIR]

Prints requests per second and latency (median and 99th percentile) at concurrency 1, 8 and 64, the ratio to the loop,
how many requests were lost or answered wrongly, and the server's resident memory over all of them. Client and server
share the machine. `--work` keeps the trained run and its export for the next time.
"""

import argparse
import asyncio
import base64
import json
import os
import platform
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from urllib.parse import urlsplit

import numpy as np
from measurements import Recorder, add_option

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))
CONCURRENCY = (1, 8, 64)
ROUNDS = 3
LOOPS = ("loop", "tf.function loop")
SIDES = {"loop": "the Keras model in a loop", "tf.function loop": "the compiled loop", "serve": "recipes serve"}


def main():
    arguments = parse()
    if arguments.weights:
        home = Path(tempfile.mkdtemp())
        (home / "models").symlink_to(arguments.weights.resolve())
        os.environ["KERAS_HOME"] = str(home)
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    work = arguments.work or Path(tempfile.mkdtemp())
    result, photos = prepare(work, arguments.photos)
    if arguments.prepare:
        return
    print(f"{machine()}; {result.backbone}, {result.recipe.evaluation_policy.size} px, {len(photos)} photos")
    with Server(work / "serving") as server:
        measure(result, photos, server, arguments.requests, Recorder("serving", arguments.rows))


def parse():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--photos", type=Path, required=True, help="a folder of class folders, or of splits of them")
    parser.add_argument("--weights", type=Path, help="folder of ImageNet weights, where Keras cannot download them")
    parser.add_argument("--backbone", default="MobileNetV2(alpha=0.35)")
    parser.add_argument("--work", type=Path, help="keep run and export here")
    parser.add_argument("--prepare", action="store_true", help="train and export into --work, measure nothing")
    parser.add_argument("--requests", type=int, default=10_000, help="at the highest concurrency, all rounds together")
    add_option(parser)
    arguments = parser.parse_args()
    prepare.backbone = arguments.backbone
    return arguments


def machine() -> str:
    model = next((line for line in Path("/proc/cpuinfo").read_text().splitlines() if "model name" in line), "")
    kind = model.split(":")[-1].strip() or platform.processor()
    return f"{kind}, {os.cpu_count()} cores, load average {os.getloadavg()[0]:.1f} before"


def prepare(work: Path, photos: Path):
    import recipes
    from recipes.data.folders.reader import images_of

    if not (work / "run").is_dir():
        recipes.finetune(photos, backbone=prepare.backbone, recipe="probe", output=work / "run")
    result = recipes.load(work / "run")
    if not (work / "serving").is_dir():
        result.export(work / "serving")
    files = [path for path in images_of(photos) if path.endswith((".jpg", ".jpeg"))]
    return result, [Path(file).read_bytes() for file in files[:: max(1, len(files) // 64)]]


def measure(result, photos, server, requests: int, record: Recorder):
    predictions = result.predict(photos)
    payloads = [payload(photo, server.port) for photo in photos]
    expected = [p.class_name for p in predictions]
    rows = {("loop", 1): [], ("tf.function loop", 1): []} | {("serve", c): [] for c in CONCURRENCY}
    lost = wrong = 0
    sizes = []
    counts = {1: 100, 8: 400, 64: requests // ROUNDS + 1}
    for call in callers(result).values():
        call(photos[:8])  # warm
    asyncio.run(clients(server.port, payloads, expected, 64, 200))
    for _ in range(ROUNDS):
        for kind, call in callers(result).items():
            rows[kind, 1].append(timed(call, photos))
        for c in CONCURRENCY:
            told = asyncio.run(
                clients(server.port, payloads, expected, c, counts[c], server.resident if c == 64 else None)
            )
            rows["serve", c].append(told[:2])
            lost, wrong, sizes = lost + told[2], wrong + told[3], sizes + told[4]
    loops = {kind: statistics.median(rate for rate, _ in rows[kind, 1]) for kind in LOOPS}
    base = loops["loop"]
    print(f"{'':>18} {'at once':>7} {'images/s':>9} {'p50, ms':>8} {'p99, ms':>8} {'× loop':>7}")
    for (kind, c), runs in rows.items():
        rate = statistics.median(rate for rate, _ in runs)
        p50, p99 = (statistics.median(np.percentile(times, q) for _, times in runs) for q in (50, 99))
        print(f"{kind:>18} {c:>7} {rate:>9.1f} {1000 * p50:>8.1f} {1000 * p99:>8.1f} {rate / base:>7.2f}")
        details = {"images/s": rate, "p50, ms": 1000 * p50, "p99, ms": 1000 * p99}
        for loop in LOOPS if kind == "serve" else ["loop"] if kind != "loop" else []:
            target = {"at_least": 2.0} if c == 64 else {}
            name = f"{SIDES[kind]}{f', {c} at once' if kind == 'serve' else ''} / {SIDES[loop]}"
            record.add(name, rate / loops[loop], "×", details=details | {"loop, images/s": loops[loop]}, **target)
    answered = ROUNDS * sum(counts.values())
    print(f"{answered:,} requests: {lost} lost, {wrong} answered otherwise than Result.predict")
    record.add("requests lost or answered otherwise than by Result.predict", lost + wrong, "", at_most=0,
               details={"requests": answered})  # fmt: skip
    quarter = [statistics.median(part) / 2**20 for part in np.array_split(sizes, 4)]
    print("server's memory by quarters of the requests at 64, MiB: " + ", ".join(f"{size:.0f}" for size in quarter))
    details = {f"quarter {i + 1}, MiB": size for i, size in enumerate(quarter)}
    record.add(
        "the server's memory, last quarter of the requests / first", quarter[-1] / quarter[0], "×", details=details
    )


def callers(result) -> dict:
    """The model called directly, image by image: as one writes it first, and with the graph compiled."""
    import tensorflow as tf

    import augment

    model, policy = result.model, result.recipe.evaluation_policy

    def one(photo):
        return model(augment.centre_crop(photo, policy)[None], training=False)

    if not hasattr(callers, "graph"):
        callers.graph = tf.function(one, input_signature=[tf.TensorSpec([], tf.string)], autograph=False)
    return {
        "loop": lambda photos: [lap(one, photo) for photo in photos],
        "tf.function loop": lambda photos: [lap(callers.graph, tf.constant(photo)) for photo in photos],
    }


def lap(call, photo) -> float:
    began = time.perf_counter()
    np.asarray(call(photo))
    return time.perf_counter() - began


def timed(call, photos):
    times = call(photos)
    return len(photos) / sum(times), times


def payload(photo: bytes, port: int) -> bytes:
    body = json.dumps({"signature_name": "rows", "instances": [{"b64": base64.b64encode(photo).decode()}]}).encode()
    head = f"POST /v1/models/serving:predict HTTP/1.1\r\nHost: 127.0.0.1:{port}\r\nContent-Length: {len(body)}\r\n\r\n"
    return head.encode() + body


async def clients(port, payloads, expected, concurrency: int, count: int, resident=None):
    """(requests per second, latencies, lost, answered otherwise, the server's memory now and then)."""
    todo, times, sizes = iter(range(count)), [], []
    bad = {"lost": 0, "wrong": 0}

    async def client():
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        for i in todo:
            began = time.perf_counter()
            writer.write(payloads[i % len(payloads)])
            await writer.drain()
            head = await reader.readuntil(b"\r\n\r\n")
            length = int(head.lower().split(b"content-length:")[1].split(b"\r\n")[0])
            told = json.loads(await reader.readexactly(length))
            times.append(time.perf_counter() - began)
            if not head.startswith(b"HTTP/1.1 200"):
                bad["lost"] += 1
            elif told["predictions"][0]["class_name"] != expected[i % len(payloads)]:
                bad["wrong"] += 1
            if resident and i % 50 == 0:
                sizes.append(resident())
        writer.close()

    began = time.perf_counter()
    done = await asyncio.gather(*(client() for _ in range(concurrency)), return_exceptions=True)
    seconds = time.perf_counter() - began
    for problem in filter(None, done):
        print(f"a client failed: {problem!r}")
    return count / seconds, times, bad["lost"] + count - len(times), bad["wrong"], sizes


class Server:
    """`recipes serve` in a process of its own."""

    def __init__(self, directory: Path):
        self._directory = directory

    def __enter__(self):
        command = [
            sys.executable,
            "-u",
            "-m",
            "recipes",
            "serve",
            str(self._directory),
            "--port",
            "0",
            "--name",
            "serving",
        ]
        self._process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True, cwd=ROOT)
        for line in self._process.stdout:
            if line.startswith("page: "):
                self.port = urlsplit(line.split()[1]).port
                return self
        raise SystemExit("the server did not start")

    def resident(self) -> int:
        """Bytes of memory."""
        return int(Path(f"/proc/{self._process.pid}/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")

    def __exit__(self, *problem):
        self._process.terminate()
        self._process.wait()


if __name__ == "__main__":
    main()
