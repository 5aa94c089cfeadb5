"""What a GPU gives: training steps of ResNet-50, and what each of our layers and optimizers costs, on JAX alone.

    python scripts/benchmark_gpu.py --quick --output gpu.md   # one batch size; sized for less than 4 minutes on an H200
    python scripts/benchmark_gpu.py                           # batches of 64 to 512; begins nothing new after 9 minutes
    python scripts/benchmark_gpu.py --tiny                    # on a CPU, within a minute: that the script works

Needs keras, jax and numpy, no TensorFlow. Where there is no GPU it says so and ends.

The table goes to --output, else to $OUT/gpu.md where OUT is set, and grows with every contest, so that a run that was
stopped leaves what it has measured. All contestants of a contest take turns on data that lie on the device; seconds are
medians over rounds, after a warm-up, each turn awaited to its end.

The network: trained in mixed bfloat16 from uint8 images, all weights, batch statistics frozen as in finetuning (and
live, without --quick), label smoothing. `ours` adds what `recipes.finetune` does: decoupled decay that spares biases,
learning rates by depth, the Polyak average. `plain Keras` is AdamW in fit's step; `train_on_batch` the same, awaited
and read by the host at every step. torch: the same network, channels last, bfloat16 autocast, torch.compile, fused
AdamW, in a process of its own. Operations are counted by hand: two per multiplication of a convolution or product.
"""

import argparse
import os
import re
import subprocess
import sys
import tempfile
import time
from datetime import UTC, datetime
from functools import partial
from pathlib import Path

os.environ["KERAS_BACKEND"] = "jax"
os.environ.setdefault("XLA_PYTHON_CLIENT_MEM_FRACTION", "0.6")  # torch's process needs some, too
ROOT = Path(__file__).resolve().parents[1]
sys.path[:0] = [str(ROOT), str(ROOT / "scripts")]

import jax  # noqa: E402
import keras  # noqa: E402
import numpy as np  # noqa: E402
from gpu_overheads import TINY, Contest, Sizes, layer_contests, optimizer_contests  # noqa: E402
from gpu_steps import race, repeated, residual_network, step_flops, training  # noqa: E402
from jax import numpy as jnp  # noqa: E402
from measurements import Recorder, add_option  # noqa: E402

import optimizers  # noqa: E402

PEAKS = {  # TFLOP/s of dense bfloat16 products by the vendors' data sheets; the first name in the device's own counts
    "H200 NVL": 835, "H200": 989, "H100 PCIe": 756, "H100 NVL": 835, "H100": 989, "A100": 312, "L40S": 362, "L4": 121,
    "B200": 2250,
}  # fmt: skip
TARGETS = {"Adam / Keras": 0.8, "PolyakAveraging / Adam": 1.05}
PARTS = ("rates", "finetune", "layers", "optimizers")


class Skipped(Exception):
    """A contestant that cannot run here."""


class Table:
    """The Markdown that is printed and, after every section, written."""

    def __init__(self, path: Path | None):
        self.path, self.text = path, ""

    def add(self, *lines: str) -> None:
        print(*lines, sep="\n", flush=True)
        self.text += "\n".join(lines) + "\n"
        if self.path:
            self.path.write_text(self.text, encoding="utf-8")


class Torch:
    """The same network in torch, in a process of its own: steps → the seconds that it took."""

    def __init__(self, *options):
        command = [sys.executable, str(ROOT / "scripts" / "torch_residual.py"), *map(str, options)]
        self.errors = tempfile.TemporaryFile("w+")  # noqa: SIM115 as long as the process
        self.process = subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=self.errors, text=True
        )
        self.told = self._answer()
        if self.told.startswith("skipped"):
            raise Skipped(self.told)

    def __call__(self, steps: int) -> float:
        self.process.stdin.write(f"{steps}\n")
        self.process.stdin.flush()
        return float(self._answer())

    def _answer(self) -> str:
        line = self.process.stdout.readline().strip()
        if not line:
            self.process.wait()
            self.errors.seek(0)
            raise RuntimeError(f"torch's process ended: {' '.join(self.errors.read().split()[-30:])}")
        return line

    def close(self) -> None:
        self.process.stdin.close()
        self.process.wait()


