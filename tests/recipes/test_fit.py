"""The one training path: schedule, best weights, and the rule that finetuning must beat its start."""

import dataclasses
from types import SimpleNamespace

import keras
import numpy as np
import pytest
from makers import arrays, small_network

import augment
import recipes
from recipes.core.budget import Budget
from recipes.data.sources import load
from recipes.evaluation.selection import Candidates, Score, better, choose, cross_fitted, gain, image_weights, latest
from recipes.networks.backbones import resolve
from recipes.networks.classifier import logits_model
from recipes.networks.stages import stages
from recipes.training.batches import training_batches
from recipes.training.callbacks import KeepBest
from recipes.training.fit import fit, fit_again
from recipes.training.loop.loss import AdjustedCrossentropy
from recipes.training.loop.task import Task
from recipes.training.schedule import learning_rate, peak, schedule, warn_of_high_rate
from recipes.training.trainable import stage_rates, unfreeze


def score(logits):
    labels = np.zeros(len(logits), int)
    return Score.of(np.asarray(logits), labels, image_weights(labels, 2, False))


def logits(margin, n=40, noise=1.0, seed=0):
    random = np.random.default_rng(seed)
    return np.stack([margin + noise * random.normal(size=n), np.zeros(n)], 1)


def test_better_means_beyond_the_noise():
    assert better(score(logits(0.5)), score(logits(3.0)))
    assert not better(score(logits(3.0)), score(logits(0.5)))
    assert not better(score(logits(1.0)), score(logits(1.0)))


def test_confidence_alone_is_not_better():
    """Temperature is taken out: scaled logits say the same."""
    start, scaled = score(logits(1.0)), score(5 * logits(1.0))
    assert abs(gain(start, scaled)[0]) < 1e-3 and not better(start, scaled)


def test_likelihood_does_not_buy_accuracy():
    before, after = logits(2.0, noise=0.1), logits(8.0, noise=0.1)
    after[:2, 0] = -0.01
    assert (score(before).accuracy, score(after).accuracy) == pytest.approx((1.0, 0.95))
    assert not better(score(before), score(after))


def test_accuracy_beyond_its_noise_counts_where_no_likelihood_is_lost():
    weights = np.full(100, 0.01)
    losses, right = np.ones(100), np.arange(100) < 60
    start = Score(losses, right, weights)
    assert better(start, Score(losses, np.arange(100) < 66, weights))
    assert not better(start, Score(losses + 0.01, np.arange(100) < 66, weights))
    swapped = (np.arange(100) < 30) | (np.arange(100) >= 69)  # 31 won, 30 lost
    assert not better(start, Score(losses, swapped, weights))


def test_every_class_counts_alike_when_balanced():
    weights = image_weights(np.array([0, 0, 0, 1]), 2, True)
    np.testing.assert_allclose(weights, [1 / 6, 1 / 6, 1 / 6, 1 / 2])


def scored(losses, right=None):
    n = len(losses)
    return Score(np.asarray(losses, float), np.ones(n, bool) if right is None else right, np.full(n, 1 / n))


def test_what_a_training_leaves_is_chosen_step_by_step():
    noise = np.random.default_rng(0).normal(0, 0.1, 100)
    start, early, late = scored(1 + noise), scored(0.9 + noise), scored(0.8 + noise)
    assert Candidates((early, late)).best() is late
    slightly, clearly = scored(0.799 + noise[::-1]), scored(0.7 + noise)
    assert Candidates((early, late), (slightly,)).best() is late  # lower, but not beyond the noise
    assert Candidates((early, late), (slightly, clearly)).best() is clearly
    as_good, worse = scored(0.801 + noise[::-1]), scored(0.9 + noise)
    assert Candidates((late,), (), (as_good, worse)).best() is as_good  # the largest within the noise of the lowest
    assert Candidates((late,)).select(start) is late
    ruined, between = scored(1.1 + noise), scored(0.95 + noise)
    assert Candidates((ruined,)).select(start) is start
    assert Candidates((ruined,), (between,)).select(start) is between


