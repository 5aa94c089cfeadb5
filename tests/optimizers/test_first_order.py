"""The update rules against NumPy recurrences of the lecture and against torch.optim; weight decay; a saddle."""

import keras
import numpy as np
import pytest
from keras import ops

import optimizers

STEPS = 200
DECAY = 0.01


def momentum(x, g, s, a, t):
    s["v"] = 0.9 * s.get("v", 0) + g
    return x - a * s["v"]


def nesterov(x, g, s, a, t):
    old = s.get("v", 0)
    s["v"] = 0.9 * old - a * g
    return x - 0.9 * old + (1 + 0.9) * s["v"]


def adagrad(x, g, s, a, t):
    s["s"] = s.get("s", 0) + g * g
    return x - a * g / (np.sqrt(s["s"]) + 1e-7)


def rmsprop(x, g, s, a, t):
    s["s"] = 0.99 * s.get("s", 0) + (1 - 0.99) * g * g
    return x - a * g / (np.sqrt(s["s"]) + 1e-8)


def adam(x, g, s, a, t):
    s["m"] = 0.9 * s.get("m", 0) + (1 - 0.9) * g
    s["s"] = 0.999 * s.get("s", 0) + (1 - 0.999) * g * g
    return x - a * s["m"] / (1 - 0.9**t) / (np.sqrt(s["s"] / (1 - 0.999**t)) + 1e-8)


def almost_adam(x, g, s, a, t):
    s["m"] = 0.9 * s.get("m", 0) + (1 - 0.9) * g
    s["s"] = 0.999 * s.get("s", 0) + (1 - 0.999) * g * g
    return x - a * s["m"] / (np.sqrt(s["s"]) + 1e-8)


RULES = {
    "Momentum": (optimizers.Momentum, momentum),
    "Nesterov": (optimizers.Nesterov, nesterov),
    "AdaGrad": (optimizers.AdaGrad, adagrad),
    "RMSProp": (optimizers.RMSProp, rmsprop),
    "Adam": (optimizers.Adam, adam),
    "almost Adam": (lambda *a, **k: optimizers.Adam(*a, bias_correction=False, **k), almost_adam),
}


def gradients(steps=STEPS, seed=0):
    """Noisy gradients whose scales range over six orders of magnitude."""
    rng = np.random.default_rng(seed)
    scale = np.geomspace(1e-3, 1e3, 12).reshape(3, 4)
    return [(scale * (0.3 + rng.normal(size=(3, 4)))).astype("float32") for _ in range(steps)]


def trajectory(optimizer, start, grads, name="kernel"):
    x = keras.Variable(start.astype("float32"), name=name)
    path = []
    for g in grads:
        optimizer.apply([ops.convert_to_tensor(g)], [x])
        path.append(np.array(ops.convert_to_numpy(x)))
    return np.array(path)


START = np.random.default_rng(1).normal(size=(3, 4))


@pytest.mark.parametrize("name", RULES)
def test_rule_is_the_lectures(name):
    make, rule = RULES[name]
    schedule = optimizers.Cosine(0.01, STEPS, minimum=1e-4)
    path = trajectory(make(schedule, weight_decay=DECAY), START, gradients())
    x, slots = START.copy(), {}
    for t, g in enumerate(gradients(), 1):
        a = 1e-4 + (0.01 - 1e-4) * (1 + np.cos(np.pi * (t - 1) / STEPS)) / 2
        x = rule(x, g.astype(float), slots, a, t) - a * DECAY * x
        np.testing.assert_allclose(path[t - 1], x, rtol=1e-5, atol=1e-5 * np.abs(x).max())


TORCH = {
    "Momentum": lambda torch, p: torch.optim.SGD(p, lr=1.0, momentum=0.9),
    "AdaGrad": lambda torch, p: torch.optim.Adagrad(p, lr=1.0, eps=1e-7),
    "RMSProp": lambda torch, p: torch.optim.RMSprop(p, lr=1.0, alpha=0.99, eps=1e-8),
    "Adam": lambda torch, p: torch.optim.AdamW(p, lr=1.0, weight_decay=DECAY),
}


