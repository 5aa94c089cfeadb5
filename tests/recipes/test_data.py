"""Labels and pixels: what is accepted, and what is refused with a cure."""

import numpy as np
import pytest

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
    ("labels", "class_names", "message"),
    [
        ([0, -1], None, "out of range: -1 at index 1"),
        ([0, 1, 5], ("a", "b"), "out of range: 5 at index 2"),
        ([0, 1], ("0", "1", "10", "2"), "so are the names of the classes"),
        ([0, 7], None, "no image has label"),
        ([0.5, 1.0], None, "fractions"),
        (["a", "z"], ("a", "b"), "'z'"),
        (np.zeros((2, 2, 2)), None, "shape"),
    ],
)
def test_wrong_labels(labels, class_names, message):
    with pytest.raises(DataError, match=message):
        data(labels, class_names)


@pytest.mark.parametrize(
    ("pixels", "message"),
    [
        (np.zeros((2, 8, 8, 3), np.float32) + 0.5, "multiply them by 255"),
        (np.full((2, 8, 8, 3), -1.0), "undo your preprocessing"),
        (np.full((2, 8, 8, 3), np.nan), "not finite"),
        (np.zeros((2, 3, 8, 8), np.uint8), "channels last"),
        (np.array(["a"]), "shape"),
        (np.zeros((1, 4, 4, 3), bool), "bool"),
    ],
)
def test_wrong_pixels(pixels, message):
    with pytest.raises(DataError, match=message):
        check_pixels(pixels)


def test_grey_pixels_get_a_channel():
    assert check_pixels(np.zeros((2, 8, 8), np.uint8)).shape == (2, 8, 8, 1)
