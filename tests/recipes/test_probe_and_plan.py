"""The probe against scikit-learn, and the plan that is read off it."""

import math
import time
from dataclasses import asdict, replace
from types import SimpleNamespace

import numpy as np
import pytest
from makers import arrays, small_network
from sklearn.linear_model import LogisticRegression

import recipes
from recipes import adjusted
from recipes.core.budget import Budget
from recipes.planning.lecture_table import LectureTable
from recipes.planning.options import options
from recipes.planning.plan import candidates, plan
from recipes.planning.request import Request
from recipes.planning.summary import Summary
from recipes.probing.logistic import channel_scale, content_folds, fit_path
from recipes.probing.probe import mirror_test
from recipes.training.compare_recipes import compare
from recipes.training.prepare import loaded, prepare


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


def probe_of(last, best, alike=True, mirror_gain=(0.0, 0.01)):
    stages = [
        SimpleNamespace(
            name=f"stage {i}", accuracy=a, interval=(a - 0.03, a + 0.03), nll=1 - a, taps=(i,), mirror_gain=mirror_gain
        )
        for i, a in ((4, best), (5, last))
    ]
    mirrors = SimpleNamespace(straight=0.9, mirrored=0.3, alike=alike)
    everything = SimpleNamespace(name="all stages", taps=(4, 5))
    return SimpleNamespace(
        stages=[*stages, everything], last=stages[1], head=max(stages, key=lambda s: s.accuracy), mirrors=mirrors
    )


@pytest.mark.parametrize(
    ("per_class", "last", "best", "name"),
    [
        (50, 0.95, 0.9, "few"),
        (30, 0.95, 0.9, "probe"),
        (500, 0.95, 0.9, "few"),
        (50, 0.7, 0.6, "all"),
        (500, 0.8, 0.9, "all"),
        (50, 0.985, 0.9, "probe"),
    ],
)
def test_the_two_by_two_table(per_class, last, best, name):
    chosen = plan(Summary(10 * per_class, 10, 224, held_out=100), probe_of(last, best))
    assert chosen.name == name
    assert {"plan.similarity", "plan.amount"} <= codes(chosen)


def codes(recipe):
    return {reason.code for reason in recipe.decisions}


def value(recipe, code, name):
    (reason,) = (reason for reason in recipe.decisions if reason.code == code)
    return reason.values[name]


def thin_probe(last, width, gain=0.0, spread=0.1):
    """A probe whose last stage is that accurate ± width, and whose stage before it is likelier by `gain` ± spread."""
    told, random = probe_of(last, 0.5), np.random.default_rng(0)
    told.last.interval, told.last.losses = (last - width, last + width), np.zeros(100)
    if gain:
        told.head = told.stages[0]
    told.head.losses = np.zeros(100) if told.head is told.last else -gain + 10 * spread * random.normal(size=100)
    return told


@pytest.mark.parametrize(
    ("probe", "names"),
    [
        (thin_probe(0.88, 0.03), ["few", "all"]),
        (thin_probe(0.95, 0.02), ["few"]),
        (thin_probe(0.7, 0.03), ["all"]),
        (thin_probe(0.88, 0.03, gain=0.15), ["all", "few"]),
        (thin_probe(0.88, 0.03, gain=1.0), ["all"]),
    ],
)
def test_thin_evidence_leaves_two_recipes(probe, names):
    assert [recipe.name for recipe in candidates(Summary(500, 10, 224, held_out=100), probe)] == names


@pytest.mark.slow
def test_two_recipes_are_compared_on_folds_of_the_training_images(monkeypatch):
    monkeypatch.setattr("recipes.evaluation.selection.better", lambda start, other: True)  # every training is kept
    monkeypatch.setattr("recipes.training.compare_recipes.FOLDS", 2)
    request = Request(arrays(12), small_network(), adjusted("all", size=32, epochs=1))
    ready = prepare(request, loaded(request), Budget())
    start, prints = ready.start, ready.audit.fingerprints["train"]
    before = start.network.network.get_weights()
    rivals = ready.recipe, replace(ready.recipe, name="few", unfreeze=1, learning_rate=1e-5)
    chosen = compare(start, rivals, prints, 0, Budget())
    assert chosen.decisions[-1].code == "compare.gain"
    measured = chosen.decisions[-1].values
    assert abs(measured["images"] - len(prints) / 2) <= 2  # without a time limit one of the two folds has to do
    assert chosen.name == ("few" if measured["gain"] > measured["error"] else "all")
    for old, new in zip(before, start.network.network.get_weights(), strict=True):
        np.testing.assert_array_equal(old, new)
    late = compare(start, rivals, prints, 0, Budget.of(0))
    assert late.name == "all" and late.decisions[-1].code == "compare.no_time"


def test_what_could_not_be_told_from_noise_is_not_tried():
    chosen = plan(Summary(100, 10, 224, held_out=20), probe_of(0.7, 0.6))
    assert chosen.name == "probe" and "20 held-out images" in str(chosen)