@pytest.mark.parametrize("name", TORCH)
def test_rule_is_torchs_under_a_schedule(name):
    torch = pytest.importorskip("torch")
    decay = DECAY if name == "Adam" else None
    path = trajectory(
        RULES[name][0](optimizers.Warmup(optimizers.Cosine(0.01, 150), 50), weight_decay=decay), START, gradients()
    )
    x = torch.tensor(START, dtype=torch.float64, requires_grad=True)
    reference = TORCH[name](torch, [x])
    for t, g in enumerate(gradients()):
        cosine = (1 + np.cos(np.pi * max(t - 50, 0) / 150)) / 2
        reference.param_groups[0]["lr"] = 0.01 * cosine * min((t + 1) / 51, 1)
        x.grad = torch.tensor(g.astype(float))
        reference.step()
    x = x.detach().numpy()
    np.testing.assert_allclose(path[-1], x, rtol=1e-5, atol=1e-5 * np.abs(x).max())


def test_nesterov_is_torchs_at_a_constant_rate():
    torch = pytest.importorskip("torch")
    path = trajectory(optimizers.Nesterov(0.01), START, gradients())
    x = torch.tensor(START, dtype=torch.float64, requires_grad=True)
    reference = torch.optim.SGD([x], lr=0.01, momentum=0.9, nesterov=True)
    for g in gradients():
        x.grad = torch.tensor(g.astype(float))
        reference.step()
    np.testing.assert_allclose(path[-1], x.detach().numpy(), rtol=1e-5, atol=1e-5 * np.abs(path[-1]).max())


@pytest.mark.parametrize("make", [optimizers.Momentum, optimizers.Nesterov, optimizers.AdaGrad, optimizers.RMSProp])
def test_differs_from_kerass_own_where_the_docstring_says(make):
    """Small gradients under a schedule separate all but Nesterov."""
    twin = {
        optimizers.Momentum: lambda rate: keras.optimizers.SGD(rate, momentum=0.9),
        optimizers.Nesterov: lambda rate: keras.optimizers.SGD(rate, momentum=0.9, nesterov=True),
        optimizers.AdaGrad: keras.optimizers.Adagrad,
        optimizers.RMSProp: lambda rate: keras.optimizers.RMSprop(rate, rho=0.99, epsilon=1e-8),
    }[make]
    small = [1e-4 * g for g in gradients(30)]
    ours, keras_own = (trajectory(f(optimizers.StepDecay(0.01, [10])), START, small)[-1] for f in (make, twin))
    moved = np.abs(ours - START.astype("float32")).max()
    assert (np.abs(ours - keras_own).max() > 1e-2 * moved) == (make is not optimizers.Nesterov)


def test_weight_decay_spares_biases_and_normalisation_unless_asked():
    model = keras.Sequential([keras.Input((4,)), keras.layers.Dense(3), keras.layers.BatchNormalization()])
    for variable in model.trainable_variables:
        variable.assign(ops.ones(variable.shape))
    zeros = [ops.zeros(v.shape) for v in model.trainable_variables]
    for spare in (True, False):
        optimizer = optimizers.Adam(0.1, weight_decay=0.5, decay_biases=not spare)
        optimizer.apply(zeros, model.trainable_variables)
    kernel, bias, gamma, beta = (float(ops.convert_to_numpy(v).flat[0]) for v in model.trainable_variables)
    assert kernel == pytest.approx(0.95**2)
    assert bias == gamma == beta == pytest.approx(0.95)


