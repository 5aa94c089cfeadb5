"""Labels and pixels: what is accepted, and what is rejected, with a remedy."""

import numpy as np
import pytest
from assertions import rejects

from recipes import DataError
from recipes.data.image_forms import check_pixels
from recipes.data.images import labelled


def data(labels, class_names=None):
    return labelled(["x"] * len(labels), labels, ["x"] * len(labels), class_names)


def test_names_are_sorted_whatever_their_order():
    made = data(["pear", "apple", "pear"])
    assert made.class_names == ("apple", "pear")
    assert made.labels.tolist() == [1, 0, 1]


def test_one_hot_and_column_labels_are_integers():
    assert data(np.eye(3)[[2, 0, 1]]).labels.tolist() == [2, 0, 1]
    assert data(np.array([[1], [0]])).labels.tolist() == [1, 0]


@pytest.mark.parametrize(
    ("labels", "class_names", "code", "attributes"),
    [
        ([0, -1], None, "labels.out_of_range", dict(value=-1, index=1)),
        ([0, 1, 5], ("a", "b"), "labels.out_of_range", dict(value=5, index=2)),
        ([0, 1], ("0", "1", "10", "2"), "labels.ambiguous_integers", {}),
        ([0, 7], None, "labels.gaps", dict(missing=(1, 2, 3, 4, 5, 6))),
        ([0.5, 1.0], None, "labels.fractions", {}),
        (["a", "z"], ("a", "b"), "labels.unknown", dict(labels=("z",))),
        (np.zeros((2, 2, 2)), None, "labels.shape", dict(shape=(2, 2, 2))),
    ],
)
def test_wrong_labels(labels, class_names, code, attributes):
    with rejects(DataError, code, **attributes):
        data(labels, class_names)


@pytest.mark.parametrize(
    ("pixels", "code", "attributes"),
    [
        (
            np.zeros((2, 8, 8, 3), np.float32) + 0.5,
            "images.range",
            dict(low=0.5, high=0.5, match="multiply them by 255"),
        ),
        (np.full((2, 8, 8, 3), -1.0), "images.range", dict(low=-1, high=-1, match="undo your preprocessing")),
        (np.full((2, 8, 8, 3), np.nan), "images.range", dict(match="NaN or infinite")),
        (np.zeros((2, 3, 8, 8), np.uint8), "images.shape", dict(shape=(2, 3, 8, 8))),
        (np.array(["a"]), "images.shape", dict(shape=(1,))),
        (np.zeros((1, 4, 4, 3), bool), "images.type", dict(type="bool")),
    ],
)
def test_wrong_pixels(pixels, code, attributes):
    with rejects(DataError, code, **attributes):
        check_pixels(pixels)


def test_grey_pixels_get_a_channel():
    assert check_pixels(np.zeros((2, 8, 8), np.uint8)).shape == (2, 8, 8, 1)
