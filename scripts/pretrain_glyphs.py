"""Make recipes/assets/glyphs.keras, the backbone "glyphs", from nothing but matplotlib's fonts.

    python scripts/pretrain_glyphs.py                 # 628 s on 2 cores shared with four other jobs

The drawing, the network and the recipe were chosen by linear classifiers on the frozen features of 200 of
scikit-learn's digits, `tuning()` below: 10 draws of 5 a class, each scored on the other 150 of them. No digit takes
part in the training itself, and scripts/benchmark_demo.py leaves those 200 out of what it reports.
"""

import argparse
import tempfile
import time
from pathlib import Path

from augment import Policy
from recipes.data.digits import digits
from recipes.data.glyphs import glyphs
from recipes.data.images import ImageData
from recipes.planning.recipe import Recipe
from recipes.pretraining import BACKBONE, pretrain

ASSET = Path(__file__).resolve().parent.parent / "recipes" / "assets" / "glyphs.keras"
LIMIT = 1_000_000  # bytes
TUNING_SEED = 1000


def tuning() -> ImageData:
    """The only digits that choices were made on: 20 a class."""
    return digits(per_class=20, seed=TUNING_SEED).train


def recipe(epochs: int) -> Recipe:
    """No mirror images: most characters are not theirs. The drawing has varied everything else already."""
    return Recipe(
        name="scratch", size=32, unfreeze=-1, epochs=epochs, policy=Policy(size=32, short_side=(32, 36), flip=0.0),
        batch_size=128, learning_rate=4e-3, weight_decay=1e-3, label_smoothing=0.0, patience=epochs, warm_start=False,
    )  # fmt: skip


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--images", type=int, default=150_000)
    parser.add_argument("--epochs", type=int, default=4)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--output", type=Path, default=ASSET)
    asked = parser.parse_args()
    began = time.monotonic()
    drawings = glyphs(asked.images, seed=asked.seed)
    print(f"{len(drawings)} drawings of {len(drawings.class_names)} classes in {time.monotonic() - began:.0f} s")
    with tempfile.TemporaryDirectory() as folder:
        result = pretrain(drawings, recipe=recipe(asked.epochs), output=folder, seed=asked.seed)
        content = (Path(folder) / BACKBONE).read_bytes()
    if len(content) > LIMIT:
        raise SystemExit(f"the backbone has {len(content)} bytes, more than the {LIMIT} that may be shipped")
    asked.output.parent.mkdir(parents=True, exist_ok=True)
    asked.output.write_bytes(content)
    print(f"validation: {result.validation}")
    print(f"{asked.output}: {len(content)} bytes, {time.monotonic() - began:.0f} s in all")


if __name__ == "__main__":
    main()
