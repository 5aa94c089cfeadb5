"""The one training path: schedule, best weights, and the rule that finetuning must beat its start."""

import dataclasses

import keras
import numpy as np
import pytest
from makers import arrays, small_network

import recipes
from recipes.backbones import resolve, stages
from recipes.classifier import logits_model
from recipes.fit import Fitted, KeepBest, fit, schedule, training_batches, unfreeze
from recipes.sources import load


def fitted(before, after):
    return Fitted({}, 1, np.zeros(len(before), int), np.array(before), np.array(after), False)


def logits(margin, n=40, noise=1.0, seed=0):
    random = np.random.default_rng(seed)
    return np.stack([margin + noise * random.normal(size=n), np.zeros(n)], 1)


def test_better_means_beyond_the_noise():
    assert fitted(logits(0.5), logits(3.0)).better
    assert not fitted(logits(3.0), logits(0.5)).better
    assert not fitted(logits(1.0), logits(1.0)).better


def test_confidence_alone_is_not_better():
    """Temperature is taken out: scaled logits say the same."""
    one = fitted(logits(1.0), 5 * logits(1.0))
    assert abs(one.gain[0]) < 1e-3 and not one.better


def test_likelihood_does_not_buy_accuracy():
    before, after = logits(2.0, noise=0.1), logits(8.0, noise=0.1)
    after[:2, 0] = -0.01
    assert fitted(before, after).accuracies == (1.0, 0.95)
    assert not fitted(before, after).better


@pytest.mark.parametrize("steps", [5, 100, 5000])
def test_schedule_warms_up_peaks_and_decays(steps):
    rates = np.array([float(schedule(0.1, steps)(step)) for step in np.linspace(0, steps, 101).astype(int)])
    assert rates.max() <= 0.1 + 1e-6 and rates[-1] == pytest.approx(0.001, rel=1e-3)
    assert (np.diff(rates[rates.argmax() :]) <= 1e-6).all()


def test_keep_best_restores_and_stops():
    model = keras.Sequential([keras.Input((1,)), keras.layers.Dense(1)])
    keep = KeepBest(patience=2)
    keep.set_model(model)
    model.stop_training = False
    for epoch, loss in enumerate([3.0, 1.0, 2.0, 2.5]):
        model.set_weights([np.full((1, 1), epoch), np.zeros(1)])
        keep.on_epoch_end(epoch, {"val_loss": loss})
    keep.on_train_end()
    assert model.stop_training and keep.best_epoch == 2
    assert model.get_weights()[0].item() == 1


def scratch(**changes):
    return dataclasses.replace(recipes.from_scratch(32, 30), epochs=3, **changes)


def setup():
    data = load(arrays(8)).train
    return logits_model(resolve(small_network()), 3, 32), data


def test_a_loss_that_is_not_finite_is_an_error_with_a_cure():
    model, data = setup()
    with pytest.raises(recipes.TrainingError, match="smaller learning rate"):
        fit(model, data, data, scratch(learning_rate=1e30), seed=0)


def test_a_start_that_cannot_be_beaten_is_kept():
    """A learning rate that ruins the network: the result is the network as it was."""
    model, data = setup()
    fit(model, data, data, scratch(learning_rate=1e-2), seed=0)
    good = model.get_weights()
    ruin = dataclasses.replace(recipes.finetune_all(32, 30), epochs=1, learning_rate=3.0)
    told = fit(model, data, data, ruin, seed=0)
    assert not told.better
    for kept, before in zip(model.get_weights(), good, strict=True):
        np.testing.assert_array_equal(kept, before)


def test_finetuning_moves_the_network_but_not_its_batch_statistics():
    data = load(arrays(8)).train
    body = resolve(small_network())
    model = logits_model(body, 3, 32)
    recipe = dataclasses.replace(recipes.finetune_all(32, 30), epochs=2)
    unfreeze(model, body.network, recipe, stages(body.network, 32))
    before = {w.path: w.numpy() for w in body.network.weights}
    seen = {}
    spy = keras.callbacks.LambdaCallback(
        on_epoch_end=lambda *_: seen.update({w.path: w.numpy() for w in body.network.weights})
    )
    fit(model, data, data, recipe, seed=0, callbacks=[spy])
    moved = {path for path in before if not np.array_equal(before[path], seen[path])}
    assert moved == {path for path in before if "conv2d" in path}


def test_epochs_differ_and_a_later_start_continues_the_stream():
    _, data = setup()
    recipe = scratch(batch_size=8)
    whole = [images.numpy() for images, _ in training_batches(data, recipe, seed=0)]
    later = [images.numpy() for images, _ in training_batches(data, recipe, seed=0, start=1)]
    assert len(whole) == 9
    assert not np.array_equal(whole[0], whole[3])
    np.testing.assert_array_equal(whole[3:], later)
