"""Joint results: means of predictions and of weights, snapshots, temperatures, and their gains."""

import dataclasses

import keras
import numpy as np
import pytest
from assertions import rejects
from makers import arrays, folder, small_network

import recipes
from recipes import RecipeError
from recipes.data.evaluation_batches import evaluation_batches
from recipes.data.sources import load
from recipes.evaluation import ledger
from recipes.evaluation.calibrate import calibrated, finish
from recipes.evaluation.ledger import Gain, compared, ledger_table, paired_bootstrap
from recipes.evaluation.metrics import temperature
from recipes.networks.classifier import recalibrated

PROBE = recipes.adjusted("probe", size=32)


@pytest.fixture(scope="module")
def photos(tmp_path_factory):
    return folder(tmp_path_factory.mktemp("photos"), per_class=8)


@pytest.fixture(scope="module")
def held_out(tmp_path_factory):
    return folder(tmp_path_factory.mktemp("held_out"), per_class=20, seed=3)


@pytest.fixture(scope="module")
def runs(photos):
    """Of one pretrained start and one size, with heads that differ."""
    runs = [recipes.finetune(photos, backbone=small_network(), recipe=PROBE, seed=seed) for seed in (0, 1, 2)]
    for i, run in enumerate(runs):
        weights = run.model.get_weights()
        noise = np.random.default_rng(i).normal(0, 0.3, weights[-1].shape)
        run.model.set_weights([*weights[:-1], weights[-1] + noise.astype(np.float32)])
    return runs


def rows(result, data):
    return result.probabilities(load(data).train)


def test_an_ensemble_predicts_the_mean_is_saved_and_comes_back(runs, photos, tmp_path):
    joint = recipes.ensemble(runs)
    expected = np.mean([rows(run, photos) for run in runs], 0)
    np.testing.assert_allclose(rows(joint, photos), expected, atol=1e-6)
    joint.save(tmp_path)
    np.testing.assert_allclose(rows(recipes.load(tmp_path), photos), expected, atol=1e-6)
    assert joint.predict(photos / "red")[0].class_name in joint.class_names
    assert joint.evaluate(photos, crops=10).n == 24
    joint.report(tmp_path / "report.html")
    assert "Not yet evaluated" in (tmp_path / "report.html").read_text()


@pytest.mark.slow
def test_members_of_other_image_sizes_see_images_of_their_size(runs, photos):
    larger = recipes.finetune(photos, backbone=small_network(), recipe=recipes.adjusted("probe", size=40))
    joint = recipes.ensemble([runs[0], larger])
    assert joint.recipe.evaluation_policy.size == 40 and joint.model.inputs[0].shape[1] == 40
    alone = [rows(run, photos) for run in (runs[0], larger)]
    np.testing.assert_allclose(rows(joint, photos), np.mean(alone, 0), atol=0.02)  # resized once more


@pytest.mark.minutes
def test_the_ledger_of_an_ensemble(runs, held_out, tmp_path):
    joint = recipes.ensemble(runs, held_out)
    labels = load(held_out).train.labels
    each = [(rows(run, held_out).argmax(1) == labels).mean() for run in runs]
    average, row = joint.ledger[:2]
    assert average.accuracy == pytest.approx(np.mean(each))
    mean = np.mean([rows(run, held_out) for run in runs], 0)
    assert row.accuracy == pytest.approx((mean.argmax(1) == labels).mean())
    assert row.gain == pytest.approx(row.accuracy - average.accuracy) and row.cost == 3
    assert row.kept and row.note.endswith(": requested")  # whether or not it gains
    assert joint.validation.n == len(labels)
    turned = load(held_out).train.with_classes(("red", "green", "blue"))
    assert recipes.ensemble(runs, turned).validation.accuracy == joint.validation.accuracy
    joint.report(tmp_path / "report.html")
    page = (tmp_path / "report.html").read_text()
    assert "Gain of each trick" in page and "for training or model selection" in page
    assert "joined the training images" not in page  # nothing is trained on them


@pytest.mark.slow
def test_a_soup_has_the_mean_of_the_weights(runs, photos, held_out):
    joint = recipes.soup(runs)
    for found, *each in zip(joint.model.get_weights(), *(run.model.get_weights() for run in runs), strict=True):
        np.testing.assert_allclose(found, np.mean(each, 0), atol=1e-6)
    assert "there are no validation images" in str(joint.recipe)
    before = [run.model.get_weights() for run in runs]
    greedy = recipes.soup(runs, held_out)
    for run, own in zip(runs, before, strict=True):
        assert all((a == b).all() for a, b in zip(run.model.get_weights(), own, strict=True))
    assert greedy.validation.n == 60 and "soup of" in greedy.ledger[1].trick


@pytest.mark.slow
def test_a_greedy_soup_leaves_out_what_spoils_it(runs, held_out):
    spoiled = recipes.finetune(*[held_out], backbone=small_network(), recipe=PROBE)
    weights = spoiled.model.get_weights()
    spoiled.model.set_weights([*weights[:-2], -5 * weights[-2], weights[-1]])
    joint = recipes.soup([runs[0], spoiled], held_out)
    np.testing.assert_array_equal(joint.model.get_weights()[-2], runs[0].model.get_weights()[-2])
    assert "1 of 2 runs" in str(joint.recipe)