def test_excluded_variables_do_not_decay():
    optimizer = optimizers.Momentum(0.1, weight_decay=0.5)
    optimizer.exclude_from_weight_decay(var_names=["spared"])
    spared, decayed = keras.Variable(np.ones((2, 2)), name="spared"), keras.Variable(np.ones((2, 2)), name="kernel")
    optimizer.apply([ops.zeros((2, 2))] * 2, [spared, decayed])
    assert float(ops.max(spared)) == 1 and float(ops.max(decayed)) == pytest.approx(0.95)


def test_momentum_leaves_the_saddle_where_sgd_sticks():
    """f = x² − y² + y⁴/4 from (1, 1e-4), with minima of −1 at y = ±√2."""

    def descend(optimizer):
        point = keras.Variable(np.array([1.0, 1e-4], "float32"), name="kernel")
        for _ in range(60):
            x, y = np.array(ops.convert_to_numpy(point))
            optimizer.apply([ops.convert_to_tensor(np.array([2 * x, -2 * y + y**3], "float32"))], [point])
        x, y = ops.convert_to_numpy(point)
        return x * x - y * y + y**4 / 4

    assert descend(optimizers.Momentum(0.02, rho=0.0)) > -0.01
    assert descend(optimizers.Momentum(0.02, rho=0.9)) < -0.5


@pytest.mark.parametrize("decay", [0.0, 0.01, 0.3, 0.5, 0.9, 0.999])
@pytest.mark.parametrize("name", ["RMSProp", "Adam"])
def test_small_gradients_after_a_large_one_are_not_swallowed(name, decay):
    """For every decay the averages keep their digits: compared with float64."""
    options = {"RMSProp": {"rho": decay}, "Adam": {"beta_1": decay, "beta_2": decay}}[name]
    grads = [np.full((2, 2), g, "float32") for g in (1e4, 1e-3, 1.0, 1e4, -2e-2, 1e-3, 0.5)]
    path = trajectory(getattr(optimizers, name)(0.01, **options), np.zeros((2, 2)), grads)
    m = s = x = 0.0
    for t, g in enumerate((float(g[0, 0]) for g in grads), 1):
        s = decay * s + (1 - decay) * g * g
        if name == "RMSProp":
            x -= 0.01 * g / (s**0.5 + 1e-8)
        else:
            m = decay * m + (1 - decay) * g
            x -= 0.01 * m / (1 - decay**t) / ((s / (1 - decay**t)) ** 0.5 + 1e-8)
        np.testing.assert_allclose(path[t - 1], x, rtol=2e-5, atol=1e-7)
    if decay == 0:  # every step has length α
        np.testing.assert_allclose(np.abs(np.diff(path[:, 0, 0])), 0.01, rtol=1e-4)


def test_two_optimizers_of_a_class_have_different_names():
    """As Keras's own have; a name that is given stays."""
    for make in (
        optimizers.Adam,
        optimizers.RMSProp,
        lambda: optimizers.Discriminative(optimizers.Adam(), {".*": 1.0}),
    ):
        first, second = make(), make()
        assert second.name.startswith(first.name.rstrip("0123456789_")) and first.name != second.name
    assert optimizers.Adam(name="mine").name == optimizers.Adam(name="mine").name == "mine"


@pytest.mark.parametrize("wrong", [{"rho": 1.0}, {"rho": -0.1}])
def test_wrong_arguments_are_named(wrong):
    with pytest.raises(ValueError, match="rho must be"):
        optimizers.Momentum(0.1, **wrong)


def test_one_variable_of_several_may_have_the_only_gradient():
    """As where the others are watched by no tape: they keep their values."""
    variables = [keras.Variable(np.ones(3, "float32"), name=name) for name in ("a", "b")]
    optimizer = optimizers.Adam(0.1)
    optimizer.build(variables)
    optimizer.apply([ops.ones(3), None], variables)
    np.testing.assert_allclose(ops.convert_to_numpy(variables[0]), 0.9, atol=1e-5)
    np.testing.assert_array_equal(ops.convert_to_numpy(variables[1]), 1)
