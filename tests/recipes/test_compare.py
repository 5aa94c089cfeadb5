"""Two runs compared image by image."""

import copy
from dataclasses import replace

import numpy as np
import pytest
from assertions import rejects

import recipes
from recipes.evaluation.predictions import Judged


@pytest.fixture
def pair(trained):
    """A run, and one whose predictions of three held-out images are moved to other classes."""
    first, _ = trained
    second = copy.copy(first)
    moved = first.judged.probabilities.copy()
    moved[:3] = moved[:3, [1, 2, 0]]
    second.judged = Judged(first.judged.labels, moved)
    return first, second


def test_the_held_out_images_of_both_runs_are_compared(pair):
    first, second = pair
    found = recipes.compare(first, second)
    right = [run.judged.predicted == run.judged.labels for run in pair]
    assert found.first.accuracy == right[0].mean() and found.second.accuracy == right[1].mean()
    assert found.gain.gain == pytest.approx(right[1].mean() - right[0].mean())
    assert (found.only_first, found.only_second) == ((right[0] & ~right[1]).sum(), (right[1] & ~right[0]).sum())
    assert "the first run is better: -" in found.verdict and f"on {len(right[0])} images" in found.verdict
    assert "no difference: both runs predict the same" in recipes.compare(first, first).verdict
    assert "images that the other run misclassifies" in str(found) and len(repr(found)) < 200


def test_a_dataset_is_compared_by_new_predictions(trained, pair, caplog):
    first, photos = trained
    other = copy.copy(first)
    order = [2, 0, 1]
    other.class_names = [first.class_names[i] for i in order]
    other.probabilities = lambda data: first.probabilities(data)[:, order]
    found = recipes.compare(first, other, photos)
    assert found.gain.gain == 0 and found.gain.nats == pytest.approx(0) and found.first == found.second
    assert "images were used for training" in caplog.text


def test_what_cannot_be_compared(pair, trained, tmp_path):
    first, second = pair
    other = copy.copy(second)
    other.class_names = ["a", "b", "c"]
    with rejects(recipes.RecipeError, "compare.classes"):
        recipes.compare(first, other)
    other = copy.copy(second)
    other.audit = replace(second.audit, fingerprints={"validation": ("x",)})
    with rejects(recipes.RecipeError, "compare.other_images"):
        recipes.compare(first, other)
    other = copy.copy(second)
    other.class_names = list(reversed(first.class_names))
    with rejects(recipes.RecipeError, "compare.order"):
        recipes.compare(first, other)
    with rejects(recipes.OutputError, "output.no_run", path=tmp_path / "nowhere"):
        recipes.compare(first, tmp_path / "nowhere")
    assert np.isfinite(first.accuracy)