def test_what_cannot_be_joined(runs, photos, tmp_path):
    other = recipes.finetune(folder(tmp_path, per_class=6, classes=2), backbone=small_network(), recipe=PROBE)
    for joined in (recipes.ensemble, recipes.soup):
        for results, code, value in (
            (runs[:1], "ensemble.results", 1),
            ([runs[0], other], "ensemble.classes", list(other.class_names)),
            ([runs[0], "run"], "ensemble.results", ["str"]),
        ):
            with rejects(RecipeError, code, value=value):
                joined(results)
    narrower = recipes.finetune(photos, backbone=small_network(), recipe=recipes.adjusted("probe", size=32, taps=(0,)))
    message = (
        r"run 2 of 2 \(seed 0\) classifies from stage 1, but run 1 of 2 \(seed 0\) classifies from stages 1, 2"
        r".* --recipe RUN .*`recipes ensemble`"
    )
    with rejects(RecipeError, "ensemble.architecture", run=1, match=message):
        recipes.soup([runs[0], narrower])
    remedy = r"and with the same `--epochs`, if any\. Their recipes differ in taps \("
    with rejects(RecipeError, "ensemble.architecture", run=1, match=remedy):
        recipes.soup([runs[0], narrower])
    for repeated in ([runs[0], runs[0]], [runs[0], runs[1], runs[0]], [recipes.ensemble(runs[:2]), runs[1]]):
        with rejects(RecipeError, "ensemble.shared_weights") as error:
            recipes.ensemble(repeated)
        assert error.value.runs[0] == 0
    random = dataclasses.replace(runs[1], recipe=dataclasses.replace(runs[1].recipe, warm_start=False, epochs=1))
    with rejects(RecipeError, "ensemble.random_start", run=1):
        recipes.soup([runs[0], random])


def test_a_soup_of_other_pretrained_starts_is_rejected_though_the_shapes_agree(photos, tmp_path):
    for seed in (0, 1):
        small_network(tmp_path / f"{seed}.keras", seed=seed)
    pair = [recipes.finetune(photos, backbone=tmp_path / f"{seed}.keras", recipe=PROBE) for seed in (0, 1)]
    with pytest.raises(RecipeError) as error:
        recipes.soup(pair)
    assert [text[-7:] for text in error.value.differing] == ["1.keras", "0.keras"]
    assert recipes.ensemble(pair).class_names == pair[0].class_names


def test_the_last_stage_by_name_or_by_default_is_one_architecture(photos):
    default = recipes.linear_probe(32)
    pair = [
        recipes.finetune(photos, backbone=small_network(), recipe=dataclasses.replace(default, taps=taps))
        for taps in (None, (1,))
    ]
    joint = recipes.soup(pair)
    for found, *each in zip(joint.model.get_weights(), *(run.model.get_weights() for run in pair), strict=True):
        np.testing.assert_allclose(found, np.mean(each, 0), atol=1e-6)


@pytest.mark.minutes
def test_a_runs_recipe_gives_the_next_seeds_its_architecture(photos, monkeypatch):
    """Whatever stages the probe of another split prefers, and although the training is undone."""
    monkeypatch.setattr("recipes.evaluation.selection.better", lambda start, other: False)
    first = recipes.finetune(photos, backbone=small_network(), recipe=recipes.adjusted("all", size=32, epochs=1))
    every = dataclasses.replace(first.recipe, taps=(0, 1), epochs=1)
    second = recipes.finetune(photos, backbone=small_network(), recipe=every, seed=1)
    assert not second.recipe.epochs and second.recipe.taps == (0, 1)
    third = recipes.finetune(photos, backbone=small_network(), recipe=second.recipe, seed=2)
    recipes.soup([second, third])


@pytest.mark.slow
def test_snapshots_are_averaged(photos):
    recipe = recipes.adjusted("scratch", size=32, epochs=7, learning_rate=0.02)
    result = recipes.finetune(photos, backbone=small_network(), recipe=recipe, snapshots=3)
    assert len(result.history["loss"]) == 7  # of which cycles end after 5, 6 and 7
    assert "3 snapshots" in str(result.recipe)
    members = [layer for layer in result.model.layers if layer.name.startswith("member_")]
    assert 0 <= len(members) <= 3
    assert f"the mean of the last {max(1, len(members))} of 3 snapshots" in str(result.recipe)


@pytest.mark.slow
@pytest.mark.parametrize("snapshots", [0, 2])
def test_a_training_that_is_undone_leaves_the_network_as_it_was(photos, held_out, monkeypatch, snapshots):
    """The reported accuracy of the linear classifier is that of the returned model."""
    monkeypatch.setattr("recipes.evaluation.selection.better", lambda start, other: False)
    options = dict(size=32, test_size=32, epochs=4, learning_rate=0.05, refit=False, calibrate=False, mirror=False)
    recipe = recipes.adjusted("all", **options)
    result = recipes.finetune(
        photos, backbone=small_network(), recipe=recipe, validation=held_out, snapshots=snapshots
    )  # fmt: skip
    assert not result.recipe.epochs and "reverted to the linear classifier" in str(result.recipe)
    np.testing.assert_allclose(rows(result, held_out), result.judged.probabilities, rtol=1e-3, atol=1e-6)


