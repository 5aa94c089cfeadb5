"""Draws are uniform, independent, and a function of (seed, epoch, index) alone."""

import numpy as np
import pytest
import tensorflow as tf
from scipy import stats

from augment.draws import SLOTS, bits, normal, uniforms


def splitmix_reference(*numbers):
    """The hash in Python integers."""
    mask, state = 2**64 - 1, 0
    for number in numbers:
        z = (state + (number % 2**64 + 1) * 0x9E3779B97F4A7C15) & mask
        z = ((z ^ (z >> 30)) * 0xBF58476D1CE4E5B9) & mask
        z = ((z ^ (z >> 27)) * 0x94D049BB133111EB) & mask
        state = z ^ (z >> 31)
    return state


@pytest.mark.parametrize("numbers", [(0, 0, 0), (1, 2, 3), (2**40, 7, 10**12), (5, 0, -1)])
def test_bits_agree_with_python_integers(numbers):
    assert int(bits(*numbers)) == splitmix_reference(*numbers)


def test_a_batch_draws_what_its_examples_draw_alone():
    together = uniforms(3, 5, tf.range(10, dtype=tf.int64))
    alone = [uniforms(3, 5, tf.constant(i, tf.int64)) for i in range(10)]
    np.testing.assert_array_equal(together, alone)


def test_in_a_graph_as_eagerly():
    indices = tf.data.Dataset.range(6)
    np.testing.assert_array_equal(list(indices.map(lambda i: uniforms(3, 5, i))), [uniforms(3, 5, i) for i in indices])


@pytest.mark.parametrize("vary", ["seed", "epoch", "index"])
def test_uniform_and_independent_along_each_argument(vary):
    many = tf.range(4000, dtype=tf.int64)
    u = uniforms(**{"seed": 1, "epoch": 2, "index": 3, vary: many}).numpy()
    assert u.min() > 0 and u.max() < 1
    assert min(stats.kstest(u[:, i], "uniform").pvalue for i in range(len(SLOTS))) > 1e-4
    correlation = np.corrcoef(np.concatenate([u[:-1].T, u[1:].T]))  # of slots, and of neighbours
    np.testing.assert_allclose(correlation, np.eye(2 * len(SLOTS)), atol=5 / np.sqrt(len(u)))


def test_normal_draws():
    z = normal(uniforms(0, 0, tf.range(5000, dtype=tf.int64)), "pca_1", "pca_2", "pca_3").numpy()
    assert min(stats.kstest(z[:, i], "norm").pvalue for i in range(3)) > 1e-4
