"""What README and docs show, block by block, and what it takes for granted.

A block runs unless a comment above it says otherwise: `<!-- needs weights -->` (../shared), `<!-- slow: why -->` (with
pytest -m minutes), `<!-- not run: why -->`. It is a comment because MkDocs ends a
fence at anything behind its language.
"""

import re
import shlex
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]
MARKS = ("needs weights", "slow", "not run")
_BLOCK = re.compile(r"^(?:<!-- ([^>]*?) -->\n)?```([^\n]*)\n(.*?)^```$", re.S | re.M)


@dataclass(frozen=True)
class Block:
    """A fenced block: its language, its text, and the mark above it (mark, reason)."""

    language: str
    text: str
    marks: tuple[str, ...]

    @property
    def commands(self) -> list[list[str]]:
        """The command lines of a shell block, without comments, and without variables that are set for them."""
        lines = self.text.replace("\\\n", " ").splitlines()
        words = [shlex.split(line, comments=True) for line in lines]
        words = [[word for word in line if word != "&" and not re.match(r"[A-Z_]+=", word)] for line in words]
        return [line for line in words if line]


def blocks(page: Path) -> list[Block]:
    found = _BLOCK.findall(page.read_text(encoding="utf-8"))
    return [
        Block(language, text, tuple(mark for mark in MARKS if mark in comment.split(":")[0]))
        for comment, language, text in found
    ]


SIDES = {"augment.md": 224, "migrating.md": 96}  # of the images that the page's policy makes


def names(page: Path) -> dict:
    """What the pages call a model and its data: a small classifier of three classes, compiled; 64 images, labels."""
    import keras
    import numpy as np
    import tensorflow as tf
    from makers import jpeg

    side, rng = SIDES.get(page.name, 16), np.random.default_rng(0)
    body = [keras.layers.Rescaling(1 / 255), keras.layers.Conv2D(2, 3, name="body")]
    head = [keras.layers.GlobalAveragePooling2D(), keras.layers.Dense(3, activation="softmax", name="head")]
    model = keras.Sequential([keras.Input((side, side, 3)), *body, *head])
    model.compile("adam", "sparse_categorical_crossentropy", metrics=["accuracy"])
    images, labels = rng.uniform(0, 255, (64, 16, 16, 3)).astype("float32"), rng.integers(3, size=64)
    files = tf.data.Dataset.from_tensor_slices(([jpeg(image.astype("uint8")) for image in images], labels))
    return {
        "model": model, "images": images, "labels": labels, "x": images, "y": labels, "dataset": files,
        "features": images.reshape(64, -1) / 255, "value_and_gradient": lambda x: (x @ x / 2, x), "start": np.ones(3),
    }  # fmt: skip
