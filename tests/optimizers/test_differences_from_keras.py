"""The documented differences from Keras's own: every default, and schedules that docs/migrating.md calls equal."""

import inspect
import math
from pathlib import Path

import keras
import numpy as np
import pytest

import optimizers

PAGE = Path(__file__).resolve().parents[2] / "docs" / "optimizers.md"
SCHEDULES = keras.optimizers.schedules
PAIRS = [  # here, Keras's, names of arguments there
    (optimizers.Momentum, keras.optimizers.SGD, {"rho": "momentum"}),
    (optimizers.Nesterov, keras.optimizers.SGD, {"rho": "momentum"}),
    (optimizers.AdaGrad, keras.optimizers.Adagrad, {}),
    (optimizers.RMSProp, keras.optimizers.RMSprop, {}),
    (optimizers.Adam, keras.optimizers.Adam, {}),
    (optimizers.Adam, keras.optimizers.AdamW, {}),
    (optimizers.StepDecay, SCHEDULES.PiecewiseConstantDecay, {}),
    (optimizers.ExponentialDecay, SCHEDULES.ExponentialDecay, {"period": "decay_steps"}),
    (optimizers.InverseTimeDecay, SCHEDULES.InverseTimeDecay, {"period": "decay_steps"}),
    (optimizers.Cosine, SCHEDULES.CosineDecay, {"steps": "decay_steps", "minimum": "alpha"}),
    (
        optimizers.CosineRestarts,
        SCHEDULES.CosineDecayRestarts,
        {"period": "first_decay_steps", "multiplier": "t_mul", "minimum": "alpha"},
    ),
    (optimizers.PolyakAveraging, keras.optimizers.Adam, {"decay": "ema_momentum"}),
]


def defaults(cls):
    parameters = inspect.signature(cls.__init__).parameters.values()
    return {p.name: "—" if p.default is inspect.Parameter.empty else p.default for p in parameters}


def number(text):
    return float(text) if text not in ("None", "—") else text


def test_every_default_that_differs_is_in_the_table():
    lines = PAGE.read_text("utf-8").split("### Differences from Keras's own")[1].split("Behaviour that")[0].splitlines()
    rows = [[cell.strip(" `") for cell in line.strip("|").split("|")] for line in lines if line.startswith("| `")]
    documented = {(a, b, number(c), d.split("`")[0], e, number(f)) for a, b, c, d, e, f in rows}
    actual = set()
    for ours, theirs, names in PAIRS:
        here, there = defaults(ours), defaults(theirs)
        for name, value in here.items():
            other = there.get(names.get(name, name), value)
            if name not in ("self", "options") and other != value:
                row = ours.__name__, name, value, theirs.__name__, names.get(name, name), other
                actual.add(tuple("None" if cell is None else cell for cell in row))
    assert documented == actual


def test_options_of_every_optimizer_are_kerass():
    """clipnorm, use_ema and so on go through to Keras's base class and keep its defaults."""
    there = defaults(keras.optimizers.Adam)
    config = optimizers.Adam().get_config()
    shared = set(there) & set(config) - {"name", "learning_rate", "weight_decay", "epsilon"}
    assert len(shared) >= 8 and all(config[name] == there[name] for name in shared)


@pytest.mark.parametrize(
    "here, there",
    [
        (optimizers.StepDecay(0.1, boundaries=[10]), SCHEDULES.PiecewiseConstantDecay([9], [0.1, 0.01])),
        (optimizers.ExponentialDecay(0.1, -math.log(0.96), 10), SCHEDULES.ExponentialDecay(0.1, 10, 0.96)),
        (optimizers.InverseTimeDecay(0.1, 0.5, 10), SCHEDULES.InverseTimeDecay(0.1, 10, 0.5)),
        (optimizers.Cosine(0.1, 20, minimum=0.001), SCHEDULES.CosineDecay(0.1, 20, alpha=0.01)),
        (optimizers.CosineRestarts(0.1, 5, multiplier=2), SCHEDULES.CosineDecayRestarts(0.1, 5)),
    ],
    ids=lambda schedule: type(schedule).__name__,
)
def test_schedules_of_the_migration_table_are_equal(here, there):
    for t in range(25):
        np.testing.assert_allclose(float(here(t)), float(there(t)), rtol=2e-5, atol=1e-8)