def test_the_nested_estimate_does_not_flatter_a_choice_among_many():
    """Of 60 classifiers that guess, the best on 100 images looks good; judged on other images it is a guess."""
    random = np.random.default_rng(0)
    labels = random.integers(0, 2, 100)
    weights = np.full(100, 0.01)
    guesses = [Score.of(3 * random.normal(size=(100, 2)), labels, weights) for _ in range(60)]
    start = Score(np.full(100, 10.0), guesses[0].right, weights)
    taken = guesses[choose(start, [g for g in guesses if g.accuracy >= start.accuracy])]
    flattering = max(g.accuracy for g in guesses)
    honest = cross_fitted(start, Candidates(tuple(guesses))).right.mean()
    assert flattering > 0.6 and honest < flattering - 0.05
    assert taken.loss <= start.loss


def test_the_nested_estimate_is_of_the_classifier_that_is_handed_out():
    weights, none = np.full(100, 0.01), np.zeros(100, bool)
    start, ruined, finished = (Score(np.full(100, loss), none, weights) for loss in (1.0, 2.0, 0.5))
    finished = dataclasses.replace(finished, right=~none)
    assert cross_fitted(start, Candidates((ruined,)), finished).right.all()
    assert not cross_fitted(start, Candidates((finished,)), dataclasses.replace(ruined, right=none)).right.any()


@pytest.mark.parametrize("steps", [5, 100, 5000])
def test_schedule_warms_up_peaks_and_decays(steps):
    rates = np.array([float(schedule(0.1, steps, (1,))(step)) for step in np.linspace(0, steps, 101).astype(int)])
    assert rates.max() <= 0.1 + 1e-6 and rates[-1] == pytest.approx(0.001, rel=1e-3)
    assert (np.diff(rates[rates.argmax() :]) <= 1e-6).all()


@pytest.mark.parametrize(
    ("epochs", "snapshots", "ends"), [(12, 5, (8, 9, 10, 11, 12)), (4, 2, (3, 4)), (30, 3, (20, 25, 30))]
)
def test_each_cycle_ends_at_a_low_learning_rate_and_the_next_begins_at_a_higher(epochs, snapshots, ends):
    recipe = dataclasses.replace(recipes.finetune_all(64), epochs=epochs, snapshots=snapshots)
    assert recipe.cycle_ends == ends
    rate = schedule(0.1, 50, recipe.cycle_ends)
    assert max(float(rate(step)) for step in range(50 * ends[0])) == pytest.approx(0.05, rel=1e-2)
    for end in ends[:-1]:
        assert float(rate(50 * end - 1)) < 0.002 and float(rate(50 * end)) == pytest.approx(0.015)
    assert float(rate(50 * epochs - 1)) < 0.002


def rates_of(recipe, updates):
    rate = learning_rate(recipe, updates)
    return np.array(rate(np.arange(updates * recipe.epochs)))


