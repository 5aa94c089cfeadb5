"""Schedules against their formulas; restarts exactly on time; counting under accumulation; serialisation."""

import keras
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from keras import ops

import optimizers

SCHEDULES = [
    optimizers.StepDecay(0.1, boundaries=[3, 7], factor=0.5),
    optimizers.ExponentialDecay(0.1, 0.3, period=4),
    optimizers.InverseTimeDecay(0.1, 0.3, period=4),
    optimizers.Cosine(0.1, 20, minimum=0.01),
    optimizers.CosineRestarts(0.1, 5, multiplier=2, minimum=0.01),
    optimizers.Cyclic(0.1, 20, 4),
    optimizers.Warmup(optimizers.Cosine(0.1, 20), 5),
    optimizers.Warmup(0.1, 5),
    optimizers.Then(optimizers.Cosine(0.1, 20), 18, optimizers.CosineRestarts(0.03, 4)),
]

FORMULAS = [
    lambda t: 0.1 * 0.5 ** ((t >= 3) + (t >= 7)),
    lambda t: 0.1 * np.exp(-0.3 * t / 4),
    lambda t: 0.1 / (1 + 0.3 * t / 4),
    lambda t: 0.01 + 0.09 * (1 + np.cos(np.pi * min(t, 20) / 20)) / 2,
    lambda t: 0.01 + 0.09 * (1 + np.cos(np.pi * _restarted(t, 5, 2))) / 2,
    lambda t: 0.1 * (1 + np.cos(np.pi * (t % 5) / 5)) / 2,
    lambda t: 0.1 * (t + 1) / 6 if t < 5 else 0.1 * (1 + np.cos(np.pi * min(t - 5, 20) / 20)) / 2,
    lambda t: 0.1 * min((t + 1) / 6, 1),
    lambda t: (0.1 * (1 + np.cos(np.pi * t / 20)) if t < 18 else 0.03 * (1 + np.cos(np.pi * ((t - 18) % 4) / 4))) / 2,
]


def _restarted(t, period, multiplier):
    """Position in the cycle, found by walking through them."""
    while t >= period:
        t, period = t - period, period * multiplier
    return t / period


def rates(schedule, steps):
    return np.array([float(schedule(t)) for t in range(steps)])


@pytest.mark.parametrize("schedule, formula", zip(SCHEDULES, FORMULAS, strict=True), ids=lambda x: type(x).__name__)
def test_formula(schedule, formula):
    np.testing.assert_allclose(rates(schedule, 40), [formula(t) for t in range(40)], rtol=2e-6, atol=2e-9)


@pytest.mark.parametrize("schedule", SCHEDULES, ids=lambda s: type(s).__name__)
def test_serialisation(schedule):
    copy = keras.saving.deserialize_keras_object(keras.saving.serialize_keras_object(schedule))
    assert type(copy) is type(schedule)
    np.testing.assert_array_equal(rates(copy, 12), rates(schedule, 12))


@settings(max_examples=60, deadline=None)
@given(period=st.integers(1, 500), multiplier=st.integers(1, 4), cycle=st.integers(0, 5))
def test_restarts_are_exactly_on_time(period, multiplier, cycle):
    """The rate is α₀ at the first update of a cycle, and below it at the last of the one before."""
    first = sum(period * multiplier**k for k in range(cycle))
    schedule = optimizers.CosineRestarts(0.1, period, multiplier)
    assert float(schedule(first)) == pytest.approx(0.1, rel=1e-6)
    if first and period > 1:
        assert float(schedule(first - 1)) < 0.1 * 0.51


def test_updates_are_counted_and_not_micro_batches():
    """Ours and, within Discriminative, Keras's own."""
    schedule = optimizers.StepDecay(1.0, boundaries=[1, 2], factor=0.1)
    for optimizer in (
        optimizers.Momentum(schedule, rho=0.0, gradient_accumulation_steps=3),
        optimizers.Discriminative(keras.optimizers.SGD(schedule, gradient_accumulation_steps=3), {".*": 1.0}),
    ):
        x, seen = keras.Variable(np.zeros(1, "float32"), name="kernel"), []
        for _ in range(9):
            optimizer.apply([ops.ones(1)], [x])
            seen.append(-float(ops.convert_to_numpy(x)[0]))
        np.testing.assert_allclose(seen, [0, 0, 1, 1, 1, 1.1, 1.1, 1.1, 1.11], rtol=1e-6)


def test_plot_draws_the_schedule():
    matplotlib = pytest.importorskip("matplotlib")
    matplotlib.use("Agg")
    line = optimizers.Cosine(0.1, 30).plot(40).lines[0]
    np.testing.assert_allclose(line.get_ydata(), rates(optimizers.Cosine(0.1, 30), 40))


@pytest.mark.parametrize(
    "make",
    [
        lambda: optimizers.StepDecay(0.1, [5, 3]),
        lambda: optimizers.Cosine(-1, 10),
        lambda: optimizers.CosineRestarts(0.1, 10, 0.5),
        lambda: optimizers.Cyclic(0.1, 10, 11),
        lambda: optimizers.Warmup(0.1, 0),
    ],
)
def test_mistakes_are_named(make):
    with pytest.raises(ValueError, match=r"Got"):
        make()
