"""What pretraining is worth: the demo's three trainings over several seeds.

    python scripts/benchmark_demo.py
    python scripts/benchmark_demo.py --seeds 2 --per-class 5

For every seed `--per-class` images a class are drawn for training (a fifth of them chooses the epoch); the accuracy is
that on all others, less the 200 that the backbone was tuned on (scripts/pretrain_glyphs.py). From scratch and
finetuned share the architecture, the augmentation, the batches and the number of epochs (scripts/demo.py). Intervals
are 95 %, Student's t over the seeds; the gain is paired by seed.
"""

import argparse
import contextlib
import io

import numpy as np
from demo import ROWS, recipe_for
from measurements import Recorder, add_option
from pretrain_glyphs import tuning
from rich.console import Console
from rich.table import Table
from scipy.stats import t

from recipes import finetune
from recipes.data.digits import digits
from recipes.data.images import Splits


def without(data, names: set[str]):
    """The images of `data` that are not among `names`."""
    return data.subset([i for i, name in enumerate(data.names) if name not in names])


def accuracy(row: str, per_class: int, seed: int) -> tuple[float, float]:
    """Held-out accuracy of one training, and its seconds."""
    splits = digits(per_class, seed)
    splits = Splits(splits.train, None, without(splits.test, set(tuning().names)))
    with contextlib.redirect_stdout(io.StringIO()):
        result = finetune(splits, backbone="glyphs", recipe=recipe_for(row), seed=seed)
    return result.test.accuracy, sum(result.seconds.values())


def interval(values) -> str:
    """Mean and half width of its 95 % interval, in per cent."""
    values = 100 * np.asarray(values)
    if len(values) < 2:
        return f"{values.mean():.1f}"
    half = t.ppf(0.975, len(values) - 1) * values.std(ddof=1) / np.sqrt(len(values))
    return f"{values.mean():.1f} ± {half:.1f}"


def compare(per_class: int, seeds: int, rows: Recorder) -> Table:
    table = Table("", "accuracy, %", "gain, points", "seconds", title=f"{per_class} labels a class, {seeds} seeds")
    scratch = None
    for row, title in ROWS.items():
        right, seconds = np.array([accuracy(row, per_class, seed) for seed in range(seeds)]).T
        scratch = right if scratch is None else scratch
        gain = "" if right is scratch else interval(right - scratch)
        table.add_row(title, interval(right), gain, f"{seconds.mean():.0f}")
        details = {"accuracy, %": interval(right), "gain, points": gain, "seconds": seconds.mean(), "seeds": seeds}
        rows.add(f"{title}, {per_class} labels a class", 100 * right.mean(), "%", details=details)
        if row == "all":
            name = f"finetuned − from scratch, {per_class} labels a class"
            target = {"at_least": 5.0} if per_class == 5 else {}
            rows.add(name, 100 * (right - scratch).mean(), "points", details={"gain, points": gain}, **target)
    return table


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--per-class", type=int, nargs="+", default=[5, 20])
    add_option(parser)
    asked = parser.parse_args()
    rows = Recorder("demo", asked.rows)
    for per_class in asked.per_class:
        Console().print(compare(per_class, asked.seeds, rows))


if __name__ == "__main__":
    main()
