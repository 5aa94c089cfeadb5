"""The embedded digits: the real ones, each exactly once, drawn by seed."""

import numpy as np
import pytest
from assertions import rejects
from hypothesis import given
from hypothesis import strategies as st
from scipy.ndimage import map_coordinates
from sklearn.datasets import load_digits

from recipes.data.digits import digits, enlarge, interpolation
from recipes.data.sources import load
from recipes.errors import DataError


def indices(data):
    return [int(name.removeprefix("digits[").removesuffix("]")) for name in data.names]


def test_every_digit_is_on_exactly_one_side():
    splits = digits(per_class=5, seed=3)
    assert splits.validation is None
    assert splits.train.counts.tolist() == [5] * 10
    assert sorted(indices(splits.train) + indices(splits.test)) == list(range(1797))


def test_images_are_those_of_scikit_learn():
    bunch, splits = load_digits(), digits(per_class=20)
    for data in splits.given.values():
        where = indices(data)
        assert np.array_equal(data.labels, bunch.target[where])
        assert data.images.shape == (len(data), 32, 32, 3) and data.images.dtype == np.uint8
        assert (data.images == data.images[..., :1]).all()
        blocks = data.images[..., 0].reshape(-1, 8, 4, 8, 4).mean((2, 4)).reshape(len(data), -1)
        original = bunch.images[where].reshape(len(data), -1)
        correlation = [np.corrcoef(a, b)[0, 1] for a, b in zip(blocks, original, strict=True)]
        assert min(correlation) > 0.95  # ink is bright: the polarity of the original


def test_the_seed_decides_the_draw():
    first, again, other = (indices(digits(5, seed).train) for seed in (0, 0, 1))
    assert first == again != other


def test_fewer_labels_are_part_of_more():
    assert set(indices(digits(5, seed=2).train)) < set(indices(digits(20, seed=2).train))


@pytest.mark.parametrize("per_class", [0, -1, 174, 10_000])
def test_impossible_numbers_are_rejected(per_class):
    with rejects(DataError, "digits.per_class"):
        digits(per_class=per_class)


def test_load_by_name():
    splits = load("digits")
    assert splits.train.class_names == tuple("0123456789") and len(splits.train) == 200


@given(side=st.integers(1, 16), factor=st.integers(1, 5))
def test_enlarging_keeps_constants_and_agrees_with_scipy(side, factor):
    size = side * factor
    assert np.allclose(interpolation(side, size).sum(1), 1)
    image = np.random.default_rng(side).random((side, side))
    at = (np.arange(size) + 0.5) / factor - 0.5
    expected = map_coordinates(image, np.meshgrid(at, at, indexing="ij"), order=1, mode="nearest")
    assert np.allclose(enlarge(image[None], size)[0], expected, atol=1e-6)
