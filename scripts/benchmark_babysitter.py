"""What the callback `recipes.Babysitter` costs a training: seconds of an epoch with it and without it.

    python scripts/benchmark_babysitter.py [--rounds 5]

MobileNetV2(alpha=0.35) with random weights on 320 made images of 96 pixels, batches of 32, TensorBoard logs written;
both sides in turn in one process, medians. To reach: 1.03.
"""

import argparse
import os
import statistics
import tempfile
import time

from measurements import Recorder, add_option


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--epochs", type=int, default=4)
    add_option(parser)
    asked = parser.parse_args()
    rows = Recorder("babysitter", asked.rows)
    os.environ["TF_CPP_MIN_LOG_LEVEL"] = "3"
    import keras
    import numpy as np
    from benchmark_finetune import machine

    import recipes

    random = np.random.default_rng(0)
    images, labels = random.uniform(-1, 1, (320, 96, 96, 3)).astype("float32"), random.integers(0, 10, 320)
    model = keras.applications.MobileNetV2((96, 96, 3), alpha=0.35, weights=None, classes=10)
    model.compile("adam", "sparse_categorical_crossentropy", metrics=["accuracy"])
    model.fit(images, labels, batch_size=32, verbose=0)  # traces
    spent, looks, insides, costs = {"without": [], "with": []}, 0, 0, []
    for _ in range(asked.rounds):
        for side, times in spent.items():
            watcher = recipes.Babysitter(tempfile.mkdtemp(), quiet=True, sample=(images, labels))
            began = time.perf_counter()
            callbacks = [watcher] if side == "with" else []
            model.fit(images, labels, batch_size=32, epochs=asked.epochs, verbose=0, callbacks=callbacks)
            times.append((time.perf_counter() - began) / asked.epochs)
            if side == "with":
                looks, insides = len(watcher.ratios), len(watcher.insides)
                costs.append(watcher.cost)
    without, with_it = (statistics.median(times) for times in spent.values())
    print(f"epoch of 10 steps: {without:.2f} s without, {with_it:.2f} s with {looks} looks at the weights and", end=" ")
    print(f"{insides} inside in {asked.epochs} epochs")
    print(f"looking itself: {statistics.median(costs):.1%} of the time of its training")
    print(f"ratio {with_it / without:.3f} (to reach 1.03); {machine()}")
    details = {"epoch with, s": with_it, "epoch without, s": without, "epochs": asked.epochs, "looks at weights": looks,
               "looks inside": insides, "share of the time spent looking": statistics.median(costs)}  # fmt: skip
    name = "epoch with Babysitter / without"
    rows.add(name, with_it / without, "×", at_most=1.03, limit=1.0, limit_text="no watching", details=details)


if __name__ == "__main__":
    main()
