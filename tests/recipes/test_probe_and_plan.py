"""The probe against scikit-learn, and the plan that is read off it."""

from types import SimpleNamespace

import numpy as np
import pytest
from makers import arrays, small_network
from sklearn.linear_model import LogisticRegression

import recipes
from recipes.linear import channel_scale, content_folds, fit_path
from recipes.plan import Summary, plan
from recipes.probe import mirror_test


def blobs(n=120, channels=6, classes=3, spread=1.0, seed=0):
    random = np.random.default_rng(seed)
    labels = np.repeat(np.arange(classes), n // classes)
    centres = random.normal(size=(classes, channels))
    return (centres[labels] + spread * random.normal(size=(n, channels))).astype(np.float32), labels


def test_fit_path_agrees_with_scikit_learn():
    x, y = blobs()
    scale = channel_scale(x[None])
    for linear in fit_path(x[None], y, 3, (1.0, 0.1, 0.01)):
        theirs = LogisticRegression(C=1 / (linear.l2 * len(x)), tol=1e-9, max_iter=5000).fit(x / scale, y)
        ours = linear.logits(x)
        expected = theirs.decision_function(x / scale)
        np.testing.assert_allclose(
            ours - ours.mean(1, keepdims=True), expected - expected.mean(1, keepdims=True), atol=2e-3
        )


def test_folds_keep_copies_together():
    labels = np.repeat([0, 1], 20)
    prints = [f"{i // 2}" for i in range(40)]
    folds = content_folds(labels, prints)
    assert all(folds[i] == folds[i + 1] for i in range(0, 40, 2))
    assert len(np.unique(folds)) == 5


@pytest.mark.parametrize(("other", "alike"), [(0.05, True), (20.0, False)])
def test_mirror_images_that_lose_their_class_are_noticed(other, alike):
    x, y = blobs(spread=0.5)
    noise = other * np.random.default_rng(1).normal(size=x.shape).astype(np.float32)
    told = mirror_test(np.stack([x, x + noise]), y, 3, content_folds(y, np.arange(len(y)).astype(str)))
    assert told.alike == alike


def test_probe_of_a_dataset():
    told = recipes.probe(arrays(12), backbone=small_network())
    assert [stage.features for stage in told.stages] == [8, 16, 24]
    assert told.best.accuracy > 0.8
    assert "stage 2 (last)" in str(told)


def probe_of(last, best, alike=True):
    stages = [
        SimpleNamespace(name=f"stage {i}", accuracy=a, interval=(a - 0.03, a + 0.03)) for i, a in ((4, best), (5, last))
    ]
    mirrors = SimpleNamespace(straight=0.9, mirrored=0.3, alike=alike)
    return SimpleNamespace(last=stages[1], best=max(stages, key=lambda s: s.accuracy), mirrors=mirrors)


@pytest.mark.parametrize(
    ("per_class", "last", "best", "name"),
    [
        (50, 0.95, 0.9, "probe"),
        (50, 0.88, 0.8, "probe"),
        (500, 0.95, 0.9, "few"),
        (50, 0.7, 0.6, "all"),
        (500, 0.8, 0.9, "all"),
    ],
)
def test_the_two_by_two_table(per_class, last, best, name):
    chosen = plan(Summary(10 * per_class, 10, 224), probe_of(last, best))
    assert chosen.name == name
    assert len(chosen.reasons) >= 2


def test_no_mirror_images_where_they_lose_their_class():
    assert plan(Summary(500, 10, 224), probe_of(0.7, 0.6)).policy.flip == 0.5
    assert plan(Summary(500, 10, 224), probe_of(0.7, 0.6, alike=False)).policy.flip == 0.0


def test_random_weights_are_trained_from_scratch():
    assert plan(Summary(500, 10, 224, pretrained=False), None).name == "scratch"