@pytest.mark.parametrize(("epochs", "updates"), [(1, 1), (1, 5), (3, 5), (5, 5), (10, 10), (39, 5)])
def test_few_updates_from_the_linear_classifier_are_small_and_warm_up_for_long(epochs, updates):
    recipe = dataclasses.replace(recipes.finetune_few(32), epochs=epochs)
    rates, total = rates_of(recipe, updates), epochs * updates
    assert rates.max() == pytest.approx(1e-3 * min(1, total / 100) ** 2, rel=1e-5)
    assert rates.argmax() == min(20, total // 2)


@pytest.mark.parametrize(("epochs", "updates"), [(40, 5), (12, 32), (12, 400)])
@pytest.mark.parametrize("ready", [recipes.finetune_few, recipes.finetune_all])
def test_a_training_of_200_updates_and_more_takes_the_recipes_rate(epochs, updates, ready):
    total = epochs * updates
    warm, step = min(100, total // 10), np.arange(total)
    expected = 1e-5 + 0.99e-3 * (1 + np.cos(np.pi * np.maximum(0, step - warm) / (total - warm))) / 2
    expected *= np.minimum(1, (step + 1) / (warm + 1))
    np.testing.assert_allclose(rates_of(dataclasses.replace(ready(32), epochs=epochs), updates), expected, rtol=1e-3)


@pytest.mark.parametrize(("rate", "epochs", "warns"), [(3e-4, 3, True), (1e-5, 3, False), (3e-4, 20, False)])
def test_a_given_rate_is_taken_as_it_is(rate, epochs, warns, caplog):
    """With a warning where that is high for so few updates."""
    recipe = dataclasses.replace(recipes.finetune_few(32), epochs=epochs, learning_rate=rate)
    assert rates_of(recipe, 5).max() == pytest.approx(rate, rel=1e-5)
    warn_of_high_rate(recipe, 5 * epochs)
    assert [f"high for {5 * epochs} updates" in record.getMessage() for record in caplog.records] == [True] * warns
    caplog.clear()
    for other in (dataclasses.replace(recipe, learning_rate=1e-3), dataclasses.replace(recipe, warm_start=False)):
        warn_of_high_rate(other, 5 * epochs)
    assert not caplog.records


def test_random_weights_take_the_recipes_rate_at_once():
    recipe = dataclasses.replace(recipes.from_scratch(32), epochs=3)
    assert peak(recipe, 15) == 1e-3 and rates_of(recipe, 5).argmax() == 1


@pytest.mark.slow
def test_a_short_training_does_not_fall_below_the_linear_classifier():
    """Five updates at a rate for hundreds lost four points and tripled the loss here."""
    data = load("digits")
    held_out = data.test.subset(np.arange(0, len(data.test), 4))
    recipe = recipes.adjusted("few", size=32, epochs=1, refit=False)
    result = recipes.finetune(data.train, backbone="glyphs", recipe=recipe, validation=held_out)
    linear = recipes.finetune(data.train, backbone="glyphs", recipe="probe", validation=held_out).judged
    losses = -np.log(linear.probabilities[np.arange(len(linear.labels)), linear.labels])
    assert result.history["val_loss"][-1] < losses.mean() + 2 * losses.std() / np.sqrt(len(losses))
    assert "updates, so the learning rate peaks at" in str(result.recipe)


def test_keep_best_restores_and_stops():
    model = keras.Sequential([keras.Input((1,)), keras.layers.Dense(1)])
    watch = SimpleNamespace(scores=[])
    keep = KeepBest(2, watch)
    keep.set_model(model)
    model.stop_training = False
    for epoch, loss in enumerate([3.0, 1.0, 2.0, 2.5]):
        model.set_weights([np.full((1, 1), epoch), np.zeros(1)])
        watch.scores.append(scored([loss, 1.1 * loss, 0.9 * loss]))
        keep.on_epoch_end(epoch, {})
    keep.on_train_end()
    assert model.stop_training and keep.best_epoch == 2
    assert model.get_weights()[0].item() == 1


def test_the_last_of_epochs_that_the_noise_does_not_part():
    """An epoch that is worse on some images and better on as many is as good; one that is worse on all is not."""
    random = np.random.default_rng(0)
    losses, noise = random.exponential(1.0, 200), random.normal(0, 0.2, 200)
    lowest, noisy = scored(losses), scored(losses + noise - noise.mean() + 0.005)
    worse = scored(losses + random.uniform(0, 0.2, 200))
    assert lowest.loss < noisy.loss < worse.loss
    assert latest([worse, lowest, noisy]) == 2
    assert latest([worse, lowest, worse]) == 1
    assert latest([worse, lowest, noisy, worse]) == 2


def scratch(**changes):
    return dataclasses.replace(recipes.from_scratch(32, 30), epochs=3, **changes)


def setup():
    data = load(arrays(8)).train
    return logits_model(resolve(small_network()), 3, 32), data


@pytest.mark.slow
def test_a_loss_that_is_not_finite_is_an_error_with_a_cure():
    model, data = setup()
    with pytest.raises(recipes.TrainingError, match="smaller learning rate"):
        fit(Task(model, data, scratch(learning_rate=1e30), seed=0), data)


@pytest.mark.slow
def test_a_start_that_cannot_be_beaten_is_kept():
    """A learning rate that ruins the network: the result is the network as it was."""
    model, data = setup()
    fit(Task(model, data, scratch(learning_rate=1e-2), seed=0), data)
    good = model.get_weights()
    ruin = dataclasses.replace(recipes.finetune_all(32, 30), epochs=1, learning_rate=1e7)
    told = fit(Task(model, data, ruin, seed=0), data)
    assert not told.better
    for kept, before in zip(model.get_weights(), good, strict=True):
        np.testing.assert_array_equal(kept, before)


@pytest.mark.slow
@pytest.mark.parametrize("frozen", ["nothing", "the network", "a layer"])
def test_finetuning_moves_the_network_but_not_its_batch_statistics(frozen):
    """Whatever was trainable before."""
    data, network = load(arrays(8)).train, small_network()
    for part in {"nothing": [], "the network": [network], "a layer": network.layers[2:3]}[frozen]:
        part.trainable = False
    body = resolve(network)
    model = logits_model(body, 3, 32)
    recipe = dataclasses.replace(recipes.finetune_all(32, 30), epochs=2)
    unfreeze(model, body.network, recipe, stages(body.network, 32))
    before = {w.path: w.numpy() for w in body.network.weights}
    seen = {}
    spy = keras.callbacks.LambdaCallback(
        on_epoch_end=lambda *_: seen.update({w.path: w.numpy() for w in body.network.weights})
    )
    fit(Task(model, data, recipe, seed=0), data, callbacks=[spy])
    moved = {path for path in before if not np.array_equal(before[path], seen[path])}
    assert moved == {path for path in before if "conv2d" in path}


@pytest.mark.slow
def test_epochs_differ_and_a_later_start_continues_the_stream():
    _, data = setup()
    recipe = scratch(batch_size=8)
    whole = [images.numpy() for images, _ in training_batches(data, recipe, seed=0)]
    later = [images.numpy() for images, _ in training_batches(data, recipe, seed=0, start=1)]
    assert len(whole) == 9
    assert not np.array_equal(whole[0], whole[3])
    np.testing.assert_array_equal(whole[3:], later)


def test_balanced_logits_are_those_of_equally_frequent_classes():
    """Where features tell nothing, the logits that fit three images of a class to one of the other are equal."""
    loss = AdjustedCrossentropy([0.75, 0.25])
    labels = np.eye(2, dtype="float32")[[0, 0, 0, 1]]
    equal = float(loss(labels, np.zeros((4, 2), "float32")))
    for step in (0.1, -0.1):
        assert equal < float(loss(labels, np.tile([step, 0.0], (4, 1)).astype("float32")))


@pytest.mark.slow
def test_accumulation_equals_the_whole_batch():
    """Two halves of a batch of 8 give the step of the whole."""
    weights = []
    for parts in (1, 2):
        model, data = setup()
        recipe = scratch(batch_size=8, accumulate=parts, label_smoothing=0.0, policy=augment.Policy.none(32))
        for layer in model.get_layer("small").layers:
            if isinstance(layer, keras.layers.BatchNormalization):
                layer.trainable = False  # batch statistics are those of the parts
        fit(Task(model, data, recipe, seed=0), data)
        weights.append(model.get_weights())
    for one, two in zip(*weights, strict=True):
        np.testing.assert_allclose(one, two, atol=2e-4)


def test_stage_rates_fall_towards_the_input():
    backbone = resolve(small_network())
    tensors, model = stages(backbone.network, 32), logits_model(backbone, 3, 32)
    rates = stage_rates(model, backbone.network, tensors, 0.5)
    by_path = {path: rate for path, rate in rates.items() if "kernel" in path}
    assert sorted(by_path.values()) == [0.5, 1.0] and rates[".*"] == 1.0
    assert stage_rates(model, backbone.network, tensors, 1.0) is None


@pytest.mark.slow
def test_training_once_more_repeats_the_first_and_keeps_the_time():
    model, data = setup()
    recipe, start = scratch(averaging=0.9), model.get_weights()
    task = Task(model, data, recipe, seed=0)
    fitted = fit(task, data)
    first = model.get_weights()
    late = fit_again(task, start, fitted, budget=Budget.of(0))
    assert late.reasons[-1].code == "refit.no_time"
    assert all((a == b).all() for a, b in zip(first, model.get_weights(), strict=True))
    done = fit_again(task, start, fitted).reasons[-1]
    assert (done.code, done.values["images"]) == ("refit.done", len(data))
    for name, one, again in zip(model.weights, first, model.get_weights(), strict=True):
        np.testing.assert_array_equal(one, again, err_msg=name.path)
