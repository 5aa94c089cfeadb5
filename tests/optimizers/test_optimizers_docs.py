"""Every code block of docs/optimizers.md and of the README's section runs as it stands."""

import re
from pathlib import Path

import keras
import numpy as np
import pytest

import optimizers

ROOT = Path(__file__).resolve().parents[2]


def blocks():
    readme = (ROOT / "README.md").read_text().split("## optimizers:")[1].split("\n## ")[0]
    return re.findall(r"```python\n(.*?)```", (ROOT / "docs" / "optimizers.md").read_text() + readme, re.DOTALL)


def names():
    """What the blocks take for granted."""
    rng = np.random.default_rng(0)
    model = keras.Sequential(
        [
            keras.Input((8, 8, 1)),
            keras.layers.Conv2D(2, 3, name="body"),
            keras.layers.GlobalAveragePooling2D(),
            keras.layers.Dense(3, activation="softmax", name="head"),
        ]
    )
    images, labels = rng.normal(size=(64, 8, 8, 1)).astype("float32"), rng.integers(3, size=64)
    model.compile(optimizers.Adam(1e-3), "sparse_categorical_crossentropy")
    return {
        "keras": keras, "optimizers": optimizers, "model": model, "images": images, "labels": labels,
        "features": images.reshape(64, -1), "x": images, "y": labels,
        "value_and_gradient": lambda x: (x @ x / 2, x), "start": np.ones(3),
    }  # fmt: skip


@pytest.mark.parametrize("block", blocks(), ids=lambda block: block.strip().splitlines()[0][:40])
def test_block_runs(block):
    exec(block, names())