def test_the_classifier_reads_the_stages_that_predict_best():
    assert plan(Summary(500, 10, 224), probe_of(0.7, 0.6)).taps is None
    assert plan(Summary(500, 10, 224), probe_of(0.7, 0.8)).taps == (4, 5)
    assert plan(Summary(100, 10, 224, held_out=20), probe_of(0.7, 0.8)).taps == (4,)


def test_mirror_images_are_averaged_where_that_helps():
    assert not plan(Summary(500, 10, 224), probe_of(0.7, 0.6)).mirror
    few = Summary(100, 10, 224, held_out=20)
    assert plan(few, probe_of(0.7, 0.6, mirror_gain=(0.1, 0.01))).mirror
    assert not plan(few, probe_of(0.7, 0.6)).mirror
    assert not plan(few, probe_of(0.7, 0.6, alike=False, mirror_gain=(0.1, 0.01))).mirror


def test_imbalance_memory_and_size_of_the_network():
    known = dict(images=500, classes=10, size=224, held_out=100)
    assert not plan(Summary(**known, imbalance=3.9), probe_of(0.7, 0.6)).balanced
    assert plan(Summary(**known, imbalance=4.0), probe_of(0.7, 0.6)).balanced
    fits = Summary(**known, activations=2**20, memory=2**30)
    assert plan(fits, probe_of(0.7, 0.6)).accumulate == 1
    large = Summary(**known, activations=2**24, memory=2**30)
    assert plan(large, probe_of(0.7, 0.6)).accumulate == 2
    assert plan(Summary(**known, weights=10**7), probe_of(0.7, 0.6)).stochastic_depth > 0


@pytest.mark.parametrize(("seconds", "name"), [(10_000, "all"), (60, "all"), (3, "probe")])
def test_the_plan_fits_the_time(seconds, name):
    summary = Summary(500, 10, 224, held_out=100, image_seconds=0.002, seconds_left=seconds)
    chosen = plan(summary, probe_of(0.7, 0.6))
    assert chosen.name == name
    epoch = 500 * 0.002 * 3.5 + 100 * 0.002
    assert chosen.epochs * epoch <= 0.7 * seconds
    assert bool({"plan.fewer_epochs", "plan.no_time"} & codes(chosen)) == (seconds < 10_000)
    assert ("plan.trained" in codes(chosen)) == (name == "all")


@pytest.mark.parametrize("changes", [dict(epochs=40), dict(epochs=30, taps=(1,), calibrate=False)])
def test_a_changed_recipe_fits_the_time_too(changes):
    """After which no change can undo it."""
    known = dict(images=500, classes=10, size=224, held_out=100, image_seconds=0.002)
    (late,) = options(adjusted("all", **changes), Summary(**known, seconds_left=1), probe_of(0.7, 0.6))
    assert (late.name, late.epochs) == ("probe", 0) and late.decisions[-1].code == "plan.no_time"
    assert late.taps == changes.get("taps") and late.calibrate == changes.get("calibrate", True)
    (short,) = options(adjusted("all", **changes), Summary(**known, seconds_left=60), probe_of(0.7, 0.6))
    assert 3 <= short.epochs < changes["epochs"] == short.decisions[-1].values["planned"]
    (free,) = options(adjusted("all", **changes), Summary(**known), probe_of(0.7, 0.6))
    assert free.epochs == changes["epochs"]


def test_a_training_from_scratch_fits_the_time_too():
    summary = Summary(500, 10, 224, pretrained=False, image_seconds=0.002, seconds_left=60)
    chosen = plan(summary, None)
    assert chosen.epochs == int(0.7 * 60 / (500 * 0.002 * 3.5)) and chosen.decisions[-1].values["planned"] == 40


def test_a_changed_batch_is_fitted_to_the_memory():
    summary = Summary(500, 10, 224, held_out=100, activations=2**26, memory=2**30)
    assert options("all", summary, probe_of(0.7, 0.6))[0].accumulate == 8
    assert options(adjusted("all", batch_size=4), summary, probe_of(0.7, 0.6))[0].accumulate == 1
    assert options(adjusted("all", accumulate=2), summary, probe_of(0.7, 0.6))[0].accumulate == 2


def test_epochs_do_not_turn_the_linear_classifier_into_a_training():
    few = Summary(100, 10, 224, held_out=20)
    for name in ("auto", "probe"):
        (chosen,) = options(adjusted(name, epochs=5, mirror=False), few, probe_of(0.7, 0.6))
        assert chosen.epochs == 0
        assert value(chosen, "plan.epochs_ignored", "epochs") == 5
        assert value(chosen, "plan.changed", "assignments") == "mirror = False"