@pytest.mark.slow
def test_more_snapshots_than_epochs_and_none_without_training(photos):
    short = recipes.finetune(
        photos, backbone=small_network(), recipe=recipes.adjusted("scratch", size=32, epochs=4), snapshots=9
    )
    assert "2 instead of 9 snapshots" in str(short.recipe)
    linear = recipes.finetune(photos, backbone=small_network(), recipe=PROBE, snapshots=5)
    assert "so there are no snapshots" in str(linear.recipe)
    with rejects(RecipeError, "request.snapshots", field="snapshots", value=2.5):
        recipes.finetune(photos, backbone=small_network(), snapshots=2.5)


def overconfident(n=400, scale=4.0):
    random = np.random.default_rng(0)
    labels = random.integers(0, 3, n)
    logits = random.normal(0, 1, (n, 3)) + 1.5 * np.eye(3)[labels]
    return scale * logits, labels


def test_temperature_halves_the_calibration_error_of_the_overconfident():
    logits, labels = overconfident()
    calibration, row = calibrated(logits[None], labels)
    assert row.kept and calibration.ece_before > 0.03 and calibration.ece_after < calibration.ece_before / 2
    assert calibration.temperature == pytest.approx(temperature(logits, labels))
    right, row = calibrated(logits[None] / calibration.temperature, labels)
    assert right.temperature == pytest.approx(1, abs=0.01) and not row.kept and "off" in row.note


def test_temperature_of_a_mean_of_views():
    logits, labels = overconfident()
    views = np.stack([logits, logits[:, ::-1]])

    def nats(at):
        p = np.exp(views / at) / np.exp(views / at).sum(-1, keepdims=True)
        return -np.log(p.mean(0)[np.arange(len(labels)), labels]).mean()

    best = temperature(views, labels)
    assert nats(best) <= min(nats(best * 1.1), nats(best / 1.1))


def test_the_temperature_is_in_the_model():
    images, labels = arrays(per_class=30)
    data = load((images, labels)).train
    x = keras.Input((None, None, 3))
    sharp = keras.layers.Dense(3, kernel_initializer="glorot_uniform", name="logits")
    model = keras.Model(x, sharp(keras.layers.GlobalAveragePooling2D()(x)))
    recipe = recipes.linear_probe(32)
    finished = finish(model, recipe, data, crops=False)
    assert finished.calibration and finished.calibration.temperature > 2
    shown = np.concatenate([x for x, _ in evaluation_batches(data, recipe.evaluation_policy, 32)])
    probabilities = finished.classifier(model).predict(shown, verbose=0)
    np.testing.assert_allclose(probabilities, finished.probabilities, atol=1e-5)
    joint = recalibrated(finished.classifier(model), 2.0).predict(shown, verbose=0)
    root = np.sqrt(probabilities)
    np.testing.assert_allclose(joint, root / root.sum(1, keepdims=True), atol=1e-4)


@pytest.mark.parametrize("level", [0.95, 0.98])
def test_of_many_images_the_interval_is_what_the_bootstrap_tends_to(monkeypatch, level):
    """As far as 2,000 draws can tell: nats, most of which are nothing and few are much."""
    differences = np.random.default_rng(0).normal(0.02, 0.2, 10_000) ** 3
    mean, normal = paired_bootstrap(differences, level=level)
    monkeypatch.setattr(ledger, "_MANY", np.inf)
    again, drawn = paired_bootstrap(differences, level=level)
    assert mean == again
    np.testing.assert_allclose(normal, drawn, atol=0.05 * (drawn[1] - drawn[0]))


def test_paired_bootstrap_covers_the_mean_as_often_as_it_says():
    random = np.random.default_rng(0)
    inside = 0
    for trial in range(200):
        mean, (low, high) = paired_bootstrap(random.normal(0.3, 1, 60), seed=trial)
        assert low < mean < high
        inside += low < 0.3 < high
    assert 0.89 <= inside / 200 <= 0.99


def test_rows_say_what_their_intervals_say():
    labels = np.arange(300) % 3
    good, bad = np.eye(3)[labels] * 0.8 + 0.2 / 3, np.full((300, 3), 1 / 3)
    gains, none = compared("trick", bad, good, labels, cost=2.0), compared("trick", good, good, labels)
    assert gains.kept and "on" in gains.note and gains.gain == pytest.approx(2 / 3) and gains.interval[0] > 0.5
    assert not none.kept and "off" in none.note and none.gain == 0
    assert not compared("trick", good, bad, labels).kept
    text = ledger_table([Gain("start", 0.5), gains, Gain("unmeasured", None, note="no time")])
    assert len({len(line.split("  ")[0]) for line in text.splitlines()}) and "no time" in text and "2.0 ×" in text