class Benchmark:
    def __init__(self, asked):
        self.tiny, self.until, self.failed = asked.tiny, time.monotonic() + asked.limit, 0
        self.rounds = 2 if asked.tiny else 5 if asked.quick else 9
        self.batches, self.live = asked.batches, not (asked.quick or asked.tiny)
        self.sizes = TINY if asked.tiny else Sizes()
        self.side, self.classes = (32, 4) if asked.tiny else (224, 1000)
        self.table, self.device = Table(asked.output), jax.devices()[0]
        self.matrix_rate, self.notes, self.rows = None, [], Recorder("gpu", asked.rows)

    def contest(self, contest: Contest) -> tuple[dict, dict]:
        """(name → seconds a step, name → seconds of building and compiling); says what cannot be measured."""
        ready, building = {}, {}
        for name, make in contest.makers.items():
            began = time.perf_counter()
            if call := self.tried(f"{contest.title}, {name}", make):
                ready[name], building[name] = call, time.perf_counter() - began
        seconds = self.tried(contest.title, lambda: self._race(ready, contest.least)) if ready else None
        for call in ready.values():
            getattr(call, "close", lambda: None)()
        return seconds or {}, building

    def tried(self, what: str, function):
        """Its result; None, and a line in the table, where the time was up, something is missing or it failed.

        One contestant that fails does not cost the others the machine's time.
        """
        try:
            if time.monotonic() > self.until:
                raise Skipped("not measured, the time was up")
            return function()
        except Skipped as why:
            self.notes.append(f"- {what}: {why}")
        except Exception as error:
            self.failed += 1
            self.notes.append(f"- {what}: FAILED, {type(error).__name__}: {' '.join(str(error).split())[:300]}")
        return None

    def _race(self, calls: dict, least: int = 1) -> dict[str, float]:
        return race(calls, self.rounds, turn=0 if self.tiny else 0.2, least=2 if self.tiny else least)

    def end(self) -> None:
        """The table's end, and below it what is missing in it."""
        self.table.add("", *self.notes, *[""] * bool(self.notes))
        self.notes = []

    def rates(self) -> None:
        """What the device does at most: products, memory, images from the host."""
        n, floats = (256, 2**16) if self.tiny else (8192, 2**28)
        a, b = (jnp.asarray(np.random.default_rng(i).normal(size=(n, n)), "bfloat16") for i in range(2))
        x, images = jnp.ones(floats, "float32"), np.zeros((self.batches[0], self.side, self.side, 3), "uint8")
        calls = {
            "product": repeated(jax.jit(jnp.matmul), a, b),
            "memory": repeated(jax.jit(lambda x: x + 1), x),
            "host": repeated(jax.device_put, images, self.device),
        }
        for call in calls.values():
            call(3)
        seconds = self._race(calls)
        self.matrix_rate = 2 * n**3 / seconds["product"]
        peak = self.published
        told = f"; published {peak} TFLOP/s, of which {self.matrix_rate / peak / 1e12:.0%}" if peak else ""
        self.table.add(
            f"- bfloat16 product of two {n} × {n} matrices: {self.matrix_rate / 1e12:.4g} TFLOP/s{told}",
            f"- memory, read and written: {8 * floats / seconds['memory'] / 1e9:.4g} GB/s",
            f"- uint8 images from the host's ordinary memory: {images.nbytes / seconds['host'] / 1e9:.3g} GB/s, "
            f"{len(images) / seconds['host']:.4g} images/s", "",
        )  # fmt: skip
        details = {"published, TFLOP/s": peak} if peak else {}
        self.rows.add(f"bfloat16 product of {n} × {n} matrices", self.matrix_rate / 1e12, "TFLOP/s", details=details)
        self.rows.add("memory, read and written", 8 * floats / seconds["memory"] / 1e9, "GB/s")
        details = {"images/s": len(images) / seconds["host"]}
        self.rows.add(
            "uint8 images from the host's memory", images.nbytes / seconds["host"] / 1e9, "GB/s", details=details
        )

    @property
    def published(self) -> float | None:
        kind = self.device.device_kind
        return next((peak for name, peak in PEAKS.items() if re.search(rf"\b{name}\b", kind)), None)

    def finetune(self) -> None:
        for live in (False, True) if self.live else (False,):
            told = "live" if live else "frozen"
            self.table.add(
                f"### ResNet-50, images of {self.side} px, batch statistics {told}", "",
                "| batch | | ms a step | images/s | TFLOP/s | of the measured rate | of the published | × plain Keras "
                "| build and compile, s |",
                "|---|---|---|---|---|---|---|---|---|",
            )  # fmt: skip
            for batch in self.batches[:1] if live else self.batches:
                self.table.add(*self._sides(batch, live))
            self.end()

    def _sides(self, batch: int, live: bool):
        network = partial(residual_network, self.sizes.blocks, self.sizes.width, self.side, self.classes)
        random = np.random.default_rng(0)
        images = jnp.asarray(random.integers(0, 256, (batch, self.side, self.side, 3)), "uint8")
        data = images, jnp.asarray(np.eye(self.classes)[random.integers(0, self.classes, batch)], "float32")
        flops, plain = [], {}

        def ours():
            model = network()
            for layer in model.layers:
                layer.trainable = live or not isinstance(layer, keras.layers.BatchNormalization)
            adam = optimizers.Adam(1e-5, weight_decay=1e-4)
            self._compile(model, optimizers.Discriminative(adam, optimizers.layerwise_decay(model, 0.7)))
            optimizers.PolyakAveraging().set_model(model)
            flops.append(step_flops(model))
            return self._warm(training(model, data))

        def keras_fit():
            model = plain["model"] = network()
            for layer in model.layers:
                layer.trainable = live or not isinstance(layer, keras.layers.BatchNormalization)
            self._compile(model, keras.optimizers.AdamW(1e-5, weight_decay=1e-4))
            return self._warm(training(model, data))

        def on_batch():
            def run(steps):
                for _ in range(steps):
                    plain["model"].train_on_batch(*data)

            return self._warm(run)

        options = ["--batch", batch, "--size", self.side, "--width", self.sizes.width, "--classes", self.classes]
        options += ["--blocks", *self.sizes.blocks, *["--live-statistics"] * live, *["--cpu"] * self.tiny]
        makers = {"plain Keras": keras_fit, "ours": ours, "plain Keras, train_on_batch": on_batch}
        title = f"ResNet-50, batches of {batch}" + (", live batch statistics" if live else "")
        seconds, building = self.contest(Contest(title, makers | {"torch": partial(Torch, *options)}))
        for name, took in seconds.items():
            rate = batch / took
            work = rate * flops[0] if flops else 0
            shares = [work / peak if peak and work else None for peak in (self.matrix_rate, self.published_flops)]
            ratio = _ratio(took, seconds.get("plain Keras"))
            details = {"ms a step": 1e3 * took, "TFLOP/s": work / 1e12, "share of the measured product rate": shares[0],
                       "share of the published rate": shares[1], "× plain Keras": ratio,
                       "build and compile, s": building[name]}  # fmt: skip
            details = {key: value for key, value in details.items() if value not in (None, "")}
            self.rows.add(f"{title}, {self.side} px: {name}", rate, "images/s", details=details)
            yield (
                f"| {batch} | {name} | {1e3 * took:.2f} | {rate:,.0f} | {work / 1e12:.4g} | "
                + " | ".join("" if share is None else f"{share:.1%}" for share in shares)
                + f" | {ratio} | {building[name]:.0f} |"
            )

    @property
    def published_flops(self):
        return self.published and 1e12 * self.published

    @staticmethod
    def _compile(model, optimizer):
        model.compile(optimizer, keras.losses.CategoricalCrossentropy(from_logits=True, label_smoothing=0.1))

    @staticmethod
    def _warm(call):
        call(3)
        return call

    def ratios(self, title: str, contests: list[Contest]) -> None:
        self.table.add(f"### {title}", "", "| in | | ms a step | against | ms | ratio |", "|---|---|---|---|---|---|")
        for contest in contests:
            base, *others = contest.makers
            seconds, _ = self.contest(contest)
            for name in others:
                if name in seconds and base in seconds:
                    pair = f"{1e3 * seconds[name]:.3f} | {base} | {1e3 * seconds[base]:.3f}"
                    self.table.add(f"| {contest.title} | {name} | {pair} | {seconds[name] / seconds[base]:.2f} |")
                    details = {f"{side}, ms a step": 1e3 * seconds[side] for side in (name, base)}
                    target = {"at_most": TARGETS.get(f"{name} / {base}")}
                    full = f"{contest.title}: {name} / {base}"
                    self.rows.add(full, seconds[name] / seconds[base], "×", details=details, **target)
        self.end()


