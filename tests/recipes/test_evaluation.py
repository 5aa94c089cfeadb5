"""Accuracy, interval and calibration against independent sources."""

import numpy as np
import pytest
from assertions import rejects
from scipy.stats import binom, norm
from sklearn.metrics import balanced_accuracy_score, confusion_matrix, log_loss

from recipes.errors import DataError
from recipes.evaluation.metrics import score, temperature, wilson_interval


@pytest.mark.parametrize(("right", "n"), [(0, 5), (3, 7), (90, 100), (100, 100)])
def test_wilson_interval_agrees_with_its_equation(right, n):
    """(p + z²/2n ± z √(p(1−p)/n + z²/4n²)) / (1 + z²/n)"""
    z, p = norm.ppf(0.975), right / n
    centre, spread = p + z**2 / (2 * n), z * np.sqrt(p * (1 - p) / n + z**2 / (4 * n**2))
    expected = (centre - spread) / (1 + z**2 / n), (centre + spread) / (1 + z**2 / n)
    np.testing.assert_allclose(wilson_interval(right, n), expected, atol=1e-12)


def test_wilson_interval_without_images():
    assert wilson_interval(0, 0) == (0.0, 1.0)


def test_score_agrees_with_scikit_learn():
    random = np.random.default_rng(0)
    probabilities, labels = random.dirichlet(np.ones(4), 200), random.integers(0, 4, 200)
    metrics = score(probabilities, labels)
    guesses = probabilities.argmax(1)
    assert metrics.accuracy == (guesses == labels).mean()
    assert metrics.macro_accuracy == pytest.approx(balanced_accuracy_score(labels, guesses))
    assert metrics.nll == pytest.approx(log_loss(labels, probabilities))
    np.testing.assert_array_equal(metrics.confusion, confusion_matrix(labels, guesses))


def test_calibrated_predictions_have_a_small_error():
    random = np.random.default_rng(0)
    confidence = random.uniform(0.5, 1, 100_000)
    right = random.uniform(size=100_000) < confidence
    labels = np.where(right, 0, 1)
    assert score(np.stack([confidence, 1 - confidence], 1), labels).ece < 0.01
    assert score(np.tile([[0.99, 0.01]], (100_000, 1)), labels).ece > 0.2


def test_the_calibration_error_that_chance_alone_makes():
    """Of one bin it is the mean absolute deviation of a binomial, of bins that are far apart the sum of theirs."""
    n, chances = 300, (0.5, 0.8)
    confidence = np.repeat(chances, n)
    metrics = score(np.stack([confidence, 1 - confidence], 1), np.zeros(2 * n, int))
    exact = [binom(n, p).expect(lambda right, p=p: abs(right - n * p)) for p in chances]
    assert metrics.ece_floor == pytest.approx(sum(exact) / (2 * n), rel=0.15)
    assert metrics.ece == pytest.approx(0.35) and f"35.0% (perfect calibration: {metrics.ece_floor:.1%}" in str(metrics)


def test_temperature_undoes_a_known_scaling():
    random = np.random.default_rng(0)
    logits = random.normal(size=(20_000, 3))
    chances = np.exp(logits) / np.exp(logits).sum(1, keepdims=True)
    labels = (chances.cumsum(1) < random.uniform(size=(20_000, 1))).sum(1)
    assert temperature(2.5 * logits, labels) == pytest.approx(2.5, rel=0.05)


def test_temperature_of_images_that_are_all_right_claims_no_more_than_their_number_can_vouch_for():
    labels = np.arange(120) % 3
    logits = 2.0 * np.eye(3)[labels]
    confidence = 1 / (1 + 2 * np.exp(-2.0 / temperature(logits, labels)))
    assert 1 / 480 < 1 - confidence < 1 / 60


def test_nothing_to_evaluate():
    with rejects(DataError, "evaluation.no_images"):
        score(np.zeros((0, 2)), np.zeros(0, int))
