"""A Policy refuses impossible ranges where they are written, and says which."""

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from augment import Policy, PolicyError

ROOT = Path(__file__).resolve().parents[2]


@pytest.mark.parametrize(
    ("fields", "named"),
    [
        ({"size": 0}, "size"),
        ({"short_side": (200, 300)}, "short_side"),
        ({"short_side": (480, 256)}, "short_side"),
        ({"short_side": None}, "short_side"),
        ({"area": (0.1, 1.0)}, "area"),
        ({"short_side": None, "area": (0.0, 1.0)}, "area"),
        ({"short_side": None, "area": (0.5, 1.2)}, "area"),
        ({"aspect": (0, 1)}, "aspect"),
        ({"flip": 1.5}, "flip"),
        ({"erase": -0.1}, "erase"),
        ({"rotate": (20, 10)}, "rotate"),
        ({"shear": 80}, "shear"),
        ({"lens": 0.5}, "lens"),
        ({"brightness": (-1, 1)}, "brightness"),
        ({"contrast": (1,)}, "contrast"),
        ({"hue": (30, -30)}, "hue"),
        ({"pca": -0.1}, "pca"),
        ({"mixup": -1.0}, "mixup"),
        ({"fill": (0, 0)}, "fill"),
        ({"fill": (400, -5, 0)}, "fill"),
        ({"fill": (30, 2, "x")}, "fill"),
        ({"fill": 0}, "fill"),
        ({"extra": 3}, "extra"),
        ({"size": None}, "size"),
        ({"size": 7.5}, "size"),
        ({"size": float("nan")}, "size"),
        ({"brightness": 0.0}, "brightness"),
        ({"brightness": None}, "brightness"),
        ({"aspect": None}, "aspect"),
        ({"flip": None}, "flip"),
        ({"rotate": "a"}, "rotate"),
        ({"rotate": (0, float("nan"))}, "rotate"),
    ],
)
def test_impossible_ranges_are_named(fields, named):
    with pytest.raises(PolicyError, match=named):
        Policy(**fields)


def test_the_defaults_are_the_lectures_resnet_policy():
    assert Policy() == Policy.resnet()
    assert (Policy().size, Policy().short_side, Policy().flip, Policy().pca) == (224, (256, 480), 0.5, 0.1)


def test_a_number_is_a_symmetric_range():
    assert Policy(rotate=10).range("rotate") == Policy(rotate=(-10, 10)).range("rotate") == (-10, 10)


def test_numbers_and_sequences_of_numpy_are_as_good_as_pythons():
    numpy = Policy(np.int64(64), np.array([64, 80]), rotate=np.float32(10), hue=[np.int32(-5), 5], flip=np.float64(0.5))
    python = Policy(64.0, (64, 80), rotate=10, hue=(-5, 5))
    assert numpy == python and hash(numpy) == hash(python) and isinstance(python.size, int)


def test_resized_keeps_the_patch_the_same_share_of_the_image():
    assert Policy().resized(112).short_side == (128, 240)
    assert Policy.strong(96).resized(128) == Policy.strong(128)


def test_policies_are_values():
    assert len({Policy.none(), Policy.none(), Policy.light()}) == 2


def test_importing_augment_imports_nothing_heavy_beside_tensorflow():
    code = (
        "import sys, tensorflow; before = set(sys.modules); import augment; "
        "print(sorted({m.split('.')[0] for m in set(sys.modules) - before}))"
    )
    answer = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True).stdout
    assert not {"matplotlib", "keras_cv", "tensorflow_datasets", "PIL", "sklearn"} & set(eval(answer))
