"""What keeping the state of a training costs: the same training with it and without, in turn, in one process.

    python scripts/benchmark_checkpoint.py [--images 640] [--epochs 3] [--rounds 2] [--size 96]

MobileNetV2(alpha=0.35) with random weights, all of it trained on scikit-learn's digits enlarged to `size`, with the
Polyak average that `finetune` keeps. Seconds are from the end of the first step, which traces, to the last state on
disk; medians of the rounds. Target: at most 3 %.
"""

import argparse
import os
import platform
import statistics
import tempfile
import time
from dataclasses import replace
from pathlib import Path

from measurements import Recorder, add_option


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--images", type=int, default=640)
    parser.add_argument("--epochs", type=int, default=3)
    parser.add_argument("--rounds", type=int, default=2)
    parser.add_argument("--size", type=int, default=96)
    add_option(parser)
    asked = parser.parse_args()
    rows = Recorder("checkpoint", asked.rows)
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    import keras

    import recipes
    from recipes.data.digits import digits
    from recipes.networks.backbones import resolve
    from recipes.networks.classifier import logits_model
    from recipes.training.checkpoints import Checkpoints
    from recipes.training.loop.loop import Training
    from recipes.training.loop.task import Task

    class Counted(Checkpoints):
        seconds = ()

        def keep(self, state, *, on_disk=True):
            began = time.perf_counter()
            super().keep(state, on_disk=on_disk)
            self.seconds += (time.perf_counter() - began,) if on_disk else ()

    class Never(Checkpoints):
        """Keeps what a training begins from and ends in, in memory."""

        due = False

    class Stopwatch(keras.callbacks.Callback):
        def on_train_batch_end(self, batch, logs=None):
            self.began = getattr(self, "began", None) or time.perf_counter()

        def on_train_end(self, logs=None):
            self.seconds = time.perf_counter() - self.began

    data = digits(asked.images // 10).train
    recipe = replace(recipes.finetune_all(asked.size, asked.images), epochs=asked.epochs)
    model = logits_model(resolve("MobileNetV2(alpha=0.35, weights=None)"), 10, asked.size, dropout=0.2)
    weights, spent = model.get_weights(), {"without": [], "with": []}
    shares = []
    with tempfile.TemporaryDirectory() as folder:
        for turn in range(asked.rounds):
            for side in ("with", "without") if turn % 2 else ("without", "with"):
                kept = Counted(Path(folder) / f"{turn}.npz") if side == "with" else Never()
                watch = Stopwatch()
                model.set_weights(weights)
                Training(Task(model, data, recipe, seed=0), kept).run(recipe.epochs, [watch])
                spent[side].append(watch.seconds)
                if side == "with":
                    size = (Path(folder) / f"{turn}.npz").stat().st_size
                    shares.append(sum(kept.seconds) / watch.seconds)
                    told = f"{len(kept.seconds)} states of {1000 * statistics.median(kept.seconds):.0f} ms a training"
    medians = {side: statistics.median(seconds) for side, seconds in spent.items()}
    print(f"{platform.processor() or platform.machine()}, {os.cpu_count()} cores; states of {size / 2**20:.1f} MiB")
    for side, seconds in medians.items():
        print(f"{side:8} {seconds:7.2f} s  of {', '.join(f'{s:.2f}' for s in spent[side])}")
    print(f"ratio {medians['with'] / medians['without']:.3f}; inside `keep` {statistics.median(shares):.1%}; {told}")
    details = {"states": told, "MiB a state": size / 2**20}
    share = 100 * statistics.median(shares)
    rows.add("share of a training spent on keeping states", share, "%", at_most=3.0, details=details)
    details = {"with, s": medians["with"], "without, s": medians["without"]}
    rows.add("training with states / without", medians["with"] / medians["without"], "×", at_most=1.03, details=details)


if __name__ == "__main__":
    main()