def test_a_linear_classifier_has_all_the_time_it_takes():
    late = Summary(100, 10, 224, held_out=20, image_seconds=0.01, seconds_left=-1)
    (recipe,) = options(adjusted("probe", batch_size=4), late, probe_of(0.7, 0.6))
    assert recipe.batch_size == 4 and "plan.no_time" not in codes(recipe)


def test_reasons_are_those_of_the_fields_as_they_are():
    summary, probe = Summary(500, 10, 224, held_out=100), probe_of(0.7, 0.6)
    (recipe,) = options(adjusted("all", epochs=5, averaging=0.0), summary, probe)
    assert not {"plan.epochs", "plan.overfitting"} & codes(recipe)
    assert value(recipe, "plan.layer_decay", "factor") == 0.7
    assert value(recipe, "plan.changed", "assignments") == "epochs = 5, averaging = 0.0"


def test_where_no_gradient_steps_are_taken_nothing_is_compared():
    summary = Summary(500, 10, 224, held_out=100)
    assert len(options(adjusted("auto", patience=3), summary, thin_probe(0.88, 0.03))) == 2
    (linear,) = options(adjusted("auto", epochs=0), summary, thin_probe(0.88, 0.03))
    assert not {"plan.epochs", "plan.layer_decay", "plan.overfitting", "plan.trained"} & codes(linear)


@pytest.mark.parametrize(("last", "decay"), [(0.95, "0.5"), (0.7, "0.7")])
def test_a_training_says_why_it_is_as_it_is(last, decay):
    text = str(plan(Summary(500, 10, 224, held_out=100), probe_of(last, 0.6)))
    assert "20 epochs are planned, the number from 12 to 40" in text and "closest to 10,000" in text
    assert f"falls by a factor of {decay} from each stage" in text and "running average (decay 0.99)" in text


def test_the_table_marks_the_dataset():
    table = LectureTable.of(Summary(500, 10, 224), probe_of(0.7, 0.6))
    assert str(table).count("▶") == 1 and "▶ linear classifier on several stages" in str(table)
    assert LectureTable.saved(str(table)) == LectureTable.saved(asdict(table)) == table


@pytest.mark.parametrize("images", [399, 1000])
def test_the_marked_cell_is_the_plan(images):
    summary, probe = Summary(images, 10, 224, held_out=100), probe_of(0.95, 0.9)
    rows = LectureTable.of(summary, probe).rows
    (marked,) = (advice for _, cells in rows for advice, here in cells if here)
    assert ("finetune a few stages" in marked) == (plan(summary, probe).name == "few") == (images == 1000)


def test_just_below_a_lot_of_data_is_little_data():
    text = str(plan(Summary(399, 2, 224, held_out=100), probe_of(0.7, 0.6)))
    assert "199 images per class is little data" in text


def test_the_two_trainings_of_a_comparison_share_its_time(monkeypatch):
    labels, ends = np.arange(60) % 2, []

    def fold(inside, outside):
        return SimpleNamespace(validation=SimpleNamespace(labels=labels[outside]))

    def train(part, recipe, seed, budget, callbacks, measure_crops):
        ends.append(budget.end)
        count = len(part.validation.labels)
        finished = SimpleNamespace(probabilities=np.full((count, 2), 0.5))
        return SimpleNamespace(finished=finished, fitted=SimpleNamespace(cut=recipe.name == "all"))

    monkeypatch.setattr("recipes.training.compare_recipes.train", train)
    images = type("Images", (), {"labels": labels, "__len__": lambda self: 60})()
    start = SimpleNamespace(splits=SimpleNamespace(train=images), image_seconds=1e-4, fold=fold)
    rivals = recipes.finetune_all(32), recipes.finetune_few(32)
    now = time.monotonic()
    chosen = compare(start, rivals, [str(i) for i in range(60)], 0, Budget(now + 1000))
    assert len(ends) == 6 and now < ends[0] < ends[1] <= now + 0.4 * 1000 + 1
    assert chosen.decisions[-1].values["cut"] == ["all"]
    ends.clear()
    compare(start, rivals, [str(i) for i in range(60)], 0, Budget())
    assert ends == [math.inf, math.inf]


def test_no_mirror_images_where_they_lose_their_class():
    assert plan(Summary(500, 10, 224), probe_of(0.7, 0.6)).policy.flip == 0.5
    assert plan(Summary(500, 10, 224), probe_of(0.7, 0.6, alike=False)).policy.flip == 0.0


@pytest.mark.parametrize(
    ("size", "images", "epochs"), [(224, 100, 40), (224, 500, 20), (128, 500, 20), (96, 800, 22), (96, 10_000, 12)]
)
def test_small_datasets_and_small_images_are_seen_more_often(size, images, epochs):
    assert recipes.finetune_all(size, images).epochs == recipes.finetune_few(size, images).epochs == epochs


def test_random_weights_are_trained_from_scratch():
    assert plan(Summary(500, 10, 224, pretrained=False), None).name == "scratch"
