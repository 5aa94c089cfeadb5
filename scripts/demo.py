"""The lecture's story in miniature: few handwritten digits, seen by a network that knows printed glyphs.

    scripts/demo [--per-class 5] [--seed 0] [--output demo]

Three trainings on the same labelled images with the same number of epochs: from scratch, a linear classifier on the
frozen pretrained backbone, and finetuned. The accuracy is that on all digits that were not drawn as labelled.
"""

import argparse
from pathlib import Path

from rich.console import Console
from rich.table import Table

import recipes
from recipes.cli.command import start_tensorflow

EPOCHS = 60
ROWS = {"scratch": "from scratch", "probe": "linear classifier on the frozen backbone", "all": "finetuned"}


def recipe_for(name: str):
    """The same for both trainings: epochs, augmentation (digits are not their mirror images), no label smoothing."""
    if name == "probe":
        return name
    policy = recipes.augment.Policy(size=32, short_side=(32, 38), flip=0.0)
    return recipes.adjusted(name, epochs=EPOCHS, patience=EPOCHS, policy=policy, label_smoothing=0.0)


def next_version(folder: Path) -> Path:
    """folder/1, or the number after the highest there, as TensorFlow Serving counts."""
    taken = [int(path.name) for path in folder.glob("*") if path.name.isdigit()]
    return folder / str(max(taken, default=0) + 1)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--per-class", type=int, default=5)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--output", type=Path, default=Path("demo"))
    args = parser.parse_args()
    start_tensorflow(verbose=False)
    from recipes.data.digits import digits  # imports TensorFlow, which is quiet from here on

    splits = digits(per_class=args.per_class, seed=args.seed)
    table = Table("", "accuracy", "95 % interval", "seconds",
                  title=f"{len(splits.train)} labelled digits, {len(splits.test)} others to classify")  # fmt: skip
    for name, title in ROWS.items():
        print(f"\n{title}:")
        output = args.output / f"run-{name}-{args.per_class}-{args.seed}"
        result = recipes.finetune(splits, backbone="glyphs", recipe=recipe_for(name), seed=args.seed, output=output)
        low, high = result.test.interval
        table.add_row(
            title, f"{result.test.accuracy:.1%}", f"{low:.1%} to {high:.1%}", f"{sum(result.seconds.values()):.0f}"
        )
    serving = next_version(args.output / "serving")
    result.report(output / "report.html")
    result.export(serving)
    Console().print(table)
    print(f"report:     {output / 'report.html'}\nrun:        {output}\nSavedModel: {serving}")
    print("\nYour own photos, one folder per class:")
    print(f"  {Path('.venv/bin/recipes')} finetune PHOTOS -o run")


if __name__ == "__main__":
    main()