def _ratio(seconds: float, plain: float | None) -> str:
    return f"{plain / seconds:.2f}" if plain else ""


def parse(arguments=None):
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="batches of 256 only, nothing new after 210 seconds")
    parser.add_argument("--tiny", action="store_true", help="two steps of tiny networks, on a CPU too")
    parser.add_argument("--only", nargs="+", choices=PARTS, default=PARTS)
    parser.add_argument("--batches", type=int, nargs="+", help="256 64 128 512 in this order, unless told otherwise")
    parser.add_argument("--limit", type=float, help="seconds after which nothing new is begun: 540, 210 with --quick")
    parser.add_argument("--output", type=Path, help="write the Markdown here")
    add_option(parser)
    asked = parser.parse_args(arguments)
    asked.batches = asked.batches or ([4] if asked.tiny else [256] if asked.quick else [256, 64, 128, 512])
    asked.limit = asked.limit or (210 if asked.quick else 540)
    asked.output = asked.output or (Path(os.environ["OUT"]) / "gpu.md" if os.environ.get("OUT") else None)
    asked.rows = asked.rows or (Path(os.environ["OUT"]) / "rows" if os.environ.get("OUT") else None)
    return asked


def main(arguments=None) -> int:
    asked, device = parse(arguments), jax.devices()[0]
    if device.platform != "gpu" and not asked.tiny:
        print(f"benchmark_gpu: skipped, JAX sees no GPU, only {device.device_kind}; --tiny tries the script on a CPU")
        return 0
    keras.config.set_dtype_policy("mixed_bfloat16")
    keras.utils.set_random_seed(0)
    run = Benchmark(asked)
    today = datetime.now(UTC).date()
    mode = "quick" if asked.quick else "tiny: the figures mean nothing" if asked.tiny else "full"
    run.table.add(
        f"{today}, {device.device_kind}, Keras {keras.__version__}, JAX {jax.__version__}, "
        f"Python {sys.version.split()[0]}, {os.cpu_count()} processors; {mode}", "",
    )  # fmt: skip
    parts = {
        "rates": lambda: run.tried("the device's rates", run.rates),
        "finetune": run.finetune,
        "layers": lambda: run.ratios("Layers", layer_contests(run.sizes)),
        "optimizers": lambda: run.ratios("Optimizers", optimizer_contests(run.sizes)),
    }
    for name in asked.only:
        parts[name]()
    return 1 if run.failed else 0


if __name__ == "__main__":
    sys.exit(main())
