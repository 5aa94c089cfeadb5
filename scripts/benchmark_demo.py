"""What pretraining is worth: the embedded digits with few labels, three ways, over several seeds.

    python scripts/benchmark_demo.py
    python scripts/benchmark_demo.py --seeds 2 --per-class 5

For every seed `--per-class` images a class are drawn for training (a fifth of them chooses the epoch); the accuracy is
that on all others, less the 200 that the backbone was tuned on (scripts/pretrain_glyphs.py). From scratch and
finetuned share the architecture, the augmentation, the batches and the number of epochs. Intervals are 95 %, Student's
t over the seeds; the gain is paired by seed.
"""

import argparse
import contextlib
import io

import numpy as np
from pretrain_glyphs import tuning
from rich.console import Console
from rich.table import Table
from scipy.stats import t

from augment import Policy
from recipes import adjusted, finetune
from recipes.data import Splits
from recipes.digits import digits

ROWS = {"scratch": "from scratch", "probe": "linear classifier, frozen backbone", "all": "finetuned"}


def without(data, names: set):
    return data.subset([i for i, name in enumerate(data.names) if name not in names])


def accuracy(recipe: str, per_class: int, seed: int, epochs: int) -> tuple[float, float]:
    """Held-out accuracy of one training, and its seconds."""
    splits, tuned = digits(per_class, seed), set(tuning().names)
    splits = Splits(splits.train, None, without(splits.test, tuned))
    if recipe != "probe":  # digits are not their mirror images
        recipe = adjusted(recipe, epochs=epochs, patience=epochs, policy=Policy(size=32, short_side=(32, 38), flip=0.0))
    with contextlib.redirect_stdout(io.StringIO()):
        result = finetune(splits, backbone="glyphs", recipe=recipe, seed=seed)
    return result.test.accuracy, sum(result.seconds.values())


def interval(values) -> str:
    """Mean and half width of its 95 % interval, in per cent."""
    values = 100 * np.asarray(values)
    if len(values) < 2:
        return f"{values.mean():.1f}"
    half = t.ppf(0.975, len(values) - 1) * values.std(ddof=1) / np.sqrt(len(values))
    return f"{values.mean():.1f} ± {half:.1f}"


def compare(per_class: int, seeds: int, epochs: int) -> Table:
    table = Table("", "accuracy, %", "gain over scratch, points", "seconds", title=f"{per_class} labels a class")
    scratch = None
    for recipe, name in ROWS.items():
        runs = np.array([accuracy(recipe, per_class, seed, epochs) for seed in range(seeds)])
        right, seconds = runs.T
        scratch = right if scratch is None else scratch
        gain = "" if recipe == "scratch" else interval(right - scratch)
        table.add_row(name, interval(right), gain, f"{seconds.mean():.0f}")
    return table


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--per-class", type=int, nargs="+", default=[5, 20])
    parser.add_argument("--epochs", type=int, default=60)
    asked = parser.parse_args()
    for per_class in asked.per_class:
        Console().print(compare(per_class, asked.seeds, asked.epochs))


if __name__ == "__main__":
    main()
